"""What the counts of a cue say: intervals, tests and measures of association, for many cues at once.

Every function takes arrays with one entry for each cue: `k` refusals among the `n` questions that have it, out of
`total_k` among all `total_n`. Pure functions of numbers; `unmirage.stats` has the corrections for many tests.
"""

from __future__ import annotations

import math
import statistics

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Numbers = Ints | Floats

_TAIL_DONE = 1e-17
"""A term this small against the sum so far no longer changes a float."""


def wilson_many(k: Numbers, n: Numbers, confidence: float = 0.95) -> tuple[Floats, Floats]:
    """Ends of Wilson's score interval of each rate k / n, as `stats.wilson` gives them one by one."""
    z = statistics.NormalDist().inv_cdf(0.5 + confidence / 2)
    rate, shrink = k / n, 1 + z * z / n
    centre = (rate + z * z / (2 * n)) / shrink
    half = z * np.sqrt(rate * (1 - rate) / n + z * z / (4.0 * n * n)) / shrink
    low = np.where(k == 0, 0.0, np.maximum(0.0, centre - half))
    high = np.where(k == n, 1.0, np.minimum(1.0, centre + half))
    return low, high


def competency_z(k: Numbers, n: Numbers, p0: float) -> Floats:
    """z = (k/n - p0) / sqrt(p0 (1 - p0) / n): how far a feature's label rate is from the rate of all.

    Gardner et al. 2021, "Competency Problems", arXiv 2104.08646, section 3; there p0 is 1/2, here the rate that the
    data have. Raises ValueError unless 0 < p0 < 1.
    """
    if not 0 < p0 < 1:
        raise ValueError(f"the base rate must lie between 0 and 1, here {p0}")
    return np.asarray((k / n - p0) / np.sqrt(p0 * (1 - p0) / n), dtype=np.float64)


def mutual_information(k: Numbers, n: Numbers, total_k: float, total_n: float) -> Floats:
    """I(cue; refusal) in bits: sum over the four cells of p(x, y) log2(p(x, y) / (p(x) p(y))), 0 log 0 = 0."""
    cells = (k, n - k, total_k - k, total_n - n - (total_k - k))
    margins = ((n, total_k), (n, total_n - total_k), (total_n - n, total_k), (total_n - n, total_n - total_k))
    total = np.zeros(len(n))
    for cell, (one, other) in zip(cells, margins, strict=True):
        there = cell > 0
        expected = np.asarray(one, dtype=np.float64) * other
        ratio = cell[there] * float(total_n) / np.broadcast_to(expected, cell.shape)[there]
        total[there] += cell[there] / total_n * np.log2(ratio)
    return np.maximum(0.0, total)


def hypergeometric_p(k: Ints, n: Ints, total_k: int, total_n: int) -> Floats:
    """Two-sided p value that the k refusals among n questions are a draw without replacement from all.

    min(1, 2 min(P(X <= k), P(X >= k))), X hypergeometric: Fisher's exact test, doubling the smaller tail. It is exact
    where labels are exchangeable, also for rare words, where the normal tail of z is far too small.
    Source: Fisher 1935, The Design of Experiments; doubling: Yates 1984, JRSS A 147:426-463.
    """
    upper = _tail(k, n, total_k, total_n)
    lower = _tail(n - k, n, total_n - total_k, total_n)
    return np.asarray(np.minimum(1.0, 2 * np.minimum(upper, lower)), dtype=np.float64)


def _tail(k: Ints, n: Ints, total_k: int, total_n: int) -> Floats:
    """P(X >= k): the probability of k, times 1 + r1 + r1 r2 + ..., r the ratios of neighbouring probabilities.

    Where k lies below the mean the sum would be long, and the other tail is the one that matters: 1 is given.
    """
    result = np.ones(len(k))
    active = np.flatnonzero(k * float(total_n) > n * float(total_k) - 0.5 * total_n)
    first = np.exp(_log_probability(k[active], n[active], total_k, total_n))
    sums, term = np.ones(len(active)), np.ones(len(active))
    i, many = k[active].astype(np.float64), n[active].astype(np.float64)
    todo = np.arange(len(active))
    while len(todo):
        at, of = i[todo], many[todo]
        term[todo] *= (of - at) * (total_k - at) / ((at + 1) * (total_n - total_k - of + at + 1))
        sums[todo] += term[todo]
        i[todo] += 1
        todo = todo[term[todo] > _TAIL_DONE * sums[todo]]
    result[active] = np.minimum(1.0, first * sums)
    return result


def _log_probability(k: Ints, n: Ints, total_k: int, total_n: int) -> Floats:
    """log C(K, k) C(N-K, n-k) / C(N, n)."""
    return _log_choose(np.full(len(k), total_k), k) + (
        _log_choose(np.full(len(k), total_n - total_k), n - k) - _log_choose(np.full(len(k), total_n), n)
    )


def _log_choose(n: Ints, k: Ints) -> Floats:
    return _log_factorial(n) - _log_factorial(k) - _log_factorial(n - k)


def _log_factorial(n: Ints) -> Floats:
    values, where = np.unique(n, return_inverse=True)
    return np.array([math.lgamma(value + 1) for value in values.tolist()])[where]


