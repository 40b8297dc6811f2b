"""How figures and their captions are written in documents."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from unmirage.report.wording import DASH, MINUS, judge_name, listing, printable
from unmirage.studies.seeds import Estimate, unit_of
from unmirage.studies.specs import Measured, Unit

_UNITS: dict[Unit, str] = {"percent": "percent", "points": "percentage points", "number": "numbers"}
_OF_ROWS: dict[Unit, str] = {
    "percent": "Wilson's of one seed's rows (fewer where rows depend on one another)",
    "points": "the mean width of the seeds' own intervals",
    "number": "the mean width of the seeds' own intervals",
}


def number(value: float, unit: Unit, digits: int) -> str:
    """A figure without its unit: rates in percent, differences in points with their sign."""
    scaled = round(value if unit == "number" else 100 * value, digits) + 0.0  # no -0
    text = f"{scaled:+.{digits}f}" if unit == "points" and scaled else f"{scaled:.{digits}f}"
    return text.replace("-", MINUS)


def ends(low: float | None, high: float | None, unit: Unit, digits: int) -> str:
    """An interval in brackets; empty where there is none."""
    if low is None or high is None:
        return ""
    between = DASH if unit == "percent" else " to "
    return f"[{number(low, unit, digits)}{between}{number(high, unit, digits)}]"


def cell(measured: Measured, before: Estimate | None, after: Estimate) -> str:
    """A cell of a table: "0.3 → 95.0 [91.2–97.3], worst 97.0"."""
    unit, digits = unit_of(measured), measured.digits
    text = number(after.value, unit, digits)
    if measured.before:
        text = f"{number(before.value, unit, digits) if before else DASH} → {text}"
    if measured.interval:
        text = f"{text} {ends(after.low, after.high, unit, digits)}".rstrip()
    if measured.worst and len(after.each) > 1:
        text += f", worst {number(after.worst(measured.good_is), unit, digits)}"
    return text


def escaped(text: str) -> str:
    """Text of a result file in Markdown: neither a cell's end, nor HTML, nor emphasis."""
    plain = html.escape(printable(text), quote=False).replace("\n", " ")
    return "".join(f"\\{character}" if character in r"\|*_`[]" else character for character in plain)


def sentence(text: str) -> str:
    """The text with a full stop; empty stays empty."""
    text = " ".join(text.split())
    return f"{text}." if text and text[-1] not in ".!?" else text


def units(columns: Iterable[Measured]) -> str:
    """In what the figures are counted: "Percent." """
    names = dict.fromkeys(_UNITS[unit_of(measured)] for measured in columns)
    return sentence(listing(list(names)).capitalize())


def seeds(by_place: Mapping[str, Sequence[Estimate]]) -> str:
    """Of which seeds the figures are means, and where they are of others."""
    counts = Counter(one.seeds for several in by_place.values() for one in several)
    usual = max(counts, key=lambda found: (counts[found], len(found)))
    told = [_seeds_told(usual)]
    for place, several in by_place.items():
        found = dict.fromkeys(one.seeds for one in several)
        part = " in part" if len(found) > 1 else ""
        told += [f"{place}{part} {_short(others)}" for others in found if others != usual]
    return sentence("; ".join(told))


def _seeds_told(found: tuple[int, ...]) -> str:
    return f"Means of {_short(found)}" if len(found) > 1 else f"One run each, {_short(found)}"


def _short(found: tuple[int, ...]) -> str:
    if len(found) > 2 and found == tuple(range(found[0], found[-1] + 1)):
        return f"seeds {found[0]} to {found[-1]}"
    return f"seed{'s' if len(found) > 1 else ''} {', '.join(map(str, found))}"


def intervals(columns: Sequence[Measured], found: Sequence[Estimate], shown_as: str) -> str:
    """What the intervals are; empty where none is shown."""
    if all(one.low is None or one.high is None for one in found):
        return ""
    if all(len(one.each) == 1 for one in found):
        return f"{shown_as}: the run's own 95 % interval."
    of_rows = listing(list(dict.fromkeys(_OF_ROWS[unit_of(measured)] for measured in columns)))
    one = "; of one seed, the run's own" if any(len(one.each) == 1 for one in found) else ""
    return f"{shown_as}: 95 % interval, the wider of Student's t over the seeds and {of_rows}{one}."


def basis(found: Sequence[Estimate]) -> str:
    """The judges, the rows behind a figure, and those of them without a verdict."""
    judges = sorted({judge_name(judge) for one in found for judge in one.judges})
    rows = sorted({round(one.n / len(one.each)) for one in found})
    span = f"{rows[0]}" if len(rows) == 1 else f"{rows[0]} to {rows[-1]}"
    told = [f"Judged by {listing([f'`{judge}`' for judge in judges])}; {span} rows behind a figure of one seed."]
    if missing := sum(one.missing for one in found):
        told.append(
            f"{missing} of {sum(one.n for one in found)} rows have no usable verdict; the intervals allow for them."
        )
    return " ".join(told)
