"""Queries written as data files with their pictures beside them: VLGuard's and LLaVA's formats, Parquet, JSON Lines.

`write_vlguard` and `write_llava` take queries that are in memory. The writers in `STREAMS` take them one after the
other, in memory for names and ids alone, and count what the target cannot hold.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from unmirage.datasets.ids import Ids
from unmirage.datasets.vlguard import SAFE_SAFES, SAFE_UNSAFES, UNSAFES, Subset
from unmirage.errors import UserError
from unmirage.runs import write_json
from unmirage.schema import Query

IMAGES = "images"
Marks = Mapping[str, Mapping[str, Any]]
"""Further keys of a row, by the query's id."""


def write_vlguard(
    queries: Sequence[Query],
    file: Path,
    names: Mapping[Path, str],
    marks: Marks | None = None,
    *,
    text_only: bool = False,
) -> list[Query]:
    """Writes one row for each query, and returns those that the format cannot hold, as they have no picture.

    With `text_only` they are written too, with a picture that is null: `unmirage` reads that, VLGuard's own code does
    not.
    A harmful query becomes an unsafe row, a harmless one a safe row with its safe question alone. `names` are those of
    the pictures, see `place_images`. Loaded again, ids end as VLGuard's do ("/unsafe", "/safe_safe").
    """
    held = [query for query in queries if query.image is not None or text_only]
    _check_ids(held, file)
    write_json(file, [_vlguard_row(query, names, (marks or {}).get(query.id, {})) for query in held])
    return [query for query in queries if query.image is None and not text_only]


def write_llava(
    queries: Sequence[Query], file: Path, names: Mapping[Path, str], marks: Marks | None = None
) -> list[Query]:
    """Writes one conversation for each query, and returns those that the format cannot hold, as they have no answer.

    The format has no place for whether a question is harmful: those that are carry the key "harmful", which other
    readers than ours do not know.
    """
    held = [query for query in queries if query.reference is not None]
    _check_ids(held, file)
    write_json(file, [_llava_row(query, names, (marks or {}).get(query.id, {})) for query in held])
    return [query for query in queries if query.reference is None]


WRITERS: dict[str, Callable[..., list[Query]]] = {"vlguard": write_vlguard, "llava": write_llava}


def place_images(queries: Iterable[Query], folder: Path) -> dict[Path, str]:
    """Puts the queries' pictures into `folder`, and returns their names there.

    A picture is linked where it can be (no byte is copied), else copied. It keeps its name, with a number where another
    picture has that name.
    """
    pictures = Pictures(folder)
    for query in queries:
        if query.image is not None:
            pictures.name(query.image)
    return pictures.names


@dataclass
class Pictures:
    """Puts pictures into a folder as they come, each once, and knows their names there; see `place_images`."""

    folder: Path
    names: dict[Path, str] = field(default_factory=dict)
    _taken: dict[str, int] = field(default_factory=dict)

    def name(self, source: Path) -> str:
        """The picture's name in the folder, where it is from now on. OSError where it cannot be put there."""
        if source not in self.names:
            self.names[source] = name = self._free(source)
            _place(source, self.folder / name)
        return self.names[source]

    def _free(self, source: Path) -> str:
        name = source.name
        while name in self._taken:
            self._taken[source.name] += 1
            name = f"{source.stem}-{self._taken[source.name]}{source.suffix}"
        self._taken[name] = 1
        return name


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
    key = "instruction" if query.harmful else "safe_instruction"
    pair = {key: query.question} | ({} if query.reference is None else {"response": query.reference})
    # Loading adds the ending again, so that a query keeps its id on the way.
    base = query.id.removesuffix("/unsafe" if query.harmful else "/safe_safe")
    image = None if query.image is None else names[query.image]
    row = {"id": base, "image": image, "safe": not query.harmful}
    about = {"harmful_category": query.subset or "", "harmful_subcategory": ""} if query.harmful else {}
    return {**row, **about, **marks, "instr-resp": [pair]}


def _llava_row(query: Query, names: Mapping[Path, str], marks: Mapping[str, Any]) -> dict[str, Any]:
    picture = {"image": names[query.image]} if query.image is not None else {}
    asked = f"<image>\n{query.question}" if query.image is not None else query.question
    turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": query.reference}]
    harmful = {"harmful": True} if query.harmful else {}
    return {"id": query.id, **picture, **harmful, **marks, "conversations": turns}


@dataclass
class Written:
    """What a stream of queries became: questions and rows written, and what the format could not hold, by its name.

    `left_out` counts queries that are not in the file; `dropped` counts parts of queries that are.
    """

    questions: int = 0
    rows: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a stream is written: the data file, its pictures, and further keys that every row gets.

    `image_bytes` puts the pictures into the file itself, where the format can (Parquet). `split` is that of the whole
    source, which is recorded elsewhere, so that it is not lost with a format that has no place for it.
    """

    file: Path
    pictures: Pictures
    marks: Mapping[str, Any] = field(default_factory=dict)
    image_bytes: bool = False
    split: str | None = None

    def path(self, source: Path | None) -> str | None:
        """The picture's path as seen from the data file; the picture is put there."""
        if source is None:
            return None
        return (self.pictures.folder / self.pictures.name(source)).relative_to(self.file.parent).as_posix()


