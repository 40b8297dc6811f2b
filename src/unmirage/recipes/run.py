"""Runs a recipe: what is done is left, what is not is done in the order of what it needs, and all is reported."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from unmirage.errors import UserError
from unmirage.recipes.config import Recipe
from unmirage.recipes.graph import Planned, planned
from unmirage.recipes.planning import judge_step, steps_of
from unmirage.recipes.work import Job, work
from unmirage.runs import Run
from unmirage.schema import Metrics, Record, content_hash
from unmirage.workers import Report, spread


def run_recipe(
    recipe: Recipe, out: Path, *, report: Report = lambda _name, _done, _total: None, workers: int | None = None
) -> list[Record]:
    """Does every step that is not done, and returns all records, also written to `metrics.json`.

    `workers` steps run side by side, those of the recipe where it is not given. The same folder may be given with other
    settings: only the steps that depend on them are done anew, and what the others made stays. Raises UserError where
    `out` holds something else than runs of this recipe, and where a step fails; the steps before it stay done.
    """
    plan = planned(steps_of(recipe), out)
    with Run.open(out, "recipe", {"recipe": recipe.name}, {}) as run:
        run.write_json("recipe.json", recipe.model_dump(mode="json", by_alias=True))
        due = [one for one in plan.values() if not one.done]
        number = {one.step.name: place for place, one in enumerate(due)}
        needs = [{number[name] for name in one.step.needs if name in number} for one in due]
        spread([(work, (job_of(recipe, one, plan),)) for one in due], workers or recipe.workers, report, needs)
        _link(plan, out)
        return _report(recipe, run, plan)


def job_of(recipe: Recipe, one: Planned, plan: Mapping[str, Planned]) -> Job:
    """A step with the folders of those that it needs."""
    return Job(recipe, one, {name: plan[name].folder for name in one.step.needs})


SHOWN = {"draw": "worlds", "sets": "sets", "audit": "audits", "align": "models", "judge": "evaluations"}
"""The kinds of steps whose results people look for, and the folders where links with plain names lead to them."""


def _link(plan: Mapping[str, Planned], out: Path) -> None:
    """Links that carry the names of the recipe, to what its present settings made."""
    for folder in SHOWN.values():
        shutil.rmtree(out / folder, ignore_errors=True)
    for name, one in plan.items():
        kind, _, rest = name.partition("/")
        if kind in SHOWN:
            link = out / SHOWN[kind] / rest
            link.parent.mkdir(parents=True, exist_ok=True)
            target = one.folder / "model" if kind == "align" else one.folder
            link.symlink_to(os.path.relpath(target, link.parent))


def _report(recipe: Recipe, run: Run, plan: Mapping[str, Planned]) -> list[Record]:
    """All records in one file and one page for each measure; the keys of all steps say what they were made from."""
    from unmirage.report import read_metrics, write_report

    records: list[Record] = []
    for measure in recipe.measures:
        folders = [plan[name].folder for name in _judged(recipe, measure)]
        records += [record for folder in folders for record in read_metrics(folder / "metrics.json").records]
        if folders:
            title = recipe.title or recipe.name
            page = run.path / ("report.html" if len(recipe.measures) == 1 else f"report-{measure}.html")
            write_report(folders, page, title=title, show_harmful=recipe.show_harmful)
    metrics = Metrics(schema=1, run=content_hash([one.key for one in plan.values()])[:12], records=records)
    run.write_json("metrics.json", metrics.model_dump(mode="json", by_alias=True))
    run.write_json("steps.json", {name: {"key": one.key, "folder": one.folder.name} for name, one in plan.items()})
    return records


def _judged(recipe: Recipe, measure: str) -> Sequence[str]:
    return [judge_step(name, seed, measure) for name, model in recipe.models.items() for seed in recipe.seeds_of(model)]


def check(recipe: Recipe) -> None:
    """Raises UserError for what can be known to be wrong before anything is done: settings, words, judges."""
    from unmirage.align.config import checked

    for name, model in recipe.models.items():
        if (seed := recipe.missing_seed(name)) is not None:
            raise UserError(f"models.{name}.seeds has {seed}, but {model.start}, its start, has not; add it there.")
        if model.method:
            try:
                checked({**model.settings, "method": model.method, "seed": recipe.seeds[0]})
            except UserError as error:
                raise UserError(f"models.{name}: {error}") from error
