"""Objectives: pure functions of log-probabilities, logits or activations, one file each.

An objective takes the policy's signal, the reference's signal (None where it needs none) and its configuration, and
returns a loss per sample, shape (batch,). A package of somebody else adds one through the entry-point group
`unmirage.objectives`; see docs/new-objective.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from torch import Tensor

from unmirage import plugins
from unmirage.align.signals import Kind

GROUP = "unmirage.objectives"


@dataclass(frozen=True, slots=True)
class Objective:
    """A registered objective: its function, its configuration class, what it reads, and whether of a reference too.

    `needs_reference` may depend on the configuration. `reads_cues`: it must know which opening words go with refusal
    and which with compliance. Objectives that read activations have a field `layer` or
    `layers` and a field `positions` in their configuration.
    """

    name: str
    function: Callable[..., Tensor]
    config: type[Any]
    signal: Kind
    needs_reference: bool | Callable[[Any], bool]
    reads_cues: bool = False

    def reads_reference(self, config: Any) -> bool:
        """Whether the objective, so configured, reads the reference's signal."""
        return self.needs_reference if isinstance(self.needs_reference, bool) else self.needs_reference(config)


OBJECTIVES: dict[str, Objective] = {}


F = TypeVar("F", bound=Callable[..., Tensor])


def objective(
    name: str,
    *,
    config: type[Any],
    signal: Kind = "log_probs",
    needs_reference: bool | Callable[[Any], bool] = False,
    reads_cues: bool = False,
) -> Callable[[F], F]:
    """Registers a loss under a name.

    Raises ValueError where the name is taken, TypeError where function or configuration class are none.
    """

    def _register(function: F) -> F:
        plugins.check_kinds("an objective", name, function, config)
        made = Objective(name, function, config, signal, needs_reference, reads_cues)
        plugins.register(OBJECTIVES, "an objective", name, made)
        return function

    return _register


def find(name: str) -> Objective:
    """The objective of that name, ours or one of an installed package; raises UserError where there is none."""
    if name not in OBJECTIVES:
        load_installed()
    return plugins.find(OBJECTIVES, name, "objective", "objectives")


@cache
def load_installed() -> None:
    """Imports the objectives that installed packages offer; raises UserError naming one that cannot be imported."""
    plugins.load_installed(GROUP, "objective")


plugins.import_all(sys.modules[__name__])
