"""What of a recipe's newer parts can be known to be wrong before anything is done."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from unmirage.errors import UserError
from unmirage.recipes.config import SANDBOX, Recipe, Stress, World
from unmirage.recipes.judging import without_truth
from unmirage.recipes.planning import facts_of, needs_of, path_settings

if TYPE_CHECKING:
    from unmirage.sandbox.build import DataPlan


def data_plan(world: World) -> DataPlan:
    """How a world's data are drawn; raises UserError for words that are none of the sandbox's or tell both ways."""
    from unmirage.sandbox.build import DataPlan

    return DataPlan(**world.model_dump(exclude={"salience", "opener_weight"}))


def check_files(recipe: Recipe) -> None:
    """Raises UserError for a file that the step which is to make it does not write."""
    from unmirage.sandbox.build import FILES
    from unmirage.sets.run import WRITTEN

    drawn = [(f"data.{name}.file", one.file) for name, one in recipe.data.items() if one.world]
    drawn += [(f"attacks.{name}", one.given) for name, one in recipe.attacks.items() if one.world and one.given]
    for name, stress in recipe.stresses.items():
        given = path_settings(stress.kind) & stress.settings.keys() if stress.world else ()
        drawn += [(f"stresses.{name}.settings.{key}", Path(str(stress.settings[key]))) for key in sorted(given)]
    own = [(f"data.{name}.file", one.file) for name, one in recipe.data.items() if one.sets]
    for maker, found, there in (("a world", drawn, FILES), ("sets", own, WRITTEN)):
        for key, file in found:
            if not any(one == file.as_posix() or Path(file) in Path(one).parents for one in there):
                raise UserError(f"{key}: {maker} has no file {file}; choose among {', '.join(there)}.")


def check_facts(recipe: Recipe) -> None:
    """Raises UserError where a stress is to read the truth of a file that a step makes without one."""
    for measuring, measure in recipe.measures.items():
        for name in measure.stresses:
            if lacking := without_truth(recipe, facts_of(recipe.stresses[name], measure)):
                raise UserError(
                    f"stresses.{name} of measures.{measuring} reads facts, and {lacking}; name other data as its facts."
                )


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
