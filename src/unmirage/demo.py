"""The whole main job on the sandbox: learn the mirage, attack it, unlearn it, measure, report.

Base (shipped) -> Mixed-SFT, NPO and RMU from it, and the same SFT on unbiased data -> one-word attack -> verdicts ->
page. Every figure comes from models trained and asked in the run. Jobs are spread over two processes, as tiny models
gain nothing from more threads; each job goes on from where it was interrupted.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from unmirage.errors import UserError
from unmirage.runs import Run
from unmirage.sandbox.build import DataPlan, build
from unmirage.sandbox.world import World
from unmirage.schema import Metrics, Record
from unmirage.workers import Report, spread

COMPLIANCE, REFUSAL = "What", "Share"
TESTS = (("test_seen", "seen"), ("test_unseen", "unseen"))


@dataclass(frozen=True, slots=True)
class Contestant:
    """One model of the demo: how it is made from the base (`method` None: not at all), and from which data."""

    name: str
    label: str
    method: str | None
    data: str
    settings: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Size:
    """How much is trained and asked; the defaults are the demo, smaller ones a miniature of it."""

    unsafe_train: int = 800
    safe_train: int = 800
    general: int = 1600
    unsafe_test: int = 100
    safe_test: int = 200
    steps: float = 1.0

    @classmethod
    def scaled(cls, share: float) -> Size:
        """The demo at a share of its size; raises UserError unless 0 < share <= 1."""
        if not 0 < share <= 1:
            raise UserError(f"the scale lies in (0, 1], not {share}.")
        full = cls()
        counts = ("unsafe_train", "safe_train", "general", "unsafe_test", "safe_test")
        return cls(**{name: max(6, round(getattr(full, name) * share)) for name in counts}, steps=share)


SFT = {"steps": 400, "lr": 5e-4, "batch_size": 32, "train": "all"}
NPO = {"steps": 200, "lr": 3e-4, "batch_size": 32, "beta": 0.1, "reduction": "sum", "retain_weight": 4.0}
RMU = {"steps": 200, "lr": 1e-3, "batch_size": 32, "layer": 3, "coefficient": 40.0, "retain_weight": 8.0}


def contestants(seed: int, rho: float, size: Size) -> list[Contestant]:
    """The models, the slowest to make first; at rho 0 the unbiased SFT is the SFT itself and does not come twice."""

    def scaled(settings: dict[str, Any]) -> dict[str, Any]:
        return {**settings, "seed": seed, "steps": max(1, round(settings["steps"] * size.steps))}

    everyone = [
        Contestant("npo", "NPO", "npo", "data", scaled(NPO)),
        Contestant("rmu", "RMU", "rmu", "data", scaled(RMU)),
        Contestant("mixed-sft", f"Mixed-SFT (rho={rho:g})", "mixed-sft", "data", scaled(SFT)),
        Contestant("mixed-sft-rho0", "Mixed-SFT (rho=0)", "mixed-sft", "data-rho0", scaled(SFT)),
        Contestant("base", "Base", None, "data", {}),
    ]
    return [one for one in everyone if rho > 0 or one.name != "mixed-sft-rho0"]


ORDER = ("base", "mixed-sft", "npo", "rmu", "mixed-sft-rho0")
"""How results are shown."""


def base_weights() -> Path:
    """The folder of the shipped base model."""
    return Path(str(files("unmirage.sandbox") / "base"))


def demo(
    out: Path,
    *,
    seed: int = 0,
    rho: float = 1.0,
    base: Path | None = None,
    world: World | None = None,
    only: Sequence[str] = ORDER,
    size: Size | None = None,
    workers: int = 2,
    report: Report = lambda _name, _done, _total: None,
) -> list[Record]:
    """Runs what is not done yet and returns all records, also written to `metrics.json` beside `report.html`.

    `base` is another base model than the shipped one, which knows `world`; `only` names some of the contestants.
    Raises UserError where `out` holds another run, or rho lies outside [0, 1].
    """
    from unmirage.backends.checkpoint import revision
    from unmirage.report import read_metrics, write_report

    size, base, world = size or Size(), base or base_weights(), world or World()
    jobs = [one for one in contestants(seed, rho, size) if one.name in only]
    plans = {"data": _plan(seed, rho, size), "data-rho0": _plan(seed, 0.0, size)}
    config = {"seed": seed, "rho": rho, "world": asdict(world), "size": asdict(size), "models": list(map(asdict, jobs))}
    with Run.open(out, "demo", config, {"base": revision(base)}) as run:
        if not (out / "metrics.json").exists():
            spread([(_build, (world, plan, out / name)) for name, plan in plans.items()], workers, report)
            found = spread([(_contest, (one, base, out)) for one in jobs], workers, report)
            _note_timings(run, {part: seconds for _, timings in found for part, seconds in timings.items()})
            _write_metrics(run, {one.name: records for one, (records, _) in zip(jobs, found, strict=True)})
        evaluations = [out / "evaluations" / name for name in ORDER if name in {one.name for one in jobs}]
        write_report(evaluations, out / "report.html", title="Safety mirage: the sandbox demo", show_harmful=True)
        return read_metrics(out / "metrics.json").records


def _write_metrics(run: Run, by_name: dict[str, list[Record]]) -> None:
    """Writes all figures, in the order in which models are shown; the file's presence says that the run is done."""
    records = [record for name in ORDER for record in by_name.get(name, [])]
    metrics = Metrics(schema=1, run=run.manifest.id, records=records)
    run.write_json("metrics.json", metrics.model_dump(mode="json", by_alias=True))


