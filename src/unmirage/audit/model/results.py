"""What an audit of a model found: the contents of `audit_model.json`, long-form."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from unmirage.audit.model.edits import Position, Role, Source
from unmirage.schema import Frozen

Metric = Literal["refusal", "leaning", "score"]
Measured = Literal["generated", "score"]
Reading = Literal["refusal cue", "compliance cue", "any change", "no effect", "too few to say", "not tested"]


class Effect(Frozen):
    """What one word does at one place, on harmful or on harmless questions, by one metric.

    metric: `refusal`, rate of refusals; `leaning`, refusal 1, off topic 1/2, answered 0; `score`, mean log-odds of the
    model's refusals against its other answers, in nats. measured: from generated answers, or predicted by the score.

    before, after, effect, low, high, p, gained, lost: over the `n` questions that the edit changes; `unchanged` have
    the word there already, `unusable` have no verdict on one side. q: p after Benjamini-Hochberg over all candidates.

    control: mean over the control words at the same place; control_low, control_high: lowest and highest of the single
    control words; minus_control and its interval, p and q: word minus controls over `n_control` questions, those that
    have the word already included. For a control word its controls are the other ones.
    """

    model: str
    data: str
    judge: str
    word: str
    position: Position
    edit: str
    role: Role
    source: Source
    harmful: bool
    metric: Metric
    measured: Measured
    n: int
    unchanged: int
    unusable: int
    before: float | None = None
    after: float | None = None
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    q: float | None = None
    gained: int | None = None
    lost: int | None = None
    n_control: int = 0
    control: float | None = None
    control_low: float | None = None
    control_high: float | None = None
    minus_control: float | None = None
    minus_control_low: float | None = None
    minus_control_high: float | None = None
    p_control: float | None = None
    q_control: float | None = None
    agreement: float | None = None
    reading: Reading = "not tested"


class Agreement(Frozen):
    """How the fast score was calibrated, and how well it agrees with real answers on questions it was not made from."""

    used: bool
    why: str
    start_tokens: int | None = None
    starts: dict[str, list[str]] = Field(default_factory=dict)
    coverage: float | None = None
    threshold: float | None = None
    fitted_on: int = 0
    n: int = 0
    agreement: float | None = None
    low: float | None = None
    high: float | None = None
    kappa: float | None = None
    refused: float | None = None


class WordPoint(Frozen):
    """One word in the data and in the model: how refusal goes with it there, and what it does here.

    data_difference: refusal rate of the rows with the word minus that of all rows; None where no row has it.
    effect: mean of minus_control over harmful and harmless questions, by `metric`.
    """

    word: str
    position: Position
    source: Source
    metric: Metric
    measured: Measured
    effect: float
    low: float
    high: float
    data_n: int = 0
    data_rate: float | None = None
    data_difference: float | None = None
    data_z: float | None = None


class SideBySide(Frozen):
    """All points of one metric, and Pearson's r over the words that the data hold (None below three of them).

    untouched: the words among them that the data do not tie to refusal; none where the metric is no rate.
    """

    metric: Metric
    points: list[WordPoint]
    n: int
    r: float | None = None
    untouched: list[str] = Field(default_factory=list)


class WordShare(Frozen):
    """What one word of a refused question contributes to its refusal; positive is towards refusal.

    removed, replaced: fall of the score when the word is taken out, or neutral words stand for it (mean);
    removed_refused, replaced_refused: share of these edits whose answer is still a refusal, None where there is no
    verdict or no edit. gradient: integrated gradients of the score.
    """

    word: str
    removed: float | None = None
    removed_refused: float | None = None
    replaced: float | None = None
    replaced_refused: float | None = None
    gradient: float | None = None


class ImageShare(Frozen):
    """What the picture contributes: all of it grey, and each patch grey (row by row)."""

    grid: int
    grey: float | None = None
    grey_refused: float | None = None
    patches: list[float] = Field(default_factory=list)
    patches_refused: list[float | None] = Field(default_factory=list)


class Attribution(Frozen):
    """One refusal taken apart. `word` and `position` are the edit under which it was refused, None as it was asked.

    gradient_gap: sum of the words' gradients minus what they should sum to (score of the question minus score of the
    baseline); gradient_note says why there are none.
    """

    query: str
    harmful: bool
    question: str
    word: str | None
    position: Position | None
    answer: str
    image: str | None
    score: float | None
    words: list[WordShare]
    picture: ImageShare | None
    gradient_gap: float | None = None
    gradient_span: float | None = None
    gradient_note: str = ""


class Example(Frozen):
    """One question before and after an edit, with both answers."""

    query: str
    harmful: bool
    word: str
    position: Position
    before: str
    after: str
    answer_before: str
    answer_after: str
    refused_before: bool | None
    refused_after: bool | None


class ModelAudit(BaseModel):
    """The content of `audit_model.json`."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    version: Literal[1] = Field(default=1, alias="schema")
    run: str
    model: str
    data: str
    judge: str
    harmful: int
    harmless: int
    controls: dict[str, list[str]]
    scoring: Agreement
    records: list[Effect]
    side_by_side: list[SideBySide] = Field(default_factory=list)
    attributions: list[Attribution] = Field(default_factory=list)
    examples: list[Example] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
