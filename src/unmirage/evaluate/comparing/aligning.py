"""Which rows several runs share, and whose verdicts they may be compared by."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from unmirage.errors import UserError
from unmirage.evaluate.rows import Row
from unmirage.runs import digest_file
from unmirage.schema import Answer, Query, Variant, Verdict


class Contender(Protocol):
    """One finished evaluation, as read from its folder; `label` is unique among those compared."""

    @property
    def label(self) -> str:
        """What the tables call it."""
        ...

    @property
    def queries(self) -> Mapping[str, Query]:
        """What was asked, by id."""
        ...

    @property
    def variants(self) -> Sequence[Variant]:
        """The edits of these queries that were asked too."""
        ...

    @property
    def answers(self) -> Mapping[Row, Answer]:
        """The last answer to each row."""
        ...

    @property
    def verdicts(self) -> Mapping[str, Mapping[Row, Verdict]]:
        """By judge, then by row."""
        ...


@dataclass(frozen=True)
class Shared:
    """The rows that all runs planned, as the baseline holds them; `left_out` counts each run's other rows."""

    queries: tuple[Query, ...]
    variants: tuple[Variant, ...]
    left_out: Mapping[str, int]

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(self.queries) + len(self.variants)


def align(runs: Sequence[Contender]) -> Shared:
    """The rows of the first run that all others planned too: same ids, wording, picture and harmfulness.

    A picture is the same where its path is, or its content; where one of two files is gone, its name decides.
    Raises UserError where nothing is shared.
    """
    first, *others = runs
    queries = tuple(q for q in first.queries.values() if all(_same(q, run.queries.get(q.id)) for run in others))
    ids = {query.id for query in queries}
    wordings = [{(v.origin.id, v.attack, v.shot): v.question for v in run.variants} for run in others]
    variants = tuple(
        v
        for v in first.variants
        if v.origin.id in ids and all(w.get((v.origin.id, v.attack, v.shot)) == v.question for w in wordings)
    )
    shared = len(queries) + len(variants)
    if not shared:
        names = ", ".join(run.label for run in runs)
        raise UserError(f"the runs share no question ({names}); compare runs that were asked the same data.")
    return Shared(queries, variants, {run.label: len(run.queries) + len(run.variants) - shared for run in runs})


def _same(one: Query, other: Query | None) -> bool:
    if other is None or (one.question, one.harmful) != (other.question, other.harmful):
        return False
    return _same_picture(one.image, other.image)


def _same_picture(one: Path | None, other: Path | None) -> bool:
    if one is None or other is None or one == other:
        return one == other
    digests = _digest(one), _digest(other)
    return digests[0] == digests[1] if None not in digests else one.name == other.name


@lru_cache(maxsize=100_000)
def _digest(path: Path) -> str | None:
    return digest_file(path) if path.is_file() else None


def common_judge(runs: Sequence[Contender], name: str | None) -> str:
    """The judge whose verdicts all runs hold: the one called `name`, or else one that sees harm before others.

    `name` is a judge's whole name or a part of it between its dashes ("rules"). Raises UserError where the runs have no
    such judge in common, as the verdicts of different judges cannot be compared, or where `name` fits several.
    """
    found = [{judge for judge in run.verdicts if name is None or _fits(judge, name)} for run in runs]
    for run, judges in zip(runs, found, strict=True):
        if not judges:
            raise UserError(
                f"{run.label} was not judged by {name!r}, but by {_listed(run.verdicts)}; judge its answers with "
                f"`unmirage judge RUN --judge {name}`."
            )
    common = set.intersection(*found)
    if not common:
        judged = "; ".join(f"{run.label} by {_listed(judges)}" for run, judges in zip(runs, found, strict=True))
        raise UserError(
            f"different judges' verdicts are not compared with one another ({judged}); judge all runs by the same one "
            "with `unmirage judge RUN --judge NAME`."
        )
    if name is not None and name not in common and len(common) > 1:
        raise UserError(f"{name!r} may mean any of {_listed(common)}; give the whole name.")
    return name if name in common else min(common, key=lambda judge: (not _sees_harm(runs, judge), judge))


def _fits(judge: str, name: str) -> bool:
    return judge == name or re.search(rf"(^|[-@]){re.escape(name)}($|[-@])", judge) is not None


def _listed(judges: Mapping[str, object] | set[str]) -> str:
    return ", ".join(sorted(judges))


def _sees_harm(runs: Sequence[Contender], judge: str) -> bool:
    return any(verdict.harm is not None for run in runs for verdict in run.verdicts[judge].values())
