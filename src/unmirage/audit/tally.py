"""Counting in one pass: how many questions have each word, pair of words and surface feature, and how many are refused.

The counts are of all rows. What needs the rows themselves (cross-validation, strata, examples) works on `Bag`, the
words of all rows or, of a long file, of a part that is drawn by a hash of the row's number.
"""

from __future__ import annotations

import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from unmirage.audit import surface
from unmirage.audit.evidence import Floats
from unmirage.audit.words import Bools, Codes, Ints, Tokens, Vocabulary, leading, split_words

MOST_PAIRS = 20_000_000
MOST_WORDS = 20_000_000
MERGE_AT = 2_000_000
_MIX = np.uint64(0x9E3779B97F4A7C15)

Keys = NDArray[np.uint64]
Counters = NDArray[np.int32]
Sums = NDArray[np.float64]
"""Sums over rows, four to a cue: of w, w y, w^2 and w^2 y, y being 1 for a refusal; without weights none to a cue."""


def powers(labels: Bools, weights: Floats | None) -> Sums:
    """What each row adds to `Sums`, shape (rows, 4); (rows, 0) where rows have no weights."""
    if weights is None:
        return np.zeros((len(labels), 0))
    return np.stack([weights, weights * labels, weights**2, weights**2 * labels], axis=1)


def summed(codes: NDArray[np.integer], rows: Sums, size: int) -> Sums:
    """Sums over the rows of each code."""
    columns = [np.bincount(codes, rows[:, column], minlength=size) for column in range(rows.shape[1])]
    return np.stack(columns, axis=1).astype(np.float64) if columns else np.zeros((size, 0))


@dataclass
class Counts:
    """Numbers `n` of questions and `k` of refusals among them, by code, and their `Sums`; grows as codes come."""

    n: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    k: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    sums: Sums = field(default_factory=lambda: np.zeros((0, 0)))

    def add(self, codes: NDArray[np.integer], labels: Bools, rows: Sums, size: int) -> None:
        """Count each code once, as refused where its label is true; `size` is one more than the largest code.

        `rows` is what `powers` gives for the row of each code.
        """
        self.n = _grown(self.n, size) + np.bincount(codes, minlength=size)
        self.k = _grown(self.k, size) + np.bincount(codes[labels], minlength=size)
        new = summed(codes, rows, size)
        new[: len(self.sums)] += self.sums if self.sums.shape[1] else 0.0
        self.sums = new


@dataclass
class PairCounts:
    """The same for pairs of neighbouring words, under keys first * 2**32 + second, in ascending order."""

    keys: Keys = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    n: Counters = field(default_factory=lambda: np.zeros(0, dtype=np.int32))
    k: Counters = field(default_factory=lambda: np.zeros(0, dtype=np.int32))
    sums: Sums | None = None
    pruned: bool = False
    _waiting: list[tuple[Keys, Counters, Counters, Sums]] = field(default_factory=list)

    def add(self, keys: Keys, n: Counters, k: Counters, sums: Sums) -> None:
        """Add counts under distinct keys."""
        self._waiting.append((keys, n, k, sums))
        if sum(len(part[0]) for part in self._waiting) > MERGE_AT:
            self.merge()

    def merge(self) -> None:
        """Put in what came since the last time; must be called before the counts are read."""
        if not self._waiting:
            return
        keys, n, k, sums = self._taken()
        held = np.zeros((0, sums.shape[1])) if self.sums is None else self.sums
        place = np.searchsorted(self.keys, keys)
        known = np.zeros(len(keys), dtype=np.bool_)
        inside = place < len(self.keys)
        known[inside] = self.keys[place[inside]] == keys[inside]
        self.n[place[known]] += n[known]
        self.k[place[known]] += k[known]
        held[place[known]] += sums[known]
        self.keys = np.insert(self.keys, place[~known], keys[~known])
        self.n = np.insert(self.n, place[~known], n[~known])
        self.k = np.insert(self.k, place[~known], k[~known])
        self.sums = np.insert(held, place[~known], sums[~known], axis=0)
        if len(self.keys) > MOST_PAIRS:
            keep = self.n > 1
            self.keys, self.n, self.k, self.pruned = self.keys[keep], self.n[keep], self.k[keep], True
            self.sums = self.sums[keep]

    def _taken(self) -> tuple[Keys, Counters, Counters, Sums]:
        """What waits, each key once and in ascending order; nothing waits afterwards."""
        keys, n, k, sums = (np.concatenate([part[place] for part in self._waiting]) for place in range(4))
        self._waiting = []
        order = np.argsort(keys)
        keys = keys[order]
        heads = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else order
        if not len(heads):
            return keys, n, k, sums
        n, k = np.add.reduceat(n[order], heads), np.add.reduceat(k[order], heads)
        return keys[heads], n, k, np.add.reduceat(sums[order], heads, axis=0) if sums.shape[1] else sums[heads]