def normal_p(z: Floats) -> Floats:
    """Two-sided p value of a standard normal z: erfc(|z| / sqrt 2)."""
    return np.array([math.erfc(abs(value) / math.sqrt(2)) for value in z.tolist()])


def stratified_z(a: Floats, expected: Floats, variance: Floats) -> Floats:
    """Cochran-Mantel-Haenszel z = sum_s (a_s - E_s) / sqrt(sum_s V_s) from sums over the strata; 0 where V is 0.

    Stratum s has N_s questions, Y_s refusals, m_s questions with the cue and a_s refusals among these:
    E_s = m_s Y_s / N_s, V_s = m_s (N_s - m_s) Y_s (N_s - Y_s) / (N_s^2 (N_s - 1)). No continuity correction.
    Source: Mantel and Haenszel 1959, JNCI 22:719-748.
    """
    z = np.zeros(len(a))
    there = variance > 1e-12
    z[there] = (a - expected)[there] / np.sqrt(variance[there])
    return z


def kish(weight: Floats, squares: Floats) -> Floats:
    """Effective sample size (sum w)^2 / sum w^2 from the sums of weights and of their squares; 0 where there are none.

    As many rows of equal weight would give as narrow an interval. Source: Kish 1965, Survey Sampling, section 11.7.
    """
    there = squares > 0
    result = np.zeros(len(weight))
    result[there] = weight[there] ** 2 / squares[there]
    return result


def weighted_z(sums: Floats, total: Floats) -> Floats:
    """Score statistic that a cue and refusal have nothing to do with one another, rows having weights.

    T = sum_i w_i (x_i - x) (y_i - y) over sqrt(sum_i (w_i (x_i - x) (y_i - y))^2), x and y the weighted means of "has
    the cue" and "is refused": the design-based variance (Binder 1983, International Statistical Review 51:279-292).
    `sums` has a row for each cue: sum of w and of w y, of w^2 and of w^2 y, over the rows with the cue; `total` is the
    same of all rows. With equal weights its square is near Pearson's chi-square.
    """
    weight, refused, squares, squares_refused = sums.T
    base, share = total[1] / total[0], weight / total[0]
    own = squares_refused * (1 - base) ** 2 + (squares - squares_refused) * base**2
    every = total[3] * (1 - base) ** 2 + (total[2] - total[3]) * base**2
    variance = own * (1 - share) ** 2 + (every - own) * share**2
    return _over_root(refused - base * weight, variance, float(every))


def _over_root(value: Floats, variance: Floats, scale: float) -> Floats:
    """value / sqrt(variance); 0 where the variance is only what rounding left."""
    there = variance > 1e-12 * scale
    z = np.zeros(len(value))
    z[there] = value[there] / np.sqrt(variance[there])
    return z


def auc(scores: Floats, labels: NDArray[np.bool_], weights: Floats | None = None) -> float | None:
    """Chance that a refused question scores higher than an answered one, ties counted half; None for one class.

    The Mann-Whitney statistic divided by the number of pairs; with weights each pair weighs the product of its two.
    """
    weigh = np.ones(len(scores)) if weights is None else weights
    values, where = np.unique(scores, return_inverse=True)
    refused = np.bincount(where, weigh * labels, minlength=len(values))
    answered = np.bincount(where, weigh * ~labels, minlength=len(values))
    pairs = refused.sum() * answered.sum()
    if pairs == 0:
        return None
    below = np.cumsum(answered) - answered
    return float((refused * (below + answered / 2)).sum() / pairs)


def clustered_interval(
    correct: NDArray[np.bool_], clusters: NDArray[np.int64], weights: Floats | None = None, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Share of correct rows with the ends of its interval, rows of one cluster taken as not independent.

    Linearised ratio: Var = C/(C-1) sum_c (sum_{i in c} w_i (x_i - rate))^2 / (sum w)^2, C clusters, ends at
    rate -+ z sqrt(Var) cut to [0, 1]. `clusters` are numbered from 0 without a gap. Source: Cochran 1977, Sampling
    Techniques, section 9A; Miller 2024, arXiv 2411.00640. Where all clusters agree (all rows are right, or half of each
    pair) that has no width: Wilson's interval is given, with as many trials as there effectively are clusters (Kish:
    their number where all weigh alike).
    """
    weigh = np.ones(len(correct)) if weights is None else weights
    total = float(weigh.sum())
    rate = float((weigh * correct).sum() / total)
    count = int(clusters.max()) + 1
    residual = np.bincount(clusters, weigh * (correct - rate), minlength=count)
    if count < 2 or bool((np.abs(residual) <= 1e-12 * total).all()):
        trials = _effective(np.bincount(clusters, weigh).astype(np.float64))
        low, high = wilson_many(rate * trials, trials, confidence)
        return rate, min(rate, float(low[0])), max(rate, float(high[0]))
    error = math.sqrt(count / (count - 1) * float((residual**2).sum())) / total
    z = statistics.NormalDist().inv_cdf(0.5 + confidence / 2)
    return rate, max(0.0, rate - z * error), min(1.0, rate + z * error)


def _effective(weight: Floats) -> Floats:
    return kish(np.array([weight.sum()]), np.array([(weight**2).sum()]))
