"""Statistics: intervals for rates and means, paired tests, corrections for many tests.

Pure functions on numbers: no files, no records. Each says its formula and where it comes from.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with the ends of its confidence interval and the number `n` of independent units behind it."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Change:
    """A paired difference with its interval, its two-sided p, and how many of the `n` pairs went up and down."""

    value: float
    low: float
    high: float
    n: int
    p: float
    gained: int
    lost: int


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


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Rate `successes / n` with Wilson's score interval, in [0, 1].

    (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n), z the normal quantile of `confidence`.
    Unlike the Wald interval it has a width at 0 and 1. Source: Wilson 1927, JASA 22:209-212.
    Raises ValueError unless n > 0, 0 <= successes <= n and 0 < confidence < 1.
    """
    _check_count(successes, n)
    return _wilson(successes / n, n, confidence)


def _wilson(rate: float, n: float, confidence: float) -> Interval:
    z = _normal_quantile(confidence)
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
    if len(outcomes) != len(weights) or not outcomes:
        raise ValueError(f"a rate needs one weight for each outcome, here {len(outcomes)} and {len(weights)}")
    if not all(weight > 0 and math.isfinite(weight) for weight in weights):
        raise ValueError("weights are finite and above 0")
    if len(set(weights)) == 1:
        return wilson(sum(map(bool, outcomes)), len(outcomes), confidence)
    total = math.fsum(weights)
    hits = math.fsum(weight for outcome, weight in zip(outcomes, weights, strict=True) if outcome)
    rate = 1.0 if all(outcomes) else hits / total  # what is left of rounding must not stand between all and 1
    effective = total**2 / math.fsum(weight**2 for weight in weights)
    return _wilson(rate, effective, _checked_confidence(confidence))


