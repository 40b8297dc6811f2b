"""Circuit breakers, retain term: hold the activations of harmless text where they were, by plain distance.

Zou et al. 2024 (representation rerouting), arXiv 2406.04313, algorithm 1. A distance, not its square as in `hidden`:
its gradient has the same size near and far.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from unmirage.align.objectives import objective
from unmirage.align.signals import Activations, Positions


@dataclass(frozen=True, slots=True)
class HiddenNormConfig:
    """layers: from 0; the released code holds every layer up to the last that is rerouted. positions: where."""

    layers: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (10, 20)
    positions: Positions = "text"


@objective("hidden-norm", config=HiddenNormConfig, signal="activations", needs_reference=True)
def hidden_norm(policy: Activations, reference: Activations, config: HiddenNormConfig) -> Tensor:
    """Loss per retain sample, shape (batch,): mean over positions and layers of the Euclidean norm of h - h_ref."""
    return policy.mean(torch.linalg.vector_norm((policy.values - reference.values).float(), dim=-1))
