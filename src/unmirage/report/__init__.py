"""One self-contained HTML page from evaluation runs: what was found, shown with its pictures and intervals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unmirage.report.load import load_runs, read_metrics
from unmirage.runs import write_text

__all__ = ["read_metrics", "write_report"]


def write_report(
    runs: Sequence[Path],
    out: Path,
    *,
    title: str | None = None,
    show_harmful: bool = False,
) -> Path:
    """Write the page for some evaluation run folders, one row per run, and return its path.

    Without a `title` it is called after the attack: "What one swapped word does to a safe model".
    Harmful model text is shown as "redacted" unless `show_harmful`. The page needs no network and
    opens from disk. Raises UserError naming the file where a run is incomplete or broken.
    """
    from unmirage.report.page import render

    return write_text(out, render(load_runs(runs), title=title, show_harmful=show_harmful))
