"""A linear probe: multinomial logistic regression on hidden states, in torch, the same whenever its inputs are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

DECAY = 1e-2
ITERATIONS = 200


@dataclass(frozen=True, slots=True)
class Probe:
    """Class scores are ((x - mean) / spread) weight + bias: shapes (d,), (d,), (d, classes), (classes,)."""

    mean: Tensor
    spread: Tensor
    weight: Tensor
    bias: Tensor

    def classes(self, features: Tensor) -> list[int]:
        """The likeliest class of each row of features, shape (n, d)."""
        scores = (features.float() - self.mean) / self.spread @ self.weight + self.bias
        found: list[int] = scores.argmax(dim=1).tolist()
        return found


def fitted(features: Tensor, classes: Sequence[int], count: int) -> Probe:
    """The probe with the least mean cross-entropy plus DECAY / 2 |weight|^2; features (n, d), classes below `count`.

    Features are standardised by these rows. The problem is convex, so that where the descent (LBFGS) begins does not
    matter. Raises ValueError where there are no rows.
    """
    if not len(features) or len(features) != len(classes):
        raise ValueError(f"a probe needs rows, each with a class; there are {len(features)} and {len(classes)}")
    rows, target = features.float(), torch.tensor(list(classes))
    mean, spread = rows.mean(dim=0), rows.std(dim=0, unbiased=False).clamp_min(1e-6)
    rows = (rows - mean) / spread
    weight = torch.zeros(rows.shape[1], count, requires_grad=True)
    bias = torch.zeros(count, requires_grad=True)
    descent = torch.optim.LBFGS([weight, bias], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        descent.zero_grad()
        found = torch.nn.functional.cross_entropy(rows @ weight + bias, target) + DECAY / 2 * weight.square().sum()
        found.backward()  # type: ignore[no-untyped-call]
        return found

    with torch.enable_grad():
        descent.step(loss)  # type: ignore[no-untyped-call]
    return Probe(mean, spread, weight.detach(), bias.detach())
