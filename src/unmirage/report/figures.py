"""Figures as inline SVG: functions from records to strings. Colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from unmirage.report.edits import Phrases, phrases
from unmirage.report.tables import Cell, HeadlineTable, Pair, Tone, pair_of
from unmirage.report.wording import METRIC_SHORT, interval, metric_name, percent, printable, rounded
from unmirage.schema import Record

WIDTH, LEFT, RIGHT = 360, 12, 348
TOP, ROW, FOOT = 8, 54, 42
LABEL_CHARACTERS = 27
CHARACTER = 7
"""Width that a bold character inside a bar takes at most, on average."""
SYMBOL = {Tone.GOOD: "✓", Tone.MIDDLING: "!", Tone.BAD: "✕", Tone.UNKNOWN: ""}


@dataclass(frozen=True)
class Segment:
    """One part of a stacked bar."""

    kind: str
    name: str
    share: float


def dumbbells(table: HeadlineTable, metric: str) -> Markup:
    """Before (ring) and after (disc) of every model for one metric, with the interval of each as a whisker."""
    rows = [(row.model, row.pairs[metric]) for row in table.rows]
    marks = [_dumbbell(model, pair, TOP + ROW * i) for i, (model, pair) in enumerate(rows)]
    of = "harmful" if metric == "asr" else "harmless"
    return _frame(f"{metric_name(metric, table.harm)}, before and after", len(rows), f"% of {of} questions", marks)


def outcomes(
    records: Sequence[Record], table: HeadlineTable, *, attacked: bool, said: Phrases | None = None
) -> Markup | None:
    """Stacked bars of what became of the harmful questions; None where harm and refusals are not told apart.

    `said` is how to speak of the attack; without it, as its name tells.
    """
    attack = table.attacks["asr"]
    if not table.harm or (attacked and attack is None):
        return None
    own = [r for r in records if r.split == table.split and r.judge == table.judge and table.data in (None, r.data)]
    bars = [(row.model, _segments([r for r in own if r.model == row.model], attack, attacked)) for row in table.rows]
    if not any(segments for _, segments in bars):
        return None
    marks = [_bar(model, segments, TOP + ROW * i) for i, (model, segments) in enumerate(bars)]
    noun = (said or phrases([attack])).noun
    title = f"What became of the harmful questions {'after' if attacked else 'before'} {noun}"
    return _frame(title, len(bars), "% of harmful questions", marks)


def _segments(records: Sequence[Record], attack: str | None, attacked: bool) -> list[Segment]:
    pairs = {metric: pair_of(records, metric, attack if attacked else None) for metric in ("asr", "ir", "refusal")}
    cells = {metric: pair.after if attacked else pair.before for metric, pair in pairs.items()}
    shares = {metric: cell.value for metric, cell in cells.items() if cell and cell.value is not None}
    if len(shares) < 3:
        return []
    rest = max(0.0, 1 - sum(shares.values()))
    garbled = _garbled(records, attack if attacked else None, shares["refusal"])
    return [
        Segment("harm", "harmful answer", shares["asr"]),
        Segment("other", "other", rest if rest > 1e-6 else 0.0),
        Segment("off", "off topic", shares["ir"]),
        Segment("garbled", "garbled refusal", garbled),
        Segment("refusal", "refusal", shares["refusal"] - garbled),
    ]


def _garbled(records: Sequence[Record], attack: str | None, refused: float) -> float:
    """What of the refusals is no whole one, apart from what a filter held back; 0 where the judge does not know."""
    found = {r.metric: r.value for r in records if r.attack == attack and r.metric in ("coherent", "filtered")}
    coherent = found.get("coherent")
    share = 0.0 if coherent is None else refused - coherent - (found.get("filtered") or 0.0)
    return share if share > 1e-6 else 0.0


def _frame(title: str, rows: int, axis: str, marks: Sequence[Markup]) -> Markup:
    bottom = TOP + ROW * rows
    ticks = Markup("").join(_tick(value, bottom) for value in (0, 0.25, 0.5, 0.75, 1))
    return Markup(
        '<svg class="figure" viewBox="0 0 {w} {h}" role="img" aria-label="{title}">{ticks}{marks}'
        '<text class="axis" x="{mid}" y="{foot}" text-anchor="middle">{axis}</text></svg>'
    ).format(
        w=WIDTH, h=bottom + FOOT, title=title, ticks=ticks, marks=Markup("").join(marks),
        mid=(LEFT + RIGHT) / 2, foot=bottom + FOOT - 6, axis=axis,
    )  # fmt: skip


def _tick(value: float, bottom: float) -> Markup:
    return Markup(
        '<line class="grid" x1="{x}" x2="{x}" y1="{top}" y2="{bottom}"/>'
        '<text class="axis" x="{x}" y="{y}" text-anchor="middle">{label}</text>'
    ).format(x=_x(value), top=TOP, bottom=bottom + 4, y=bottom + 18, label=f"{100 * value:.0f}")


def _x(value: float) -> float:
    return round(LEFT + (RIGHT - LEFT) * min(1.0, max(0.0, value)), 1)


def _dumbbell(model: str, pair: Pair, top: float) -> Markup:
    y = top + 36
    tone = pair.after.tone if pair.after else pair.before.tone if pair.before else Tone.UNKNOWN
    return Markup(
        '<g class="tone-{tone}"><title>{tip}</title>{label}{before_w}{after_w}{link}{before}{after}</g>'
    ).format(
        tone=tone.value,
        tip=_tip(model, pair),
        label=_labels(model, _pair_text(pair), SYMBOL[tone], top + 18),
        before_w=_whisker(pair.before, y - 8, "before"),
        after_w=_whisker(pair.after, y + 8, "after"),
        link=_link(pair, y),
        before=_dot(pair.before, y, "before", 6),
        after=_dot(pair.after, y, "after", 5),
    )


def _tip(model: str, pair: Pair) -> str:
    sides = [("before", pair.before), ("after", pair.after)]
    texts = [f"{name} {_cell_text(cell)}" for name, cell in sides if cell]
    return printable(f"{model}, {METRIC_SHORT[pair.metric]}: {'; '.join(texts) or 'not measured'}")


def _cell_text(cell: Cell) -> str:
    return f"{percent(cell.value)} [{interval(cell.low, cell.high)}], n = {cell.n}"


def _pair_text(pair: Pair) -> str:
    if pair.before is None and pair.after is None:
        return "not measured"
    cells = [cell for cell in (pair.before, pair.after) if cell]
    return " → ".join(rounded(cell.value) for cell in cells)


def _labels(model: str, value: str, symbol: str, y: float) -> Markup:
    model = printable(model)
    short = model if len(model) <= LABEL_CHARACTERS else model[: LABEL_CHARACTERS - 1] + "…"
    return Markup(
        '<text class="model" x="{left}" y="{y}">{model}</text>'
        '<text class="value" x="{right}" y="{y}" text-anchor="end">{value}'
        ' <tspan class="symbol">{symbol}</tspan></text>'
    ).format(left=LEFT, right=RIGHT, y=y, model=short, value=value, symbol=symbol)


def _whisker(cell: Cell | None, y: float, side: str) -> Markup:
    if _position(cell) is None or cell is None or cell.low is None or cell.high is None:
        return Markup("")
    left, right = _x(cell.low), _x(cell.high)
    path = f"M{left} {y - 2.5}v5M{left} {y}H{right}M{right} {y - 2.5}v5"
    return Markup('<path class="whisker {side}" d="{path}"/>').format(side=side, path=path)


def _link(pair: Pair, y: float) -> Markup:
    before, after = _position(pair.before), _position(pair.after)
    if before is None or after is None:
        return Markup("")
    return Markup('<line class="link" x1="{a}" x2="{b}" y1="{y}" y2="{y}"/>').format(a=before, b=after, y=y)


def _dot(cell: Cell | None, y: float, side: str, radius: float) -> Markup:
    x = _position(cell)
    if x is None:
        return Markup("")
    return Markup('<circle class="dot {side}" cx="{x}" cy="{y}" r="{r}"/>').format(side=side, x=x, y=y, r=radius)


def _position(cell: Cell | None) -> float | None:
    """Where a rate lies on the axis; None for what was not measured."""
    if cell is None or cell.value is None or not math.isfinite(cell.value):
        return None
    return _x(cell.value)


def _bar(model: str, segments: Sequence[Segment], top: float) -> Markup:
    harm = percent(segments[0].share, 0) + " harmful" if segments else "not measured"
    pieces, start = [_labels(model, harm, "", top + 18)], 0.0
    for segment in segments:
        pieces.append(_piece(model, segment, start, top + 25))
        start += segment.share
    return Markup("").join(pieces)


def _piece(model: str, segment: Segment, start: float, top: float) -> Markup:
    left, width = _x(start), round(_x(start + segment.share) - _x(start), 1)
    if width <= 0:
        return Markup("")
    return Markup(
        '<g><title>{tip}</title><rect class="segment {kind}" x="{x}" y="{y}" width="{w}" height="19"/>{label}</g>'
    ).format(
        tip=printable(f"{model}: {segment.name} {percent(segment.share)}"),
        kind=segment.kind, x=left, y=top, w=width, label=_inside(segment, left + width / 2, width, top + 13.5),
    )  # fmt: skip


def _inside(segment: Segment, middle: float, width: float, y: float) -> Markup:
    if width < 34:
        return Markup("")
    share = percent(segment.share, 0)
    named = f"{segment.name} {share}"
    text = named if width > CHARACTER * len(named) else share
    return Markup('<text class="inside {kind}" x="{x}" y="{y}" text-anchor="middle">{text}</text>').format(
        kind=segment.kind, x=round(middle, 1), y=y, text=text
    )
