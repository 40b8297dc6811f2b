"""SatImp: gradient ascent weighted by saturation (what is not forgotten yet) and importance (what is not certain).

Yang et al. 2025, arXiv 2505.11953. Their released code averages over the tokens of a batch ("batch_mean").
"""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from unmirage.align.objectives import objective
from unmirage.align.signals import AnswerLogProbs, Reduction


@dataclass(frozen=True, slots=True)
class SatImpConfig:
    """beta1: of saturation, less weight on unlikely tokens. beta2: of importance, less on certain ones.

    Both at 0 are gradient ascent; beta2 alone at 0 is WGA. reduction: over answer tokens.
    """

    beta1: Annotated[float, Field(ge=0)] = 5.0
    beta2: Annotated[float, Field(ge=0)] = 1.0
    reduction: Reduction = "mean"


@objective("satimp", config=SatImpConfig)
def satimp(policy: AnswerLogProbs, reference: None, config: SatImpConfig) -> Tensor:
    """Loss per forget sample, shape (batch,): (1/n) sum_t w_t log p_t, w_t = p_t^beta1 (1 - p_t)^beta2 held fixed."""
    p = policy.values.detach().exp()
    weights = p**config.beta1 * (1 - p).clamp(min=0) ** config.beta2
    return AnswerLogProbs(weights * policy.values, policy.mask).reduce(config.reduction)
