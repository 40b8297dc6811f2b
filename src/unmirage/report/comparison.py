"""A comparison of runs as a table on the terminal, in Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from unmirage.report.edits import phrases
from unmirage.report.wording import printable

if TYPE_CHECKING:
    from unmirage.evaluate.compare import Cell, Comparison, Flip, Line

HEAD = ("part", "asked", "metric", "run", "n", "rate, %", "difference, points", "up / down", "p", "Holm")
SHOWN_CHARACTERS = 160
RARE = ("partial",)
"""Metrics that are 0 in most comparisons; the tables leave such a line out."""
NAMES = {
    "asr": "ASR", "refusal": "refused", "coherent": "coherent refusals", "partial": "partial", "ir": "irrelevant",
    "rr": "RR", "utility": "utility",
    "asr_any": "ASR, any of K", "rr_any": "RR, any of K",
}  # fmt: skip
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "\u2013": "--", "\u2212": "$-$", "·": r"\textperiodcentered{}", '"': r"\textquotedbl{}",
}  # fmt: skip
_MARKDOWN = re.compile(r"[\\`*_|#~]|<(?=[A-Za-z/!?])|\[(?![-+\d])|\](?=[(\[:])")
"""What Markdown would read as a mark; an interval's brackets and "<0.001" stay as they are."""


def rows(found: Comparison) -> Iterator[tuple[str, ...]]:
    """The table, one row for each figure of each run, as text in the columns of `HEAD`; without `RARE` lines of 0."""
    for line in found.lines:
        if line.metric not in RARE or any(cell.record.value != 0 for cell in line.cells):
            yield from (_row(line, cell) for cell in line.cells)


def _row(line: Line, cell: Cell) -> tuple[str, ...]:
    record, change = cell.record, cell.change
    difference = utility = ""
    if change:
        difference = f"{change.value * 100:+.1f} [{change.low * 100:+.1f}, {change.high * 100:+.1f}]"
    if cell.utility:
        utility = f"; {cell.utility.verdict} (above {cell.utility.low * 100:+.1f})"
    effect = line.control is not None
    return (
        line.split or "all",
        _asked(line),
        _metric(line),
        cell.run,
        _counts(cell),
        _rate(record.value, record.low, record.high, signed=effect),
        difference + utility,
        f"{change.gained} / {change.lost}" if change else "",
        _p(change.p) if change else "",
        _p(cell.p_holm),
    )


def _metric(line: Line) -> str:
    """A rate by its name; of an effect also what it is owed to, as the attack's name tells."""
    if line.control is None:
        return NAMES.get(line.metric, line.metric)
    rate = line.metric.removesuffix("_effect")
    return f"effect of {phrases([line.attack]).cause} on {NAMES.get(rate, rate)}"


def _asked(line: Line) -> str:
    if line.control is not None:
        return f"{line.attack} minus {line.control}"
    return line.attack or "as asked"


def _counts(cell: Cell) -> str:
    record = cell.record
    missing = [f"{n} {what}" for n, what in ((record.errors, "errors"), (record.unparsed, "unparsed")) if n]
    return f"{record.n} ({', '.join(missing)})" if missing else str(record.n)


def _rate(value: float | None, low: float | None, high: float | None, *, signed: bool) -> str:
    sign = "+" if signed else ""
    ends = "" if low is None or high is None else f" [{low * 100:{sign}.1f}, {high * 100:{sign}.1f}]"
    return ("-" if value is None else f"{value * 100:{sign}.1f}") + ends


def _p(p: float | None) -> str:
    return "" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def notes(found: Comparison) -> list[str]:
    """What a reader needs to know of the table, in sentences."""
    said = [
        f"Judged by {found.judge}, over the {found.shared} rows that all runs share; differences to {found.baseline}, "
        "paired by question, with 95 % intervals. Up / down: questions whose outcome rose and fell. p: exact McNemar, "
        "or a sign-flip test where questions have several variants or scores; Holm: corrected over the runs of a line."
    ]
    left = [f"{count} of {run}" for run, count in found.left_out.items() if count]
    if left:
        said.append(f"Rows that not all runs share are left out: {', '.join(left)}.")
    if any(line.metric in RARE for line in found.lines):
        said.append("A line for partial answers is left out where no run gave one.")
    if any(cell.utility for line in found.lines for cell in line.cells):
        said.append(
            f"Utility is non-inferior where the one-sided 95 % bound of its difference (in round brackets) is above "
            f"-{100 * found.margin:g} points, inferior where the upper end of the two-sided 90 % interval is below "
            "that, else inconclusive."
        )
    return said


def as_terminal(found: Comparison, most: int, console: Console | None = None) -> None:
    """Print the table, its notes, and at most `most` flips of each run."""
    console = console or Console(highlight=False)
    console = console if console.is_terminal else Console(width=190, file=console.file, highlight=False)
    table = Table(title=escape(printable(f"compared with {found.baseline}")), title_justify="left")
    for name in HEAD:
        table.add_column(name, justify="left" if name in HEAD[:4] else "right")
    before: tuple[str, ...] = ("", "", "")
    for row in rows(found):
        table.add_row(*(escape(printable(text)) for text in _without_repeats(row, before)), end_section=False)
        before = row[:3]
    console.print(table)
    for sentence in notes(found):
        console.print(escape(printable(sentence)))
    for text in flips_as_text(found, most):
        console.print(escape(printable(text)))


def _without_repeats(row: tuple[str, ...], before: tuple[str, ...]) -> tuple[str, ...]:
    """Part, attack and metric are said once."""
    same = 0
    while same < 3 and row[same] == before[same]:
        same += 1
    return ("",) * same + row[same:]


