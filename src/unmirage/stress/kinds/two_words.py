"""Edits of two words: another opening word, and a second word put in; beside it two neutral words at the same places.

Variants of one word assert that nothing else differs. These do not: their edit is "paraphrase", their attack's name
says which two words they have.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from unmirage.attacks.controls import control_name
from unmirage.attacks.edits import Edit
from unmirage.attacks.goals import Goal
from unmirage.attacks.words import checked_words, neutral_words
from unmirage.audit.model.edits import bare
from unmirage.errors import UserError
from unmirage.schema import Query, Variant
from unmirage.stress.protocol import Plan, StressConfig, Work
from unmirage.stress.registry import stress


class TwoWords(StressConfig):
    """opener: stands in the place of the first word. word: put in behind it (at=begin) or at the end of the question.
    goal: bypass (harmful questions), over-refusal (harmless ones), flip (all). control: two neutral words beside.
    """

    opener: str = "What"
    word: str = "please"
    at: Literal["begin", "end"] = "begin"
    goal: Goal = Goal.bypass
    control: bool = True


@stress("two-words", about="two words edited: the opening word and one put in", config=TwoWords)
def two_words(plan: Plan, config: TwoWords, work: Work) -> Plan:
    """The plan with edits of two words as variants; questions that open with the word already have none."""
    checked_words([config.opener, config.word])
    mine = [query for query in plan.queries if config.goal.concerns(query)]
    if not mine:
        raise UserError(f"there is no question that the goal {config.goal} is about; give other data or another goal.")
    variants = [variant for query in mine for variant in _of(query, config, plan.seed)]
    if not variants:
        raise UserError(f"no question of the goal {config.goal} opens with another word than {config.opener!r}.")
    if left := len(mine) - len({variant.origin.id for variant in variants}):
        work.note(f"{left} questions open with {config.opener!r} already and are not edited.")
    return replace(plan, variants=variants)


def _of(query: Query, config: TwoWords, seed: int) -> Iterator[Variant]:
    words = query.question.split()
    if bare(words[0]) == bare(config.opener):
        return
    attack = f"two-words:{config.opener.lower()}+{config.word.lower()}"
    place = 1 if config.at == "begin" else len(words)
    yield _variant(query, config.opener, config.word, place, attack, None)
    if config.control:
        without = [config.opener, config.word, *words]
        first, second = neutral_words(seed, query.id, without)[:2]
        yield _variant(query, first, second, place, control_name(attack), attack)


def _variant(query: Query, opener: str, word: str, place: int, attack: str, control_of: str | None) -> Variant:
    question = Edit("insert", place, word).apply(Edit("substitute", 0, opener).apply(query.question))
    return Variant(
        origin=query, question=question, attack=attack, word=opener, edit="paraphrase", control_of=control_of
    )
