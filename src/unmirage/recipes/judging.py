"""The judges of a recipe: made for its data, with paths from where the command is given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unmirage.errors import UserError
from unmirage.recipes.config import Measure, Recipe

if TYPE_CHECKING:
    from unmirage.judges import Judge

TRUTH = "truth"


def folder_of(name: str) -> str | None:
    """The folder in the name of a judge that is a model in a folder, such as `rules+llama-guard:FOLDER`."""
    kind, _, folder = name.partition(":")
    return folder if folder and kind not in ("llm", "paper") else None


def judge_of(recipe: Recipe, name: str, data: Sequence[Path], measure: Measure | None = None) -> Judge:
    """The judge of that name in a recipe; UserError where there is none or what it needs is missing."""
    from unmirage.judges.registry import JudgeOptions, judge_named

    options = JudgeOptions()
    if measure:
        options = JudgeOptions(measure.judge_server, measure.concurrency, measure.timeout, labels=measure.judge_labels)
    if folder := folder_of(name):
        name = f"{name.partition(':')[0]}:{recipe.path(folder)}"
    return judge_named(name, data, options)


def truth_files(recipe: Recipe, judges: Sequence[str], data: Sequence[str]) -> list[Path]:
    """What judges read besides answers and their own files: the truth beside data files that are the user's."""
    if not any(map(_reads_truth, judges)):
        return []
    own = [recipe.data[key] for key in data if not recipe.data[key].made_by]
    return [recipe.path(source.file).with_suffix(".truth.json") for source in own]


def identity(recipe: Recipe, judge: str, measure: Measure | None = None) -> str:
    """What decides a judge's verdicts besides the truth files: its own name, which holds a hash of rules and weights.

    Of one at a server it is what the recipe calls it: the server would have to be asked. Raises UserError where the
    folder of its model cannot be read.
    """
    if _reads_truth(judge):
        from unmirage.judges.truth import RULE

        guard = judge.partition("+")[2]
        return f"{TRUTH}, {RULE}" + (f"+{identity(recipe, guard, measure)}" if guard else "")
    if "llm" in judge.partition(":")[0].split("+"):
        return judge
    return judge_of(recipe, judge, [], measure).name


def _reads_truth(judge: str) -> bool:
    return TRUTH in judge.partition(":")[0].split("+")


def without_truth(recipe: Recipe, data: Sequence[str]) -> str | None:
    """What is lacking, in words, where a step of the recipe makes one of the data without a truth file beside it."""
    from unmirage.sandbox.build import ASKED

    for key in data:
        source = recipe.data[key]
        if source.made_by and not (source.world and source.file.as_posix() in ASKED):
            return f"data.{key}, {source.file}, has no truth file beside it (of a world, {', '.join(ASKED)} have one)"
    return None


def check_judges(recipe: Recipe) -> None:
    """Raises UserError naming the key of a judge that there is not; data that a step makes need not be there."""
    for name, measure in recipe.measures.items():
        for judge in measure.all_judges:
            _check(recipe, f"measures.{name}.judges", judge, measure.data, measure)
    for name, sets in recipe.sets.items():
        _check(recipe, f"sets.{name}.judge", sets.judge, [sets.safety], None)


def _check(recipe: Recipe, key: str, judge: str, data: Sequence[str], measure: Measure | None) -> None:
    if _reads_truth(judge) and any(recipe.data[one].made_by for one in data):
        if lacking := without_truth(recipe, data):
            raise UserError(f"{key}: the judge {judge} reads the truth, and {lacking}; choose another judge.")
        judge = judge.replace(TRUTH, "rules", 1)  # the truth is not there yet; what else there is can be checked
    try:
        judge_of(recipe, judge, [recipe.path(recipe.data[one].file) for one in data], measure)
    except UserError as error:
        raise UserError(f"{key}: {error}") from error
