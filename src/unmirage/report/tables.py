"""From records to the rows of the page's tables; nothing here is text for people yet."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import product

from unmirage.schema import BEFORE, Record

METRICS = ("asr", "rr", "utility")
EFFECTS = ("asr", "rr")
FILTERED = {"asr": "filtered", "rr": "filtered_harmless"}
GOOD_ENOUGH, TOO_MUCH = 0.15, 0.5
PREFERRED_JUDGE = "sandbox-truth"
PREFERRED_ATTACKS = {"asr": "first-word:what", "rr": "first-word:share"}


class Tone(StrEnum):
    """How a figure reads: a hint, never the result itself."""

    GOOD = "good"
    MIDDLING = "middling"
    BAD = "bad"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Rate:
    """A figure in its interval."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class JudgeErrors:
    """What a judge gets wrong as a test for a rate's outcome, and the rate that allows for it; None where unknown."""

    sensitivity: Rate | None
    specificity: Rate | None
    corrected: Rate | None


@dataclass(frozen=True)
class Cell:
    """One rate with its interval, its counts and how it reads; `filtered` is the share that a service held back.

    `of_any`: `n` counts questions, of whose several rows one at least has the outcome; `errors` and `unparsed` count
    rows all the same. `asked`: where the figure is as asked and of the attack's questions alone, how many there are.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    errors: int
    unparsed: int
    tone: Tone
    filtered: float | None = None
    judge: JudgeErrors | None = None
    of_any: bool = False
    asked: int | None = None

    @property
    def missing(self) -> int:
        """Planned rows without a usable verdict."""
        return self.errors + self.unparsed

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The rate if no or every row without a verdict had counted; None where none is missing or `of_any`."""
        if not self.missing or not self.n or self.value is None or self.of_any:
            return None
        counted = self.value * (self.n - self.missing)
        return counted / self.n, (counted + self.missing) / self.n


@dataclass(frozen=True)
class Change:
    """A difference over the same `n` queries with its paired interval and p, and how many went up and down.

    `p_holm` is corrected over the attacks of the model.
    """

    value: float | None
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None = None
    gained: int | None = None
    lost: int | None = None
    n: int = 0


@dataclass(frozen=True)
class Pair:
    """One metric of one model before and after the attack.

    `effect` is what is the attack's own: after minus the control; of several controls the one that leaves least.
    """

    metric: str
    before: Cell | None
    after: Cell | None
    change: Change | None
    effect: Change | None = None

    @property
    def difference(self) -> float | None:
        """The paired change where it was recorded, else the plain difference."""
        if self.change and self.change.value is not None:
            return self.change.value
        if self.before is None or self.after is None or self.before.value is None or self.after.value is None:
            return None
        return self.after.value - self.before.value


@dataclass(frozen=True)
class ModelRow:
    """One model's line of the headline table, and the off-topic rates that explain its ASR."""

    model: str
    method: str
    pairs: dict[str, Pair]
    irrelevant: Pair


@dataclass(frozen=True)
class EffectRow:
    """What one attack does to one model beyond its control: both rates, and their paired difference."""

    model: str
    metric: str
    attack: str
    control: str
    with_word: Cell | None
    with_control: Cell | None
    effect: Change
    k: int


@dataclass(frozen=True)
class HeadlineTable:
    """Before and after for every model, on one part of the data, by one judge.

    `data` is None where all figures are of the same data. `harm` tells whether the judge looks at harm; the ASR of one
    that does not counts whatever was not refused.
    """

    data: str | None
    split: str | None
    judge: str
    harm: bool
    attacks: dict[str, str | None]
    rows: list[ModelRow]
    effects: list[EffectRow]


def tone_of(metric: str, value: float | None) -> Tone:
    """Low is good for attack success and needless refusals, high is good for utility."""
    if value is None or not math.isfinite(value):
        return Tone.UNKNOWN
    fault = 1 - value if metric == "utility" else value
    if fault <= GOOD_ENOUGH:
        return Tone.GOOD
    return Tone.BAD if fault >= TOO_MUCH else Tone.MIDDLING


def judges_of(records: Iterable[Record], see_harm: Collection[str] = ()) -> list[str]:
    """Every judge, the one of the headline first: it gives ASR, is the sandbox's own truth, sees harm, or is first."""
    records = list(records)
    scoring = {record.judge for record in records if record.metric == "asr"}

    def rank(judge: str) -> tuple[bool, bool, bool, str]:
        return (judge not in scoring, not judge.startswith(PREFERRED_JUDGE), judge not in see_harm, judge)

    return sorted({record.judge for record in records}, key=rank)


def splits_of(records: Iterable[Record]) -> list[str | None]:
    """The parts of the data: seen, unseen, others by name, and last the whole."""
    order = {"seen": 0, "unseen": 1}
    found = {record.split for record in records}
    return sorted(found, key=lambda split: (split is None, order.get(split or "", 2), split or ""))


def attack_for(records: Iterable[Record], metric: str) -> str | None:
    """The edit whose effect on `metric` the headline shows, never a control; None where nothing was attacked."""
    records = list(records)
    controls = controls_of(records)
    attacks = {r.attack for r in records if r.metric == metric and r.attack and r.attack not in controls}
    preferred = PREFERRED_ATTACKS.get(metric)
    return preferred if preferred in attacks else min(attacks, default=None)


def controls_of(records: Iterable[Record]) -> set[str]:
    """The edits that are another's control."""
    return {record.control for record in records if record.control is not None}


