"""What is wrong with the rows, found on the way: repetitions and contradictions, counted and the first ones listed.

Rows are compared by 64-bit hashes, 41 bytes a row, so that a file larger than memory is compared as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from unmirage.audit.tally import Keys, distinct, mixed, row_sums
from unmirage.audit.words import Bools, Ints, Tokens
from unmirage.datasets import Problem

LISTED = 20

ABOUT = {
    "empty-question": "questions that are empty; left out",
    "placeholder-question": "questions that are only a placeholder such as N/A; left out",
    "question-not-text": "questions that are a list or an object; left out",
    "no-label": "rows without label or answer; left out of the counts",
    "no-weight": "rows without a weight; left out of the counts",
    "zero-weight": "rows of weight 0; left out of the counts",
    "no-word": "questions without any word, such as ?!; they count for the base rate and have no cue",
    "repeated-id": "rows whose id was there before in the same file",
    "repeated-question": "questions that were there before, word for word; every one of them is counted",
    "repeated-row": "rows whose question and image were there before, word for word",
    "near-duplicate": "rows with the words and the image of an earlier one, but for order, case or punctuation",
    "conflicting-labels": "rows with the question and image of an earlier one, but the other label",
    "answer-contradicts-label": "rows whose answer is by the judge not what the label says",
    "missing-image": "images that are not there; the rows are kept for their words",
}


@dataclass
class Listed:
    """Rows with one defect: how many, and the first ones."""

    count: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, entry: dict[str, Any]) -> None:
        """Count one row, and list it if it is among the first."""
        self.count += 1
        if len(self.rows) < LISTED:
            self.rows.append(entry)


@dataclass
class Fingerprints:
    """Hashes of all rows so far; `place` tells file and row."""

    parts: list[tuple[Keys, Keys, Keys, Keys, Bools, Ints]] = field(default_factory=list)

    def add(self, frame: pl.DataFrame, tokens: Tokens) -> None:
        """Take in the rows of a frame; rows without an id get no id hash."""
        file = frame["file"].to_numpy().astype(np.uint64)
        image = mixed(np.where(frame["image"].is_not_null().to_numpy(), frame["image"].hash(seed=2).to_numpy(), 0))
        ids = np.where(frame["id"].is_not_null().to_numpy(), frame["id"].hash(seed=3).to_numpy() ^ mixed(file), 0)
        text = frame["question"].hash(seed=4).to_numpy()
        words = row_sums(mixed(tokens.codes.astype(np.uint64)), tokens)
        words = np.where(tokens.lengths > 0, words, text)
        place = frame["file"].to_numpy().astype(np.int64) << 40 | frame["row"].to_numpy()
        labels = frame["label"].fill_null(False).to_numpy().astype(np.bool_)
        self.parts.append((ids, text, text ^ image, mixed(words) ^ image, labels, place))

    def repeats(self) -> dict[str, Ints]:
        """Places of the rows with each defect, in the order of the data."""
        if not self.parts:
            return {}
        ids, text, row, words, labels, place = (np.concatenate([part[i] for part in self.parts]) for i in range(6))
        first_row, first_words = _first(row), _first(words)
        repeated = first_row != np.arange(len(row))
        near = (first_words != np.arange(len(row))) & ~repeated
        named = ids != 0
        return {
            "repeated-id": place[named][_first(ids[named]) != np.arange(int(named.sum()))],
            "repeated-question": place[_first(text) != np.arange(len(text))],
            "repeated-row": place[repeated],
            "near-duplicate": place[near],
            "conflicting-labels": place[repeated & (labels != labels[first_row])],
        }


def _first(keys: Keys) -> Ints:
    """For each key the place at which the same key first stands."""
    if len(distinct(keys)) == len(keys):  # a sort is many times as fast as what follows, and this is the usual case
        return np.arange(len(keys))
    _, first, where = np.unique(keys, return_index=True, return_inverse=True)
    return np.asarray(first[where], dtype=np.int64)


def from_problem(problem: Problem, file: str) -> dict[str, Any]:
    """A row that could not be read as it should, as an entry of the list."""
    return {"file": file, "row": problem.row, "field": problem.field, "what": problem.what}
