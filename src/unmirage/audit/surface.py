"""What a question looks like, whatever its words say: length, question mark, politeness, casing, and its image.

Each feature is a set of values of which a question has one; a value is a cue like a word.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from unmirage.audit.lexicon import POLITE
from unmirage.audit.words import Tokens, Vocabulary

LENGTHS = (4, 8, 16, 32)
SMALL, LARGE = 256 * 256, 1024 * 1024
WIDE = 1.2
NAMES = (
    "length: 1-4 words", "length: 5-8 words", "length: 9-16 words", "length: 17-32 words", "length: 33 words or more",
    "ends in a question mark", "holds a word of politeness", "begins with a small letter", "all in capitals",
    "has an image", "image: up to 256 x 256 pixels", "image: up to 1 megapixel", "image: more than 1 megapixel",
    "image: wide", "image: tall", "image: about square",
)  # fmt: skip

Bits = NDArray[np.uint32]


def surface_bits(frame: pl.DataFrame, tokens: Tokens, vocabulary: Vocabulary) -> Bits:
    """Of each question one number whose bit i tells whether it has `NAMES[i]`."""
    bits = np.zeros(len(frame), dtype=np.uint32)
    for place, values in enumerate([*_words(frame, tokens, vocabulary), *_image(frame)]):
        bits |= values.astype(np.uint32) << np.uint32(place)
    return bits


def has(bits: Bits, feature: int) -> NDArray[np.bool_]:
    """Which questions have `NAMES[feature]`."""
    return np.asarray((bits >> np.uint32(feature)) & 1 == 1, dtype=np.bool_)


def _words(frame: pl.DataFrame, tokens: Tokens, vocabulary: Vocabulary) -> list[NDArray[np.bool_]]:
    bucket = np.searchsorted(LENGTHS, tokens.lengths)
    question = frame["question"].str.strip_chars()
    cased = question.str.to_uppercase() != question.str.to_lowercase()
    head = question.str.slice(0, 1)
    return [
        *(bucket == value for value in range(len(LENGTHS) + 1)),
        question.str.contains(r"[?？؟]\s*$").to_numpy(),
        _polite(tokens, vocabulary),
        ((head == head.str.to_lowercase()) & (head != head.str.to_uppercase())).to_numpy(),
        (cased & (question == question.str.to_uppercase())).to_numpy(),
    ]


def _polite(tokens: Tokens, vocabulary: Vocabulary) -> NDArray[np.bool_]:
    known = [code for word in POLITE if (code := vocabulary.code(word)) is not None]
    found = np.zeros(len(tokens.starts) - 1, dtype=np.bool_)
    found[tokens.rows[np.isin(tokens.codes, known)]] = True
    return found


def _image(frame: pl.DataFrame) -> list[NDArray[np.bool_]]:
    width = frame["width"].fill_null(0).to_numpy().astype(np.int64)
    height = frame["height"].fill_null(0).to_numpy().astype(np.int64)
    area, known = width * height, (width > 0) & (height > 0)
    wide, tall = width > WIDE * height, height > WIDE * width
    return [
        frame["image"].is_not_null().to_numpy(),
        known & (area <= SMALL), known & (area > SMALL) & (area <= LARGE), known & (area > LARGE),
        known & wide, known & tall, known & ~wide & ~tall,
    ]  # fmt: skip
