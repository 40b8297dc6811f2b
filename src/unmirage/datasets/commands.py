"""The verbs `unmirage data ...`: what is in a folder, one format written as another, and which formats there are."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unmirage.errors import UserError
from unmirage.verbs import Format, Images, Strict

if TYPE_CHECKING:
    from unmirage.datasets.catalog import Part
    from unmirage.datasets.checking import Checked, Report, Terms
    from unmirage.datasets.converting import Conversion

data = typer.Typer(
    help="Data sets as they lie on disk: check them, convert them, list what can be read. Nothing is ever downloaded.",
    no_args_is_help=True,
)
MOST = 5
"""Kinds of problems that are shown with an example."""


class To(StrEnum):
    """Formats to write."""

    vlguard = "vlguard"
    llava = "llava"
    parquet = "parquet"
    jsonl = "jsonl"


ReadAs = Annotated[Format | None, typer.Option(help="Format of the data; without it, it is recognised.")]
Split = Annotated[str | None, typer.Option(help="Part of the data, such as test; without it, all that are found.")]


@data.command()
def check(
    path: Annotated[Path, typer.Argument(help="Data file, or folder as the authors hand it out.")],
    format: ReadAs = None,
    images: Images = None,
    split: Split = None,
    verify: Annotated[bool, typer.Option("--verify", help="Decode every picture, which reads them all.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with code 1 where anything is missing or odd.")
    ] = False,
    show_harmful: Annotated[
        bool, typer.Option("--show-harmful", help="Show answers to harmful questions; they are redacted otherwise.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Which data set is this, is it whole, what is odd about it, and what do its authors allow?"""
    from unmirage.datasets.checking import Options
    from unmirage.datasets.checking import check as check_data
    from unmirage.progress import Bars

    parts = _parts(path, format, split)
    with Bars() as bars:
        report = check_data(path, parts, Options(images, verify, show_harmful), bars.update)
    typer.echo(report.model_dump_json(indent=2) if json else _page(report))
    if report.broken or (strict and report.odd):
        raise typer.Exit(1)


@data.command()
def convert(
    path: Annotated[Path, typer.Argument(help="Data file, or folder as the authors hand it out.")],
    to: Annotated[To, typer.Option(help="Format to write.")],
    out: Annotated[Path, typer.Option(help="New folder for the data, its pictures and what was done.")],
    format: ReadAs = None,
    images: Images = None,
    split: Split = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many questions, drawn with --seed.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draw.")] = 0,
    image_bytes: Annotated[
        bool,
        typer.Option("--image-bytes/--image-paths", help="Parquet: put the pictures into the file, or beside it."),
    ] = True,
    strict: Strict = False,
) -> None:
    """Write a data set in another format; what that cannot hold is counted and named."""
    from dataclasses import replace

    from unmirage.datasets.converting import Wish
    from unmirage.datasets.converting import convert as convert_data
    from unmirage.progress import Bars

    part = _one_part(path, _parts(path, format, split))
    part = part if images is None else replace(part, images=images)
    wish = Wish(to.value, out, limit, seed, image_bytes, strict)
    with Bars() as bars:
        done = convert_data(part, wish, bars.update)
    _tell(done, out)


@data.command("list")
def formats() -> None:
    """List the data sets that can be read: their formats, licences, and where to ask for them."""
    from rich.console import Console
    from rich.table import Table

    from unmirage.datasets import FORMATS, about
    from unmirage.datasets.checking import formats_of

    table = Table(box=None, pad_edge=False)
    for name in ("set", "formats", "purpose", "licence", "gated", "page"):
        table.add_column(name, overflow="fold")
    for names in formats_of(FORMATS).values():
        known = about(names[0])
        if known is None:
            table.add_row("any data of this format", ", ".join(names), "", "", "", "")
            continue
        licence = known.licence if known.training else f"{known.licence} [no training]".replace("[", r"\[")
        table.add_row(known.title, ", ".join(names), known.purpose, licence, _gated(known.gated), known.page)
    Console(width=None if sys.stdout.isatty() else 200, highlight=False).print(table)


def _parts(path: Path, format: Format | None, split: str | None) -> list[Part]:
    """The parts at a path: those recognised, of this format and split where they are given, or just what is said."""
    from unmirage.datasets.catalog import Part
    from unmirage.datasets.checking import recognise

    if format is not None and not path.exists():
        raise UserError(f"{path} does not exist; give a data file or the folder of a data set.")
    try:
        parts = recognise(path)
    except UserError:
        if format is None:
            raise
        parts = []
    fit = [part for part in parts if (format or part.format) == part.format and (split or part.split) == part.split]
    if fit:
        return fit
    if format is not None:
        return [Part(format.value, split or "", path)]
    there = ", ".join(sorted({part.split for part in parts}))
    raise UserError(f"{path} has no part {split!r}; it has {there}.")


