"""One figure over several seeds: its mean, an interval for it, and what stands behind both."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from unmirage.errors import UserError
from unmirage.report.wording import COUNTS, DIFFERENCES
from unmirage.schema import Record
from unmirage.stats import Interval, effective_number, mean_over_seeds
from unmirage.stats.rates import wilson_of
from unmirage.studies.select import FIELDS, field, shown
from unmirage.studies.specs import Good, Measured, Unit

CONFIDENCE = 0.95
P_VALUES = ("_p", "_p_holm")


@dataclass(frozen=True)
class Estimate:
    """The mean of a figure over its seeds, with a 95 % interval; `each` has every seed's own value.

    `n` counts planned rows of all seeds together, `missing` those without a usable verdict.
    """

    value: float
    low: float | None
    high: float | None
    each: dict[int, float]
    n: int
    missing: int
    judges: frozenset[str]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds, in order."""
        return tuple(self.each)

    def worst(self, good: Good | None) -> float:
        """The seed's value that is farthest from what is wanted."""
        return min(self.each.values()) if good == "high" else max(self.each.values())


def unit_of(measured: Measured) -> Unit:
    """What a figure is counted in: as the block says, or as the metric's name tells."""
    if measured.unit:
        return measured.unit
    if measured.metric.endswith((*P_VALUES, *COUNTS)):
        return "number"
    return "points" if measured.metric.endswith(DIFFERENCES) else "percent"


def estimate(records: Sequence[Record], measured: Measured) -> Estimate:
    """The figure of some records, one for each seed.

    Interval of one seed: the record's own. Of several: the wider of Student's t over the seeds and of what the rows of
    one seed leave open (`_of_rows`), both within the range of the figure.
    Raises UserError where two records of one seed are there, one has no value, or it is not of the unit.
    """
    _check_one_per_seed(records)
    records = sorted(records, key=lambda record: record.seed)
    unit = unit_of(measured)
    each = {record.seed: _value(record, unit) for record in records}
    values = list(each.values())
    if len(records) == 1:
        low, high = records[0].low, records[0].high
    else:
        low, high = _interval(records, values, unit, measured)
    return Estimate(
        fmean(values), low, high, each,
        n=sum(record.n for record in records),
        missing=sum(record.errors + record.unparsed for record in records),
        judges=frozenset(record.judge for record in records),
    )  # fmt: skip


def _check_one_per_seed(records: Sequence[Record]) -> None:
    counts = Counter(record.seed for record in records)
    seed, most = counts.most_common(1)[0]
    if most == 1:
        return
    one, other = [record for record in records if record.seed == seed][:2]
    differing = {name: (field(one, name), field(other, name)) for name in _names(one, other)}
    told = [f"{name} ({shown(a)}, {shown(b)})" for name, (a, b) in differing.items() if a != b]
    what = f"differ in {', '.join(told)}; add conditions" if told else "differ in nothing but their figures; give one"
    raise UserError(f"{most} records of seed {seed} match one cell; two of them {what}")


def _names(one: Record, other: Record) -> list[str]:
    return [*FIELDS, *(f"axes.{name}" for name in dict.fromkeys([*one.axes, *other.axes]))]


def _value(record: Record, unit: Unit) -> float:
    value = record.value
    who = f"{record.metric!r} of {record.model!r}, seed {record.seed},"
    if value is None or not math.isfinite(value):
        raise UserError(f"{who} has no value: none of its {record.n} rows has a usable verdict; leave it out")
    least, most = _range(unit)
    if not least <= value <= most:
        raise UserError(f"{who} is {value:g}, which is not a {'rate' if unit == 'percent' else 'difference'}; "
                        "say unit: number")  # fmt: skip
    return value


def _range(unit: Unit) -> tuple[float, float]:
    return {"percent": (0.0, 1.0), "points": (-1.0, 1.0), "number": (-math.inf, math.inf)}[unit]


def _interval(
    records: Sequence[Record], values: Sequence[float], unit: Unit, measured: Measured
) -> tuple[float | None, float | None]:
    if measured.metric.endswith(P_VALUES):
        raise UserError(f"p values of several seeds have no mean; show {measured.metric!r} of one seed")
    if measured.metric.endswith(COUNTS):
        return None, None
    least, most = _range(unit)
    t = mean_over_seeds(values, CONFIDENCE)
    over_seeds = (max(least, t.low), min(most, t.high))
    of_rows = _of_rows(records, fmean(values), unit)
    return max(over_seeds, of_rows, key=lambda ends: ends[1] - ends[0])


def _of_rows(records: Sequence[Record], mean: float, unit: Unit) -> tuple[float, float]:
    """What the draw of the rows leaves open of the mean, the seeds being as they are.

    Seeds of a study are asked the same questions, so more of them make no more questions: the rows of one seed count.
    Of a rate: Wilson's interval for as many rows as would give a record the interval that it has (`effective_number`;
    the mean over the records): n, or fewer where rows belong together or have no verdict. Of a difference: mean -+ the
    mean half width of the records' own intervals.
    """
    own = [(record, record.low, record.high) for record in records]
    if unit == "percent":
        number = fmean(_rows(record, low, high) for record, low, high in own)
        found = wilson_of(mean, number, CONFIDENCE) if number > 0 else None
        return (found.low, found.high) if found else (0.0, 1.0)
    halves = [(high - low) / 2 for _, low, high in own if low is not None and high is not None]
    half = fmean(halves) if halves else 0.0
    least, most = _range(unit)
    return max(least, mean - half), min(most, mean + half)


def _rows(record: Record, low: float | None, high: float | None) -> float:
    usable = record.n - record.errors - record.unparsed
    if low is None or high is None or record.value is None:
        return usable
    return min(usable, effective_number(Interval(record.value, low, high, record.n), CONFIDENCE))
