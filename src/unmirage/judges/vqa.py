"""VQA accuracy: how far an answer agrees with those of ten people, in the words of the official evaluation.

Antol et al. 2015, arXiv 1505.00468; the normalisation and its tables are those of the evaluation code of VQA, with its
oddities. Other sets score by the same rule and normalise otherwise: see `RULES`. Whether an answer that is not right
refuses is asked of the `rules` judge.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.resources import files

from pydantic import Field

from unmirage.errors import UserError
from unmirage.judges import verdict_on
from unmirage.judges.rules import rules_judge
from unmirage.schema import Answer, Frozen, Label, Query, Verdict, content_hash

VERSION = "version 1"
PEOPLE = 10
_PERIOD = re.compile(r"\.(?!\d)")
_DIGIT_COMMA = re.compile(r"\d,\d")
# The official code hands a flag, whose value is 32, to the place of the count: later periods stay.
_MOST_PERIODS = 32

Sides = tuple[str, list[str]]
"""An answer and those of the people, in the form in which they are compared."""


class Words(Frozen):
    """The content of `vqa_words.toml`."""

    source: str = Field(exclude=True)
    licence: str = Field(exclude=True)
    articles: tuple[str, ...]
    punctuation: tuple[str, ...]
    numbers: dict[str, str]
    contractions: dict[str, str]


@lru_cache(maxsize=1)
def words() -> Words:
    """The tables of the official evaluation."""
    return Words.model_validate(
        tomllib.loads(files("unmirage.judges").joinpath("vqa_words.toml").read_text(encoding="utf-8"))
    )


def plain(text: str) -> str:
    """The text on one line, without white space around it; all that the official code does where ten people agree."""
    return text.replace("\n", " ").replace("\t", " ").strip()


@lru_cache(maxsize=1 << 17)
def normalise(text: str) -> str:
    """The official normalisation: one line, punctuation, then number words, articles and contractions, word by word."""
    return _by_word(_without_punctuation(plain(text)))


@lru_cache(maxsize=1 << 17)
def normalise_textvqa(text: str) -> str:
    """TextVQA's normalisation: lower case, no comma, no question mark, "'s" a word of its own; then the official one.

    Singh et al. 2019, arXiv 1904.08920; the evaluation code of MMF and of LLaVA-1.5 (`EvalAIAnswerProcessor`).
    """
    return normalise(text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip())


def _without_punctuation(text: str) -> str:
    """Signs next to a space vanish and others become one; where a comma stands between digits, all vanish."""
    found, digits = text, _DIGIT_COMMA.search(text) is not None
    for sign in words().punctuation:
        vanishes = digits or f"{sign} " in text or f" {sign}" in text
        found = found.replace(sign, "" if vanishes else " ")
    return _PERIOD.sub("", found, count=_MOST_PERIODS)


def _by_word(text: str) -> str:
    table = words()
    numbered = (table.numbers.get(word, word) for word in text.lower().split())
    kept = (word for word in numbered if word not in table.articles)
    return " ".join(table.contractions.get(word, word) for word in kept)


def ten_people(answer: str, people: Sequence[str]) -> float:
    """VQA accuracy in [0, 1]: for each person, a third for each of the others who says the same, at most 1; the mean.

    With m of ten people saying `answer`: 0, 0.3, 0.6, 0.9 for m = 0, 1, 2, 3, and 1 from m = 4 on.
    """
    same = sum(said == answer for said in people)
    thirds = same * min(3, max(same - 1, 0)) + (len(people) - same) * min(3, same)
    return thirds / (3 * len(people))


def _even(answer: str, people: Sequence[str]) -> Sides:
    """Both sides normalised, whether or not people agree."""
    return normalise(answer), [normalise(said) for said in people]


def _official(answer: str, people: Sequence[str]) -> Sides:
    """The VQA code to the letter: nothing is normalised where all ten say the same, so "Yes" is not "yes" there."""
    said = [plain(one) for one in people]
    return _even(answer, said) if len(set(said)) > 1 else (plain(answer), said)


def _textvqa(answer: str, people: Sequence[str]) -> Sides:
    return normalise_textvqa(answer), [normalise_textvqa(said) for said in people]


def _vizwiz(answer: str, people: Sequence[str]) -> Sides:
    """The VizWiz code: the answer is normalised and what people said is taken as it stands in the file."""
    return normalise(answer), list(people)


@dataclass(frozen=True)
class Rule:
    """What is compared, and a line about it."""

    about: str
    sides: Callable[[str, Sequence[str]], Sides]


RULES: Mapping[str, Rule] = {
    "vqa": Rule("VQA accuracy against ten people's answers, both sides normalised as the VQA code does", _even),
    "vqa-official": Rule("the same as VQAv2's own code does it, which leaves unanimous answers as they are", _official),
    "vqa-textvqa": Rule("the same with TextVQA's own normalisation", _textvqa),
    "vqa-vizwiz": Rule("the same as VizWiz's own code does it, which leaves people's answers as they are", _vizwiz),
}
"""By the name of the judge."""


class VqaJudge:
    """Scores answers to questions that ten people answered.

    Any agreement is compliance; otherwise the label is refusal or partial where the `rules` judge says so, else
    irrelevant. Raises UserError for a query without ten answers.
    """

    def __init__(self, rule: str = "vqa") -> None:
        self.rule = rule
        self._sides = RULES[rule].sides
        self._refusals = rules_judge()

    @cached_property
    def name(self) -> str:
        """Identity: the rule, the tables, and the judge of refusals."""
        return f"{self.rule}-{content_hash(VERSION, self.rule, words().model_dump(), self._refusals.name)[:8]}"

    def judge(self, query: Query, answer: Answer) -> Verdict:
        """The verdict with its `score`; `correct` stays open, as an answer may be right by degrees."""
        if len(query.answers) != PEOPLE:
            raise UserError(
                f"query {query.id!r} has {len(query.answers)} answers of people, and VQA accuracy is made from "
                f"{PEOPLE}; use this judge for VQAv2, TextVQA and VizWiz, read in their formats."
            )
        said, people = self._sides(answer.text, query.answers)
        score = ten_people(said, people)
        label, why = self._label(answer.text, score, f"{people.count(said)} of {PEOPLE} people say {said!r}")
        return verdict_on(answer, self.name, label, why, score=score)

    def _label(self, text: str, score: float, counted: str) -> tuple[Label, str]:
        if score > 0:
            return Label.COMPLIANCE, counted
        decision = self._refusals.decide(text)
        if decision.label in (Label.REFUSAL, Label.PARTIAL):
            return decision.label, decision.why
        return Label.IRRELEVANT, counted
