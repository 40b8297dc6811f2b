"""One stress in one run folder: prepared once, then asked; judged by `judge_stress`, as often as wanted.

run.json                         the manifest: what is asked of which model, the stress and its settings
prepare/                         what the stress made, such as prepare/model
stress.json                      the stress, its settings and what the user should know; written when it is prepared
queries.jsonl, variants.jsonl, answers.jsonl   as in an evaluation
samples/<i>/                     the same of each further sample, from 1, where there are several
metrics.json                     of a stress that has figures of its own, else made by `judge_stress`
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from unmirage.align.data import digest as digest_rows
from unmirage.backends.asking import Asker
from unmirage.backends.checkpoint import revision
from unmirage.backends.protocol import Backend
from unmirage.backends.registry import open_backend
from unmirage.errors import UserError
from unmirage.evaluate.measure import Subject
from unmirage.evaluate.run import ASKING, Evaluation
from unmirage.runs import Run
from unmirage.schema import Frozen, Metrics, Record, content_hash
from unmirage.stress.protocol import WANTED, Plan, Report, Stress, StressConfig, Work
from unmirage.stress.registry import find, read_settings

PREPARED, SAMPLES, ABOUT = "prepare", "samples", "stress.json"
SAMPLE = "sample"
"""The axis that tells the figures of one sample from those of others."""


@dataclass(frozen=True)
class _Job:
    stress: Stress
    config: StressConfig
    plan: Plan
    subject: Subject
    report: Report


def run_stress(
    kind: str,
    config: StressConfig | Mapping[str, Any],
    plan: Plan,
    subject: Subject,
    out: Path,
    report: Report = lambda _what, _done, _planned: None,
    tell: Callable[[str], object] = warnings.warn,
) -> None:
    """Prepares the stress and asks, into the folder `out`; the same call goes on where it was interrupted.

    `subject.stress` names the stress in the records, `kind` where it is None. Raises UserError where there is no such
    stress or setting, the plan lacks what it needs, the folder holds another run, and as asking does.
    """
    settings = config if isinstance(config, StressConfig) else read_settings(kind, config)
    job = _Job(find(kind), settings, plan, replace(subject, stress=subject.stress or kind), report)
    _check_needs(job)
    # What has no answers must not pass for an evaluation: to judge it would replace its figures by none.
    command = "evaluate" if job.stress.judged else "stress"
    with Run.open(out, command, _manifest(job), _inputs(job)) as run:
        work = Work(out / PREPARED, report, tell)
        found = job.stress.function(replace(plan, asking=replace(plan.asking, run=out)), settings, work)
        about = {"schema": 1, "stress": kind, "settings": settings.model_dump(mode="json"), "notes": work.notes}
        run.write_json(ABOUT, about)
        if job.stress.judged:
            _ask_all(job, found, run)
        else:
            _keep_figures(job, found, run)


def _check_needs(job: _Job) -> None:
    if lacking := [need for need in job.stress.needs(job.config) if job.plan.lacks(need)]:
        raise UserError(f"the stress {job.stress.name} needs {WANTED[lacking[0]]}; give it.")


def _manifest(job: _Job, **more: Any) -> dict[str, Any]:
    """What decides the run, known before anything is made: the model as it was, and the stress."""
    subject = {name: value for name, value in asdict(job.subject).items() if value is not None and value != {}}
    backend = open_backend(job.plan.model, job.plan.asking)
    paths = {name: value.name for name, value in dict(job.config).items() if isinstance(value, Path)}
    settings = {**job.config.model_dump(mode="json"), **paths}  # what a file holds is among the inputs
    about = {"stress_kind": job.stress.name, "stress_settings": settings, "stress_seed": job.plan.seed}
    return {**subject, "backend": dict(backend.identity), **about, **more}


def _inputs(job: _Job) -> dict[str, str]:
    plan = job.plan
    used = set(job.stress.needs(job.config))
    found = {"plan": Evaluation(plan.queries, plan.variants, job.subject).digest()}
    found |= {name: digest_rows(getattr(plan, name)) for name in ("forget", "general") if name in used}
    if "facts" in used:
        found["facts"] = content_hash({name: fact.model_dump() for name, fact in plan.facts.items()})
    if "base" in used and plan.base:
        found["base"] = revision(plan.base)
    files = [value for value in dict(job.config).values() if isinstance(value, Path)]
    return found | {f"setting {path.name}": _content(path) for path in files}


def _content(path: Path) -> str:
    try:
        return content_hash(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check the path.") from error


def _ask_all(job: _Job, plan: Plan, run: Run) -> None:
    """Has the plan asked, of several samples the first one in the run's own folder: an evaluation like any other."""
    count = len(plan.sample_seeds)
    _ask(job, plan, run, f", sample 1 of {count}" if count > 1 else "")
    for number, seed in enumerate(plan.sample_seeds[1:], start=1):
        axes = {**job.subject.axes, SAMPLE: float(number)}
        mine = replace(job, subject=replace(job.subject, axes=axes))
        folder = run.path / SAMPLES / str(number)
        with Run.open(folder, "evaluate", _manifest(mine, sample_seed=seed), run.manifest.inputs) as one:
            asking = replace(plan.asking, sample_seed=seed)
            _ask(mine, replace(plan, asking=asking), one, f", sample {number + 1} of {count}")


def _ask(job: _Job, plan: Plan, run: Run, told: str) -> None:
    """Writes what is asked, and has every row answered that is not."""
    run.write_text("queries.jsonl", _lines(plan.queries))
    run.write_text("variants.jsonl", _lines(plan.variants))
    backend: Backend = open_backend(plan.model, plan.asking)
    progress = lambda _what, done, planned: job.report(f"{ASKING}{told}", done, planned)  # noqa: E731
    asker = Asker(backend, run.log("answers.jsonl"), job.subject.model, progress, every_row=True)
    asker.ask(Evaluation(plan.queries, plan.variants, job.subject).prompts, ASKING)


def _lines(rows: Sequence[Frozen]) -> str:
    return "".join(row.model_dump_json() + "\n" for row in rows)


def _keep_figures(job: _Job, records: Sequence[Record], run: Run) -> None:
    """Writes the figures of a stress that has its own, with the subject's names."""
    names = {name: getattr(job.subject, name) for name in ("model", "method", "seed", "data", "stress")}
    mine = [one.model_copy(update={**names, "axes": {**job.subject.axes, **one.axes}}) for one in records]
    metrics = Metrics(schema=1, run=run.manifest.id, records=mine)
    run.write_json("metrics.json", metrics.model_dump(mode="json", by_alias=True))
