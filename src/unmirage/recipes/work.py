"""What each kind of step does. An interrupted step goes on when it is called again; one file says that it is whole."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from unmirage.errors import UserError
from unmirage.recipes.config import Recipe, Source
from unmirage.recipes.graph import DONE, Planned, Step
from unmirage.recipes.naming import relabel_run, shown, stored
from unmirage.recipes.planning import base_of, draw_step, facts_of, path_settings, roles_of, seed_of
from unmirage.runs import write_json, write_text
from unmirage.schema import Metrics, Query, Record, Variant
from unmirage.workers import Report

if TYPE_CHECKING:
    from unmirage.backends.registry import AskingOptions
    from unmirage.evaluate.measure import Subject
    from unmirage.judges import Judge
    from unmirage.judges.calibrate import Calibration
    from unmirage.recipes.config import Model
    from unmirage.stress import Fact

PARENT = "UNMIRAGE_LAUNCHED_BY"
"""In the environment of launched processes: the process without which they end."""

COPIED = ("run.json", "queries.jsonl", "variants.jsonl", "answers.jsonl")
"""What a judge step takes from the step that asked."""


@dataclass(frozen=True)
class Job:
    """A step with everything that its work needs; it can be sent to another process."""

    recipe: Recipe
    planned: Planned
    folders: Mapping[str, Path]
    """The folders of the steps that it needs, by their names."""

    @property
    def step(self) -> Step:
        """The step."""
        return self.planned.step

    @property
    def out(self) -> Path:
        """The folder that it fills."""
        return self.planned.folder

    def file(self, key: str) -> Path:
        """Where a data file lies: among the drawn ones, or where the recipe says."""
        source = self.recipe.data[key]
        return self.folders[source.made_by] / source.file if source.made_by else self.recipe.path(source.file)

    def load(self, key: str) -> list[Query]:
        """The queries of one of the recipe's data."""
        from unmirage.datasets import load

        source = self.recipe.data[key]
        images = self.recipe.path(source.images) if source.images else None
        if source.made_by and not self.file(key).exists():
            raise UserError(
                f"data.{key}: {self.file(key)} is not among what the step made; correct the name, or delete its folder "
                "if an earlier version made it."
            )
        found = load(self.file(key), format=source.format, images=images, split=source.split)
        if found.defects:
            counts = ", ".join(f"{count} {kind}" for kind, count in found.defects.items())
            self.warn(f"data.{key}: {counts}; what cannot be used is left out, such as: {found.problems[0]}")
        return _limited(found.queries, source, self.recipe.seeds[0])

    def asked(self, measure: str) -> list[Query]:
        """The queries of all data of a measure; UserError where two share an id."""
        queries = [query for key in self.recipe.measures[measure].data for query in self.load(key)]
        seen: set[str] = set()
        for query in queries:
            if query.id in seen:
                raise UserError(
                    f"measures.{measure}.data: two of its queries have the id {query.id!r}; measure the files apart, "
                    "or give the rows other ids."
                )
            seen.add(query.id)
        return queries

    def warn(self, sentence: str) -> None:
        """Says something to the user that ends nothing."""
        print(f"warning: {self.step.title}: {sentence}", file=sys.stderr)

    @property
    def model(self) -> Model:
        """The recipe's model that the step is about."""
        return self.recipe.models[self.step.about["model"]]

    @property
    def seed(self) -> int:
        """The seed of that model."""
        return seed_of(self.step.name)

    @property
    def subject(self) -> Subject:
        """Whose the stored answers are."""
        about = self.step.about
        return stored(self.recipe, about["model"], self.seed, about["measure"], about.get("stress"))

    def weights(self, name: str) -> Path:
        """The folder of a model: among the steps that are needed, or where it lies."""
        made = [
            self.folders[one] for one in self.step.needs if one.split("/")[:2] in (["align", name], ["pretrain", name])
        ]
        return made[0] / "model" if made else _checkpoint(self.recipe, name)

    def of_kind(self, kind: str) -> list[Path]:
        """The folders of the needed steps whose name begins so."""
        return [self.folders[name] for name in self.step.needs if name.startswith(f"{kind}/")]


