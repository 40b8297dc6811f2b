"""What objectives read: log-probabilities of answer tokens, and activations of one decoder layer. Nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

Reduction = Literal["sum", "mean", "batch_mean"]
Positions = Literal["answer", "text", "all"]
Batch = dict[str, Any]


@dataclass(frozen=True, slots=True)
class AnswerLogProbs:
    """log p(y_t | ...) of each sample's answer tokens: `values` (batch, t), zero where `mask` (batch, t) is False."""

    values: Tensor
    mask: Tensor

    def reduce(self, how: Reduction) -> Tensor:
        """Shape (batch,): per-sample sum or mean over answer tokens.

        "batch_mean" is the mean over all answer tokens of the batch, repeated for each sample: what the paper's
        released code puts inside the sigmoid, kept for comparison only.
        """
        totals, counts = self.values.sum(dim=1), self.mask.sum(dim=1).clamp(min=1)
        match how:
            case "sum":
                return totals
            case "mean":
                return totals / counts
            case "batch_mean":
                return (totals.sum() / counts.sum()).expand_as(totals)
        raise ValueError(f"reduction is 'sum', 'mean' or 'batch_mean', not {how!r}")


@dataclass(frozen=True, slots=True)
class Activations:
    """Output of one decoder layer: `values` (batch, t, hidden); `mask` (batch, t) tells which positions count."""

    values: Tensor
    mask: Tensor

    def mean_square(self, target: Tensor) -> Tensor:
        """Shape (batch,): mean over counted positions and features of the squared distance to `target`."""
        distance = (self.values - target).pow(2).mean(dim=-1) * self.mask
        return distance.sum(dim=1) / self.mask.sum(dim=1).clamp(min=1)


def answer_log_probs(model: nn.Module, batch: Batch) -> AnswerLogProbs:
    """One forward pass; only the positions that predict an answer token go through the output head."""
    inputs, labels = _inputs(batch), batch["labels"]
    answer = labels[:, 1:] != -100
    keep = torch.cat([answer, torch.zeros_like(answer[:, :1])], dim=1)
    logits = model(**inputs, logits_to_keep=keep).logits  # (answer tokens of the batch, vocabulary)
    picked = torch.log_softmax(logits.float(), dim=-1).gather(-1, labels[:, 1:][answer].unsqueeze(-1)).squeeze(-1)
    values = torch.zeros(answer.shape, dtype=picked.dtype, device=picked.device).masked_scatter(answer, picked)
    return AnswerLogProbs(values, answer)


def layer_activations(model: nn.Module, batch: Batch, layer: int, positions: Positions) -> Activations:
    """Output of decoder layer `layer` (from 0); the layers above it are not run at all."""
    captured: list[Tensor] = []
    with truncated(model, layer) as last:
        hook = last.register_forward_hook(lambda _module, _args, output: captured.append(_tensor(output)))
        try:
            model(**_inputs(batch), logits_to_keep=1)
        finally:
            hook.remove()
    return Activations(captured[0], positions_mask(batch, positions))


def positions_mask(batch: Batch, positions: Positions) -> Tensor:
    """Which positions count, (batch, t): answer tokens, text (no image tokens, no padding), or all but padding."""
    attended: Tensor = batch["attention_mask"].bool()
    labels: Tensor = batch["labels"]
    pictures: Tensor = batch["image_mask"]
    match positions:
        case "answer":
            return labels != -100
        case "text":
            return attended & ~pictures
        case "all":
            return attended
    raise ValueError(f"positions is 'answer', 'text' or 'all', not {positions!r}")


@contextmanager
def truncated(model: nn.Module, layer: int) -> Iterator[nn.Module]:
    """The model with its decoder cut after `layer`; whole again afterwards, also after an exception."""
    inner: Any = getattr(model, "module", model)
    decoder = inner.get_decoder()
    whole = decoder.layers
    if not 0 <= layer < len(whole):
        raise ValueError(f"layer {layer} does not exist: the decoder has layers 0 to {len(whole) - 1}")
    decoder.layers = whole[: layer + 1]
    try:
        yield whole[layer]
    finally:
        decoder.layers = whole


def _inputs(batch: Batch) -> Batch:
    return {key: value for key, value in batch.items() if key not in ("labels", "image_mask", "row")}


def _tensor(output: Any) -> Tensor:
    value: Tensor = output[0] if isinstance(output, tuple) else output
    return value
