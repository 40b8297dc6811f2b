"""Tables that are written as text: JSON lines, JSON lists and CSV, one record after the other."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from unmirage import tables
from unmirage.datasets.rows import json_rows
from unmirage.errors import UserError

LINES = (".jsonl", ".ndjson")
SUFFIXES = (*LINES, ".json", ".csv")
LOOKED_AT = 100
"""Records from which the columns of JSON are known: a record need not have all of them."""


def is_text(file: Path) -> bool:
    """Whether a file is one of these, by its name."""
    return file.suffix.lower() in SUFFIXES


def columns(file: Path) -> list[str]:
    """The names of the columns, in order; UserError where the file cannot be read."""
    names: dict[str, None] = {}
    for record in islice(records(file), LOOKED_AT):
        names.update(dict.fromkeys(record if isinstance(record, dict) else ()))
    return list(names)


def records(file: Path) -> Iterator[Any]:
    """Yield each record: an object by its columns or, where a row is none, what stands there (`Ragged` in CSV).

    Raises UserError where the file cannot be read, where a JSON list is broken, and where CSV is.
    """
    suffix = file.suffix.lower()
    try:
        if suffix == ".json":
            yield from (row for _, row in json_rows(file))
        elif suffix == ".csv":
            yield from _of_csv(file)
        else:
            yield from _of_lines(file)
    except OSError as error:
        raise UserError(f"Cannot read {file}: {error.strerror}; give the path of a data file.") from error


def _of_lines(file: Path) -> Iterator[Any]:
    """A line that is no JSON is its own beginning: whoever checks rows reports it."""
    with file.open("rb") as opened:
        for line in opened:
            text = line.removeprefix(b"\xef\xbb\xbf").strip()
            if not text:
                continue
            try:
                yield json.loads(text)
            except (ValueError, RecursionError):
                yield repr(text[:100])


def _of_csv(file: Path) -> Iterator[Any]:
    try:
        # What is half a character passes here, and is then told by its row.
        with file.open("rb") as raw, io.TextIOWrapper(raw, "utf-8-sig", errors="surrogatepass", newline="") as opened:
            lines = tables.records(opened)
            columns = tables.headings(file, next(lines, []))
            yield from (tables.row_of(columns, line) for line in lines)
    except csv.Error as error:
        raise UserError(f"{file} is not CSV ({error}); close every quote, or fetch it again.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not text in UTF-8 ({error}); fetch it again.") from error
