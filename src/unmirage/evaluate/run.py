"""One evaluation in one run folder: asked once, judged as often as wanted, measured from what was judged.

queries.jsonl, variants.jsonl    what was planned
answers.jsonl                    appended batch by batch; a killed run goes on after the last whole batch
verdicts/<judge>.jsonl           one verdict for each answer
calibrations.json                what the judges get wrong by people's labels, where that was given
metrics.json                     all figures
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from unmirage.backends.asking import Asker, Progress
from unmirage.backends.prompts import Prompt
from unmirage.backends.protocol import Backend, Settled
from unmirage.datasets.digest import digest_queries
from unmirage.errors import UserError
from unmirage.evaluate.correct import check_calibrations, corrected
from unmirage.evaluate.measure import Subject, measure
from unmirage.judges import Judge, judge_all
from unmirage.judges.calibrate import CALIBRATIONS, Calibration
from unmirage.judges.keeping import kept
from unmirage.runs import Run
from unmirage.schema import Answer, Metrics, Query, Record, Variant, Verdict, content_hash, latest

ASKING = "asking"
"""What progress calls it."""


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
        variants = [(v.origin.id, v.attack, v.shot, v.question) for v in self.variants]
        return content_hash(digest_queries(self.queries), variants)


def evaluate(
    plan: Evaluation,
    backend: Backend,
    judges: Sequence[Judge],
    out: Path,
    progress: Progress = lambda _what, _done, _planned: None,
    calibrations: Sequence[Calibration] = (),
    *,
    early_stop: bool = False,
) -> list[Record]:
    """Asks what is not answered yet, judges, measures; returns the records of `metrics.json`.

    Rates of judges in `calibrations` are given corrected too, see `corrected`. With `early_stop` an answer ends as soon
    as the labels of all `judges` are certain; no other judge can judge it then.
    Raises UserError where the run folder holds other questions, pictures, weights or generation settings, and with
    `early_stop` where a judge cannot tell when it is certain.
    """
    check_calibrations(calibrations, [judge.name for judge in judges])
    settled = _all_settled(judges) if early_stop else None
    cut_for = sorted(judge.name for judge in judges) if early_stop else []
    ending = {"early_stop": cut_for} if early_stop else {}  # only then, so that the folders of other runs stay valid
    with opened(plan, backend, out, ending) as run:
        log, label = run.log("answers.jsonl"), plan.subject.model
        asker = Asker(backend, log, label, progress, every_row=True, settled=settled, cut_for=tuple(cut_for))
        asker.ask(plan.prompts, ASKING)
        return _judge_and_measure(run, plan, judges, calibrations, progress)


def opened(plan: Evaluation, backend: Backend, out: Path, ending: Mapping[str, Any] = {}) -> Run:
    """The run folder of an evaluation, with what is planned written; UserError where it holds another one."""
    subject = {name: value for name, value in asdict(plan.subject).items() if value is not None and value != {}}
    config = {**subject, "backend": backend.identity, **ending}
    run = Run.open(out, "evaluate", config, {"plan": plan.digest()})
    try:
        run.write_text("queries.jsonl", _lines(plan.queries))
        run.write_text("variants.jsonl", _lines(plan.variants))
    except BaseException:
        run.close()  # another try must find the folder free
        raise
    return run


def rejudge(
    out: Path,
    judges: Sequence[Judge],
    calibrations: Sequence[Calibration] = (),
    progress: Progress = lambda _what, _done, _planned: None,
) -> list[Record]:
    """Judges an evaluation's stored answers again, without generating anything; corrects as `evaluate` does."""
    check_calibrations(calibrations, [judge.name for judge in judges])
    with Run.reopen(out) as run:
        queries = run.log("queries.jsonl").read(Query)
        variants = run.log("variants.jsonl").read(Variant)
        config = run.manifest.config
        if run.manifest.command != "evaluate":
            raise UserError(f"{out} is a run of `{run.manifest.command}`; give the folder of an evaluation.")
        subject = Subject(**{one.name: config[one.name] for one in fields(Subject) if one.name in config})
        return _judge_and_measure(run, Evaluation(queries, variants, subject), judges, calibrations, progress)


def _lines(models: Sequence[BaseModel]) -> str:
    return "".join(model.model_dump_json() + "\n" for model in models)


def _all_settled(judges: Sequence[Judge]) -> Settled:
    """Whether all judges are certain; raises UserError where one never can be."""
    lacking = [judge.name for judge in judges if not hasattr(judge, "settled")]
    if lacking or not judges:
        raise UserError(
            f"answers cannot be ended early for {', '.join(lacking) or 'no judge'}: only published lists can tell when "
            "their verdict is certain; judge with those alone, or let answers come to their end."
        )
    each: list[Settled] = [getattr(judge, "settled") for judge in judges]  # noqa: B009 -- no judge must have it
    return lambda text: all(one(text) for one in each)


def _judge_and_measure(
    run: Run, plan: Evaluation, judges: Sequence[Judge], calibrations: Sequence[Calibration], progress: Progress
) -> list[Record]:
    answers = latest(run.log("answers.jsonl").read(Answer))
    records: list[Record] = []
    for judge in judges:
        verdicts: list[Verdict] = list(judge_all(kept(judge, run.path / "verdicts", progress), plan.queries, answers))
        run.write_text(f"verdicts/{judge.name}.jsonl", _lines(verdicts))
        records += measure(plan.queries, plan.variants, verdicts, plan.subject)
    records += corrected(records, calibrations)
    _drop_verdicts_of_others(run, judges)
    _keep_calibrations(run, calibrations)
    metrics = Metrics(schema=1, run=run.manifest.id, records=records)
    run.write_json("metrics.json", metrics.model_dump(mode="json", by_alias=True))
    return records


def _drop_verdicts_of_others(run: Run, judges: Sequence[Judge]) -> None:
    """What a judge said earlier may be of other answers than those that are there now."""
    mine = {f"{judge.name}.jsonl" for judge in judges}
    for path in (run.path / "verdicts").glob("*.jsonl"):
        if path.name not in mine:
            path.unlink()


def _keep_calibrations(run: Run, calibrations: Sequence[Calibration]) -> None:
    """Written beside the metrics, so that whoever reads these sees where the judges were measured."""
    if calibrations:
        run.write_json(CALIBRATIONS, [one.model_dump(mode="json", by_alias=True) for one in calibrations])
    else:
        (run.path / CALIBRATIONS).unlink(missing_ok=True)
