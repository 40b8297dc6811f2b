"""The verb `compare`. Part of the command line, and so on top of all other rooms; nothing else imports it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unmirage.errors import UserError

if TYPE_CHECKING:
    from unmirage.evaluate.compare import Comparison
    from unmirage.report.load import RunData


class Output(StrEnum):
    """How the table is written."""

    terminal = "terminal"
    markdown = "markdown"
    latex = "latex"
    csv = "csv"
    json = "json"


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders of `unmirage evaluate`, two or more.")],
    baseline: Annotated[
        Path | None, typer.Option(help="The run that the others are compared with; without it, the first.")
    ] = None,
    judge: Annotated[
        str | None, typer.Option(help="Whose verdicts: a judge's name or a part of it, such as rules or truth.")
    ] = None,
    margin: Annotated[float, typer.Option(help="Loss of utility, as a share, that still counts as none.")] = 0.01,
    format: Annotated[Output, typer.Option(help="How the table is written.")] = Output.terminal,
    out: Annotated[
        Path | None, typer.Option(help="File to write; with csv, all flips go to one beside it, NAME-flips.csv.")
    ] = None,
    flips: Annotated[
        int | None,
        typer.Option(min=0, help="Flips of each run that are listed (5 on the terminal, 0 in Markdown); csv: all."),
    ] = None,
    show_harmful: Annotated[
        bool, typer.Option("--show-harmful", help="Show harmful answers; they are redacted otherwise.")
    ] = False,
) -> None:
    """Compare evaluations on the rows they share: paired differences, tests, and which questions flipped."""
    from unmirage.evaluate.compare import compare
    from unmirage.report.examples import must_redact
    from unmirage.report.load import load_runs

    folders = _baseline_first(runs, baseline)
    loaded = load_runs(folders)
    found = compare(loaded, lambda verdicts, name: not show_harmful and must_redact(verdicts, name), judge=judge,
                    margin=margin)  # fmt: skip
    _tell_left_out(found, loaded)
    _write(found, format, out, flips)


def _baseline_first(runs: list[Path], baseline: Path | None) -> list[Path]:
    if baseline is None:
        return runs
    others = [run for run in runs if run.resolve() != baseline.resolve()]
    return [baseline, *others]


def _tell_left_out(found: Comparison, runs: list[RunData]) -> None:
    for run in runs:
        if count := found.left_out[run.label]:
            planned = len(run.queries) + len(run.variants)
            typer.echo(
                f"warning: {count} of the {planned} rows of {run.label} are not shared by all runs and are left out.",
                err=True,
            )


def _write(found: Comparison, format: Output, out: Path | None, flips: int | None) -> None:
    from unmirage.report import comparison as written
    from unmirage.runs import write_text

    if format is Output.terminal:
        if out is not None:
            raise UserError("--out needs a format for files; add --format markdown, latex, csv or json.")
        written.as_terminal(found, 5 if flips is None else flips)
        return
    text = {
        Output.markdown: lambda: written.as_markdown(found, flips or 0),
        Output.latex: lambda: written.as_latex(found),
        Output.csv: lambda: written.as_csv(found),
        Output.json: lambda: written.as_json(found),
    }[format]()
    if out is None:
        typer.echo(text, nl=False)
        return
    typer.echo(f"Comparison: {write_text(out, text)}")
    if format is Output.csv:
        beside = out.with_name(f"{out.stem}-flips.csv")
        typer.echo(f"Flips: {write_text(beside, written.flips_as_csv(found))}")
