"""Each figure of every run on the shared rows, and its paired difference to the baseline."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from unmirage.evaluate.comparing.aligning import Contender, Shared
from unmirage.evaluate.effects import compared, controls_of
from unmirage.evaluate.measure import Subject, measure
from unmirage.evaluate.rows import ANY_OF, HARMFUL, HARMLESS, Group, Sheet, groups_of
from unmirage.schema import Record
from unmirage.stats import Change, NonInferiority, holm, non_inferiority

EFFECTS = ("asr", "rr")
Values = Callable[[Sheet], Mapping[str, float]]
Key = tuple[str | None, str | None, str | None, str]


@dataclass(frozen=True)
class Cell:
    """One run's figure and what sets it apart from the baseline; the baseline's own has no differences.

    `p_holm` is corrected over the runs compared on this line.
    """

    run: str
    record: Record
    change: Change | None = None
    p_holm: float | None = None
    utility: NonInferiority | None = None


@dataclass(frozen=True)
class Line:
    """One metric on one part of the data, before or under one attack (or as that attack's effect over `control`)."""

    split: str | None
    attack: str | None
    control: str | None
    metric: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class _Figure:
    """How one line's values come about: for each run's sheet the value of each question, all in [low, high]."""

    group: Group
    metric: str
    values: Values
    control: str | None = None
    low: float = 0.0

    @property
    def key(self) -> Key:
        return (self.group.split, self.group.attack, self.control, self.metric)


def lines(runs: Sequence[Contender], judge: str, shared: Shared, margin: float) -> list[Line]:
    """All lines; the first run is the baseline. A figure that some run lacks is left out of that line."""
    verdicts = [list(run.verdicts[judge].values()) for run in runs]
    sheets = [Sheet(several, shared.queries) for several in verdicts]
    found = [
        {_key(record): record for record in measure(shared.queries, shared.variants, several, _subject(run))}
        for run, several in zip(runs, verdicts, strict=True)
    ]
    made = (_line(figure, runs, sheets, found, margin) for figure in _figures(shared))
    return [line for line in made if line.cells]


def _subject(run: Contender) -> Subject:
    return Subject(run.label, "", 0, "")


def _key(record: Record) -> Key:
    return (record.split, record.attack, record.control, record.metric)


def _figures(shared: Shared) -> Iterator[_Figure]:
    controls = controls_of(shared.variants)
    for split in dict.fromkeys(query.split for query in shared.queries):
        for harmful, metrics in ((True, HARMFUL), (False, HARMLESS)):
            part = [query for query in shared.queries if (query.split, query.harmful) == (split, harmful)]
            if not part:
                continue
            groups = list(groups_of(part, shared.variants, split))
            for group in groups:
                yield from _rates(group, list(metrics))
            yield from _effects({group.attack: group for group in groups}, controls, list(metrics))


def _rates(group: Group, metrics: Sequence[str]) -> Iterator[_Figure]:
    for metric in metrics:
        yield _Figure(group, metric, _mean_of(group, metric))
        if group.k > 1 and metric in ANY_OF:
            yield _Figure(group, f"{metric}_any", _any_of(group, metric))


def _effects(
    groups: Mapping[str | None, Group], controls: Mapping[str, str], metrics: Sequence[str]
) -> Iterator[_Figure]:
    for control, attack in controls.items():
        if control not in groups or attack not in groups:
            continue
        for metric in EFFECTS:
            if metric in metrics:
                values = _effect_of(groups[attack], groups[control], metric)
                yield _Figure(groups[attack], f"{metric}_effect", values, control, low=-1.0)


def _mean_of(group: Group, metric: str) -> Values:
    return lambda sheet: sheet.per_question(sheet.counted(group, metric), metric)


def _any_of(group: Group, metric: str) -> Values:
    return lambda sheet: {q: float(v) for q, v in sheet.any_of(group, metric).items() if v is not None}


def _effect_of(attack: Group, control: Group, metric: str) -> Values:
    def _values(sheet: Sheet) -> dict[str, float]:
        with_word, without = sheet.per_question(attack, metric), sheet.per_question(control, metric)
        return {query: value - without[query] for query, value in with_word.items() if query in without}

    return _values


def _line(
    figure: _Figure,
    runs: Sequence[Contender],
    sheets: Sequence[Sheet],
    found: Sequence[Mapping[Key, Record]],
    margin: float,
) -> Line:
    baseline = figure.values(sheets[0])
    cells = []
    for run, sheet, records in zip(runs, sheets, found, strict=True):
        record = records.get(figure.key)
        if record is None:
            continue
        cell = Cell(run.label, record)
        if run is not runs[0]:
            values = figure.values(sheet)
            change = _difference(baseline, values, figure)
            cell = replace(cell, change=change, utility=_utility(baseline, values, figure, margin))
        cells.append(cell)
    return Line(figure.group.split, figure.group.attack, figure.control, figure.metric, _with_holm(cells))


def _difference(was: Mapping[str, float], now: Mapping[str, float], figure: _Figure) -> Change | None:
    """The paired change; effects lie in [-1, 1] and are squeezed into [0, 1] and stretched again."""
    if figure.low == 0:
        return compared(was, now, figure.group)
    change = compared(_squeezed(was), _squeezed(now), figure.group)
    if change is None:
        return None
    return replace(change, value=2 * change.value, low=2 * change.low, high=2 * change.high)


def _squeezed(values: Mapping[str, float]) -> dict[str, float]:
    return {query: (value + 1) / 2 for query, value in values.items()}


def _utility(
    was: Mapping[str, float], now: Mapping[str, float], figure: _Figure, margin: float
) -> NonInferiority | None:
    shared = [query for query in figure.group.by_query if query in was and query in now]
    if figure.metric != "utility" or not shared:
        return None
    units = [figure.group.units[query] for query in shared]
    return non_inferiority([was[query] for query in shared], [now[query] for query in shared], margin, units)


def _with_holm(cells: Sequence[Cell]) -> tuple[Cell, ...]:
    adjusted = iter(holm([cell.change.p for cell in cells if cell.change]))
    return tuple(replace(cell, p_holm=next(adjusted)) if cell.change else cell for cell in cells)
