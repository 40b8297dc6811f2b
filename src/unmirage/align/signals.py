"""What objectives read: log-probabilities or logits of answer tokens, and activations of decoder layers.

One forward pass gives everything that the terms of one batch want (`read`). By default only what is wanted is
computed: layers above the last one wanted are not run, and only positions that predict an answer token pass the
output head. Both can be switched off (`Switches`), with the same values and gradients.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmirage.align.features import Batch, bare, model_inputs, stored_tower

Reduction = Literal["sum", "mean", "batch_mean"]
Positions = Literal["answer", "text", "all", "prompt-end"]
PairPositions = Literal["answer", "prompt-end"]
"""Positions that a question and its twin share, however many tokens their words take."""


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
class AnswerLogits:
    """Logits that predict the answer tokens of a batch, one row for each: `values` (tokens, vocabulary).

    `labels` (tokens,) are the answer tokens themselves, `mask` (batch, t) says whose they are, in row-major order.
    """

    values: Tensor
    labels: Tensor
    mask: Tensor

    def log_probs(self) -> AnswerLogProbs:
        """log p of the answer tokens alone, in float32."""
        picked = torch.log_softmax(self.values.float(), dim=-1).gather(-1, self.labels.unsqueeze(-1)).squeeze(-1)
        return AnswerLogProbs(self.spread(picked), self.mask)

    def mean(self, per_token: Tensor) -> Tensor:
        """Shape (batch,): mean of a loss for each answer token, shape (tokens,), over each sample's own tokens."""
        return AnswerLogProbs(self.spread(per_token), self.mask).reduce("mean")

    def spread(self, per_token: Tensor) -> Tensor:
        """Shape (batch, t): values for each answer token at their places, zero elsewhere."""
        empty = torch.zeros(self.mask.shape, dtype=per_token.dtype, device=per_token.device)
        return empty.masked_scatter(self.mask, per_token)


@dataclass(frozen=True, slots=True)
class Activations:
    """Outputs of decoder layers: `values` (batch, layers, t, hidden); `mask` (batch, t): the positions that count."""

    values: Tensor
    mask: Tensor

    def mean(self, per_position: Tensor) -> Tensor:
        """Shape (batch,): mean of values (batch, layers, t) over counted positions, and over layers."""
        counted = (per_position * self.mask.unsqueeze(1)).sum(dim=2) / self.mask.sum(dim=1, keepdim=True).clamp(min=1)
        return counted.mean(dim=1)

    def centre(self) -> Tensor:
        """Shape (batch, layers, hidden): the mean activation over counted positions, in float32."""
        weights = self.mask.float() / self.mask.sum(dim=1, keepdim=True).clamp(min=1)
        return (self.values.float() * weights[:, None, :, None]).sum(dim=2)

    def mean_square(self, target: Tensor) -> Tensor:
        """Shape (batch,): mean over counted positions, layers and features of the squared distance to `target`."""
        return self.mean((self.values.float() - target.float()).pow(2).mean(dim=-1))  # bf16 would round it to 3 digits


@dataclass(frozen=True, slots=True)
class Preference:
    """Two answers to the same questions: log-probabilities of the preferred (`chosen`) and of the other."""

    chosen: AnswerLogProbs
    rejected: AnswerLogProbs


@dataclass(frozen=True, slots=True)
class PairedLogits:
    """Logits for the same answer after a question (`origin`) and after its one-word twin (`twin`), token by token.

    Both are of the answer tokens that both have: of one that is cut shorter, by its longer question, the other's
    surplus is left out.
    """

    origin: AnswerLogits
    twin: AnswerLogits


@dataclass(frozen=True, slots=True)
class PairedActivations:
    """Activations of a question and of its one-word twin at the positions that both have, in the same places.

    `groups` (batch,) of origins and of twins, see `groups`; None where the batch does not tell.
    """

    origin: Activations
    twin: Activations
    groups: tuple[Tensor, Tensor] | None = None


Signal = AnswerLogProbs | AnswerLogits | Activations | Preference | PairedLogits | PairedActivations
Base = Literal["log_probs", "logits", "activations"]
Kind = Literal["log_probs", "logits", "activations", "preference", "pair-logits", "pair-activations"]
_BASES: Mapping[Kind, Base] = {
    "preference": "log_probs",
    "pair-logits": "logits",
    "pair-activations": "activations",
}


