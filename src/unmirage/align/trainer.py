"""A Trainer that weighs a forget loss against a retain loss; everything else is transformers' own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer

from unmirage.align.batches import Encoded, collate
from unmirage.align.objectives import Objective
from unmirage.align.signals import Activations, AnswerLogProbs, Batch, Positions, answer_log_probs, layer_activations


@dataclass(frozen=True, slots=True)
class Term:
    """One part of the loss: which samples (`role`), which objective, how much it weighs.

    `layer` and `positions` matter only to objectives that read activations.
    """

    role: str
    objective: Objective
    config: Any
    weight: float = 1.0
    layer: int = 0
    positions: Positions = "text"

    def signal(self, model: nn.Module, batch: Batch) -> AnswerLogProbs | Activations:
        """What the objective reads, from one forward pass."""
        if self.objective.signal == "log_probs":
            return answer_log_probs(model, batch)
        return layer_activations(model, batch, self.layer, self.positions)


class Reference:
    """A term's signal under the model as it was before training, computed once, row by row.

    So there is never a second copy of the model; valid after a resume, as it is made before any step.
    """

    def __init__(self, term: Term, model: nn.Module, data: Encoded, padding: int, batch_size: int) -> None:
        """Asks `model`, which should be in evaluation mode, for the signal of every row."""
        self._rows: list[Tensor] = []
        loader: DataLoader[Batch] = DataLoader(data, batch_size, collate_fn=partial(collate, padding=padding))
        with torch.no_grad():
            for batch in loader:
                signal = term.signal(model, to_device(batch, model))
                lengths = batch["attention_mask"].sum(dim=1).tolist()
                shift = int(isinstance(signal, AnswerLogProbs))
                self._rows += [v[: n - shift].cpu() for v, n in zip(signal.values, lengths, strict=True)]

    def of(self, rows: Tensor, policy: AnswerLogProbs | Activations) -> AnswerLogProbs | Activations:
        """The reference for these rows, padded like the policy's signal."""
        values = torch.zeros_like(policy.values)
        for at, row in enumerate(rows.tolist()):
            kept = self._rows[row].to(values)
            values[at, : len(kept)] = kept
        return type(policy)(values, policy.mask)


class AlignTrainer(Trainer):  # type: ignore[misc]
    """Nested batches in, the weighted sum of each term's mean loss out."""

    loss_is_scaled_for_ga = False

    def __init__(self, *, terms: Sequence[Term], references: dict[int, Reference], **kwargs: Any) -> None:
        """`references` are by the number of their term; everything else goes to transformers' Trainer."""
        super().__init__(**kwargs)
        self.terms = list(terms)
        self.references = references

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Batch], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The scalar loss; see the base class."""
        parts = [self._term(number, term, model, inputs[term.role]) for number, term in enumerate(self.terms)]
        loss = torch.stack(parts).sum()
        return (loss, None) if return_outputs else loss

    def _term(self, number: int, term: Term, model: nn.Module, batch: Batch) -> Tensor:
        policy = term.signal(model, batch)
        reference = self.references[number].of(batch["row"], policy) if number in self.references else None
        return term.weight * term.objective.function(policy, reference, term.config).mean()


def to_device(batch: Batch, model: nn.Module) -> Batch:
    """The batch where the model is."""
    device = next(model.parameters()).device
    return {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}


def collate_roles(samples: Sequence[dict[str, Batch]], padding: int) -> dict[str, Batch]:
    """Collates each role of nested samples apart."""
    return {role: collate([sample[role] for sample in samples], padding) for role in samples[0]}
