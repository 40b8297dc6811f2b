"""Gradient ascent on the answer's cross-entropy: the oldest way to unlearn, kept to show how it collapses.

Jang et al. 2023, arXiv 2210.01504; with cross-entropy on retain it is gradient difference (Maini et al. 2024, TOFU,
arXiv 2401.06121). Nothing bounds it, so a few steps too many ruin the whole model.
"""

from dataclasses import dataclass

from torch import Tensor

from unmirage.align.objectives import objective
from unmirage.align.signals import AnswerLogProbs, Reduction


@dataclass(frozen=True, slots=True)
class AscentConfig:
    """reduction: over answer tokens; other kits take "batch_mean", in which long answers weigh more."""

    reduction: Reduction = "mean"


@objective("ascent", config=AscentConfig)
def ascent(policy: AnswerLogProbs, reference: None, config: AscentConfig) -> Tensor:
    """Loss per forget sample, shape (batch,): +(1/n) sum_t log p(y_t | x, y_<t), the negative cross-entropy."""
    return policy.reduce(config.reduction)
