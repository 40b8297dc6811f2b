"""Statistics: intervals for rates and means, paired tests, corrections for many tests.

Pure functions on numbers: no files, no records. Each says its formula and where it comes from.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with the ends of its confidence interval and the number `n` of independent units behind it."""

    value: float
    low: float
    high: float
    n: int


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Rate `successes / n` with Wilson's score interval, in [0, 1].

    (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n), z the normal quantile of `confidence`.
    Unlike the Wald interval it has a width at 0 and 1. Source: Wilson 1927, JASA 22:209-212.
    Raises ValueError unless n > 0, 0 <= successes <= n and 0 < confidence < 1.
    """
    _check_count(successes, n)
    z = _normal_quantile(confidence)
    rate, shrink = successes / n, 1 + z * z / n
    centre = (rate + z * z / (2 * n)) / shrink
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / shrink
    # At the edges the formula gives exactly 0 and 1; rounding must not move them.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return Interval(rate, low, high, n)


def bounds(successes: int, unusable: int, n: int) -> tuple[float, float]:
    """Lowest and highest rate that `unusable` rows among `n` leave open, both in [0, 1].

    successes / n where none of them would have counted, (successes + unusable) / n where all would.
    No sampling error is in it; these are bounds, not a confidence interval (Manski 1989).
    Raises ValueError unless n > 0, both counts are >= 0 and their sum is <= n.
    """
    _check_count(successes, n)
    _check_count(unusable, n)
    _check_count(successes + unusable, n)
    return successes / n, (successes + unusable) / n


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


def cluster_bootstrap(
    values_by_cluster: Mapping[Hashable, Sequence[float]],
    resamples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Mean of all values with a percentile interval from drawing whole clusters with replacement.

    A cluster holds values that are not independent, such as the K variants of one question. The value
    is sum of all values / number of all values, so larger clusters weigh more; `n` is the number of
    clusters. For a before/after difference give each cluster its differences. Where all values are equal the
    interval has no width, which says too much: use `clustered_rate` for rates.
    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, section 13.3; clusters as the
    unit: Davison and Hinkley 1997, section 3.8.
    Raises ValueError for fewer than two clusters, an empty cluster, a value that is not finite,
    resamples < 1 or confidence outside (0, 1).
    """
    _check_clusters(values_by_cluster.values(), resamples)
    tail = (1 - _checked_confidence(confidence)) / 2
    sums = np.array([math.fsum(values) for values in values_by_cluster.values()])
    counts = np.array([len(values) for values in values_by_cluster.values()], dtype=np.float64)
    means = _resampled_means(sums, counts, resamples, np.random.default_rng(seed))
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(sums.sum() / counts.sum()), float(low), float(high), len(sums))


