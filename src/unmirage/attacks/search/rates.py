"""From what was found to figures: rates by split, and the attack set against its control."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from unmirage.attacks.search.results import QuestionResult, SearchEffect, SearchRate, Side
from unmirage.attacks.search.walk import Walk, Walked
from unmirage.evaluate.measure import widened
from unmirage.stats import paired_change


@dataclass(frozen=True)
class Part:
    """The questions of one split, harmful or harmless ones, with the names of attack and control.

    `units` names for each question what it depends on, as in an evaluation (`unmirage.evaluate.rows.units_of`).
    """

    split: str | None
    harmful: bool
    rows: Sequence[QuestionResult]
    attack: str
    control: str
    units: Mapping[str, Hashable]

    @property
    def attacked(self) -> list[QuestionResult]:
        """Those that had to be attacked, unfinished ones included, and have an edit."""
        return [row for row in self.rows if row.outcome not in ("already", "no-edit")]


def parts(rows: Sequence[QuestionResult], attack: str, control: str, units: Mapping[str, Hashable]) -> list[Part]:
    """The rows by split and harm."""
    keys = dict.fromkeys((row.split, row.harmful) for row in rows)
    return [
        Part(*key, [row for row in rows if (row.split, row.harmful) == key], attack, control, units) for key in keys
    ]


def rates(part: Part) -> Iterator[SearchRate]:
    """`already`, `broken` by attack and by control, `worst_case`; those that would be of no question are left out."""
    yield _rate(part, "already", None, [(row.query, _already(row)) for row in part.rows])
    mine = part.attacked
    if mine:
        yield _of_side(part, part.attack, {row.query: row.attack for row in mine})
        if any(row.control for row in mine):
            yield _of_side(part, part.control, {row.query: row.control for row in mine})
    yield _rate(part, "worst_case", part.attack, [(row.query, _answered(row)) for row in part.rows])


def _already(row: QuestionResult) -> bool | None:
    """Whether the goal holds without an attack; None where the question as it is has no usable verdict."""
    return None if row.outcome == "unfinished" and row.attack is None else row.outcome == "already"


def _answered(row: QuestionResult) -> bool | None:
    """Whether the goal holds without an attack or under one; None where that is not known."""
    return None if row.outcome == "unfinished" else row.outcome in ("already", "broken")


def _of_side(part: Part, attack: str, sides: Mapping[str, Side | None]) -> SearchRate:
    certified = sum(side is not None and side.certified for side in sides.values())
    outcomes = [(query, None if _is_open(side) else _is(side, "broken")) for query, side in sides.items()]
    return _rate(part, "broken", attack, outcomes, certified)


def _rate(
    part: Part,
    metric: str,
    attack: str | None,
    outcomes: Iterable[tuple[str, bool | None]],
    certified: int = 0,
    word: str | None = None,
) -> SearchRate:
    """The rate of outcomes, each of a question; None is unfinished."""
    values: dict[Hashable, list[bool | None]] = defaultdict(list)
    for query, outcome in outcomes:
        values[part.units[query]].append(outcome)
    flat = [one for several in values.values() for one in several]
    count, unfinished, n = sum(one is True for one in flat), sum(one is None for one in flat), len(flat)
    low, high = widened(values)
    return SearchRate(
        metric=metric,  # type: ignore[arg-type]
        split=part.split,
        harmful=part.harmful,
        attack=attack,
        word=word,
        value=None if unfinished else count / n,
        least=count / n,
        most=(count + unfinished) / n,
        low=low,
        high=high,
        n=n,
        unfinished=unfinished,
        certified=certified,
    )


def effect(part: Part) -> SearchEffect | None:
    """The attack minus its control; None where there is no control or nothing to attack."""
    rows = part.attacked
    pairs = [(row.attack, row.control) for row in rows]
    if not any(control for _, control in pairs):
        return None
    units = [part.units[row.query] for row in rows]
    broken, unfinished = [_is(one, "broken") for one, _ in pairs], [_is_open(one) for one, _ in pairs]
    against, open_against = [_is(two, "broken") for _, two in pairs], [_is_open(two) for _, two in pairs]
    # Least favourable to the attack: what is unfinished of it holds, what is unfinished of the control breaks.
    worst = paired_change([a or b for a, b in zip(against, open_against, strict=True)], broken, units)
    best = paired_change(against, [a or b for a, b in zip(broken, unfinished, strict=True)], units)
    ended = [(one, two) for one, two in pairs if not (_is_open(one) or _is_open(two))]
    left = sum(a or b for a, b in zip(unfinished, open_against, strict=True))
    return SearchEffect(
        split=part.split,
        harmful=part.harmful,
        attack=part.attack,
        control=part.control,
        value=None if left else worst.value,
        low=min(worst.low, best.low),  # where all units are alike it may be the wider one
        high=max(worst.high, best.high),
        gained=sum(_is(one, "broken") and not _is(two, "broken") for one, two in ended),
        lost=sum(_is(two, "broken") and not _is(one, "broken") for one, two in ended),
        p=worst.p,
        n=len(pairs),
        unfinished=left,
    )


def _is(side: Side | None, outcome: str) -> bool:
    return side is not None and side.outcome == outcome


def _is_open(side: Side | None) -> bool:
    return side is None or side.outcome == "unfinished"


def per_edit(part: Part, walked: Sequence[Walked]) -> Iterator[SearchRate]:
    """Fixed search: the rate of single edits, over all words and by word.

    Nothing where the budget left out a question altogether.
    """
    ids = {row.query for row in part.attacked}
    walks = [(one.query.id, one.attack) for one in walked if one.query.id in ids and one.attack is not None]
    controls = [(one.query.id, one.control) for one in walked if one.query.id in ids and one.control is not None]
    if len(walks) < len(ids) or max((len(walk.task.space) for _, walk in walks), default=0) < 2:
        return  # some were not even begun, so that their edits are not known; or an edit is a question
    words = list(dict.fromkeys(edit.word for _, walk in walks for edit in walk.task.space))
    yield from _per_edit(part, part.attack, walks, None)
    if len(words) > 1:
        for word in words:
            yield from _per_edit(part, part.attack, walks, word)
    yield from _per_edit(part, part.control, controls, None)


def _per_edit(part: Part, attack: str, walks: Iterable[tuple[str, Walk]], word: str | None) -> Iterator[SearchRate]:
    outcomes = [
        (query, walk.seen[edit].reached if edit in walk.seen else None)
        for query, walk in walks
        for edit in walk.task.space
        if word in (None, edit.word)
    ]
    if outcomes:
        yield _rate(part, "per_edit", attack, outcomes, word=word)
