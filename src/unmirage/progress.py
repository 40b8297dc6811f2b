"""Progress on the terminal: bars where a person watches, a line at each quarter where the output goes to a file."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class Bars:
    """Named tasks with how much of each is done. Use as a context manager; writes to standard error."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stderr)
        self._live = self._console.is_terminal and not self._console.is_dumb_terminal
        columns = (
            TextColumn("{task.description:<34}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        self._progress = Progress(*columns, console=self._console, disable=not self._live)
        self._tasks: dict[str, TaskID] = {}
        self._quarters: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, name: str, done: int, total: int) -> None:
        """Says that `done` of `total` are done of the task `name`, which appears at its first update."""
        if not self._live:
            self._print(name, done, total)
            return
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total)
        self._progress.update(self._tasks[name], completed=done, total=total)

    def _print(self, name: str, done: int, total: int) -> None:
        quarter = 4 * done // max(total, 1)
        if self._quarters.get(name) != quarter:
            self._quarters[name] = quarter
            self._console.print(f"{name}: {done}/{total}", highlight=False, markup=False)
