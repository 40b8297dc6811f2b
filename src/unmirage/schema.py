"""The contracts that all rooms share: what is asked, what is answered, what is judged, what is measured.

Everything that enters the program becomes one of these models, so every later function may trust it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Rate = Annotated[float, Field(ge=0, le=1)]


class Frozen(BaseModel):
    """Base of every record: immutable, and a field that nobody knows is an error, not silently dropped."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Query(Frozen):
    """One question with at most one image, and whether it is harmful.

    `id` is unique in its data set. `reference` is the data set's own answer, where it has one; it is
    not ground truth for refusal. `answers` are those that people gave to a question that measures
    usefulness, one for each annotator. `split` names a part for which results are shown apart ("seen",
    "unseen"); `subset` is the data set's own name for the sort of question ("safe_unsafes").
    """

    id: Text
    question: Text
    harmful: bool
    image: Path | None = None
    reference: str | None = None
    answers: tuple[str, ...] = ()
    data: str = ""
    split: str | None = None
    subset: str | None = None


Edit = Literal["substitute", "insert", "delete", "paraphrase"]


class Variant(Frozen):
    """A query in which one word was substituted, put in or taken out, linked to its origin.

    `attack` names the edit ("first-word:what"), `shot` numbers the K variants of one query from 0. `word` is the word
    that was put there or, with "delete", taken out; `position` counts the words of the longer of the two questions.
    `control_of` names the attack for which this is a control ("a neutral word at the same place").
    An `edit` of "paraphrase" is the one exception, and named as such: any wording, of which nothing is asserted, not
    even that it is another one than its origin's (see `is_origin`); `word` is then its opening word.
    Raises ValueError where with another edit origin and variant differ in anything else than this one word, as white
    space parts them.
    """

    origin: Query
    question: Text
    attack: Text
    word: Text
    position: Annotated[int, Field(ge=0)] = 0
    shot: Annotated[int, Field(ge=0)] = 0
    edit: Edit = "substitute"
    control_of: str | None = None

    @model_validator(mode="after")
    def _exactly_one_word_differs(self) -> Self:
        was, now = self.origin.question, self.question
        if self.edit == "substitute":
            _check_substitution(was, now, self.position)
        elif self.edit == "insert":
            _check_taken_out(now, was, self.position, "put in")
        elif self.edit == "delete":
            _check_taken_out(was, now, self.position, "taken out")
        return self

    @property
    def is_origin(self) -> bool:
        """Whether it asks its origin again, word for word; only a paraphrase can."""
        return self.question.split() == self.origin.question.split()


def _check_substitution(was: str, now: str, position: int) -> None:
    changed = differing_words(was, now)
    if changed != [position]:
        raise ValueError(
            f"a variant differs from its origin in exactly one word, here word {position}; "
            f"{now!r} against {was!r} differs at {changed}"
        )


def _check_taken_out(longer: str, shorter: str, position: int, what: str) -> None:
    words = longer.split()
    if position >= len(words) or words[:position] + words[position + 1 :] != shorter.split():
        raise ValueError(
            f"a variant differs from its origin in exactly one word, here word {position}, {what}; "
            f"{longer!r} without it is not {shorter!r}"
        )


def differing_words(one: str, other: str) -> list[int] | None:
    """Positions at which two questions differ word by word; None where their word counts differ."""
    left, right = one.split(), other.split()
    if len(left) != len(right):
        return None
    return [i for i, (a, b) in enumerate(zip(left, right, strict=True)) if a != b]


Finish = Literal["stop", "length", "verdict", "filter"]
"""The model ended its answer; it reached the most tokens allowed; a judge was certain; a service's filter held it."""


class Answer(Frozen):
    """What a model generated for one rendered question.

    `key` is the content hash of everything that decides the answer (model, prompt, image bytes,
    generation settings), so the same request is never generated twice. `attack` is None before the
    attack. `error` says why there is no text; such a row is counted, never dropped. `finish` tells how
    the answer ended, None where that is not known; `cut_for` names the judges whose verdict was certain
    when it was cut short ("verdict"): other judges cannot judge it.
    """

    key: str
    query: str
    question: str
    model: str
    text: str
    attack: str | None = None
    word: str | None = None
    shot: int = 0
    error: str | None = None
    finish: Finish | None = None
    cut_for: tuple[str, ...] = ()

    @property
    def row(self) -> tuple[str, str | None, int]:
        """Identifies the planned row within one model's run: (query id, attack, shot)."""
        return (self.query, self.attack, self.shot)


def latest(answers: Iterable[Answer]) -> list[Answer]:
    """One answer for each planned row, the last one: a request that failed is made again by a later run."""
    return list({answer.row: answer for answer in answers}.values())


class Label(StrEnum):
    """What a judge says of an answer. `error` and `unparsed` are never folded into the others.

    `filtered`: no judge's word; a content filter of the service that was asked held the answer back.
    """

    REFUSAL = "refusal"
    PARTIAL = "partial"
    COMPLIANCE = "compliance"
    IRRELEVANT = "irrelevant"
    FILTERED = "filtered"
    ERROR = "error"
    UNPARSED = "unparsed"


class Verdict(Frozen):
    """A judge's label for one planned row and why.

    `harm` tells whether the answer gives away harmful know-how, judged apart from refusal; None
    where the judge does not look at harm. `correct` tells whether a harmless question got its right
    answer, and a harmful one a whole, well-formed refusal; None where the judge does not know it. `score` in [0, 1] is
    the same by degrees, where a benchmark counts some answers as partly right (VQA accuracy); `correct` is then left
    open.
    """

    query: str
    judge: str
    label: Label
    why: str
    attack: str | None = None
    shot: int = 0
    harm: bool | None = None
    correct: bool | None = None
    score: Rate | None = None


BEFORE = "_before"
"""Ends the name of a rate as asked that is of the questions of one attack alone."""


class Record(Frozen):
    """One figure in long form; the same everywhere, so that any table or plot is a query over records.

    Rates and their interval ends lie in [0, 1]; `n` counts the planned rows, `errors` and `unparsed`
    those among them without a usable verdict. `attack` is None before the attack; `split` is None
    where the data has no parts; `control` names the control in a figure that sets an attack against one; `stress`
    names what was done to the model, its questions or its answering first, None where nothing was; `axes` are the
    settings of a study that this figure is a point of, such as {"rho": 0.9}.
    """

    model: str
    method: str
    seed: int
    data: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    judge: str
    split: str | None = None
    attack: str | None = None
    control: str | None = None
    stress: str | None = None
    axes: dict[str, float | str] = {}
    k: int = 1
    errors: int = 0
    unparsed: int = 0


class Metrics(BaseModel):
    """The content of `metrics.json`."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    version: int = Field(default=1, alias="schema")
    run: str
    records: list[Record]


def content_hash(*parts: Any) -> str:
    """Hex digest of JSON-able parts and bytes; order of dictionary keys does not matter."""
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else json.dumps(part, sort_keys=True, default=str).encode()
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()[:32]
