"""How far two raters agree, and a rate corrected for what its judge gets wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unmirage.stats.checks import Interval, checked_confidence, normal_quantile
from unmirage.stats.rates import check_weights, kish_number, wilson


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
    half = normal_quantile(confidence) * math.sqrt(_kappa_variance(p, rows, columns, kappa, expected) / n)
    return Interval(kappa, max(-1.0, kappa - half), min(1.0, kappa + half), n)


def weighted_kappa(
    pairs: Sequence[tuple[int, int]],
    weights: Sequence[float],
    resamples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval | None:
    """Cohen's kappa of items drawn with unequal chances, w_i = 1 / chance of a draw, in [-1, 1].

    `pairs[i]` are the classes 0, 1, ... that two raters put item i into; kappa is that of the table of summed weights
    (all disagreements count alike: the weights are of items, not of classes). Interval: percentiles over resamples of
    the items with their weights; a resample that leaves kappa open, as both put all into one class, counts as -1 for
    the low end and as 1 for the high end. `n` is the effective number of items, as in `weighted_rate`. None as for
    `cohen_kappa`; like it without a width where many items and no disagreement are seen. Source: Efron and Tibshirani
    1993, An Introduction to the Bootstrap, section 13.3.
    Raises ValueError unless there is a weight for every pair and at least one, all weights are finite and > 0, no class
    is below 0 and resamples >= 1.
    """
    check_weights(len(pairs), weights)
    if resamples < 1 or min(map(min, pairs)) < 0:
        raise ValueError(f"classes are counted from 0 and resamples are at least 1, here {resamples}")
    classes = 1 + max(map(max, pairs))
    rows = np.array([(one * classes + other, weight) for (one, other), weight in zip(pairs, weights, strict=True)])
    kinds, often = np.unique(rows, axis=0, return_counts=True)
    cells = np.zeros((len(kinds), classes**2))
    cells[np.arange(len(kinds)), kinds[:, 0].astype(int)] = kinds[:, 1]
    value = float(_kappas((often @ cells).reshape(1, classes, classes))[0])
    if math.isnan(value):
        return None
    found = _resampled_kappas(cells, often, resamples, np.random.default_rng(seed))
    tail = (1 - checked_confidence(confidence)) / 2
    low, high = (np.quantile(np.nan_to_num(found, nan=end), at) for end, at in ((-1.0, tail), (1.0, 1 - tail)))
    return Interval(value, float(low), float(high), int(kish_number(weights)))


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
    tail = (1 - checked_confidence(confidence)) / 2
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


def _kappas(tables: NDArray[np.float64]) -> NDArray[np.float64]:
    """Kappa of tables of shape (tables, classes, classes); not a number where both raters used one class alone."""
    p = tables / tables.sum(axis=(1, 2), keepdims=True)
    expected = np.sum(p.sum(axis=1) * p.sum(axis=2), axis=1)
    agreed = np.trace(p, axis1=1, axis2=2)
    left = 1 - expected
    return np.where(left > 1e-12, (agreed - expected) / np.where(left > 1e-12, left, 1), np.nan)


def _resampled_kappas(
    cells: NDArray[np.float64], often: NDArray[np.int64], resamples: int, random: np.random.Generator
) -> NDArray[np.float64]:
    """Kappas of redrawn items, shape (resamples,); `cells` (kinds, classes^2) is what an item of each kind adds."""
    n, classes = int(often.sum()), math.isqrt(cells.shape[1])
    block = max(1, 2_000_000 // len(cells))  # bounds the memory
    found = []
    for start in range(0, resamples, block):
        drawn = random.multinomial(n, often / n, size=min(block, resamples - start))
        found.append(_kappas((drawn @ cells).reshape(-1, classes, classes)))
    return np.concatenate(found)


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
