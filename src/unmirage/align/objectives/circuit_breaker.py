"""Circuit breakers, forget term: turn the activations of harmful text away from where they were.

Zou et al. 2024 (representation rerouting), arXiv 2406.04313, algorithm 1. Zero once they are at right angles or beyond,
so it cannot run away. The paper's weight falls over the training while that of `hidden-norm` on retain rises.
"""

from dataclasses import dataclass
from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from unmirage.align.objectives import objective
from unmirage.align.signals import Activations, Positions


@dataclass(frozen=True, slots=True)
class CircuitBreakerConfig:
    """layers: from 0; the paper's for models of 32 layers. positions: where to turn them away."""

    layers: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (10, 20)
    positions: Positions = "text"


@objective("circuit-breaker", config=CircuitBreakerConfig, signal="activations", needs_reference=True)
def circuit_breaker(policy: Activations, reference: Activations, config: CircuitBreakerConfig) -> Tensor:
    """Loss per forget sample, shape (batch,): mean over positions and layers of max(0, cos(h, h_ref))."""
    cosine = F.cosine_similarity(policy.values.float(), reference.values.float(), dim=-1)
    return policy.mean(cosine.relu())
