"""What objectives aim at: distributions given by logits, and directions: RMU's, and that of a cue."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from unmirage.align.groups import cue_of, harmful
from unmirage.align.processes import summed
from unmirage.align.signals import AnswerLogits, PairedActivations

TINY = 1e-6
"""A shorter difference of activations has no direction."""


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


def divergence(teacher: Tensor, other: Tensor) -> Tensor:
    """Shape (tokens,): KL(teacher || other) of the distributions that logits (tokens, vocabulary) give, in float32."""
    known, found = (torch.log_softmax(logits.float(), dim=-1) for logits in (teacher, other))
    return F.kl_div(found, known, reduction="none", log_target=True).sum(dim=-1)


def unit(vector: Tensor) -> Tensor:
    """The vector (..., hidden) with length 1; zero where it is (nearly) zero."""
    norm = vector.norm(dim=-1, keepdim=True)
    return torch.where(norm > TINY, vector / norm.clamp(min=TINY), torch.zeros_like(vector))


@dataclass(frozen=True, slots=True)
class CueSums:
    """Sums over pairs from which the direction of a cue follows; those of several batches can be added.

    moved: of twin minus origin, or of origin minus twin where the origin has the refusal word, (layers, hidden).
    harm, calm: of the activations of harmful and of harmless pairs, (layers, hidden). pairs: how many of each.
    """

    moved: Tensor
    harm: Tensor
    calm: Tensor
    pairs: tuple[float, float]

    @staticmethod
    def of(policy: PairedActivations) -> CueSums:
        """The sums over one batch, held fixed; raises ValueError where the batch does not tell groups."""
        if policy.groups is None:
            raise ValueError("a batch without groups does not tell which opening words are cues")
        first, second = policy.groups
        origin, twin = (part.centre().detach() for part in (policy.origin, policy.twin))  # (batch, layers, hidden)
        change = (cue_of(second) - cue_of(first)).sign().to(origin).view(-1, 1, 1)
        bad, both = harmful(first).to(origin).view(-1, 1, 1), (origin + twin) / 2
        count = float(bad.sum())
        return CueSums(
            moved=(change * (twin - origin)).sum(dim=0),
            harm=(bad * both).sum(dim=0),
            calm=((1 - bad) * both).sum(dim=0),
            pairs=(count, len(first) - count),
        )

    def __add__(self, other: CueSums) -> CueSums:
        pairs = self.pairs[0] + other.pairs[0], self.pairs[1] + other.pairs[1]
        return CueSums(self.moved + other.moved, self.harm + other.harm, self.calm + other.calm, pairs)

    def everywhere(self) -> CueSums:
        """The sums over the batches of all processes that train together, the same in each of them."""
        counts = self.moved.new_tensor(self.pairs)
        flat = summed(torch.cat([self.moved.flatten(), self.harm.flatten(), self.calm.flatten(), counts]))
        moved, harm, calm = (part.view_as(self.moved) for part in flat[:-2].chunk(3))
        return CueSums(moved, harm, calm, (float(flat[-2]), float(flat[-1])))

    def direction(self) -> Tensor:
        """The unit vector by which a refusal word moves activations, without that of harm, shape (layers, hidden).

        What lies along the difference of the means of harmful and harmless pairs is taken off, where there are both.
        Zero where no pair changes its cue.
        """
        if not all(self.pairs):
            return unit(self.moved)
        along = unit(self.harm / self.pairs[0] - self.calm / self.pairs[1])
        return unit(self.moved - (self.moved * along).sum(dim=-1, keepdim=True) * along)