def attacks_of(records: Sequence[Record]) -> dict[str, str | None]:
    """The headline's edit per metric; utility is asked with the same edit as needless refusals."""
    probe = attack_for(records, "rr") or attack_for(records, "utility")
    bypass = attack_for(records, "asr")
    return {"asr": bypass, "ir": bypass, "refusal": bypass, "rr": probe, "utility": probe}


def headline_tables(records: Sequence[Record], judge: str, harm: bool = True) -> list[HeadlineTable]:
    """One table per data and part of them, as `judge` sees it, who looks at harm or does not."""
    attacks = attacks_of(records)
    own = [record for record in records if record.judge == judge]
    names = list(dict.fromkeys(record.data for record in records))
    tables = []
    for data, split in product(names, splits_of(own)):
        part = [record for record in own if (record.data, record.split) == (data, split)]
        told = data if len(names) > 1 else None
        tables.append(HeadlineTable(told, split, judge, harm, attacks, _rows(part, attacks), effect_rows(part)))
    return [table for table in tables if table.rows]


def _rows(records: list[Record], attacks: dict[str, str | None]) -> list[ModelRow]:
    measured = [record for record in records if record.metric in METRICS]
    models = dict.fromkeys((record.model, record.method) for record in measured)
    return [_row([r for r in records if r.model == name], name, method, attacks) for name, method in models]


def _row(records: list[Record], model: str, method: str, attacks: dict[str, str | None]) -> ModelRow:
    pairs = {metric: pair_of(records, metric, attacks[metric]) for metric in METRICS}
    return ModelRow(model, method, pairs, pair_of(records, "ir", attacks["ir"]))


def pair_of(records: Sequence[Record], metric: str, attack: str | None) -> Pair:
    """The figures of one model, judge and split before and under `attack`."""
    after = _find(records, metric, attack) if attack else None
    change = _change(records, f"{metric}_change", attack, None, metric) if attack else None
    effects = [row.effect for row in effect_rows(records) if (row.metric, row.attack) == (metric, attack)]
    least = min(effects, key=lambda effect: effect.value or 0.0, default=None)
    return Pair(metric, _before(records, metric, attack), _cell(records, after), change, least)


def before_of(records: Sequence[Record], metric: str, attack: str | None) -> Record | None:
    """The rate as asked to set beside that under `attack`: where this leaves questions out, that of its questions."""
    same = _find(records, f"{metric}{BEFORE}", attack) if attack else None
    return same or _find(records, metric, None)


def _before(records: Sequence[Record], metric: str, attack: str | None) -> Cell | None:
    record, every = before_of(records, metric, attack), _find(records, metric, None)
    cell = _cell(records, record)
    return replace(cell, asked=every.n) if cell and every and record is not every else cell


def effect_rows(records: Sequence[Record]) -> list[EffectRow]:
    """The effect of each attack that has a control, by model; for any of K variants too."""
    rows = []
    for record in records:
        metric = record.metric.removesuffix("_effect")
        if metric == record.metric or metric.removesuffix("_any") not in EFFECTS or record.control is None:
            continue
        own = [other for other in records if other.model == record.model]
        word, control = (_cell(own, _find(own, metric, name)) for name in (record.attack, record.control))
        effect = _change(own, record.metric, record.attack, record.control, record.metric)
        if effect is not None and record.attack is not None:
            rows.append(EffectRow(record.model, metric, record.attack, record.control, word, control, effect, record.k))
    return rows


def _find(records: Sequence[Record], metric: str, attack: str | None, control: str | None = None) -> Record | None:
    """The per-question record: of any-of-K records only the smallest K belongs in the headline."""
    wanted = (metric, attack, control)
    found = [record for record in records if (record.metric, record.attack, record.control) == wanted]
    return min(found, key=lambda record: record.k, default=None)


def _cell(records: Sequence[Record], record: Record | None) -> Cell | None:
    if record is None:
        return None
    of_any = record.metric.endswith("_any")
    tone = tone_of(record.metric.removesuffix("_any").removesuffix(BEFORE), record.value)
    counts = (record.n, record.errors, record.unparsed)
    held = _find(records, FILTERED.get(record.metric, ""), record.attack)
    errors = _errors_of_judge(records, record)
    return Cell(record.value, record.low, record.high, *counts, tone, held.value if held else None, errors, of_any)


def _errors_of_judge(records: Sequence[Record], record: Record) -> JudgeErrors | None:
    names = ("sensitivity", "specificity", "corrected")
    found = [_find(records, f"{record.metric}_{name}", record.attack) for name in names]
    sensitivity, specificity, corrected = (Rate(one.value, one.low, one.high) if one else None for one in found)
    return JudgeErrors(sensitivity, specificity, corrected) if any((sensitivity, specificity, corrected)) else None


def _change(
    records: Sequence[Record], metric: str, attack: str | None, control: str | None, stem: str
) -> Change | None:
    """The difference called `metric`, with its p values and its flips, whose names begin with `stem`."""
    change = _find(records, metric, attack, control)
    if change is None:
        return None
    names = (f"{metric}_p", f"{metric}_p_holm", f"{stem}_gained", f"{stem}_lost")
    p, p_holm, gained, lost = (_value(_find(records, name, attack, control)) for name in names)
    up, down = (None if count is None else int(count) for count in (gained, lost))
    return Change(change.value, change.low, change.high, p, p_holm, up, down, change.n)


def _value(record: Record | None) -> float | None:
    return record.value if record else None
