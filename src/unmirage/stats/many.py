"""Corrections for many tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


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


def _checked_ps(ps: Sequence[float]) -> NDArray[np.float64]:
    p = np.asarray(ps, dtype=np.float64)
    if not np.all((p >= 0) & (p <= 1)):
        raise ValueError("p values lie in [0, 1]")
    return p


def _in_order_of(order: NDArray[np.intp], adjusted: NDArray[np.float64]) -> list[float]:
    """Put values that follow `order` back to where they came from."""
    result = np.empty_like(adjusted)
    result[order] = adjusted
    return [float(value) for value in result]
