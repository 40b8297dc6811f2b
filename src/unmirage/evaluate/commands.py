"""The verb `evaluate`. Part of the command line, and so on top of all other rooms; nothing else imports it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unmirage.backends.registry import AskingOptions, BackendName
from unmirage.errors import UserError
from unmirage.judges import commands as judging
from unmirage.verbs import Format, Images, SharePrefix, Strict, load_all, quiet_libraries, read_variants

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unmirage.evaluate import Evaluation
    from unmirage.schema import Answer

ModelName = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Checkpoint folder: a Hugging Face model with its processor. With --server, the name by which the server "
        "knows the model.",
    ),
]


def evaluate(
    model: ModelName,
    data: Annotated[list[Path], typer.Argument(help="Data files with the questions.")],
    out: Annotated[Path, typer.Option(help="Run folder; the same command again goes on where it stopped.")],
    attack: Annotated[
        list[Path] | None, typer.Option(help="File of variants made by `unmirage attack`; may be repeated.")
    ] = None,
    split: Annotated[
        list[str] | None, typer.Option(help="Name of a data file's part, such as seen; once for each file, in order.")
    ] = None,
    judge: Annotated[
        list[str] | None,
        typer.Option(
            help="rules (default); vlguard, the published list; truth, for sandbox data; llm:MODEL, llama-guard:FOLDER "
            "and others: `judge list` has all. May be repeated."
        ),
    ] = None,
    calibration: Annotated[
        list[Path] | None,
        typer.Option(help="File made by `judge calibrate`: its judge's rates are given corrected too. Repeatable."),
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="What results call the model; without it, its folder's or served name.")
    ] = None,
    method: Annotated[str, typer.Option(help="How the model was made; only written into the records.")] = "none",
    seed: Annotated[int, typer.Option(min=0, help="Seed it was made with; only written into the records.")] = 0,
    format: Annotated[Format, typer.Option(help="Format of the data files.")] = Format.vlguard,
    images: Images = None,
    backend: Annotated[
        BackendName | None,
        typer.Option(help="What answers; without it, the server where --server is given, else hugging_face."),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Address of a server with OpenAI's interface, such as http://localhost:8000; its key, where it needs "
            "one, is in the environment variable OPENAI_API_KEY.",
        ),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests to the server at once.")] = 8,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds until an attempt to get an answer from the server is given up.")
    ] = 60.0,
    adapter: Annotated[Path | None, typer.Option(help="Folder of a LoRA adapter for the model, with vllm.")] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Questions asked at once of a model in this process; memory grows with it.")
    ] = 64,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 256,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes that ask side by side a model in this machine, on a GPU each.")
    ] = 1,
    share_prefix: SharePrefix = True,
    early_stop: Annotated[
        bool,
        typer.Option(
            "--early-stop", help="End answers once the verdict is certain; for published lists as judges only."
        ),
    ] = False,
    judge_server: judging.Server = None,
    judge_concurrency: judging.Concurrency = 8,
    judge_timeout: judging.Timeout = 60.0,
    judge_picture: judging.Picture = False,
    judge_label: judging.Meanings = None,
    judge_pair: judging.Pair = False,
    judge_policy: judging.Policy = None,
    judge_batch_size: judging.BatchSize = 16,
    strict: Strict = False,
) -> None:
    """Ask a model the questions, before and under attack; judge and measure its answers."""
    from unmirage.backends.registry import open_backend
    from unmirage.evaluate import Evaluation, evaluate
    from unmirage.evaluate.measure import Subject
    from unmirage.evaluate.sharded import evaluate_sharded
    from unmirage.judges.calibrate import read_calibration
    from unmirage.judges.registry import JudgeOptions, judges_named
    from unmirage.progress import Bars
    from unmirage.report.terminal import headline

    asking = AskingOptions(
        backend, server, batch_size, max_new_tokens, concurrency, timeout, adapter, share_prefix, out
    )  # fmt: skip
    is_served = asking.name is BackendName.openai_server
    queries = load_all(data, format.value, images, split or [], strict)
    subject = Subject(label or _name(model), method, seed, queries[0].data)
    plan = Evaluation(queries, read_variants(attack or [], queries), subject)
    _tell_uncontrolled(plan)
    options = JudgeOptions(
        judge_server, judge_concurrency, judge_timeout, judge_picture, tuple(judge_label or ()), judge_pair,
        judge_policy, judge_batch_size,
    )  # fmt: skip
    if not is_served or any(":" in name for name in judge or ()):
        quiet_libraries()
    judges = judges_named(judge or ["rules"], data, options)
    calibrations = [read_calibration(path) for path in calibration or []]
    make = partial(open_backend, model, asking)
    if workers > 1 and (is_served or early_stop):
        raise UserError("--workers is for whole answers of a model in this machine; a server has --concurrency.")
    with Bars() as bars:
        if workers > 1:
            records = evaluate_sharded(plan, make, out, workers, bars.update, judges, calibrations)
        else:
            records = evaluate(plan, make(), judges, out, bars.update, calibrations, early_stop=early_stop)
    headline(records)
    judging.tell_errors(calibrations, records)
    _tell_unanswered(_answers(out))
    typer.echo(f"Metrics: {out / 'metrics.json'}")


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


def _name(model: str) -> str:
    """The last part of a folder, by which some servers too know a model; else the name as it is."""
    return Path(model).resolve().name if Path(model).is_dir() else model


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
