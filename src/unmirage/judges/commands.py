"""The verb `judge`: answers of a run judged again, and judges measured on people's labels.

Part of the command line, and so on top of all other rooms; nothing else imports it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from unmirage import options
from unmirage.quiet import quiet_libraries

if TYPE_CHECKING:
    from rich.console import Console

    from unmirage.judges import Judge
    from unmirage.judges.agreement import Dispute, Row
    from unmirage.judges.calibrate import Calibration, Figure, View
    from unmirage.judges.labels import Labelled
    from unmirage.schema import Record, Verdict
    from unmirage.stats import Interval

SHOWN_CHARACTERS = 160


class _RunByDefault(TyperGroup):
    """`judge FOLDER ...` is short for `judge run FOLDER ...`; a folder named like a subcommand needs a ./ before.

    A folder named `run` needs none where only options follow.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the subcommand where it is left out."""
        if args and (args[0] not in ("--help", *self.commands) or _is_folder_named_run(args)):
            args = ["run", *args]
        return super().parse_args(ctx, args)


def _is_folder_named_run(args: list[str]) -> bool:
    only_options = args[1:2] == [] or (args[1].startswith("-") and "--help" not in args)
    return args[0] == "run" and only_options and Path("run", "run.json").exists()


judge = typer.Typer(
    cls=_RunByDefault,
    help=(
        "Judge the answers of an evaluation again, without asking the model: `judge RUN`, short for `judge run RUN`. "
        "Measure how wrong a judge is: `judge calibrate LABELS`."
    ),
    no_args_is_help=True,
)


@dataclass(frozen=True)
class _Names:
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--judge",
            help="Name of a judge, such as rules (default), vlguard, classifier:FOLDER, llama-guard:FOLDER or "
            "llm:MODEL; may be repeated. `judge list` has all.",
        ),
    ] = None
    phrases: Annotated[
        list[Path] | None,
        typer.Option(help="File with a list of refusal phrases, as one more judge; may be repeated."),
    ] = None


@dataclass(frozen=True)
class JudgesHere(options.Judging, _Names):
    """The judges of these verbs, published lists of phrases among them; the fields of the last base come first."""

    def made(self, data: list[Path] | None) -> list[Judge]:
        """Each judge once, for the data files that were asked; UserError where there is none of a name."""
        from unmirage.judges.lists import read_list
        from unmirage.judges.registry import judges_named

        wanted = self.names if self.names or self.phrases else ["rules"]
        if any(":" in name for name in wanted or []):
            quiet_libraries()
        named = judges_named(wanted or [], data or [], self.options())
        return list({judge.name: judge for judge in [*named, *map(read_list, self.phrases or [])]}.values())


@judge.command("run")
@options.grouped
def run_(
    run: Annotated[Path, typer.Argument(help="Folder of an evaluation (`unmirage evaluate`).")],
    judging: JudgesHere,
    data: Annotated[
        list[Path] | None,
        typer.Option(help="Data file that was asked; only the truth judge needs it. May be repeated."),
    ] = None,
    calibration: options.Calibrations = None,
    disagreements: Annotated[int, typer.Option(min=0, help="Most disagreements that are listed.")] = 10,
    show_harmful: Annotated[
        bool, typer.Option("--show-harmful", help="Show harmful answers; they are redacted otherwise.")
    ] = False,
) -> None:
    """Judge a run's stored answers again; verdicts and metrics are replaced by those of the judges given."""
    from unmirage.evaluate import rejudge
    from unmirage.report.load import read_variants
    from unmirage.report.terminal import headline

    judges = judging.made(data)
    calibrations = options.read_calibrations(calibration)
    records = rejudge(run, judges, calibrations)
    headline(records, variants=read_variants(run))
    console = _console()
    tell_errors(calibrations, records)
    verdicts = _verdicts(run, judges)
    _tell_agreement(console, verdicts)
    if len(judges) > 1:
        _tell_disputes(console, run, verdicts, disagreements, show_harmful)
    typer.echo(f"Verdicts: {run / 'verdicts'}")
    typer.echo(f"Metrics: {run / 'metrics.json'}")


