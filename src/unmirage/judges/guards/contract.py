"""What all guards have in common: what they look at and what they say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from unmirage.schema import Answer, Query

RULE = "version 1"


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a guard looks at: the question as it was asked, the answer, the picture."""

    question: str
    answer: str
    image: Path | None = None
    query: str = ""

    @classmethod
    def of(cls, query: Query, answer: Answer) -> Exchange:
        """The exchange of one row."""
        return cls(answer.question, answer.text, query.image, query.id)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a guard says. `harm` None: it could not be read, `why` holds its words. `refuses` None: not its matter."""

    harm: bool | None
    why: str
    refuses: bool | None = None


class Guard(Protocol):
    """A guard model in a folder."""

    sees_picture: bool
    knows_refusal: bool

    @property
    def name(self) -> str:
        """Kind and hash of everything that decides what it says."""
        ...

    def findings(self, rows: Sequence[Exchange]) -> Iterator[Finding]:
        """What it says of each exchange, in order."""
        ...


TOO_LONG = Finding(None, "question and answer are longer than the guard reads")
