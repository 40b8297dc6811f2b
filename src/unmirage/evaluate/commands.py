"""The verb `evaluate`. Part of the command line, and so on top of all other rooms; nothing else imports it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unmirage.verbs import Format, Images, Model, Strict, load_all, quiet_libraries, read_variants


def evaluate(
    model: Model,
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
            help="keywords (default): VLGuard's list; rules; truth: sandbox data only; `judge list` has all. "
            "May be repeated."
        ),
    ] = None,
    calibration: Annotated[
        list[Path] | None,
        typer.Option(help="File made by `judge calibrate`: its judge's rates are given corrected too. Repeatable."),
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="What results call the model; without it, its folder's name.")
    ] = None,
    method: Annotated[str, typer.Option(help="How the model was made; only written into the records.")] = "none",
    seed: Annotated[int, typer.Option(min=0, help="Seed it was made with; only written into the records.")] = 0,
    format: Annotated[Format, typer.Option(help="Format of the data files.")] = Format.vlguard,
    images: Images = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Questions asked at once; the memory needed grows with it.")
    ] = 64,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 256,
    strict: Strict = False,
) -> None:
    """Ask a model the questions, before and under attack; judge and measure its answers."""
    from unmirage.backends.hugging_face import HuggingFaceBackend
    from unmirage.evaluate import Evaluation, evaluate
    from unmirage.evaluate.measure import Subject
    from unmirage.judges.calibrate import read_calibration
    from unmirage.judges.commands import tell_errors
    from unmirage.judges.registry import judges_named
    from unmirage.progress import Bars
    from unmirage.report.terminal import headline

    queries = load_all(data, format.value, images, split or [], strict)
    subject = Subject(label or model.resolve().name, method, seed, data[0].stem)
    plan = Evaluation(queries, read_variants(attack or [], queries), subject)
    judges = judges_named(judge or ["keywords"], data)
    calibrations = [read_calibration(path) for path in calibration or []]
    quiet_libraries()
    backend = HuggingFaceBackend(model, batch_size=batch_size, max_new_tokens=max_new_tokens)
    with Bars() as bars:
        records = evaluate(plan, backend, judges, out, bars.update, calibrations)
    headline(records)
    tell_errors(calibrations, records)
    typer.echo(f"Metrics: {out / 'metrics.json'}")
