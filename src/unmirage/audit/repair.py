"""Repair of data: the opening word shall no longer tell refusal, and no row may be lost.

- `rebalance` gives every row a weight (or copies), so that each opening word is refused as often as all rows are.
- `counterfactual` adds to rows a twin that differs in the opening word alone and keeps label and answer.

The result is written in the format of the input, with every row of it in place and unchanged but for the weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import polars as pl

from unmirage.audit import twins
from unmirage.audit.data import Audit, Settings, audit_data
from unmirage.audit.evidence import Floats
from unmirage.audit.store import WEIGHT, Change, Item, open_store
from unmirage.audit.table import Source
from unmirage.audit.words import Ints, Vocabulary
from unmirage.datasets.files import image_folder
from unmirage.datasets.marks import MARK, is_marked
from unmirage.errors import UserError

MOST_COPIES = 20
_PURE = "{} opening words come with one label only ({}), which no weight can balance; --repair counterfactual can."


@dataclass(frozen=True)
class Repaired:
    """What a repair did: the audit of the new data, and sentences for the user."""

    after: Audit
    told: list[str] = field(default_factory=list)


def repair_data(source: Source, settings: Settings, method: str, copies: bool, out: Path) -> Repaired:
    """Repair one file, write the result to `out` and audit that; UserError where rows could not be carried over whole.

    `source` must have been read once, so that its problems are known.
    """
    path = source.paths[0]
    if bad := [problem for problem in source.problems if problem.kind == "bad-row"]:
        raise UserError(f"{bad[0]} A repair must not lose it.")
    store = open_store(path, source, settings)
    if out.suffix.lower() != path.suffix.lower():
        raise UserError(
            f"--out {out} must end in {path.suffix or 'no suffix'!r}, as the repair keeps the input's format."
        )
    if method == "rebalance":
        told = _rebalance(store.items, store.write, copies, out)
    else:
        told = _counterfactual(store.items, store.write, out)
    told += _marks_told(store.rows, out)
    return Repaired(audit_data(_written(source, out, weighted=method == "rebalance" and not copies), settings), told)


def _marks_told(rows: Sequence[object], out: Path) -> list[str]:
    """What is made of a marked row is a copy of it with its mark; that this ends every training is worth a word."""
    count = sum(map(is_marked, rows))
    if not count:
        return []
    return [f"{count} rows say {MARK!r}: false, and so does what was made of them: {out} must not be trained on."]


def _written(source: Source, out: Path, *, weighted: bool) -> Source:
    """The repaired file as its user will read it: the figures after the repair are those of an audit of it."""
    path = source.paths[0]
    images = source.images if source.images or path.is_dir() else image_folder(path, None)
    columns = replace(source.columns, weight=WEIGHT) if weighted else source.columns
    return Source([out], columns, source.format_of(path), images)  # a repair writes UTF-8


Write = Callable[[Sequence[Change], Path], None]


def _rebalance(items: Sequence[Item], write: Write, copies: bool, out: Path) -> list[str]:
    weights, pure = balancing_weights(_openers(items), np.array([item.label for item in items]))
    told = [_PURE.format(len(pure), ", ".join(map(repr, pure[:5])))] if pure else []
    if copies:
        numbers = copies_of(weights)
        write([Change(item, copies=int(number)) for item, number in zip(items, numbers, strict=True)], out)
        return [*told, f"{len(items)} questions became {int(numbers.sum())}, none is left out; written to {out}."]
    write([Change(item, weight=float(weight)) for item, weight in zip(items, weights, strict=True)], out)
    return [*told, f"Weights from {weights.min():.3g} to {weights.max():.3g} are in the column {WEIGHT!r} of {out}."]


def balancing_weights(openers: Sequence[str], labels: np.ndarray) -> tuple[Floats, list[str]]:
    """Weight of each row that makes opening word and label independent, and the words for which there is none.

    w(x, y) = n_x n_y / (N n_xy), over the words that come with both labels: Kamiran and Calders 2012, Knowledge and
    Information Systems 33:1-33 (reweighing). The mean weight is 1. Rows of other words keep the weight 1.
    """
    names, code = np.unique(np.asarray(openers), return_inverse=True)
    n = np.bincount(code)
    k = np.bincount(code, labels)
    both = (k > 0) & (k < n)
    rows = both[code]
    base = labels[rows].mean() if rows.any() else 0.5
    rate = k[code] / n[code]
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = np.where(labels, base / rate, (1 - base) / (1 - rate))
    return np.where(rows, weights, 1.0), [str(name) for name in names[~both & (n > 1)]]


def copies_of(weights: Floats) -> Ints:
    """How often each row is to stand in the data: about in proportion to its weight, at least once.

    The multiple is the smallest one that gives the lightest row one copy, but no row more than 20.
    """
    factor = min(1 / weights.min(), MOST_COPIES / weights.max())
    return np.asarray(np.maximum(1, np.round(weights * max(factor, 1.0))), dtype=np.int64)


def _counterfactual(items: Sequence[Item], write: Write, out: Path) -> list[str]:
    added = twins.twins_of([item.question for item in items], [item.label for item in items])
    write([Change(item, twin=twin) for item, twin in zip(items, added, strict=True)], out)
    skipped = sum(twin is None for twin in added)
    new = len(items) - skipped
    told = [f"{new} one-word twins beside {len(items)} questions, none of which is changed; written to {out}."]
    return told + ([f"{skipped} questions got no twin: no other opening word fits their form."] if skipped else [])


def _openers(items: Sequence[Item]) -> list[str]:
    """The opening word of each question, by the same rule as the audit's."""
    vocabulary = Vocabulary()
    first = vocabulary.encode(pl.Series([item.question for item in items], dtype=pl.String)).nth(0)
    return [vocabulary.words[code] if code >= 0 else "" for code in first.tolist()]
