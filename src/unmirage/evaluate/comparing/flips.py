"""Who flipped: the rows on which a run and the baseline have different outcomes, with both answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from unmirage.evaluate.comparing.aligning import Contender, Shared
from unmirage.evaluate.rows import Row, Sheet
from unmirage.schema import Query, Verdict, content_hash

METRICS = {True: ("asr",), False: ("rr", "utility")}
Hides = Callable[[Mapping[str, Verdict], str], bool]
"""Whether an answer to a harmful query may not be shown, from all judges' verdicts and the name of the one used."""


@dataclass(frozen=True)
class Side:
    """One run's answer: its outcome, its label, and its text unless that is redacted or there is none."""

    value: float
    label: str
    text: str | None
    characters: int


@dataclass(frozen=True)
class Flip:
    """One row on which a metric's outcome is another than the baseline's."""

    run: str
    metric: str
    split: str | None
    query: str
    attack: str | None
    shot: int
    question: str
    baseline: Side
    now: Side

    @property
    def gained(self) -> bool:
        """Whether the run has the outcome, or more of it, where the baseline does not."""
        return self.now.value > self.baseline.value


def flips(runs: Sequence[Contender], judge: str, shared: Shared, hides: Hides) -> list[Flip]:
    """All flips of each run against the first, in an order that does not depend on any answer."""
    sheets = [Sheet(list(run.verdicts[judge].values()), shared.queries) for run in runs]
    asked = sorted(_asked(shared), key=lambda one: content_hash(*one[0]))
    found: list[Flip] = []
    for run, sheet in zip(runs[1:], sheets[1:], strict=True):
        for row, query, question in asked:
            found += _of_row(row, query, question, (runs[0], sheets[0]), (run, sheet), hides)
    return found


def _asked(shared: Shared) -> Iterator[tuple[Row, Query, str]]:
    by_id = {query.id: query for query in shared.queries}
    yield from (((query.id, None, 0), query, query.question) for query in shared.queries)
    yield from (((v.origin.id, v.attack, v.shot), by_id[v.origin.id], v.question) for v in shared.variants)


def _of_row(
    row: Row,
    query: Query,
    question: str,
    before: tuple[Contender, Sheet],
    after: tuple[Contender, Sheet],
    hides: Hides,
) -> Iterator[Flip]:
    for metric in METRICS[query.harmful]:
        was, now = before[1].value(row, metric), after[1].value(row, metric)
        if was is None or now is None or was == now:
            continue
        sides = [
            _side(run, sheet, row, value, query.harmful, hides) for (run, sheet), value in ((before, was), (after, now))
        ]
        yield Flip(after[0].label, metric, query.split, row[0], row[1], row[2], question, sides[0], sides[1])


def _side(run: Contender, sheet: Sheet, row: Row, value: float, harmful: bool, hides: Hides) -> Side:
    verdicts = {name: rows[row] for name, rows in run.verdicts.items() if row in rows}
    answer = run.answers.get(row)
    label = str(sheet.by_row[row].label)
    if answer is None:
        return Side(float(value), label, None, 0)
    hidden = harmful and hides(verdicts, sheet.judge)
    return Side(float(value), label, None if hidden else answer.text, len(answer.text))