def base_of(kind: Kind) -> Base:
    """What a forward pass yields for a signal; that of two samples a row is then parted."""
    found: Any = _BASES.get(kind, kind)
    return found  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Switches:
    """Ways to compute less with equal results. truncate: stop after the last layer wanted. answer_head: only answer
    positions pass the output head. share_forward: all terms on one batch read the same forward pass.
    """

    truncate: bool = True
    answer_head: bool = True
    share_forward: bool = True


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one forward pass must yield: logits of answers, outputs of some decoder layers (counted from 0), or both."""

    answers: bool = False
    layers: frozenset[int] = field(default_factory=frozenset)

    def __or__(self, other: Wanted) -> Wanted:
        return Wanted(self.answers or other.answers, self.layers | other.layers)


@dataclass(frozen=True, slots=True)
class Outputs:
    """What one forward pass yielded for a batch."""

    batch: Batch
    logits: AnswerLogits | None
    hidden: dict[int, Tensor]

    def signal(self, kind: Kind, layers: Sequence[int] = (), positions: Positions = "text") -> Signal:
        """The signal that an objective reads; raises ValueError where the pass did not yield it."""
        return parted(kind, self._base(base_of(kind), layers, positions), self.batch)

    def _base(self, kind: Base, layers: Sequence[int], positions: Positions) -> Signal:
        if kind == "activations":
            values = torch.stack([self.hidden[layer] for layer in layers], dim=1)
            return Activations(values, positions_mask(self.batch, positions))
        if self.logits is None:
            raise ValueError("this forward pass yielded no logits")
        return self.logits if kind == "logits" else self.logits.log_probs()


def parted(kind: Kind, signal: Signal, batch: Batch) -> Signal:
    """The signal of a batch of two samples a row as that of two batches; any other as it is."""
    if kind == "preference" and isinstance(signal, AnswerLogProbs):
        return halves(signal)
    if kind == "pair-logits" and isinstance(signal, AnswerLogits):
        return halves_of_logits(signal)
    if kind == "pair-activations" and isinstance(signal, Activations):
        return halves_of_activations(signal, batch.get("group"))
    return signal


def halves(both: AnswerLogProbs) -> Preference:
    """A batch of n preferred answers followed by the n others, parted."""
    n = len(both.values) // 2
    chosen, rejected = AnswerLogProbs(both.values[:n], both.mask[:n]), AnswerLogProbs(both.values[n:], both.mask[n:])
    return Preference(chosen, rejected)


def halves_of_logits(both: AnswerLogits) -> PairedLogits:
    """A batch of n questions followed by their n twins, parted, with the answer tokens that both of a pair have."""
    n = len(both.mask) // 2
    first, second = both.mask[:n], both.mask[n:]
    cut = int(first.sum())
    origin = AnswerLogits(both.values[:cut], both.labels[:cut], first)
    twin = AnswerLogits(both.values[cut:], both.labels[cut:], second)
    shared = torch.minimum(first.sum(dim=1), second.sum(dim=1))
    return PairedLogits(_beginning(origin, shared), _beginning(twin, shared))


def _beginning(logits: AnswerLogits, counts: Tensor) -> AnswerLogits:
    """The first tokens of each answer, as many as `counts` (batch,) says."""
    mask = leading(logits.mask, counts)
    kept = mask[logits.mask]
    return AnswerLogits(logits.values[kept], logits.labels[kept], mask)


def leading(mask: Tensor, counts: Tensor) -> Tensor:
    """The first True places of each row of `mask` (batch, t), as many as `counts` (batch,) says."""
    return mask & (mask.cumsum(dim=1) <= counts.unsqueeze(1))


def halves_of_activations(both: Activations, groups: Tensor | None = None) -> PairedActivations:
    """A batch of n questions followed by their n twins, parted, with the positions that both of a pair have."""
    n = len(both.values) // 2
    first, second = both.mask[:n], both.mask[n:]
    shared = torch.minimum(first.sum(dim=1), second.sum(dim=1))
    origin, twin = _packed(both.values[:n], first, shared), _packed(both.values[n:], second, shared)
    return PairedActivations(origin, twin, None if groups is None else (groups[:n], groups[n:]))


def _packed(values: Tensor, mask: Tensor, counts: Tensor) -> Activations:
    """The positions that count moved to the front, the first `counts` of each row."""
    width = max(1, int(counts.max()))
    front = mask.int().argsort(dim=1, descending=True, stable=True)[:, :width]
    at = front[:, None, :, None].expand(-1, values.shape[1], -1, values.shape[3])
    return Activations(values.gather(2, at), torch.arange(width, device=mask.device) < counts.unsqueeze(1))


def read(model: nn.Module, batch: Batch, wanted: Wanted, switches: Switches | None = None) -> Outputs:
    """One forward pass that yields what is wanted."""
    switches = switches or Switches()
    answer = answer_mask(batch)
    head: Any = _predicting(answer) if switches.answer_head else 0
    cut = switches.truncate and not wanted.answers
    with ExitStack() as stack:
        if cut and wanted.layers:
            stack.enter_context(truncated(model, max(wanted.layers)))
        hidden = stack.enter_context(captured(model, wanted.layers))
        stack.enter_context(stored_tower(model, batch))
        logits = model(**model_inputs(batch), logits_to_keep=head if wanted.answers else 1, use_cache=False).logits
    if not wanted.answers:
        return Outputs(batch, None, hidden)
    kept = logits if switches.answer_head else logits[:, :-1][answer]
    return Outputs(batch, AnswerLogits(kept, batch["labels"][:, 1:][answer], answer), hidden)


def answer_mask(batch: Batch) -> Tensor:
    """Shape (batch, t - 1): which positions predict an answer token; position i predicts token i + 1."""
    mask: Tensor = batch["labels"][:, 1:] != -100
    return mask


def _predicting(answer: Tensor) -> Tensor:
    return torch.cat([answer, torch.zeros_like(answer[:, :1])], dim=1)


def answer_log_probs(model: nn.Module, batch: Batch) -> AnswerLogProbs:
    """Log-probabilities of the answers, from one forward pass."""
    logits = read(model, batch, Wanted(answers=True)).logits
    assert logits is not None
    return logits.log_probs()


def layer_activations(model: nn.Module, batch: Batch, layer: int, positions: Positions) -> Activations:
    """Output of decoder layer `layer` (from 0), from one forward pass that ends there."""
    found = read(model, batch, Wanted(layers=frozenset({layer}))).signal("activations", (layer,), positions)
    assert isinstance(found, Activations)
    return found


def positions_mask(batch: Batch, positions: Positions) -> Tensor:
    """Which positions count, (batch, t): answer tokens, text (no image tokens, no padding), or all but padding.

    "prompt-end" is the one before the answer, which predicts its first token.
    """
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
        case "prompt-end":
            return leading(F.pad(answer_mask(batch), (0, 1)), torch.ones_like(labels[:, 0]))
    raise ValueError(f"positions is 'answer', 'text', 'all' or 'prompt-end', not {positions!r}")


@contextmanager
def truncated(model: nn.Module, layer: int) -> Iterator[nn.Module]:
    """The model with its decoder cut after `layer`; whole again afterwards, also after an exception."""
    decoder = bare(model).get_decoder()
    whole = decoder.layers
    check_layer(layer, len(whole))
    decoder.layers = whole[: layer + 1]
    try:
        yield whole[layer]
    finally:
        decoder.layers = whole


@contextmanager
def captured(model: nn.Module, layers: frozenset[int]) -> Iterator[dict[int, Tensor]]:
    """Fills a dictionary with the layers' outputs as the model runs; the hooks are gone afterwards."""
    whole = bare(model).get_decoder().layers if layers else []
    outputs: dict[int, Tensor] = {}
    hooks = []
    try:
        for layer in layers:
            check_layer(layer, len(whole))
            hooks.append(whole[layer].register_forward_hook(partial(_keep, outputs, layer)))
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def _keep(outputs: dict[int, Tensor], layer: int, _module: nn.Module, _args: Any, output: Any) -> None:
    # With checkpointing a layer runs again in the backward pass: the first output is the one in the graph.
    outputs.setdefault(layer, output[0] if isinstance(output, tuple) else output)


def check_layer(layer: int, count: int) -> None:
    """Raises ValueError where a decoder of `count` layers has no such layer."""
    if not 0 <= layer < count:
        raise ValueError(f"layer {layer} does not exist: the decoder has layers 0 to {count - 1}")
