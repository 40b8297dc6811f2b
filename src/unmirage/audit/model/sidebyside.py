"""The same words in the data and in the model: how refusal goes with a word there, and what the word does here."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unmirage.audit.model.edits import bare
from unmirage.audit.model.results import Effect, Metric, SideBySide, WordPoint
from unmirage.errors import UserError

if TYPE_CHECKING:
    from unmirage.audit.table import Columns

LEAST = 10
"""Fewer rows with a word say too little about it."""
TIED = 1.96
"""A word of the data whose |z| is smaller goes neither with refusal nor against it."""
NEAR = 0.1


@dataclass(frozen=True, slots=True)
class DataWord:
    """A word in data: rows that have it, their refusal rate, that minus the rate of all rows, and Gardner's z."""

    word: str
    position: str
    n: int
    rate: float
    difference: float
    z: float | None


Words = Mapping[tuple[str, str], DataWord]
"""Words of data by themselves, in lower case, and where they stand: "opening" or "anywhere"."""


def read_words(path: Path, columns: Columns | None = None) -> dict[tuple[str, str], DataWord]:
    """Words of an `audit.json`, or of a data file in any format that `unmirage audit data` reads.

    `columns` names those of a table. Raises UserError where `path` is no table, and as auditing does.
    """
    record = _record(path)
    if record is not None and columns and (named := columns.named()):
        raise UserError(f"{path} is an audit, which has no columns; leave out {' and '.join(named)}.")
    if record is None:
        from unmirage.audit import Columns, Source, audit_data

        record = audit_data(Source([path], columns or Columns(prefix="--data-"))).record()
    return from_record(path, record)


def _record(path: Path) -> dict[str, Any] | None:
    """The content of an `audit.json`; None where the file is something else."""
    if path.suffix != ".json":
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return None  # the reader of data says what is wrong with it
    return found if isinstance(found, dict) and isinstance(found.get("cues"), list) else None


