"""Means of values that belong together in clusters: by an effective number of values, or by drawing whole clusters."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from unmirage.stats.checks import (
    Interval,
    check_finite,
    check_scores,
    checked_confidence,
    normal_quantile,
    upper_tail,
)
from unmirage.stats.rates import t_quantile, wilson_of

MOST_FREEDOM = 1000
"""Degrees of freedom beyond which Student's t is the normal one but for its third decimal."""


def cluster_bootstrap(
    values_by_cluster: Mapping[Hashable, Sequence[float]],
    resamples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Mean of all values with a percentile interval from drawing whole clusters with replacement.

    A cluster holds values that are not independent, such as the K variants of one question. The value
    is sum of all values / number of all values, so larger clusters weigh more; `n` is the number of
    clusters. Where few values or none differ from the rest, the interval is too narrow or has no width: use
    `clustered_mean` for rates, `clustered_difference` for differences of such. Clusters of equal sum
    and number are drawn together (how many of each kind is multinomial), so many clusters cost no more than few.
    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, section 13.3; clusters as the
    unit: Davison and Hinkley 1997, section 3.8.
    Raises ValueError for fewer than two clusters, an empty cluster, a value that is not finite,
    resamples < 1 or confidence outside (0, 1).
    """
    _check_clusters(values_by_cluster.values(), resamples)
    tail = (1 - checked_confidence(confidence)) / 2
    sums = np.array([math.fsum(values) for values in values_by_cluster.values()])
    counts = np.array([len(values) for values in values_by_cluster.values()], dtype=np.float64)
    means = _resampled_means(sums, counts, resamples, np.random.default_rng(seed))
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(sums.sum() / counts.sum()), float(low), float(high), len(sums))


def clustered_rate(outcomes_by_cluster: Mapping[Hashable, Sequence[bool]], confidence: float = 0.95) -> Interval:
    """Rate of true outcomes over clusters, in [0, 1]: `clustered_mean` of outcomes.

    `n` is the number of clusters. Raises ValueError as `clustered_mean` does.
    """
    values = {cluster: [float(outcome) for outcome in outcomes] for cluster, outcomes in outcomes_by_cluster.items()}
    return clustered_mean(values, confidence)


def clustered_mean(scores_by_cluster: Mapping[Hashable, Sequence[float]], confidence: float = 0.95) -> Interval:
    """Mean of scores in [0, 1] over clusters, with Wilson's interval at the effective number of values, in [0, 1].

    The value is sum of all values / their number N, so larger clusters weigh more; `n` is the number of clusters. For
    the effective number see `_effective`. Where every cluster holds one outcome it is `wilson`; where those of a
    cluster are all equal, and clusters equally large, Wilson's of one outcome a cluster. Resampling clusters is no
    match for it near 0 and 1: a single hit would give a lower upper end than none.
    Source: Franco, Little, Louis and Slud 2019, Journal of Survey Statistics and Methodology 7:334-364, who recommend
    Wilson's form and show that every form is too narrow where the effective number is taken as the data alone say.
    Raises ValueError where there is no cluster, a cluster is empty, or a score lies outside [0, 1].
    """
    check_scores([value for values in scores_by_cluster.values() for value in values])
    _check_filled(scores_by_cluster.values())
    clusters = list(scores_by_cluster.values())
    total, n = math.fsum(math.fsum(values) for values in clusters), sum(map(len, clusters))
    found = wilson_of(min(1.0, total / n), _effective(clusters, confidence), confidence)
    return Interval(found.value, found.low, found.high, len(clusters))


def _effective(clusters: Sequence[Sequence[float]], confidence: float) -> float:
    """How many independent outcomes the values of these clusters are worth.

    max(N / M, N / D (z / t)^2): N values of mean p, C clusters of m_c values, M = sum_c m_c^2 / N the size of the
    cluster that a value is in, z the normal quantile, t Student's with C - 1 degrees of freedom. N / M is Kish's
    number, what is left where the values of a cluster are one and the same. D is the design effect,
    (sum_c r_c^2 + a M^2 w) / (N p (1 - p) + a M w), r_c the sum of x - p in the cluster, but at least the same with
    every value a cluster of its own (M = 1), which is 1 for outcomes: nothing is gained from values that repel.
    The terms with w = p^2 + (1 - p)^2 and a = z^2 / 2 stand for `a` more clusters of M ones and as many of zeros. They
    carry the estimate where hits are few, as few hits cannot tell whether hits come together. It is the least a with
    which, whatever M, the upper end does not fall when a first cluster has a hit: there it rises by
    (2 - z^2 (M - 1) / (a M)) / N, to first order. Sources: Kish 1965, Survey Sampling, section 8.2; (z / t)^2 after
    Korn and Graubard 1998, Survey Methodology 24:193-201; Agresti and Coull 1998, The American Statistician
    52:119-126, who add z^2 / 2 outcomes of each kind.
    """
    n = sum(map(len, clusters))
    size = sum(len(values) ** 2 for values in clusters) / n
    if len(clusters) == 1:
        return n / size
    p = min(1.0, math.fsum(math.fsum(values) for values in clusters) / n)
    z = normal_quantile(confidence)
    more = z * z / 2 * (p * p + (1 - p) * (1 - p))

    def design(squares: float, size: float) -> float:
        return (squares + more * size * size) / (n * p * (1 - p) + more * size)

    together = math.fsum((math.fsum(values) - len(values) * p) ** 2 for values in clusters)
    apart = math.fsum((value - p) ** 2 for values in clusters for value in values)
    effect = max(design(together, size), design(apart, 1))
    t = t_quantile(confidence, min(len(clusters) - 1, MOST_FREEDOM))
    return max(n / size, n / effect * (z / t) ** 2)


def clustered_difference(
    differences_by_cluster: Mapping[Hashable, Sequence[float]], confidence: float = 0.95
) -> Interval:
    """Mean of differences in [-1, 1] over clusters: `clustered_mean` of (d + 1) / 2, stretched back.

    It has no side: the negated differences have the mirrored interval. Where nothing differs it is about as wide as
    Tango's interval of one unchanged pair a cluster. Drawing clusters would then give no width, and too little where
    few clusters differ: one of 100 that rises by 1/3 would lie in [0, 0.01].
    `n` is the number of clusters. Raises ValueError where there is no cluster, a cluster is empty, or a difference lies
    outside [-1, 1].
    """
    found = clustered_mean(_halved(differences_by_cluster), confidence)
    flat = [value for values in differences_by_cluster.values() for value in values]
    return Interval(math.fsum(flat) / len(flat), 2 * found.low - 1, 2 * found.high - 1, found.n)


def p_at_most(differences_by_cluster: Mapping[Hashable, Sequence[float]], bound: float, confidence: float) -> float:
    """One-sided p of a mean difference <= `bound`, which lies in (-1, 1): that of Wilson's score test.

    Below (1 - confidence) / 2 where, and only where, `clustered_difference` of that confidence begins above `bound`.
    Raises ValueError as `clustered_difference` does.
    """
    halved = _halved(differences_by_cluster)
    mean, against = clustered_mean(halved, confidence).value, (bound + 1) / 2
    number = _effective(list(halved.values()), confidence)
    return upper_tail((mean - against) / math.sqrt(against * (1 - against) / number))


def _halved(differences: Mapping[Hashable, Sequence[float]]) -> dict[Hashable, list[float]]:
    """Differences in [-1, 1] as scores in [0, 1]."""
    return {cluster: [(value + 1) / 2 for value in values] for cluster, values in differences.items()}


def _check_filled(clusters: Collection[Sequence[float]]) -> None:
    if not clusters or not all(len(values) for values in clusters):
        raise ValueError("there must be a cluster, and none without values; leave it out")


def _check_clusters(clusters: Collection[Sequence[float]], resamples: int) -> None:
    if len(clusters) < 2:
        raise ValueError(f"a cluster bootstrap needs at least two clusters, here {len(clusters)}")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, here {resamples}")
    for values in clusters:
        if not len(values):
            raise ValueError("a cluster without values cannot be drawn; leave it out")
        check_finite(values)


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
