"""Searches at work: one question as a coroutine, and many of them in rounds under one budget.

Nothing here knows a model: `ask` takes prompts and gives their verdicts, `key` tells which prompts are one request.
The same verdicts lead to the same requests, so a search that is replayed from a log goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from unmirage.attacks.edits import Edit
from unmirage.attacks.goals import UNUSABLE, Goal
from unmirage.attacks.search.strategies import Seen, Strategy
from unmirage.backends.prompts import Prompt
from unmirage.schema import Query, Verdict

AT_WORK = 16
"""Questions that are searched side by side: enough to fill a batch, few enough that a small budget finishes some."""

Ask = Callable[[Sequence[Prompt]], Sequence[Verdict]]
Key = Callable[[Prompt], Hashable]
Outcome = Literal["broken", "robust", "unfinished", "already", "no-edit"]
"""An edit reached the goal; none that was asked did; not all was asked or judged that had to be; the question as it is
has what the goal is after; there is no edit that could be asked."""


@dataclass
class Budget:
    """Distinct requests: how many there were, and how many there may be (None: as many as it takes)."""

    limit: int | None = None
    spent: set[Hashable] = field(default_factory=set)

    def admits(self, keys: Sequence[Hashable]) -> bool:
        """Whether all of these may be asked; if so, they are spent."""
        both = self.spent | set(keys)
        if self.limit is not None and len(both) > self.limit:
            return False
        self.spent = both
        return True


@dataclass(frozen=True)
class Task:
    """What is tried on one question: every edit of its space may be asked, in the order of the strategy."""

    space: Sequence[Edit]
    strategy: Callable[[], Strategy]


@dataclass
class Walk:
    """One strategy at work on one question, and what it has seen."""

    task: Task
    seen: dict[Edit, Seen] = field(default_factory=dict)
    batch: Sequence[Edit] = ()
    ended: bool = False

    def __post_init__(self) -> None:
        self._steps = self.task.strategy()
        self._advance(None)

    def take(self, seen: Sequence[Seen]) -> None:
        """What came of the edits of the batch."""
        self.seen |= dict(zip(self.batch, seen, strict=True))
        self._advance(seen)

    def _advance(self, seen: Sequence[Seen] | None) -> None:
        try:
            self.batch = next(self._steps) if seen is None else self._steps.send(seen)
        except StopIteration:
            self.batch, self.ended = (), True

    @property
    def hits(self) -> list[Edit]:
        """The edits that reached the goal, in the order in which they were asked."""
        space = set(self.task.space)
        return [edit for edit, seen in self.seen.items() if seen.reached and edit in space]

    @property
    def unusable(self) -> int:
        """Edits of the space that were asked and have no usable verdict."""
        return sum(edit in self.seen and self.seen[edit].reached is None for edit in self.task.space)

    @property
    def certified(self) -> bool:
        """Whether every edit of the space was asked, has a usable verdict, and did not reach the goal."""
        return self.outcome == "robust" and all(edit in self.seen for edit in self.task.space)

    @property
    def outcome(self) -> Outcome:
        """What came of it."""
        if not self.task.space:
            return "no-edit"
        if self.hits:
            return "broken"
        return "robust" if self.ended and not self.unusable else "unfinished"


@dataclass
class Walked:
    """What came of one question: its verdict as it is, the attack, and its control."""

    query: Query
    before: Verdict | None = None
    outcome: Outcome = "unfinished"
    attack: Walk | None = None
    control: Walk | None = None


Tasks = Callable[[Query, Verdict], tuple[Task, Task | None]]
"""The attack and its control for a question, given the verdict on it as it is."""
Steps = Generator[Sequence[Prompt], Sequence[Verdict], None]


def steps(walked: Walked, goal: Goal, tasks: Tasks) -> Steps:
    """One question: asked as it is, then attack and control side by side; `walked` holds what came of it so far."""
    query = walked.query
    (before,) = yield [Prompt.of(query)]
    walked.before = before
    holds = goal.holds(before)
    if holds is not False:
        walked.outcome = "already" if holds else "unfinished"
        return
    attack, control = tasks(query, before)
    walked.attack, walked.control = Walk(attack), Walk(control) if control else None
    walked.outcome = walked.attack.outcome
    walks = [walk for walk in (walked.attack, walked.control) if walk]
    while wanted := [walk for walk in walks if walk.batch]:
        verdicts = yield [edit.prompt(query) for walk in wanted for edit in walk.batch]
        start = 0
        for walk in wanted:
            mine = verdicts[start : start + len(walk.batch)]
            start += len(mine)
            walk.take([_seen(goal, before, after) for after in mine])
        walked.outcome = walked.attack.outcome


def _seen(goal: Goal, before: Verdict, after: Verdict) -> Seen:
    changed = after.label not in UNUSABLE and after.label is not before.label
    return Seen(goal.reached(before, after), changed)


def drive(
    queries: Sequence[Query],
    goal: Goal,
    tasks: Tasks,
    ask: Ask,
    key: Key,
    budget: Budget,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> list[Walked]:
    """Searches all questions, `AT_WORK` side by side and in order, all that one round wants asked together.

    A question whose next requests are more than the budget has left ends there, with what it has found.
    """
    found = [Walked(query) for query in queries]
    waiting = [steps(walked, goal, tasks) for walked in found]
    at_work: list[tuple[Steps, Sequence[Prompt]]] = []
    while waiting or at_work:
        while waiting and len(at_work) < AT_WORK:
            first = waiting.pop(0)
            at_work.append((first, next(first)))
        at_work = _round(_affordable(at_work, key, budget), ask)
        progress(len(found) - len(waiting) - len(at_work), len(found))
    return found


def _affordable(
    at_work: Sequence[tuple[Steps, Sequence[Prompt]]], key: Key, budget: Budget
) -> list[tuple[Steps, Sequence[Prompt]]]:
    """Those whose requests the budget admits; the others end here."""
    kept = []
    for walk, wanted in at_work:
        if budget.admits([key(prompt) for prompt in wanted]):
            kept.append((walk, wanted))
        else:
            walk.close()
    return kept


def _round(at_work: Sequence[tuple[Steps, Sequence[Prompt]]], ask: Ask) -> list[tuple[Steps, Sequence[Prompt]]]:
    """Asks what all of them want; those that want more."""
    verdicts = ask([prompt for _, wanted in at_work for prompt in wanted])
    going, start = [], 0
    for walk, wanted in at_work:
        mine = verdicts[start : start + len(wanted)]
        start += len(wanted)
        try:
            going.append((walk, walk.send(mine)))
        except StopIteration:
            continue
    return going
