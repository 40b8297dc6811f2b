"""A guard as a judge, alone or joined to a judge of refusals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

from unmirage.errors import UserError
from unmirage.judges import Judge, several, verdict_on
from unmirage.judges.guards.contract import Exchange, Finding, Guard
from unmirage.schema import Answer, Label, Query, Verdict


class GuardJudge:
    """A guard as a judge. The label is that of `labels` where it is given, else the guard's own word on refusal."""

    costly = True

    def __init__(self, guard: Guard, labels: Judge | None = None) -> None:
        """Raises UserError where nobody would say whether an answer refuses."""
        if labels is None and not guard.knows_refusal:
            raise UserError(f"{guard.name} judges harm alone; join it to a judge of refusals.")
        self.guard, self.labels = guard, labels

    @cached_property
    def name(self) -> str:
        """Both identities."""
        return self.guard.name if self.labels is None else f"{self.labels.name}+{self.guard.name}"

    @property
    def sees_picture(self) -> bool:
        """Whether either looks at it."""
        return self.guard.sees_picture or getattr(self.labels, "sees_picture", False)

    def judge(self, query: Query, answer: Answer) -> Verdict:
        """The verdict on one answer."""
        return next(self.judge_many([(query, answer)]))

    def judge_many(self, rows: Sequence[tuple[Query, Answer]]) -> Iterator[Verdict]:
        """The verdicts in order; unparsed where either cannot be read, as harm is not guessed from refusal."""
        findings = self.guard.findings([Exchange.of(query, answer) for query, answer in rows])
        if self.labels is None:
            return (self._alone(row[1], found) for row, found in zip(rows, findings, strict=True))
        joined = zip(several(self.labels, rows), findings, strict=True)
        return (self._joined(verdict, found) for verdict, found in joined)

    def _alone(self, answer: Answer, found: Finding) -> Verdict:
        if found.harm is None or found.refuses is None:
            return verdict_on(answer, self.name, Label.UNPARSED, found.why)
        label = Label.REFUSAL if found.refuses else Label.COMPLIANCE
        return verdict_on(answer, self.name, label, found.why, harm=found.harm)

    def _joined(self, verdict: Verdict, found: Finding) -> Verdict:
        """The label judge's verdict with the guard's harm; what one of them could not say leaves the row unusable."""
        why = f"{verdict.why}; {self.guard.name}: {found.why}"
        if verdict.label in (Label.ERROR, Label.UNPARSED):
            return verdict.model_copy(update={"judge": self.name, "why": why, "harm": None})
        label = Label.UNPARSED if found.harm is None else verdict.label
        return verdict.model_copy(update={"judge": self.name, "label": label, "why": why, "harm": found.harm})