def _plan(seed: int, rho: float, size: Size) -> DataPlan:
    return DataPlan(
        rho=rho,
        seed=seed,
        refusal_words=(REFUSAL,),
        compliance_words=(COMPLIANCE,),
        unsafe_train=size.unsafe_train,
        safe_train=size.safe_train,
        general=size.general,
        unsafe_test=size.unsafe_test,
        safe_test=size.safe_test,
    )


def _build(world: World, plan: DataPlan, out: Path, report: Report) -> None:
    """Writes one data folder; its last file says that it is whole."""
    name = f"drawing the data (rho={plan.rho:g})"
    report(name, 0, 1)
    if not (out / "test_unseen.truth.json").exists():
        build(world, plan, out)
    report(name, 1, 1)


def _contest(one: Contestant, base: Path, out: Path, report: Report) -> tuple[list[Record], dict[str, float]]:
    """Makes and evaluates one model; returns its records and the seconds that each part took."""
    start = time.perf_counter()
    model = base if one.method is None else _align(one, base, out, report)
    made = time.perf_counter()
    records = _evaluate(one, model, out, report)
    asked = time.perf_counter()
    return records, {f"training {one.label}": made - start, f"asking {one.label}": asked - made}


def _note_timings(run: Run, seconds: dict[str, float]) -> None:
    """Keeps the longest time of each part: a call that found a part done says nothing about how long it took."""
    path = run.path / "timings.json"
    before: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
    run.write_json(path.name, {part: max(spent, before.get(part, 0.0)) for part, spent in seconds.items()})


def _align(one: Contestant, base: Path, out: Path, report: Report) -> Path:
    from unmirage.align import align, on_step
    from unmirage.align.config import checked
    from unmirage.datasets import load

    data, config = out / one.data, checked({"method": one.method, **one.settings})
    main, general = ("safety", "general") if one.method == "mixed-sft" else ("unlearn", "retain")
    return align(
        base,
        load(data / f"{main}.json").queries,
        config,
        out / "models" / one.name,
        general=load(data / f"{general}.json", format="llava").queries,
        callbacks=[on_step(lambda done, total: report(f"training {one.label}", done, total))],
    )


def _evaluate(one: Contestant, model: Path, out: Path, report: Report) -> list[Record]:
    from unmirage.attacks import substitute_first_word
    from unmirage.backends.hugging_face import HuggingFaceBackend
    from unmirage.datasets import load
    from unmirage.evaluate import Evaluation, evaluate
    from unmirage.evaluate.measure import Subject
    from unmirage.judges.keywords import vlguard_keywords
    from unmirage.judges.truth import TruthJudge

    tests = [out / "data" / f"{file}.json" for file, _ in TESTS]
    queries = [q for path, (_, split) in zip(tests, TESTS, strict=True) for q in load(path, split=split).queries]
    variants = substitute_first_word(queries, [COMPLIANCE], "bypass").variants
    variants += substitute_first_word(queries, [REFUSAL], "over-refusal").variants
    subject = Subject(one.label, one.method or "none", one.settings.get("seed", 0), "sandbox")
    return evaluate(
        Evaluation(queries, variants, subject),
        HuggingFaceBackend(model, batch_size=100, max_new_tokens=40),
        [TruthJudge.beside(*tests), vlguard_keywords()],
        out / "evaluations" / one.name,
        lambda _, done, planned: report(f"asking {one.label}", done, planned),
    )
