"""Figures as inline SVG: functions from results to strings. Colours come from the page's style sheet."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from unmirage.audit.model.results import Attribution, Effect, ImageShare, SideBySide, WordPoint, WordShare
from unmirage.report.images import Picture
from unmirage.report.wording import points, points_interval, printable

WIDTH, LEFT, RIGHT, ROW, TOP = 540, 150, 470, 19, 10
SIDE, EDGE, LINE = 520, 46, 11
GAP, LETTER = 9, 8.5
"""Between a point and its name, and for each letter of it, in units of the figure."""
TONES = {"refusal cue": "refuse", "compliance cue": "comply", "any change": "change"}


def forest(records: Sequence[Effect]) -> Markup:
    """One row for each word: its outcome minus that of the control words with the interval, and the controls' range."""
    ordered = sorted(records, key=lambda one: -(one.minus_control or 0.0))
    rows = Markup("").join(_row(one, TOP + ROW * i) for i, one in enumerate(ordered))
    bottom = TOP + ROW * len(ordered)
    ticks = Markup("").join(_tick(value, bottom) for value in (-1, -0.5, 0, 0.5, 1))
    return Markup(
        '<svg class="figure" viewBox="0 0 {w} {h}" role="img" aria-label="Words against control words">{ticks}{rows}'
        '<text class="axis" x="{mid}" y="{foot}" text-anchor="middle">word minus control words, in points</text></svg>'
    ).format(w=WIDTH, h=bottom + 40, ticks=ticks, rows=rows, mid=(LEFT + RIGHT) / 2, foot=bottom + 34)


def _row(one: Effect, top: float) -> Markup:
    y = top + ROW / 2
    own = one.minus_control or 0.0
    control = one.control or 0.0
    band = (_x((one.control_low or 0.0) - control), _x((one.control_high or 0.0) - control))
    return Markup(
        '<g class="{tone}"><title>{tip}</title><rect class="band" x="{b0}" width="{bw}" y="{by}" height="{bh}"/>'
        '<text class="word" x="{lx}" y="{ty}" text-anchor="end">{word}</text>'
        '<path class="reach" d="M{x0} {y}H{x1}"/><circle class="{dot}" cx="{x}" cy="{y}" r="4.2"/>'
        '<text class="axis" x="{vx}" y="{ty}">{value}</text></g>'
    ).format(
        tone=TONES.get(one.reading, "none"),
        tip=_tip(one),
        b0=band[0], bw=max(1.0, round(band[1] - band[0], 1)), by=y - 6, bh=12,
        lx=LEFT - 12, ty=y + 4, word=_name(one),
        x0=_x(own if one.minus_control_low is None else one.minus_control_low), y=y,
        x1=_x(own if one.minus_control_high is None else one.minus_control_high), x=_x(own),
        dot="dot" if one.measured == "generated" else "dot open", vx=RIGHT + 12, value=points(own),
    )  # fmt: skip


def _name(one: Effect | WordPoint) -> str:
    shown = {"opening": f"{one.word} …", "begin": f"+ {one.word} …", "end": f"… + {one.word.lower()}"}[one.position]
    return printable(shown)[:22]


def _tip(one: Effect) -> str:
    ends = points_interval(one.minus_control_low, one.minus_control_high)
    how = "generated" if one.measured == "generated" else "predicted by the score"
    q = "" if one.q_control is None else f", q = {one.q_control:.2g}"
    return printable(f"{one.word} ({one.edit}): {points(one.minus_control)} ({ends}){q}; {one.reading}; {how}")


def _x(value: float) -> float:
    return round(LEFT + (RIGHT - LEFT) * (min(1.0, max(-1.0, value)) + 1) / 2, 1)


def _tick(value: float, bottom: float) -> Markup:
    return Markup(
        '<line class="grid{zero}" x1="{x}" x2="{x}" y1="4" y2="{bottom}"/>'
        '<text class="axis" x="{x}" y="{y}" text-anchor="middle">{label}</text>'
    ).format(x=_x(value), bottom=bottom + 4, y=bottom + 18, label=points(value).split(".")[0] if value else "0",
             zero="" if value else " zero")  # fmt: skip


