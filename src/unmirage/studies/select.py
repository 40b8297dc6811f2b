"""Which records a block speaks of."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache

from unmirage.errors import UserError
from unmirage.schema import Record
from unmirage.studies.specs import Filter, HeatSpec, LinesSpec, Measured, Scalar, Spec, TableSpec

FIELDS = ("model", "method", "seed", "data", "metric", "judge", "split", "attack", "control", "stress", "k")
"""Fields of a record that tell it from others; the others are figures."""
_MOST = 12
NOTHING = "none"
"""How a field that is empty is called where its values are shown."""


def field(record: Record, name: str) -> Scalar:
    """The value of a field, or of an axis ("rho", or "axes.rho"); None where the record has none."""
    if name in FIELDS:
        value: Scalar = getattr(record, name)
        return value
    return record.axes.get(name.removeprefix("axes."))


def shown(value: Scalar) -> str:
    """A field's value as text: 0.5, share, none."""
    if value is None:
        return NOTHING
    return f"{value:g}" if isinstance(value, float) else str(value)


def label(value: Scalar, labels: dict[str, str]) -> str:
    """What a value is called: by its own name among `labels`, by the first pattern there that it fits, or as it is."""
    text = shown(value)
    if text in labels:
        return labels[text]
    return next((name for pattern, name in labels.items() if "*" in pattern and _pattern(pattern).match(text)), text)


def check_fields(names: Iterable[str], records: Sequence[Record]) -> None:
    """Raise UserError for a name that is neither a field nor an axis of any record."""
    axes = sorted({axis for record in records for axis in record.axes})
    for name in names:
        if name not in FIELDS and name.removeprefix("axes.") not in axes:
            known = f"fields are {', '.join(FIELDS)}; axes here are {', '.join(axes) or 'none'}"
            raise UserError(f"{name!r} is neither a setting nor a field of the records; {known}")


def matches(record: Record, where: Filter) -> bool:
    """The record has, of every field named, the value or one of the values; `*` in a text stands for anything."""
    return all(_fits(field(record, name), wanted) for name, wanted in where.items())


def _fits(value: Scalar, wanted: Scalar | list[Scalar]) -> bool:
    if isinstance(wanted, list):
        return any(_fits(value, one) for one in wanted)
    if isinstance(wanted, str) and isinstance(value, str):
        return _pattern(wanted).match(value) is not None if "*" in wanted else value == wanted
    return value == wanted


@lru_cache(maxsize=1024)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, text.split("*"))) + r"\Z", re.DOTALL)


def select(records: Sequence[Record], spec: Spec, measured: Measured) -> list[Record]:
    """The records of one column, under its conditions and the block's; UserError where there are none."""
    found = _matching(records, spec, measured)
    if not found:
        where = _conditions(spec, measured)
        raise UserError(f"{measured.name!r}: no record matches {_told(where)}{_culprit(records, where)}")
    return found


def before(measured: Measured) -> Measured:
    """The same figure without the attack: of the questions as they were, each asked once."""
    metric = measured.before if isinstance(measured.before, str) else measured.metric
    where = {name: value for name, value in measured.where.items() if name not in ("k", "control")}
    return measured.model_copy(update={"metric": metric, "where": {**where, "attack": None}, "before": False})


def _matching(records: Sequence[Record], spec: Spec, measured: Measured) -> list[Record]:
    where = _conditions(spec, measured)
    return [record for record in records if matches(record, where) and not _left_out(record, spec.without)]


def _conditions(spec: Spec, measured: Measured) -> Filter:
    return {**spec.where, **measured.where, "metric": measured.metric}


def _left_out(record: Record, without: Filter) -> bool:
    return any(_fits(field(record, name), value) for name, value in without.items())


def _told(where: Filter) -> str:
    return ", ".join(f"{name}: {'null' if value is None else value}" for name, value in where.items())


def _culprit(records: Sequence[Record], where: Filter) -> str:
    """The first field none of whose values is the one wanted, with the values that there are."""
    for name, wanted in where.items():
        values = sorted({shown(field(record, name)) for record in records})
        if not any(_fits(field(record, name), wanted) for record in records):
            more = f" and {len(values) - _MOST} more" if len(values) > _MOST else ""
            return f"; of {name} there are {', '.join(values[:_MOST])}{more}"
    return ""


def measured_of(spec: Spec) -> list[Measured]:
    """The figures that a block shows."""
    if isinstance(spec, TableSpec):
        return spec.columns
    return spec.y if isinstance(spec, LinesSpec) else spec.measured


def fields_of(spec: Spec) -> Iterator[str]:
    """Every field that a block names."""
    yield from spec.where
    yield from spec.without
    for measured in measured_of(spec):
        yield from measured.where
    if isinstance(spec, TableSpec):
        yield from spec.rows
    if isinstance(spec, HeatSpec):
        yield spec.rows
    if isinstance(spec, LinesSpec):
        yield from (spec.x, spec.lines)
    across = spec.panels if isinstance(spec, LinesSpec) else spec.across
    yield from [across] if across else []


def needed(records: Sequence[Record], specs: Collection[Spec]) -> list[Record]:
    """The records that any of the blocks reads, in their order; a block may read other files as well."""
    wanted: set[int] = set()
    for spec in specs:
        for measured in measured_of(spec):
            for one in (measured, before(measured)) if measured.before else (measured,):
                wanted |= {id(record) for record in _matching(records, spec, one)}
    return [record for record in records if id(record) in wanted]
