"""The verb `label`: people label a sample of a run's answers, and two people's labels are merged.

Part of the command line, and so on top of all other rooms; nothing else imports it.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from unmirage.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from unmirage.labelling.marks import Sample
    from unmirage.labelling.merge import Agreement, Merged
    from unmirage.labelling.session import Person, Session
    from unmirage.stats import Interval

SHOWN_CHARACTERS = 160


class _RunByDefault(TyperGroup):
    """`label FOLDER ...` is short for `label run FOLDER ...`; a folder named like a subcommand needs a ./ before."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the subcommand where it is left out."""
        if args and args[0] not in ("--help", *self.commands):
            args = ["run", *args]
        return super().parse_args(ctx, args)


label = typer.Typer(
    cls=_RunByDefault,
    help=(
        "Label a sample of a run's answers by hand, blind: `label RUN --who NAME`, short for `label run RUN`. Then "
        "set two people's labels against each other: `label merge A B`."
    ),
    no_args_is_help=True,
)


@label.command("run")
def run_(
    run: Annotated[Path, typer.Argument(help="Folder of an evaluation (`unmirage evaluate`).")],
    who: Annotated[str, typer.Option(help="Who labels; names the file.")],
    out: Annotated[Path, typer.Option(help="Folder of the labels: <who>.jsonl.")] = Path("labels"),
    sample: Annotated[int, typer.Option(min=1, help="How many answers.")] = 150,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draw; both people need the same.")] = 0,
    stratify: Annotated[
        bool,
        typer.Option(
            "--stratify", help="Draw equally many harmful and harmless, attacked and not, of each verdict of the run."
        ),
    ] = False,
    browser: Annotated[
        bool, typer.Option("--browser", help="Label on a page that only this machine can open.")
    ] = False,
) -> None:
    """Label a sample of a run's answers; model, attack, harmfulness and verdicts are not shown."""
    from unmirage.labelling.sample import draw
    from unmirage.labelling.session import file_of, open_session

    file = file_of(out, who)
    drawn = draw(run, sample, seed, stratify)
    _tell_sample(drawn, sample)
    with open_session(file, who, drawn) as session:
        _ask(session, browser)
    typer.echo(f"Labels: {file}")


@label.command("merge")
def merge_(
    one: Annotated[Path, typer.Argument(help="Labels of one person: <who>.jsonl.")],
    other: Annotated[Path, typer.Argument(help="Labels of the other person, of the same sample.")],
    out: Annotated[
        Path, typer.Option(help="File for `unmirage judge calibrate`; figures go beside it, as .json.")
    ] = Path("labels.csv"),
    third: Annotated[
        Path | None, typer.Option(help="Labels of a third person, who decides where the two disagree.")
    ] = None,
    settle: Annotated[
        str | None,
        typer.Option(metavar="WHO", help="Ask WHO now, in the terminal, about each disagreement; kept beside --out."),
    ] = None,
    disagreements: Annotated[int, typer.Option(min=0, help="Most disagreements that are listed.")] = 10,
    show_text: Annotated[
        bool, typer.Option("--show-text", help="List disagreements with the answers, which may be harmful.")
    ] = False,
) -> None:
    """Set two people's labels against each other, settle what they disagree on, and write what is settled."""
    from unmirage.labelling.merge import merge, write_merged
    from unmirage.labelling.session import read_person

    if out.suffix != ".csv":
        raise UserError(f"--out {out} does not end with .csv, the format that `unmirage judge calibrate` reads.")
    if third is not None and settle is not None:
        raise UserError("--third and --settle both say who decides; give one of them.")
    people = (read_person(one), read_person(other))
    decider = read_person(third) if third else None
    found = merge(*people, decider)
    if settle is not None:
        found = merge(*people, _settle(found, settle, out.parent))
    _tell_merged(found, disagreements, show_text)
    csv, figures = write_merged(found, out)
    typer.echo(f"Labels: {csv}")
    typer.echo(f"Figures: {figures}")
    typer.echo(f"Next: unmirage judge calibrate {shlex.quote(str(csv))} --domain {shlex.quote(found.sample.data)}")


def _ask(session: Session, browser: bool) -> None:
    if browser:
        from unmirage.labelling.server import serve

        serve(session, _tell_address)
        typer.echo(f"{session.done} of {session.total} are labelled.")
        return
    from unmirage.labelling.terminal import keys_here, label_in_terminal

    label_in_terminal(session, _console(), keys_here())


def _tell_address(url: str) -> None:
    # Not opened from here: the secret would stand in the list of processes, for all users of the machine.
    typer.echo(f"Open this page: {url}")
    typer.echo("It ends with its own button, or with Ctrl-C here.")


