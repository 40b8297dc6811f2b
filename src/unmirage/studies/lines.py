"""Blocks of records as lines over a setting of a study: means over seeds, their intervals as bands, a dot a seed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from markupsafe import Markup

from unmirage.errors import UserError
from unmirage.schema import Record
from unmirage.studies import svg, wording
from unmirage.studies.grid import Axis, Cells, Key, check, demand, estimates, is_number, ordered
from unmirage.studies.seeds import Estimate, unit_of
from unmirage.studies.specs import LinesSpec, Measured

PLOT_HEIGHT, HEAD, FOOT, LEFT, GAP = 190, 30, 44, 46, 8
LABEL_STEP = 14
MARKS = (
    "M-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0z", "M-3.2 -3.2h6.4v6.4h-6.4z", "M0 -4.2L4 3H-4z",
    "M0 -4.4L4.4 0L0 4.4L-4.4 0z", "M0 4.2L4 -3H-4z", "M-4 -1.3h2.7v-2.7h2.6v2.7h2.7v2.6h-2.7v2.7h-2.6v-2.7h-2.7z",
)  # fmt: skip


@dataclass(frozen=True)
class _Panel:
    """One panel: its title, what it measures, and its estimates by (line, x)."""

    title: str
    measured: Measured
    cells: Cells

    @cached_property
    def ends(self) -> tuple[float, float]:
        """The range of the y axis: all of a rate's, else what is there with zero."""
        unit = unit_of(self.measured)
        if unit == "percent":
            return 0.0, 1.0
        values = [0.0]
        for one in self.cells.values():
            values += [value for value in (one.value, one.low, one.high, *one.each.values()) if value is not None]
        return min(values), max(values) if max(values) > min(values) else min(values) + 1


@dataclass(frozen=True)
class _Frame:
    """Where one panel stands, and where its values lie in it."""

    left: float
    top: float
    right: float
    xs: tuple[float, ...]
    ends: tuple[float, float]

    def x(self, value: float) -> float:
        span = self.xs[-1] - self.xs[0]
        share = (value - self.xs[0]) / span if span else 0.5
        return self.left + share * (self.right - self.left)

    def y(self, value: float) -> float:
        low, high = self.ends
        return self.top + PLOT_HEIGHT * (1 - (min(high, max(low, value)) - low) / (high - low))


@dataclass(frozen=True)
class Lines:
    """What a picture of lines shows."""

    spec: LinesSpec
    panels: tuple[_Panel, ...]
    names: tuple[str, ...]
    xs: tuple[str, ...]

    @cached_property
    def places(self) -> tuple[float, ...]:
        """Where the values of x lie: at themselves, or one step apart where they are no numbers."""
        if self.spec.x_scale == "linear" and all(map(is_number, self.xs)):
            return tuple(map(float, self.xs))
        return tuple(float(i) for i in range(len(self.xs)))

    @property
    def found(self) -> list[Estimate]:
        """All estimates."""
        return [one for panel in self.panels for one in panel.cells.values()]

    def line(self, panel: _Panel, name: str) -> list[tuple[float, Estimate]]:
        """The points of one line, from left to right."""
        there = ((place, panel.cells.get((name, x))) for place, x in zip(self.places, self.xs, strict=True))
        return [(place, one) for place, one in there if one is not None]


def read_lines(records: Sequence[Record], spec: LinesSpec) -> Lines:
    """The panels, lines and points of a block; raises UserError (see `unmirage.studies.fill`)."""
    check(records, spec)
    panels = tuple(_panels(records, spec))
    keys = [key for panel in panels for key in panel.cells]
    names = ordered((str(line) for line, _ in keys), spec.order, spec.lines)
    xs = ordered((str(x) for _, x in keys), [], spec.x)
    if len(names) > len(svg.LIGHT):
        raise UserError(
            f"{len(names)} lines are more than can be told apart, {len(svg.LIGHT)}; show them in two pictures"
        )
    places = ((f"{name}, {spec.x} {x}, {panel.title!r}", (name, x) in panel.cells)
              for panel in panels for name in names for x in xs)  # fmt: skip
    demand(spec, places)
    return Lines(spec, panels, tuple(names), tuple(xs))


def _panels(records: Sequence[Record], spec: LinesSpec) -> Iterator[_Panel]:
    line, x = Axis(spec.lines, spec.labels), Axis(spec.x, spec.labels)
    if spec.panels is None:
        for measured in spec.y:
            yield _Panel(measured.name, measured, estimates(records, spec, measured, lambda r: (line.of(r), x.of(r))))
        return
    part = Axis(spec.panels, spec.labels)

    def key(record: Record) -> Key:
        return (part.of(record), line.of(record), x.of(record))

    found = [(measured, estimates(records, spec, measured, key)) for measured in spec.y]
    values = ordered((str(place[0]) for _, cells in found for place in cells), spec.panels_order, spec.panels)
    for measured, cells in found:
        for value in values:
            own: Cells = {place[1:]: one for place, one in cells.items() if place[0] == value}
            yield _Panel(f"{measured.name}, {value}", measured, own)


