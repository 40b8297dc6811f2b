"""Tables in Parquet, and data sets saved by Hugging Face's library: columns, parts, rows one after the other.

Layouts: Parquet files such as `data/train-00000-of-00010.parquet`, each the shard of a part ("train"); and a folder of
`Dataset.save_to_disk` (`state.json`, `data-00000-of-00001.arrow`) or of `DatasetDict.save_to_disk`
(`dataset_dict.json` and one such folder for each part). Of a Parquet file only a few row groups are in memory at a
time, of an Arrow file the whole shard (500 MB where the library wrote it).
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmirage.datasets import textual
from unmirage.datasets.loaded import Note
from unmirage.datasets.pictures import BESIDE, Noted, PictureFolder, folder_for
from unmirage.datasets.safety import SafetyReader
from unmirage.datasets.streaming import Source, first_row_of
from unmirage.errors import UserError

if TYPE_CHECKING:
    import polars as pl

AT_ONCE = 64
"""Rows that are turned into Python objects at a time: with pictures in them, a row may have megabytes."""
SUFFIXES = (".parquet", ".pq", ".arrow")
_SHARD = re.compile(r"(.+?)-(\d+)-of-\d+")
_SEVERAL = "several-pictures"
METADATA = "metadata"
"""What the Hub calls the table of a folder of pictures: the part is then the folder."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of a table: the part that it belongs to, and what the ids of its rows begin with."""

    path: Path
    part: str
    key: str


def shards_in(path: Path) -> list[Shard]:
    """All table files at a path, a file or a folder with all below it, in the order of their names; may be empty."""
    if not path.is_dir():
        return [_shard(path)] if path.suffix.lower() in SUFFIXES and path.is_file() else []
    saved = _saved(path)
    return _apart(saved or [_shard(file) for file in _files(path, SUFFIXES)])


def texts_in(path: Path) -> list[Shard]:
    """The same for tables that are written as text; of JSON those that are lists of objects."""
    if not path.is_dir():
        return [_shard(path)] if textual.is_text(path) and path.is_file() else []
    files = [file for file in _files(path, textual.SUFFIXES) if file.suffix.lower() != ".json" or first_row_of(file)]
    return _apart([_shard(file) for file in files])


def _apart(found: list[Shard]) -> list[Shard]:
    """With keys of their own, from the names of their folders where those of the files are the same."""
    twice = {key for key, count in Counter(shard.key for shard in found).items() if count > 1}
    return [
        Shard(one.path, one.part, f"{one.path.parent.name}/{one.key}") if one.key in twice else one for one in found
    ]


def parts_of(shards: Sequence[Shard]) -> dict[str, list[Shard]]:
    """The shards of each part."""
    parts: dict[str, list[Shard]] = defaultdict(list)
    for shard in shards:
        parts[shard.part].append(shard)
    return dict(parts)


def place_of(folder: Path, shards: Sequence[Shard]) -> Path:
    """The path by which a part is named: its only file, or the folder that holds its files."""
    if len(shards) == 1:
        file = shards[0].path
        return file.parent if file.suffix == ".arrow" else file
    above = {shard.path.parent for shard in shards}
    return above.pop() if len(above) == 1 else folder


