"""Queries written back as data files: VLGuard's and LLaVA's formats, with their pictures beside them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unmirage.errors import UserError
from unmirage.runs import write_json
from unmirage.schema import Query, content_hash

IMAGES = "images"
Marks = Mapping[str, Mapping[str, Any]]
"""Further keys of a row, by the query's id."""


def write_vlguard(
    queries: Sequence[Query], file: Path, names: Mapping[Path, str], marks: Marks | None = None
) -> list[Query]:
    """Writes one row for each query, and returns those that the format cannot hold, as they have no picture.

    A harmful query becomes an unsafe row, a harmless one a safe row with its safe question alone. `names` are those of
    the pictures, see `place_images`. Loaded again, ids end as VLGuard's do ("/unsafe", "/safe_safe").
    """
    held = [query for query in queries if query.image is not None]
    _check_ids(held, file)
    write_json(file, [_vlguard_row(query, names, (marks or {}).get(query.id, {})) for query in held])
    return [query for query in queries if query.image is None]


def write_llava(
    queries: Sequence[Query], file: Path, names: Mapping[Path, str], marks: Marks | None = None
) -> list[Query]:
    """Writes one conversation for each query, and returns those that the format cannot hold, as they have no answer.

    The format has no place for whether a question is harmful: read again, all are harmless.
    """
    held = [query for query in queries if query.reference is not None]
    _check_ids(held, file)
    write_json(file, [_llava_row(query, names, (marks or {}).get(query.id, {})) for query in held])
    return [query for query in queries if query.reference is None]


WRITERS: dict[str, Callable[..., list[Query]]] = {"vlguard": write_vlguard, "llava": write_llava}


def place_images(queries: Iterable[Query], folder: Path) -> dict[Path, str]:
    """Puts the queries' pictures into `folder`, and returns their names there.

    A picture is linked where it can be (no byte is copied), else copied. It keeps its name, with a hash of its old
    place where another picture has that name.
    """
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for source in dict.fromkeys(query.image for query in queries if query.image is not None):
        name = source.name
        if name in taken:
            name = f"{source.stem}-{content_hash(str(source.resolve()))[:8]}{source.suffix}"
        taken.add(name)
        names[source] = name
        _place(source, folder / name)
    return names


def _place(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def _check_ids(queries: Sequence[Query], file: Path) -> None:
    seen: set[str] = set()
    for query in queries:
        if query.id in seen:
            raise UserError(f"{file}: two queries have the id {query.id!r}; give them other ids, or write two files.")
        seen.add(query.id)


def _vlguard_row(query: Query, names: Mapping[Path, str], marks: Mapping[str, Any]) -> dict[str, Any]:
    assert query.image is not None
    key = "instruction" if query.harmful else "safe_instruction"
    pair = {key: query.question} | ({} if query.reference is None else {"response": query.reference})
    # Loading adds the ending again, so that a query keeps its id on the way.
    base = query.id.removesuffix("/unsafe" if query.harmful else "/safe_safe")
    row = {"id": base, "image": names[query.image], "safe": not query.harmful}
    about = {"harmful_category": query.subset or "", "harmful_subcategory": ""} if query.harmful else {}
    return {**row, **about, **marks, "instr-resp": [pair]}


def _llava_row(query: Query, names: Mapping[Path, str], marks: Mapping[str, Any]) -> dict[str, Any]:
    picture = {"image": names[query.image]} if query.image is not None else {}
    asked = f"<image>\n{query.question}" if query.image is not None else query.question
    turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": query.reference}]
    return {"id": query.id, **picture, **marks, "conversations": turns}