def _limited(queries: list[Query], source: Source, seed: int) -> list[Query]:
    """At most `limit` rows, drawn at random, in the order of the file."""
    if source.limit is None or source.limit >= len(queries):
        return queries
    import random

    drawn = sorted(random.Random(f"limit {seed}").sample(range(len(queries)), source.limit))
    return [queries[number] for number in drawn]


def work(job: Job, report: Report) -> float:
    """Does a step and says so in its folder; returns the seconds it took. Raises UserError that names the step."""
    start = time.perf_counter()
    report(job.step.title, 0, 1)
    try:
        _WORK[job.step.kind](job, report)
    except UserError as error:
        raise UserError(f"step {job.step.name}: {error}") from error
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise UserError(
            f"step {job.step.name}: {where}{error.strerror or error}; what is done stays, and the same command goes on."
        ) from error
    except Exception as error:
        error.add_note(f"in step {job.step.name}, folder {job.out}")
        raise
    finally:
        _free_memory()
    seconds = time.perf_counter() - start
    done = {"schema": 1, "step": job.step.name, "key": job.planned.key, "seconds": round(seconds, 3)}
    write_json(job.out / DONE, done)
    report(job.step.title, 1, 1)
    return seconds


def _free_memory() -> None:
    """Gives a GPU's memory back: the next step, or another process beside this one, needs it."""
    import torch

    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def _draw(job: Job, _report: Report) -> None:
    from unmirage.recipes.checking import data_plan
    from unmirage.sandbox.build import build
    from unmirage.sandbox.world import World

    world = job.recipe.worlds[job.step.name.split("/")[1]]
    # Drawing is quick and has no middle to go on from: what an interrupted one left is drawn anew.
    shutil.rmtree(job.out, ignore_errors=True)
    build(World(world.salience, world.opener_weight), data_plan(world), job.out)


def _pretrain(job: Job, report: Report) -> None:
    from unmirage.sandbox.bases import pretrained
    from unmirage.sandbox.world import World

    given = job.model.pretrain
    assert given
    told = lambda _, done, steps: report(job.step.title, done, steps)  # noqa: E731
    pretrained(World(given.salience, given.opener_weight), job.out / "model", told, given.settings)


def _sets(job: Job, report: Report) -> None:
    from unmirage.backends.registry import AskingOptions, open_backend
    from unmirage.datasets import check_training
    from unmirage.recipes.judging import judge_of
    from unmirage.sets.run import build_sets

    sets = job.recipe.sets[job.step.name.split("/")[1]]
    for key in filter(None, (sets.safety, sets.general)):
        check_training(job.recipe.data[key].format, job.file(key))
    options = AskingOptions(batch_size=sets.batch_size, max_new_tokens=sets.max_new_tokens)
    backends = {name: open_backend(str(_checkpoint(job.recipe, name)), options) for name in sets.models}
    general = job.load(sets.general) if sets.general else []
    told = lambda _, done, planned: report(job.step.title, done, planned)  # noqa: E731
    judge = judge_of(job.recipe, sets.judge, [job.file(sets.safety)])
    build_sets(job.load(sets.safety), general, backends, judge, sets.how, job.out, told)


def _audit(job: Job, _report: Report) -> None:
    from unmirage.audit import Source, audit_data
    from unmirage.audit.compare import compare
    from unmirage.audit.data import Settings
    from unmirage.audit.page import write_audit

    audit = next(one for one in job.recipe.audit if f"audit/{one.title}" == job.step.name)
    given = job.recipe.data[audit.data]
    images = job.recipe.path(given.images) if given.images else None
    source = Source([job.file(audit.data)], format=given.format, images=images)
    found = compare(source, job.file(audit.against), Settings()) if audit.against else audit_data(source)
    write_audit(found, job.out)


def _align(job: Job, report: Report) -> None:
    if job.model.launch is None:
        train(job, report)
    else:
        _launch(job, job.recipe.path(job.model.launch))


