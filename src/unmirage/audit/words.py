"""Questions as numbers: words found by one rule for all languages, numbered in the order in which they come.

A word is a run of letters, marks and digits, with apostrophes inside; case does not count and accents are composed
(Unicode NFC). Languages that are written without spaces have no such runs: there each character of Han, Hiragana,
Katakana, Thai, Lao, Khmer or Myanmar is a word by itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import polars as pl
from numpy.typing import NDArray

from unmirage.audit import lexicon

Codes = NDArray[np.uint32]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = rf"[{_UNSPACED}]|[\p{{L}}\p{{M}}\p{{N}}\u200c\u200d&&[^{_UNSPACED}]]+(?:'[\p{{L}}\p{{M}}]+)*"
BLOCK = 32_768
_ASCII_WORD = r"[a-z0-9]+(?:'[a-z]+)*"


@dataclass(frozen=True)
class Tokens:
    """The words of some questions: `codes` one after the other, row i has those from starts[i] to starts[i + 1]."""

    codes: Codes
    starts: Ints

    @property
    def lengths(self) -> Ints:
        """Number of words of each row."""
        return np.diff(self.starts)

    @property
    def rows(self) -> Ints:
        """The row of each word."""
        return np.repeat(np.arange(len(self.starts) - 1), self.lengths)

    def nth(self, place: int) -> Ints:
        """Code of each row's word at `place`, counting from 0; -1 where the row is shorter."""
        there = self.lengths > place
        found = np.full(len(there), -1, dtype=np.int64)
        found[there] = self.codes[self.starts[:-1][there] + place]
        return found

    def blocks(self) -> Iterator[tuple[int, slice, Tokens]]:
        """Yield the rows in blocks: the first row, the slice of its words, and the block itself.

        What is worked out word by word would need many times the memory of the words for all rows at once.
        """
        for first in range(0, len(self.starts) - 1, BLOCK):
            starts = self.starts[first : first + BLOCK + 1]
            inside = slice(int(starts[0]), int(starts[-1]))
            yield first, inside, Tokens(self.codes[inside], starts - starts[0])

    def select(self, keep: Bools) -> Tokens:
        """Only the rows where `keep` is true."""
        lengths = self.lengths
        return Tokens(self.codes[np.repeat(keep, lengths)], np.concatenate([[0], np.cumsum(lengths[keep])]))

    @staticmethod
    def joined(parts: list[Tokens]) -> Tokens:
        """The rows of all parts, in order."""
        codes = [part.codes for part in parts] or [np.zeros(0, dtype=np.uint32)]
        lengths = [np.zeros(1, dtype=np.int64), *(part.lengths for part in parts)]
        return Tokens(np.concatenate(codes), np.cumsum(np.concatenate(lengths)))


@dataclass
class Vocabulary:
    """Numbers words from 0 in the order in which they are first met."""

    extra: frozenset[str] = frozenset()
    words: list[str] = field(default_factory=list)
    _codes: defaultdict[str, int] = field(default_factory=defaultdict)
    _heads: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        # A word that is asked for the first time gets the next number.
        self._codes.default_factory = self._codes.__len__

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, questions: pl.Series) -> Tokens:
        """The words of each question, in reading order; no question may be null."""
        return self.encode_lists(split_words(questions))

    def encode_lists(self, lists: pl.Series) -> Tokens:
        """The same of questions that `split_words` has split."""
        starts = np.concatenate([[0], np.cumsum(lists.list.len().to_numpy().astype(np.int64))])
        flat = lists.filter(lists.list.len() > 0).explode()
        return Tokens(self._encode(flat), starts)

    def code(self, word: str) -> int | None:
        """The number of a word, None where it was never met."""
        return self._codes.get(word)

    def kinds(self, *, leading: bool) -> list[str]:
        """Kind of each word, see `lexicon.kind`."""
        return [lexicon.kind(word, leading=leading, extra=self.extra) for word in self.words]

    def heads(self) -> Bools:
        """Of each word whether it may head a question without being content; remembered, as it is asked so often."""
        new = self.words[len(self._heads) :]
        self._heads += [lexicon.kind(word, leading=True, extra=self.extra) != "content" for word in new]
        return np.array(self._heads, dtype=np.bool_)

    def _encode(self, flat: pl.Series) -> Codes:
        if not len(flat):
            return np.zeros(0, dtype=np.uint32)
        local = flat.cast(pl.Categorical).to_physical().to_numpy()
        # Where each local number first stands, so that only distinct words become Python strings.
        first = np.full(int(local.max()) + 1, -1, dtype=np.int64)
        first[local[::-1]] = np.arange(len(local) - 1, -1, -1)
        met = np.flatnonzero(first >= 0)
        order = met[np.argsort(first[met])]
        codes = np.zeros(len(first), dtype=np.uint32)
        codes[order] = [self._codes[word] for word in flat.gather(first[order]).to_list()]
        self.words += islice(self._codes, len(self.words), None)
        return np.asarray(codes[local], dtype=np.uint32)


def split_words(questions: pl.Series) -> pl.Series:
    """The words of each question as lists of strings."""
    if bool((questions.str.len_bytes() == questions.str.len_chars()).all()):
        return questions.str.to_lowercase().str.extract_all(_ASCII_WORD)
    composed = questions.str.normalize("NFC").str.to_lowercase().str.replace_all("[\u2019\u02bc\uff07]", "'")
    return composed.str.extract_all(_WORD)


def leading(tokens: Tokens, plain: Bools) -> Bools:
    """Of each word: whether it and all words before it in its question are `plain`, by code.

    Plain are function words, politeness and instruction words: the head of a question, such as "Can you describe".
    """
    count = len(tokens.codes)
    breaks = np.append(np.flatnonzero(~plain[tokens.codes]), count)
    there = tokens.lengths > 0
    begins, ends = tokens.starts[:-1][there], tokens.starts[1:][there]
    stops = np.minimum(breaks[np.searchsorted(breaks, begins)], ends)
    # One up where a head begins and one down where it ends; the running sum is 1 inside of heads.
    steps = np.zeros(count + 1, dtype=np.int8)
    steps[begins] += 1
    np.subtract.at(steps, stops, 1)
    return np.cumsum(steps[:-1], dtype=np.int8) > 0
