"""Negative preference optimization: make the forget answers less likely than the reference finds them.

Zhang et al. 2024, arXiv 2404.05868, eq. 3. The paper's log-ratio is a sum over the answer's tokens; its useful beta
does not carry over to the mean.
"""

from dataclasses import dataclass
from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from unmirage.align.objectives import objective
from unmirage.align.signals import AnswerLogProbs, Reduction


@dataclass(frozen=True, slots=True)
class NPOConfig:
    """beta: inverse temperature, > 0; as it goes to 0, NPO becomes gradient ascent. reduction: over answer tokens."""

    beta: Annotated[float, Field(gt=0)] = 0.1
    reduction: Reduction = "sum"


@objective("npo", config=NPOConfig, needs_reference=True)
def npo(policy: AnswerLogProbs, reference: AnswerLogProbs, config: NPOConfig) -> Tensor:
    """Loss per forget sample, shape (batch,): -(2/beta) log sigmoid(-beta log(pi/pi_ref))."""
    log_ratio = policy.reduce(config.reduction) - reference.reduce(config.reduction)
    return -2 / config.beta * F.logsigmoid(-config.beta * log_ratio)
