"""The parts of a loss at work: an objective on the rows of one role, with its weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from unmirage.align.config import AlignConfig
from unmirage.align.objectives import Objective
from unmirage.align.signals import Outputs, Positions, Signal, Wanted, base_of
from unmirage.align.weights import Weight


@dataclass(frozen=True, slots=True)
class Term:
    """One part of the loss: which samples (`role`), which objective with which options, and its factor."""

    role: str
    objective: Objective
    config: Any
    weight: Weight = field(default_factory=Weight)

    @property
    def name(self) -> str:
        """How logs call it."""
        return f"{self.role}/{self.objective.name}"

    @property
    def layers(self) -> tuple[int, ...]:
        """The decoder layers it reads."""
        if base_of(self.objective.signal) != "activations":
            return ()
        return tuple(self.config.layers) if hasattr(self.config, "layers") else (self.config.layer,)

    @property
    def positions(self) -> Positions:
        """Which positions of those layers count."""
        found: Positions = getattr(self.config, "positions", "text")
        return found

    @property
    def needs_reference(self) -> bool:
        """Whether it compares with the model before training."""
        return self.objective.reads_reference(self.config)

    @property
    def wanted(self) -> Wanted:
        """What a forward pass must yield for it."""
        return Wanted(base_of(self.objective.signal) != "activations", frozenset(self.layers))

    def signal(self, outputs: Outputs) -> Signal:
        """What its objective reads of a forward pass."""
        return outputs.signal(self.objective.signal, self.layers, self.positions)

    def losses(self, outputs: Outputs, reference: Signal | None) -> Tensor:
        """The objective of each row, shape (batch,)."""
        found: Tensor = self.objective.function(self.signal(outputs), reference, self.config)
        return found

    def loss(self, outputs: Outputs, reference: Signal | None) -> Tensor:
        """The mean of the objective over the rows, without the weight."""
        return self.losses(outputs, reference).mean()


def wanted_by(terms: Sequence[Term]) -> Wanted:
    """What one forward pass must yield for all of these terms."""
    wanted = Wanted()
    for term in terms:
        wanted |= term.wanted
    return wanted


def terms_of(config: AlignConfig) -> list[Term]:
    """The configured terms, ready to compute."""
    return [Term(term.role, term.found(), term.config(), term.factor()) for term in config.terms]