def train(job: Job, report: Report) -> None:
    """Trains the model of a step, in this process; in each of several where they were launched together."""
    from unmirage.align import align, on_step
    from unmirage.datasets import check_training
    from unmirage.recipes.aligning import align_settings

    roles = roles_of(job.model)
    for key in roles.values():
        check_training(job.recipe.data[key].format, job.file(key))
    rows = {role: job.load(key) for role, key in roles.items()}
    audit = job.folders[f"audit/{job.model.audit}"] / "audit.json" if job.model.audit else None
    config = align_settings(job.model, job.seed, audit)
    told = on_step(lambda done, steps: report(job.step.title, done, steps))
    align(
        start_of(job),
        rows["data"],
        config,
        job.out / "model",
        general=rows.get("general", []),
        preferred=rows.get("preferred", []),
        callbacks=[told],
        tell=job.warn,
        report=lambda what, done, planned: report(f"{job.step.title}: {what}", done, planned),
    )


def start_of(job: Job) -> Path:
    """The checkpoint that a training starts from, or that a stressed model was made from."""
    if job.model.method is None:
        return job.weights(job.step.about["model"])
    return job.weights(job.model.start) if job.model.start else base_of(job.recipe)


def _checkpoint(recipe: Recipe, name: str) -> Path:
    given = recipe.models[name].checkpoint
    return recipe.path(given) if given else base_of(recipe)


def _launch(job: Job, configuration: Path) -> None:
    """The same in several processes, as `accelerate launch` starts them."""
    recipe = write_text(job.out / "recipe.json", job.recipe.model_dump_json(by_alias=True))
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(configuration)]
    command += ["-m", "unmirage.recipes.launched", str(recipe), str(job.out.parents[1]), job.step.name]
    done = subprocess.run(command, check=False, env={**os.environ, PARENT: str(os.getpid())})
    if done.returncode:
        raise UserError(f"{job.step.name}: `accelerate launch` ended with code {done.returncode}; see what it said.")


def _attack(job: Job, _report: Report) -> None:
    from unmirage.recipes.variants import variants_of

    _, measure, name = job.step.name.split("/")
    attack = job.recipe.attacks[name]
    given = _in(job, attack.given, attack.world) if attack.given else None
    found = variants_of(job.recipe, name, job.asked(measure), given, job.warn)
    text = "".join(variant.model_dump_json() + "\n" for variant in found)
    write_text(job.out / "variants.jsonl", text)


def _in(job: Job, given: Path, world: str | None) -> Path:
    """Where a file lies: in the drawing of a world, or where the recipe says."""
    return job.folders[draw_step(world)] / given if world else job.recipe.path(given)


def _ask(job: Job, report: Report) -> None:
    from unmirage.backends.registry import open_backend
    from unmirage.evaluate import Evaluation, evaluate
    from unmirage.evaluate.sharded import evaluate_sharded

    measure = job.recipe.measures[job.step.about["measure"]]
    plan = Evaluation(*_questions(job), job.subject)
    make = partial(open_backend, *_asked(job))
    told = lambda _, done, planned: report(job.step.title, done, planned)  # noqa: E731
    if measure.workers == 1 or "server" in job.step.config:
        evaluate(plan, make(), [], job.out, told)
    else:
        each = lambda name, done, planned: report(f"{job.step.title}: {name}", done, planned)  # noqa: E731
        evaluate_sharded(plan, make, job.out, measure.workers, each)


def _questions(job: Job) -> tuple[list[Query], list[Variant]]:
    """What a model is asked: the queries of the measure, and the variants of its attacks."""
    name = job.step.about["measure"]
    queries = job.asked(name)
    variants = [variant for folder in job.of_kind("attack") for variant in _read(folder / "variants.jsonl", queries)]
    if len({(one.origin.id, one.attack, one.shot) for one in variants}) < len(variants):
        raise UserError(f"measures.{name}.attacks: two of them make the same variants; leave one out.")
    return queries, variants


def _asked(job: Job) -> tuple[str, AskingOptions]:
    """The model of an asking step and how it is asked, as `open_backend` takes them."""
    from unmirage.backends.registry import AskingOptions

    measure = job.recipe.measures[job.step.about["measure"]]
    options = AskingOptions(
        server=job.step.config.get("server"),
        batch_size=measure.batch_size,
        max_new_tokens=measure.max_new_tokens,
        concurrency=measure.concurrency,
        timeout=measure.timeout,
    )
    return job.step.config.get("served") or str(job.weights(job.step.about["model"])), options


