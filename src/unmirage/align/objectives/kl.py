"""Divergence from the reference: a retain term that keeps whole predictions, not only the given answer.

KL minimisation of Maini et al. 2024 (TOFU), arXiv 2401.06121. Only answer tokens count; other kits average over
prompts and padding too, so that there a sample's loss depends on its neighbours.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from unmirage.align.objectives import objective
from unmirage.align.objectives._targets import reference_logits
from unmirage.align.signals import AnswerLogits


@dataclass(frozen=True, slots=True)
class KLConfig:
    """No options: every sample counts the mean over its answer tokens."""


@objective("kl", config=KLConfig, signal="logits", needs_reference=True)
def kl(policy: AnswerLogits, reference: AnswerLogits, config: KLConfig) -> Tensor:
    """Loss per retain sample, shape (batch,): mean over answer tokens of sum_v p_ref(v) log(p_ref(v) / p(v))."""
    known = torch.log_softmax(reference_logits(policy, reference), dim=-1)
    found = torch.log_softmax(policy.values.float(), dim=-1)
    return policy.mean(F.kl_div(found, known, reduction="none", log_target=True).sum(dim=-1))
