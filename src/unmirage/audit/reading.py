"""Files as rows: CSV, JSON lines, JSON, Parquet and Hugging Face data set folders, one dictionary a row.

Rows are numbered from 0 in the order of the file. What cannot be a row at all (a torn line, a wrong quote, bytes that
are no text) is a `UserError` that names the line, because nothing after it can be trusted; a line of JSON lines that
is broken by itself is a `Fault` in its place.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl

from unmirage.datasets.files import kind_of
from unmirage.errors import UserError
from unmirage.tables import next_record

LONGEST = 4 << 20
"""Most bytes of one line, and most characters of one field: a longer one is no question but a broken file."""
BATCH = 65_536
SUFFIXES = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """Why something in a file is not a row."""

    what: str
    fix: str


Raw = dict[str, Any] | Fault


def sort_of(path: Path) -> str:
    """Which of the readers a file needs: csv, jsonl, json, parquet or arrow; UserError where none fits."""
    if not path.exists():
        raise UserError(f"{path} does not exist; give the path of a data file.")
    if path.is_dir():
        if (path / "dataset_dict.json").exists():
            parts = ", ".join(str(part.parent) for part in sorted(path.glob("*/state.json")))
            raise UserError(f"{path} holds several parts of a data set; give one of them: {parts or 'none is there'}.")
        if (path / "dataset_info.json").exists() or (path / "state.json").exists():
            return "arrow"
        raise UserError(f"{path} is a folder without dataset_info.json; give a data file or a saved data set's folder.")
    if path.suffix.lower() not in SUFFIXES:
        known = ", ".join(sorted(SUFFIXES))
        raise UserError(f"{path}: files of type {path.suffix!r} cannot be read; give one of {known}, or a folder.")
    return SUFFIXES[path.suffix.lower()]


def rows_of(path: Path, encoding: str = "utf-8") -> Iterator[Raw]:
    """Yield every row of a file or folder, in order; UserError where it cannot be read or holds none."""
    readers = {"csv": _csv, "jsonl": _json_lines, "json": _json, "parquet": _parquet, "arrow": _arrow}
    count = 0
    try:
        for raw in readers[sort_of(path)](path, encoding):
            count += 1
            yield raw
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}; give the path of a data file.") from error
    except pl.exceptions.PolarsError as error:
        first = str(error).splitlines()[0]
        raise UserError(f"{path} cannot be read as {sort_of(path)}: {first}; fetch or write it again.") from error
    if not count:
        raise UserError(f"{path} holds no row; there is nothing to audit.")


def json_rows(path: Path, encoding: str = "utf-8") -> list[Any]:
    """The rows of a JSON file: a list, or an object whose values are the rows."""
    try:
        data = path.read_bytes()
        if is_utf8(encoding):
            _check_utf16(path, data[:256])
        held = json.loads(_decoded(path, data, 0, encoding).removeprefix("\ufeff"))
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise UserError(
            f"{path} is not JSON: {where}: {error.msg}; correct it, or name it .jsonl if it has one row a line."
        ) from error
    except (RecursionError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}; write it again.") from error
    if isinstance(held, dict):
        held = [{"id": key, **row} if isinstance(row, dict) else row for key, row in held.items()]
    if not isinstance(held, list):
        raise UserError(f"{path} holds {kind_of(held)}, not a list of rows; is it a data file?")
    return held


def dialect_of(path: Path) -> str:
    """What separates the fields of a CSV file: a tab in `.tsv`, else a comma."""
    return "\t" if path.suffix.lower() == ".tsv" else ","


def lines_of(path: Path, encoding: str) -> Iterator[str]:
    """Yield the lines of a text file with their ends; UserError names a line that is too long or is not text."""
    if not is_utf8(encoding):
        yield from _foreign_lines(path, encoding)
        return
    with path.open("rb") as file:
        _refuse_utf16(path, file)
        for number, line in enumerate(_bounded(path, file), start=1):
            yield _decoded(path, line, number, "utf-8")


def is_utf8(encoding: str) -> bool:
    """Whether an encoding is UTF-8, under any of its names."""
    return encoding.lower().replace("_", "-") in ("utf-8", "utf8")


def _bounded(path: Path, file: BinaryIO) -> Iterator[bytes]:
    number = 0
    while line := file.readline(LONGEST + 1):
        number += 1
        if len(line) > LONGEST:
            raise UserError(
                f"{path}, line {number} (counting from 1) is longer than {LONGEST >> 20} MiB, so it is no row of "
                "questions; break it into one row a line, or correct the quote that never ends."
            )
        yield line


def _refuse_utf16(path: Path, file: BinaryIO) -> None:
    head = file.read(256)
    file.seek(0)
    _check_utf16(path, head)


def _check_utf16(path: Path, head: bytes) -> None:
    """UTF-16 without a mark decodes as UTF-8 too where the text is English: each second byte is then a NUL."""
    marked = head[:2] in (b"\xff\xfe", b"\xfe\xff")
    even, odd = head[0:256:2].count(0), head[1:256:2].count(0)
    if marked or max(even, odd) > len(head) // 4:
        name = "utf-16" if marked else "utf-16-le" if odd > even else "utf-16-be"
        raise UserError(f"{path} is in UTF-16, not UTF-8; give --encoding {name}, or convert the file.")


def _decoded(path: Path, data: bytes, number: int, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except LookupError as error:
        raise UserError(
            f"There is no text encoding {encoding!r}; give one such as utf-8, utf-16 or latin-1."
        ) from error
    except UnicodeError as error:
        if number == 0:
            number = data.count(b"\n", 0, getattr(error, "start", 0)) + 1
        raise UserError(
            f"{path}, line {number} (counting from 1) is not {encoding}: {error}; convert the file to UTF-8, or give "
            "its --encoding, such as latin-1."
        ) from error


def _foreign_lines(path: Path, encoding: str) -> Iterator[str]:
    _decoded(path, b"", 1, encoding)
    number = 0
    with path.open(encoding=encoding, newline="") as file:
        while True:
            try:
                line = file.readline(LONGEST + 1)
            except UnicodeError as error:
                raise UserError(
                    f"{path}, near line {number + 1} (counting from 1) is not {encoding}: {error}; give its --encoding."
                ) from error
            if not line:
                return
            number += 1
            if len(line) > LONGEST:
                raise UserError(f"{path}, line {number} (counting from 1) is longer than {LONGEST >> 20} MiB.")
            yield line


def _csv(path: Path, encoding: str) -> Iterator[Raw]:
    reader = csv.reader(lines_of(path, encoding), delimiter=dialect_of(path), strict=True)
    header = _next_record(path, reader)
    if header is None:
        return
    names = [name.lstrip("\ufeff").strip() for name in header]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{path}, line 1 (counting from 1): two columns are called {twice!r}; give each its own name.")
    while (record := _next_record(path, reader)) is not None:
        if len(record) == len(names):
            yield dict(zip(names, record, strict=True))
        elif record:
            what = f"line {reader.line_num} ends a row of {len(record)} fields, and the header has {len(names)}"
            yield Fault(what, "quote fields that hold the separator, or correct the row")


def _next_record(path: Path, reader: Any) -> list[str] | None:
    """The next record, None at the end; a record may span lines, so an error names where it began."""
    begun = reader.line_num + 1
    try:
        return next_record(reader)
    except csv.Error as error:
        raise UserError(
            f"{path}, the row that begins on line {begun} (counting from 1) is not CSV: {error}; double each quote "
            "inside a quoted field, and close every quote."
        ) from error


def _json_lines(path: Path, encoding: str) -> Iterator[Raw]:
    for number, line in enumerate(lines_of(path, encoding), start=1):
        text = line.lstrip("\ufeff").strip()
        if not text:
            continue
        try:
            yield _object(json.loads(text))
        except (ValueError, RecursionError) as error:
            yield Fault(f"line {number} (counting from 1) is not JSON: {error}", "correct the line or delete it")


def _json(path: Path, encoding: str) -> Iterator[Raw]:
    for row in json_rows(path, encoding):
        yield _object(row)


def _object(row: Any) -> Raw:
    return row if isinstance(row, dict) else Fault(f"it is {kind_of(row)}, not an object", "write it as {...}")


def _parquet(path: Path, _encoding: str) -> Iterator[Raw]:
    scan = pl.scan_parquet(path)
    size = scan.select(pl.len()).collect().item()
    for start in range(0, size, BATCH):
        yield from scan.slice(start, BATCH).collect().iter_rows(named=True)


def _arrow(path: Path, _encoding: str) -> Iterator[Raw]:
    for file in arrow_files(path):
        frame = read_arrow(file)
        for part in frame.iter_slices(BATCH):
            yield from part.iter_rows(named=True)


def arrow_files(path: Path) -> list[Path]:
    """The arrow files of a saved data set's folder, in its own order; a file stands for itself."""
    if not path.is_dir():
        return [path]
    state = path / "state.json"
    if state.exists():
        try:
            names = [str(part["filename"]) for part in json.loads(state.read_bytes())["_data_files"]]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{state} does not list the data files of a data set; save the data set again.") from error
    else:
        names = sorted(file.name for file in path.glob("*.arrow"))
    for name in names:
        if Path(name).name != name or not (path / name).is_file():
            raise UserError(f"{path} has no file {name!r}, which its state.json names; save the data set again.")
    return [path / name for name in names]


def read_arrow(file: Path) -> pl.DataFrame:
    """One arrow file, in the streaming form of Hugging Face data sets or in the file form."""
    with file.open("rb") as opened:
        streaming = opened.read(6) != b"ARROW1"
    return pl.read_ipc_stream(file) if streaming else pl.read_ipc(file)
