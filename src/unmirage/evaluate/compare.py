"""Several evaluations side by side, over the rows that all of them share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unmirage.errors import UserError
from unmirage.evaluate.comparing.aligning import Contender, align, common_judge
from unmirage.evaluate.comparing.flips import Flip, Hides, flips
from unmirage.evaluate.comparing.lines import Cell, Line, lines

__all__ = ["Cell", "Comparison", "Contender", "Flip", "Line", "compare"]


@dataclass(frozen=True)
class Comparison:
    """Every figure of every run with its paired difference to the baseline, and every row that flipped.

    `shared` counts the rows that all runs planned, `left_out` each run's other rows, which enter nothing.
    """

    judge: str
    baseline: str
    runs: tuple[str, ...]
    margin: float
    shared: int
    left_out: Mapping[str, int]
    lines: tuple[Line, ...]
    flips: tuple[Flip, ...]


def compare(
    runs: Sequence[Contender],
    hides: Hides,
    *,
    judge: str | None = None,
    margin: float = 0.01,
) -> Comparison:
    """Compare runs with the first of them, the baseline, by one judge's verdicts.

    `judge` is a name or a part of one (`common_judge`); `margin` in (0, 1) is the loss of utility that still counts as
    none; answers to harmful queries for which `hides` is true are left out of the flips.
    Raises UserError for fewer than two runs, a margin outside (0, 1), runs without a common judge or common row, and
    labels that are not unique.
    """
    if len(runs) < 2:
        raise UserError("a comparison needs at least two runs; name two or more folders of evaluations.")
    if not 0 < margin < 1:
        raise UserError(f"a margin lies between 0 and 1, here {margin}; 0.01 is one percentage point.")
    labels = tuple(run.label for run in runs)
    if len(set(labels)) < len(labels):
        raise UserError(f"two runs have the same label ({', '.join(labels)}); give each another one.")
    name = common_judge(runs, judge)
    shared = align(runs)
    return Comparison(
        judge=name,
        baseline=labels[0],
        runs=labels,
        margin=margin,
        shared=shared.rows,
        left_out=shared.left_out,
        lines=tuple(lines(runs, name, shared, margin)),
        flips=tuple(flips(runs, name, shared, hides)),
    )
