"""Blocks of records as a map of numbers: two fields against each other, the darker the higher."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from unmirage.errors import UserError
from unmirage.report.wording import DASH
from unmirage.schema import Record
from unmirage.studies import svg, wording
from unmirage.studies.grid import Axis, Cells, check, demand, estimates, ordered
from unmirage.studies.seeds import Estimate, unit_of
from unmirage.studies.specs import HeatSpec

ROW, MARGIN, WIDEST = 27, 12, 84
HEADING, SLANT = 150.0, 0.72
"""The longest heading in px, and how far one at 45 degrees reaches up and to the right, as a share of its length."""
_PALE, _DEEP = (247, 236, 222), (122, 34, 8)
_INK, _PAPER = "#1c2226", "#fbfaf7"


@dataclass(frozen=True)
class Heat:
    """What a heat map shows: estimates by (row, column)."""

    spec: HeatSpec
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: Cells

    @property
    def found(self) -> list[Estimate]:
        """All estimates."""
        return list(self.cells.values())


def read_heat(records: Sequence[Record], spec: HeatSpec) -> Heat:
    """The rows, columns and figures of a block; raises UserError (see `unmirage.studies.fill`)."""
    check(records, spec)
    units = {unit_of(one) for one in spec.measured}
    if len(units) > 1:
        raise UserError(f"the columns are counted in {' and '.join(sorted(units))}; a heat map has one unit")
    row = Axis(spec.rows, spec.labels)
    cells, columns = _across(records, spec, row) if spec.value else _listed(records, spec, row)
    rows = ordered((str(key[0]) for key in cells), spec.order, spec.rows)
    demand(spec, ((f"{one}, {other}", (one, other) in cells) for one in rows for other in columns))
    return Heat(spec, tuple(rows), tuple(columns), cells)


def _across(records: Sequence[Record], spec: HeatSpec, row: Axis) -> tuple[Cells, list[str]]:
    """A column for each value of a field."""
    assert spec.across is not None  # both or neither
    assert spec.value is not None
    column = Axis(spec.across, spec.labels)
    cells = estimates(records, spec, spec.value, lambda record: (row.of(record), column.of(record)))
    return cells, ordered((str(key[1]) for key in cells), spec.across_order, spec.across)


def _listed(records: Sequence[Record], spec: HeatSpec, row: Axis) -> tuple[Cells, list[str]]:
    """The columns as the block lists them, each with its own conditions."""
    cells: Cells = {}
    for one in spec.columns:
        found = estimates(records, spec, one, lambda record: (row.of(record),))
        cells |= {(place[0], one.name): value for place, value in found.items()}
    return cells, [one.name for one in spec.columns]


def draw_heat(heat: Heat) -> str:
    """The picture as an SVG file."""
    left = MARGIN + min(230.0, max(map(svg.width, heat.rows)) + 10)
    wide = min(WIDEST, (svg.WIDTH - left - MARGIN) / len(heat.columns))
    flat = all(svg.width(name) <= wide - 4 for name in heat.columns)
    if not flat:  # the last name leans out to the right
        out = SLANT * min(HEADING, svg.width(heat.columns[-1]))
        wide = min(WIDEST, (svg.WIDTH - left - MARGIN - out) / (len(heat.columns) - 0.5))
    head = 30 if flat else 20 + SLANT * min(HEADING, max(map(svg.width, heat.columns)))
    marks = [*_heads(heat, left, wide, head, flat), *_cells(heat, left, wide, head)]
    return svg.picture(wording.sentence(heat.spec.caption), head + ROW * len(heat.rows) + MARGIN, marks)


def _heads(heat: Heat, left: float, wide: float, head: float, flat: bool) -> Iterator[Markup]:
    for i, name in enumerate(heat.columns):
        x = left + wide * (i + 0.5)
        turn = "" if flat else f' transform="rotate(-45 {svg.px(x)} {svg.px(head - 8)})"'
        yield svg.write(svg.cut(name, HEADING), x, head - 8, "middle" if flat else "start", more=turn)


def _cells(heat: Heat, left: float, wide: float, head: float) -> Iterator[Markup]:
    low, high = _range(heat)
    for j, row in enumerate(heat.rows):
        top = head + ROW * j
        yield svg.write(svg.cut(row, left - MARGIN - 6), left - 8, top + 18, "end")
        for i, column in enumerate(heat.columns):
            one = heat.cells.get((row, column))
            share = (one.value - low) / (high - low) if one else None
            yield _cell(heat, f"{row}, {column}", one, share, (left + wide * i, top, wide))


def _range(heat: Heat) -> tuple[float, float]:
    """From pale to deep: all of a rate's range, else what is there."""
    if unit_of(heat.spec.measured[0]) == "percent":
        return 0.0, 1.0
    values = [one.value for one in heat.found]
    return min(values), max(values) if max(values) > min(values) else min(values) + 1


def _cell(heat: Heat, name: str, one: Estimate | None, share: float | None, at: tuple[float, float, float]) -> Markup:
    x, y, wide = at
    fill, ink = ("", "") if share is None else _colours(share)
    paint = Markup(' fill="{fill}"').format(fill=fill) if fill else Markup(' class="none"')
    text = _number(heat, one) if one else DASH
    return Markup(
        '<g><title>{name}: {text}</title><rect{paint} x="{x}" y="{y}" width="{w}" height="{h}"/>{label}</g>'
    ).format(
        name=name, text=text, paint=paint, x=svg.px(x), y=svg.px(y), w=svg.px(wide - 2), h=ROW - 2,
        label=svg.write(text, x + wide / 2 - 1, y + 17, "middle", more=f' style="fill:{ink}"' if ink else ""),
    )  # fmt: skip


def _number(heat: Heat, one: Estimate) -> str:
    """Short, but never a 0 or 100 that was not measured."""
    unit = unit_of(heat.spec.measured[0])
    whole = unit != "number" and (one.value in (0, 1) or 0.01 <= abs(one.value) <= 0.99)
    return wording.number(one.value, unit, 0 if whole else 1)


def _colours(share: float) -> tuple[str, str]:
    """The colour of a cell and that of its number."""
    mixed = [round(pale + (deep - pale) * share) for pale, deep in zip(_PALE, _DEEP, strict=True)]
    return "#" + "".join(f"{part:02x}" for part in mixed), _INK if share < 0.52 else _PAPER
