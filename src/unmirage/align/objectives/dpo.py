"""Direct preference optimization: prefer one answer to another, more than the reference does.

Rafailov et al. 2023, arXiv 2305.18290, eq. 7. Unlearning kits multiply it by 2/beta, as NPO does; here it is the
paper's, so give the term the weight 2/beta to follow them.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from unmirage.align.objectives import objective
from unmirage.align.signals import Preference


@dataclass(frozen=True, slots=True)
class DPOConfig:
    """beta: inverse temperature. reduction: of log-ratios over answer tokens; the paper's is the sum."""

    beta: Annotated[float, Field(gt=0)] = 0.1
    reduction: Literal["sum", "mean"] = "sum"


@objective("dpo", config=DPOConfig, signal="preference", needs_reference=True)
def dpo(policy: Preference, reference: Preference, config: DPOConfig) -> Tensor:
    """Loss per pair, shape (batch,): -log sigmoid(beta [log(pi/pi_ref)(chosen) - log(pi/pi_ref)(rejected)])."""
    chosen = policy.chosen.reduce(config.reduction) - reference.chosen.reduce(config.reduction)
    rejected = policy.rejected.reduce(config.reduction) - reference.rejected.reduce(config.reduction)
    return -F.logsigmoid(config.beta * (chosen - rejected))
