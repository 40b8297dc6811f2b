"""Representation misdirection: steer the activations of harmful text to one random direction.

Li et al. 2024 (WMDP), arXiv 2403.03218, eq. 1; as used on VLMs in arXiv 2503.11832.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from unmirage.align.objectives import objective
from unmirage.align.signals import Activations, Positions


@dataclass(frozen=True, slots=True)
class RMUConfig:
    """layer: from 0. coefficient: length c of the control vector, some times the norm of an activation.

    seed: of its direction. positions: where to steer; the released VLM code steers "all", images and padding included.
    """

    layer: Annotated[int, Field(ge=0)] = 7
    coefficient: Annotated[float, Field(gt=0)] = 20.0
    seed: Annotated[int, Field(ge=0)] = 0
    positions: Positions = "text"


@objective("rmu", config=RMUConfig, signal="activations")
def rmu(policy: Activations, reference: None, config: RMUConfig) -> Tensor:
    """Loss per forget sample, shape (batch,): mean over positions and features of (h - c u)^2."""
    control = control_vector(policy.values.shape[-1], config.seed).to(policy.values)
    return policy.mean_square(config.coefficient * control)


def control_vector(hidden: int, seed: int) -> Tensor:
    """The unit vector u, shape (hidden,): uniform in [0, 1) and normalised, the same from the same seed."""
    uniform = torch.rand(hidden, generator=torch.Generator().manual_seed(seed))
    unit: Tensor = uniform / uniform.norm()
    return unit
