"""Judges: each looks at one answer and says a verdict and why.

A judge's name is its identity. It holds a hash of everything that decides its verdicts (code version,
list or prompt, model), so two verdicts under one name were reached in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from unmirage.errors import UserError
from unmirage.schema import Answer, Label, Query, Verdict

__all__ = ["Judge", "judge_all", "verdict_on"]


class Judge(Protocol):
    """What judges an answer. `name` is fit for a file name and changes whenever verdicts could."""

    @property
    def name(self) -> str:
        """Identity of the judge, with the hash of what decides its verdicts."""
        ...

    def judge(self, query: Query, answer: Answer) -> Verdict:
        """Return the verdict on an answer that has a text; `query` is the origin, before any attack."""
        ...


def judge_all(judge: Judge, queries: Iterable[Query], answers: Iterable[Answer]) -> Iterator[Verdict]:
    """Yield one verdict for each answer, in the order of the answers.

    An answer that is an error gets `Label.ERROR` with the reason, and the judge does not see it.
    Raises UserError where an answer belongs to none of the queries.
    """
    by_id = {query.id: query for query in queries}
    for answer in answers:
        if answer.query not in by_id:
            raise UserError(
                f"There is an answer to {answer.query!r}, which is not in the data; "
                "judge with the data set that was asked."
            )
        if answer.error is not None:
            yield verdict_on(answer, judge.name, Label.ERROR, answer.error)
        else:
            yield judge.judge(by_id[answer.query], answer)


def verdict_on(
    answer: Answer, judge: str, label: Label, why: str, *, harm: bool | None = None, correct: bool | None = None
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
    )