def the_shards(path: Path, split: str | None, what: str, *, texts: bool = False) -> list[Shard]:
    """The shards at a path, of the part that `split` names where there are several; UserError where that is unclear.

    With `texts` tables that are written as text count too, where there are no others.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist; give {what}.")
    shards = shards_in(path) or (texts_in(path) if texts else [])
    if not shards:
        raise UserError(f"{path} is no table of Parquet or Arrow, nor a folder that holds one; give {what}.")
    parts = parts_of(shards)
    if split in parts:
        return parts[split]
    if len(parts) > 1:
        raise UserError(f"{path} holds several parts: {', '.join(parts)}; name one with --split, or give its files.")
    return shards


def _files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """The files below a folder that end so, but those that are hidden."""

    def _hidden(file: Path) -> bool:
        return any(part.startswith(".") or part == BESIDE for part in file.relative_to(folder).parts)

    held = (file for file in sorted(folder.rglob("*")) if file.suffix.lower() in suffixes)
    return [file for file in held if not _hidden(file) and file.is_file()]


def _shard(file: Path, folder: str = "") -> Shard:
    cut = _SHARD.fullmatch(file.stem)
    if file.stem == METADATA:
        return Shard(file, file.parent.name, f"{file.parent.name}/{file.stem}")
    if file.suffix == ".arrow" and (file.parent / "state.json").is_file():
        return Shard(file, file.parent.name, f"{file.parent.name}/{cut[2] if cut else file.stem}")
    return Shard(file, cut[1], f"{cut[1]}-{cut[2]}") if cut else Shard(file, file.stem, file.stem)


def _saved(folder: Path) -> list[Shard]:
    """The files of a saved data set in its own order, or of all its parts; empty where the folder is none."""
    listed = folder / "dataset_dict.json"
    if listed.is_file():
        names = _json(listed).get("splits")
        if not isinstance(names, list) or not all(isinstance(name, str) and Path(name).name == name for name in names):
            raise UserError(f"{listed} does not list the parts of a data set; save the data set again.")
        return [shard for name in names for shard in _saved(folder / name)]
    state = folder / "state.json"
    if not state.is_file():
        return []
    files = _json(state).get("_data_files")
    try:
        names = [str(file["filename"]) for file in files or ()]
    except (KeyError, TypeError) as error:
        raise UserError(f"{state} does not list the data files of a data set; save the data set again.") from error
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise UserError(f"{folder} has no file {name!r}, which its state.json names; save the data set again.")
    return [_shard(folder / name) for name in names]


def _json(file: Path) -> dict[str, Any]:
    try:
        held = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} cannot be read as JSON ({error}); save the data set again.") from error
    if not isinstance(held, dict):
        raise UserError(f"{file} does not describe a data set; save the data set again.")
    return held


@contextmanager
def _polars_errors(file: Path) -> Iterator[None]:
    import polars

    try:
        yield
    except (polars.exceptions.PolarsError, OSError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{file} cannot be read as a table: {first}; fetch or write it again.") from error


def columns_of(file: Path) -> dict[str, Any]:
    """The names of a table's columns, and their polars types; UserError where it cannot be read.

    Of text no type is known.
    """
    if textual.is_text(file):
        return dict.fromkeys(textual.columns(file))
    import polars

    with _polars_errors(file):
        if file.suffix.lower() != ".arrow":
            return dict(polars.read_parquet_schema(file))
        return dict(_read_arrow(file, None, 0).schema)


def size_of(file: Path) -> int:
    """How many rows a table has."""
    import polars

    with _polars_errors(file):
        if file.suffix.lower() != ".arrow":
            return int(polars.scan_parquet(file).select(polars.len()).collect().item())
        return _read_arrow(file, None, None).height


def records_of(file: Path, names: Sequence[str]) -> Iterator[Any]:
    """Yield each row of a table as these columns, in order; of text, what is no object as it stands."""
    if textual.is_text(file):
        for raw in textual.records(file):
            yield {name: raw.get(name) for name in names} if isinstance(raw, dict) else raw
    else:
        for frame in frames_of(file, names):
            yield from frame.iter_rows(named=True)


def frames_of(file: Path, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
    """Yield these columns of a table, `AT_ONCE` rows at a time, in order."""
    import polars

    with _polars_errors(file):
        if file.suffix.lower() == ".arrow":
            yield from _read_arrow(file, columns, None).iter_slices(AT_ONCE)
            return
        scan = polars.scan_parquet(file).select(columns)
        for batch in scan.collect_batches(chunk_size=AT_ONCE, maintain_order=True, lazy=True, engine="streaming"):
            yield from batch.iter_slices(AT_ONCE)


def _read_arrow(file: Path, columns: Sequence[str] | None, rows: int | None) -> pl.DataFrame:
    import polars

    with file.open("rb") as opened:
        streaming = opened.read(6) != b"ARROW1"
    read = polars.read_ipc_stream if streaming else polars.read_ipc
    return read(file, columns=None if columns is None else list(columns), n_rows=rows)


@dataclass
class TableReader(SafetyReader):
    """Reads rows of tables whose pictures lie inside them or are named by them; both may occur in one table.

    `inside` takes the pictures that lie inside; `beside` is the folder of those that are only named.
    """

    inside: PictureFolder | None = None
    beside: Path | None = None

    def rows(self, shard: Shard, picture: str | None, unused: Sequence[str] = ()) -> Iterator[tuple[int, Any]]:
        """Yield number and content of each row, its picture as a name in `folder`, which is set for each row.

        Columns that are `unused` are not read. The problems of these rows are told under the shard's own name.
        """
        self.file = shard.path
        names = [name for name in columns_of(shard.path) if name not in unused]
        known = self._recalled(shard, picture)
        held = names if known is None else [name for name in names if name != picture] or names
        notes: list[Noted] = []
        for number, raw in enumerate(records_of(shard.path, held)):
            if not isinstance(raw, dict):
                pass
            elif picture is not None and known is None:
                raw[picture] = self._picture(number, picture, raw[picture], notes)
            elif picture is not None and known is not None and self.inside is not None:
                raw[picture], self.folder = known[number], self.inside.folder
            yield number, raw
        if self.inside is not None and picture is not None and notes and all(notes):
            self.inside.note(shard.path, picture, notes)

    def _recalled(self, shard: Shard, picture: str | None) -> list[str] | None:
        """The names of all rows' pictures, where an earlier reading noted them."""
        noted = self.inside.recall(shard.path, picture) if self.inside is not None and picture is not None else None
        names = [note[0] for note in noted or () if note is not None]
        return names if names and len(names) == size_of(shard.path) else None

    def _picture(self, number: int, column: str, value: Any, notes: list[Noted]) -> str | None:
        """The name of a row's picture; sets the folder in which that is."""
        assert self.inside is not None
        data, name = self._content(number, column, value)
        if data is None:
            notes.append(None)
            self.folder = self.beside or self.inside.folder
            return name
        name = self.inside.put(data)
        # A row with several is not noted, so that the next reading tells of it too.
        notes.append(None if isinstance(value, list) and len(value) > 1 else self.inside.noted(name))
        self.folder = self.inside.folder
        return name

    def _content(self, number: int, column: str, value: Any) -> tuple[bytes | None, str | None]:
        """The bytes of a picture, or the name of its file."""
        if isinstance(value, list):
            if len(value) > 1:
                what = f"the row has {len(value)} pictures"
                self.report(number, column, _SEVERAL, what, "only the first is used", skipped=False)
            value = value[0] if value else None
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes):
            return value, None
        return None, value if value is None or isinstance(value, str) else str(value)

    def done(self, path: Path) -> None:
        """All tables were read: tell what was written, and name the whole again."""
        self.file = path
        if self.inside is not None:
            self.warnings += map(Note, self.inside.told())


def table_reader(source: Source) -> TableReader:
    """A reader of tables at a path; `images` is where pictures are named or, where they lie inside, are put."""
    path, images = source.path, source.images
    inside = folder_for(path, images)
    home = path if path.is_dir() else path.parent
    beside = Path(images) if images else next((p for p in (home / "images", home) if p.is_dir()), home)
    folder = path.absolute().parent if path.name == "data" else path
    title = source.name or (folder.name if path.is_dir() else _shard(path).part)
    reader = TableReader(
        path, title, beside, source.split, source.strict, source.verify_images, source.require_images
    )  # fmt: skip
    reader.inside, reader.beside = inside, beside
    return reader