def scatter(found: SideBySide) -> Markup:
    """One point for each word: refusal with it in the data, from left to right, and its effect in the model upwards.

    Words that the data do not have stand in the middle, as rings: nothing goes with them there.
    """
    most = max([1e-9, *(abs(end) for p in found.points for end in (p.low, p.high, p.effect))])
    reach = 1.0 if found.metric != "score" else most
    marks = Markup("").join(_point(p, reach, left, y) for p, left, y in _labelled(found.points, reach))
    ys = Markup("").join(_level(value, reach, found.metric == "score") for value in (-1, -0.5, 0, 0.5, 1))
    xs = Markup("").join(_column(value) for value in (-1, -0.5, 0, 0.5, 1))
    return Markup(
        '<svg class="figure" viewBox="0 0 {s} {h}" role="img" aria-label="Words in the data and in the model">'
        '{xs}{ys}{marks}<text class="axis" x="{mid}" y="{foot}" text-anchor="middle">refusal rate with the word in the '
        "data, minus that of all rows, in points</text></svg>"
    ).format(s=SIDE, h=SIDE + 16, xs=xs, ys=ys, marks=marks, mid=SIDE / 2, foot=SIDE + 10)


def _labelled(found: Sequence[WordPoint], reach: float) -> list[tuple[WordPoint, bool, float]]:
    """Each point, whether its name stands to its left, and how high; names do not cover one another.

    Words without data share one column, so their names go to the left and right by turns, from top to bottom.
    """
    placed = _beside_points([p for p in found if p.data_difference is not None], reach)
    last = {True: 0.0, False: 0.0}
    rest = sorted((p for p in found if p.data_difference is None), key=lambda p: -p.effect)
    for number, p in enumerate(rest):
        left = number % 2 == 0
        last[left] = max(_up(p.effect / reach), last[left] + LINE)
        placed.append((p, left, last[left]))
    return placed


def _beside_points(held: Sequence[WordPoint], reach: float) -> list[tuple[WordPoint, bool, float]]:
    """Names beside their points, from the top: to the right, else to the left, else as little lower as will do."""
    places = {p.word: (_across(p.data_difference or 0.0), _up(p.effect / reach)) for p in held}
    taken: list[tuple[float, float, float]] = []
    placed = []
    for p in sorted(held, key=lambda p: -p.effect):
        x, y = places[p.word]
        left, label = next(
            (left, y + lower)
            for lower in range(0, SIDE, 3)
            for left in ((True,) if x > SIDE * 0.8 else (False, True))
            if _free(_box(p.word, x, y + lower, left), taken)
        )
        taken.append(_box(p.word, x, label, left))
        placed.append((p, left, label))
    return placed


def _box(word: str, x: float, y: float, left: bool) -> tuple[float, float, float]:
    """About where a name stands: its left and right ends, and its height."""
    wide = GAP + LETTER * len(word)
    return (x - wide, x - GAP, y) if left else (x + GAP, x + wide, y)


def _free(box: tuple[float, float, float], taken: Sequence[tuple[float, float, float]]) -> bool:
    return not any(box[0] < b and a < box[1] and abs(box[2] - y) < LINE for a, b, y in taken)


def _point(p: WordPoint, reach: float, left: bool, label_y: float) -> Markup:
    held = p.data_difference is not None
    x, y = _across(p.data_difference or 0.0), _up(p.effect / reach)
    return Markup(
        '<g class="{kind}"><title>{tip}</title><path class="reach" d="M{x} {low}V{high}"/>'
        '<circle class="{dot}" cx="{x}" cy="{y}" r="5"/>'
        '<text class="{label}" x="{tx}" y="{ty}" text-anchor="{anchor}">{word}</text></g>'
    ).format(
        kind="held" if held else "unheld", tip=_point_tip(p), x=x, y=y,
        low=_up(p.low / reach), high=_up(p.high / reach),
        dot="dot" if held else "dot open", label="word strong" if held else "word small",
        tx=x - 9 if left else x + 9, ty=label_y + 4, anchor="end" if left else "start", word=printable(p.word),
    )  # fmt: skip


