"""How much a term weighs: constant, rising or falling over the training, or raised until a constraint holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

Schedule = Literal["constant", "rising", "falling", "dual"]
Average = Literal["rows", "groups"]


@dataclass(frozen=True, slots=True)
class Weight:
    """The factor of a term.

    value: the factor itself, the peak of a ramp, or the first dual variable. horizon: length of a ramp, in lengths of
    the training; circuit breakers use 2, so that both of their terms end at one half (Zou et al. 2024, arXiv
    2406.04313, algorithm 1). limit, rate: of a dual weight, which grows by `rate` times what the term's loss exceeds
    `limit`, and never falls below 0 (primal-dual unlearning, arXiv 2506.05314). average: of the losses of a batch's
    rows; over "groups" the weights of these grow by `rate`, see `GroupWeights`.
    """

    value: float = 1.0
    schedule: Schedule = "constant"
    horizon: float = 1.0
    limit: float = 0.0
    rate: float = 0.1
    average: Average = "rows"

    def at(self, progress: float, dual: float | None = None) -> float:
        """The factor when a share `progress` in [0, 1] of the training is done."""
        match self.schedule:
            case "constant":
                return self.value
            case "rising":
                return self.value * progress / self.horizon
            case "falling":
                return self.value * (1 - progress / self.horizon)
            case "dual":
                return self.value if dual is None else dual

    def raised(self, dual: float, loss: float) -> float:
        """The dual variable after a step whose constrained loss was `loss`."""
        return max(0.0, dual + self.rate * (loss - self.limit))


@dataclass
class DualWeights(TrainerCallback, ExportableState):  # type: ignore[misc]
    """The dual variables by the number of their term; saved with each checkpoint of the Trainer and read back."""

    values: dict[str, float] = field(default_factory=dict)

    def state(self) -> dict[str, Any]:
        """What the Trainer saves."""
        return {"args": {}, "attributes": {"values": dict(self.values)}}

    def get(self, term: int) -> float | None:
        """The dual variable of a term, None before its first step."""
        return self.values.get(str(term))

    def observe(self, term: int, weight: Weight, loss: float) -> None:
        """One step of dual ascent."""
        self.values[str(term)] = weight.raised(self.values.get(str(term), weight.value), loss)


@dataclass
class GroupWeights(TrainerCallback, ExportableState):  # type: ignore[misc]
    """Weights of groups of rows by the number of their term: exponentiated gradient ascent.

    After each step q_g becomes q_g exp(rate loss_g), normalised, for the groups that were in the step's batches:
    group-DRO, Sagawa et al. 2020, arXiv 1911.08731, algorithm 1, where the new weights serve the same step already.
    Saved with each checkpoint of the Trainer and read back.
    """

    values: dict[str, list[float]] = field(default_factory=dict)

    def state(self) -> dict[str, Any]:
        """What the Trainer saves."""
        return {"args": {}, "attributes": {"values": {term: list(found) for term, found in self.values.items()}}}

    def get(self, term: int, sizes: Sequence[int]) -> list[float]:
        """The weights of a term's groups; before its first step they are equal for all that have rows (`sizes`)."""
        there = sum(size > 0 for size in sizes)
        return self.values.setdefault(str(term), [float(size > 0) / there for size in sizes])

    def observe(self, term: int, rate: float, losses: Sequence[float | None]) -> None:
        """One step of ascent; `losses` are the groups' mean losses, None for a group that was in no batch."""
        now = self.values[str(term)]
        high = max((rate * loss for loss in losses if loss is not None), default=0.0)  # keeps exp() finite
        raised = [
            weight * math.exp((rate * loss if loss is not None else 0.0) - high)
            for weight, loss in zip(now, losses, strict=True)
        ]
        total = sum(raised)
        self.values[str(term)] = [weight / total for weight in raised] if total > 0 else now
