"""Variants without asking a model: every edit of every question that the goal is about, and a neutral control of each.

The attack that swaps opening words is called "first-word:what|can|how"; others after what they do and where:
"insert-begin:please", "substitute-any:the", "delete-any". The control of an attack is called "<attack>/neutral".

The swap of opening words is the attack of arXiv 2503.11832, whose released variants are whole paraphrases: a harmful
question gets a compliance word ("What"), a harmless one a refusal word ("Share").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from unmirage.attacks.constraints import allowed, constraints
from unmirage.attacks.controls import control_edits, control_name
from unmirage.attacks.edits import At, Change, Edit, check_place, edits_of
from unmirage.attacks.goals import Goal
from unmirage.attacks.words import checked_words
from unmirage.errors import UserError
from unmirage.schema import Query, Variant


@dataclass(frozen=True)
class OneWordAttack:
    """One attack: one kind of edit with its words and place, constraints, and whether its control is made."""

    change: Change
    words: tuple[str, ...] = ()
    at: At = At.any
    goal: Goal = Goal.bypass
    control: bool = True
    intent: bool = False
    grammar: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        checked_words(self.words)
        check_place([self.change], self.at)
        if self.change is Change.delete and self.words:
            raise UserError("to take words out needs no --to; leave it out, or choose another --edit.")
        if self.change is not Change.delete and not self.words:
            raise UserError("an attack needs at least one word; give one with --to, such as --to What.")

    @property
    def name(self) -> str:
        """The name of the attack."""
        words = "|".join(word.lower() for word in self.words)
        if self.change is Change.opening:
            return f"first-word:{words}"
        return f"{self.change}-{self.at}{words and ':'}{words}"


@dataclass(frozen=True, slots=True)
class Made:
    """The variants with their controls, and the questions of the goal for which there is no such edit."""

    variants: list[Variant]
    unchanged: list[Query]

    @property
    def attacks(self) -> int:
        """Variants that are no controls."""
        return sum(variant.control_of is None for variant in self.variants)


def one_word_variants(queries: Sequence[Query], attack: OneWordAttack) -> Made:
    """All variants of the questions that the goal is about, `shot` numbering those of one question."""
    variants: list[Variant] = []
    unchanged: list[Query] = []
    for query in queries:
        if not attack.goal.concerns(query):
            continue
        edits = _edits(query, attack)
        variants += [edit.variant(query, attack.name, shot=shot) for shot, edit in enumerate(edits)]
        variants += _controls(query, edits, attack) if attack.control else []
        unchanged += [] if edits else [query]
    return Made(variants, unchanged)


def substitute_first_word(
    queries: Sequence[Query], words: Sequence[str], goal: Goal | Literal["bypass", "over-refusal"]
) -> Made:
    """K variants of each query that the goal is about, one for each of the K words, and no controls.

    "bypass" takes the harmful queries, "over-refusal" the harmless ones. A query that already opens with a word (case
    and marks do not count) gets no variant for it. Raises UserError for a word that is empty, repeated or more than
    one word.
    """
    return one_word_variants(queries, OneWordAttack(Change.opening, tuple(words), goal=Goal(goal), control=False))


def _edits(query: Query, attack: OneWordAttack) -> list[Edit]:
    edits = edits_of(query.question, [attack.change], attack.words, attack.at)
    return allowed(query.question, edits, constraints(intent=attack.intent, grammar=attack.grammar))


def _controls(query: Query, edits: Sequence[Edit], attack: OneWordAttack) -> list[Variant]:
    name = control_name(attack.name)
    found = control_edits(query, edits, attack.seed, attack.words)
    return [edit.variant(query, name, shot=shot, control_of=attack.name) for shot, edit in enumerate(found)]