def stream_vlguard(queries: Iterable[Query], place: Place) -> Written:
    """VLGuard's format: queries about one picture that were one row ("x/safe_safe", "x/safe_unsafe") are one again.

    A harmful query is an unsafe row, unless its subset says that the picture is safe; a harmless one is a safe row.
    """
    done = Written()
    rows = (_row_of(group, place) for group in _vlguard_groups(queries, place, done))
    _write_list(place.file, rows, done)
    return done


def stream_llava(queries: Iterable[Query], place: Place) -> Written:
    """LLaVA's format. Rows that were harmful carry the key "harmful", which other readers than ours do not know."""
    done = Written()
    _write_list(place.file, _llava_rows(queries, place, done), done)
    return done


def stream_jsonl(queries: Iterable[Query], place: Place) -> Written:
    """One object a line with everything that a query has; `image` is a path as seen from the file."""
    done = Written()
    with place.file.open("w", encoding="utf-8") as opened:
        for query in queries:
            row = {**_columns(query), "image": place.path(query.image), **place.marks}
            opened.write(json.dumps(row, ensure_ascii=False) + "\n")
            done.questions += 1
        _sync(opened)
    done.rows = done.questions
    return done


ROWS_WITH_BYTES = 250
ROWS = 10_000
"""Rows of a Parquet row group, which is what is in memory at a time: few where pictures are in it."""


def stream_parquet(queries: Iterable[Query], place: Place) -> Written:
    """Parquet with everything that a query has; `image` is `{bytes, path}`, as Hugging Face's `Image` feature has it.

    The schema's metadata names the features, so that the library `datasets` shows the pictures.
    """
    from polars.io.plugins import register_io_source

    done, size = Written(), ROWS_WITH_BYTES if place.image_bytes else ROWS
    schema, left = _parquet_schema(place.marks), iter(queries)

    def _frames(*_: Any) -> Iterator[Any]:
        import polars

        while batch := list(islice(left, size)):
            rows = [{**_columns(query), "image": _picture(query, place), **place.marks} for query in batch]
            done.questions += len(rows)
            yield polars.DataFrame(rows, schema=schema, orient="row")

    source = register_io_source(_frames, schema=schema)
    features = {"huggingface": json.dumps(_features(schema))}
    source.sink_parquet(place.file, row_group_size=size, statistics=False, metadata=features)
    _hide_arrow_schema(place.file)
    done.rows = done.questions
    return done


STREAMS: dict[str, Callable[[Iterable[Query], Place], Written]] = {
    "vlguard": stream_vlguard,
    "llava": stream_llava,
    "parquet": stream_parquet,
    "jsonl": stream_jsonl,
}
SUFFIXES = {"vlguard": ".json", "llava": ".json", "parquet": ".parquet", "jsonl": ".jsonl"}
Groups = Iterator[tuple[str, list[tuple[Subset, Query]]]]


def _subset_of(query: Query) -> Subset:
    if not query.harmful:
        return SAFE_SAFES
    return SAFE_UNSAFES if query.subset == SAFE_UNSAFES.name else UNSAFES


def _vlguard_groups(queries: Iterable[Query], place: Place, done: Written) -> Groups:
    """The queries of one row after the other, with the row's id; ids of rows are unique."""
    taken = Ids()
    base, group = "", list[tuple[Subset, Query]]()
    for query in queries:
        if query.image is None:
            done.left_out["without a picture"] += 1
            continue
        _count_dropped(query, place, done)
        subset = _subset_of(query)
        own = query.id.removesuffix(f"/{subset.suffix}")
        if group and not (own == base and _fits(subset, query, group)):
            yield _row_id(base, taken, done), group
            group = []
        base = own
        group.append((subset, query))
    if group:
        yield _row_id(base, taken, done), group


def _fits(subset: Subset, query: Query, group: list[tuple[Subset, Query]]) -> bool:
    """Whether a query can be in a row: a safe row has one safe and one unsafe question about the same picture."""
    first, other = group[0]
    return len(group) == 1 and other.image == query.image and {first, subset} == {SAFE_SAFES, SAFE_UNSAFES}


def _row_id(base: str, taken: Ids, done: Written) -> str:
    unique = taken.add(base)
    if unique != base:
        done.dropped["id, which another row has (a number was added)"] += 1
    return unique


