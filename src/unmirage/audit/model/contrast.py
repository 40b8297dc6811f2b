"""Statistics of one word against several control words at the same place, on the same questions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unmirage.stats import Interval

_Z = 1.959963984540054
STEPS = 2
"""Outcomes lie on the grid 0, 1/2, 1."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """Mean outcome of a word minus that of its controls, with interval and exact p; `control` is the controls' mean."""

    difference: Interval
    control: float
    p: float


def contrast(word: Sequence[float], controls: Sequence[Sequence[float]]) -> Contrast:
    """A word's outcomes, one for each question, against the outcomes of the control words on the same question.

    Outcomes are 0, 1/2 or 1. Raises ValueError where there is no question, or a question has no control.
    """
    if not word or len(word) != len(controls) or not all(controls):
        raise ValueError(f"a contrast needs questions with controls each, here {len(word)} and {len(controls)}")
    means = [sum(values) / len(values) for values in controls]
    return Contrast(mean_difference(word, means), sum(means) / len(means), exchange_p(word, controls))


def mean_difference(one: Sequence[float], other: Sequence[float]) -> Interval:
    """Mean of `one` minus mean of `other`, paired values in [0, 1], with an interval in [-1, 1].

    Agresti and Min 2005, Statistics in Medicine 24:729-740, section 4, for values between 0 and 1 too: two pairs are
    added, half a pair each of difference 1, -1, 0 and 0, then m -+ z sqrt(v / (n + 2)) with
    m = sum d / (n + 2) and v = (sum d^2 + 1) / (n + 2) - m^2. It has a width where all differences are equal.
    """
    differences = np.asarray(one, dtype=np.float64) - np.asarray(other, dtype=np.float64)
    n, value = len(differences), float(differences.mean())
    middle = float(differences.sum()) / (n + 2)
    variance = (float((differences**2).sum()) + 1) / (n + 2) - middle * middle
    half = _Z * math.sqrt(max(0.0, variance) / (n + 2))
    return Interval(value, max(-1.0, min(value, middle - half)), min(1.0, max(value, middle + half)), n)


def exchange_p(word: Sequence[float], controls: Sequence[Sequence[float]]) -> float:
    """Two-sided exact p that the word is one more control, in (0, 1].

    Were it, then on each question its outcome would be any of the k + 1 outcomes there with equal chance, whatever
    the other questions say. The sum of its outcomes then has a known distribution (the product of the questions'
    generating functions); p = min(1, 2 min(P(T <= t), P(T >= t))). With one control and yes-or-no outcomes this is
    McNemar's exact test; in general it is Fisher's randomisation test (The Design of Experiments, 1935, section 21).
    """
    pmf: NDArray[np.float64] = np.ones(1)
    for own, others in zip(word, controls, strict=True):
        steps = [_step(value) for value in (own, *others)]
        pmf = np.convolve(pmf, np.bincount(steps, minlength=STEPS + 1) / len(steps))
    total = sum(_step(value) for value in word)
    return float(min(1.0, 2 * min(pmf[: total + 1].sum(), pmf[total:].sum())))


def kappa(one: Sequence[bool], other: Sequence[bool]) -> float | None:
    """Cohen's kappa of two labellings; None where both always say the same one thing, which tells nothing.

    (p_o - p_e) / (1 - p_e), p_e the agreement by chance of the two marginals. Source: Cohen 1960, Educational and
    Psychological Measurement 20:37-46.
    """
    n = len(one)
    agreed = sum(a == b for a, b in zip(one, other, strict=True)) / n
    first, second = sum(one) / n, sum(other) / n
    chance = first * second + (1 - first) * (1 - second)
    return None if chance == 1 else (agreed - chance) / (1 - chance)


def _step(value: float) -> int:
    step = round(value * STEPS)
    if abs(step - value * STEPS) > 1e-9 or not 0 <= step <= STEPS:
        raise ValueError(f"an outcome is 0, 1/2 or 1, not {value}")
    return step
