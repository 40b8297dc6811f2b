"""Which edits of one question are asked next, given what came of those before. Pure: no model, no files.

A strategy is a generator: it yields edits to be asked together, is sent what came of each, and ends when it has no
more to ask. Whether the goal was reached, and whether all of the space was asked, is read off what was asked.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from unmirage.attacks.edits import Edit

AT_ONCE = 16
"""Edits of one question that are asked together; more would be asked in vain where an early one reaches the goal."""


class SearchName(StrEnum):
    """The strategies; `gradient` is `ranked` in the order that the model's gradient gives."""

    fixed = "fixed"
    greedy = "greedy"
    exhaustive = "exhaustive"
    gradient = "gradient"


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of one edit: whether the goal was reached (None: no usable verdict), whether the label changed."""

    reached: bool | None
    changed: bool = False


Strategy = Generator[Sequence[Edit], Sequence[Seen], None]


def fixed(space: Sequence[Edit]) -> Strategy:
    """All edits, whatever comes of them: K words are K shots, each counted."""
    if space:
        yield space


def exhaustive(space: Sequence[Edit]) -> Strategy:
    """One edit after the other until one reaches the goal."""
    yield from _until_reached(space)


def greedy(space: Sequence[Edit], question: str, places: int | None = None) -> Strategy:
    """First the positions whose deletion does most, then the words there, until one reaches the goal.

    Every word is taken out once, only to rank its position: one that reaches the goal comes first, then one that
    changes the label, then in reading order. A word is put in where its better neighbour ranks. `places` positions are
    tried, None: all. Where taking the word out is one of the edits, it is not asked again.
    """
    words = question.split()
    probes = [Edit("delete", at, word) for at, word in enumerate(words)] if len(words) > 1 else []
    seen = (yield probes) if probes else []
    mine = {edit for edit in space if edit.kind == "delete"}
    if any(one.reached and probe in mine for probe, one in zip(probes, seen, strict=True)):
        return
    effects = [(bool(one.reached), one.changed) for one in seen] or [(False, False)]
    ranked = sorted({(edit.kind, edit.position) for edit in space if edit.kind != "delete"}, key=_rank(effects))
    chosen = list(dict.fromkeys(position for _, position in ranked))[:places]
    for position in chosen:
        here = [edit for edit in space if edit.kind != "delete" and edit.position == position]
        if (yield from _until_reached(here)):
            return


def _rank(effects: Sequence[tuple[bool, bool]]) -> Callable[[tuple[str, int]], tuple[bool, bool, int, str]]:
    """Sorts places: those with the larger effect first, then in reading order."""

    def _key(place: tuple[str, int]) -> tuple[bool, bool, int, str]:
        kind, position = place
        near = effects[max(0, position - 1) : position + 1] if kind == "insert" else effects[position : position + 1]
        reached, changed = max(near)
        return (not reached, not changed, position, kind)

    return _key


def _until_reached(edits: Sequence[Edit]) -> Generator[Sequence[Edit], Sequence[Seen], bool]:
    """Asks in order, `AT_ONCE` together; returns whether the goal was reached."""
    for start in range(0, len(edits), AT_ONCE):
        seen = yield edits[start : start + AT_ONCE]
        if any(one.reached for one in seen):
            return True
    return False


def ranked(space: Sequence[Edit], top: int) -> Strategy:
    """The first `top` edits of a space that is in the order of what is expected of them, until one reaches the goal."""
    yield from _until_reached(space[:top])
