"""Blocks of records as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from unmirage.errors import UserError
from unmirage.report.wording import DASH
from unmirage.schema import Record
from unmirage.studies import wording
from unmirage.studies.grid import Axis, Cells, Key, check, demand, estimates, estimates_before, ordered
from unmirage.studies.seeds import Estimate, unit_of
from unmirage.studies.specs import Measured, TableSpec


@dataclass(frozen=True)
class _Column:
    """One column: its heading, what it measures, and its cells by row."""

    title: str
    measured: Measured
    before: Cells
    after: Cells


def table(records: Sequence[Record], spec: TableSpec) -> str:
    """The table with a caption that says what its figures are; raises UserError (see `unmirage.studies.fill`)."""
    check(records, spec)
    columns = _columns(records, spec)
    rows = _rows(spec, columns)
    places = ((f"{', '.join(map(str, row))}, {column.title!r}", row in column.after and _whole(column, row))
              for _, row in _named(rows) for column in columns)  # fmt: skip
    demand(spec, places)
    heads = [
        *(wording.escaped(spec.labels.get(name, name)) for name in spec.rows),
        *(wording.escaped(column.title) for column in columns),
    ]
    best = [_best(column) for column in columns]
    lines = [_line(heads), _line(["---"] * len(heads))]
    for group, row in rows:
        if row is None:
            lines.append(_line([f"**{wording.escaped(group)}**", *[""] * (len(heads) - 1)]))
        else:
            cells = (_cell(column, row, top) for column, top in zip(columns, best, strict=True))
            lines.append(_line([*(wording.escaped(str(part)) for part in row), *cells]))
    return "\n".join(lines) + "\n\n" + _caption(spec, columns, [row for _, row in _named(rows)])


def _columns(records: Sequence[Record], spec: TableSpec) -> list[_Column]:
    axes = [Axis(name, spec.labels) for name in spec.rows]

    def row_of(record: Record) -> Key:
        return tuple(axis.of(record) for axis in axes)

    if spec.across is None:
        return [
            _Column(one.name, one, estimates_before(records, spec, one, row_of), estimates(records, spec, one, row_of))
            for one in spec.columns
        ]
    return _across(records, spec, Axis(spec.across, spec.labels), axes)


def _across(records: Sequence[Record], spec: TableSpec, across: Axis, axes: Sequence[Axis]) -> list[_Column]:
    """The columns once for each value of a field; the value leads the key of a cell."""

    def place_of(record: Record) -> Key:
        return (across.of(record), *(axis.of(record) for axis in axes))

    found = [
        (one, estimates_before(records, spec, one, place_of), estimates(records, spec, one, place_of))
        for one in spec.columns
    ]
    values = ordered((str(key[0]) for _, _, after in found for key in after), spec.across_order, across.name)
    return [
        _Column(
            value if len(spec.columns) == 1 else f"{value}: {one.name}", one, _part(before, value), _part(after, value)
        )
        for value in values
        for one, before, after in found
    ]


def _part(cells: Cells, value: str) -> Cells:
    return {key[1:]: one for key, one in cells.items() if key[0] == value}


def _rows(spec: TableSpec, columns: Sequence[_Column]) -> list[tuple[str, Key | None]]:
    """Every row with its group; a group begins with a row of its own."""
    rows = list(dict.fromkeys(key for column in columns for key in column.after))
    firsts = ordered((str(row[0]) for row in rows), [*spec.order, *_of_groups(spec)], spec.rows[0])
    rows.sort(key=lambda row: firsts.index(str(row[0])))
    if len(spec.rows) > 1:
        rest = ordered((str(row[1]) for row in rows), [], spec.rows[1])
        rows.sort(key=lambda row: (firsts.index(str(row[0])), rest.index(str(row[1]))))
    if spec.sort:
        rows = _sorted(rows, spec.sort, columns)
    if not spec.groups:
        return [("", row) for row in rows]
    if strays := [row[0] for row in rows if row[0] not in _of_groups(spec)]:
        raise UserError(f"{strays[0]!r} is in no group; put it into one, or leave it out by `without`")
    return [line for name, members in spec.groups.items() for line in _group(name, members, rows)]


def _of_groups(spec: TableSpec) -> list[str]:
    return [name for names in spec.groups.values() for name in names]


def _group(name: str, members: Sequence[str], rows: Sequence[Key]) -> list[tuple[str, Key | None]]:
    return [(name, None), *((name, row) for row in rows if row[0] in members)]


def _named(rows: Sequence[tuple[str, Key | None]]) -> Iterator[tuple[str, Key]]:
    return ((group, row) for group, row in rows if row is not None)


def _sorted(rows: Sequence[Key], by: str, columns: Sequence[_Column]) -> list[Key]:
    """Rows by the value of one column; those without one last."""
    title = by.removeprefix("-")
    cells = next((column.after for column in columns if column.title == title), None)
    if cells is None:
        raise UserError(f"sort names {title!r}; columns are {', '.join(column.title for column in columns)}")
    sign = -1 if by.startswith("-") else 1
    there = sorted((row for row in rows if row in cells), key=lambda row: sign * cells[row].value)
    return [*there, *(row for row in rows if row not in cells)]


def _whole(column: _Column, row: Key) -> bool:
    return not column.measured.before or row in column.before


def _best(column: _Column) -> float | None:
    """The best value of a column, as it is written; None where it is not asked for."""
    if not column.measured.best:
        return None
    values = [_written(column, one) for one in column.after.values()]
    return max(values) if column.measured.good_is == "high" else min(values)


def _written(column: _Column, one: Estimate) -> float:
    decimals = 0 if unit_of(column.measured) == "number" else 2
    return round(one.value, column.measured.digits + decimals)


def _cell(column: _Column, row: Key, best: float | None) -> str:
    after = column.after.get(row)
    if after is None:
        return DASH
    text = wording.cell(column.measured, column.before.get(row), after)
    return f"**{text}**" if best is not None and _written(column, after) == best else text


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _caption(spec: TableSpec, columns: Sequence[_Column], rows: Sequence[Key]) -> str:
    by_row = {
        ", ".join(map(wording.escaped, map(str, row))): [column.after[row] for column in columns if row in column.after]
        for row in rows
    }
    measured = [column.measured for column in columns]
    shown = [one for column in columns if column.measured.interval for one in column.after.values()]
    parts = [
        wording.sentence(spec.caption),
        wording.units(measured),
        wording.seeds(by_row),
        wording.intervals([one for one in measured if one.interval], shown, "In brackets") if shown else "",
        _arrows(measured),
        "Worst: the worst seed." if any(one.worst for one in measured) else "",
        "Bold: the best of the column." if any(one.best for one in measured) else "",
        wording.basis([one for several in by_row.values() for one in several]),
    ]
    return " ".join(part for part in parts if part)


def _arrows(measured: Sequence[Measured]) -> str:
    if not any(one.before for one in measured):
        return ""
    whose = "; brackets belong to the latter" if any(one.interval and one.before for one in measured) else ""
    return f"Arrows: before → after the attack{whose}."
