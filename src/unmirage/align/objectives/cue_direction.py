"""Cue direction: what a refusal word adds to the activations of a question is taken away, and harm is left alone.

The direction is a difference of means, as in Arditi et al. 2024, arXiv 2406.11717, who ablate one; here it is that of
one-word twins of the batch, without its part along the difference of harmful and harmless rows, and it is trained away.
Where several processes train together it is that of all their batches.
"""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from unmirage.align.objectives import objective
from unmirage.align.objectives._targets import CueSums
from unmirage.align.signals import PairedActivations, PairPositions


@dataclass(frozen=True, slots=True)
class CueDirectionConfig:
    """layer: from 0. positions: "prompt-end", where the first word of the answer is decided, or "answer"."""

    layer: Annotated[int, Field(ge=0)] = 7
    positions: PairPositions = "prompt-end"


@objective("cue-direction", config=CueDirectionConfig, signal="pair-activations", reads_cues=True)
def cue_direction(policy: PairedActivations, reference: None, config: CueDirectionConfig) -> Tensor:
    """Loss per pair, shape (batch,): mean over positions of (d . (h_twin - h_origin))^2, d the batch's own."""
    d = CueSums.of(policy).everywhere().direction().unsqueeze(1)  # (layers, 1, hidden)
    apart = policy.twin.values.float() - policy.origin.values.float()
    return policy.origin.mean((apart * d).sum(dim=-1).pow(2))
