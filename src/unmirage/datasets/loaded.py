"""What reading a data set gives: its queries, and everything that was wrong with it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from unmirage.schema import Query


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with one row of a data set.

    `row` counts from 0; `kind` is a short name to count by ("missing-image"); `what` says what is wrong
    and `fix` what to do. `skipped` tells whether the row or question was left out because of it.
    """

    file: Path
    row: int
    field: str
    kind: str
    what: str
    fix: str
    skipped: bool = True

    def __str__(self) -> str:
        """Return one sentence naming file, row and field and saying what to do."""
        return f"{self.file}, row {self.row} (counting from 0), field {self.field!r}: {self.what}; {self.fix}."


class Note(str):
    """A remark that is information alone: how a file was understood, with nothing in it missing or odd."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class LoadedData:
    """A data set that was read: its usable queries in file order, its problems and its warnings.

    Ids of queries are unique. `warnings` are remarks on the file as a whole that cost no row; those that tell of
    nothing odd are of the class `Note`. `rows` is the number of
    rows of the file, good and bad, where one row can hold several queries; None where each query is a row.
    """

    name: str
    queries: list[Query]
    path: Path
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    rows: int | None = None

    @property
    def defects(self) -> dict[str, int]:
        """Number of problems of each kind, the most frequent first."""
        return dict(Counter(problem.kind for problem in self.problems).most_common())
