"""Runs a recipe: what is done is left, what is not is done in the order of what it needs, and all is reported."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from unmirage.datasets import FORMATS, check_training
from unmirage.errors import UserError
from unmirage.evaluate.measure import Subject
from unmirage.recipes.aligning import align_settings
from unmirage.recipes.checking import check_facts, check_files, check_stress, check_worlds, data_plan
from unmirage.recipes.choosing import Choice
from unmirage.recipes.config import Model, Recipe
from unmirage.recipes.graph import Planned, Step, planned
from unmirage.recipes.judging import check_judges
from unmirage.recipes.naming import relabelled, shown
from unmirage.recipes.planning import is_judged, seed_of, steps_of
from unmirage.recipes.pretraining import base_recipe
from unmirage.recipes.searching import search_plan
from unmirage.recipes.variants import check_apart, check_attack
from unmirage.recipes.work import Job, work
from unmirage.runs import Run
from unmirage.schema import Metrics, Record, content_hash
from unmirage.workers import Report, spread


def run_recipe(
    recipe: Recipe,
    out: Path,
    *,
    report: Report = lambda _name, _done, _total: None,
    workers: int | None = None,
    choice: Choice = Choice(),  # noqa: B008 -- it is immutable
) -> list[Record]:
    """Does every chosen step that is not done, and returns all records there are, also written to `metrics.json`.

    `workers` steps run side by side, those of the recipe where it is not given. The same folder may be given with other
    settings: only the steps that depend on them are done anew, and what the others made stays. What `choice` leaves out
    stays to be done; pages say how much is missing, and `missing` what. Raises UserError where `out` holds something
    else than runs of this recipe, and where a step fails; the steps before it stay done.
    """
    check(recipe)
    plan = planned(steps_of(recipe), out)
    chosen = choice.steps(plan)
    with Run.open(out, "recipe", {"recipe": recipe.name}, {}) as run:
        run.write_json("recipe.json", recipe.model_dump(mode="json", by_alias=True))
        due = [one for name, one in plan.items() if name in chosen and not one.done]
        number = {one.step.name: place for place, one in enumerate(due)}
        needs = [{number[name] for name in one.step.needs if name in number} for one in due]
        spread([(work, (job_of(recipe, one, plan),)) for one in due], workers or recipe.workers, report, needs)
        _link({name: one for name, one in plan.items() if one.done}, out)
        return _report(recipe, run, plan)


def job_of(recipe: Recipe, one: Planned, plan: Mapping[str, Planned]) -> Job:
    """A step with the folders of those that it needs."""
    return Job(recipe, one, {name: plan[name].folder for name in one.step.needs})


SHOWN = {
    "draw": "worlds",
    "pretrain": "models",
    "sets": "sets",
    "audit": "audits",
    "align": "models",
    "stress": "stressed",
    "search": "searches",
    "judge": "evaluations",
}
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
            target = one.folder / "model" if kind in ("align", "pretrain") else one.folder
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
    """All records in one file and the pages; the keys of all steps say what they were made from."""
    from unmirage.report import read_metrics

    measured = [one for one in plan.values() if is_measured(one.step, recipe) and one.done]
    records = [
        record
        for one in measured
        for record in relabelled(read_metrics(one.folder / "metrics.json").records, _subject(recipe, one.step))
    ]
    pages = set(_pages(recipe, run, plan)) if recipe.pages else set()
    for page in set(run.path.glob("report*.html")) - pages:
        page.unlink()  # of a measure that the recipe no longer has
    metrics = Metrics(schema=1, run=content_hash([one.key for one in plan.values()])[:12], records=records)
    run.write_json("metrics.json", metrics.model_dump(mode="json", by_alias=True))
    run.write_json("steps.json", {name: _told(one) for name, one in plan.items()})
    return records


def _subject(recipe: Recipe, step: Step) -> Subject:
    about = step.about
    return shown(recipe, about["model"], seed_of(step.name), about["measure"], about.get("stress"))


def _told(one: Planned) -> dict[str, str | bool]:
    return {"key": one.key, "folder": one.folder.name, **({} if one.done else {"done": False})}


def _pages(recipe: Recipe, run: Run, plan: Mapping[str, Planned]) -> Iterator[Path]:
    """One page for each measure and each of its stresses whose answers can be shown beside one another."""
    from unmirage.report import write_report

    for measure in recipe.measures:
        for stress in (None, *recipe.measures[measure].stresses):
            all_ = [one for one in plan.values() if _is_of(one.step, measure, stress)]
            folders = [one.folder for one in all_ if one.done and (one.folder / "answers.jsonl").exists()]
            if not folders:
                continue
            lacking = sum(not one.done for one in all_)
            title = (recipe.title or recipe.name) + (f", under {stress}" if stress else "")
            title += f" (incomplete: {lacking} of {len(all_)} evaluations are still to be made)" if lacking else ""
            alone = len(recipe.measures) == 1
            name = "-".join(["report", *([] if alone else [measure]), *([stress] if stress else [])])
            yield write_report(folders, run.path / f"{name}.html", title=title, show_harmful=recipe.show_harmful)


def _is_of(step: Step, measure: str, stress: str | None) -> bool:
    return step.kind == "judge" and (step.about["measure"], step.about.get("stress")) == (measure, stress)


def is_measured(step: Step, recipe: Recipe) -> bool:
    """Whether figures come of a step: judged answers, a search, or a stress that has figures of its own."""
    if step.kind == "stress":
        return not is_judged(recipe.stresses[step.about["stress"]])
    return step.kind in ("judge", "search")


def missing(recipe: Recipe, out: Path) -> tuple[list[str], int]:
    """The evaluations of a recipe that a run folder has not, by their steps' names, and how many there are in all."""
    plan = planned(steps_of(recipe), out)
    mine = [one for one in plan.values() if is_measured(one.step, recipe)]
    return [one.step.name for one in mine if not one.done], len(mine)


