"""Any format as one stream of queries and problems, and the first row of a file, by which it is told whose it is.

A format that is read row by row is one function, made a `SteppedLoader`: it says how reading begins, and from that come
the data as a whole and as a stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import update_wrapper
from pathlib import Path
from typing import Any, Protocol

from unmirage.datasets.loaded import LoadedData, Problem
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

    def loaded(self) -> LoadedData:
        """All that was read; UserError where nothing can be used."""
        ...


@dataclass(frozen=True, slots=True)
class Source:
    """What is to be read, and how: the arguments of `unmirage.datasets.load`, but for the format."""

    path: Path
    name: str | None
    images: str | Path | None
    split: str | None
    strict: bool
    verify_images: bool
    require_images: bool


Begun = tuple[Keeper, Iterator[None]]
"""What keeps the rows of a data set, and the steps in which it reads them."""


class SteppedLoader:
    """A loader, see `unmirage.datasets.load`, of a format that is read row by row. Decorates how reading begins.

    Called, it reads all; `stream` gives queries and problems as they come.
    """

    def __init__(self, begin: Callable[[Source], Begun]) -> None:
        self._begin = begin
        update_wrapper(self, begin)
        vars(self).pop("__wrapped__")  # its arguments are not those of the loader

    def __call__(
        self,
        path: str | Path,
        name: str | None = None,
        *,
        images: str | Path | None = None,
        split: str | None = None,
        strict: bool = False,
        verify_images: bool = False,
        require_images: bool = True,
    ) -> LoadedData:
        """Read the whole data set."""
        source = Source(Path(path), name, images, split, strict, verify_images, require_images)
        reader, steps = self._begin(source)
        for _ in steps:
            pass
        return reader.loaded()

    def stream(
        self,
        path: str | Path,
        name: str | None = None,
        *,
        images: str | Path | None = None,
        split: str | None = None,
        strict: bool = False,
        verify_images: bool = False,
        require_images: bool = True,
    ) -> Opened:
        """Read row by row, with only ids and names of pictures in memory; otherwise as when called."""
        source = Source(Path(path), name, images, split, strict, verify_images, require_images)
        return in_steps(*self._begin(source))


def in_steps(reader: Keeper, steps: Iterator[None]) -> Opened:
    """What a reader keeps as a stream: it is emptied after each step, and its remarks come when there is none left."""

    def _items() -> Iterator[Query | Problem]:
        for _ in steps:
            yield from reader.problems
            yield from reader.queries
            reader.problems.clear()
            reader.queries.clear()
        reader.remark()

    return Opened(_items(), reader.warnings)


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

    A format with a `SteppedLoader` is read row by row; any other is read whole, which for sets of some thousand rows is
    no matter.
    """
    from unmirage.datasets import FORMATS, load

    loader = FORMATS.get(format)
    options: dict[str, Any] = {
        "images": images, "split": split, "strict": strict, "require_images": require_images
    }  # fmt: skip
    if isinstance(loader, SteppedLoader):
        return loader.stream(path, name, **options)
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
