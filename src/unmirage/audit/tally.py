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
from unmirage.audit.words import Bools, Codes, Ints, Tokens, Vocabulary, leading, split_words

MOST_PAIRS = 20_000_000
MOST_WORDS = 20_000_000
MERGE_AT = 2_000_000
_MIX = np.uint64(0x9E3779B97F4A7C15)

Keys = NDArray[np.uint64]
Counters = NDArray[np.int32]


@dataclass
class Counts:
    """Numbers `n` of questions and `k` of refusals among them, by code; grows as codes come."""

    n: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    k: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def add(self, codes: NDArray[np.integer], labels: Bools, size: int) -> None:
        """Count each code once, as refused where its label is true; `size` is one more than the largest code."""
        self.n = _grown(self.n, size) + np.bincount(codes, minlength=size)
        self.k = _grown(self.k, size) + np.bincount(codes[labels], minlength=size)


@dataclass
class PairCounts:
    """The same for pairs of neighbouring words, under keys first * 2**32 + second, in ascending order."""

    keys: Keys = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    n: Counters = field(default_factory=lambda: np.zeros(0, dtype=np.int32))
    k: Counters = field(default_factory=lambda: np.zeros(0, dtype=np.int32))
    pruned: bool = False
    _waiting: list[tuple[Keys, Counters, Counters]] = field(default_factory=list)

    def add(self, keys: Keys, n: Counters, k: Counters) -> None:
        """Add counts under distinct keys."""
        self._waiting.append((keys, n, k))
        if sum(len(part[0]) for part in self._waiting) > MERGE_AT:
            self.merge()

    def merge(self) -> None:
        """Put in what came since the last time; must be called before the counts are read."""
        if not self._waiting:
            return
        keys, n, k = self._taken()
        place = np.searchsorted(self.keys, keys)
        known = np.zeros(len(keys), dtype=np.bool_)
        inside = place < len(self.keys)
        known[inside] = self.keys[place[inside]] == keys[inside]
        self.n[place[known]] += n[known]
        self.k[place[known]] += k[known]
        self.keys = np.insert(self.keys, place[~known], keys[~known])
        self.n = np.insert(self.n, place[~known], n[~known])
        self.k = np.insert(self.k, place[~known], k[~known])
        if len(self.keys) > MOST_PAIRS:
            keep = self.n > 1
            self.keys, self.n, self.k, self.pruned = self.keys[keep], self.n[keep], self.k[keep], True

    def _taken(self) -> tuple[Keys, Counters, Counters]:
        """What waits, each key once and in ascending order; nothing waits afterwards."""
        keys, n, k = (np.concatenate([part[place] for part in self._waiting]) for place in range(3))
        self._waiting = []
        order = np.argsort(keys)
        keys = keys[order]
        heads = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else order
        if not len(heads):
            return keys, n, k
        return keys[heads], np.add.reduceat(n[order], heads), np.add.reduceat(k[order], heads)


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
    """Rows with their words: label, group (rows that may not be torn apart), surface bits, and where they stand."""

    tokens: Tokens
    labels: Bools
    groups: Keys
    bits: surface.Bits
    files: NDArray[np.int32]
    rows: Ints

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def clusters(self) -> Ints:
        """The group of each row, numbered from 0."""
        return np.unique(self.groups, return_inverse=True)[1].astype(np.int64)

    def select(self, keep: Bools) -> Bag:
        """Only the rows where `keep` is true."""
        rest = (part[keep] for part in (self.labels, self.groups, self.bits, self.files, self.rows))
        return Bag(self.tokens.select(keep), *rest)  # type: ignore[arg-type]

    @staticmethod
    def joined(parts: list[Bag]) -> Bag:
        """The rows of all parts, in order."""
        names = ("labels", "groups", "bits", "files", "rows")
        rest = (np.concatenate([getattr(part, name) for part in parts]) for name in names)
        return Bag(Tokens.joined([part.tokens for part in parts]), *rest)


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
    opening: Counts = field(default_factory=Counts)
    anywhere: Counts = field(default_factory=Counts)
    leading: Counts = field(default_factory=Counts)
    pairs: PairCounts = field(default_factory=PairCounts)
    surface: Counts = field(default_factory=Counts)
    sample: Sample = field(default_factory=Sample)

    def add(self, frame: pl.DataFrame, lists: pl.Series | None = None) -> Tokens:
        """Count the rows of a frame, all with a question and a label; returns their words.

        `lists` are the questions as `split_words` splits them, where that has been done.
        """
        tokens = self.vocabulary.encode_lists(split_words(frame["question"]) if lists is None else lists)
        labels = frame["label"].to_numpy().astype(np.bool_)
        size = len(self.vocabulary)
        self.n += len(labels)
        self.k += int(labels.sum())
        with ThreadPoolExecutor(1) as pool:  # beside the counting of words; numpy lets both work at once
            pairs = pool.submit(_pair_counts, tokens, labels)
            groups = pool.submit(groups_of, frame, tokens)
            self._count_words(tokens, labels, size)
            bits = surface.surface_bits(frame, tokens, self.vocabulary)
            self._count_surface(bits, labels)
            self.pairs.add(*pairs.result())
            files, numbers = frame["file"].to_numpy(), frame["row"].to_numpy()
            self.sample.add(Bag(tokens, labels, groups.result(), bits, files, numbers))
        return tokens

    def _count_words(self, tokens: Tokens, labels: Bools, size: int) -> None:
        first = tokens.nth(0)
        self.opening.add(first[first >= 0], labels[first >= 0], size)
        rows, codes = distinct_words(tokens)
        self.anywhere.add(codes, labels[rows], size)
        self._count_leading(tokens, labels, size)

    def _count_surface(self, bits: NDArray[np.uint32], labels: Bools) -> None:
        for feature in range(len(surface.NAMES)):
            having = labels[surface.has(bits, feature)]
            self.surface.add(np.full(len(having), feature), having, len(surface.NAMES))

    def _count_leading(self, tokens: Tokens, labels: Bools, size: int) -> None:
        plain = self.vocabulary.heads()
        head = leading(tokens, plain) if len(tokens.codes) else np.zeros(0, dtype=np.bool_)
        self.leading.add(tokens.codes[head], labels[tokens.rows[head]], size)