@dataclass(frozen=True)
class Presence:
    """Which row has which word, in the order of rows and codes; a word is there twice where it is content and not."""

    rows: NDArray[np.int32]
    codes: Codes
    content: Bools

    @staticmethod
    def of(tokens: Tokens, content: Bools) -> Presence:
        """The words of some rows; `content` has one entry for each word of `tokens`."""
        parts = [(np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.uint32))]
        for first, inside, block in tokens.blocks():
            low = block.codes.astype(np.uint64) << np.uint64(1) | content[inside]
            keys = distinct(block.rows.astype(np.uint64) << np.uint64(32) | low)
            parts.append(((keys >> np.uint64(32)).astype(np.int32) + np.int32(first), keys.astype(np.uint32)))
        rows, codes = (np.concatenate([part[place] for part in parts]) for place in range(2))
        return Presence(rows, codes >> np.uint32(1), (codes & np.uint32(1)).astype(np.bool_))

    def words(self) -> tuple[NDArray[np.int32], Codes]:
        """Rows and codes, each word once a row."""
        if not len(self.rows):
            return self.rows, self.codes
        same = (self.rows[1:] == self.rows[:-1]) & (self.codes[1:] == self.codes[:-1])
        keep = np.concatenate([[True], ~same])
        return self.rows[keep], self.codes[keep]


@dataclass
class Bag:
    """Rows with their words: label, hashes of image (0 where there is none) and of the question behind its opening
    word, surface bits, where they stand, and a weight each (None: all rows weigh alike).
    """

    tokens: Tokens
    labels: Bools
    images: Keys
    texts: Keys
    bits: surface.Bits
    files: NDArray[np.int32]
    rows: Ints
    weights: Floats | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def grouping(self) -> Grouping:
        """Which rows may not be torn apart."""
        return grouped(self.images, self.texts)

    @property
    def groups(self) -> Keys:
        """The group of each row, equal on every machine."""
        return self.grouping.keys

    @cached_property
    def clusters(self) -> Ints:
        """The group of each row, numbered from 0."""
        return np.unique(self.groups, return_inverse=True)[1].astype(np.int64)

    def select(self, keep: Bools) -> Bag:
        """Only the rows where `keep` is true."""
        rest = {name: getattr(self, name)[keep] for name in _COLUMNS}
        weights = None if self.weights is None else self.weights[keep]
        return Bag(self.tokens.select(keep), **rest, weights=weights)

    @staticmethod
    def joined(parts: list[Bag]) -> Bag:
        """The rows of all parts, in order; the mean of their weights becomes 1."""
        rest = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS}
        weights = [part.weights for part in parts if part.weights is not None]
        joined = np.concatenate(weights) if weights else None
        mean_one = None if joined is None else joined / joined.mean()
        return Bag(Tokens.joined([part.tokens for part in parts]), **rest, weights=mean_one)


_COLUMNS = ("labels", "images", "texts", "bits", "files", "rows")


@dataclass
class Sample:
    """All rows, or each second, fourth, ... by hash once they would hold more than so many words."""

    parts: list[Bag] = field(default_factory=list)
    one_in: int = 1
    words: int = 0

    def add(self, bag: Bag) -> None:
        """Keep the rows of a bag that fall into the sample."""
        self._keep(bag)
        while self.words > MOST_WORDS:
            self.one_in *= 2
            held, self.parts, self.words = self.parts, [], 0
            for part in held:
                self._keep(part)

    def _keep(self, bag: Bag) -> None:
        if self.one_in > 1:
            bag = bag.select(mixed(bag.rows.astype(np.uint64)) % np.uint64(self.one_in) == 0)
        self.parts.append(bag)
        self.words += len(bag.tokens.codes)


