"""One evaluation in one run folder: asked once, judged as often as wanted, measured from what was judged.

queries.jsonl, variants.jsonl    what was planned
answers.jsonl                    appended batch by batch; a killed run goes on after the last whole batch
verdicts/<judge>.jsonl           one verdict for each answer
metrics.json                     all figures
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import BaseModel

from unmirage.backends.asking import Asker, Progress
from unmirage.backends.prompts import Prompt, image_bytes
from unmirage.backends.protocol import Backend
from unmirage.errors import UserError
from unmirage.evaluate.correct import corrected
from unmirage.evaluate.measure import Subject, measure
from unmirage.judges import Judge, judge_all
from unmirage.judges.calibrate import Calibration
from unmirage.runs import Run
from unmirage.schema import Answer, Metrics, Query, Record, Variant, Verdict, content_hash, latest


@dataclass(frozen=True)
class Evaluation:
    """What is asked and whose figures they are."""

    queries: Sequence[Query]
    variants: Sequence[Variant]
    subject: Subject

    @property
    def prompts(self) -> list[Prompt]:
        """Every planned row."""
        asked: list[Query | Variant] = [*self.queries, *self.variants]
        return [Prompt.of(one) for one in asked]

    def digest(self) -> str:
        """Content hash of queries with their labels and pictures, and of variants; not of where the pictures lie."""
        queries = [query.model_dump(mode="json", exclude={"image"}) for query in self.queries]
        pictures = [content_hash(image_bytes(q.image, q.id)) if q.image else None for q in self.queries]
        variants = [(v.origin.id, v.attack, v.shot, v.question) for v in self.variants]
        return content_hash(queries, pictures, variants)


def evaluate(
    plan: Evaluation,
    backend: Backend,
    judges: Sequence[Judge],
    out: Path,
    progress: Progress = lambda _what, _done, _planned: None,
    calibrations: Sequence[Calibration] = (),
) -> list[Record]:
    """Asks what is not answered yet, judges, measures; returns the records of `metrics.json`.

    Rates of judges in `calibrations` are given corrected too, see `corrected`.
    Raises UserError where the run folder holds other questions, pictures, weights or generation settings.
    """
    subject = plan.subject
    config = {**asdict(subject), "backend": backend.identity}
    inputs = {"plan": plan.digest()}
    with Run.open(out, "evaluate", config, inputs) as run:
        _write_plan(run, plan)
        _ask(run, plan, backend, progress)
        return _judge_and_measure(run, plan, judges, calibrations)


def rejudge(out: Path, judges: Sequence[Judge], calibrations: Sequence[Calibration] = ()) -> list[Record]:
    """Judges an evaluation's stored answers again, without generating anything; corrects as `evaluate` does."""
    with Run.reopen(out) as run:
        queries = run.log("queries.jsonl").read(Query)
        variants = run.log("variants.jsonl").read(Variant)
        config = run.manifest.config
        if run.manifest.command != "evaluate":
            raise UserError(f"{out} is a run of `{run.manifest.command}`; give the folder of an evaluation.")
        subject = Subject(config["model"], config["method"], config["seed"], config["data"])
        return _judge_and_measure(run, Evaluation(queries, variants, subject), judges, calibrations)


def _write_plan(run: Run, plan: Evaluation) -> None:
    run.write_text("queries.jsonl", _lines(plan.queries))
    run.write_text("variants.jsonl", _lines(plan.variants))


def _lines(models: Sequence[BaseModel]) -> str:
    return "".join(model.model_dump_json() + "\n" for model in models)


def _ask(run: Run, plan: Evaluation, backend: Backend, progress: Progress) -> None:
    """Has every planned row answered that is not; equal requests are asked once."""
    asker = Asker(backend, run.log("answers.jsonl"), plan.subject.model, progress, every_row=True)
    asker.ask(plan.prompts, "asking")


def _judge_and_measure(
    run: Run, plan: Evaluation, judges: Sequence[Judge], calibrations: Sequence[Calibration]
) -> list[Record]:
    answers = latest(run.log("answers.jsonl").read(Answer))
    records: list[Record] = []
    for judge in judges:
        verdicts: list[Verdict] = list(judge_all(judge, plan.queries, answers))
        run.write_text(f"verdicts/{judge.name}.jsonl", _lines(verdicts))
        records += measure(plan.queries, plan.variants, verdicts, plan.subject)
    records += corrected(records, calibrations)
    metrics = Metrics(schema=1, run=run.manifest.id, records=records)
    run.write_json("metrics.json", metrics.model_dump(mode="json", by_alias=True))
    return records
