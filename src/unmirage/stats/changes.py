"""Two means over the same items, which may belong together in clusters: their difference, tested."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unmirage.stats.checks import check_finite, check_scores
from unmirage.stats.clusters import clustered_difference
from unmirage.stats.pairs import mcnemar_exact, paired_difference


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


def paired_change(
    before: Sequence[float],
    after: Sequence[float],
    clusters: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
) -> Change:
    """Mean of after minus mean of before over the same items, all values in [0, 1], with interval and test.

    `clusters` names for each item the unit it belongs to; None where all are independent. Where every value is 0 or 1
    and every item its own unit: `paired_difference` (Newcombe) and `mcnemar_exact`. Else
    `clustered_difference`, and the signs of whole units flipped (`sign_flip`). `n` counts the items.
    Raises ValueError where the lengths differ or are 0, or a value lies outside [0, 1].
    """
    units = checked_pairs(before, after, clusters)
    gained = sum(a > b for b, a in zip(before, after, strict=True))
    lost = sum(a < b for b, a in zip(before, after, strict=True))
    if units is None and is_binary(before, after):
        found = paired_difference([b > 0 for b in before], [a > 0 for a in after], confidence)
        return Change(found.value, found.low, found.high, len(after), mcnemar_exact(gained, lost), gained, lost)
    differences = differences_of(before, after, units)
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
        check_finite(values)
    sums = np.array([total for values in differences_by_cluster.values() if abs(total := math.fsum(values)) > 1e-12])
    seen = abs(float(sums.sum())) - 1e-9
    if len(sums) <= 16:
        return float(np.mean(np.abs(_all_signed(sums)) >= seen))
    sums.sort()  # the drawn signs then do not depend on the order of the clusters
    hits = _signed_hits(sums, seen, resamples, np.random.default_rng(seed))
    return (1 + hits) / (1 + resamples)


def checked_pairs(
    before: Sequence[float], after: Sequence[float], clusters: Sequence[Hashable] | None
) -> Sequence[Hashable] | None:
    """The unit of each item; None where every item is its own."""
    if len(before) != len(after) or (clusters is not None and len(clusters) != len(after)):
        raise ValueError(f"pairs need as many items before as after, here {len(before)} and {len(after)}")
    check_scores(before)
    check_scores(after)
    return None if clusters is None or len(set(clusters)) == len(clusters) else clusters


def is_binary(*several: Sequence[float]) -> bool:
    """Whether every value is 0 or 1."""
    return all(value in (0, 1) for values in several for value in values)


def differences_of(
    before: Sequence[float], after: Sequence[float], units: Sequence[Hashable] | None
) -> dict[Hashable, list[float]]:
    """After minus before of each item, by its unit; where `units` is None each item is its own."""
    found: dict[Hashable, list[float]] = defaultdict(list)
    for unit, b, a in zip(units if units is not None else range(len(after)), before, after, strict=True):
        found[unit].append(float(a) - float(b))
    return dict(found)


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