@dataclass(frozen=True)
class LabelFile:
    """How people's labels are read."""

    answer_column: Annotated[str | None, typer.Option(help="Column of the answers.")] = None
    label_column: Annotated[str | None, typer.Option(help="Column of the labels.")] = None
    question_column: Annotated[str | None, typer.Option(help="Column of the questions, where there is one.")] = None
    harm_column: Annotated[
        str | None, typer.Option(help="Column that says whether an answer is harmful (yes, no); without it, harm.")
    ] = None
    value: Annotated[
        list[str] | None,
        typer.Option(metavar="VALUE=LABEL", help="What a label means, such as no=refusal; may be repeated."),
    ] = None

    def rows(self, file: Path) -> list[Labelled]:
        """The labelled answers of a file; UserError where it cannot be read."""
        from unmirage.judges.labels import Columns, read_labels, read_values

        columns = Columns(self.answer_column, self.label_column, self.question_column, self.harm_column)
        return read_labels(file, columns, read_values(self.value or []))


@judge.command("calibrate")
@options.grouped
def calibrate_(
    labels: Annotated[Path, typer.Argument(help="Answers with people's labels: .csv or .jsonl.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder for the calibrations: <judge>/<domain>.json.")] = Path(
        "calibrations"
    ),
    domain: Annotated[
        str | None, typer.Option(help="What the answers are about; without it, the name of the file.")
    ] = None,
    judging: JudgesHere,
    reading: LabelFile,
) -> None:
    """Measure judges on labelled answers: sensitivity, specificity, agreement. XSTest's completions are known."""
    from unmirage.judges.calibrate import calibrate
    from unmirage.judges.keeping import kept
    from unmirage.progress import Bars
    from unmirage.runs import digest_file, write_json

    rows = reading.rows(labels)
    console = _console()
    for one in judging.made(None):
        with Bars() as bars:
            found = calibrate(kept(one, out, bars.update), rows, domain or labels.stem, digest_file(labels))
        _tell_calibration(console, found)
        for warning in found.warnings():
            typer.echo(f"warning: {warning}", err=True)
        typer.echo(f"Calibration: {write_json(out / one.name / f'{_file_name(found.domain)}.json', found)}")


@judge.command("list")
def list_() -> None:
    """List the judges: what they look at, and where published lists come from."""
    from rich.markup import escape
    from rich.table import Table

    from unmirage.judges.guards import GUARDS, NO_JUDGE
    from unmirage.judges.lists import published
    from unmirage.judges.registry import JUDGES, MODELS

    table = Table("judge", "what it is", "licence", box=None, pad_edge=False)
    for name, entry in JUDGES.items():
        licence = published()[name].licence if name in published() else ""
        table.add_row(name, escape(entry.about), escape(licence))
    for kind, model in MODELS.items():
        table.add_row(f"{kind}:{model.what}", escape(model.about), "")
    for kind, guard in GUARDS.items():
        table.add_row(f"{kind}:FOLDER", escape(guard.about), "")
    for kind, why in NO_JUDGE.items():
        table.add_row(f"({kind})", escape(why), "")
    _console().print(table)


def _file_name(domain: str) -> str:
    return re.sub(r"[^\w.-]+", "-", domain).strip(".-") or "labels"


def _console() -> Console:
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(width=120, highlight=False)


def _verdicts(run: Path, judges: Sequence[Judge]) -> dict[str, dict[Row, Verdict]]:
    from unmirage.judges.agreement import by_row
    from unmirage.runs import JsonLines
    from unmirage.schema import Verdict

    return {one.name: by_row(JsonLines(run / "verdicts" / f"{one.name}.jsonl").read(Verdict)) for one in judges}


def _tell_agreement(console: Console, verdicts: Mapping[str, Mapping[Row, Verdict]]) -> None:
    from rich.table import Table

    from unmirage.judges.agreement import agreement

    pairs = agreement(verdicts)
    if not pairs:
        return
    table = Table("judges", "answers", "equal labels, %", "Cohen's kappa", title="Agreement", title_justify="left")
    for pair in pairs:
        table.add_row(f"{pair.one}\n{pair.other}", str(pair.n), _percent(pair.equal), _plain(pair.kappa))
    console.print(table)
    console.print(
        "In brackets 95 % intervals. Kappa: 0 as often as by chance, 1 always; - where all labels are the same."
    )


