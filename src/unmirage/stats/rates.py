"""Rates and means of independent values: Wilson's interval, bounds over what is unknown, Student's t over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from unmirage.stats.checks import Interval, check_count, check_finite, checked_confidence, normal_quantile


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Rate `successes / n` with Wilson's score interval, in [0, 1].

    (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n), z the normal quantile of `confidence`.
    Unlike the Wald interval it has a width at 0 and 1. Source: Wilson 1927, JASA 22:209-212.
    Raises ValueError unless n > 0, 0 <= successes <= n and 0 < confidence < 1.
    """
    check_count(successes, n)
    return wilson_of(successes / n, n, confidence)


def wilson_of(rate: float, n: float, confidence: float) -> Interval:
    """Wilson's interval of a rate over `n` outcomes, which may be an effective number; see `wilson`."""
    z = normal_quantile(confidence)
    shrink = 1 + z * z / n
    centre = (rate + z * z / (2 * n)) / shrink
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / shrink
    # At the edges the formula gives exactly 0 and 1; rounding must not move them.
    low = 0.0 if rate == 0 else max(0.0, centre - half)
    high = 1.0 if rate == 1 else min(1.0, centre + half)
    return Interval(rate, low, high, int(n))


def weighted_rate(outcomes: Sequence[bool], weights: Sequence[float], confidence: float = 0.95) -> Interval:
    """Rate sum_i w_i x_i / sum_i w_i of outcomes drawn with unequal chances, in [0, 1]; w_i = 1 / chance of a draw.

    Interval: Wilson's with the effective number of outcomes (sum_i w_i)^2 / sum_i w_i^2 in the place of n; the
    result's `n` is that number, rounded down. Equal weights give `wilson`. Source of the effective number: Kish 1965,
    Survey Sampling, section 11.7.
    Raises ValueError unless there is a weight for every outcome and at least one, and all weights are finite and > 0.
    """
    check_weights(len(outcomes), weights)
    if len(set(weights)) == 1:
        return wilson(sum(map(bool, outcomes)), len(outcomes), confidence)
    total = math.fsum(weights)
    hits = math.fsum(weight for outcome, weight in zip(outcomes, weights, strict=True) if outcome)
    rate = 1.0 if all(outcomes) else hits / total  # what is left of rounding must not stand between all and 1
    return wilson_of(rate, kish_number(weights), checked_confidence(confidence))


def kish_number(weights: Sequence[float]) -> float:
    """(sum_i w_i)^2 / sum_i w_i^2, see `weighted_rate`."""
    return math.fsum(weights) ** 2 / math.fsum(weight**2 for weight in weights)


def check_weights(n: int, weights: Sequence[float]) -> None:
    """Raise ValueError unless there are n > 0 weights, all finite and above 0."""
    if n != len(weights) or not n:
        raise ValueError(f"a figure needs one weight for each outcome, here {n} and {len(weights)}")
    if not all(weight > 0 and math.isfinite(weight) for weight in weights):
        raise ValueError("weights are finite and above 0")


def effective_number(interval: Interval, confidence: float = 0.95) -> float:
    """How many independent outcomes would give the rate `interval.value` a Wilson interval as wide as this one.

    With w the width, q = 4 p (1 - p) and z the normal quantile, the n > 0 that solves
    w^2 (n + z^2)^2 = z^2 (q n + z^2). It turns an interval that allows for clusters into a number that calculations on
    independent outcomes can use, as Kish 1965, Survey Sampling, section 8.2, does by the design effect. For `wilson` it
    is n itself; for an interval without a width it is infinite, for one of width 1 it is 0.
    Raises ValueError unless value and width lie in [0, 1].
    """
    width = interval.high - interval.low
    if not (0 <= interval.value <= 1 and 0 <= width <= 1):
        raise ValueError(f"a rate and the width of its interval lie in [0, 1], here {interval}")
    if width == 0:
        return math.inf
    square = normal_quantile(confidence) ** 2
    spread = 4 * interval.value * (1 - interval.value)
    half = width**2 - spread / 2  # of the equation w^2 n^2 + 2 z^2 half n - z^4 (1 - w^2) = 0
    return square * (math.sqrt(half**2 + width**2 * (1 - width**2)) - half) / width**2


def bounds(successes: float, unusable: int, n: int) -> tuple[float, float]:
    """Lowest and highest rate that `unusable` rows among `n` leave open, both in [0, 1].

    successes / n where none of them would have counted, (successes + unusable) / n where all would. `successes` is a
    sum: of outcomes, or of scores in [0, 1].
    No sampling error is in it; these are bounds, not a confidence interval (Manski 1989).
    Raises ValueError unless n > 0, both counts are >= 0 and their sum is <= n.
    """
    check_count(successes, n)
    check_count(unusable, n)
    check_count(successes + unusable, n)
    return successes / n, (successes + unusable) / n


def mean_over_seeds(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Mean of one figure over several seeds with Student's t interval.

    mean -+ t sqrt(s^2 / n), s^2 with divisor n - 1, t with n - 1 degrees of freedom. Source: Student
    1908, Biometrika 6:1-25. The ends are not cut to [0, 1]. Raises ValueError for fewer than two values,
    a value that is not finite, or confidence outside (0, 1).
    """
    n = len(values)
    if n < 2:
        raise ValueError(f"an interval over seeds needs at least two seeds, here {n}")
    check_finite(values)
    mean = statistics.mean(map(float, values))
    half = t_quantile(checked_confidence(confidence), n - 1) * statistics.stdev(values) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def t_quantile(confidence: float, freedom: int) -> float:
    """Return t such that Student's t with `freedom` degrees lies in [-t, t] with the given probability."""
    low, high = 0.0, math.pi / 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if t_probability(middle, freedom) < confidence else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def t_probability(angle: float, freedom: int) -> float:
    """P(|t| <= sqrt(freedom) tan(angle)), a finite sum: Abramowitz and Stegun 1964, 26.7.3 and 26.7.4."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for k in range(1 + odd, freedom, 2):
        total += term
        term *= cosine * cosine * k / (k + 1)
    return (angle + sine * total) * 2 / math.pi if odd else sine * total
