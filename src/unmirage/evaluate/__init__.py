"""Ask, judge and measure: one evaluation in one run folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unmirage.evaluate.run import Evaluation, evaluate, rejudge

__all__ = ["Evaluation", "evaluate", "rejudge"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: the command line's help must not wait for the libraries."""
    from importlib import import_module

    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("unmirage.evaluate.run"), name)