def flips_as_text(found: Comparison, most: int) -> Iterator[str]:
    """At most `most` flips of each run, as lines of text."""
    for run in found.runs[1:]:
        mine = [flip for flip in found.flips if flip.run == run]
        shown = mine[:most]
        if shown:
            yield f"{run}: {len(mine)} outcomes flipped" + (f"; {len(shown)} of them:" if len(mine) > most else ":")
        for flip in shown:
            where = f"{flip.query}, {flip.attack} ({flip.shot})" if flip.attack else flip.query
            yield f"  {NAMES[flip.metric]} {'up' if flip.gained else 'down'}: {_line_of(flip.question)} ({where})"
            yield f"    {found.baseline}, {flip.baseline.label}: {_text(flip.baseline)}"
            yield f"    {run}, {flip.now.label}: {_text(flip.now)}"


def _text(side: Any) -> str:
    if side.text is None:
        return f"(redacted, {side.characters} characters; --show-harmful shows it)" if side.characters else "(none)"
    text = _line_of(side.text)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."


def _line_of(text: str) -> str:
    return " ".join(printable(text).split())


def as_markdown(found: Comparison, most: int) -> str:
    """A table of GitHub's Markdown, its notes, and flips as a list."""
    lines = [HEAD, ("---",) * 4 + ("---:",) * 6, *rows(found)]
    shown = [(line if i < 2 else tuple(map(_markdown, line))) for i, line in enumerate(lines)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in shown)
    texts = [_markdown(sentence) for sentence in notes(found)]
    listed = [f"{'  ' * ((len(t) - len(t.lstrip())) // 2)}- {_markdown(t.strip())}" for t in flips_as_text(found, most)]
    return "\n\n".join([table, *texts, *(["\n".join(listed)] if listed else [])]) + "\n"


def _markdown(text: str) -> str:
    return _MARKDOWN.sub(r"\\\g<0>", _line_of(text))


def as_latex(found: Comparison) -> str:
    """A table for LaTeX with the package booktabs; the notes are its caption."""
    body, before = [], None
    for row in rows(found):
        if before is not None and row[:2] != before[:2]:
            body.append(r"\midrule")
        body.append(" & ".join(map(_latex, _without_repeats(row, before or ("", "", "")))) + r" \\")
        before = row
    head = " & ".join(_latex(name) for name in HEAD) + r" \\"
    return "\n".join([
        r"% needs \usepackage{booktabs}", r"\begin{table}", r"\centering", r"\begin{tabular}{llllrrrrrr}", r"\toprule",
        head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}",
        rf"\caption{{{' '.join(map(_latex, notes(found)))}}}", r"\end{table}", "",
    ])  # fmt: skip


def _latex(text: str) -> str:
    escaped = "".join(_LATEX.get(character, character) for character in _line_of(text))
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", escaped)


def as_csv(found: Comparison) -> str:
    """One row for each figure of each run, with raw numbers (rates in [0, 1])."""
    return _csv([_figure(found, line, cell) for line in found.lines for cell in line.cells])


def _figure(found: Comparison, line: Line, cell: Cell) -> dict[str, Any]:
    record, change, utility = cell.record, cell.change, cell.utility
    figure: dict[str, Any] = {
        "judge": found.judge, "baseline": found.baseline, "run": cell.run, "split": line.split, "attack": line.attack,
        "control": line.control, "metric": line.metric, "k": record.k, "n": record.n, "errors": record.errors,
        "unparsed": record.unparsed, "value": record.value, "low": record.low, "high": record.high,
    }  # fmt: skip
    names = {"value": "difference", "low": "difference_low", "high": "difference_high", "n": "pairs"}
    for name in ("n", "value", "low", "high", "gained", "lost", "p"):
        figure[names.get(name, name)] = getattr(change, name) if change else None
    figure["p_holm"] = cell.p_holm
    for name in ("margin", "low", "high", "p", "verdict"):
        figure[f"non_inferiority_{name}"] = getattr(utility, name) if utility else None
    return figure


def flips_as_csv(found: Comparison) -> str:
    """All flips, one a row, both answers beside each other; a redacted answer is empty."""
    return _csv([_flip(flip) for flip in found.flips])


def _flip(flip: Flip) -> dict[str, Any]:
    return {
        "run": flip.run, "metric": flip.metric, "split": flip.split, "query": flip.query, "attack": flip.attack,
        "shot": flip.shot, "question": flip.question, "gained": flip.gained,
        **{f"baseline_{name}": value for name, value in asdict(flip.baseline).items()},
        **{f"run_{name}": value for name, value in asdict(flip.now).items()},
    }  # fmt: skip


def _csv(figures: Sequence[dict[str, Any]]) -> str:
    out = io.StringIO()
    if figures:
        writer = csv.DictWriter(out, list(figures[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _no_formula(value) for name, value in figure.items()} for figure in figures)
    return out.getvalue()


def _no_formula(value: Any) -> Any:
    """A text that a spreadsheet would take for a formula gets an apostrophe before it: answers come from models."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def as_json(found: Comparison) -> str:
    """Everything: each figure with raw numbers, and all flips."""
    content = {
        "schema": 1,
        "judge": found.judge,
        "baseline": found.baseline,
        "runs": found.runs,
        "margin": found.margin,
        "shared_rows": found.shared,
        "left_out": dict(found.left_out),
        "figures": [_figure(found, line, cell) for line in found.lines for cell in line.cells],
        "flips": [_flip(flip) for flip in found.flips],
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
