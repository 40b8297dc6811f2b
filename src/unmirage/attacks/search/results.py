"""What a search found: the contents of `search.json`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from unmirage.attacks.edits import Kind
from unmirage.attacks.goals import Goal
from unmirage.attacks.search.walk import Outcome
from unmirage.schema import Frozen, Label, Rate


class Found(Frozen):
    """The edit that reached the goal: its word and position, and the question that it makes."""

    kind: Kind
    position: int
    word: str
    question: str


class Side(Frozen):
    """The attack on one question, or its control.

    edits: the N one-word edits there are. asked: edits that were asked, with the deletions that only rank positions.
    unusable: edits asked without a usable verdict. certified: all N were asked, each has a usable verdict, none reached
    the goal. edit: the first that did; hits: words of all that did, among those asked.
    """

    outcome: Outcome
    certified: bool
    edits: int
    asked: int
    unusable: int
    edit: Found | None = None
    hits: tuple[str, ...] = ()


class QuestionResult(Frozen):
    """One question. `attack` is None where nothing was tried: `already`, or not even asked as it is."""

    query: str
    question: str
    harmful: bool
    split: str | None
    before: Label | None
    outcome: Outcome
    attack: Side | None = None
    control: Side | None = None


class SearchRate(Frozen):
    """One rate over the questions of one split, harmful or harmless ones.

    metric: `already` (the goal holds without an attack), `broken` (of the questions that had to be attacked and have an
    edit), `worst_case` (already or broken, of all), `per_edit` (of single edits asked, fixed search alone; `word` names
    one word). attack: None, or the attack's or its control's name.

    least, most: the rate if no unfinished question would have broken, and if all would; low, high: ends of the 95 %
    interval of a rate around these, in which questions about one picture, and edits of one question, count together as
    they do in an evaluation. value: None while something is unfinished, as those
    that break end early. certified: questions for which every edit was asked in vain.
    """

    metric: Literal["already", "broken", "worst_case", "per_edit"]
    split: str | None
    harmful: bool
    attack: str | None
    word: str | None = None
    value: Rate | None
    least: Rate
    most: Rate
    low: Rate
    high: Rate
    n: int
    unfinished: int
    certified: int = 0


class SearchEffect(Frozen):
    """What the words do beyond neutral ones: rate broken by the attack minus rate broken by its control, in [-1, 1].

    Over the `n` questions that had to be attacked. low, high, p: the 95 % interval and the p of `stats.paired_change`,
    questions about one picture taken together (Newcombe and exact McNemar where each has its own). With unfinished
    questions value is None, low and high hold whatever these would have shown, and p is that of what speaks least for
    the attack: unfinished attacks did not break, unfinished controls did. gained, lost: questions where both ended,
    broken by the attack alone and by the control alone.
    """

    split: str | None
    harmful: bool
    attack: str
    control: str
    value: float | None
    low: float
    high: float
    gained: int
    lost: int
    p: Rate
    n: int
    unfinished: int


class SearchResult(BaseModel):
    """The content of `search.json`. asked: distinct requests; scored: passes of the model that are no requests."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    version: Literal[1] = Field(default=1, alias="schema")
    run: str
    model: str
    data: str
    judge: str
    goal: Goal
    search: str
    attack: str
    changes: list[str]
    at: str
    words: list[str]
    rules: list[str]
    budget: int | None
    asked: int
    scored: int
    rates: list[SearchRate]
    effects: list[SearchEffect]
    questions: list[QuestionResult]
    notes: list[str] = Field(default_factory=list)