def clustered_rate(
    outcomes_by_cluster: Mapping[Hashable, Sequence[bool]],
    resamples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Rate of true outcomes over clusters, in [0, 1]: `cluster_bootstrap`, but honest at 0 and at 1.

    Where all outcomes are equal no resample can differ and the bootstrap gives no width; Wilson's
    interval with one trial a cluster is given then, as if the outcomes of a cluster were one outcome.
    `n` is the number of clusters. Raises ValueError as `cluster_bootstrap` does.
    """
    values = {cluster: [float(outcome) for outcome in outcomes] for cluster, outcomes in outcomes_by_cluster.items()}
    interval = cluster_bootstrap(values, resamples, seed, confidence)
    if interval.value in (0.0, 1.0):
        return wilson(interval.n if interval.value else 0, interval.n, confidence)
    return interval


def mean_over_seeds(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Mean of one figure over several seeds with Student's t interval.

    mean -+ t sqrt(s^2 / n), s^2 with divisor n - 1, t with n - 1 degrees of freedom. Source: Student
    1908, Biometrika 6:1-25. The ends are not cut to [0, 1]. Raises ValueError for fewer than two values,
    a value that is not finite, or confidence outside (0, 1).
    """
    n = len(values)
    if n < 2:
        raise ValueError(f"an interval over seeds needs at least two seeds, here {n}")
    _check_finite(values)
    mean = statistics.mean(map(float, values))
    half = _t_quantile(_checked_confidence(confidence), n - 1) * statistics.stdev(values) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def cohen_kappa(table: Sequence[Sequence[int]], confidence: float = 0.95) -> Interval | None:
    """Agreement beyond chance of two raters, kappa = (po - pe) / (1 - pe), in [-1, 1].

    `table[i][j]` counts the items that the first rater put into class i and the second into class j; po is the share
    on the diagonal, pe = sum_i p_i. p_.i the share expected of independent raters with these margins. Interval:
    kappa -+ z sqrt((A + B - C) / n) / (1 - pe), A = sum_i p_ii [1 - (p_i. + p_.i)(1 - kappa)]^2,
    B = (1 - kappa)^2 sum_{i != j} p_ij (p_.i + p_j.)^2, C = [kappa - pe (1 - kappa)]^2, cut to [-1, 1]. It has no
    width where the raters agree on everything, which says too much. None where both put everything into one class, as
    kappa is 0/0 then. Sources: Cohen 1960, Educational and Psychological Measurement 20:37-46; Fleiss, Cohen and
    Everitt 1969, Psychological Bulletin 72:323-327.
    Raises ValueError unless the table is square, holds counts and is not empty.
    """
    counts = _checked_table(table)
    n = int(counts.sum())
    p = counts / n
    rows, columns = p.sum(axis=1), p.sum(axis=0)
    expected = float(rows @ columns)
    if counts.diagonal().max() == n:
        return None
    kappa = (float(np.trace(p)) - expected) / (1 - expected)
    half = _normal_quantile(confidence) * math.sqrt(_kappa_variance(p, rows, columns, kappa, expected) / n)
    return Interval(kappa, max(-1.0, kappa - half), min(1.0, kappa + half), n)


def rogan_gladen(
    observed: Interval,
    sensitivity: Interval,
    specificity: Interval,
    resamples: int = 20_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Rate corrected for the errors of the test that observed it, clipped to [0, 1].

    (observed + Sp - 1) / (Se + Sp - 1), Se the test's sensitivity, Sp its specificity; of each interval only `value`
    and `n` are used. The result's interval holds the uncertainty of all three: each is drawn from
    Beta(x + 1/2, n - x + 1/2), x = value n (the posterior under Jeffreys' prior, so that a rate of 0 or 1 is not taken
    for certain), each draw is corrected and clipped, and the ends are percentiles. A draw with Se + Sp <= 1 says
    nothing: it counts as 0 for the low end and as 1 for the high end. Clipping biases values near 0 and 1 inwards,
    and where it takes all draws no width would be left; so the interval is never narrower than Wilson's of the
    corrected rate, which a faultless test would have given.
    `n` is that of `observed`. Sources: Rogan and Gladen 1978, American Journal of Epidemiology 107:71-76; Jeffreys'
    interval: Brown, Cai and DasGupta 2001, Statistical Science 16:101-133.
    Raises ValueError unless Se + Sp > 1, all n > 0, all values lie in [0, 1] and resamples >= 1.
    """
    _check_rates(observed, sensitivity, specificity)
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, here {resamples}")
    youden = sensitivity.value + specificity.value - 1
    if youden <= 0:
        raise ValueError(f"a test with sensitivity + specificity <= 1 cannot be corrected for, here {youden + 1:.3f}")
    tail = (1 - _checked_confidence(confidence)) / 2
    random = np.random.default_rng(seed)
    rate, se, sp = (_beta_draws(one, resamples, random) for one in (observed, sensitivity, specificity))
    use = se + sp - 1 > 0
    corrected = np.clip((rate + sp - 1) / np.where(use, se + sp - 1, 1), 0, 1)
    low = float(np.quantile(np.where(use, corrected, 0), tail))
    high = float(np.quantile(np.where(use, corrected, 1), 1 - tail))
    value = min(1.0, max(0.0, (observed.value + specificity.value - 1) / youden))
    count = round(value * observed.n, 6)  # a whole number stays one
    least = wilson(math.floor(count), observed.n, confidence).low
    most = wilson(math.ceil(count), observed.n, confidence).high
    return Interval(value, min(low, least), max(high, most), observed.n)


def benjamini_hochberg(ps: Sequence[float]) -> list[float]:
    """Q values in the order of `ps`: calling all with q <= a significant keeps the false discovery rate <= a.

    q_(i) = min_{j >= i} min(1, m p_(j) / j) over the sorted p values, m their number. Holds for independent
    or positively dependent tests. Source: Benjamini and Hochberg 1995, JRSS B 57:289-300.
    Raises ValueError where a p value lies outside [0, 1].
    """
    p = _checked_ps(ps)
    order = np.argsort(p, kind="stable")[::-1]
    scaled = p[order] * len(p) / np.arange(len(p), 0, -1)
    return _in_order_of(order, np.minimum(1, np.minimum.accumulate(scaled)))


def holm(ps: Sequence[float]) -> list[float]:
    """Adjusted p values in the order of `ps`: the chance of any false one among those <= a is <= a.

    p~_(i) = max_{j <= i} min(1, (m - j + 1) p_(j)) over the sorted p values. Needs no independence.
    Source: Holm 1979, Scandinavian Journal of Statistics 6:65-70.
    Raises ValueError where a p value lies outside [0, 1].
    """
    p = _checked_ps(ps)
    order = np.argsort(p, kind="stable")
    scaled = p[order] * np.arange(len(p), 0, -1)
    return _in_order_of(order, np.minimum(1, np.maximum.accumulate(scaled)))


def _check_count(count: int, n: int) -> None:
    if n <= 0:
        raise ValueError(f"a rate needs n > 0, here n={n}")
    if not 0 <= count <= n:
        raise ValueError(f"a count lies in 0..n, here {count} of n={n}")


def _checked_confidence(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence lies between 0 and 1, here {confidence}")
    return confidence


def _check_finite(values: Sequence[float]) -> None:
    if not all(map(math.isfinite, values)):
        raise ValueError("all values must be finite numbers")


def _check_clusters(clusters: Collection[Sequence[float]], resamples: int) -> None:
    if len(clusters) < 2:
        raise ValueError(f"a cluster bootstrap needs at least two clusters, here {len(clusters)}")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, here {resamples}")
    for values in clusters:
        if not len(values):
            raise ValueError("a cluster without values cannot be drawn; leave it out")
        _check_finite(values)


def _checked_ps(ps: Sequence[float]) -> NDArray[np.float64]:
    p = np.asarray(ps, dtype=np.float64)
    if not np.all((p >= 0) & (p <= 1)):
        raise ValueError("p values lie in [0, 1]")
    return p


def _checked_table(table: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    if not table or any(len(row) != len(table) for row in table):
        raise ValueError("a table of agreement has as many columns as rows")
    counts = np.asarray(table, dtype=np.int64)
    if np.any(counts < 0) or counts.sum() == 0:
        raise ValueError("a table of agreement holds counts >= 0, and not only zeros")
    return counts


def _kappa_variance(
    p: NDArray[np.float64], rows: NDArray[np.float64], columns: NDArray[np.float64], kappa: float, expected: float
) -> float:
    """n times the large-sample variance of kappa; never negative but for rounding."""
    diagonal = np.diag(p)
    agree = float(np.sum(diagonal * (1 - (rows + columns) * (1 - kappa)) ** 2))
    weights = (columns[:, None] + rows[None, :]) ** 2
    differ = (1 - kappa) ** 2 * float(np.sum(p * weights) - np.sum(diagonal * np.diag(weights)))
    return max(0.0, agree + differ - (kappa - expected * (1 - kappa)) ** 2) / (1 - expected) ** 2


def _check_rates(*rates: Interval) -> None:
    for rate in rates:
        if rate.n <= 0 or not 0 <= rate.value <= 1:
            raise ValueError(f"a rate lies in [0, 1] and has n > 0, here {rate.value} of n={rate.n}")


def _beta_draws(rate: Interval, resamples: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Draws from the posterior of a rate under Jeffreys' prior, shape (resamples,)."""
    successes = rate.value * rate.n
    return random.beta(successes + 0.5, rate.n - successes + 0.5, size=resamples)


def _normal_quantile(confidence: float) -> float:
    """Return z such that a standard normal lies in [-z, z] with the given probability."""
    return statistics.NormalDist().inv_cdf(0.5 + _checked_confidence(confidence) / 2)


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


def _resampled_means(
    sums: NDArray[np.float64], counts: NDArray[np.float64], resamples: int, random: np.random.Generator
) -> NDArray[np.float64]:
    """Means of `resamples` draws of as many clusters as there are, shape (resamples,)."""
    clusters = len(sums)
    block = max(1, 2_000_000 // clusters)  # bounds the memory at about 50 MB whatever the number of clusters
    means = np.empty(resamples)
    for start in range(0, resamples, block):
        drawn = random.integers(0, clusters, size=(min(block, resamples - start), clusters))
        means[start : start + len(drawn)] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return means


def _t_quantile(confidence: float, freedom: int) -> float:
    """Return t such that Student's t with `freedom` degrees lies in [-t, t] with the given probability."""
    low, high = 0.0, math.pi / 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_probability(middle, freedom) < confidence else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def _t_probability(angle: float, freedom: int) -> float:
    """P(|t| <= sqrt(freedom) tan(angle)), a finite sum: Abramowitz and Stegun 1964, 26.7.3 and 26.7.4."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for k in range(1 + odd, freedom, 2):
        total += term
        term *= cosine * cosine * k / (k + 1)
    return (angle + sine * total) * 2 / math.pi if odd else sine * total


def _in_order_of(order: NDArray[np.intp], adjusted: NDArray[np.float64]) -> list[float]:
    """Put values that follow `order` back to where they came from."""
    result = np.empty_like(adjusted)
    result[order] = adjusted
    return [float(value) for value in result]
