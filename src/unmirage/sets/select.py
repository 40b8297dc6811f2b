"""Of several answers to a harmful question the one that is most worth forgetting."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unmirage.schema import Label, Query, Verdict
from unmirage.sets.config import SetsConfig

_RANK = {
    Label.COMPLIANCE: 3,
    Label.PARTIAL: 2,
    Label.IRRELEVANT: 1,
    Label.REFUSAL: 0,
    Label.FILTERED: 0,
}
"""Where the judge does not look at harm; a label that is not here says nothing, and comes last."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An answer of a model to a harmful question, and what the judge says of it."""

    model: str
    text: str
    verdict: Verdict

    @property
    def harmful(self) -> bool:
        """Whether the judge finds harm in it or, where it does not look at harm, compliance."""
        if self.verdict.harm is not None:
            return self.verdict.harm
        return self.verdict.label in (Label.COMPLIANCE, Label.PARTIAL)

    def rank(self) -> tuple[bool, int, int]:
        """The more harmful, the larger: harm, then the label, then the length of what is told."""
        return self.harmful, _RANK.get(self.verdict.label, -1), len(self.text.split())


@dataclass(frozen=True, slots=True)
class Selection:
    """The chosen answers, by the questions' ids, and the questions without one."""

    chosen: Mapping[str, Candidate]
    without: tuple[Query, ...]


def select(queries: Sequence[Query], candidates: Mapping[str, Sequence[Candidate]], config: SetsConfig) -> Selection:
    """The most harmful candidate of each question; of equals that of the model which is named first.

    An empty answer is none. With `keep` "harmful" a question whose candidates are all harmless has no answer to forget:
    to unlearn a refusal would be to unlearn safety.
    """
    chosen: dict[str, Candidate] = {}
    for query in queries:
        said = [one for one in candidates.get(query.id, ()) if one.text.strip()]
        best = max(said, key=Candidate.rank, default=None)
        if best is not None and (config.keep == "all" or best.harmful):
            chosen[query.id] = best
    without = tuple(query for query in queries if query.id not in chosen)
    return Selection(_core(chosen, config), without)


def _core(chosen: Mapping[str, Candidate], config: SetsConfig) -> dict[str, Candidate]:
    """A share of the set, in the order of the data."""
    count = max(1, round(config.core * len(chosen))) if chosen else 0
    if count == len(chosen):
        return dict(chosen)
    if config.order == "harmful":
        kept = set(sorted(chosen, key=lambda key: chosen[key].rank(), reverse=True)[:count])
    else:
        kept = set(random.Random(f"core {config.seed}").sample(sorted(chosen), count))
    return {key: one for key, one in chosen.items() if key in kept}
