"""The same words in several trained models: what is the data's doing, and what one model's own way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from unmirage.audit.model.results import Metric, ModelAudit, Reading, SideBySide, WordPoint
from unmirage.audit.model.sidebyside import NEAR, against_untouched
from unmirage.errors import UserError
from unmirage.stats import benjamini_hochberg, mean_over_seeds
from unmirage.stats.rates import t_probability

FILE = "audit_model.json"
SIGNIFICANT = 0.05
SAME = 1e-9
"""Effects that lie nearer together are the same but for rounding: rates over a few hundred questions differ by more."""

Zero = Literal["untouched", "controls"]


class WordOverRuns(WordPoint):
    """One word over all models. effect, low, high: mean over them, and Student's t interval of it.

    each: the effect in each model, in their order. p: of Student's t test that the mean is 0; None where all models
    have the same effect: low and high then reach over the intervals of the single audits. q: p after
    Benjamini-Hochberg over the words. untouched: the data do not tie it to refusal.
    """

    each: list[float]
    untouched: bool
    p: float | None = None
    q: float | None = None
    reading: Reading = "no effect"


class OverRuns(BaseModel):
    """All words by one metric against one zero.

    zero: `controls`, neutral and random words, as in each audit; `untouched`, in each model the mean of the (other)
    words that the data do not tie to refusal.
    """

    metric: Metric
    zero: Zero
    words: list[WordOverRuns]

    def picture(self) -> SideBySide:
        """The same as points beside the data."""
        return SideBySide(metric=self.metric, points=list(self.words), n=len(self.words))


class ModelAudits(BaseModel):
    """The content of `audit_models.json`."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    version: Literal[1] = Field(default=1, alias="schema")
    models: list[str]
    data: str
    judge: str
    found: list[OverRuns]
    notes: list[str] = Field(default_factory=list)


def read_audits(paths: Sequence[Path]) -> list[ModelAudit]:
    """Audits of models, from their run folders or `audit_model.json` files; raises UserError for anything else."""
    return [_read(path / FILE if path.is_dir() else path) for path in paths]


def _read(path: Path) -> ModelAudit:
    try:
        return ModelAudit.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); give the folders of finished runs of `unmirage audit model`."
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{path}, field {field!r}: {first['msg']}; give an {FILE} as `unmirage audit model` writes it."
        ) from None


def over_runs(audits: Sequence[ModelAudit], names: Sequence[str] | None = None) -> ModelAudits:
    """The words that all models were asked with at the opening, their effects averaged over the models.

    `names` tells the models apart where they are called alike. Raises UserError for fewer than two audits, audits of
    different questions or by different judges, audits that know no data, and no word in common.
    """
    _check(audits)
    metrics: list[Metric] = [one for one in ("leaning", "refusal") if all(_side(audit, one) for audit in audits)]
    found = [_over(audits, metric, zero) for metric in metrics for zero in ("untouched", "controls")]
    if not any(one.words for one in found):
        raise UserError("no word was tried at the opening in all of these audits; give all of them the same --words.")
    names = list(names or [audit.model for audit in audits])
    return ModelAudits(
        models=names,
        data=audits[0].data,
        judge=audits[0].judge,
        found=[one for one in found if one.words],
        notes=_notes(audits, found),
    )


def _check(audits: Sequence[ModelAudit]) -> None:
    if len(audits) < 2:
        raise UserError("one audit says nothing of other models; give two or more, better five.")
    for what in ("data", "judge"):
        if len(given := {getattr(audit, what) for audit in audits}) > 1:
            raise UserError(f"the audits differ in their {what} ({', '.join(sorted(given))}); give audits of the same.")
    for audit in audits:
        if not any(side.untouched or _held(side) for side in audit.side_by_side):
            raise UserError(
                f"the audit of {audit.model} (run {audit.run}) knows no training data; audit it again with --data."
            )


def _side(audit: ModelAudit, metric: Metric) -> SideBySide | None:
    return next((one for one in audit.side_by_side if one.metric == metric), None)


def _held(side: SideBySide) -> bool:
    return any(point.data_rate is not None for point in side.points)


def _over(audits: Sequence[ModelAudit], metric: Metric, zero: Zero) -> OverRuns:
    sides = [side for audit in audits if (side := _side(audit, metric))]
    shown = [against_untouched(side) if zero == "untouched" else side for side in sides]
    effects = [{point.word: point for point in (one.points if one else ())} for one in shown]
    untouched = {word for side in sides for word in side.untouched}
    common = [word for word in effects[0] if all(word in one for one in effects)]
    if zero == "untouched" and len([word for word in common if word in untouched]) < 2:
        return OverRuns(metric=metric, zero=zero, words=[])
    words = [_word([one[word] for one in effects], word in untouched) for word in common]
    return OverRuns(metric=metric, zero=zero, words=_corrected(words))


def _word(points: Sequence[WordPoint], untouched: bool) -> WordOverRuns:
    each = [point.effect for point in points]
    mean = mean_over_seeds(each)
    p, low, high = _p(each), mean.low, mean.high
    if p is None:  # without variance Student's interval has no width, as if a few questions told everything
        low, high = min(point.low for point in points), max(point.high for point in points)
    known = points[0].model_dump() | {"effect": mean.value, "low": low, "high": high}
    return WordOverRuns(**known, each=each, untouched=untouched, p=p)


def _p(values: Sequence[float]) -> float | None:
    """Two-sided p of Student's one-sample t test; None where the values do not differ, for there is no t then."""
    if max(values) - min(values) <= SAME:
        return None
    mean = mean_over_seeds(values)
    n = len(values)
    variance = math.fsum((value - mean.value) ** 2 for value in values) / (n - 1)
    t = abs(mean.value) / math.sqrt(variance / n)
    return max(0.0, 1 - t_probability(math.atan(t / math.sqrt(n - 1)), n - 1))


def _corrected(words: Sequence[WordOverRuns]) -> list[WordOverRuns]:
    """With q values and what follows from them, from the word that does most for refusal down."""
    tested = [word for word in words if word.p is not None]
    qs = dict(zip([word.word for word in tested], benjamini_hochberg([word.p or 0.0 for word in tested]), strict=True))
    found = [word.model_copy(update={"q": (q := qs.get(word.word)), "reading": _reading(word, q)}) for word in words]
    return sorted(found, key=lambda word: -word.effect)


def _reading(word: WordOverRuns, q: float | None) -> Reading:
    """By q or, for a word without a test, by the intervals of all audits and a size that is worth naming."""
    by_intervals = abs(word.effect) - NEAR > SAME and not word.low <= 0 <= word.high
    if not (by_intervals if q is None else q < SIGNIFICANT):
        return "no effect"
    return "refusal cue" if word.effect > 0 else "compliance cue"


def _notes(audits: Sequence[ModelAudit], found: Sequence[OverRuns]) -> list[str]:
    notes = []
    tried = {point.word for audit in audits for side in audit.side_by_side for point in side.points}
    kept = {word.word for one in found for word in one.words}
    if missing := sorted(tried - kept):
        notes.append(f"Not tried in all models, and left out: {', '.join(missing)}.")
    predicted = sorted({p.word for a in audits for s in a.side_by_side for p in s.points if p.measured == "score"})
    if predicted:
        notes.append(
            f"Predicted by a score in some model, not generated: {', '.join(predicted)}; `--no-score` generates all."
        )
    if len({audit.run for audit in audits}) < len(audits):
        notes.append("One run is given more than once: the intervals are too narrow.")
    return notes
