"""Which steps of a recipe a command is about: those of a pattern, or one share of several machines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from unmirage.errors import UserError
from unmirage.recipes.graph import Planned

SHARED = ("draw", "pretrain", "sets", "audit", "attack")
"""Kinds that steps of many models need: each share of the work has its own."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One share of the work, `number` of `count`, counting from 1."""

    number: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise UserError(f"there is no share {self.number} of {self.count}; write --shard 1/4 to --shard 4/4.")

    @classmethod
    def of(cls, text: str) -> Shard:
        """From "1/4"; raises UserError for anything else."""
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        if not found:
            raise UserError(f"{text!r} is no share of the work; write --shard 1/4 to --shard 4/4.")
        return cls(int(found[1]), int(found[2]))


@dataclass(frozen=True, slots=True)
class Choice:
    """Steps by patterns, all where there are none, and of these one share.

    A pattern with a "/" is one of steps ("align/*"); another one of models, measures and stresses ("npo-*").
    """

    only: tuple[str, ...] = ()
    shard: Shard = Shard()

    def steps(self, plan: Mapping[str, Planned]) -> set[str]:
        """The names of the steps and of all that they need; raises UserError where a pattern fits none."""
        wanted = self._matching(plan) if self.only else set(plan)
        if self.shard.count > 1:
            wanted &= _share(plan, wanted, self.shard)
        return _with_needs(plan, wanted)

    def _matching(self, plan: Mapping[str, Planned]) -> set[str]:
        found: set[str] = set()
        for pattern in self.only:
            matching = {name for name, one in plan.items() if _fits(pattern, one)}
            if not matching:
                raise UserError(
                    f"--only {pattern}: no step, model, measure or stress is called so; --dry-run lists the steps."
                )
            found |= matching
        return found


def _fits(pattern: str, one: Planned) -> bool:
    names = [one.step.name] if "/" in pattern else list(one.step.about.values())
    return any(fnmatchcase(name, pattern) for name in names)


def _with_needs(plan: Mapping[str, Planned], wanted: set[str]) -> set[str]:
    found, open_ = set(wanted), list(wanted)
    while open_:
        more = [name for name in plan[open_.pop()].step.needs if name not in found]
        found.update(more)
        open_ += more
    return found


def _share(plan: Mapping[str, Planned], wanted: set[str], shard: Shard) -> set[str]:
    """The steps of one share: those of models that start from one another stay together, largest first."""
    groups = sorted(_groups(plan, wanted), key=len, reverse=True)
    # Of more shares than there are groups the last ones have nothing to do.
    shares: list[set[str]] = [set() for _ in range(min(shard.count, len(groups) or 1))]
    for group in groups:
        min(shares, key=len).update(group)
    shares[0] |= {name for name in wanted if plan[name].step.kind in SHARED}
    return shares[shard.number - 1] if shard.number <= len(shares) else set()


def _groups(plan: Mapping[str, Planned], wanted: set[str]) -> Iterator[Sequence[str]]:
    """The wanted steps that hang together by what is not shared, in the order of the plan."""
    root: dict[str, str] = {}
    for name, one in plan.items():
        if one.step.kind in SHARED:
            continue
        roots = list(dict.fromkeys(root[need] for need in one.step.needs if need in root))
        root[name] = roots[0] if roots else name
        if len(roots) > 1:
            root.update({other: roots[0] for other, old in root.items() if old in roots})
    for first in dict.fromkeys(root.values()):
        if group := [name for name, found in root.items() if found == first and name in wanted]:
            yield group
