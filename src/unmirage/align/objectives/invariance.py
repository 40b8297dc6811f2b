"""Invariance: the same prediction for a question and for its one-word twin.

Counterfactual logit pairing, Garg et al. 2019, arXiv 1809.10610, with a divergence between distributions in place of a
distance between logits; what it aims at is the counterfactual invariance of Veitch et al. 2021, arXiv 2106.00545.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from unmirage.align.objectives import objective
from unmirage.align.objectives._targets import divergence
from unmirage.align.signals import PairedLogits


@dataclass(frozen=True, slots=True)
class InvarianceConfig:
    """teacher: the side held fixed: where the data's answer is likelier ("right"), "origin", or neither ("both").

    temperature: softens both sides; the loss is multiplied by its square, so that gradients keep their size.
    """

    teacher: Literal["right", "origin", "both"] = "right"
    temperature: Annotated[float, Field(gt=0)] = 1.0


@objective("invariance", config=InvarianceConfig, signal="pair-logits")
def invariance(policy: PairedLogits, reference: None, config: InvarianceConfig) -> Tensor:
    """Loss per pair, shape (batch,): mean over answer tokens of T^2 KL(teacher || other); "both": half of both ways."""
    one, other, scale = policy.origin, policy.twin, config.temperature**2
    p, q = one.values.float() / config.temperature, other.values.float() / config.temperature
    if config.teacher == "both":
        return one.mean(scale * (divergence(p, q) + divergence(q, p)) / 2)
    there, back = one.mean(scale * divergence(p.detach(), q)), one.mean(scale * divergence(q.detach(), p))
    right = one.log_probs().reduce("mean") >= other.log_probs().reduce("mean")
    return there if config.teacher == "origin" else torch.where(right, there, back)