def from_record(path: Path, record: Mapping[str, Any]) -> dict[tuple[str, str], DataWord]:
    """Single words without content among the cues of an audit of data; raises UserError where a field is missing."""
    if not isinstance(base := record.get("base_rate"), int | float):
        raise UserError(f"{path} has no 'base_rate', so rates cannot be compared with it; audit the data again.")
    found: dict[tuple[str, str], DataWord] = {}
    for number, cue in enumerate(record["cues"]):
        try:
            word, place, n, rate = str(cue["cue"]), str(cue["position"]), int(cue["n"]), float(cue["rate"])
            z, content = cue.get("z"), bool(cue["content_word"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{path}, cue {number} (counting from 0): a field is missing or is no number ({error}); "
                "audit the data again."
            ) from error
        if place in ("opening", "anywhere") and word.split() == [word] and not content:
            found[bare(word), place] = DataWord(word, place, n, rate, rate - base, z)
    return found


def notable(words: Words, most: int) -> tuple[list[str], list[str]]:
    """Words of the data that go most with or against refusal: openers, and words that only stand elsewhere."""
    frequent = [one for one in words.values() if one.n >= LEAST and one.word.isalpha()]
    ordered = sorted(frequent, key=lambda one: (-abs(one.z or 0.0), one.word))
    openers = [one.word.capitalize() for one in ordered if one.position == "opening"]
    inner = [one.word for one in ordered if one.position == "anywhere" and (bare(one.word), "opening") not in words]
    return openers[:most], inner[:most]


def side_by_side(records: Sequence[Effect], words: Words) -> list[SideBySide]:
    """One set of points for each metric that was measured, of opening words only."""
    metrics = dict.fromkeys(one.metric for one in records)
    return [_points(metric, [one for one in records if one.metric == metric], words) for metric in metrics]


def _points(metric: Metric, records: Sequence[Effect], words: Words) -> SideBySide:
    mine = [r for r in records if r.position == "opening" and r.role == "candidate" and r.minus_control is not None]
    points = []
    for word in dict.fromkeys(bare(one.word) for one in mine):
        points.append(_point([one for one in mine if bare(one.word) == word], words.get((word, "opening"))))
    held = [p for p in points if p.data_difference is not None and p.data_n >= LEAST]
    r = _pearson([p.data_difference or 0.0 for p in held], [p.effect for p in held])
    untouched = [] if metric == "score" else _untouched(points, words)
    return SideBySide(metric=metric, points=points, n=len(held), r=r, untouched=untouched)


def _untouched(points: Sequence[WordPoint], words: Words) -> list[str]:
    """Words that the data do not tie to refusal: they have none or few rows with it, or these are refused as usual."""
    if not words:
        return []
    return [p.word for p in points if p.data_n < LEAST or p.data_z is None or abs(p.data_z) < TIED]


def untouched_sentence(found: SideBySide) -> str:
    """How near to nothing the words are that the data do not touch; empty where there are none."""
    effects = [p.effect for p in found.points if p.word in found.untouched]
    if not effects:
        return ""
    near = sum(abs(effect) <= NEAR for effect in effects)
    middle = sum(abs(effect - mean) <= NEAR for effect, mean in zip(effects, means_of_others(effects), strict=True))
    return (
        f"Of {len(effects)} words that the data do not tie to refusal, {near} lie within {100 * NEAR:.0f} points "
        f"of the control words and {middle} within as much of one another's mean; they reach from "
        f"{100 * min(effects):+.0f} to {100 * max(effects):+.0f}."
    )


def near_sentence(found: SideBySide) -> str:
    """How near to the zero of these points the untouched words are."""
    effects = [point.effect for point in found.points if point.word in found.untouched]
    near = sum(abs(effect) <= NEAR for effect in effects)
    return (
        f"Of {len(effects)} words that the data do not tie to refusal, {near} lie within {100 * NEAR:.0f} points of "
        f"zero; they reach from {100 * min(effects):+.0f} to {100 * max(effects):+.0f}."
    )


def against_untouched(found: SideBySide) -> SideBySide | None:
    """The same points with the mean of the (other) untouched words as zero; None where there are fewer than two.

    Words that open real questions of the data differ from words that do not belong there; against one another they
    show what the data taught of each.
    """
    free = [point.effect for point in found.points if point.word in found.untouched]
    if len(free) < 2:
        return None
    middle, others = sum(free) / len(free), iter(means_of_others(free))
    points = [_moved(point, next(others) if point.word in found.untouched else middle) for point in found.points]
    return found.model_copy(update={"points": points})


def _moved(point: WordPoint, zero: float) -> WordPoint:
    ends = {"effect": point.effect - zero, "low": point.low - zero, "high": point.high - zero}
    return point.model_copy(update=ends)


def means_of_others(values: Sequence[float]) -> list[float]:
    """Of each value the mean of the other ones; itself where it is alone."""
    if len(values) < 2:
        return list(values)
    return [(sum(values) - value) / (len(values) - 1) for value in values]


def _point(records: Sequence[Effect], word: DataWord | None) -> WordPoint:
    """A word over both sorts of questions, which weigh alike; the interval takes the two sorts as independent."""
    effects = [one.minus_control or 0.0 for one in records]
    middle = sum(effects) / len(effects)
    below = [e - (o.minus_control_low or 0.0) for e, o in zip(effects, records, strict=True)]
    above = [(o.minus_control_high or 0.0) - e for e, o in zip(effects, records, strict=True)]
    first = records[0]
    return WordPoint(
        word=first.word,
        position=first.position,
        source=first.source,
        metric=first.metric,
        measured=first.measured,
        effect=middle,
        low=middle - math.hypot(*below) / len(effects),
        high=middle + math.hypot(*above) / len(effects),
        data_n=word.n if word else 0,
        data_rate=word.rate if word else None,
        data_difference=word.difference if word else None,
        data_z=word.z if word else None,
    )


def _pearson(one: Sequence[float], other: Sequence[float]) -> float | None:
    if len(one) < 3 or np.std(one) == 0 or np.std(other) == 0:
        return None
    return float(np.corrcoef(one, other)[0, 1])
