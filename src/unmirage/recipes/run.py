"""Runs a recipe: what is done is left, what is not is done in the order of what it needs, and all is reported."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from unmirage.datasets import FORMATS, check_training
from unmirage.errors import UserError
from unmirage.recipes.config import Model, Recipe
from unmirage.recipes.graph import Planned, planned
from unmirage.recipes.judging import check_judges
from unmirage.recipes.planning import judge_step, steps_of
from unmirage.recipes.variants import check_attack
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
    check(recipe)
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
    """Links that carry the names of the recipe, to what its present settings made; other links there go.

    Raises UserError where something else than a link has the name of one.
    """
    for folder in SHOWN.values():
        _unlink(out / folder)
    for name, one in plan.items():
        kind, _, rest = name.partition("/")
        if kind in SHOWN:
            link = out / SHOWN[kind] / rest
            target = one.folder / "model" if kind == "align" else one.folder
            try:
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(os.path.relpath(target.resolve(), link.parent.resolve()))
            except OSError as error:
                raise UserError(
                    f"{link} cannot be made ({error.strerror}); move what is there, and run the same command again."
                ) from error


def _unlink(folder: Path) -> None:
    """Removes the links below a folder and the folders that are empty then; a file of the user's stays."""
    if not folder.is_dir() or folder.is_symlink():
        return
    for entry in folder.iterdir():
        if entry.is_symlink():
            entry.unlink()
        elif entry.is_dir():
            _unlink(entry)
    if not any(folder.iterdir()):
        folder.rmdir()


def _report(recipe: Recipe, run: Run, plan: Mapping[str, Planned]) -> list[Record]:
    """All records in one file and one page for each measure; the keys of all steps say what they were made from."""
    from unmirage.report import read_metrics, write_report

    records: list[Record] = []
    pages: set[Path] = set()
    for measure in recipe.measures:
        folders = [plan[name].folder for name in _judged(recipe, measure)]
        records += [record for folder in folders for record in read_metrics(folder / "metrics.json").records]
        if folders:
            title = recipe.title or recipe.name
            page = run.path / ("report.html" if len(recipe.measures) == 1 else f"report-{measure}.html")
            pages.add(write_report(folders, page, title=title, show_harmful=recipe.show_harmful))
    for page in set(run.path.glob("report*.html")) - pages:
        page.unlink()  # of a measure that the recipe no longer has
    metrics = Metrics(schema=1, run=content_hash([one.key for one in plan.values()])[:12], records=records)
    run.write_json("metrics.json", metrics.model_dump(mode="json", by_alias=True))
    run.write_json("steps.json", {name: {"key": one.key, "folder": one.folder.name} for name, one in plan.items()})
    return records


def _judged(recipe: Recipe, measure: str) -> Sequence[str]:
    return [judge_step(name, seed, measure) for name, model in recipe.models.items() for seed in recipe.seeds_of(model)]


def check(recipe: Recipe) -> None:
    """Raises UserError for what can be known to be wrong before anything is done: settings, formats, words, judges."""
    for name, model in recipe.models.items():
        _check_model(recipe, name, model)
    for name, source in recipe.data.items():
        if source.format not in FORMATS:
            known = ", ".join(FORMATS)
            raise UserError(f"data.{name}.format: there is no format {source.format!r}; choose among {known}.")
    for name, attack in recipe.attacks.items():
        with _of(f"attacks.{name}"):
            check_attack(attack)
    check_judges(recipe)


def _check_model(recipe: Recipe, name: str, model: Model) -> None:
    from unmirage.align.config import checked

    if (seed := recipe.missing_seed(name)) is not None:
        raise UserError(f"models.{name}.seeds has {seed}, but {model.start}, its start, has not; add it there.")
    if not model.method:
        return
    with _of(f"models.{name}"):
        checked({**model.settings, "method": model.method, "seed": recipe.seeds[0]})
    for key in filter(None, (model.data, model.general, model.preferred)):
        with _of(f"models.{name}"):
            check_training(recipe.data[key].format)


@contextmanager
def _of(key: str) -> Iterator[None]:
    """Puts the key before what is said of it."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{key}: {error}") from error
