"""The audit as a table on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from unmirage.audit.model.results import Effect, ModelAudit
from unmirage.audit.model.sidebyside import untouched_sentence
from unmirage.audit.model.summary import headline

ROWS = 24


def print_audit(audit: ModelAudit, console: Console | None = None) -> None:
    """Prints the words that do most, how good the score is, and what else must be known."""
    console = console or Console()
    console = console if console.is_terminal else Console(width=120, file=console.file)
    refusals = [one for one in audit.records if one.metric == "refusal" and one.role == "candidate"]
    words: dict[tuple[str, str], list[Effect]] = {}
    for one in sorted(refusals, key=lambda one: -_best(one, audit.records)):
        words.setdefault((one.word, one.position), []).append(one)
    table = Table(title=escape(f"{audit.model} on {audit.data}, judged by {audit.judge}"), title_justify="left")
    table.add_column("word", no_wrap=True)
    table.add_column("place")
    for sort in ("harmful", "harmless"):
        table.add_column(f"{sort}: refused", justify="right")
        table.add_column("minus controls", justify="right", no_wrap=True)
        table.add_column("reading")
    for (word, place), records in list(words.items())[:ROWS]:
        table.add_row(escape(word), _place(records[0].edit, place), *_cells(records, audit.records))
    console.print(table)
    if len(words) > ROWS:
        console.print(f"{len(words) - ROWS} more words are in audit_model.json.")
    console.print(
        "Percent refused, before -> after; then points against neutral and random words at the same place, with the "
        "95 % interval. *: by leaning, which tells off-topic answers from answers. ~: predicted by the score."
    )
    untouched = [untouched_sentence(one) for one in audit.side_by_side if one.metric == _shown(audit)]
    for sentence in (*headline(audit), *filter(None, untouched), audit.scoring.why, *audit.notes):
        console.print(escape(sentence), highlight=False)


def _shown(audit: ModelAudit) -> str:
    """The metric that tells most apart: leaning where the judge knows off-topic answers, else refusal."""
    return "leaning" if any(one.metric == "leaning" for one in audit.side_by_side) else "refusal"


def _best(one: Effect, records: Sequence[Effect]) -> float:
    """How far a word is from its controls by any rate, on either sort of questions."""
    same = [r for r in records if (r.word, r.position) == (one.word, one.position) and r.metric != "score"]
    return max(abs(r.minus_control or 0.0) for r in same)


def _place(edit: str, position: str) -> str:
    return position if edit == "substitution" else f"put in, {position}"


def _cells(records: Sequence[Effect], all_: Sequence[Effect]) -> list[str]:
    cells = []
    for harmful in (True, False):
        found = next((one for one in records if one.harmful == harmful), None)
        cells += ["-", "-", "-"] if found is None else _three(found, all_)
    return cells


def _three(one: Effect, all_: Sequence[Effect]) -> list[str]:
    mark = "" if one.measured == "generated" else "~"
    change = "as asked" if one.after is None else f"{mark}{100 * (one.before or 0):.0f} -> {100 * one.after:.0f}"
    ends = "" if one.minus_control is None else (
        f"{mark}{100 * one.minus_control:+.0f} [{100 * (one.minus_control_low or 0):+.0f}, "
        f"{100 * (one.minus_control_high or 0):+.0f}]"
    )  # fmt: skip
    return [change, escape(ends), _reading(one, all_)]


def _reading(one: Effect, all_: Sequence[Effect]) -> str:
    """The reading by refusals; where that is no cue, the one by leaning, marked."""
    if one.reading.endswith("cue"):
        return one.reading
    twin = [
        r for r in all_ if (r.word, r.position, r.harmful, r.metric) == (one.word, one.position, one.harmful, "leaning")
    ]
    return f"{twin[0].reading}*" if twin and twin[0].reading.endswith("cue") else one.reading