def _count_dropped(query: Query, place: Place, done: Written) -> None:
    done.questions += 1
    named = query.subset is not None and query.subset != _subset_of(query).name
    lost = {
        "answers of several people": bool(query.answers),
        "split": query.split not in (None, place.split),
        "subset": named and not query.harmful,
        "subset (it is in the file as harmful_category)": named and query.harmful,
    }
    done.dropped.update(name for name, is_lost in lost.items() if is_lost)


def _row_of(named: tuple[str, list[tuple[Subset, Query]]], place: Place) -> dict[str, Any]:
    row_id, group = named
    subset, query = group[0]
    assert query.image is not None
    category = "" if query.subset in (None, UNSAFES.name) else query.subset
    about = {"harmful_category": category, "harmful_subcategory": ""} if subset is UNSAFES else {}
    row = {"id": row_id, "image": place.pictures.name(query.image), "safe": subset is not UNSAFES}
    return {**row, **about, **place.marks, "instr-resp": [_pair(*one) for one in group]}


def _pair(subset: Subset, query: Query) -> dict[str, str]:
    return {subset.key: query.question} | ({} if query.reference is None else {"response": query.reference})


def _llava_rows(queries: Iterable[Query], place: Place, done: Written) -> Iterator[dict[str, Any]]:
    for query in queries:
        if query.reference is None:
            done.left_out["without an answer"] += 1
            continue
        done.questions += 1
        lost = {
            "label that it is harmful (it is in the file, for this program alone)": query.harmful,
            "answers of several people": bool(query.answers),
            "split": query.split not in (None, place.split),
            "subset": query.subset is not None,
        }
        done.dropped.update(name for name, is_lost in lost.items() if is_lost)
        names = {} if query.image is None else {query.image: place.pictures.name(query.image)}
        yield _llava_row(query, names, place.marks)


def _write_list(file: Path, rows: Iterable[dict[str, Any]], done: Written) -> None:
    """A JSON list with one row a line, written as the rows come."""
    with file.open("w", encoding="utf-8") as opened:
        for row in rows:
            opened.write(("[\n" if done.rows == 0 else ",\n") + json.dumps(row, ensure_ascii=False))
            done.rows += 1
        opened.write("\n]\n" if done.rows else "[]\n")
        _sync(opened)


def _sync(opened: Any) -> None:
    opened.flush()
    os.fsync(opened.fileno())


def _columns(query: Query) -> dict[str, Any]:
    return {
        "id": query.id,
        "question": query.question,
        "answer": query.reference,
        "harmful": query.harmful,
        "image": None,
        "split": query.split,
        "subset": query.subset,
        "answers": list(query.answers),
    }


def _picture(query: Query, place: Place) -> dict[str, Any] | None:
    if query.image is None:
        return None
    if not place.image_bytes:
        return {"bytes": None, "path": place.path(query.image)}
    try:
        return {"bytes": query.image.read_bytes(), "path": query.image.name}
    except OSError as error:
        raise UserError(
            f"{query.image}, the picture of {query.id!r}, cannot be read: {error.strerror}; fetch it again."
        ) from error


def _parquet_schema(marks: Mapping[str, Any]) -> dict[str, Any]:
    """Names and types of the columns; marks are true or false."""
    import polars

    text = polars.String
    picture = polars.Struct({"bytes": polars.Binary, "path": text})
    columns: dict[str, Any] = {"id": text, "question": text, "answer": text, "harmful": polars.Boolean}
    columns |= {"image": picture, "split": text, "subset": text, "answers": polars.List(text)}
    return columns | dict.fromkeys(marks, polars.Boolean)


def _features(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The features as the library `datasets` keeps them under the key "huggingface" of a schema's metadata."""
    import polars

    text = {"dtype": "string", "_type": "Value"}
    known: dict[Any, Any] = {
        polars.String: text,
        polars.Boolean: {"dtype": "bool", "_type": "Value"},
        polars.List: {"feature": text, "_type": "Sequence"},
        polars.Struct: {"_type": "Image"},
    }
    return {"info": {"features": {name: known[kind.base_type()] for name, kind in schema.items()}}}


_ARROW_SCHEMA = b"\x18\x0cARROW:schema"
"""The key as the footer has it, in Thrift's compact protocol: a string field, its length, and 12 characters."""


def _hide_arrow_schema(file: Path) -> None:
    """Give the Arrow schema in a Parquet footer another name of the same length.

    Where there is one, pyarrow, and `datasets` with it, takes the schema's metadata from there, and polars puts none
    into it; where there is none, they are those of the file. Types are the same without it.
    """
    with file.open("r+b") as opened:
        opened.seek(-8, os.SEEK_END)
        length = int.from_bytes(opened.read(4), "little")
        opened.seek(-8 - length, os.SEEK_END)
        at = opened.read(length).rfind(_ARROW_SCHEMA)
        if at >= 0:
            opened.seek(-8 - length + at, os.SEEK_END)
            opened.write(_ARROW_SCHEMA.replace(b":", b"."))
        _sync(opened)
