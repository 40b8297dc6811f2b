"""A search as tables on the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from unmirage.attacks.search.results import SearchEffect, SearchRate, SearchResult

_MOST = 8


def print_search(found: SearchResult, console: Console | None = None) -> None:
    """Prints rates, the effect of the words beyond neutral ones, the edits that broke most, and what must be known."""
    console = console or Console()
    console = console if console.is_terminal else Console(width=120, file=console.file)
    console.print(_rates(found))
    console.print(escape(f"Attack {found.attack}; constraints: {', '.join(found.rules)}."), soft_wrap=True)
    for effect in found.effects:
        console.print(escape(_effect(effect)), soft_wrap=True)
    for line in (*_certificates(found), *_edits(found), *found.notes):
        console.print(escape(line), soft_wrap=True)
    budget = "" if found.budget is None else f" of at most {found.budget}"
    passes = f"; {found.scored} passes for scores or gradients" if found.scored else ""
    console.print(f"{found.asked} distinct requests asked{budget}{passes}.", highlight=False)
    console.print("Percent, with 95 % intervals; >= where something is unfinished and the rate may be higher.")


def _rates(found: SearchResult) -> Table:
    title = f"{found.search} search, goal {found.goal}: {found.model} on {found.data}, judged by {found.judge}"
    table = Table(title=escape(title), title_justify="left")
    for name in ("questions", "rate", "of"):
        table.add_column(name)
    for name in ("%", "95 % interval", "n", "unfinished", "certified"):
        table.add_column(name, justify="right", no_wrap=True)
    for rate in found.rates:
        table.add_row(_questions(rate), _name(rate), _of(rate, found), *_cells(rate))
    return table


def _questions(rate: SearchRate | SearchEffect) -> str:
    return escape(" ".join(filter(None, (rate.split, "harmful" if rate.harmful else "harmless"))))


def _name(rate: SearchRate) -> str:
    names = {"already": "already", "broken": "broken", "worst_case": "already or broken", "per_edit": "single edits"}
    return names[rate.metric] + (f" with {escape(rate.word)}" if rate.word else "")


def _of(rate: SearchRate, found: SearchResult) -> str:
    return {None: "as asked", found.attack: "attack"}.get(rate.attack, "neutral control")


def _cells(rate: SearchRate) -> list[str]:
    value = f">= {100 * rate.least:.1f}" if rate.value is None else f"{100 * rate.value:.1f}"
    ends = escape(f"[{100 * rate.low:.1f}, {100 * rate.high:.1f}]")
    certified = str(rate.certified) if rate.metric == "broken" else ""
    return [value, ends, str(rate.n), str(rate.unfinished), certified]


def _effect(effect: SearchEffect) -> str:
    value = "unfinished," if effect.value is None else f"{100 * effect.value:+.1f} points"
    return (
        f"Effect of the words ({_questions(effect)}): attack minus control {value} "
        f"[{100 * effect.low:+.1f}, {100 * effect.high:+.1f}]; {effect.gained} broken by the attack alone, "
        f"{effect.lost} by neutral words alone, p {effect.p:.2g}, n {effect.n}."
    )


def _certificates(found: SearchResult) -> Sequence[str]:
    """How many questions no edit breaks, and how many edits that is."""
    sizes = [row.attack.edits for row in found.questions if row.attack and row.attack.certified]
    if not sizes:
        return ["No question is certified: none had all of its edits asked in vain."]
    many = f"{min(sizes)} to {max(sizes)}" if min(sizes) < max(sizes) else str(sizes[0])
    return [f"{len(sizes)} questions are certified: none of all their one-word edits ({many}) reaches the goal."]


def _edits(found: SearchResult) -> Sequence[str]:
    """The edits that were found most often."""
    edits = [row.attack.edit for row in found.questions if row.attack and row.attack.edit]
    counts = Counter(f"{edit.kind} {edit.word} at {edit.position}" for edit in edits)
    listed = ", ".join(f"{name} ({count})" for name, count in counts.most_common(_MOST))
    return [f"Found first, by question: {listed}."] if listed else []
