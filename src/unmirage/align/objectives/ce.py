"""Cross-entropy of the answer: supervised fine-tuning, and the usual retain term."""

from dataclasses import dataclass

from torch import Tensor

from unmirage.align.objectives import objective
from unmirage.align.signals import AnswerLogProbs


@dataclass(frozen=True, slots=True)
class CEConfig:
    """No options: every sample counts the mean over its answer tokens."""


@objective("ce", config=CEConfig)
def ce(policy: AnswerLogProbs, reference: None, config: CEConfig) -> Tensor:
    """Loss per sample, shape (batch,): -(1/n) sum_t log p(y_t | x, y_<t) over the n answer tokens."""
    return -policy.reduce("mean")
