"""The fast first pass: score every edited question, and say which words are worth real answers.

Where the score cannot be had or does not agree with real answers, that is said, and every word is generated.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from unmirage.audit.model.edits import Candidate, Edit
from unmirage.audit.model.effects import Meter
from unmirage.audit.model.results import Agreement
from unmirage.backends.asking import Progress
from unmirage.backends.prompts import Prompt
from unmirage.backends.protocol import Backend
from unmirage.errors import UserError
from unmirage.runs import Run
from unmirage.schema import Query

if TYPE_CHECKING:
    from unmirage.audit.model.calibrate import Calibration
    from unmirage.audit.model.encoding import Local
    from unmirage.audit.model.findings import Table
    from unmirage.audit.model.run import Plan
    from unmirage.audit.model.scoring import Scorer, Starts

Row = tuple[Query, Edit | None]


def local(backend: Backend) -> Local | None:
    """The backend where its model is in this process, else None."""
    inside = all(hasattr(type(backend), name) for name in ("model", "processor"))
    return cast("Local", backend) if inside else None


class Screening:
    """Scores, calibrates and ranks; `agreement` says what came of it."""

    def __init__(
        self, plan: Plan, table: Table, backend: Backend, controls: Sequence[Candidate], run: Run, progress: Progress
    ) -> None:
        """Nothing is loaded or computed before it is needed."""
        self.plan, self.table, self.controls = plan, table, controls
        self.local = local(backend)
        self.agreement = Agreement(used=False, why="Every word was generated, as asked.")
        self._run, self._progress = run, progress
        self._scores: dict[tuple[str, str | None], float] = {}
        self._threshold = 0.0
        self._drawn: dict[tuple[str, str], Row] = {}

    @cached_property
    def starts(self) -> Starts | None:
        """Starts of the model's refusals and other answers, from the first half of the questions."""
        if self.local is None:
            return None
        from unmirage.audit.model.scoring import starts_of

        rows = [row for row in (*self._asked(), *self._drawn.values()) if self._first_half(row[0])]
        known = [(self.table.text(*row), value) for row in rows if (value := self.table.refusal(*row)) is not None]
        return starts_of(self.local.processor, [text for text, _ in known], [value == 1 for _, value in known])

    @cached_property
    def scorer(self) -> Scorer | None:
        """What scores prompts; None where the model is elsewhere, or its answers are all of one sort."""
        if self.local is None or self.starts is None:
            return None
        from unmirage.audit.model.scoring import Scorer

        return Scorer(self.local, self.starts, self.table.asker, self._run.log("scores.jsonl"), self._progress)

    def draw(self, tried: Sequence[Candidate]) -> None:
        """Has some edited questions answered, from which starts and threshold will be taken and checked."""
        if self.local is None or not self.plan.score or not tried:
            return
        cells = [(query, one.edit) for query in self.table.queries for one in tried]
        drawn = random.Random(f"{self.plan.seed}/cells").sample(cells, min(self.plan.cells, len(cells)))
        self.table.generate_rows(drawn, "asking a sample to calibrate")
        self._drawn |= {(query.id, edit.name): (query, edit) for query, edit in drawn}

    def gradient_words(self) -> list[str]:
        """Opening words that the model's gradient points to; raises UserError where there is no gradient."""
        if self.local is None:
            raise UserError("a model that only returns text has no gradient; use --candidates lexicon or data.")
        if self.starts is None:
            raise UserError(f"{self._one_sort()}, so there is no gradient from one to the other; use another source.")
        from unmirage.audit.model.gradients import opening_words

        neutral = [one.edit for one in self.controls if one.edit.position == "opening"][:1]
        prompts = [self.table.prompt(q, edit) for q in self.table.queries for edit in (None, *neutral)]
        return opening_words(self.local, sorted(prompts, key=_sort), self.starts, self.plan.from_source)

    def choose(self, tried: Sequence[Candidate], always: Sequence[Candidate]) -> list[Candidate]:
        """The words to generate in full: `always`, and the `top` by predicted effect; all where scores are no good."""
        self.draw([one for one in tried if one.source == "gradient" or not self._drawn])
        if not self._usable():
            return list(tried)
        found = self._calibrated()
        self.agreement = self._agreement(found)
        self._score([(query, one.edit) for query in self.table.queries for one in tried])
        if not self.agreement.used:
            return list(tried)
        rest = [one for one in tried if one not in always]
        return [*always, *sorted(rest, key=self._rank, reverse=True)[: self.plan.top]]

    def score(self, query: Query, edit: Edit | None) -> float | None:
        """The score of one question as it is or under an edit, None where it was not scored."""
        return self._scores.get((query.id, edit.name if edit else None))

    def predicted(self, query: Query, edit: Edit | None) -> float | None:
        """1 where the score says that the question is refused, else 0; None where there is no score."""
        score = self.score(query, edit)
        return None if score is None else float(score > self._threshold)

    def _usable(self) -> bool:
        """Whether there can be scores; says why not."""
        if not self.plan.score:
            return False
        if self.local is None:
            return self._not("The model only returns text, so every word was generated.")
        try:
            starts = self.starts
        except UserError as error:
            return self._not(f"Every word was generated, as there are no scores: {error}")
        return starts is not None or self._not(
            f"{self._one_sort()}: nothing to calibrate on; every word was generated."
        )

    def _not(self, why: str) -> bool:
        self.agreement = Agreement(used=False, why=why)
        return False

    def _one_sort(self) -> str:
        rows = [value for row in self._asked() if (value := self.table.refusal(*row)) is not None]
        return f"Of {len(rows)} answers to the sample {int(sum(rows))} are refusals"

    def _asked(self) -> list[Row]:
        """Rows that have real answers anyway: as they are, and with control words."""
        edits: list[Edit | None] = [None, *(one.edit for one in self.controls)]
        return [(query, edit) for query in self.table.queries for edit in edits]

    def _first_half(self, query: Query) -> bool:
        """Every other question chooses starts and threshold; the others only check them."""
        return self.table.number[query.id] % 2 == 0

    def _calibrated(self) -> Calibration | None:
        """Real answers to some edited questions, against the scores of the same."""
        from unmirage.audit.model.calibrate import calibrate

        drawn = list(self._drawn.values())
        self._score([*self._asked(), *drawn])
        fit = [row for row in (*self._asked(), *drawn) if self._first_half(row[0])]
        return calibrate(self._pairs(fit), self._pairs([row for row in drawn if not self._first_half(row[0])]))

    def _pairs(self, rows: Sequence[Row]) -> list[tuple[float, bool]]:
        both = [(self.score(*row), self.table.refusal(*row)) for row in rows]
        return [(score, value == 1) for score, value in both if score is not None and value is not None]

    def _agreement(self, found: Calibration | None) -> Agreement:
        starts = self.starts
        assert starts is not None
        assert self.local is not None
        decode = self.local.processor.tokenizer.decode
        fields: dict[str, Any] = {
            "start_tokens": starts.length,
            "starts": {
                "refusal": [decode(list(start)) for start in starts.refusals],
                "other": [decode(list(start)) for start in starts.others],
            },
            "coverage": starts.coverage,
        }
        if found is None:
            return Agreement(
                used=False, why="There are too few answers to calibrate; every word was generated.", **fields
            )
        self._threshold = found.threshold
        why = found.why if found.good else f"{found.why} Every word was generated."
        ends: dict[str, Any] = {
            "low": found.agreement.low,
            "high": found.agreement.high,
            "agreement": found.agreement.value,
        }
        return Agreement(
            used=found.good,
            why=why,
            threshold=found.threshold,
            fitted_on=found.fitted_on,
            n=found.agreement.n,
            kappa=found.kappa,
            refused=found.refused,
            **ends,
            **fields,
        )

    def _score(self, rows: Sequence[Row]) -> None:
        assert self.scorer is not None
        missing = [row for row in rows if self.score(*row) is None]
        values = self.scorer.score([self.table.prompt(*row) for row in missing], "scoring")
        for (query, edit), value in zip(missing, values, strict=True):
            self._scores[query.id, edit.name if edit else None] = value

    def _rank(self, candidate: Candidate) -> tuple[float, float]:
        """The larger predicted effect against controls on harmful or harmless questions; then that on the score."""
        return self._against(candidate, "refusal"), self._against(candidate, "score")

    def _against(self, candidate: Candidate, metric: str) -> float:
        value = self.predicted if metric == "refusal" else self.score
        meter = Meter("refusal" if metric == "refusal" else "score", "score", value, self.table.known)
        sorts = [queries for harmful in (True, False) if (queries := self.table.of(harmful))]
        records = [meter.record(candidate, queries, self.beside(candidate)) for queries in sorts]
        return max(abs(one.minus_control or 0.0) for one in records)

    def beside(self, candidate: Candidate) -> list[Candidate]:
        """The control words at the same place."""
        return [one for one in self.controls if one.edit.position == candidate.edit.position]


def _sort(prompt: Prompt) -> tuple[bool, int, str]:
    return prompt.image is None, len(prompt.question), prompt.question
