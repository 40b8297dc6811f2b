"""What objectives aim at: distributions given by logits, and the direction that RMU steers to."""

import torch
from torch import Tensor

from unmirage.align.signals import AnswerLogits


def reference_logits(policy: AnswerLogits, reference: AnswerLogits) -> Tensor:
    """The reference's logits for the policy's tokens, shape (tokens, vocabulary), in float32 and held fixed.

    Raises ValueError where the two are not of the same tokens, which would otherwise be compared by broadcasting.
    """
    if policy.values.shape != reference.values.shape:
        shapes = f"{tuple(policy.values.shape)} and {tuple(reference.values.shape)}"
        raise ValueError(f"policy and reference have logits of different tokens: {shapes}")
    return reference.values.detach().float()


def soft_cross_entropy(policy: AnswerLogits, target: Tensor) -> Tensor:
    """Shape (tokens,): -sum_v q_v log p_v, where q = softmax(target) is held fixed; `target` has the policy's shape."""
    fixed = torch.softmax(target.detach().float(), dim=-1)
    return -(fixed * torch.log_softmax(policy.values.float(), dim=-1)).sum(dim=-1)


def control_vector(hidden: int, seed: int) -> Tensor:
    """The unit vector u, shape (hidden,): uniform in [0, 1) and normalised, the same from the same seed."""
    uniform = torch.rand(hidden, generator=torch.Generator().manual_seed(seed))
    unit: Tensor = uniform / uniform.norm()
    return unit
