"""The verb `fill`. Part of the command line, and so on top of all other rooms; nothing else imports it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unmirage.errors import UserError

if TYPE_CHECKING:
    from unmirage.studies.fill import Filled

LARGEST = 1_000_000
"""Bytes of a pack above which it is better not kept beside documents."""


def fill(
    paths: Annotated[list[Path], typer.Argument(help="Markdown documents; with --pack, run folders or packed files.")],
    results: Annotated[
        list[Path] | None,
        typer.Option(help="Run folder or packed file; may be repeated. Without it, those that a document names."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit code 1 where a table or picture is not current.")
    ] = False,
    pack: Annotated[
        bool, typer.Option("--pack", help="Write the runs' records to one small file, to be kept with the documents.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="With --pack: the file, such as docs/results/NAME.json.")] = None,
    wanted: Annotated[
        list[Path] | None,
        typer.Option("--for", help="With --pack: keep what the blocks of this document show; may be repeated."),
    ] = None,
) -> None:
    """Fill the tables and pictures of Markdown documents from result files, or pack those that they need."""
    if pack:
        if out is None or results or check:
            raise UserError("--pack takes run folders and --out FILE, and neither --results nor --check.")
        _pack(paths, out, wanted or [])
        return
    if out is not None or wanted:
        raise UserError("--out and --for belong to --pack; documents are filled in place.")
    from unmirage.studies.fill import fill

    filled = fill(paths, results or [])
    if check:
        _check(filled)
        return
    for one in filled:
        one.write()
        state = f"{len(one.stale)} of {len(one.document.blocks)} blocks made anew" if one.stale else "current"
        typer.echo(f"{one.document.path}: {state}")


def _check(filled: list[Filled]) -> None:
    stale = [block for one in filled for block in one.stale]
    for block in stale:
        typer.echo(f"{block.where}: not current; run `unmirage fill` on it.")
    if stale:
        raise typer.Exit(1)
    pending = sum(block.spec.pending for one in filled for block in one.document.blocks)
    waiting = f", {pending} of them pending" if pending else ""
    typer.echo(f"{sum(len(one.document.blocks) for one in filled)} blocks are current{waiting}.")


def _pack(runs: list[Path], out: Path, documents: list[Path]) -> None:
    from unmirage.studies.blocks import read_document
    from unmirage.studies.results import read_results, sources, write_pack
    from unmirage.studies.select import needed

    records = read_results(runs)
    if documents:
        records = needed(records, [block.spec for path in documents for block in read_document(path).blocks])
    if not records:
        raise UserError("no record of these runs is shown in these documents; give other runs, or no --for.")
    size = write_pack(out, records, sources(runs)).stat().st_size
    typer.echo(f"{out}: {len(records)} records, {size / 1000:.0f} kB")
    if size > LARGEST and not documents:
        typer.echo("warning: that is much for a file kept with documents; pack what they show alone (--for).", err=True)
