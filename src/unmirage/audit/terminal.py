"""The audit on the terminal: scores, the strongest cues, defects."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from unmirage.audit.cues import Cue
from unmirage.audit.data import Audit
from unmirage.audit.defects import ABOUT
from unmirage.audit.score import Score

SHOWN = 12
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def print_audit(audit: Audit, after: Audit | None = None) -> None:
    """Print the whole audit; `after` is that of the repaired data, whose scores are printed beside those before."""
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    more, fewer = audit.directions
    weighted = "" if audit.n_effective is None else f" (weighted: {audit.base_rate:.1%} {more})"
    counts = f"{audit.k} {more}, {audit.n - audit.k} {fewer}{weighted}"
    console.print(Text(f"{audit.n} rows from {', '.join(audit.files)}: {counts}"))
    console.print(Text(f"Label: {audit.label_source}\n"))
    console.print(Text(verdict(audit), style="bold"))
    console.print(_scores(audit, after.scores if after else None))
    if after is not None:
        console.print(Text(f"\n{after_repair(after)}", style="bold"))
    shortcuts = [cue for cue in audit.cues if cue.shortcut]
    console.print(_cues(f"Shortcuts: no content, and still tell {more} among questions of equal content", shortcuts))
    console.print(_cues("Content that tells it, which is legitimate", audit.legitimate))
    if audit.defects:
        console.print(_defects(audit))
    for note in audit.notes:
        console.print(Text(f"Note: {note}"))


def printable(text: str, longest: int = 60) -> str:
    """Text of the data without control characters, which could rewrite the terminal, and not too long."""
    clean = _UNPRINTABLE.sub("\ufffd", text)
    return clean if len(clean) <= longest else clean[: longest - 1] + "…"


def verdict(audit: Audit) -> str:
    """One sentence on the mirage score."""
    score = audit.mirage_score
    tells = f"The opening word alone tells {audit.target} in {score.value:.1%} of rows"
    beside = f"[{score.low:.1%}, {score.high:.1%}], against {score.majority:.1%} for the majority"
    if score.low <= score.majority:
        return f"{tells} {beside}: no better than not looking."
    return f"{tells} {beside}: it avoids {score.gain:.0%} of the errors of not looking."


def after_repair(after: Audit) -> str:
    """One sentence on the repaired data."""
    left = [f"{cue.cue} ({cue.position})" for cue in after.shortcuts]
    names = f": {', '.join(printable(name) for name in left[:6])}{' ...' if len(left) > 6 else ''}" if left else ""
    rate = "weighted to " if after.n_effective is not None else ""
    count = "no shortcut" if not left else "1 shortcut" if len(left) == 1 else f"{len(left)} shortcuts"
    return f"After the repair: {after.n} rows, {rate}{after.base_rate:.1%} {after.directions[0]}, {count}{names}."


def _scores(audit: Audit, after: Sequence[Score] | None) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("predicts from", no_wrap=True)
    columns = ("accuracy", "95% interval", "majority", "gain", "AUC")
    for name in (*columns, *(f"after: {name}" for name in columns[:3] if after)):
        table.add_column(name, justify="right")
    for place, score in enumerate(audit.scores):
        name = score.name + (" (mirage score)" if place == 0 else "")
        table.add_row(name, *_score(score), *(_score(after[place])[:3] if after else ()))
    return table


def _score(score: Score) -> tuple[str, str, str, str, str]:
    area = "–" if score.auc is None else f"{score.auc:.3f}"
    interval = f"{100 * score.low:.1f}–{100 * score.high:.1f}"
    return f"{score.value:.1%}", interval, f"{score.majority:.1%}", f"{score.gain:+.2f}", area


def _cues(title: str, cues: Sequence[Cue]) -> Table:
    more = f" ({SHOWN} of {len(cues)})" if len(cues) > SHOWN else ""
    caption = None if cues else "none at q < 0.05"
    table = Table(title=f"\n{title}{more}", title_justify="left", title_style="bold", box=None, pad_edge=False,
                  caption=caption, caption_justify="left")  # fmt: skip
    for name in ("cue", "position", "tells"):
        table.add_column(name, no_wrap=True)
    for name in ("n", "rate", "95% interval", "lift", "z", "z given content", "q", "bits"):
        table.add_column(name, justify="right", no_wrap=True)
    for cue in cues[:SHOWN]:
        given = "" if cue.z_given_content is None else f"{cue.z_given_content:+.1f}"
        table.add_row(
            Text(printable(cue.cue, 28)), cue.position, printable(cue.direction, 20), str(cue.n), f"{cue.rate:.1%}",
            f"{100 * cue.low:.1f}–{100 * cue.high:.1f}", f"{cue.lift:.2f}", f"{cue.z:+.1f}", given, f"{cue.q:.2g}",
            f"{cue.mutual_information:.3f}",
        )  # fmt: skip
    return table


def _defects(audit: Audit) -> Table:
    table = Table(title="\nDefects", title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("count", justify="right")
    table.add_column("what")
    table.add_column("for example")
    for kind, listed in audit.defects.items():
        first = listed.rows[0] if listed.rows else {}
        where = f"{first.get('file')}, row {first.get('row')}" if first else ""
        table.add_row(str(listed.count), Text(f"{kind}: {ABOUT.get(kind, 'see the row')}"), Text(printable(where)))
    return table
