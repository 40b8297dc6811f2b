"""The headline as a table on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from unmirage.schema import Record

COLUMNS = (("asr", "ASR"), ("refusal", "refused"), ("ir", "irrelevant"), ("rr", "RR"), ("utility", "utility"))


def headline(records: Sequence[Record], console: Console | None = None) -> None:
    """Prints one table for each judge and split: each model's rates in percent, before -> after its attack."""
    console = console or Console()
    console = console if console.is_terminal else Console(width=120, file=console.file)
    for judge in dict.fromkeys(record.judge for record in records):
        mine = [record for record in records if record.judge == judge]
        for split in dict.fromkeys(record.split for record in mine):
            console.print(_table(judge, split, [record for record in mine if record.split == split]))
    console.print("Percent, before -> after one word is swapped; in brackets the 95 % interval of the last figure.")
    console.print(
        "ASR, refused, irrelevant: of harmful questions. RR (refused), utility (right answer): of harmless ones."
    )
    if any(_tells_refusals_alone(record.judge) for record in records):
        console.print("Rules and lists only tell refusals: their ASR is every other answer, off topic or not.")


def _tells_refusals_alone(judge: str) -> bool:
    return judge.startswith("rules-") or "keywords" in judge or "-list-" in judge


def _table(judge: str, split: str | None, records: Sequence[Record]) -> Table:
    title = f"{split} objects, judged by {judge}" if split else f"judged by {judge}"
    table = Table(title=escape(title), title_justify="left")
    table.add_column("model", no_wrap=True)
    shown = [(metric, name) for metric, name in COLUMNS if any(record.metric == metric for record in records)]
    for _, name in shown:
        table.add_column(name, justify="right")
    for model in dict.fromkeys(record.model for record in records):
        own = [record for record in records if record.model == model]
        table.add_row(escape(model), *(_cell(own, metric) for metric, _ in shown))
    unusable = sum(record.errors + record.unparsed for record in records if record.metric in ("asr", "rr"))
    if unusable:
        table.caption = f"{unusable} planned rows have no usable verdict; the intervals hold whatever they would say"
    return table


def _cell(records: Sequence[Record], metric: str) -> str:
    found = [record for record in records if record.metric == metric]
    before = [r for r in found if r.attack is None]
    after = [r for r in found if r.attack is not None]
    return "\n".join(
        " -> ".join([_percent(b), *(_percent(a) for a in after)]) + "\n" + _ends(after[-1] if after else b)
        for b in before
    )


def _percent(record: Record) -> str:
    return "-" if record.value is None else f"{100 * record.value:.1f}"


def _ends(record: Record) -> str:
    if record.low is None or record.high is None:
        return ""
    return f"[{100 * record.low:.1f}, {100 * record.high:.1f}]"
