"""The mirage score and its companions: how well a part of the question predicts refusal on questions not learnt from.

Ten folds; all rows of a group (one image, or one question but for its opening word) lie in one fold, so that a twin is
never predicted from its twin. The majority rate is what one gets without looking at the question.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unmirage.audit.evidence import Floats, auc, clustered_interval, kish
from unmirage.audit.tally import Bag, Keys, Presence, mixed
from unmirage.audit.words import BLOCK, Bools, Ints, Tokens

FOLDS = 10
_NONE = 1e-9
"""What rounding leaves of a sum of weights from which all of them are taken again."""
PRIOR = 10.0
"""Rows of the base rate that are added to every opening: as many as a cue needs to be listed."""


@dataclass(frozen=True)
class Score:
    """Cross-validated accuracy of one predictor with a 95% interval, and the majority rate beside it.

    `gain` is the share of the majority's errors that the predictor avoids (Goodman and Kruskal's lambda, but on
    questions not learnt from): 0 is no better than the majority, 1 is perfect. `auc` does not depend on how frequent
    refusals are; None where there is only one class.
    """

    name: str
    value: float
    low: float
    high: float
    majority: float
    gain: float
    auc: float | None
    n: int
    groups: int


def folds_of(groups: Keys) -> Ints:
    """Fold of each row, the same for all rows of a group and on every machine."""
    return (mixed(groups) % np.uint64(FOLDS)).astype(np.int64)


def opening_rates(features: list[Ints], labels: Bools, folds: Ints, weights: Floats | None = None) -> Floats:
    """Predicted refusal rate of each row from its features, learnt from the other folds.

    rate_j = (k_j + m rate_{j-1}) / (n_j + m), m = 10: n_j rows of the other folds share the first j features with the
    row, k_j of them are refused, and rate_0 is the base rate. A feature not seen before thus falls back to a shorter
    opening. Source: m-estimate, Cestnik 1990; Micci-Barreca 2001, SIGKDD Explorations 3:27-32.
    """
    return _opening_rates(features, labels, folds, weights)[0]


def _opening_rates(features: list[Ints], labels: Bools, folds: Ints, weights: Floats | None) -> tuple[Floats, Floats]:
    """The rates, and how many of the other folds' rows have the same first feature (with weights: effectively)."""
    weigh = np.ones(len(labels)) if weights is None else weights
    refused = weigh * labels
    in_fold = np.bincount(folds, weigh, FOLDS), np.bincount(folds, refused, FOLDS)
    base = (in_fold[1].sum() - in_fold[1]) / np.maximum(in_fold[0].sum() - in_fold[0], 1e-300)
    rate, support = base[folds], np.zeros(len(labels))
    for place, feature in enumerate(features):
        # What only one row has cannot be learnt from other rows, and long openings are mostly such.
        rows, code, size = _repeated(feature)
        fold, cell = folds[rows], code * FOLDS + folds[rows]
        n = np.bincount(cell, weigh[rows], size * FOLDS).reshape(-1, FOLDS)
        k = np.bincount(cell, refused[rows], size * FOLDS).reshape(-1, FOLDS)
        n_rest, k_rest = n.sum(axis=1)[code] - n[code, fold], k.sum(axis=1)[code] - k[code, fold]
        rate[rows] = (k_rest + PRIOR * rate[rows]) / (n_rest + PRIOR)
        if place == 0 and weights is None:
            support[rows] = n_rest
        elif place == 0:
            squares = np.bincount(cell, weigh[rows] ** 2, size * FOLDS).reshape(-1, FOLDS)
            support[rows] = kish(n_rest, squares.sum(axis=1)[code] - squares[code, fold])
    return rate, support


def _repeated(feature: Ints) -> tuple[Ints, Ints, int]:
    """The rows whose feature another row has too, these features numbered from 0, and how many they are."""
    _, code, count = np.unique(feature, return_inverse=True, return_counts=True)
    number = np.cumsum(count > 1) - 1
    rows = np.flatnonzero(count[code] > 1)
    return rows, number[code[rows]], int((count > 1).sum())


def opening_score(name: str, features: list[Ints], bag: Bag) -> Score:
    """Score of the rule "refused if the predicted rate is above one half".

    Within one standard error of one half, 1 / (2 sqrt(n + m)) with n rows of the opening word, the majority decides:
    without that, an opening word that says nothing would be told by chance, and a little worse than by the majority.
    """
    folds = folds_of(bag.groups)
    rates, support = _opening_rates(features, bag.labels, folds, bag.weights)
    tie = np.abs(rates - 0.5) <= 0.5 / np.sqrt(support + PRIOR)
    frequent = float(np.average(bag.labels, weights=bag.weights)) > 0.5
    return _score(name, np.where(tie, frequent, rates > 0.5), rates, bag)


def openings(tokens: Tokens, length: int) -> list[Ints]:
    """Features of a row's first one, first two, ... words: equal numbers for equal openings."""
    features = [tokens.nth(0)]
    for place in range(1, length):
        _, before = np.unique(features[-1], return_inverse=True)
        following = tokens.nth(place) + 1
        features.append(before.astype(np.int64) * (int(following.max(initial=0)) + 1) + following)
    return features


