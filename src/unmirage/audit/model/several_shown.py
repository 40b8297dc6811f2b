"""Words over several models, for people: sentences, a table on the terminal, one page."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from unmirage.audit.model import figures
from unmirage.audit.model.page import METRICS
from unmirage.audit.model.several import ModelAudits, OverRuns, WordOverRuns, Zero
from unmirage.audit.model.sidebyside import NEAR
from unmirage.report import wording
from unmirage.report.wording import listing

ZEROS: dict[Zero, str] = {
    "untouched": "the mean of the other words that the data do not tie to refusal",
    "controls": "neutral and random words",
}
UNTESTED = (
    "Where all models have the same effect there is no variance and so no t test: p and q are left open, the interval "
    "reaches over those of the single audits, and the word counts as a cue only if that does not hold zero and the "
    f"effect is more than {100 * NEAR:.0f} points."
)


def headline(audits: ModelAudits) -> list[str]:
    """What the data's words do in all models, and how near to nothing the others are; by the first of the figures."""
    found = audits.found[0]
    refuse, comply = _named(found.words, "refusal cue"), _named(found.words, "compliance cue")
    untested = any(word.q is None and word.reading != "no effect" for word in found.words)
    by = "q < 0.05, or the same effect in all models" if untested else "q < 0.05"
    does = [*([f"{refuse} towards refusal"] if refuse else []), *([f"{comply} towards answers"] if comply else [])]
    start = f"Over {len(audits.models)} models, against {ZEROS[found.zero]}, "
    moved = f"{' and '.join(does)}: {by}." if does else "no word has an effect that is told from none (q < 0.05)."
    sentences = [untested_sentence(found), untouched_sentence(found)]
    return [f"{start}{'these words move answers: ' if does else ''}{moved}", *filter(None, sentences)]


def untested_sentence(found: OverRuns) -> str:
    """Which words have the same effect in all models, and how they are read without a test; empty where none has."""
    same = [f"“{word.word}”" for word in found.words if word.p is None]
    return f"Without a test: {listing(same)}. {UNTESTED}" if same else ""


def _named(words: Sequence[WordOverRuns], reading: str) -> str:
    mine = sorted((word for word in words if word.reading == reading), key=lambda word: -abs(word.effect))
    return listing([f"“{word.word}” ({100 * word.effect:+.0f})" for word in mine])


def untouched_sentence(found: OverRuns) -> str:
    """How near to zero the words are that the data do not touch; empty where there are none."""
    free = [word for word in found.words if word.untouched]
    if not free:
        return ""
    near = sum(abs(word.effect) <= NEAR for word in free)
    around = sum(word.low <= 0 <= word.high for word in free)
    low, high = min(word.effect for word in free), max(word.effect for word in free)
    return (
        f"Of {len(free)} words that the data do not tie to refusal, {near} lie within {100 * NEAR:.0f} points of zero, "
        f"{around} have an interval with zero in it; their means reach from {100 * low:+.0f} to {100 * high:+.0f}."
    )


def print_audits(audits: ModelAudits, console: Console | None = None) -> None:
    """Prints the words of the first figure, their mean and every model's own effect."""
    console = console or Console()
    console = console if console.is_terminal else Console(width=120, file=console.file)
    found = audits.found[0]
    title = f"{METRICS[found.metric]}; {len(audits.models)} models on {audits.data}, judged by {audits.judge}"
    table = Table(title=escape(title), title_justify="left")
    for name in ("word", "rows in the data"):
        table.add_column(name, no_wrap=True, justify="left" if name == "word" else "right")
    for name in ("mean, interval", "q", "in each model"):
        table.add_column(name, justify="right")
    table.add_column("reading")
    for word in found.words:
        table.add_row(*map(escape, _cells(word)))
    console.print(table)
    console.print(f"Points against {ZEROS[found.zero]}, mean over the models with Student's 95 % interval.")
    for sentence in (*headline(audits), *audits.notes):
        console.print(escape(sentence), highlight=False)


def _cells(word: WordOverRuns) -> list[str]:
    data = "none" if word.data_rate is None else f"{word.data_n}, {100 * word.data_rate:.0f} % refused"
    mean = f"{100 * word.effect:+.0f} [{100 * word.low:+.0f}, {100 * word.high:+.0f}]"
    each = " ".join(f"{100 * value:+.0f}" for value in word.each)
    return [word.word, data, mean, "-" if word.q is None else f"{word.q:.2g}", each, word.reading]


def write_page(audits: ModelAudits, path: Path) -> Path:
    """Write the page to `path`: no script, no network, everything that files said escaped."""
    from unmirage.runs import write_text

    environment = Environment(
        loader=PackageLoader("unmirage.audit.model"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update({name: getattr(wording, name) for name in ("points", "points_interval", "printable")})
    shown = [(METRICS[one.metric], ZEROS[one.zero], one, figures.scatter(one.picture())) for one in audits.found]
    page = environment.get_template("audit_models.html.j2").render(
        audits=audits,
        headline=headline(audits),
        shown=shown,
        untouched=untouched_sentence,
        untested=UNTESTED,
        style=Markup(_style()),
    )
    return write_text(path, page)


def _style() -> str:
    shared = files("unmirage.report").joinpath("templates", "page.css").read_text(encoding="utf-8")
    own = files("unmirage.audit.model").joinpath("templates", "audit_model.css").read_text(encoding="utf-8")
    return shared + own
