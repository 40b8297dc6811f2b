"""Cross-entropy unlearning: teach the model its own distribution without the forget token.

Yang 2025, arXiv 2503.01224. Unlike gradient ascent it is bounded below and its gradient never explodes: on the
logits it is p - q, where q is p without the token, so at most 1 in size.
"""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from unmirage.align.objectives import objective
from unmirage.align.objectives._targets import soft_cross_entropy
from unmirage.align.signals import AnswerLogits, AnswerLogProbs


@dataclass(frozen=True, slots=True)
class CEUConfig:
    """skip: how many tokens at the start of each answer do not count (paper: 1).

    An answer that is not longer has no loss at all: set 0 where answers are single tokens.
    """

    skip: Annotated[int, Field(ge=0)] = 1


@objective("ceu", config=CEUConfig, signal="logits")
def ceu(policy: AnswerLogits, reference: None, config: CEUConfig) -> Tensor:
    """Loss per forget sample, shape (batch,): mean of -sum_v q_v log p_v, q = softmax(z with z_y = -inf) held fixed."""
    target = policy.values.float().scatter(-1, policy.labels.unsqueeze(-1), float("-inf"))
    values = policy.spread(soft_cross_entropy(policy, target))
    counted = policy.mask & (policy.mask.cumsum(dim=1) > config.skip)
    return AnswerLogProbs(values * counted, counted).reduce("mean")
