"""LLaVA instruction data: a JSON list of conversations about at most one image each.

Liu et al. 2023, arXiv 2304.08485; rows `{id, image, conversations: [{from: human | gpt, value}, ...]}`. Only the first
exchange of a conversation is used; later ones are counted. The format has no harm label: rows are taken as harmless, as
general instruction data are, but those that `unmirage` wrote and that say "harmful": true. Rows that say `generated`
hold harmful text of a model in question or answer; their subset is `GENERATED`, by which it is hidden.

The mix of LLaVA-1.5 has 665 thousand rows in 1 GB. So a file is read one row after the other, and of a row only what is
used stays in memory.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from unmirage.datasets.catalog import About, Part
from unmirage.datasets.files import Words, image_folder
from unmirage.datasets.loaded import Note
from unmirage.datasets.questions import Fault, Reader
from unmirage.datasets.rows import json_rows
from unmirage.datasets.streaming import Begun, Source, SteppedLoader, first_row_of
from unmirage.schema import Query, Text

ABOUT = About(
    name="llava",
    title="LLaVA instruction data: the 665k mix, and any file of its format",
    paper="Liu et al. 2023, arXiv 2304.08485",
    page="https://github.com/haotian-liu/LLaVA",
    licence="unknown here: that of the data which were written in this format",
    purpose="training",
    note="Anyone's data may be in this format, so that no number of rows is expected. It has no place for harm: rows "
    'are harmless unless they say "harmful": true, as those that were converted do.',
)
KEYS = frozenset({"id", "conversations"})
"""Keys that every row has."""
GENERATED = "generated"
_ALL = set(Query.model_fields)
"""The fields that are set in every query here: one set for all of them, which otherwise is two thirds of a query."""


class Turn(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(populate_by_name=True)

    speaker: Literal["human", "gpt"] = Field(alias="from")
    value: Words


class Row(BaseModel):
    """One conversation."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    id: Text
    image: Words | None = None
    harmful: bool = False
    generated: Any = None
    conversations: Annotated[list[Turn], Field(min_length=2)]


def find(folder: Path) -> list[Part]:
    """All files of this format; the split of each is its stem."""
    files = sorted(file for place in (folder, folder / "data") for file in place.glob("*.json"))
    found = [file for file in files if first_row_of(file).keys() >= KEYS]
    return [Part(ABOUT.name, file.stem, file, image_folder(file, None)) for file in found]


@SteppedLoader
def load(source: Source) -> Begun:
    """Read a LLaVA instruction file; the options are those of `unmirage.datasets.load`.

    An id that comes again is read as `<id>#2`, `#3`, ..., and how many do is told. With `verify_images` the first 2,000
    pictures are decoded, and of the others only the header is read.
    """
    file, folder = source.path, image_folder(source.path, source.images)
    reader = _Conversations(
        file, source.name or file.stem, folder, source.split, source.strict, source.verify_images, source.require_images
    )
    return reader, reader.read()


@dataclass
class _Conversations(Reader):
    """Turns conversations into queries."""

    longer: int = 0
    again: int = 0
    _folders: dict[str, bool] = field(default_factory=dict)
    _paths: dict[str, Path] = field(default_factory=dict)

    def read(self) -> Iterator[None]:
        """Read all rows, pausing after each."""
        for number, raw in json_rows(self.file):
            self._take(number, raw)
            yield

    def _take(self, number: int, raw: Any) -> None:
        """Keep the first exchange of one row, or report why it cannot be used."""
        row = self.row(Row, number, raw)
        if row is None:
            return
        question = self._question(number, row)
        if question is None or (row.image is not None and not self._usable(number, row.image)):
            return
        self.longer += len(row.conversations) > 2
        # Not validated again: the row was, and `_question` gives stripped text that is not empty.
        self.queries.append(
            Query.model_construct(
                _ALL,
                id=self._unique(row.id),
                question=question,
                harmful=row.harmful,
                image=self._path(row.image),
                reference=row.conversations[1].value.strip(),
                answers=(),
                data=self.name,
                split=self.split,
                subset=GENERATED if row.generated else None,
            )
        )

    def remark(self) -> None:
        """Add the remarks on all that was read to `warnings`: longer conversations, ids that came again."""
        if self.longer:
            told = f"{self.file}: only the first exchange of {self.longer} longer conversations is read."
            self.warnings.append(Note(told))
        if self.again:
            self.warnings.append(
                f"{self.file}: {self.again} rows have an id that was there before and are read as '<id>#2', '#3', ..."
            )
        super().remark()

    def _question(self, number: int, row: Row) -> str | None:
        if [turn.speaker for turn in row.conversations[:2]] != ["human", "gpt"]:
            fix = "put the question, from 'human', before its answer, from 'gpt'"
            what = "it does not begin with a question and its answer"
            self.report(number, "conversations", "bad-row", what, fix)
            return None
        question = row.conversations[0].value.replace("<image>", "").strip()
        if not question:
            fix = "write it or delete the row"
            self.report(number, "conversations.0.value", "empty-question", "the question is empty", fix)
        return question or None

    def _unique(self, row_id: str) -> str:
        """The id itself or, where it was there before, with the first free number."""
        unique = self._ids.add(row_id)
        self.again += unique != row_id
        return unique

    def _misplaced(self, image: str, whole: bool) -> Fault | None:
        """As the base does, but a folder that holds many pictures is looked at once."""
        return None if not whole and self._is_plain(image) else super()._misplaced(image, whole)

    def _is_plain(self, image: str) -> bool:
        """Whether a picture is a file, and no link, in a folder that lies within that of the pictures."""
        above, _, last = image.rpartition("/")
        try:
            if above not in self._folders:
                inside = not above.startswith("/") and ".." not in above.split("/") and not os.path.isabs(above)
                real = self.folder.resolve()
                self._folders[above] = inside and (self.folder / above).resolve().is_relative_to(real)
            # A name of Windows with a drive or a backslash is left to the slow way.
            plain = self._folders[above] and last not in ("", ".", "..") and not {"\\", ":"} & set(last)
            return plain and stat.S_ISREG(os.lstat(f"{self.folder}/{image}").st_mode)
        except (OSError, RuntimeError, ValueError):
            return False

    def _path(self, image: str | None) -> Path | None:
        """One path for all rows about a picture."""
        if not image:
            return None
        if image not in self._paths:
            self._paths[image] = self.folder / image
        return self._paths[image]
