"""Whole experiments in one YAML file: data, audit, models, attacks, judges, measures, report.

`read_recipe` reads and checks one, `run_recipe` runs what of it is not done yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unmirage.recipes.config import Recipe
    from unmirage.recipes.reading import read_recipe
    from unmirage.recipes.run import run_recipe

__all__ = ["Recipe", "read_recipe", "run_recipe"]
_HOMES = {"Recipe": "config", "read_recipe": "reading", "run_recipe": "run"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: the command line's help must not wait for the libraries."""
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
