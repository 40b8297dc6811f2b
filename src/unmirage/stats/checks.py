"""What the others share: an interval, checks of what is given, normal quantiles and tails."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with the ends of its confidence interval and the number `n` of independent units behind it."""

    value: float
    low: float
    high: float
    n: int


def check_count(count: float, n: int) -> None:
    """Raise ValueError unless n > 0 and 0 <= count <= n."""
    if n <= 0:
        raise ValueError(f"a rate needs n > 0, here n={n}")
    if not 0 <= count <= n:
        raise ValueError(f"a count lies in 0..n, here {count} of n={n}")


def checked_confidence(confidence: float) -> float:
    """The confidence itself; ValueError unless it lies in (0, 1)."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence lies between 0 and 1, here {confidence}")
    return confidence


def check_finite(values: Sequence[float]) -> None:
    """Raise ValueError where a value is not finite."""
    if not all(map(math.isfinite, values)):
        raise ValueError("all values must be finite numbers")


def check_scores(values: Sequence[float]) -> None:
    """Raise ValueError unless there are values and all lie in [0, 1]."""
    if not len(values):
        raise ValueError("a mean needs n > 0 values, here n=0")
    if not all(0 <= value <= 1 for value in values):
        raise ValueError("scores lie in [0, 1] and are finite, differences in [-1, 1]")


def normal_quantile(confidence: float) -> float:
    """Return z such that a standard normal lies in [-z, z] with the given probability."""
    return statistics.NormalDist().inv_cdf(0.5 + checked_confidence(confidence) / 2)


def upper_tail(z: float) -> float:
    """Probability that a standard normal is above z."""
    return math.erfc(z / math.sqrt(2)) / 2
