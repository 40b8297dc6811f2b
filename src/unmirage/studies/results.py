"""The records that documents are filled from: read from run folders and from small files that are kept with them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from unmirage.errors import UserError
from unmirage.runs import MANIFEST, read_manifest, write_text
from unmirage.schema import Metrics, Record
from unmirage.studies.audits import audit_records

DIGITS = 6
"""Decimals of what is packed; no document shows more."""
_SEEDED = re.compile(r" \(seed (\d+)\)$")


class Source(BaseModel):
    """The run that packed records come from: id, command, git commit and packages' versions, by its manifest."""

    model_config = ConfigDict(extra="forbid")

    run: str
    command: str
    git: str | None
    versions: dict[str, str]


class Pack(Metrics):
    """A file of results that is small enough to be kept beside the documents: `Metrics` with where they come from."""

    runs: list[Source] = Field(default=[])


def read_results(paths: Sequence[Path]) -> list[Record]:
    """The records of run folders and of packed files, each once, with the mirage scores of a recipe's data.

    A study may thus be put together from several runs, and from an earlier pack of some of them.

    A model that a recipe made with several seeds is there "NAME (seed N)"; here it is NAME, its seed being a field of
    its own. Raises UserError where a file is missing or broken.
    """
    found: dict[str, Record] = {}
    for path in paths:
        for record in map(_plainly_named, [*_read(path).records, *audit_records(path)]):
            found.setdefault(_packed(record), record)
    return list(found.values())


def _read(path: Path) -> Pack:
    file = path / "metrics.json" if path.is_dir() else path
    try:
        return Pack.model_validate_json(file.read_bytes())
    except OSError as error:
        raise UserError(
            f"{file} cannot be read ({error.strerror}); give the folder of a run that has ended, or a packed file."
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{file}, field {field!r}: {first['msg']}; measure the run again, or pack it anew.") from None


def _plainly_named(record: Record) -> Record:
    found = _SEEDED.search(record.model)
    if found is None or int(found[1]) != record.seed:
        return record
    return record.model_copy(update={"model": record.model[: found.start()]})


def sources(paths: Iterable[Path]) -> list[Source]:
    """Where the records of these runs and packs come from."""
    found: list[Source] = []
    for path in paths:
        if path.is_dir() and (path / MANIFEST).exists():
            manifest = read_manifest(path)
            versions = {name: version for name, version in manifest.versions.items() if name != "platform"}
            found.append(Source(run=manifest.id, command=manifest.command, git=manifest.git, versions=versions))
        elif not path.is_dir():
            found += _read(path).runs
    return found


def write_pack(path: Path, records: Iterable[Record], runs: Sequence[Source]) -> Path:
    """Write records, rounded, one a line and without fields that say nothing, in one step."""
    lines = [_packed(record) for record in records]
    head = {
        "schema": 1,
        "run": "+".join(dict.fromkeys(source.run for source in runs)) or "packed",
        "runs": [source.model_dump() for source in runs],
    }
    start = json.dumps(head, ensure_ascii=False, indent=1).removesuffix("\n}")
    return write_text(path, f'{start},\n "records": [\n' + ",\n".join(lines) + "\n]}\n")


def _packed(record: Record) -> str:
    """One line of a pack; a record of a run and the same one of a pack are alike in it."""
    rounded = {
        name: None if value is None else round(value, DIGITS)
        for name, value in (("value", record.value), ("low", record.low), ("high", record.high))
    }
    return json.dumps(record.model_dump(exclude_defaults=True) | rounded, ensure_ascii=False)