def _one_part(path: Path, parts: list[Part]) -> Part:
    if len(parts) == 1:
        return parts[0]
    each = "; ".join(f"{part.path} --format {part.format} --split {part.split}" for part in parts)
    raise UserError(f"{path} holds {len(parts)} parts; convert one at a time: {each}.")


def _page(report: Report) -> str:
    lines: list[str] = []
    shown: set[str] = set()
    for part in report.parts:
        if part.set not in shown and part.set in report.sets:
            lines += _terms(report.sets[part.set], any(one.set == part.set and one.is_authors for one in report.parts))
        shown.add(part.set)
        lines += [*_part_lines(part, part.set in report.sets and not part.is_authors), ""]
    for lacking in report.lacking:
        lines.append(f"not there: {lacking.set} {lacking.split} ({lacking.rows:,} rows)")
    odd = [f"{part.split or part.format}: {', '.join(part.odd)}" for part in report.parts if part.odd]
    lines += [f"Missing or odd: {'; '.join(odd)}"] if odd else []
    return "\n".join([*lines, "Nothing is missing or odd."] if not report.odd else lines).rstrip()


def _terms(terms: Terms, is_authors: bool) -> list[str]:
    if not is_authors:
        return [
            f"In the format of {terms.title.partition(':')[0]}; whose data these are, and their terms, is not known"
        ]
    allowed = "" if terms.training else "; training on it is FORBIDDEN by its authors"
    return [
        terms.title,
        f"  {terms.purpose}; licence: {terms.licence}; gated: {_gated(terms.gated)}{allowed}",
        f"  page, to get it or to ask for it: {terms.page} ({terms.paper})",
        *([f"  {terms.note}"] if terms.note else []),
    ]


def _part_lines(part: Checked, foreign: bool) -> list[str]:
    head = f"{part.split or 'all'}  (format {part.format}) {part.file}"
    head += "  not a part of the set that is known by its name" if foreign else ""
    if part.error is not None:
        return [head, f"  CANNOT BE READ: {part.error}"]
    questions = f"{part.harmful + part.harmless:,}: {part.harmful:,} harmful, {part.harmless:,} harmless"
    answers = f"{part.reference_answers:,} reference answers, {part.peoples_answers:,} answered by several people"
    lines = [
        head,
        f"  rows       {_rows(part)}",
        f"  questions  {questions}",
        f"  pictures   {_pictures(part)}",
        f"  answers    {answers}",
        f"  problems   {', '.join(f'{kind.count:,} {name}' for name, kind in part.problems.items()) or 'none'}",
    ]
    lines += [f"    {kind.first}" for kind in list(part.problems.values())[:MOST]]
    lines += [f"  remark     {warning}" for warning in part.warnings]
    lines += [f"  note       {note}" for note in part.notes]
    for one in part.sample:
        lines.append(f"  sample     {'harmful ' if one.harmful else 'harmless'} {one.id}: {one.question}")
        lines += [f"               picture: {one.picture}"] if one.picture else []
        lines += [f"               answer: {one.answer}"] if one.answer else []
    return lines


def _rows(part: Checked) -> str:
    if part.expected is None:
        return f"{part.rows:,}"
    fewer = part.expected - part.rows
    rest = f", {fewer:,} missing" if fewer > 0 else f", {-fewer:,} more than known" if fewer < 0 else ""
    return f"{part.rows:,} of {part.expected:,}{rest}"


def _pictures(part: Checked) -> str:
    found = part.pictures
    decoded = "not decoded (--verify does)" if found.undecodable is None else f"{found.undecodable:,} do not decode"
    return f"{found.named:,}, {found.missing:,} missing, {decoded}; {found.shared:,} with several questions"


def _gated(gated: bool | None) -> str:
    return {True: "yes", False: "no", None: "unknown"}[gated]


def _tell(done: Conversion, out: Path) -> None:
    typer.echo(f"{out / done.file}: {done.questions:,} questions in {done.rows:,} rows, {done.pictures:,} pictures")
    typer.echo(f"Read: {done.read:,} questions of {done.source} (format {done.format})")
    if done.seed is not None:
        typer.echo(f"Drawn: {done.chosen:,} of them, seed {done.seed}")
    for what, counts in (
        ("bad rows of the source, left out", done.skipped),
        ("questions that the format cannot hold, left out", done.left_out),
        ("what the format cannot hold of questions that are written", done.dropped),
    ):
        for name, count in counts.items():
            typer.echo(f"warning: {what}: {count:,} {name}", err=True)
    for warning in done.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if not done.training:
        typer.echo('warning: its authors forbid to train on it; every row says "training": false.', err=True)