def _point_tip(p: WordPoint) -> str:
    there = "not in the data" if p.data_rate is None else f"{p.data_n} rows, {100 * p.data_rate:.1f}% refused"
    return printable(f"{p.word}: in the data {there}; in the model {p.effect:+.2f} ({p.low:+.2f} to {p.high:+.2f})")


def _across(value: float) -> float:
    return round(EDGE + (SIDE - 2 * EDGE) * (min(1.0, max(-1.0, value)) + 1) / 2, 1)


def _up(value: float) -> float:
    return round(SIDE - EDGE - (SIDE - 2 * EDGE) * (min(1.0, max(-1.0, value)) + 1) / 2, 1)


def _level(value: float, reach: float, nats: bool) -> Markup:
    label = f"{value * reach:+.1f}" if nats else points(value).split(".")[0]
    return Markup(
        '<line class="grid{zero}" x1="{a}" x2="{b}" y1="{y}" y2="{y}"/><text class="axis" x="{tx}" y="{ty}" '
        'text-anchor="end">{label}</text>'
    ).format(a=EDGE, b=SIDE - EDGE, y=_up(value), tx=EDGE - 6, ty=_up(value) + 4, label=label if value else "0",
             zero="" if value else " zero")  # fmt: skip


def _column(value: float) -> Markup:
    return Markup(
        '<line class="grid{zero}" x1="{x}" x2="{x}" y1="{a}" y2="{b}"/><text class="axis" x="{x}" y="{ty}" '
        'text-anchor="middle">{label}</text>'
    ).format(x=_across(value), a=EDGE, b=SIDE - EDGE, ty=SIDE - EDGE + 16, zero="" if value else " zero",
             label=points(value).split(".")[0] if value else "0")  # fmt: skip


def heat(picture: Picture, share: ImageShare, against: float) -> Markup:
    """The picture under its patches: the stronger the tint, the more the refusal hangs on the patch.

    `against` is the largest share of any word of the question, so that a picture that does nothing stays clear.
    """
    values = share.patches or [1.0 - (still if still is not None else 1.0) for still in share.patches_refused]
    high = round(100 * picture.height / picture.width, 2)
    rects = Markup("").join(_patch(i, value, share.grid, high, against) for i, value in enumerate(values))
    return Markup(
        '<svg class="heat" viewBox="0 0 100 {high}" role="img" aria-label="What the picture contributes">'
        '<image href="{uri}" width="100" height="{high}" preserveAspectRatio="none"/>{rects}</svg>'
    ).format(uri=picture.uri, rects=rects, high=high)


def _patch(number: int, value: float, grid: int, high: float, against: float) -> Markup:
    width, height = 100 / grid, high / grid
    return Markup(
        '<rect class="{sign}" x="{x}" y="{y}" width="{w}" height="{h}" fill-opacity="{o}"><title>{tip}</title></rect>'
    ).format(
        sign="refuse" if value > 0 else "comply",
        x=round(number % grid * width, 2), y=round(number // grid * height, 2),
        w=round(width, 2), h=round(height, 2), o=strength(value, against), tip=f"{value:+.2f}",
    )  # fmt: skip


def strength(value: float, against: float) -> float:
    """Opacity of a tint in [0, 0.75]."""
    return round(0.75 * min(1.0, abs(value) / against), 3) if against > 0 else 0.0


def largest(found: Attribution) -> float:
    """The largest share that any word of a question has; at least a hundredth."""
    return max([0.01, *(abs(share) for word in found.words if (share := word_share(word)) is not None)])


def word_share(word: WordShare) -> float | None:
    """What a word contributes: mean fall of the score; where there is none, the share of its edits that end refusal."""
    falls = [value for value in (word.removed, word.replaced) if value is not None]
    if falls:
        return sum(falls) / len(falls)
    kept = [value for value in (word.removed_refused, word.replaced_refused) if value is not None]
    return 1 - sum(kept) / len(kept) if kept else None