def check(recipe: Recipe) -> None:
    """Raises UserError for what can be known to be wrong before anything is done: settings, formats, words, judges."""
    for name, world in recipe.worlds.items():
        with _of(f"worlds.{name}"):
            data_plan(world)
    for name, model in recipe.models.items():
        _check_model(recipe, name, model)
    for name, source in recipe.data.items():
        if source.format not in FORMATS:
            known = ", ".join(FORMATS)
            raise UserError(f"data.{name}.format: there is no format {source.format!r}; choose among {known}.")
    for name, sets in recipe.sets.items():
        for key in filter(None, (sets.safety, sets.general)):
            with _of(f"sets.{name}"):
                _check_trained_on(recipe, key)
    _check_questions(recipe)
    check_files(recipe)
    check_judges(recipe)
    check_facts(recipe)
    check_worlds(recipe)


def _check_questions(recipe: Recipe) -> None:
    """Attacks, stresses and searches: their words, kinds and settings, and whether attacks are told apart."""
    from unmirage.stress import find

    for name, attack in recipe.attacks.items():
        with _of(f"attacks.{name}"):
            check_attack(attack)
    for name, stress in recipe.stresses.items():
        with _of(f"stresses.{name}"):
            check_stress(stress)
            for key in filter(None, (stress.data, stress.general)) if find(stress.kind).trains else ():
                _check_trained_on(recipe, key)
    for name, search in recipe.searches.items():
        with _of(f"searches.{name}"):
            search_plan(search, "", "", 0)
    for name in recipe.measures:
        check_apart(recipe, name)


def _check_model(recipe: Recipe, name: str, model: Model) -> None:
    if (seed := recipe.missing_seed(name)) is not None:
        raise UserError(f"models.{name}.seeds has {seed}, but {model.start}, its start, has not; add it there.")
    with _of(f"models.{name}"):
        if model.pretrain and not model.pretrain.shipped:
            base_recipe(model.pretrain)
        if model.method:
            align_settings(model, recipe.seeds[0])
    for key in filter(None, (model.data, model.general, model.preferred)):
        with _of(f"models.{name}"):
            _check_trained_on(recipe, key)


def _check_trained_on(recipe: Recipe, key: str) -> None:
    """What a step will make is not there yet, so the step looks at it."""
    source = recipe.data[key]
    with _of(f"data.{key}"):
        check_training(source.format, None if source.made_by else recipe.path(source.file))


@contextmanager
def _of(key: str) -> Iterator[None]:
    """Puts the key before what is said of it."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{key}: {error}") from error
