"""The headline as tables on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from unmirage.report.edits import Phrases, phrases
from unmirage.report.naming import told_apart
from unmirage.report.tables import EffectRow, before_of, controls_of, effect_rows
from unmirage.report.wording import METRIC_LETTERS, printable
from unmirage.schema import BEFORE, Record, Variant

COLUMNS = (
    ("asr", "ASR"), ("refusal", "refused"), ("coherent", "coherent"), ("ir", "irrelevant"), ("rr", "RR"),
    ("utility", "utility"),
)  # fmt: skip
LONGEST_NAME = 32
"""Characters of a model's name in one line; figures must stay whole whatever a model is called."""
HELD_BACK = ("filtered", "filtered_harmless")


def headline(records: Sequence[Record], console: Console | None = None, *, variants: Iterable[Variant] = ()) -> None:
    """Prints for each judge and split each model's rates in percent, before -> after its attack.

    Where attacks have controls, the effect of the word (attack minus control) comes first: it is the finding.
    `variants` tell what the attacks did to the questions; without them their names must.
    """
    console = console or Console()
    console = console if console.is_terminal else Console(width=120, file=console.file)
    controlled = controls_of(records)
    said = phrases({record.attack for record in records} - controlled, variants)
    several = len({record.data for record in records}) > 1
    for (judge, data, stress, split), part in _parts(records).items():
        where = [f"of {data}" if several else "", f"under {stress}" if stress else ""]
        if effects := effect_rows(part):
            console.print(_effects(_title(judge, split, f"effect of {said.cause}: attack - control", *where), effects))
        console.print(_table(_title(judge, split, *where), part, controlled))
    for sentence in _notes(records, said):
        console.print(sentence)


def _parts(records: Sequence[Record]) -> dict[tuple[str, str, str | None, str | None], list[Record]]:
    """What is compared in one table: figures of one judge, data, stress and split, their models told apart by axes."""
    found: dict[tuple[str, str, str | None, str | None], list[Record]] = {}
    for record in records:
        found.setdefault((record.judge, record.data, record.stress, record.split), []).append(record)
    return {key: told_apart([one.model_copy(update={"stress": None}) for one in part]) for key, part in found.items()}


def _notes(records: Sequence[Record], said: Phrases) -> list[str]:
    notes = [
        f"Percent, before -> after {said.clause}; in brackets the 95 % interval of the last figure.",
        "ASR, refused, irrelevant: of harmful questions. RR (refused), utility (right answer): of harmless ones.",
    ]
    if any(record.metric == "coherent" for record in records):
        notes.append("Coherent: of harmful questions, those answered by a whole refusal, not by a garbled one.")
    if controls_of(records):
        notes.append("Effect: points between attack and control on the same questions; Holm: p over all attacks.")
    if any(_tells_refusals_alone(record.judge) for record in records):
        notes.append("Rules and lists only tell refusals: their ASR is every other answer, off topic or not.")
    return notes


def _tells_refusals_alone(judge: str) -> bool:
    return judge.startswith("rules-") or "keywords" in judge or "-list-" in judge


def _title(judge: str, split: str | None, *what: str) -> str:
    parts = [*what, f"{split} objects" if split else "", f"judged by {judge}"]
    return escape(printable(", ".join(part for part in parts if part)))


def _effects(title: str, rows: Sequence[EffectRow]) -> Table:
    """One line for each model, attack, control and metric."""
    table = Table(title=title, title_justify="left")
    for name in ("model", "attack - control", "of"):
        table.add_column(name, overflow="fold", min_width=17 if "-" in name else None)
    for name in ("attack", "control", "effect", "up / down", "p", "Holm"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        effect = row.effect
        rates = ["-" if cell is None or cell.value is None else f"{100 * cell.value:.1f}"
                 for cell in (row.with_word, row.with_control)]  # fmt: skip
        table.add_row(
            escape(printable(row.model)),
            escape(printable(f"{row.attack} - {_control(row)}")),
            METRIC_LETTERS[row.metric],
            *rates,
            _points(effect.value, effect.low, effect.high),
            "" if effect.gained is None else f"{effect.gained} / {effect.lost}",
            _p(effect.p),
            _p(effect.p_holm),
        )
    return table


def _control(row: EffectRow) -> str:
    """A control's name without its attack's: "first-word:what/neutral" is its "neutral"."""
    return row.control.removeprefix(f"{row.attack}/")


def _points(value: float | None, low: float | None, high: float | None) -> str:
    if value is None or low is None or high is None:
        return "-"
    return f"{100 * value:+.1f}\n[{100 * low:+.1f}, {100 * high:+.1f}]"


def _p(p: float | None) -> str:
    return "" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def _table(title: str, records: Sequence[Record], controls: set[str]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("model", overflow="fold", max_width=LONGEST_NAME)
    shown = [(metric, name) for metric, name in COLUMNS if any(record.metric == metric for record in records)]
    for _, name in shown:
        table.add_column(name, justify="right", no_wrap=True)
    for model in dict.fromkeys(record.model for record in records):
        own = [record for record in records if record.model == model and record.attack not in controls]
        table.add_row(escape(printable(model)), *(_cell(own, metric) for metric, _ in shown))
    table.caption = "; ".join(_caption(records)) or None
    return table


def _caption(records: Sequence[Record]) -> list[str]:
    said = []
    if unusable := sum(record.errors + record.unparsed for record in records if record.metric in ("asr", "rr")):
        said.append(f"{unusable} planned rows have no usable verdict; the intervals hold whatever they would say")
    if any(record.metric.endswith(BEFORE) for record in records):
        said.append("an attack leaves some questions out: before its -> stands the rate of those that it changes")
    held = sum(round((r.value or 0) * (r.n - r.errors - r.unparsed)) for r in records if r.metric in HELD_BACK)
    if held:
        said.append(f"{held} answers were held back by a content filter and count as refused")
    return said


def _cell(records: Sequence[Record], metric: str) -> str:
    """Before -> after; several attacks below one another, by name."""
    found = [record for record in records if record.metric == metric]
    after = [record for record in found if record.attack is not None]
    if len(after) == 1:
        (one,) = after
        before = before_of(records, metric, one.attack)
        return f"{_percent(before)} -> {_percent(one)}\n{_ends(one)}"
    lines = [f"{_percent(record)}\n{_ends(record)}" for record in found if record.attack is None]
    for name, one in zip(_told_apart([str(one.attack) for one in after]), after, strict=True):
        same = before_of(records, metric, one.attack)
        was = f" {_percent(same)}" if same and same.attack else ""
        lines.append(f"{name}{was} -> {_percent(one)}\n{_ends(one)}")
    return "\n".join(lines)


def _told_apart(attacks: Sequence[str]) -> list[str]:
    """Names of attacks by their words, "what" of "first-word:what"; whole where two have the same words."""
    short = [attack.partition(":")[2] or attack for attack in attacks]
    repeated = len(set(short)) < len(set(attacks))
    return [escape(printable(name)) for name in (attacks if repeated else short)]


def _percent(record: Record | None) -> str:
    return "-" if record is None or record.value is None else f"{100 * record.value:.1f}"


def _ends(record: Record) -> str:
    if record.low is None or record.high is None:
        return ""
    return f"[{100 * record.low:.1f}, {100 * record.high:.1f}]"
