"""The base model of a world: the shipped one where it is of that world, otherwise pretrained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmirage.errors import UserError
from unmirage.sandbox.shipped import base_weights
from unmirage.sandbox.world import World

if TYPE_CHECKING:
    from unmirage.sandbox.pretrain import Recipe

Report = Callable[[str, int, int], None]
"""Called with the stage, the steps done and the steps in all."""

_DONE = "README.md"
"""Written last: a folder without it holds what an interrupted run left."""


def pretrained(world: World, out: Path, report: Report, settings: Mapping[str, Any] | None = None) -> Path:
    """The folder of a base model that knows `world`: the shipped one, or one made in `out`.

    Without `settings` (fields of `pretrain.Recipe` other than the world's own: seed, steps, ...) the shipped base
    stands for its own world, and any other world's is trained shorter than it; a few points of accuracy do not decide
    the race. What `out` holds of the same recipe is taken as it is; what an interrupted run left is made anew. Raises
    UserError for settings that there are not, a world of another seed, and a folder of another recipe.
    """
    from unmirage.sandbox.pretrain import Recipe

    if not settings and world == Recipe().world:
        return base_weights()
    recipe = recipe_of(world, settings or {})
    if (out / _DONE).exists():
        return _of(recipe, out)
    from unmirage.sandbox.card import make_base

    name = f"pretraining ({world.salience}, {world.opener_weight:g}, {{}})"
    make_base(recipe, out, lambda stage, done, steps, _loss: report(name.format(stage), done, steps))
    return out


def recipe_of(world: World, settings: Mapping[str, Any]) -> Recipe:
    """The short recipe of a world, with these settings in the place of its own; raises UserError (see `pretrained`)."""
    from unmirage.sandbox.pretrain import Recipe

    if world != World(world.salience, world.opener_weight):
        raise UserError(f"Only the world of seed 0 can be pretrained, not that of seed {world.seed}.")
    short = Recipe(world.salience, float(world.opener_weight), scenes=16_000, vision_steps=2_000, steps=1_200)
    known = [field.name for field in fields(Recipe) if field.name not in ("salience", "opener_weight")]
    if unknown := next((key for key in settings if key not in known), None):
        raise UserError(f"{unknown!r} is not a setting of pretraining; there are {', '.join(known)}.")
    own: dict[str, Any] = {key: _number(key, value, getattr(short, key)) for key, value in settings.items()}
    recipe = replace(short, **own)
    if max(recipe.batch_size, recipe.vision_batch) > recipe.scenes:
        raise UserError(f"A batch takes different scenes, of which there are only {recipe.scenes}; set scenes higher.")
    return recipe


def _number(key: str, value: Any, default: float) -> float:
    """The value: a count is whole and above 0, a rate above 0; a seed and weight decay may be 0."""
    whole, zero = isinstance(default, int), key in ("seed", "weight_decay")
    number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not number or not 0 <= value < float("inf") or (value == 0 and not zero):
        raise UserError(
            f"{key} is a {'whole ' if whole else ''}number {'from 0 up' if zero else 'above 0'}, not {value!r}."
        )
    return type(default)(value)


def _of(recipe: Recipe, folder: Path) -> Path:
    """The folder, where the model in it was made by this recipe."""
    from pydantic import ValidationError

    from unmirage.sandbox.card import Card

    try:
        card = Card.model_validate_json((folder / "card.json").read_bytes())
    except (OSError, ValidationError):
        raise UserError(f"{folder} holds something other than a base model; give another folder.") from None
    if card.recipe_hash == recipe.hash:
        return folder
    mine = asdict(recipe)
    other = ", ".join(f"{k} {v!r}" for k, v in card.recipe.items() if k not in mine or mine[k] != v)
    raise UserError(f"{folder} holds a base model of another recipe ({other}); give another folder.")
