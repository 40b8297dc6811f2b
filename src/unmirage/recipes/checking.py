"""What of a recipe's newer parts can be known to be wrong before anything is done."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from unmirage.errors import UserError
from unmirage.recipes.config import SANDBOX, Pretrain, Recipe, Stress, World
from unmirage.recipes.planning import needs_of


def check_pretrain(given: Pretrain) -> None:
    """Raises UserError for settings with which no base can be made."""
    from unmirage.sandbox.bases import recipe_of
    from unmirage.sandbox.world import World as Known

    if not given.shipped:
        recipe_of(Known(given.salience, given.opener_weight), given.settings)


def check_stress(stress: Stress) -> None:
    """Raises UserError for a kind or settings that there are not, and for data that the kind needs and has not."""
    given = {"forget": stress.data, "general": stress.general}
    for need, key in (("forget", "data"), ("general", "general")):
        if need in needs_of(stress) and not given[need]:
            raise UserError(f"{key} is missing, which {stress.kind} needs; name one of the recipe's data.")


def check_worlds(recipe: Recipe) -> None:
    """Raises UserError where a model is shown pictures of another salience than its base knows."""
    for name, key in _looks(recipe):
        known, world = _salience(recipe, name), recipe.data[key].world
        if known and world and recipe.worlds[world].salience != known:
            raise UserError(
                f"models.{name}: its base knows a world of salience {known}, and data.{key} is of worlds.{world}, of "
                f"salience {recipe.worlds[world].salience}; make them the same, or start it from another base."
            )


def _looks(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Which model is shown the pictures of which data."""
    for name, model in recipe.models.items():
        yield from ((name, key) for key in (model.data, model.general, model.preferred) if key)
    for measuring, measure in recipe.measures.items():
        yield from ((name, key) for name in recipe.asked(measuring) for key in measure.data)


def _salience(recipe: Recipe, name: str) -> str | None:
    """The salience of the world that a model's base knows; None where that cannot be told."""
    first = recipe.models[recipe.chain(name)[-1]]
    if first.pretrain:
        return first.pretrain.salience
    if first.server:
        return None
    if first.checkpoint:
        return _of_card(recipe.path(first.checkpoint))
    return World().salience if recipe.base == SANDBOX else _of_card(recipe.path(recipe.base))


def _of_card(folder: Path) -> str | None:
    """As the card of a sandbox base says it."""
    try:
        found = json.loads((folder / "card.json").read_text(encoding="utf-8"))["recipe"]["salience"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) else None
