"""Any format as one stream of queries and problems, and the first row of a file, by which it is told whose it is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from unmirage.datasets.loaded import Problem
from unmirage.datasets.rows import json_rows
from unmirage.errors import UserError
from unmirage.schema import Query

HEAD = 4096
"""Bytes in which a JSON list begins."""


@dataclass
class Opened:
    """A data set while it is read: queries and problems in the order of the file.

    `warnings` are whole once `items` is used up. `rows` is the number of rows of the file where a row can hold more
    than one query, else None.
    """

    items: Iterator[Query | Problem]
    warnings: list[str] = field(default_factory=list)
    rows: int | None = None


class Keeper(Protocol):
    """What reads rows and keeps what came of them, such as `unmirage.datasets.questions.Reader`."""

    queries: list[Query]
    problems: list[Problem]
    warnings: list[str]

    def remark(self) -> None:
        """Add the remarks on all that was read to `warnings`."""
        ...


def in_steps(reader: Keeper, steps: Iterator[None]) -> Opened:
    """What a reader keeps as a stream: it is emptied after each step, and its remarks come when there is none left."""

    def items() -> Iterator[Query | Problem]:
        for _ in steps:
            yield from reader.problems
            yield from reader.queries
            reader.problems.clear()
            reader.queries.clear()
        reader.remark()

    return Opened(items(), reader.warnings)


def open_rows(
    path: Path,
    format: str,
    name: str | None = None,
    *,
    images: Path | None = None,
    split: str | None = None,
    strict: bool = False,
    require_images: bool = True,
) -> Opened:
    """A data set as a stream; the options and errors are those of `unmirage.datasets.load`.

    A format whose module has a function `stream` beside `load` (`stream_rejected` beside `load_rejected`) is read row
    by row; any other is read whole, which for sets of some thousand rows is no matter.
    """
    from unmirage.datasets import FORMATS, load

    loader = FORMATS.get(format)
    module = sys.modules.get(getattr(loader, "__module__", ""))
    stream = getattr(module, getattr(loader, "__name__", "").replace("load", "stream", 1), None)
    options: dict[str, Any] = {
        "images": images, "split": split, "strict": strict, "require_images": require_images
    }  # fmt: skip
    if stream is not None:
        opened: Opened = stream(path, name, **options)
        return opened
    loaded = load(path, name, format=format, **options)
    return Opened(iter([*loaded.problems, *loaded.queries]), loaded.warnings, loaded.rows)


def first_row_of(file: Path) -> dict[str, Any]:
    """The first row of a JSON list; empty where there is none, or where the file is something else."""
    try:
        with file.open("rb") as opened:
            start = opened.read(HEAD).removeprefix(b"\xef\xbb\xbf").lstrip()
        # What is no list is not read: some such files have hundreds of megabytes.
        _, row = next(json_rows(file), (0, None)) if start.startswith(b"[") else (0, None)
    except (OSError, UserError):
        return {}
    return row if isinstance(row, dict) else {}
