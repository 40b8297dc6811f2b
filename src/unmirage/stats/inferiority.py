"""Whether something has become worse by less than a margin."""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from unmirage.stats.changes import checked_pairs, differences_of, is_binary
from unmirage.stats.checks import Interval, checked_confidence, upper_tail
from unmirage.stats.clusters import clustered_difference, p_at_most
from unmirage.stats.pairs import tango, tango_z
from unmirage.stats.rates import mean_over_seeds, t_probability


class Standing(StrEnum):
    """What a test of non-inferiority can say."""

    NON_INFERIOR = "non-inferior"
    INCONCLUSIVE = "inconclusive"
    INFERIOR = "inferior"


@dataclass(frozen=True, slots=True)
class NonInferiority:
    """A paired difference with a two-sided 90 % interval, whose lower end is the one-sided 95 % bound.

    `p` is that of the one-sided test of "worse by `margin` or more".
    """

    value: float
    low: float
    high: float
    n: int
    margin: float
    p: float
    verdict: Standing


def non_inferiority(
    before: Sequence[float],
    after: Sequence[float],
    margin: float,
    clusters: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
) -> NonInferiority:
    """Whether `after` is worse than `before` on the same items by less than `margin`; all values lie in [0, 1].

    `confidence` is that of the one-sided bound `low`; [low, high] is the two-sided interval of 2 confidence - 1.
    non-inferior where low > -margin, inferior where high < -margin, else inconclusive. The hypothesis tested is
    after - before <= -margin; where every value is 0 or 1 and every item its own unit by Tango's score test, where they
    are scores that differ in how they changed by the paired t test, else (items share a unit, `clusters` as in
    `paired_change`, or all changed alike) by the score test of `p_at_most`.
    Sources: Tango 1998, Statistics in Medicine 17:891-908; Liu, Hsueh, Hsieh and Chen 2002, Statistics in Medicine
    21:231-245; Piaggio et al. 2012, JAMA 308:2594-2604, for the reading of the interval.
    Raises ValueError unless 0 < margin < 1 and confidence > 0.5, and as `paired_change` does.
    """
    units = checked_pairs(before, after, clusters)
    if not 0 < margin < 1:
        raise ValueError(f"a margin lies between 0 and 1, here {margin}")
    if checked_confidence(confidence) <= 0.5:
        raise ValueError(f"the confidence of a one-sided bound is above 0.5, here {confidence}")
    found, p = _worse_by(before, after, margin, units, 2 * confidence - 1)
    verdict = Standing.INCONCLUSIVE
    if found.low > -margin:
        verdict = Standing.NON_INFERIOR
    elif found.high < -margin:
        verdict = Standing.INFERIOR
    return NonInferiority(found.value, found.low, found.high, len(after), margin, p, verdict)


def _worse_by(
    before: Sequence[float],
    after: Sequence[float],
    margin: float,
    units: Sequence[Hashable] | None,
    confidence: float,
) -> tuple[Interval, float]:
    """The difference in its two-sided interval, and the one-sided p of "worse by `margin` or more"."""
    differences = differences_of(before, after, units)
    if units is None and is_binary(before, after):
        gained = sum(a > b for b, a in zip(before, after, strict=True))
        lost = sum(a < b for b, a in zip(before, after, strict=True))
        return tango(gained, lost, len(after), confidence), upper_tail(tango_z(gained, lost, len(after), -margin))
    if units is None and len({round(values[0], 12) for values in differences.values()}) > 1:
        return _paired_t([values[0] for values in differences.values()], margin, confidence)
    return clustered_difference(differences, confidence), p_at_most(differences, -margin, confidence)


def _paired_t(differences: Sequence[float], margin: float, confidence: float) -> tuple[Interval, float]:
    """Student's t on the differences: interval, and p of a mean <= -margin."""
    found = mean_over_seeds(differences, confidence)
    error = statistics.stdev(differences) / math.sqrt(found.n)
    t = (found.value + margin) / error
    outside = (1 - t_probability(math.atan(abs(t) / math.sqrt(found.n - 1)), found.n - 1)) / 2
    outside = min(1.0, max(0.0, outside))  # rounding
    return found, outside if t > 0 else 1 - outside
