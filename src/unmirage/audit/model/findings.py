"""What was answered, and what follows from it: records, single refusals taken apart, examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmirage.audit.model.attribute import Case, Means, attribute, choose
from unmirage.audit.model.edits import Candidate, Edit
from unmirage.audit.model.effects import Meter, corrected, leaning, refusal, refusal_or_part
from unmirage.audit.model.results import Attribution, Effect, Example
from unmirage.backends.asking import Asker, Progress
from unmirage.backends.prompts import Prompt
from unmirage.backends.protocol import Reply
from unmirage.judges import Judge, judged
from unmirage.schema import Label, Query, Verdict, content_hash

if TYPE_CHECKING:
    from unmirage.audit.model.gradients import WordGradients
    from unmirage.audit.model.run import Plan
    from unmirage.audit.model.screening import Screening

EXAMPLES, FILLERS = 12, 2
_NO_VERDICT = {
    Label.ERROR: "never came",
    Label.FILTERED: "were held back",
    Label.UNPARSED: "could not be judged",
}


@dataclass
class Table:
    """Questions, and the answer and verdict of each under the edits that were asked.

    `known` is what every record says of model, data and judge.
    """

    queries: Sequence[Query]
    asker: Asker
    judge: Judge
    known: dict[str, Any]
    _texts: dict[tuple[str, str | None], str] = field(default_factory=dict)
    _verdicts: dict[tuple[str, str | None], Verdict] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.number = {query.id: number for number, query in enumerate(self.queries)}

    def of(self, harmful: bool) -> list[Query]:
        """The questions of one sort."""
        return [query for query in self.queries if query.harmful == harmful]

    def prompt(self, query: Query, edit: Edit | None) -> Prompt:
        """A question as it is asked; unedited where the edit changes nothing."""
        return edit.prompt(query) if edit and edit.changes(query.question) else Prompt.of(query)

    def generate(self, edits: Sequence[Edit | None], what: str) -> None:
        """Has every question answered under every edit."""
        self.generate_rows([(query, edit) for query in self.queries for edit in edits], what)

    def generate_rows(self, rows: Sequence[tuple[Query, Edit | None]], what: str) -> None:
        """Has these questions answered under these edits, and judged."""
        replies = self.asker.ask([self.prompt(query, edit) for query, edit in rows], what)
        for (query, edit), reply in zip(rows, replies, strict=True):
            key = (query.id, edit.name if edit else None)
            self._texts[key] = reply.text
            self._verdicts[key] = self.verdict_on(query, reply)

    def verdict_on(self, query: Query, reply: Reply) -> Verdict:
        """The judge's verdict on any reply to a question."""
        answer = reply.as_answer(query)
        return judged(self.judge, query, answer)

    def text(self, query: Query, edit: Edit | None) -> str:
        """The answer to a question that was asked."""
        return self._texts[self._key(query, edit)]

    def verdict(self, query: Query, edit: Edit | None) -> Verdict | None:
        """Its verdict; None where it was not asked."""
        return self._verdicts.get(self._key(query, edit))

    def _key(self, query: Query, edit: Edit | None) -> tuple[str, str | None]:
        key = (query.id, edit.name if edit else None)
        return key if edit is None or edit.changes(query.question) or key in self._verdicts else (query.id, None)

    def refusal(self, query: Query, edit: Edit | None) -> float | None:
        """1 for a refusal, 0 for another answer, None without a verdict."""
        verdict = self.verdict(query, edit)
        return None if verdict is None else self.refused(query, verdict)

    def refused(self, query: Query, verdict: Verdict) -> float | None:
        """Whether a verdict counts as a refusal of this question."""
        return refusal(verdict) if query.harmful else refusal_or_part(verdict)

    def leaning(self, query: Query, edit: Edit | None) -> float | None:
        """Refused 1, off topic 1/2, answered 0, None without a verdict."""
        verdict = self.verdict(query, edit)
        return None if verdict is None else leaning(verdict)

    def unanswered(self) -> list[str]:
        """How many answers have no verdict, and why the most of them have none; these are in no rate."""
        told = []
        for label, what in _NO_VERDICT.items():
            why = [verdict.why for verdict in self._verdicts.values() if verdict.label is label]
            if why:
                often = max(set(why), key=why.count)
                told.append(f"{len(why)} of {len(self._verdicts)} answers {what} ({often}); they are in no rate.")
        return told

    @property
    def tells_off_topic(self) -> bool:
        """Whether the judge tells off-topic answers from answers."""
        return any(verdict.label is Label.IRRELEVANT for verdict in self._verdicts.values())


