"""Logit-margin flattening: the forget term of primal-dual unlearning, which drives predictions to uniform.

Entesari et al. 2025, arXiv 2506.05314. Its constraint, cross-entropy on retain below a limit, is the dual weight of a
`ce` term. The paper averages over the answer's tokens; other kits over all positions, prompts and padding too.
"""

from dataclasses import dataclass

from torch import Tensor

from unmirage.align.objectives import objective
from unmirage.align.signals import AnswerLogits


@dataclass(frozen=True, slots=True)
class PDUConfig:
    """No options; the limit and the rate of the dual variable belong to the weight of the retain term."""


@objective("pdu", config=PDUConfig, signal="logits")
def pdu(policy: AnswerLogits, reference: None, config: PDUConfig) -> Tensor:
    """Loss per forget sample, shape (batch,): mean over answer tokens of (max_v z_v - mean_v z_v)^2."""
    logits = policy.values.float()
    return policy.mean((logits.amax(dim=-1) - logits.mean(dim=-1)).pow(2))
