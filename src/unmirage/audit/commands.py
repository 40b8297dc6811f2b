"""The verbs `unmirage audit ...`. Nothing heavy is imported before a verb needs it, and `data` needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unmirage.audit.model.command import model, models
from unmirage.errors import UserError
from unmirage.options import grouped
from unmirage.verbs import Strict

if TYPE_CHECKING:
    from unmirage.audit.data import Audit, Settings
    from unmirage.audit.table import Source

audit = typer.Typer(
    help="Find the shortcut before it bites: words that tell refusal though they say nothing about harm.",
    no_args_is_help=True,
)


class AuditFormat(StrEnum):
    """Formats of data to audit."""

    auto = "auto"
    table = "table"
    vlguard = "vlguard"
    llava = "llava"


class LabelsFrom(StrEnum):
    """Where labels come from."""

    auto = "auto"
    given = "given"
    answers = "answers"


class Repair(StrEnum):
    """Ways to repair data."""

    rebalance = "rebalance"
    counterfactual = "counterfactual"


@dataclass(frozen=True)
class Table:
    """How the data are read."""

    format: Annotated[
        AuditFormat,
        typer.Option(
            help="auto finds VLGuard's and LLaVA's JSON; all else, and what has the column --question, is a table."
        ),
    ] = AuditFormat.auto
    question: Annotated[str | None, typer.Option(help="Table: column of the questions.")] = None
    answer: Annotated[str | None, typer.Option(help="Table: column of the answers.")] = None
    label: Annotated[str | None, typer.Option(help="Table: column that says whether a question is refused.")] = None
    image: Annotated[str | None, typer.Option(help="Table: column of the images.")] = None
    id: Annotated[str | None, typer.Option(help="Table: column of the ids.")] = None
    refusal: Annotated[
        list[str] | None,
        typer.Option(help="Value of the label that means refusal; may be repeated. All others then mean compliance."),
    ] = None
    weight: Annotated[
        str | None,
        typer.Option(help="Column (in VLGuard's and LLaVA's format: key beside the question) of the rows' weights."),
    ] = None
    images: Annotated[Path | None, typer.Option(help="Folder of the images; without it, one beside the file.")] = None
    encoding: Annotated[str, typer.Option(help="Text encoding of the files.")] = "utf-8"
    strict: Strict = False

    def source(self, files: list[Path]) -> Source:
        """The files, to be read so."""
        from unmirage.audit import Columns, Source

        refusal = tuple(self.refusal or ())
        columns = Columns(self.question, self.answer, self.label, self.image, self.id, refusal, self.weight)
        return Source(files, columns, self.format.value, self.images, self.encoding, self.strict)


@dataclass(frozen=True)
class Counting:
    """What is counted."""

    labels_from: Annotated[
        LabelsFrom, typer.Option(help="given: the data's labels; answers: a judge's; auto: given where there are any.")
    ] = LabelsFrom.auto
    function_word: Annotated[
        list[str] | None, typer.Option(help="Word to take as without content, beside the built-in list; repeatable.")
    ] = None
    min_n: Annotated[int, typer.Option(min=1, help="Fewest questions that a cue must have.")] = 10

    def settings(self) -> Settings:
        """The same as an audit takes it."""
        from unmirage.audit.data import Settings

        words = frozenset(word.lower() for word in self.function_word or ())
        return Settings(self.min_n, self.labels_from.value, extra_function_words=words)


@dataclass(frozen=True)
class Writing:
    """Whether the data are repaired, and where everything is written."""

    repair: Annotated[
        Repair | None,
        typer.Option(help="rebalance: weights (or copies); counterfactual: one-word twins that keep the label."),
    ] = None
    copies: Annotated[
        bool, typer.Option("--copies", help="With --repair rebalance: repeat rows instead of weighting them.")
    ] = False
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for audit.json and audit.html; with --repair, the file of the repaired data."),
    ] = None
    report: Annotated[
        Path | None,
        typer.Option(help="With --repair: folder for audit.json and audit.html; without it, none is written."),
    ] = None
    force: Annotated[
        bool, typer.Option("--force", help="With --repair: overwrite the file of --out if it is there already.")
    ] = False

    @property
    def folder(self) -> Path | None:
        """Where the audit is written; None: nowhere."""
        return self.report if self.repair is not None else self.out or Path("runs/audit")

    def repaired(self, source: Source, settings: Settings) -> Audit | None:
        """The audit of the repaired data, which are written; None where none is asked for."""
        from unmirage.audit.repair import repair_data

        if self.repair is None or self.out is None:
            return None
        done = repair_data(source, settings, self.repair.value, self.copies, self.out)
        for line in done.told:
            typer.echo(line)
        return done.after


@audit.command()
@grouped
def data(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...", help="Data files (JSON, JSONL, CSV, TSV, Parquet, Arrow) or saved data sets."
        ),
    ],
    table: Table,
    counting: Counting,
    writing: Writing,
    against: Annotated[
        Path | None, typer.Option(help="Compare with this file: which words tell the files apart, whatever the labels?")
    ] = None,
    fail_if: Annotated[
        str | None, typer.Option(help='Exit with code 1 where this holds, such as "mirage_score > 0.8".')
    ] = None,
) -> None:
    """Which words tell refusal in this data? Scores, cues, defects; and, if asked for, a repair."""
    from unmirage.audit import audit_data
    from unmirage.audit.condition import holds
    from unmirage.audit.page import write_audit
    from unmirage.audit.terminal import print_audit

    if fail_if is not None:
        holds(fail_if, _NAMES)  # a mistake in it is told before the work, not after
    _check_options(files, writing, against)
    _check_places(writing, table.weight)
    source, settings = table.source(files), counting.settings()
    found = audit_data(source, settings) if against is None else _compared(source, against, settings)
    _tell_problems(source)
    after = writing.repaired(source, settings)
    # Written before it is printed: who reads only the first lines (`| head`) ends the program there.
    written = write_audit(found, writing.folder, after) if writing.folder is not None else []
    print_audit(found, after)
    for path in written:
        typer.echo(f"Written: {path}")
    if fail_if is not None and holds(fail_if, _values(after or found)):
        typer.echo(f"failed: {fail_if}", err=True)
        raise typer.Exit(1)


_NAMES = dict.fromkeys(
    ("mirage_score", "low", "high", "majority", "gain", "auc", "shortcuts", "rows", "base_rate", "defects"), math.nan
)
"""Names before there are numbers: no difference of NaNs is 0, so dividing by one is no mistake yet."""


def _values(found: Audit) -> dict[str, float]:
    score = found.mirage_score
    return {
        "mirage_score": score.value, "low": score.low, "high": score.high, "majority": score.majority,
        "gain": score.gain, "auc": 0.5 if score.auc is None else score.auc, "shortcuts": len(found.shortcuts),
        "rows": found.n, "base_rate": found.base_rate,
        "defects": sum(listed.count for listed in found.defects.values()),
    }  # fmt: skip


def _check_options(files: list[Path], writing: Writing, against: Path | None) -> None:
    repair, copies, out = writing.repair, writing.copies, writing.out
    if repair is not None and out is None:
        raise UserError("--repair writes new data; say with --out into which file.")
    if repair is not None and (len(files) > 1 or against is not None):
        raise UserError("--repair works on one file and its own labels; give one FILE and no --against.")
    if repair is None and (copies or writing.report is not None):
        raise UserError("--copies and --report belong to --repair; give it too, or leave them out.")
    if copies and repair is not Repair.rebalance:
        raise UserError("--copies belongs to --repair rebalance.")
    if repair is not None and out is not None and out.resolve() == files[0].resolve():
        raise UserError(f"--out {out} is the input itself, which must not be lost; give another file.")


def _check_places(writing: Writing, weight: str | None) -> None:
    """What is there already stays; all of this is told before the work."""
    repair, out, report, force = writing.repair, writing.out, writing.report, writing.force
    if repair is None and force:
        raise UserError("--force belongs to --repair; without one, only audit.json and audit.html are written anew.")
    folder = out if repair is None else report
    if folder is not None and folder.is_file():
        option = "--out" if repair is None else "--report"
        raise UserError(f"{option} {folder} is a file; give a folder for audit.json and audit.html.")
    if repair is None or out is None:
        return
    if weight is not None:
        raise UserError("--repair takes all rows alike and gives weights of its own; leave out --weight.")
    if report is not None and report.resolve() == out.resolve():
        raise UserError(f"--report {report} is the file of the repaired data; give another folder.")
    if out.exists() and not (force and out.is_file()):
        what = "give the name of a new folder" if out.is_dir() else "give another file, or --force to overwrite it"
        raise UserError(f"--out {out} is there already; {what}.")


def _compared(source: Source, against: Path, settings: Settings) -> Audit:
    from unmirage.audit.compare import compare

    return compare(source, against, settings)


def _tell_problems(source: Source, most: int = 5) -> None:
    """Bad rows go to standard error: the first few in full, the counts are in the table of defects."""
    for problem in [p for p in source.problems if p.skipped][:most]:
        typer.echo(f"warning: {problem}", err=True)


audit.command()(model)
audit.command()(models)