def _stress(job: Job, report: Report) -> None:
    from unmirage.stress import Plan, read_settings, run_stress

    stress = job.recipe.stresses[job.step.about["stress"]]
    model, asking = _asked(job)
    plan = Plan(
        model,
        *_questions(job),
        asking,
        forget=job.load(stress.data) if stress.data else (),
        general=job.load(stress.general) if stress.general else (),
        base=None if asking.server else start_of(job),
        facts=_facts(job),
        seed=job.seed,
    )
    paths = path_settings(stress.kind)
    given = {k: str(_in(job, Path(v), stress.world).resolve()) if k in paths else v for k, v in stress.settings.items()}
    told = lambda what, done, planned: report(f"{job.step.title} {what}", done, planned)  # noqa: E731
    run_stress(stress.kind, read_settings(stress.kind, given), plan, job.subject, job.out, told, job.warn)


def _search(job: Job, report: Report) -> None:
    from unmirage.attacks.search import search
    from unmirage.backends.registry import open_backend
    from unmirage.recipes.judging import judge_of
    from unmirage.recipes.searching import records_of, search_plan

    about = job.step.about
    measure = job.recipe.measures[about["measure"]]
    plan = search_plan(job.recipe.searches[about["search"]], about["model"], about["measure"], job.recipe.seeds[0])
    judge = judge_of(job.recipe, measure.judges[0], [job.file(key) for key in measure.data], measure)
    told = lambda _, done, planned: report(job.step.title, done, planned)  # noqa: E731
    found = search(plan, job.asked(about["measure"]), open_backend(*_asked(job)), judge, job.out, told)
    for note in found.notes:
        job.warn(note)
    metrics = Metrics(schema=1, run=found.run, records=list(records_of(found, job.subject)))
    write_json(job.out / "metrics.json", metrics.model_dump(mode="json", by_alias=True))


def _facts(job: Job) -> Mapping[str, Fact]:
    from unmirage.stress import read_facts

    about = job.step.about
    keys = facts_of(job.recipe.stresses[about["stress"]], job.recipe.measures[about["measure"]])
    files = [job.file(key).with_suffix(".truth.json") for key in keys]
    return read_facts(files) if files else {}


def _read(path: Path, queries: list[Query]) -> list[Variant]:
    """The variants that were made of these queries, with the pictures of these."""
    from unmirage.runs import JsonLines

    by_id = {query.id: query for query in queries}
    found = JsonLines(path).read(Variant)
    return [variant.model_copy(update={"origin": by_id[variant.origin.id]}) for variant in found]


def _judge(job: Job, _report: Report) -> None:
    from unmirage.judges.calibrate import read_calibration
    from unmirage.recipes.judging import judge_of

    measure = job.recipe.measures[job.step.about["measure"]]
    data = [job.file(key) for key in measure.data]
    judges = {judge.name: judge for judge in (judge_of(job.recipe, name, data, measure) for name in measure.all_judges)}
    calibrations = [read_calibration(job.recipe.path(path)) for path in measure.calibrations]
    records = _judged(job, list(judges.values()), calibrations)
    for one in calibrations:
        for warning in one.warnings(records[0].data if records else None):
            job.warn(warning)


def _judged(job: Job, judges: list[Judge], calibrations: list[Calibration]) -> list[Record]:
    """The figures of what a step asked, in this step's own folder, which says label and axes."""
    about = job.step.about
    subject = shown(job.recipe, about["model"], job.seed, about["measure"], about.get("stress"))
    if stressed := job.of_kind("stress"):
        from unmirage.stress.judging import copy_asked, judge_stress

        for folder in copy_asked(stressed[0], job.out):
            relabel_run(folder, subject)
        return judge_stress(job.out, job.out, judges, calibrations)
    from unmirage.evaluate import rejudge

    (asked,) = job.of_kind("ask")
    job.out.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        shutil.copyfile(asked / name, job.out / name)
    relabel_run(job.out, subject)
    return rejudge(job.out, judges, calibrations)


_WORK: dict[str, Callable[[Job, Report], None]] = {
    "draw": _draw,
    "pretrain": _pretrain,
    "sets": _sets,
    "audit": _audit,
    "align": _align,
    "attack": _attack,
    "ask": _ask,
    "stress": _stress,
    "search": _search,
    "judge": _judge,
}
