"""Hidden-state distance: RMU's retain term, which keeps the activations of harmless text where they were.

Li et al. 2024 (WMDP), arXiv 2403.03218, eq. 2.
"""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from unmirage.align.objectives import objective
from unmirage.align.signals import Activations, Positions


@dataclass(frozen=True, slots=True)
class HiddenConfig:
    """layer: from 0. positions: where to hold the activations."""

    layer: Annotated[int, Field(ge=0)] = 7
    positions: Positions = "text"


@objective("hidden", config=HiddenConfig, signal="activations", needs_reference=True)
def hidden(policy: Activations, reference: Activations, config: HiddenConfig) -> Tensor:
    """Loss per retain sample, shape (batch,): mean over positions and features of (h - h_ref)^2."""
    return policy.mean_square(reference.values)
