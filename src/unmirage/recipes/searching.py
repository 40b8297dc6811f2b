"""Searches in a recipe: the model is asked which one-word edit breaks it; what was found as records."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from unmirage.attacks.edits import At, Change
from unmirage.attacks.goals import Goal
from unmirage.attacks.words import SHIPPED
from unmirage.recipes.config import Search
from unmirage.schema import Record

if TYPE_CHECKING:
    from unmirage.attacks.search.results import SearchRate, SearchResult
    from unmirage.attacks.search.run import Plan
    from unmirage.evaluate.measure import Subject

STEM = {True: "asr", False: "rr"}
"""What a search breaks, of harmful questions and of harmless ones."""


def search_plan(search: Search, label: str, data: str, seed: int) -> Plan:
    """The plan of a search; raises UserError for words and places that do not fit its edits."""
    from unmirage.attacks.search.run import Plan
    from unmirage.attacks.search.strategies import SearchName

    changes = tuple(Change(edit) for edit in search.edit)
    words = search.words or (() if set(changes) == {Change.delete} else SHIPPED)
    return Plan(
        label, data, SearchName(search.search), Goal(search.goal), changes, words, At(search.at), seed, search.sample,
        search.control, search.intent, search.grammar, search.fluency, search.budget, search.places, search.top,
    )  # fmt: skip


def records_of(found: SearchResult, subject: Subject) -> Iterator[Record]:
    """Its figures, such as `asr_worst_case`: the share of questions that are answered as they are or under some edit.

    `asr_already`, `asr_broken` and `asr_worst_case` of harmful questions, `rr_...` of harmless ones; `errors` are
    questions that the search did not bring to an end, which the intervals allow for. `..._broken_effect` sets the
    attack against its control, in [-1, 1].
    """
    yield from (_rate(rate, found, subject) for rate in found.rates if rate.metric != "per_edit")
    for one in found.effects:
        effect = {"value": one.value, "low": one.low, "high": one.high, "n": one.n, "errors": one.unfinished}
        where = {"split": one.split, "attack": one.attack, "control": one.control}
        yield _record(f"{STEM[one.harmful]}_broken_effect", found, subject, **where, **effect)


def _rate(rate: SearchRate, found: SearchResult, subject: Subject) -> Record:
    figures = {"value": rate.value, "low": rate.low, "high": rate.high, "n": rate.n, "errors": rate.unfinished}
    metric = f"{STEM[rate.harmful]}_{rate.metric}"
    return _record(metric, found, subject, split=rate.split, attack=rate.attack, **figures)


def _record(metric: str, found: SearchResult, subject: Subject, **more: object) -> Record:
    named = {"model": subject.model, "method": subject.method, "seed": subject.seed, "data": subject.data}
    return Record.model_validate({**named, "metric": metric, "judge": found.judge, "axes": dict(subject.axes), **more})
