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
from unmirage.recipes.planning import base_of
from unmirage.runs import write_json, write_text
from unmirage.schema import Query, Variant
from unmirage.workers import Report

if TYPE_CHECKING:
    from unmirage.backends.registry import AskingOptions

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
    from unmirage.sandbox.build import DataPlan, build
    from unmirage.sandbox.world import World

    world = job.recipe.worlds[job.step.name.split("/")[1]]
    plan = world.model_dump(exclude={"salience", "opener_weight"})
    # Drawing is quick and has no middle to go on from: what an interrupted one left is drawn anew.
    shutil.rmtree(job.out, ignore_errors=True)
    build(World(world.salience, world.opener_weight), DataPlan(**plan), job.out)


def _sets(job: Job, report: Report) -> None:
    from unmirage.backends.registry import AskingOptions, open_backend
    from unmirage.recipes.judging import judge_of
    from unmirage.sets.run import build_sets

    sets = job.recipe.sets[job.step.name.split("/")[1]]
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
    model = job.recipe.models[job.step.name.split("/")[1]]
    if model.launch is None:
        train(job, report)
    else:
        _launch(job, job.recipe.path(model.launch))


def train(job: Job, report: Report) -> None:
    """Trains the model of a step, in this process; in each of several where they were launched together."""
    from unmirage.align import align, on_step
    from unmirage.align.config import checked
    from unmirage.datasets import check_training

    model = job.recipe.models[job.step.name.split("/")[1]]
    roles = {role: key for role, key in job.step.config["roles"].items() if key}
    for key in roles.values():
        check_training(job.recipe.data[key].format)
    rows = {role: job.load(key) for role, key in roles.items()}
    config = checked({**model.settings, "method": model.method, "seed": job.step.config["seed"]})
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
    )


def start_of(job: Job) -> Path:
    """The checkpoint that a training starts from."""
    if made := job.of_kind("align"):
        return made[0] / "model"
    start = job.recipe.models[job.step.name.split("/")[1]].start
    return _checkpoint(job.recipe, start) if start else base_of(job.recipe)


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
    queries = job.asked(measure)
    found = variants_of(job.recipe, job.recipe.attacks[name], queries)
    text = "".join(variant.model_dump_json() + "\n" for variant in found)
    write_text(job.out / "variants.jsonl", text)


def _ask(job: Job, report: Report) -> None:
    from unmirage.backends.registry import open_backend
    from unmirage.evaluate import Evaluation, evaluate
    from unmirage.evaluate.measure import Subject
    from unmirage.evaluate.sharded import evaluate_sharded

    config = job.step.config
    measure = job.recipe.measures[config["data"]]
    queries = job.asked(config["data"])
    variants = [variant for folder in job.of_kind("attack") for variant in _read(folder / "variants.jsonl", queries)]
    if len({(one.origin.id, one.attack, one.shot) for one in variants}) < len(variants):
        raise UserError(f"measures.{config['data']}.attacks: two of them make the same variants; leave one out.")
    plan = Evaluation(queries, variants, Subject(config["label"], config["method"], config["seed"], config["data"]))
    make = partial(open_backend, *_asked(job))
    told = lambda _, done, planned: report(job.step.title, done, planned)  # noqa: E731
    if measure.workers == 1 or "server" in config:
        evaluate(plan, make(), [], job.out, told)
    else:
        each = lambda name, done, planned: report(f"{job.step.title}: {name}", done, planned)  # noqa: E731
        evaluate_sharded(plan, make, job.out, measure.workers, each)


def _asked(job: Job) -> tuple[str, AskingOptions]:
    """The model of an asking step and how it is asked, as `open_backend` takes them."""
    from unmirage.backends.registry import AskingOptions

    measure = job.recipe.measures[job.step.config["data"]]
    options = AskingOptions(
        server=job.step.config.get("server"),
        batch_size=measure.batch_size,
        max_new_tokens=measure.max_new_tokens,
        concurrency=measure.concurrency,
        timeout=measure.timeout,
    )
    return job.step.config.get("served") or str(_model_folder(job)), options


def _model_folder(job: Job) -> Path:
    made = job.of_kind("align")
    return made[0] / "model" if made else _checkpoint(job.recipe, job.step.name.split("/")[2])


def _read(path: Path, queries: list[Query]) -> list[Variant]:
    """The variants that were made of these queries, with the pictures of these."""
    from unmirage.runs import JsonLines

    by_id = {query.id: query for query in queries}
    found = JsonLines(path).read(Variant)
    return [variant.model_copy(update={"origin": by_id[variant.origin.id]}) for variant in found]


def _judge(job: Job, _report: Report) -> None:
    from unmirage.evaluate import rejudge
    from unmirage.judges.calibrate import read_calibration
    from unmirage.recipes.judging import judge_of

    (asked,) = job.of_kind("ask")
    measure = job.recipe.measures[job.step.name.split("/")[1]]
    job.out.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        shutil.copyfile(asked / name, job.out / name)
    data = [job.file(key) for key in measure.data]
    judges = {judge.name: judge for judge in (judge_of(job.recipe, name, data, measure) for name in measure.all_judges)}
    calibrations = [read_calibration(job.recipe.path(path)) for path in measure.calibrations]
    records = rejudge(job.out, list(judges.values()), calibrations)
    for one in calibrations:
        for warning in one.warnings(records[0].data if records else None):
            job.warn(warning)


_WORK: dict[str, Callable[[Job, Report], None]] = {
    "draw": _draw,
    "sets": _sets,
    "audit": _audit,
    "align": _align,
    "attack": _attack,
    "ask": _ask,
    "judge": _judge,
}
