"""Objectives: pure functions of log-probabilities or activations, one file each.

An objective takes the policy's signal, the reference's signal (None where `needs_reference` is False) and its
configuration, and returns a loss per sample, shape (batch,).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from torch import Tensor

Signal = Literal["log_probs", "activations"]


@dataclass(frozen=True, slots=True)
class Objective:
    """A registered objective: its function, its configuration class, and what it reads."""

    name: str
    function: Callable[..., Tensor]
    config: type[Any]
    signal: Signal
    needs_reference: bool


OBJECTIVES: dict[str, Objective] = {}


F = TypeVar("F", bound=Callable[..., Tensor])


def objective(
    name: str, *, config: type[Any], signal: Signal = "log_probs", needs_reference: bool = False
) -> Callable[[F], F]:
    """Registers a loss under a name; raises ValueError where the name is taken."""

    def register(function: F) -> F:
        if name in OBJECTIVES:
            raise ValueError(f"there is already an objective named {name!r}")
        OBJECTIVES[name] = Objective(name, function, config, signal, needs_reference)
        return function

    return register


from unmirage.align.objectives import ce, hidden, npo, rmu  # noqa: E402, F401 - each registers itself
