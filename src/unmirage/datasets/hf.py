"""Any data set of the Hugging Face Hub as it lies in a folder: Parquet shards, what `save_to_disk` wrote, or text.

Text is JSON lines, JSON lists and CSV, `metadata.jsonl` of a folder of pictures among them. It is read where a file or
the format is named and where no table is beside it; without a README that lists such files they are not recognised, as
any file may have a column of that name.

Which column is which follows from its name, see `NAMES`; pictures are `{bytes, path}` as the library keeps them, or
names of files. The parts of Parquet files follow from `configs` of the README's header, where it has them, else from
the files' names ("train-00000-of-00002.parquet"). What numbers of a label stand for is read from the features that the
library writes beside the data (`dataset_info.json`, `dataset_infos.json`, or the Parquet files' own metadata).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, create_model

from unmirage.datasets import beavertails_v, spa_vl
from unmirage.datasets.catalog import Part
from unmirage.datasets.columnar import (
    Shard,
    TableReader,
    columns_of,
    parts_of,
    place_of,
    records_of,
    shards_in,
    table_reader,
    texts_in,
    the_shards,
)
from unmirage.datasets.files import Words
from unmirage.datasets.loaded import Note
from unmirage.datasets.safety import Columns, picture_folder
from unmirage.datasets.streaming import Begun, Source, SteppedLoader
from unmirage.datasets.textual import is_text
from unmirage.datasets.words import harm, truth
from unmirage.errors import UserError
from unmirage.schema import Text

NAMES: dict[str, tuple[str, ...]] = {
    "question": ("question", "prompt", "instruction", "query"),
    "answer": ("answer", "response", "output", "completion"),
    "image": ("image", "images", "file_name"),
    "label": ("harmful", "is_harmful", "unsafe", "is_unsafe", "safe", "is_safe", "label"),
    "id": ("id", "question_id"),
}
"""The names that a column of each sort may have; the first that is there is taken. Case does not matter."""
SAFE = ("safe", "is_safe")
FIRST = 50
"""Rows of a text whose pictures are looked for to find their folder."""
WHAT = "a folder of Parquet files, of a saved data set, or of JSON lines, JSON lists or CSV; or one of its files"


@dataclass(frozen=True, slots=True)
class Roles:
    """Which column of a table is which; None where there is none."""

    question: str
    answer: str | None
    image: str | None
    label: str | None
    id: str | None
    unused: tuple[str, ...]


def find(folder: Path) -> list[Part]:
    """The parts of a data set with a column of questions that is none of those that have a format of their own."""
    if spa_vl.find(folder) or beavertails_v.find(folder):
        return []
    shards = [shard for shard in _shards(folder) if _asks(shard)]
    return [Part("hf", part, place_of(folder, held)) for part, held in parts_of(shards).items()]


@SteppedLoader
def load(source: Source) -> Begun:
    """Read a data set; the options are those of `unmirage.datasets.load`, `split` names one of several parts.

    Ids are those of the column of ids, else `<file>/<row>`. A column "harmful" or "unsafe" says yes or no, "safe" the
    opposite, "label" says harmful or safe; without one of them all rows are harmless, which is told. Raises UserError
    naming the columns found where none has a question's name, or where a label says neither.
    """
    reader = table_reader(source)
    return reader, _read(reader, source.path, source.split, source.images is not None)


def _pictures(shard: Shard, column: str) -> Path:
    """The folder of the pictures that a text names, by those that its first rows name."""
    first = islice(records_of(shard.path, [column]), FIRST)
    named = [row[column] for row in first if isinstance(row, dict) and isinstance(row[column], str)]
    return picture_folder(shard.path, None, ("", "images", "../images", ".."), named)


def _read(reader: TableReader, path: Path, split: str | None, given: bool) -> Iterator[None]:
    """Read all rows, pausing after each; `given` is whether a folder of pictures was."""
    for shard in _chosen(path, split):
        roles = _roles(shard)
        _tell(reader, shard, roles)
        if is_text(shard.path) and roles.image is not None and not given:
            reader.beside = _pictures(shard, roles.image)
        yield from _ask(reader, shard, roles)
    reader.done(path)


def _chosen(path: Path, split: str | None) -> list[Shard]:
    named = _configured(path) if path.is_dir() else {}
    if not named:
        return the_shards(path, split, WHAT, texts=True)
    if split in named:
        return named[split]
    if len(named) > 1:
        raise UserError(f"{path} holds several parts: {', '.join(named)}; name one with --split, or give its files.")
    return next(iter(named.values()))


def _shards(folder: Path) -> list[Shard]:
    named = _configured(folder)
    return [shard for held in named.values() for shard in held] if named else shards_in(folder)


def _configured(folder: Path) -> dict[str, list[Shard]]:
    """The parts that the README's header lists, by name ("train", or "config/train" of several configurations)."""
    configs = _header(folder).get("configs")
    listed = [one for one in configs if isinstance(one, dict)] if isinstance(configs, list) else []
    known = {shard.path: shard for shard in [*shards_in(folder), *texts_in(folder)]} if listed else {}
    parts: dict[str, list[Shard]] = {}
    for config in listed:
        for part, pattern in _patterns(config.get("data_files")):
            name = part if len(listed) == 1 else f"{config.get('config_name', 'default')}/{part}"
            held = [known[file] for file in sorted(folder.glob(pattern)) if file in known] if _inside(pattern) else []
            parts.setdefault(name, []).extend(Shard(one.path, name, one.key) for one in held)
    return {name: held for name, held in parts.items() if held}


