"""Unlearning written out as the released codes do it, to measure against: nothing is left out or computed once.

A second copy of the whole model is the reference. Every pass runs the vision tower, all layers, and the output head
on every position; every loss has a pass of its own; layers are recomputed in the backward pass (checkpointing), which
asks for the gradient of the input and so goes down to the first layer. Two things are kinder than the released codes:
RMU's language-model pass is run only where its loss counts, not at weight zero too, and nothing is read back from the
device or written to a file in a step.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unmirage.align import AlignConfig

Batch = dict[str, Any]
INPUTS = ("input_ids", "attention_mask", "pixel_values")


class Plain:
    """The loss of one step for RMU, RMU with a language-model loss, NPO and DPO."""

    def __init__(self, model: Any, copy: Any, config: AlignConfig) -> None:
        self.model, self.copy, self.config = model, copy, config
        self.options = {term.objective: term.options for term in config.terms}

    def loss(self, batch: dict[str, Batch]) -> Tensor:
        if "rmu" in self.options:
            return self.rmu(batch)
        if "npo" in self.options:
            return self.npo(batch)
        return self.dpo(batch)

    def rmu(self, batch: dict[str, Batch]) -> Tensor:
        """Positions: all but padding."""
        options = self.options["rmu"]
        forget = activations(self.model, batch["forget"], options["layer"])
        uniform = torch.rand(forget.shape[-1], generator=torch.Generator().manual_seed(options["seed"]))
        target = options["coefficient"] * (uniform / uniform.norm()).to(forget)
        loss = square_distance(forget, target, batch["forget"])
        retain = activations(self.model, batch["retain"], options["layer"])
        with torch.no_grad():
            before = activations(self.copy, batch["retain"], options["layer"])
        loss = loss + square_distance(retain, before, batch["retain"])
        return loss + cross_entropy(self.model, batch["retain"]) if "ce" in self.options else loss

    def npo(self, batch: dict[str, Batch]) -> Tensor:
        beta = self.options["npo"]["beta"]
        policy = answer_sums(self.model, batch["forget"])
        with torch.no_grad():
            before = answer_sums(self.copy, batch["forget"])
        forget = -2 / beta * F.logsigmoid(-beta * (policy - before))
        return forget.mean() + cross_entropy(self.model, batch["retain"])

    def dpo(self, batch: dict[str, Batch]) -> Tensor:
        beta = self.options["dpo"]["beta"]
        policy = answer_sums(self.model, batch["preference"])
        with torch.no_grad():
            before = answer_sums(self.copy, batch["preference"])
        chosen, rejected = (policy - before).chunk(2)
        preference = -F.logsigmoid(beta * (chosen - rejected))
        return preference.mean() + cross_entropy(self.model, batch["retain"])


def forward(model: Any, batch: Batch) -> Tensor:
    """Logits of all positions, from pixels."""
    found: Tensor = model(**{key: batch[key] for key in INPUTS}, use_cache=False).logits
    return found


def activations(model: Any, batch: Batch, layer: int) -> Tensor:
    """What a hook on the layer sees while the whole model runs."""
    seen: list[Tensor] = []
    hook = (
        model.get_decoder()
        .layers[layer]
        .register_forward_hook(
            lambda _module, _inputs, output: seen.append(output[0] if isinstance(output, tuple) else output)
        )
    )
    try:
        forward(model, batch)
    finally:
        hook.remove()
    return seen[0]


def square_distance(values: Tensor, target: Tensor, batch: Batch) -> Tensor:
    mask = batch["attention_mask"]
    per_position = (values - target).pow(2).mean(dim=-1) * mask
    return (per_position.sum(dim=1) / mask.sum(dim=1)).mean()


def answer_terms(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    labels = batch["labels"][:, 1:]
    logits = forward(model, batch)[:, :-1].float()
    losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none", ignore_index=-100)
    return losses.view_as(labels), labels != -100


def answer_sums(model: Any, batch: Batch) -> Tensor:
    """Log-probability of each answer, shape (batch,)."""
    losses, _ = answer_terms(model, batch)
    return -losses.sum(dim=1)


def cross_entropy(model: Any, batch: Batch) -> Tensor:
    losses, mask = answer_terms(model, batch)
    return (losses.sum(dim=1) / mask.sum(dim=1)).mean()
