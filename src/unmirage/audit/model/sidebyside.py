"""The same words in the data and in the model: how refusal goes with a word there, and what the word does here."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unmirage.audit.model.edits import bare
from unmirage.audit.model.results import Effect, Metric, SideBySide, WordPoint
from unmirage.errors import UserError

LEAST = 10
"""Fewer rows with a word say too little about it."""


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


def read_words(path: Path) -> dict[tuple[str, str], DataWord]:
    """Words of an `audit.json`, or of a data file in any format that `unmirage audit data` reads."""
    record = _record(path)
    if record is None:
        from unmirage.audit import Source, audit_data

        record = audit_data(Source([path])).record()
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
    return SideBySide(metric=metric, points=points, n=len(held), r=r)


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