def bounds(successes: float, unusable: int, n: int) -> tuple[float, float]:
    """Lowest and highest rate that `unusable` rows among `n` leave open, both in [0, 1].

    successes / n where none of them would have counted, (successes + unusable) / n where all would. `successes` is a
    sum: of outcomes, or of scores in [0, 1].
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


def tango(gained: int, lost: int, n: int, confidence: float = 0.95) -> Interval:
    """Difference (gained - lost) / n of two rates on the same `n` items, with Tango's score interval in [-1, 1].

    The ends are the differences D at which |z(D)| reaches the normal quantile,
    z(D) = (gained - lost - n D) / sqrt(n (2 q + D (1 - D))), q the likeliest share of losses where the difference is D:
    q = (B + sqrt(B^2 + 8 n lost D (1 - D))) / 4n, B = gained (1 + D) + lost (1 - D) - 2 n D.
    Has a width where nothing was gained or lost. Source: Tango 1998, Statistics in Medicine 17:891-908.
    Raises ValueError unless n > 0, both counts are >= 0 and their sum is <= n.
    """
    _check_count(gained, n)
    _check_count(lost, n)
    _check_count(gained + lost, n)
    z = _normal_quantile(confidence)
    return Interval((gained - lost) / n, _falls_to(z, gained, lost, n), _falls_to(-z, gained, lost, n), n)


def paired_change(
    before: Sequence[float],
    after: Sequence[float],
    clusters: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
) -> Change:
    """Mean of after minus mean of before over the same items, all values in [0, 1], with interval and test.

    `clusters` names for each item the unit it belongs to; None where all are independent. Where every value is 0 or 1
    and every item its own unit: `paired_difference` (Newcombe) and `mcnemar_exact`. Else whole units are resampled
    (`clustered_difference`) and their signs flipped (`sign_flip`). `n` counts the items.
    Raises ValueError where the lengths differ or are 0, or a value lies outside [0, 1].
    """
    units = _checked_pairs(before, after, clusters)
    gained = sum(a > b for b, a in zip(before, after, strict=True))
    lost = sum(a < b for b, a in zip(before, after, strict=True))
    if units is None and _binary(before, after):
        found = paired_difference([b > 0 for b in before], [a > 0 for a in after], confidence)
        return Change(found.value, found.low, found.high, len(after), mcnemar_exact(gained, lost), gained, lost)
    differences = _differences(before, after, units)
    found = clustered_difference(differences, confidence=confidence)
    return Change(found.value, found.low, found.high, len(after), sign_flip(differences), gained, lost)


def sign_flip(
    differences_by_cluster: Mapping[Hashable, Sequence[float]], resamples: int = 20_000, seed: int = 0
) -> float:
    """Two-sided p value that each cluster's sum of differences might as well have the other sign, in (0, 1].

    The share of all 2^m choices of signs, m the clusters whose sum is not 0, whose |sum of all| is at least the one
    seen; all of them where m <= 16, else `resamples` drawn ones with (1 + hits) / (1 + resamples). Of single
    differences of -1, 0 and 1 it is the exact McNemar test. Sources: Fisher 1935, The Design of Experiments, section
    21; Phipson and Smyth 2010, Statistical Applications in Genetics and Molecular Biology 9:39, for the drawn ones.
    Raises ValueError where a difference is not finite or resamples < 1.
    """
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, here {resamples}")
    for values in differences_by_cluster.values():
        _check_finite(values)
    sums = np.array([total for values in differences_by_cluster.values() if abs(total := math.fsum(values)) > 1e-12])
    seen = abs(float(sums.sum())) - 1e-9
    if len(sums) <= 16:
        return float(np.mean(np.abs(_all_signed(sums)) >= seen))
    sums.sort()  # the drawn signs then do not depend on the order of the clusters
    hits = _signed_hits(sums, seen, resamples, np.random.default_rng(seed))
    return (1 + hits) / (1 + resamples)


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
    are scores by the paired t test, and where items share a unit (`clusters`, as in `paired_change`) by resampling
    whole units. Where all units changed alike there is no spread to go by, see `clustered_difference`.
    Sources: Tango 1998, Statistics in Medicine 17:891-908; Liu, Hsueh, Hsieh and Chen 2002, Statistics in Medicine
    21:231-245; Piaggio et al. 2012, JAMA 308:2594-2604, for the reading of the interval.
    Raises ValueError unless 0 < margin < 1 and confidence > 0.5, and as `paired_change` does.
    """
    units = _checked_pairs(before, after, clusters)
    if not 0 < margin < 1:
        raise ValueError(f"a margin lies between 0 and 1, here {margin}")
    if _checked_confidence(confidence) <= 0.5:
        raise ValueError(f"the confidence of a one-sided bound is above 0.5, here {confidence}")
    found, p = _worse_by(before, after, margin, units, 2 * confidence - 1)
    verdict = Standing.INCONCLUSIVE
    if found.low > -margin:
        verdict = Standing.NON_INFERIOR
    elif found.high < -margin:
        verdict = Standing.INFERIOR
    return NonInferiority(found.value, found.low, found.high, len(after), margin, p, verdict)


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
    interval has no width, which says too much: use `clustered_mean` and `clustered_difference`. Clusters of equal sum
    and number are drawn together (how many of each kind is multinomial), so many clusters cost no more than few.
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
    """Rate of true outcomes over clusters, in [0, 1]: `clustered_mean` of outcomes.

    `n` is the number of clusters. Raises ValueError as `clustered_mean` does.
    """
    values = {cluster: [float(outcome) for outcome in outcomes] for cluster, outcomes in outcomes_by_cluster.items()}
    return clustered_mean(values, resamples, seed, confidence)


