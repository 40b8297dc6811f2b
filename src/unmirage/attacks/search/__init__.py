"""Searches: the model is asked which one-word edit breaks it, and for which questions none does.

strategies.py           which edits are asked next: fixed, exhaustive, greedy, ranked
walk.py                 one question, and all questions under one budget, over a function that asks and judges
fluency.py, gradient.py what the model's own probabilities and gradients say of edits
results.py, rates.py    what was found, and its figures
run.py                  the same in a run folder
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unmirage.attacks.search.results import SearchResult
    from unmirage.attacks.search.run import Plan, search

__all__ = ["Plan", "SearchResult", "search"]
_HOMES = {"SearchResult": "results", "Plan": "run", "search": "run"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: the command line's help must not wait for the libraries."""
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