def groups_of(frame: pl.DataFrame, tokens: Tokens) -> Keys:
    """Which rows belong together: those of one image; without an image, questions alike but for the opening word."""
    weights = mixed(tokens.codes.astype(np.uint64))
    place = np.arange(len(weights)) - np.repeat(tokens.starts[:-1], tokens.lengths)
    lengths = tokens.lengths
    weights[(place == 0) & (np.repeat(lengths, lengths) > 1)] = 0
    # Each place has its own odd factor, so that the order of the words counts.
    weights *= (np.uint64(2) * place.astype(np.uint64) + np.uint64(1)) * _MIX | np.uint64(1)
    texts = row_sums(weights, tokens)
    shown = frame["image"].is_not_null().to_numpy()
    groups = mixed(texts)
    # Polars' own hash differs from version to version, and with it the folds would.
    names = (zlib.crc32(name.encode()) for name in frame["image"].drop_nulls())
    groups[shown] = mixed(np.fromiter(names, dtype=np.uint64))
    return groups


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


def _pair_counts(tokens: Tokens, labels: Bools) -> tuple[Keys, Counters, Counters]:
    rows, keys = pairs_of(tokens)
    names, local = np.unique(keys, return_inverse=True)
    both = distinct(local.astype(np.uint64) << np.uint64(32) | rows.astype(np.uint64))
    local, rows = (both >> np.uint64(32)).astype(np.int64), (both & np.uint64(0xFFFFFFFF)).astype(np.int64)
    n = np.bincount(local, minlength=len(names)).astype(np.int32)
    return names, n, np.bincount(local[labels[rows]], minlength=len(names)).astype(np.int32)


def _grown(counts: Ints, size: int) -> Ints:
    return np.concatenate([counts, np.zeros(size - len(counts), dtype=np.int64)]) if size > len(counts) else counts
