"""Judges: each looks at one answer and says a verdict and why.

A judge's name is its identity. It holds a hash of everything that decides its verdicts (code version,
list or prompt, model), so two verdicts under one name were reached in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from unmirage.errors import UserError
from unmirage.schema import Answer, Label, Query, Verdict

__all__ = ["Judge", "judge_all", "judged", "several", "unjudged", "verdict_on"]


class Judge(Protocol):
    """What judges an answer. `name` is fit for a file name and changes whenever verdicts could.

    A judge may also have `judge_many(rows) -> Iterator[Verdict]`, which takes pairs of query and answer and yields
    their verdicts in order, where it can judge several faster than one by one; and `settled(text) -> bool`, which
    tells whether its verdict on every answer that begins with this text is the same. One whose verdicts take much time
    or money has `costly` = True, and `sees_picture` = True where it looks at the query's picture, see `keeping`.
    """

    @property
    def name(self) -> str:
        """Identity of the judge, with the hash of what decides its verdicts."""
        ...

    def judge(self, query: Query, answer: Answer) -> Verdict:
        """Return the verdict on an answer that has a text; `query` is the origin, before any attack."""
        ...


def judge_all(judge: Judge, queries: Iterable[Query], answers: Iterable[Answer]) -> Iterator[Verdict]:
    """Yield one verdict for each answer, in the order of the answers.

    An answer that no judge can look at (an error, one that a service's filter held back, one that was cut short for
    another judge) gets the label that says so. A judge with a method `judge_many` is given the others together.
    Raises UserError where an answer belongs to none of the queries.
    """
    by_id = {query.id: query for query in queries}
    rows = [(_origin(answer, by_id), answer) for answer in answers]
    verdicts = several(judge, [(query, answer) for query, answer in rows if unjudged(judge, answer) is None])
    for _, answer in rows:
        yield unjudged(judge, answer) or next(verdicts)


def several(judge: Judge, rows: Sequence[tuple[Query, Answer]]) -> Iterator[Verdict]:
    """The judge's verdicts on answers that it can look at, in order; together where it can."""
    many: Callable[[Sequence[tuple[Query, Answer]]], Iterator[Verdict]] | None = getattr(judge, "judge_many", None)
    return (judge.judge(query, answer) for query, answer in rows) if many is None else many(rows)


def _origin(answer: Answer, by_id: Mapping[str, Query]) -> Query:
    if answer.query not in by_id:
        raise UserError(
            f"There is an answer to {answer.query!r}, which is not in the data; judge with the data set that was asked."
        )
    return by_id[answer.query]


def judged(judge: Judge, query: Query, answer: Answer) -> Verdict:
    """The judge's verdict, or the label that says why it was not asked."""
    return unjudged(judge, answer) or judge.judge(query, answer)


def unjudged(judge: Judge, answer: Answer) -> Verdict | None:
    """The verdict on an answer that this judge cannot look at; None where it can."""
    if answer.error is not None:
        return verdict_on(answer, judge.name, Label.ERROR, answer.error)
    if answer.finish == "filter":
        return verdict_on(answer, judge.name, Label.FILTERED, "held back by a content filter of the service")
    if answer.cut_for and judge.name not in answer.cut_for:
        return verdict_on(answer, judge.name, Label.UNPARSED, f"cut short when {', '.join(answer.cut_for)} was certain")
    return None


def verdict_on(
    answer: Answer,
    judge: str,
    label: Label,
    why: str,
    *,
    harm: bool | None = None,
    correct: bool | None = None,
    score: float | None = None,
) -> Verdict:
    """Return a verdict for the planned row of `answer`: its query, attack and shot."""
    return Verdict(
        query=answer.query,
        judge=judge,
        label=label,
        why=why,
        attack=answer.attack,
        shot=answer.shot,
        harm=harm,
        correct=correct,
        score=score,
    )
