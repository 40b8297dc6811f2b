"""Simple negative preference optimization: NPO without a reference, normalised by the answer's length.

Fan et al. 2024, arXiv 2410.07163. `gamma` is the paper's: it stands beside the scaled log-probability, outside beta.
Kits that write beta (CE - d) inside the sigmoid mean d = gamma / beta, whatever they call it.
"""

from dataclasses import dataclass
from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from unmirage.align.objectives import objective
from unmirage.align.signals import AnswerLogProbs


@dataclass(frozen=True, slots=True)
class SimNPOConfig:
    """beta: inverse temperature (paper: 0.7 to 5.5). gamma: margin; the larger, the further down the answer goes."""

    beta: Annotated[float, Field(gt=0)] = 2.5
    gamma: Annotated[float, Field(ge=0)] = 0.0


@objective("simnpo", config=SimNPOConfig)
def simnpo(policy: AnswerLogProbs, reference: None, config: SimNPOConfig) -> Tensor:
    """Loss per forget sample, shape (batch,): -(2/beta) log sigmoid(-(beta/n) log pi(y | x) - gamma)."""
    return -2 / config.beta * F.logsigmoid(-config.beta * policy.reduce("mean") - config.gamma)