@dataclass
class Tally:
    """All counts of one audit."""

    vocabulary: Vocabulary
    n: int = 0
    k: int = 0
    sums: Floats = field(default_factory=lambda: np.zeros(0))
    opening: Counts = field(default_factory=Counts)
    anywhere: Counts = field(default_factory=Counts)
    leading: Counts = field(default_factory=Counts)
    pairs: PairCounts = field(default_factory=PairCounts)
    surface: Counts = field(default_factory=Counts)
    sample: Sample = field(default_factory=Sample)

    @property
    def base_rate(self) -> float:
        """Share of refusals, weighted where rows have weights."""
        return float(self.sums[1] / self.sums[0]) if len(self.sums) else self.k / self.n

    @property
    def n_effective(self) -> float | None:
        """Kish's effective sample size of all rows; None where they have no weights."""
        return float(self.sums[0] ** 2 / self.sums[2]) if len(self.sums) else None

    def add(self, frame: pl.DataFrame, lists: pl.Series | None = None) -> Tokens:
        """Count the rows of a frame, all with a question and a label; returns their words.

        `lists` are the questions as `split_words` splits them, where that has been done. Rows have weights all or none.
        """
        tokens = self.vocabulary.encode_lists(split_words(frame["question"]) if lists is None else lists)
        labels = frame["label"].to_numpy().astype(np.bool_)
        weights = frame["weight"].to_numpy() if len(frame) and frame["weight"].null_count() == 0 else None
        size, rows = len(self.vocabulary), powers(labels, weights)
        self.n += len(labels)
        self.k += int(labels.sum())
        self.sums = rows.sum(axis=0) + (self.sums if len(self.sums) else 0.0)
        with ThreadPoolExecutor(1) as pool:  # beside the counting of words; numpy lets both work at once
            pairs = pool.submit(_pair_counts, tokens, labels, rows)
            keys = pool.submit(_image_keys, frame), pool.submit(_text_keys, tokens)
            self._count_words(tokens, labels, rows, size)
            bits = surface.surface_bits(frame, tokens, self.vocabulary)
            self._count_surface(bits, labels, rows)
            self.pairs.add(*pairs.result())
            files, numbers = frame["file"].to_numpy(), frame["row"].to_numpy()
            images, texts = (key.result() for key in keys)
            self.sample.add(Bag(tokens, labels, images, texts, bits, files, numbers, weights))
        return tokens

    def _count_words(self, tokens: Tokens, labels: Bools, sums: Sums, size: int) -> None:
        there = tokens.nth(0) >= 0
        self.opening.add(tokens.nth(0)[there], labels[there], sums[there], size)
        rows, codes = distinct_words(tokens)
        self.anywhere.add(codes, labels[rows], sums[rows], size)
        head = leading(tokens, self.vocabulary.heads()) if len(tokens.codes) else np.zeros(0, dtype=np.bool_)
        self.leading.add(tokens.codes[head], labels[tokens.rows[head]], np.zeros((int(head.sum()), 0)), size)

    def _count_surface(self, bits: NDArray[np.uint32], labels: Bools, sums: Sums) -> None:
        for feature in range(len(surface.NAMES)):
            here = surface.has(bits, feature)
            self.surface.add(np.full(int(here.sum()), feature), labels[here], sums[here], len(surface.NAMES))


@dataclass(frozen=True)
class Grouping:
    """Groups of rows: a key for each row and what rows of a group share.

    `largest` is the share of the rows in the largest group that images and questions together would make.
    """

    keys: Keys
    by: str
    largest: float


MOST_TOGETHER = 0.2
"""Share of the rows that one group may have: two of ten folds."""
BY_BOTH, BY_IMAGE, BY_QUESTION = "image and question", "image", "question"


def grouped(images: Keys, texts: Keys) -> Grouping:
    """Rows of one image, or alike but for the opening word, belong together, and so does what hangs on them.

    Where that ties more than a fifth of the rows into one group, as when a few questions are asked about all images, no
    folds can be made of it: then the image alone decides, and the question only where there is none.
    """
    shown = images != 0
    if not shown.any():
        return Grouping(texts, BY_QUESTION, 0.0)
    # A row without an image is an image of its own: only its question ties it to others.
    own = np.where(shown, images, mixed(np.arange(len(images), dtype=np.uint64)))
    together = components(own, texts)
    largest = _largest(together)
    if largest <= MOST_TOGETHER:
        return Grouping(together, BY_BOTH, largest)
    return Grouping(np.where(shown, images, texts), BY_IMAGE, largest)


