"""The variants of a recipe's attack."""

from __future__ import annotations

from collections.abc import Sequence

from unmirage.attacks import OneWordAttack, one_word_variants
from unmirage.attacks.edits import Change
from unmirage.attacks.goals import Goal
from unmirage.recipes.config import Attack, Recipe
from unmirage.schema import Query, Variant


def variants_of(recipe: Recipe, attack: Attack, queries: Sequence[Query]) -> list[Variant]:
    """The variants, and their controls where the attack has them; only those of the questions asked."""
    if attack.file is not None:
        from unmirage.verbs import read_variants

        return read_variants([recipe.path(attack.file)], list(queries))
    return one_word_variants(queries, _one_word(attack, recipe.seeds[0])).variants


def check_attack(attack: Attack) -> None:
    """Raises UserError for words that no attack can be made of."""
    if attack.file is None:
        _one_word(attack, 0)


def _one_word(attack: Attack, seed: int) -> OneWordAttack:
    return OneWordAttack(Change.opening, attack.to, goal=Goal(attack.goal), control=attack.control, seed=seed)
