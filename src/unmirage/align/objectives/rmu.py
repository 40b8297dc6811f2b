"""Representation misdirection: steer the activations of harmful text to one random direction.

Li et al. 2024 (WMDP), arXiv 2403.03218, eq. 1; as used on VLMs in arXiv 2503.11832. Adaptive: Dang et al. 2024, arXiv
2408.06223; their released code measures the first batch alone, its padding included.
"""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from unmirage.align.objectives import objective
from unmirage.align.objectives._targets import control_vector
from unmirage.align.signals import Activations, Positions


@dataclass(frozen=True, slots=True)
class RMUConfig:
    """layer: from 0. coefficient: length c of the control vector, some times the norm of an activation.

    adaptive: instead, c is this many times the mean norm of the sample's activations before training (their code: 5).
    seed: of its direction. positions: where to steer; the released VLM code steers "all", images and padding included.
    """

    layer: Annotated[int, Field(ge=0)] = 7
    coefficient: Annotated[float, Field(gt=0)] = 20.0
    adaptive: Annotated[float, Field(gt=0)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    positions: Positions = "text"


@objective("rmu", config=RMUConfig, signal="activations", needs_reference=lambda config: config.adaptive is not None)
def rmu(policy: Activations, reference: Activations | None, config: RMUConfig) -> Tensor:
    """Loss per forget sample, shape (batch,): mean over positions and features of (h - c u)^2."""
    control = control_vector(policy.values.shape[-1], config.seed).to(policy.values)
    if reference is None or config.adaptive is None:
        return policy.mean_square(config.coefficient * control)
    length = config.adaptive * reference.mean(reference.values.float().norm(dim=-1))
    return policy.mean_square(length.view(-1, 1, 1, 1) * control)
