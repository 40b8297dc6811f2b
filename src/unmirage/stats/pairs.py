"""Two rates over the same independent items: the difference in its interval, and a test of what flipped."""

from __future__ import annotations

import math
from collections.abc import Sequence

from unmirage.stats.checks import Interval, check_count, normal_quantile
from unmirage.stats.rates import wilson


def mcnemar_exact(b: int, c: int) -> float:
    """Two-sided p value that `b` flips one way and `c` the other come from a fair coin, in (0, 1].

    min(1, 2 sum_{i <= min(b, c)} C(b+c, i) / 2^(b+c)); 1 where nothing flipped. Pairs that agree before
    and after say nothing about the change and do not enter. Source: McNemar 1947, Psychometrika
    12:153-157, with the exact binomial tail. Raises ValueError where a count is negative.
    """
    if b < 0 or c < 0:
        raise ValueError(f"flips are counts >= 0, here b={b} and c={c}")
    flips = b + c
    term, tail = 1, 0
    for i in range(min(b, c) + 1):
        tail += term
        term = term * (flips - i) // (i + 1)
    return min(1.0, 2 * tail / (1 << flips))


def paired_difference(before: Sequence[bool], after: Sequence[bool], confidence: float = 0.95) -> Interval:
    """Rate after minus rate before on the same `n` items, with an interval in [-1, 1].

    Method 10 (hybrid score interval) of Newcombe 1998, Statistics in Medicine 17:2635-2650: the Wilson
    limits (l1, u1) of p1 = after and (l2, u2) of p2 = before are joined by the correlation phi,
    low = d - sqrt((p1-l1)^2 - 2 phi (p1-l1)(u2-p2) + (u2-p2)^2),
    high = d + sqrt((u1-p1)^2 - 2 phi (u1-p1)(p2-l2) + (p2-l2)^2).
    Item i of both sequences is the same question. Raises ValueError where the lengths differ or are 0.
    """
    if len(before) != len(after):
        raise ValueError(f"pairs need as many items before as after, here {len(before)} and {len(after)}")
    n = len(after)
    one, two = wilson(sum(map(bool, after)), n, confidence), wilson(sum(map(bool, before)), n, confidence)
    phi = _newcombe_phi(before, after)
    difference = one.value - two.value
    below = _joined(one.value - one.low, two.high - two.value, phi)
    above = _joined(one.high - one.value, two.value - two.low, phi)
    return Interval(difference, max(-1.0, difference - below), min(1.0, difference + above), n)


def tango(gained: int, lost: int, n: int, confidence: float = 0.95) -> Interval:
    """Difference (gained - lost) / n of two rates on the same `n` items, with Tango's score interval in [-1, 1].

    The ends are the differences D at which |z(D)| reaches the normal quantile,
    z(D) = (gained - lost - n D) / sqrt(n (2 q + D (1 - D))), q the likeliest share of losses where the difference is D:
    q = (B + sqrt(B^2 + 8 n lost D (1 - D))) / 4n, B = gained (1 + D) + lost (1 - D) - 2 n D.
    Has a width where nothing was gained or lost. Source: Tango 1998, Statistics in Medicine 17:891-908.
    Raises ValueError unless n > 0, both counts are >= 0 and their sum is <= n.
    """
    check_count(gained, n)
    check_count(lost, n)
    check_count(gained + lost, n)
    z = normal_quantile(confidence)
    return Interval((gained - lost) / n, _falls_to(z, gained, lost, n), _falls_to(-z, gained, lost, n), n)


def _newcombe_phi(before: Sequence[bool], after: Sequence[bool]) -> float:
    """Correlation of the pairs, pulled to 0 by n/2 in the numerator where positive; 0 where a margin is empty."""
    pairs = list(zip(after, before, strict=True))
    n = len(pairs)
    both, neither = sum(1 for a, b in pairs if a and b), sum(1 for a, b in pairs if not (a or b))
    gained, lost = sum(1 for a, b in pairs if a and not b), sum(1 for a, b in pairs if b and not a)
    margins = (both + gained) * (lost + neither) * (both + lost) * (gained + neither)
    product = both * neither - gained * lost
    if margins == 0:
        return 0.0
    return (max(product - n / 2, 0.0) if product > 0 else product) / math.sqrt(margins)


def _joined(one: float, two: float, phi: float) -> float:
    # The radicand is never negative for |phi| <= 1 but for rounding.
    return math.sqrt(max(0.0, one * one - 2 * phi * one * two + two * two))


def _falls_to(level: float, gained: int, lost: int, n: int) -> float:
    """Return the difference at which Tango's z, which falls as the difference rises, reaches `level`."""
    low, high = -1.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if tango_z(gained, lost, n, middle) > level else (low, middle)
    return (low + high) / 2


def tango_z(gained: int, lost: int, n: int, difference: float) -> float:
    """Tango's z of a `difference`, see `tango`; infinite where there is no variance and it is not the one seen."""
    b = gained * (1 + difference) + lost * (1 - difference) - 2 * n * difference
    product = difference * (1 - difference)
    q = (b + math.sqrt(max(0.0, b * b + 8 * n * lost * product))) / (4 * n)
    variance = n * (2 * q + product)
    above = gained - lost - n * difference
    return above / math.sqrt(variance) if variance > 1e-15 else math.copysign(math.inf, above) if above else 0.0
