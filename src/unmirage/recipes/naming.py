"""Whose figures a step's are: by the recipe's names where it is asked, by label and axes where figures are shown.

A label or an axis may be changed without asking a model again: what is stored has the recipe's own names, which the
step's folder has too, and those that people see are put in where answers are judged and figures are gathered.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from unmirage.evaluate.measure import Subject
from unmirage.recipes.config import Recipe
from unmirage.runs import read_manifest, rewrite_config
from unmirage.schema import Record


def stored(recipe: Recipe, model: str, seed: int, measure: str, stress: str | None = None) -> Subject:
    """What stored answers say of a model: the recipe's names."""
    return Subject(model, recipe.models[model].method or "none", seed, measure, stress)


def shown(recipe: Recipe, model: str, seed: int, measure: str, stress: str | None = None) -> Subject:
    """What figures say of it: its label, and the axes of the measure and its own, which go before."""
    axes = {**recipe.measures[measure].axes, **recipe.models[model].axes}
    return replace(stored(recipe, model, seed, measure, stress), model=recipe.label(model, seed), axes=axes)


def relabel_run(folder: Path, subject: Subject) -> None:
    """Has the manifest of an evaluation, and so the figures made there, say label and axes, beside axes of its own."""
    axes = {**subject.axes, **read_manifest(folder).config.get("axes", {})}
    rewrite_config(folder, {"model": subject.model, **({"axes": axes} if axes else {})})


def relabelled(records: Iterable[Record], subject: Subject) -> Iterator[Record]:
    """Figures with label and axes, beside axes of their own."""
    for one in records:
        yield one.model_copy(update={"model": subject.model, "axes": {**subject.axes, **one.axes}})
