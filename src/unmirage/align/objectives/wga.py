"""Weighted gradient ascent: push hardest on tokens that the model is still sure of, leave forgotten ones alone.

Wang et al. 2025, arXiv 2502.19301. The weight undoes the 1/p in the gradient of log p, by which plain ascent pushes
hardest on what is already unlikely. The paper's released code averages over the tokens of a batch ("batch_mean").
"""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from unmirage.align.objectives import objective
from unmirage.align.signals import AnswerLogProbs, Reduction


@dataclass(frozen=True, slots=True)
class WGAConfig:
    """beta: how much confidence counts; 0 is gradient ascent. reduction: over answer tokens."""

    beta: Annotated[float, Field(ge=0)] = 1.0
    reduction: Reduction = "mean"


@objective("wga", config=WGAConfig)
def wga(policy: AnswerLogProbs, reference: None, config: WGAConfig) -> Tensor:
    """Loss per forget sample, shape (batch,): (1/n) sum_t p_t^beta log p_t, with p_t^beta held fixed."""
    weights = policy.values.detach().exp() ** config.beta
    return AnswerLogProbs(weights * policy.values, policy.mask).reduce(config.reduction)
