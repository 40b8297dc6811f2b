"""The variants of a recipe's attack."""

from __future__ import annotations

from collections.abc import Sequence

from unmirage.attacks import substitute_first_word
from unmirage.recipes.config import Attack, Recipe
from unmirage.schema import Query, Variant


def variants_of(recipe: Recipe, attack: Attack, queries: Sequence[Query]) -> list[Variant]:
    """The variants, and their controls where the attack has them; only those of the questions asked."""
    if attack.file is not None:
        from unmirage.verbs import read_variants

        return read_variants([recipe.path(attack.file)], list(queries))
    return list(substitute_first_word(queries, attack.to, attack.goal).variants)
