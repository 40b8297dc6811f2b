"""Several judges side by side: how often two of them say the same, and where they do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from unmirage.schema import Label, Verdict
from unmirage.stats import Interval, cohen_kappa, wilson

Row = tuple[str, str | None, int]
_UNUSABLE = (Label.ERROR, Label.UNPARSED)


@dataclass(frozen=True)
class Pair:
    """Two judges over the rows that both could label.

    equal: share of rows with the same label, Wilson's interval. kappa: Cohen's over all labels that either used; None
    where both said the same one of every row. Both None without a common row.
    """

    one: str
    other: str
    n: int
    equal: Interval | None
    kappa: Interval | None


@dataclass(frozen=True)
class Dispute:
    """A row that the judges label differently."""

    row: Row
    verdicts: Mapping[str, Verdict]


def by_row(verdicts: Sequence[Verdict]) -> dict[Row, Verdict]:
    """One judge's verdicts by planned row."""
    return {(v.query, v.attack, v.shot): v for v in verdicts}


def agreement(verdicts: Mapping[str, Mapping[Row, Verdict]]) -> list[Pair]:
    """Every pair of judges, in the order in which they are given."""
    return [_pair(one, other, verdicts[one], verdicts[other]) for one, other in combinations(verdicts, 2)]


def disputes(verdicts: Mapping[str, Mapping[Row, Verdict]]) -> Iterator[Dispute]:
    """Rows on which two judges that could label them differ, in the order of the first judge's rows."""
    for row in dict.fromkeys(row for rows in verdicts.values() for row in rows):
        said = {judge: rows[row] for judge, rows in verdicts.items() if row in rows}
        if len({verdict.label for verdict in said.values() if verdict.label not in _UNUSABLE}) > 1:
            yield Dispute(row, said)


def _pair(one: str, other: str, left: Mapping[Row, Verdict], right: Mapping[Row, Verdict]) -> Pair:
    labels = [(left[row].label, right[row].label) for row in left if row in right]
    counts = Counter(pair for pair in labels if not set(pair) & set(_UNUSABLE))
    n = counts.total()
    if not n:
        return Pair(one, other, 0, None, None)
    used = [label for label in Label if any(label in pair for pair in counts)]
    kappa = cohen_kappa([[counts[a, b] for b in used] for a in used])
    return Pair(one, other, n, wilson(sum(counts[label, label] for label in used), n), kappa)