def _patterns(files: Any) -> Iterator[tuple[str, str]]:
    """Parts and patterns of file names, in any of the forms that the library takes."""
    if isinstance(files, str):
        yield "train", files
    for one in files if isinstance(files, list) else ():
        if isinstance(one, str):
            yield "train", one
        elif isinstance(one, dict):
            several = one.get("path")
            for pattern in several if isinstance(several, list) else [several]:
                if isinstance(pattern, str):
                    yield str(one.get("split", "train")), pattern


def _inside(pattern: str) -> bool:
    return bool(pattern) and not Path(pattern).is_absolute() and ".." not in Path(pattern).parts


def _header(folder: Path) -> dict[str, Any]:
    """The YAML at the top of the README; empty where there is none or it is broken: then names of files decide."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8-sig")
        found = re.match(r"---\s*\n(.*?)\n---", text, flags=re.DOTALL)
        held = yaml.safe_load(found[1]) if found else {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return held if isinstance(held, dict) else {}


def _roles(shard: Shard) -> Roles:
    columns = list(columns_of(shard.path))
    lower = {name.lower(): name for name in reversed(columns)}
    found = {role: next((lower[name] for name in names if name in lower), None) for role, names in NAMES.items()}
    question = found.pop("question")
    if question is None:
        wanted = ", ".join(NAMES["question"])
        raise UserError(
            f"{shard.path} has no column of questions, called {wanted}: its columns are "
            f"{', '.join(columns)}. Rename one."
        )
    unused = tuple(name for name in columns if name not in {question, *found.values()})
    return Roles(question, **found, unused=unused)


def _asks(shard: Shard) -> bool:
    try:
        _roles(shard)
    except UserError:
        return False
    return True


def _tell(reader: TableReader, shard: Shard, roles: Roles) -> None:
    """How the columns were understood, once for each way."""
    read = [f"{role} from {name!r}" for role in NAMES if (name := getattr(roles, role)) is not None]
    told = [f"columns of {shard.part!r}: {', '.join(read)}" + _left(roles.unused)]
    if roles.label is None:
        told.append(
            f"no column of {shard.part!r} says what is harmful ({', '.join(NAMES['label'])}), so all rows are harmless."
        )
    reader.warnings += [Note(line) for line in told if line not in reader.warnings]


def _left(unused: Sequence[str]) -> str:
    return f"; not read: {', '.join(map(repr, unused))}." if unused else "."


def _ask(reader: TableReader, shard: Shard, roles: Roles) -> Iterator[None]:
    classes = _classes(shard, roles.label)
    model = _model(roles)
    for number, raw in reader.rows(shard, roles.image, roles.unused):
        row: Any = reader.row(model, number, raw)
        harmful = _harmful(reader, number, roles.label, row.label, classes) if row is not None else None
        if harmful is not None:
            key = row.id or f"{shard.key}/{number}"
            more: dict[str, Any] = {"reference": (row.answer or "").strip() or None, "where": roles.question}
            reader.ask(number, key, row.question, row.image or None, harmful=harmful, at=roles.image or "image", **more)
        yield


def _model(roles: Roles) -> type[Columns]:
    """The rows of a table with these columns."""
    fields: dict[str, Any] = {"question": (Words, Field(alias=roles.question))}
    kinds: dict[str, Any] = {"answer": Words | None, "image": str | None, "label": Any, "id": Text | None}
    for role, kind in kinds.items():
        fields[role] = (kind, Field(default=None, alias=getattr(roles, role)))
    model: type[Columns] = create_model("HubRow", __base__=Columns, **fields)
    return model


def _harmful(reader: TableReader, number: int, column: str | None, value: Any, classes: Sequence[str]) -> bool | None:
    """Whether a row is harmful; None, which is reported, where its label is empty."""
    if column is None:
        return False
    if value is None or str(value).strip() == "":
        reader.report(number, column, "no-label", "the label is empty", "write it or leave the row out")
        return None
    named = column.lower() != "label"
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(classes):
        value, named = classes[value], named and truth(classes[value]) is not None
    said = truth(value) if named else harm(value)
    if said is None:
        meaning = "yes or no" if named else "harmful or safe"
        raise UserError(
            f"{reader.file}, row {number} (counting from 0), field {column!r}: {value!r} does not say {meaning}; write "
            "that, or give the column another name if it says something else."
        )
    return not said if named and column.lower() in SAFE else said


def _classes(shard: Shard, column: str | None) -> list[str]:
    """What the numbers of a column stand for, as the library notes it; empty where it does not."""
    for features in _features(shard):
        feature = features.get(column) if column is not None else None
        names = feature.get("names") if isinstance(feature, Mapping) else None
        if isinstance(names, list):
            return [str(name) for name in names]
    return []


def _features(shard: Shard) -> Iterator[Mapping[str, Any]]:
    """Every description of a table's columns that the library wrote beside it or into it."""
    folder = shard.path.parent
    held = [_loaded(folder / "dataset_info.json"), *_loaded(folder / "dataset_infos.json").values()]
    held += _loaded(folder.parent / "dataset_infos.json").values()
    held.append(_embedded(shard.path).get("info"))
    for one in held:
        features = one.get("features") if isinstance(one, Mapping) else None
        if isinstance(features, Mapping):
            yield features


def _embedded(file: Path) -> Mapping[str, Any]:
    import polars

    if file.suffix.lower() == ".arrow" or is_text(file):
        return {}
    try:
        held = json.loads(polars.read_parquet_metadata(file).get("huggingface", "{}"))
    except (ValueError, OSError, polars.exceptions.PolarsError):
        return {}
    return held if isinstance(held, Mapping) else {}


def _loaded(file: Path) -> Mapping[str, Any]:
    try:
        held = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return held if isinstance(held, Mapping) else {}
