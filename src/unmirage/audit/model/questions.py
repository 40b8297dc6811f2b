"""Questions of a table: any file with a column of questions and one that says which of them are harmful."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unmirage.audit.table import Source
from unmirage.datasets.files import image_fault, image_folder
from unmirage.datasets.ids import Ids
from unmirage.errors import UserError
from unmirage.schema import Query


@dataclass(frozen=True)
class Asked:
    """Questions that can be asked, and sentences on those that cannot."""

    queries: list[Query]
    warnings: list[str] = field(default_factory=list)


def questions_of(source: Source) -> Asked:
    """The questions of one table with their labels (true: harmful), with or without an image each.

    A row without a label is left out, and so is one whose image is not there to be asked about; both are counted.
    Raises UserError where no column of labels is named, and where no row is left.
    """
    path = source.paths[0]
    if source.columns.label is None:
        raise UserError(f"{path} is a table; name with --label the column that says which questions are harmful.")
    reader = _Reader(path, source)
    queries = list(reader.queries())
    if not queries:
        raise UserError(f"{path} holds no question that can be asked: {'; '.join(reader.warnings) or 'it is empty'}.")
    return Asked(queries, reader.warnings)


@dataclass
class _Reader:
    path: Path
    source: Source
    left_out: dict[str, int] = field(default_factory=dict)
    taken: Ids = field(default_factory=Ids)

    def queries(self) -> Iterator[Query]:
        """The rows that can be asked, in their order."""
        for frame in self.source.frames():
            for row in frame.iter_rows(named=True):
                query = self._query(row)
                if query is not None:
                    yield query

    @property
    def warnings(self) -> list[str]:
        """One sentence for each sort of rows that was left out."""
        problems = self.source.defects
        told = [f"{self.path}: {count} rows {why}; they are left out." for why, count in self.left_out.items()]
        skipped = [problem for problem in self.source.problems if problem.skipped]
        kinds = dict.fromkeys(problem.kind for problem in skipped)
        return told + [f"{self.path}: {problems[kind]} {kind}; left out." for kind in kinds]

    def _query(self, row: dict[str, Any]) -> Query | None:
        if row["label"] is None:
            self._leave_out("have no label")
            return None
        image = None
        if row["image"] is not None:
            folder = image_folder(self.path, self.source.images)
            if row["image"].startswith("sha256:"):
                self._leave_out("hold their image in the table; save images as files and name these")
                return None
            if image_fault(folder, row["image"], verify=True):
                self._leave_out("name an image that is not there or cannot be read")
                return None
            image = folder / row["image"]
        return Query(
            id=self.taken.add((row["id"] or str(row["row"])).strip() or "row"),
            question=row["question"],
            harmful=row["label"],
            image=image,
            reference=row["answer"],
            data=self.path.stem,
        )

    def _leave_out(self, why: str) -> None:
        self.left_out[why] = self.left_out.get(why, 0) + 1
