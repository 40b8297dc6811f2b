"""Is a word more than the company it keeps? Its refusals are compared among questions with the same content.

A function word can go with refusal only because it goes with content: "near" where it is asked what lies near, "how"
where it is asked how to do harm. So each cue without content is tested within strata of questions that are alike in
content, and called a shortcut only if it still moves the refusal rate there.
"""

from __future__ import annotations

import numpy as np

from unmirage.audit.evidence import Floats, stratified_z
from unmirage.audit.score import folds_of, word_log_odds
from unmirage.audit.tally import Bag, Presence, mixed, row_sums
from unmirage.audit.words import Bools, Ints, Tokens

BINS = 20
ALIKE = 2


def strata_of(bag: Bag, words: Presence, content: Bools) -> tuple[Ints, Floats]:
    """Stratum of each row, a small number, and the log-odds of refusal that its content words give.

    Rows whose content words are the same, in any order, are a stratum; a row that has no second one like it falls into
    one of 20 bins of equal size by its content's cross-validated log-odds: subclassification on a prognostic score
    (Hansen 2008, Biometrika 95:481-488). `content` has one entry for each word of the bag.
    """
    odds = word_log_odds(words, words.content, bag.labels, folds_of(bag.groups), bag.weights)
    signature = np.zeros(len(bag), dtype=np.uint64)
    for first, inside, block in bag.tokens.blocks():
        hashes = np.where(content[inside], mixed(block.codes.astype(np.uint64)), np.uint64(0))
        signature[first : first + len(block.lengths)] = row_sums(hashes, block)
    _, alike, count = np.unique(signature, return_inverse=True, return_counts=True)
    single = count[alike] < ALIKE
    strata = alike.astype(np.int64)
    strata[single] = len(count) + _bins(odds[single])
    return strata, odds


def _bins(values: Floats) -> Ints:
    if not len(values):
        return np.zeros(0, dtype=np.int64)
    edges = np.quantile(values, np.arange(1, BINS) / BINS)
    return np.searchsorted(edges, values).astype(np.int64)


def within_strata(rows: Ints, cues: Ints, size: int, strata: Ints, labels: Bools) -> Floats:
    """Cochran-Mantel-Haenszel z of each of `size` cues; `rows` and `cues` are the pairs in which a row has a cue.

    0 where no stratum has rows both with and without the cue and both refused and answered: there the cue and the
    content cannot be told apart.
    """
    width = int(strata.max(initial=0)) + 1
    n_of, k_of = np.bincount(strata, minlength=width), np.bincount(strata, labels, minlength=width)
    # Sorted by cue, stratum and label at once: much faster than to number the cells first.
    pairs = np.sort((cues * width + strata[rows]) << 1 | labels[rows])
    heads = np.flatnonzero(np.concatenate([[True], pairs[1:] >> 1 != pairs[:-1] >> 1])) if len(pairs) else pairs
    cells = pairs[heads] >> 1
    m = np.diff(np.append(heads, len(pairs))).astype(np.float64)
    a = np.add.reduceat(pairs & 1, heads).astype(np.float64) if len(pairs) else m
    stratum, cue = cells % width, cells // width
    n, k = n_of[stratum].astype(np.float64), k_of[stratum]
    expected = m * k / n
    variance = m * (n - m) * k * (n - k) / np.maximum(n * n * (n - 1), 1.0)
    sums = [np.bincount(cue, values, minlength=size).astype(np.float64) for values in (a, expected, variance)]
    return stratified_z(sums[0], sums[1], sums[2])


def within_weighted_strata(
    rows: Ints, cues: Ints, size: int, strata: Ints, labels: Bools, weights: Floats
) -> Floats:  # fmt: skip
    """The same where rows have weights: the statistic of `evidence.weighted_z`, summed over the strata.

    T = sum_s sum_i w_i (x_i - x_s) (y_i - y_s) over the root of
    sum_s N_s / (N_s - 1) sum_i (w_i (x_i - x_s) (y_i - y_s))^2, with x_s and y_s the weighted means of stratum s, which
    has N_s rows.
    """
    width = int(strata.max(initial=0)) + 1
    n_of, w_of = np.bincount(strata, minlength=width), np.bincount(strata, weights, minlength=width)
    base = np.bincount(strata, weights * labels, minlength=width) / np.maximum(w_of, 1e-300)
    rest = weights * (labels - base[strata])
    every = np.bincount(strata, rest**2, minlength=width)
    cells, where = np.unique(cues * width + strata[rows], return_inverse=True)
    share, moved, own = (np.bincount(where, values[rows], len(cells)) for values in (weights, rest, rest**2))
    stratum, cue = cells % width, cells // width
    share = share / np.maximum(w_of[stratum], 1e-300)
    spread = own * (1 - share) ** 2 + np.maximum(0.0, every[stratum] - own) * share**2
    variance = spread * n_of[stratum] / np.maximum(n_of[stratum] - 1, 1)
    sums = [np.bincount(cue, values, minlength=size).astype(np.float64) for values in (moved, variance)]
    return stratified_z(sums[0], np.zeros(size), sums[1])


def content_mask(tokens: Tokens, head: Bools, function: Bools) -> Bools:
    """Which words are content: no function words, and no instruction words at the head of a question."""
    return ~head & ~function[tokens.codes]
