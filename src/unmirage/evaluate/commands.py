"""The verb `evaluate`. Part of the command line, and so on top of all other rooms; nothing else imports it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unmirage.backends.registry import BackendName, open_backend
from unmirage.errors import UserError
from unmirage.judges.commands import tell_errors
from unmirage.options import (
    AdaptedAsking,
    AttackedReading,
    DataFiles,
    Judges,
    Method,
    ModelLabel,
    ModelName,
    RunFolder,
    grouped,
    model_name,
)
from unmirage.quiet import quiet_libraries
from unmirage.verbs import pooled_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from unmirage.backends.protocol import Backend
    from unmirage.evaluate import Evaluation
    from unmirage.judges import Judge
    from unmirage.judges.calibrate import Calibration
    from unmirage.schema import Answer, Record


@grouped
def evaluate(
    model: ModelName,
    data: DataFiles,
    out: RunFolder,
    *,
    reading: AttackedReading,
    judged: Judges,
    label: ModelLabel = None,
    method: Method = "none",
    seed: Annotated[int, typer.Option(min=0, help="Seed it was made with; only written into the records.")] = 0,
    asked: AdaptedAsking,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes that ask side by side a model in this machine, on a GPU each.")
    ] = 1,
    early_stop: Annotated[
        bool,
        typer.Option(
            "--early-stop", help="End answers once the verdict is certain; for published lists as judges only."
        ),
    ] = False,
) -> None:
    """Ask a model the questions, before and under attack; judge and measure its answers."""
    from unmirage.evaluate import Evaluation
    from unmirage.evaluate.measure import Subject

    asking = asked.options(out)
    is_served = asking.name is BackendName.openai_server
    queries = reading.queries(data)
    subject = Subject(label or model_name(model), method, seed, pooled_name(queries))
    plan = Evaluation(queries, reading.variants(queries), subject)
    _tell_uncontrolled(plan)
    if not is_served or any(":" in name for name in judged.judge or ()):
        quiet_libraries()
    judges, calibrations = judged.made(data), judged.calibrations()
    if workers > 1 and (is_served or early_stop):
        raise UserError("--workers is for whole answers of a model in this machine; a server has --concurrency.")
    records = _measured(plan, partial(open_backend, model, asking), out, judges, calibrations, workers, early_stop)
    _tell(plan, records, calibrations, out)


def _tell(plan: Evaluation, records: list[Record], calibrations: list[Calibration], out: Path) -> None:
    from unmirage.report.terminal import headline

    headline(records, variants=plan.variants)
    tell_errors(calibrations, records)
    _tell_unanswered(_answers(out))
    typer.echo(f"Metrics: {out / 'metrics.json'}")


def _measured(
    plan: Evaluation, make: Callable[[], Backend], out: Path, judges: list[Judge], calibrations: list[Calibration],
    workers: int, early_stop: bool,
) -> list[Record]:  # fmt: skip
    from unmirage.evaluate import evaluate
    from unmirage.evaluate.sharded import evaluate_sharded
    from unmirage.progress import Bars

    with Bars() as bars:
        if workers > 1:
            return evaluate_sharded(plan, make, out, workers, bars.update, judges, calibrations)
        return evaluate(plan, make(), judges, out, bars.update, calibrations, early_stop=early_stop)


def _tell_uncontrolled(plan: Evaluation) -> None:
    """Which attacks have no control among the variants: their change is told, and no effect of the word."""
    controlled = {variant.control_of for variant in plan.variants}
    attacks = dict.fromkeys(variant.attack for variant in plan.variants if variant.control_of is None)
    if lacking := [attack for attack in attacks if attack not in controlled]:
        typer.echo(
            f"warning: {', '.join(lacking)}: no control among the variants, so what any change of the question does "
            "is not told from what its wording does. `unmirage attack` makes controls, unless --no-control.",
            err=True,
        )


def _answers(out: Path) -> list[Answer]:
    from unmirage.runs import JsonLines
    from unmirage.schema import Answer, latest

    return latest(JsonLines(out / "answers.jsonl").read(Answer))


def _tell_unanswered(answers: Sequence[Answer]) -> None:
    """Why rows have no text, to standard error; the figures alone only say how many have no verdict."""
    failed = [answer.error for answer in answers if answer.error is not None]
    if failed:
        often = max(set(failed), key=failed.count)
        typer.echo(
            f"warning: {len(failed)} of {len(answers)} rows have no answer, {failed.count(often)} of them for: "
            f"{often}. The same command again asks for these alone.",
            err=True,
        )
    if held := sum(answer.finish == "filter" for answer in answers):
        typer.echo(f"warning: a content filter of the service held {held} of {len(answers)} answers back.", err=True)
