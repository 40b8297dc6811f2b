"""All judges by name: what the command line offers, and how each is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from unmirage.errors import UserError
from unmirage.judges import Judge
from unmirage.judges.keywords import vlguard_keywords
from unmirage.judges.lists import ListJudge, PhraseList, published
from unmirage.judges.rules import rules_judge
from unmirage.judges.truth import TruthJudge


@dataclass(frozen=True)
class Entry:
    """What a judge looks at, in a line, and the function that makes it from the data files that were asked."""

    about: str
    make: Callable[[Sequence[Path]], Judge]


def _truth(data: Sequence[Path]) -> Judge:
    if not data:
        raise UserError("the truth judge needs the data files that were asked; name them with --data.")
    return TruthJudge.beside(*data)


def _listed(phrases: PhraseList, _data: Sequence[Path]) -> Judge:
    return ListJudge(phrases)


JUDGES: dict[str, Entry] = {
    "rules": Entry("our own refusal judge: who says that what cannot be done, and where", lambda _: rules_judge()),
    "vlguard": Entry("VLGuard's list with VLGuard's matching, for comparison", lambda _: vlguard_keywords()),
    "keywords": Entry("another name of vlguard", lambda _: vlguard_keywords()),
    "truth": Entry("the known answers of sandbox data", _truth),
    **{name: Entry(one.about, partial(_listed, one)) for name, one in published().items()},
}


def judge_named(name: str, data: Sequence[Path] = ()) -> Judge:
    """The judge of that name; UserError where there is none."""
    if name not in JUDGES:
        raise UserError(f"no judge is called {name!r}; choose among {', '.join(JUDGES)}.")
    return JUDGES[name].make(data)


def judges_named(names: Sequence[str], data: Sequence[Path] = ()) -> list[Judge]:
    """The judges of those names, each once."""
    judges = [judge_named(name, data) for name in names]
    return list({judge.name: judge for judge in judges}.values())