def word_log_odds(
    words: Presence, keep: Bools, labels: Bools, folds: Ints, weights: Floats | None = None
) -> Floats:  # fmt: skip
    """Log-odds of refusal of each row by naive Bayes on its words, learnt from the other folds; only words in `keep`.

    log P(1)/P(0) + sum_{w in row} log P(w|1)/P(w|0), P(w|y) = (n_wy + 1) / (sum_v n_vy + V): multinomial naive Bayes
    on presence with Laplace's prior, V the words of the other folds. `keep` has one entry for each word of `words`.
    With weights, whose mean is 1, the counts n are sums of weights.
    """
    size = int(words.codes.max(initial=0)) + 1
    n, k = np.zeros(size * FOLDS), np.zeros(size * FOLDS)
    blocks = list(_blocks(words.rows, len(labels)))
    for _, _, inside in blocks:
        cells, rows = _cells(words, keep, folds, inside)
        weigh = None if weights is None else weights[rows]
        refused = labels[rows]
        n += np.bincount(cells, weigh, minlength=len(n))
        k += np.bincount(cells[refused], None if weigh is None else weigh[refused], minlength=len(k))
    of_words = _fold_weights(n.reshape(size, FOLDS), k.reshape(size, FOLDS)).ravel()
    odds = _priors(labels, folds, weights)[folds]
    for first, last, inside in blocks:
        cells, rows = _cells(words, keep, folds, inside)
        odds[first:last] += np.bincount(rows - first, of_words[cells], minlength=last - first)
    return odds


def _blocks(rows: NDArray[np.int32], count: int) -> Iterator[tuple[int, int, slice]]:
    """First and last row (not included) of each block of rows, and where its words stand."""
    for first in range(0, count, BLOCK):
        last = min(first + BLOCK, count)
        start, stop = np.searchsorted(rows, np.array([first, last], dtype=rows.dtype))
        yield first, last, slice(int(start), int(stop))


def _cells(words: Presence, keep: Bools, folds: Ints, inside: slice) -> tuple[Ints, NDArray[np.int32]]:
    """Number of word and fold of the kept words of a block, and their rows."""
    chosen = keep[inside]
    rows = words.rows[inside][chosen]
    return words.codes[inside][chosen].astype(np.int64) * FOLDS + folds[rows], rows


def _fold_weights(n: Floats, k: Floats) -> Floats:
    """What each word adds to the log-odds in each fold; counts and weights have the shape (words, folds)."""
    weights = np.zeros(n.shape)
    n_all, k_all = n.sum(axis=1), k.sum(axis=1)
    for fold in range(FOLDS):
        refused = k_all - k[:, fold]
        weights[:, fold] = _log_ratio(refused, n_all - n[:, fold] - refused)
    return weights


def _priors(labels: Bools, folds: Ints, weights: Floats | None) -> Floats:
    """Log-odds of refusal among the rows outside of each fold."""
    weigh = np.ones(len(labels)) if weights is None else weights
    n, k = np.bincount(folds, weigh, minlength=FOLDS), np.bincount(folds, weigh * labels, minlength=FOLDS)
    refused = k.sum() - k
    answered = n.sum() - n - refused
    return np.asarray(np.log(np.maximum(refused, 1e-300)) - np.log(np.maximum(answered, 1e-300)), dtype=np.float64)


def _log_ratio(refused: Floats, answered: Floats) -> Floats:
    there = refused + answered > _NONE
    size = int(there.sum())
    if not size:
        return np.zeros(len(refused))
    weight = np.log((refused + 1) / (refused.sum() + size)) - np.log((answered + 1) / (answered.sum() + size))
    # A word that the other folds lack has no counts there and says nothing.
    return np.where(there, weight, 0.0)


def words_score(name: str, odds: Floats, bag: Bag) -> Score:
    """Score of the rule "refused above a threshold"; each fold's threshold is the best one on the other folds.

    Naive Bayes counts words that go together twice, so its odds rank well but are not to be cut at zero. Where no
    threshold is better than the majority by more than one standard error, the majority decides.
    """
    folds = folds_of(bag.groups)
    order = np.argsort(odds)
    weigh = (np.ones(len(bag)) if bag.weights is None else bag.weights)[order]
    toward = np.where(bag.labels[order], -weigh, weigh)
    cuts = _best_cuts(odds[order], toward, folds[order])
    return _score(name, odds > cuts[folds], odds, bag)


def _best_cuts(odds: Floats, toward: Floats, folds: Ints) -> Floats:
    """For each fold the threshold with the most weight on the right side in the others; infinite for the majority.

    Rows come in ascending order of `odds`; `toward` is the weight that a row adds when it falls below the threshold.
    """
    ends = np.flatnonzero(np.concatenate([odds[1:] != odds[:-1], [True]]))
    answered = toward.sum() >= 0
    cuts = np.full(FOLDS, np.inf if answered else -np.inf)
    for fold in range(FOLDS):
        rest = np.where(folds == fold, 0.0, toward)
        gain = np.cumsum(rest)[ends]
        best = int(np.argmax(gain))
        above = gain[best] - (gain[-1] if answered else 0.0)
        if above > 0.5 * np.sqrt((rest * rest).sum()) and ends[best] < len(odds) - 1:
            cuts[fold] = (odds[ends[best]] + odds[ends[best] + 1]) / 2
    return cuts


def _score(name: str, predicted: NDArray[np.bool_], ranking: Floats, bag: Bag) -> Score:
    correct, weights = predicted == bag.labels, bag.weights
    value, low, high = clustered_interval(correct, bag.clusters, weights)
    rate = float(np.average(bag.labels, weights=weights))
    majority = max(rate, 1 - rate)
    gain = (value - majority) / (1 - majority) if majority < 1 else 0.0
    area = auc(ranking, bag.labels, weights)
    return Score(name, value, low, high, majority, gain, area, len(bag), int(bag.clusters.max()) + 1)
