"""Groups of rows by harm and by what their opening word is taken for: what group-DRO weighs and cues are measured by.

A group is a number: 3 harmful + 1 + cue, where the cue is 1 for an opening word that goes with refusal, -1 for one that
goes with compliance, and 0 for any other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from unmirage.audit.model.edits import bare
from unmirage.schema import Query

_CUES = ("compliance word", "other word", "refusal word")
GROUPS = tuple(f"{harm}/{cue}" for harm in ("harmless", "harmful") for cue in _CUES)
"""The names of the groups, by their numbers."""


@dataclass(frozen=True, slots=True)
class Cues:
    """Opening words that go with refusal or with compliance, in lower case."""

    refusal: frozenset[str] = frozenset()
    compliance: frozenset[str] = frozenset()

    @staticmethod
    def of(refusal: Iterable[str], compliance: Iterable[str]) -> Cues:
        """The cues from words as they are written."""
        return Cues(frozenset(map(bare, refusal)), frozenset(map(bare, compliance)))

    def group(self, query: Query) -> int:
        """The number of a query's group."""
        word = own_word(query)
        return 3 * query.harmful + 1 + (word in self.refusal) - (word in self.compliance)


def own_word(query: Query) -> str:
    """The opening word of a question, in lower case and without the marks around it."""
    return bare(query.question.split()[0])


def cue_of(group: Any) -> Any:
    """-1, 0 or 1: what the opening words of groups are taken for; of a number or of a tensor of them."""
    return group % 3 - 1


def harmful(group: Any) -> Any:
    """Whether groups are of harmful rows; of a number or of a tensor of them."""
    return group >= len(_CUES)