def draw_lines(lines: Lines) -> str:
    """The picture as an SVG file."""
    columns = 1 if len(lines.panels) == 1 else 2
    rows = math.ceil(len(lines.panels) / columns)
    height = HEAD + PLOT_HEIGHT + FOOT
    marks: list[Markup] = []
    for i, panel in enumerate(lines.panels):
        left = svg.WIDTH / columns * (i % columns)
        marks += _panel(lines, panel, left, height * (i // columns), svg.WIDTH / columns)
    return svg.picture(wording.sentence(lines.spec.caption), height * rows + 6, marks, len(lines.names))


def _panel(lines: Lines, panel: _Panel, left: float, top: float, width: float) -> Iterator[Markup]:
    longest = max(map(svg.width, lines.names))
    room = min(longest + 8, 0.42 * width)
    frame = _Frame(left + LEFT, top + HEAD, left + width - room - 20, lines.places, panel.ends)
    yield svg.write(svg.cut(panel.title, width - LEFT), left + LEFT, top + 18, look="head")
    yield from _y_axis(frame, panel.measured)
    yield from _x_axis(lines, frame)
    points = {name: lines.line(panel, name) for name in lines.names}
    for i, name in enumerate(lines.names):
        yield Markup('<g class="c{i}"><title>{name}</title>').format(i=i, name=name)
        if points[name]:
            yield from _line(lines.spec, frame, points[name], i)
        yield Markup("</g>")
    yield from _labels(lines.names, points, frame, room)


def _y_axis(frame: _Frame, measured: Measured) -> Iterator[Markup]:
    unit = unit_of(measured)
    steps = [0, 0.25, 0.5, 0.75, 1] if unit == "percent" else _steps(*frame.ends)
    digits = 0 if unit != "number" and all(round(100 * step, 6) % 1 == 0 for step in steps) else 2
    for step in steps:
        y = frame.y(step)
        yield svg.rule(frame.left, y, frame.right, y, "base" if step == 0 else "grid")
        text = wording.number(step, unit, digits) + ("%" if unit == "percent" and step == 1 else "")
        yield svg.write(text, frame.left - 7, y + 4, "end", "soft small")


def _steps(low: float, high: float) -> list[float]:
    """Round numbers from low to high, about four of them."""
    raw = (high - low) / 4
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= raw)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def _x_axis(lines: Lines, frame: _Frame) -> Iterator[Markup]:
    """A tick for every value; the name of one that would touch another's is left out, never the first and the last."""
    bottom = frame.top + PLOT_HEIGHT
    kept = _kept([frame.x(place) for place in lines.places], list(lines.xs))
    for i, (place, text) in enumerate(zip(lines.places, lines.xs, strict=True)):
        x = frame.x(place)
        yield svg.rule(x, bottom, x, bottom + 4, "base")
        if i in kept:
            yield svg.write(text, x, bottom + 17, "middle", "soft small")
    middle = (frame.left + frame.right) / 2
    yield svg.write(lines.spec.x_label or lines.spec.x, middle, bottom + 34, "middle", "soft")


def _kept(at: Sequence[float], texts: Sequence[str]) -> set[int]:
    halves = [svg.width(text) / 2 + 2 for text in texts]
    kept = [0]
    last = len(at) - 1
    for i in range(1, last):
        after = at[i] - at[kept[-1]] >= halves[i] + halves[kept[-1]]
        if after and at[last] - at[i] >= halves[i] + halves[last]:
            kept.append(i)
    return {*kept, last}


def _line(spec: LinesSpec, frame: _Frame, points: Sequence[tuple[float, Estimate]], i: int) -> Iterator[Markup]:
    at = [(frame.x(x), frame.y(one.value)) for x, one in points]
    if spec.bands:
        yield from _band(frame, points)
    if spec.dots:
        seeds = [(frame.x(x), frame.y(value)) for x, one in points if len(one.each) > 1 for value in one.each.values()]
        if seeds:
            yield Markup('<path class="dot" d="{d}"/>').format(
                d="".join(f"M{svg.px(x)} {svg.px(y)}h0" for x, y in seeds)
            )
    dash = Markup(' stroke-dasharray="{d}"').format(d=svg.DASHES[i]) if svg.DASHES[i] else Markup("")
    yield Markup('<path class="line"{dash} d="M{path}"/>').format(dash=dash, path=_path(at))
    for x, y in at:
        yield Markup('<path class="mark" transform="translate({x} {y})" d="{d}"/>').format(
            x=svg.px(x), y=svg.px(y), d=MARKS[i % len(MARKS)]
        )


def _band(frame: _Frame, points: Sequence[tuple[float, Estimate]]) -> Iterator[Markup]:
    """The intervals as a band; a single point's as a stroke."""
    known = [(frame.x(x), one.low, one.high) for x, one in points if one.low is not None and one.high is not None]
    if len(known) == 1:
        x, low, high = known[0]
        yield svg.rule(x, frame.y(low), x, frame.y(high), "lead")
    elif known:
        edge = [(x, frame.y(low)) for x, low, _ in known] + [(x, frame.y(high)) for x, _, high in reversed(known)]
        yield Markup('<path class="band" d="M{path}z"/>').format(path=_path(edge))


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "L".join(f"{svg.px(x)} {svg.px(y)}" for x, y in points)


def _labels(
    names: Sequence[str], points: dict[str, list[tuple[float, Estimate]]], frame: _Frame, room: float
) -> Iterator[Markup]:
    """Each line's name beside its end, moved where it would stand on another's."""
    there = [(i, name, points[name][-1]) for i, name in enumerate(names) if points[name]]
    ends = [(frame.x(x), frame.y(one.value)) for _, _, (x, one) in there]
    places = svg.spread_out([y for _, y in ends], LABEL_STEP, frame.top, frame.top + PLOT_HEIGHT)
    for (i, name, _), (x, y), place in zip(there, ends, places, strict=True):
        yield Markup('<g class="c{i}">{lead}{text}</g>').format(
            i=i,
            lead=svg.rule(x + 6, y, frame.right + 14, place, "lead"),
            text=svg.write(svg.cut(name, room), frame.right + 17, place + 4, look="name"),
        )
