"""How much a term weighs: constant, rising or falling over the training, or raised until a constraint holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

Schedule = Literal["constant", "rising", "falling", "dual"]


@dataclass(frozen=True, slots=True)
class Weight:
    """The factor of a term.

    value: the factor itself, the peak of a ramp, or the first dual variable. horizon: length of a ramp, in lengths of
    the training; circuit breakers use 2, so that both of their terms end at one half (Zou et al. 2024, arXiv
    2406.04313, algorithm 1). limit, rate: of a dual weight, which grows by `rate` times what the term's loss exceeds
    `limit`, and never falls below 0 (primal-dual unlearning, arXiv 2506.05314).
    """

    value: float = 1.0
    schedule: Schedule = "constant"
    horizon: float = 1.0
    limit: float = 0.0
    rate: float = 0.1

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
