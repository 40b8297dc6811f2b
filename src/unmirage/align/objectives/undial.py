"""UnDIAL: distil the reference into the model, with the logit of each forget token lowered.

Dong et al. 2025, arXiv 2402.10052. The target is fixed, so that training converges instead of running away.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from unmirage.align.objectives import objective
from unmirage.align.objectives._targets import reference_logits, soft_cross_entropy
from unmirage.align.signals import AnswerLogits


@dataclass(frozen=True, slots=True)
class UnDIALConfig:
    """beta: by how much the logit of the forget token is lowered (paper: 3, 10 or 30)."""

    beta: Annotated[float, Field(gt=0)] = 10.0


@objective("undial", config=UnDIALConfig, signal="logits", needs_reference=True)
def undial(policy: AnswerLogits, reference: AnswerLogits, config: UnDIALConfig) -> Tensor:
    """Loss per forget sample, shape (batch,): mean over answer tokens of -sum_v q_v log p_v.

    q = softmax(z_ref - beta onehot(y)), z_ref being the reference's logits and y the answer token.
    """
    places = policy.labels.unsqueeze(-1)
    known = reference_logits(policy, reference)
    target = known.scatter_add(-1, places, torch.full_like(places, -config.beta, dtype=known.dtype))
    return policy.mean(soft_cross_entropy(policy, target))
