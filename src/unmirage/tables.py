"""CSV as all rooms read it: long fields are taken; wrong quotes, ragged rows and headings that come twice are told."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from unmirage.errors import UserError

LONGEST = 4 << 20
"""Most characters of one field: a longer one is a quote that never closes."""


@dataclass(frozen=True, slots=True)
class Ragged:
    """A row of a table with more or fewer fields than its header."""

    fields: int
    columns: int


def next_record(reader: Iterator[list[str]]) -> list[str] | None:
    """The next record of a `csv.reader`, None at the end; raises csv.Error.

    How long a field may be is a setting of the whole process, and so it is changed for this moment only.
    """
    before = csv.field_size_limit(LONGEST)
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(before)


def records(lines: Iterable[str]) -> Iterator[list[str]]:
    """The records of strict CSV without the blank lines; raises csv.Error."""
    reader = csv.reader(lines, strict=True)
    while (record := next_record(reader)) is not None:
        if record:
            yield record


def headings(file: Path, record: Iterable[str]) -> list[str]:
    """The names of the columns without white space around them; UserError where two are the same."""
    names = [name.strip() for name in record]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{file} has two columns {twice!r}; give each its own name.")
    return names


def row_of(columns: Sequence[str], record: Sequence[str]) -> dict[str, str] | Ragged:
    """One record by its columns, or how many fields it has where that is another number."""
    if len(record) != len(columns):
        return Ragged(len(record), len(columns))
    return dict(zip(columns, record, strict=True))


def whole_rows(file: Path, text: str) -> list[dict[str, str]]:
    """All rows of a file of CSV that holds this text; none where it is empty.

    Raises UserError that names the line where the text is no CSV, a heading is there twice or a row is ragged.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[dict[str, str]] = []
    columns: list[str] | None = None
    begun = 1
    try:
        while (record := next_record(reader)) is not None:
            if record and columns is None:
                columns = headings(file, record)
            elif record and columns is not None:
                rows.append(_whole(file, begun, row_of(columns, record)))
            begun = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{file}, the row that begins on line {begun} (counting from 1) is not CSV: {error}; double each quote "
            "inside a quoted field, and close every quote."
        ) from None
    return rows


def _whole(file: Path, line: int, row: dict[str, str] | Ragged) -> dict[str, str]:
    if isinstance(row, Ragged):
        raise UserError(
            f"{file}, the row that begins on line {line} (counting from 1) has {row.fields} fields, and the header has "
            f"{row.columns}; quote fields that hold a comma, or correct the row."
        )
    return row