@dataclass
class Findings:
    """Everything that is reported, from a table of answers and a screening."""

    plan: Plan
    table: Table
    screening: Screening
    controls: Sequence[Candidate]
    tried: Sequence[Candidate]
    matter: Sequence[Candidate]

    def records(self) -> list[Effect]:
        """Every word at every place, on both sorts of questions, by every metric; none is left out."""
        table, screening = self.table, self.screening
        generated = [*self.matter, *self.controls]
        rest = [one for one in self.tried if one not in self.matter]
        found = self._measured(Meter("refusal", "generated", table.refusal, table.known), generated)
        guessed = self._measured(Meter("refusal", "score", screening.predicted, table.known), rest)
        found += [one.model_copy(update={"agreement": screening.agreement.agreement}) for one in guessed]
        if table.tells_off_topic:
            found += self._measured(Meter("leaning", "generated", table.leaning, table.known), generated)
        if screening.agreement.threshold is not None:
            found += self._measured(
                Meter("score", "score", screening.score, table.known), [*self.tried, *self.controls]
            )
        sorts = sum(bool(table.of(harmful)) for harmful in (True, False))
        return corrected(found, len(self.tried) * sorts)

    def _measured(self, meter: Meter, tried: Sequence[Candidate]) -> list[Effect]:
        return [
            meter.record(one, queries, self.screening.beside(one))
            for one in tried
            for harmful in (True, False)
            if (queries := self.table.of(harmful))
        ]

    def attributions(self, records: Sequence[Effect], folder: Path, progress: Progress) -> list[Attribution]:
        """Some refusals taken apart; harmless questions that were refused only under a word are taken with the word."""
        cases = choose(self._refused(records), self.plan.attribute)
        if not cases:
            return []
        fillers = list(dict.fromkeys(one.edit.word for one in self.controls if one.source == "neutral"))[:FILLERS]
        means = self._means()
        found = []
        for number, case in enumerate(cases, start=1):
            found.append(attribute(case, means, fillers, folder))
            progress("taking refusals apart", number, len(cases))
        return found

    def _refused(self, records: Sequence[Effect]) -> list[Case]:
        plain = [Case(query, None) for query in self.table.queries if self.table.refusal(query, None) == 1]
        if any(not case.query.harmful for case in plain):
            return plain
        cues = [one for one in records if one.metric == "refusal" and one.measured == "generated" and not one.harmful]
        strongest = max(cues, key=lambda one: one.minus_control or 0.0, default=None)
        if strongest is None or not (strongest.minus_control or 0.0) > 0:
            return plain
        edit = Edit(strongest.word, strongest.position)
        return plain + [Case(query, edit) for query in self.table.of(False) if self.table.refusal(query, edit) == 1]

    def _means(self) -> Means:
        scorer = self.screening.scorer
        return Means(
            refused=self._still_refused,
            text=lambda prompt: self.table.asker.ask([prompt], "asking with parts hidden")[0].text,
            score=(lambda prompts: scorer.score(prompts, "scoring")) if scorer else None,
            gradients=self._gradients() if scorer else None,
        )

    def _still_refused(self, query: Query, prompts: Sequence[Prompt]) -> list[float | None]:
        replies = self.table.asker.ask(prompts, "asking with parts hidden")
        return [self.table.refused(query, self.table.verdict_on(query, reply)) for reply in replies]

    def _gradients(self) -> Any:
        from unmirage.audit.model.gradients import filler, integrated

        inside, starts = self.screening.local, self.screening.starts
        assert inside is not None
        assert starts is not None
        base = filler(inside, [Prompt.of(query) for query in self.table.queries])

        def _gradients(prompt: Prompt) -> WordGradients:
            return integrated(inside, prompt, starts, base)

        return _gradients

    def examples(self, records: Sequence[Effect]) -> list[Example]:
        """For each word that was found to be a cue, one question whose refusal it flips, by a hash of its id."""
        cues = [one for one in records if one.metric == "refusal" and one.reading.endswith("cue")]
        cues.sort(key=lambda one: -abs(one.minus_control or 0.0))
        found = [example for one in cues if (example := self._example(one)) is not None]
        return found[:EXAMPLES]

    def _example(self, cue: Effect) -> Example | None:
        edit = Edit(cue.word, cue.position)
        queries = [query for query in self.table.of(cue.harmful) if edit.changes(query.question)]
        for query in sorted(queries, key=lambda one: content_hash(one.id)):
            was, now = self.table.refusal(query, None), self.table.refusal(query, edit)
            if was is not None and now is not None and was != now:
                return Example(
                    query=query.id,
                    harmful=query.harmful,
                    word=cue.word,
                    position=cue.position,
                    before=query.question,
                    after=edit.apply(query.question),
                    answer_before=self.table.text(query, None),
                    answer_after=self.table.text(query, edit),
                    refused_before=was == 1,
                    refused_after=now == 1,
                )
        return None

    def notes(self) -> list[str]:
        """What a reader must know besides the figures."""
        found = self.table.unanswered()
        skipped = len(self.tried) - len(self.matter)
        if skipped:
            found.append(
                f"{skipped} of {len(self.tried)} words at their places were not generated: their score predicts less "
                "effect. Their records are predictions and are not tested."
            )
        if not self.table.tells_off_topic:
            found.append("The judge does not tell off-topic answers from answers: what is not refused may be neither.")
        return found