def _largest(keys: Keys) -> float:
    return float(np.unique(keys, return_counts=True)[1].max(initial=0) / max(1, len(keys)))


def components(one: Keys, other: Keys) -> Keys:
    """Key of each row's connected component, rows being joined where they share a key of either sort.

    The smallest key of `other` in it: whatever the order of the rows. Labels go to the smallest row of each key in
    turn, and then to that row's own label (pointer jumping), until none changes.
    """
    groups = [np.unique(keys, return_inverse=True)[1] for keys in (one, other)]
    label = np.arange(len(one))
    while True:
        before = label
        for group in groups:
            smallest = np.full(len(one), len(one))
            np.minimum.at(smallest, group, label)
            label = smallest[group]
        label = label[label]
        if (label == before).all():
            break
    key = np.full(len(one), np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(key, label, other)
    return np.asarray(key[label], dtype=np.uint64)


def _text_keys(tokens: Tokens) -> Keys:
    """Equal for questions that are alike but for the opening word, case and punctuation."""
    weights = mixed(tokens.codes.astype(np.uint64))
    place = np.arange(len(weights)) - np.repeat(tokens.starts[:-1], tokens.lengths)
    lengths = tokens.lengths
    weights[(place == 0) & (np.repeat(lengths, lengths) > 1)] = 0
    # Each place has its own odd factor, so that the order of the words counts.
    weights *= (np.uint64(2) * place.astype(np.uint64) + np.uint64(1)) * _MIX | np.uint64(1)
    return mixed(row_sums(weights, tokens))


def _image_keys(frame: pl.DataFrame) -> Keys:
    """Equal for rows of one image; 0 where there is none."""
    shown = frame["image"].is_not_null().to_numpy()
    keys = np.zeros(len(frame), dtype=np.uint64)
    # Polars' own hash differs from version to version, and with it the folds would.
    names = (zlib.crc32(name.encode()) for name in frame["image"].drop_nulls())
    keys[shown] = mixed(np.fromiter(names, dtype=np.uint64))
    return keys


def row_sums(weights: Keys, tokens: Tokens) -> Keys:
    """Sum over the words of each row, modulo 2**64."""
    sums = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(weights, dtype=np.uint64)])
    return np.asarray(sums[tokens.starts[1:]] - sums[tokens.starts[:-1]], dtype=np.uint64)


def mixed(keys: Keys) -> Keys:
    """A hash of each number, equal on every machine (the finaliser of SplitMix64, Steele et al. 2014)."""
    x = keys + _MIX
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def distinct_words(tokens: Tokens) -> tuple[Ints, Ints]:
    """Rows and codes of the words, each word once a row."""
    keys = distinct(tokens.rows.astype(np.uint64) << np.uint64(32) | tokens.codes)
    return (keys >> np.uint64(32)).astype(np.int64), (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)


def distinct(keys: NDArray[Any]) -> NDArray[Any]:
    """The distinct keys in ascending order. `np.unique` hashes them first, which takes many times as long."""
    ordered = np.sort(keys)
    return ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])] if len(ordered) else ordered


def pairs_of(tokens: Tokens) -> tuple[Ints, Keys]:
    """Rows and keys of the pairs of neighbouring words, in reading order and with repetitions."""
    rows = tokens.rows
    inside = rows[1:] == rows[:-1]
    keys = tokens.codes[:-1].astype(np.uint64) << np.uint64(32) | tokens.codes[1:]
    return rows[:-1][inside], keys[inside]


def _pair_counts(tokens: Tokens, labels: Bools, sums: Sums) -> tuple[Keys, Counters, Counters, Sums]:
    rows, keys = pairs_of(tokens)
    names, local = np.unique(keys, return_inverse=True)
    both = distinct(local.astype(np.uint64) << np.uint64(32) | rows.astype(np.uint64))
    local, rows = (both >> np.uint64(32)).astype(np.int64), (both & np.uint64(0xFFFFFFFF)).astype(np.int64)
    n = np.bincount(local, minlength=len(names)).astype(np.int32)
    k = np.bincount(local[labels[rows]], minlength=len(names)).astype(np.int32)
    return names, n, k, summed(local, sums[rows], len(names))


def _grown(counts: Ints, size: int) -> Ints:
    return np.concatenate([counts, np.zeros(size - len(counts), dtype=np.int64)]) if size > len(counts) else counts