def _tell_disputes(
    console: Console, run: Path, verdicts: Mapping[str, Mapping[Row, Verdict]], most: int, show: bool
) -> None:
    from unmirage.judges.agreement import disputes
    from unmirage.report.load import read_rows
    from unmirage.schema import Answer, Query

    found = list(disputes(verdicts))
    console.print(f"Disagreements: {len(found)}" + (f"; the first {most}:" if len(found) > most else ""))
    queries = {query.id: query for query in read_rows(run / "queries.jsonl", Query)}
    answers = {answer.row: answer for answer in read_rows(run / "answers.jsonl", Answer)}
    for one in found[:most]:
        _tell_dispute(console, one, answers[one.row], queries[one.row[0]].harmful and not show)


def _tell_dispute(console: Console, dispute: Dispute, answer: Any, guarded: bool) -> None:
    from rich.markup import escape

    from unmirage.report.examples import must_redact
    from unmirage.report.wording import printable

    hidden = guarded and must_redact(dispute.verdicts, "")
    text = " ".join(printable(answer.text).split())
    cut = text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."
    shown = f"[redacted, {len(answer.text)} characters; --show-harmful shows it]" if hidden else cut
    query, attack, shot = dispute.row
    where = f"{query}, {attack} ({shot})" if attack else query
    console.print(escape(f"  {where}: {shown}"))
    for judge, verdict in dispute.verdicts.items():
        why = "" if hidden else f" ({printable(verdict.why)})"
        console.print(escape(f"    {judge}: {verdict.label}{why}"))


def tell_errors(calibrations: Sequence[Calibration], records: Sequence[Record]) -> None:
    """Print what the judges get wrong and the rates that allow for it; warnings go to standard error."""
    from rich.markup import escape

    from unmirage.evaluate.correct import left_uncorrected

    console = _console()
    for one in calibrations:
        for view in (one.any, one.refusal, *([one.harm] if one.harm else [])):
            rates = f"sensitivity {_percent(view.sensitivity)} %, specificity {_percent(view.specificity)} %"
            console.print(escape(f"{one.judge} on {one.domain}: {rates} ({view.positive} against {view.negative})"))
        for warning in one.warnings(records[0].data if records else None):
            typer.echo(f"warning: {warning}", err=True)
    for record in records:
        if record.metric.endswith("_corrected") and record.value is not None:
            where = ", ".join(part for part in (record.split, record.attack or "before", record.judge) if part)
            rate = f"{100 * record.value:.1f} ({100 * (record.low or 0):.1f}, {100 * (record.high or 0):.1f})"
            console.print(escape(f"{record.metric} %, {where}: {rate}"))
    for sentence in left_uncorrected(records, calibrations):
        console.print(escape(sentence))


def _tell_calibration(console: Console, found: Calibration) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(f"{found.judge} on {found.domain}, {found.n} answers"), title_justify="left")
    for column in ("", "sensitivity", "specificity", "false positives", "accuracy", "kappa"):
        table.add_column(column, justify="left" if not column else "right")
    for view in (found.full, found.any, found.refusal, *([found.harm] if found.harm else [])):
        table.add_row(*_view_cells(view))
    console.print(table)
    console.print("Percent but for kappa; in brackets 95 % intervals.")
    if found.weighted:
        console.print(
            "Rates and kappas are weighted by how many answers each one stands for (column weight); intervals too."
        )
    if found.sees_harm and not found.harm:
        console.print(
            "The judge looks at harm, and the labels have no column harm: its ASR cannot be corrected by this."
        )
    console.print(f"Three classes: {_percent(found.agreement)} % equal labels, kappa {_plain(found.kappa)}")
    _tell_confusion(console, found)


def _view_cells(view: View) -> Iterable[str]:
    rates = (view.sensitivity, view.specificity, view.false_positive_rate, view.accuracy)
    return (f"{view.positive} / {view.negative}", *map(_percent, rates), _plain(view.kappa))


def _tell_confusion(console: Console, found: Calibration) -> None:
    from rich.table import Table

    said = list(dict.fromkeys(label for row in found.confusion.values() for label in row))
    table = Table("people \\ judge", *said, title="Answers, each counted once", title_justify="left")
    for human, row in found.confusion.items():
        table.add_row(human, *(str(row.get(label, 0)) for label in said))
    console.print(table)


def _percent(figure: Figure | Interval | None) -> str:
    if figure is None:
        return "-"
    return f"{100 * figure.value:.1f} ({100 * figure.low:.1f}, {100 * figure.high:.1f})"


def _plain(figure: Figure | Interval | None) -> str:
    return "-" if figure is None else f"{figure.value:.2f} ({figure.low:.2f}, {figure.high:.2f})"