def clustered_mean(
    scores_by_cluster: Mapping[Hashable, Sequence[float]],
    resamples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Mean of scores in [0, 1] over clusters: `cluster_bootstrap`, but honest where nothing varies.

    Where all clusters have the same mean no resample can differ and the bootstrap gives no width (a single cluster
    cannot be resampled at all); Wilson's interval of that mean with one trial a cluster is given then, as if the
    values of a cluster were one outcome: a score in [0, 1] varies at most as much as an outcome of the same mean.
    `n` is the number of clusters. Raises ValueError where there is no cluster, a cluster is empty, or a score lies
    outside [0, 1].
    """
    flat = [value for values in scores_by_cluster.values() for value in values]
    _check_scores(flat)
    if _all_alike(scores_by_cluster):
        n = len(scores_by_cluster)
        return _wilson(min(1.0, math.fsum(flat) / len(flat)), n, confidence)
    return cluster_bootstrap(scores_by_cluster, resamples, seed, confidence)


def clustered_difference(
    differences_by_cluster: Mapping[Hashable, Sequence[float]],
    resamples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Mean of differences in [-1, 1] over clusters: `cluster_bootstrap`, but honest where nothing varies.

    Where all clusters changed alike (or there is one alone) the bootstrap gives no width. Then, as if a cluster were
    one pair: Tango's score interval where that change is -1, 0 or 1; else Wilson's interval stretched to [-1, 1], as a
    value there varies at most as much as an outcome -1 or 1 of the same mean.
    `n` is the number of clusters. Raises ValueError where there is no cluster, a cluster is empty, or a difference lies
    outside [-1, 1].
    """
    flat = [value for values in differences_by_cluster.values() for value in values]
    _check_scores([abs(value) for value in flat])
    if not _all_alike(differences_by_cluster):
        return cluster_bootstrap(differences_by_cluster, resamples, seed, confidence)
    n, value = len(differences_by_cluster), math.fsum(flat) / len(flat)
    if value in (-1.0, 0.0, 1.0):
        return tango(n if value > 0 else 0, n if value < 0 else 0, n, confidence)
    half = _wilson((value + 1) / 2, n, confidence)
    return Interval(value, 2 * half.low - 1, 2 * half.high - 1, n)


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


def _check_count(count: float, n: int) -> None:
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


def _check_scores(values: Sequence[float]) -> None:
    if not len(values):
        raise ValueError("a mean needs n > 0 values, here n=0")
    if not all(0 <= value <= 1 for value in values):
        raise ValueError("scores lie in [0, 1] and are finite, differences in [-1, 1]")


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
    """Means of `resamples` draws of as many clusters as there are, shape (resamples,); their order does not matter."""
    clusters = len(sums)
    rounded = np.round(np.stack([sums, counts], axis=1), 12)  # 0.1 + 0.2 and 0.3 are one kind
    kinds, often = np.unique(rounded, axis=0, return_counts=True)
    block = max(1, 2_000_000 // len(kinds))  # bounds the memory at about 50 MB whatever the number of clusters
    means = np.empty(resamples)
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = random.multinomial(clusters, often / clusters, size=size)  # (size, kinds)
        means[start : start + size] = (drawn @ kinds[:, 0]) / (drawn @ kinds[:, 1])
    return means


def _falls_to(level: float, gained: int, lost: int, n: int) -> float:
    """Return the difference at which Tango's z, which falls as the difference rises, reaches `level`."""
    low, high = -1.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _tango_z(gained, lost, n, middle) > level else (low, middle)
    return (low + high) / 2


def _tango_z(gained: int, lost: int, n: int, difference: float) -> float:
    b = gained * (1 + difference) + lost * (1 - difference) - 2 * n * difference
    product = difference * (1 - difference)
    q = (b + math.sqrt(max(0.0, b * b + 8 * n * lost * product))) / (4 * n)
    variance = n * (2 * q + product)
    above = gained - lost - n * difference
    return above / math.sqrt(variance) if variance > 1e-15 else math.copysign(math.inf, above) if above else 0.0


def _checked_pairs(
    before: Sequence[float], after: Sequence[float], clusters: Sequence[Hashable] | None
) -> Sequence[Hashable] | None:
    """The unit of each item; None where every item is its own."""
    if len(before) != len(after) or (clusters is not None and len(clusters) != len(after)):
        raise ValueError(f"pairs need as many items before as after, here {len(before)} and {len(after)}")
    _check_scores(before)
    _check_scores(after)
    return None if clusters is None or len(set(clusters)) == len(clusters) else clusters


def _binary(*several: Sequence[float]) -> bool:
    return all(value in (0, 1) for values in several for value in values)


def _differences(
    before: Sequence[float], after: Sequence[float], units: Sequence[Hashable] | None
) -> dict[Hashable, list[float]]:
    found: dict[Hashable, list[float]] = defaultdict(list)
    for unit, b, a in zip(units if units is not None else range(len(after)), before, after, strict=True):
        found[unit].append(float(a) - float(b))
    return dict(found)


def _all_alike(clusters: Mapping[Hashable, Sequence[float]]) -> bool:
    """Whether all clusters have the same mean, so that no resample can differ."""
    if not clusters or not all(len(values) for values in clusters.values()):
        raise ValueError("there must be a cluster, and none without values; leave it out")
    means = [math.fsum(values) / len(values) for values in clusters.values()]
    return max(means) - min(means) < 1e-12


def _all_signed(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums under all choices of signs, shape (2^m,)."""
    totals = np.zeros(1)
    for one in sums:
        totals = np.concatenate([totals + one, totals - one])
    return totals


def _signed_hits(sums: NDArray[np.float64], seen: float, resamples: int, random: np.random.Generator) -> int:
    """How many of `resamples` drawn choices of signs give a sum at least as far from 0 as the one seen."""
    kinds, often = np.unique(np.round(np.abs(sums), 12), return_counts=True)
    block = max(1, 2_000_000 // len(kinds))
    hits = 0
    for start in range(0, resamples, block):
        up = random.binomial(often, 0.5, size=(min(block, resamples - start), len(kinds)))
        hits += int(np.sum(np.abs((2 * up - often) @ kinds) >= seen))
    return hits


def _worse_by(
    before: Sequence[float],
    after: Sequence[float],
    margin: float,
    units: Sequence[Hashable] | None,
    confidence: float,
) -> tuple[Interval, float]:
    """The difference in its two-sided interval, and the one-sided p of "worse by `margin` or more"."""
    differences = _differences(before, after, units)
    if units is None and _binary(before, after):
        gained = sum(a > b for b, a in zip(before, after, strict=True))
        lost = sum(a < b for b, a in zip(before, after, strict=True))
        return tango(gained, lost, len(after), confidence), _upper_tail(_tango_z(gained, lost, len(after), -margin))
    if _all_alike(differences):
        return clustered_difference(differences, confidence=confidence), _p_of_alike(differences, margin)
    if units is None:
        return _paired_t([values[0] for values in differences.values()], margin, confidence)
    sums = np.array([math.fsum(values) for values in differences.values()])
    counts = np.array([len(values) for values in differences.values()], dtype=np.float64)
    means = _resampled_means(sums, counts, 10_000, np.random.default_rng(0))
    hits = int(np.sum(means <= -margin))
    return cluster_bootstrap(differences, confidence=confidence), (1 + hits) / (1 + len(means))


def _p_of_alike(differences: Mapping[Hashable, Sequence[float]], margin: float) -> float:
    """The p that belongs to `clustered_difference` where all clusters changed alike."""
    n, value = len(differences), next(math.fsum(values) / len(values) for values in differences.values())
    if value in (-1.0, 0.0, 1.0):
        return _upper_tail(_tango_z(n if value > 0 else 0, n if value < 0 else 0, n, -margin))
    return _upper_tail((value + margin) * math.sqrt(n / (1 - margin * margin)))


def _paired_t(differences: Sequence[float], margin: float, confidence: float) -> tuple[Interval, float]:
    """Student's t on the differences: interval, and p of a mean <= -margin."""
    found = mean_over_seeds(differences, confidence)
    error = statistics.stdev(differences) / math.sqrt(found.n)
    t = (found.value + margin) / error
    outside = (1 - _t_probability(math.atan(abs(t) / math.sqrt(found.n - 1)), found.n - 1)) / 2
    outside = min(1.0, max(0.0, outside))  # rounding
    return found, outside if t > 0 else 1 - outside


def _upper_tail(z: float) -> float:
    """Probability that a standard normal is above z."""
    return math.erfc(z / math.sqrt(2)) / 2


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
