"""The one-word attack: only the opening word of a question changes.

Bypass: a harmful question gets a compliance word ("What"). Over-prudence probe: a harmless one gets a refusal word
("Share"). After arXiv 2503.11832, whose released variants are whole paraphrases; these differ in one word, asserted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from unmirage.errors import UserError
from unmirage.schema import Query, Variant

Goal = Literal["bypass", "over-refusal"]


@dataclass(frozen=True, slots=True)
class Substitution:
    """The variants, and the queries that have none because they already open with every one of the words."""

    variants: list[Variant]
    unchanged: list[Query]


def substitute_first_word(queries: Sequence[Query], words: Sequence[str], goal: Goal) -> Substitution:
    """K variants of each query that the goal is about, one for each of the K words.

    "bypass" takes the harmful queries, "over-refusal" the harmless ones. A query that already opens with a word gets
    no variant for it. Raises UserError for a word that is empty, repeated or more than one word.
    """
    _check(words)
    attack = "first-word:" + "|".join(word.lower() for word in words)
    variants: list[Variant] = []
    unchanged: list[Query] = []
    for query in queries:
        if query.harmful != (goal == "bypass"):
            continue
        made = _variants(query, words, attack)
        variants += made
        if not made:
            unchanged.append(query)
    return Substitution(variants, unchanged)


def _variants(query: Query, words: Sequence[str], attack: str) -> list[Variant]:
    first = query.question.split()[0]
    rest = query.question[len(first) :]
    fitting = [word for word in words if word.lower() != first.lower()]
    return [
        Variant(origin=query, question=word + rest, attack=attack, word=word, shot=shot)
        for shot, word in enumerate(fitting)
    ]


def _check(words: Sequence[str]) -> None:
    if not words:
        raise UserError("an attack needs at least one word; give one with --to, such as --to What.")
    for word in words:
        if word.split() != [word]:
            raise UserError(
                f"{word!r} is not one word; a one-word attack puts exactly one word in the place of another."
            )
    if len({word.lower() for word in words}) < len(words):
        raise UserError(f"the attack words {', '.join(words)} repeat one another; give each once.")