def _settle(found: Merged, who: str, folder: Path) -> Person:
    """Asks `who` about the disagreements; the labels of the two are shown, as they have said all that they can."""
    from unmirage.labelling.session import file_of, open_session, read_person
    from unmirage.labelling.terminal import keys_here, label_in_terminal

    if who in found.who:
        raise UserError(f"{who!r} has labelled already; a third person decides.")
    file = file_of(folder, who)
    with open_session(file, who, found.sample, found.disputed) as session:
        label_in_terminal(session, _console(), keys_here(), found.said)
    return read_person(file)


def _tell_sample(sample: Sample, wanted: int) -> None:
    n = len(sample.items)
    of = f"{sample.answered} answers"
    if sample.planned > sample.answered:
        of += f" ({sample.planned - sample.answered} more rows have no text)"
    parts = f", from {len(sample.strata)} strata" if sample.stratified else ""
    typer.echo(f"Sample {sample.id}: {n} of {of}{parts}, seed {sample.seed}")
    if n < wanted:
        typer.echo(f"warning: the run holds {n} answers only, fewer than the {wanted} wanted.", err=True)
    missed = sum(stratum.drawn == 0 for stratum in sample.strata)
    if missed:
        typer.echo(
            f"warning: {missed} strata got no answer; with --sample {len(sample.strata)} each has one.", err=True
        )
    if sample.cut:
        typer.echo(
            f"warning: {sample.cut} of these answers were cut short when a judge was certain; labels hold for the part "
            "that is there.",
            err=True,
        )


def _tell_merged(found: Merged, most: int, show: bool) -> None:
    """Names, ids and notes come from files that others have written: nothing in them may steer the terminal."""
    console = _console()
    from unmirage.labelling.terminal import shown

    console.print(shown(f"{found.who[0]} and {found.who[1]}, {len(found.sample.items)} answers"), markup=False)
    _tell_agreement(console, "label", found.choices)
    _tell_agreement(console, "harm", found.harms)
    for name, count in found.counts.items():
        console.print(shown(f"  {name}: {count}"), markup=False)
    _tell_rates(console, found)
    _tell_disagreements(console, found, most, show)
    for warning in found.warnings():
        typer.echo(f"warning: {warning}", err=True)


def _tell_agreement(console: Console, what: str, found: Agreement) -> None:
    from rich.table import Table

    kappa = "-" if found.kappa is None else _plain(found.kappa)
    equal = "-" if found.equal is None else _percent(found.equal)
    console.print(f"{what}: {found.n} answers labelled by both, {equal} % alike, kappa {kappa}", markup=False)
    if not found.n:
        return
    table = Table("first \\ second", *found.classes, box=None, pad_edge=False)
    for name, row in zip(found.classes, found.table, strict=True):
        table.add_row(name, *map(str, row))
    console.print(table)


def _tell_rates(console: Console, found: Merged) -> None:
    from rich.table import Table

    rates = found.rates()
    labels = list(dict.fromkeys(rate.label for rate in rates))
    title = "Answers of the run as people see them, %"
    table = Table("questions", *labels, box=None, pad_edge=False, title=title, title_justify="left")
    for harmful, attacked in dict.fromkeys((rate.harmful, rate.attacked) for rate in rates):
        name = f"{'harmful' if harmful else 'harmless'}, {'attacked' if attacked else 'before'}"
        here = {rate.label: rate for rate in rates if (rate.harmful, rate.attacked) == (harmful, attacked)}
        table.add_row(name, *(_percent(here[label].interval) if label in here else "-" for label in labels))
    console.print(table)
    console.print("In brackets 95 % intervals; what is left out widens them as far as it could matter.")


def _tell_disagreements(console: Console, found: Merged, most: int, show: bool) -> None:
    from unmirage.labelling.terminal import shown

    disputed = found.disputed
    if not disputed:
        return
    console.print(f"Disagreements: {len(disputed)}" + (f"; the first {most}:" if 0 < most < len(disputed) else ""))
    for index in disputed[:most]:
        item = found.sample.items[index]
        where = f"{item.query}, {item.attack} ({item.shot})" if item.attack else item.query
        console.print(shown(f"  {where}: {found.said(index)}"), markup=False)
        if show:
            console.print(f"    {_short(item.answer)}", markup=False)


def _short(text: str) -> str:
    from unmirage.labelling.terminal import shown

    flat = " ".join(shown(text).split())
    return flat if len(flat) <= SHOWN_CHARACTERS else flat[:SHOWN_CHARACTERS] + "..."


def _console() -> Console:
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(width=120, highlight=False)


def _percent(interval: Interval) -> str:
    return f"{100 * interval.value:.1f} ({100 * interval.low:.1f}, {100 * interval.high:.1f})"


def _plain(interval: Interval) -> str:
    return f"{interval.value:.2f} ({interval.low:.2f}, {interval.high:.2f})"
