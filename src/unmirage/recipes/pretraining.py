"""How the base that a recipe's model pretrains is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unmirage.recipes.config import Pretrain

if TYPE_CHECKING:
    from unmirage.sandbox.pretrain import Recipe


def base_recipe(given: Pretrain) -> Recipe:
    """All settings, those that are left out too; UserError for some with which no base can be made."""
    from unmirage.sandbox.bases import recipe_of
    from unmirage.sandbox.world import World

    return recipe_of(World(given.salience, given.opener_weight), given.settings)
