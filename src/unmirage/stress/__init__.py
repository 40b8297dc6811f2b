"""Stresses: what is done to a model, its questions or its answering to see whether a repair lasts.

protocol.py   what a stress is: from a plan to a harder plan, or to figures of its own
registry.py   stresses by name, ours and those of installed packages
run.py        one stress in one run folder: prepared, then asked
judging.py    its answers judged and measured, those of several samples together
models.py     changed weights as a checkpoint folder
kinds/        the stresses, one file each
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unmirage.stress.facts import Fact, read_facts
    from unmirage.stress.judging import judge_stress
    from unmirage.stress.protocol import Plan, Stress, StressConfig, Work
    from unmirage.stress.registry import find, read_settings, stress, stresses
    from unmirage.stress.run import run_stress

__all__ = [
    "Fact",
    "Plan",
    "Stress",
    "StressConfig",
    "Work",
    "find",
    "judge_stress",
    "read_facts",
    "read_settings",
    "run_stress",
    "stress",
    "stresses",
]
_HOMES = {
    "facts": ("Fact", "read_facts"),
    "judging": ("judge_stress",),
    "protocol": ("Plan", "Stress", "StressConfig", "Work"),
    "registry": ("find", "read_settings", "stress", "stresses"),
    "run": ("run_stress",),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: the command line's help must not wait for the libraries."""
    from importlib import import_module

    home = next((home for home, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
