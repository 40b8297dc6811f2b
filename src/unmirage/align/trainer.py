"""A Trainer for nested batches: every role's terms read one forward pass; everything else is transformers' own."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer

from unmirage.align.features import Batch
from unmirage.align.references import Reference
from unmirage.align.signals import Outputs, Switches, read
from unmirage.align.terms import Term, wanted_by
from unmirage.align.weights import DualWeights
from unmirage.errors import UserError


class AlignTrainer(Trainer):  # type: ignore[misc]
    """Nested batches in, the weighted sum of each term's mean loss out; the parts are logged apart."""

    loss_is_scaled_for_ga = False

    def __init__(
        self,
        *,
        terms: Sequence[Term],
        references: Mapping[str, Reference],
        ids: Mapping[str, Sequence[str]],
        switches: Switches | None = None,
        **kwargs: Any,
    ) -> None:
        """`references` and `ids` (of the queries, by row) are by role; everything else goes to the base class."""
        super().__init__(**kwargs)
        self.terms, self.references, self.ids = list(terms), references, ids
        self.switches = switches or Switches()
        self.add_callback(DualWeights())
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = defaultdict(int)

    @property
    def duals(self) -> DualWeights:
        """The dual variables; found anew, since the Trainer replaces its callbacks when it resumes."""
        return next(one for one in self.callback_handler.callbacks if isinstance(one, DualWeights))

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Batch], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The scalar loss; see the base class. Raises UserError where a part of it is not a finite number."""
        parts = {number: loss for role, batch in inputs.items() for number, loss in self._role(model, role, batch)}
        loss = torch.stack([self._factor(number) * part for number, part in sorted(parts.items())]).sum()
        if not math.isfinite(loss.item()):
            raise UserError(self._not_finite(parts, inputs))
        self._note(parts)
        return (loss, None) if return_outputs else loss

    def _role(self, model: nn.Module, role: str, batch: Batch) -> list[tuple[int, Tensor]]:
        """The losses of one role's terms, by the number of the term."""
        terms = {number: term for number, term in enumerate(self.terms) if term.role == role}
        reference = None
        if role in self.references and any(term.needs_reference for term in terms.values()):
            reference = self.references[role].outputs(model, batch)
        groups = [list(terms)] if self.switches.share_forward else [[number] for number in terms]
        losses = []
        for numbers in groups:
            outputs = read(model, batch, wanted_by([terms[number] for number in numbers]), self.switches)
            losses += [(number, self._loss(terms[number], outputs, reference)) for number in numbers]
        return losses

    def _loss(self, term: Term, outputs: Outputs, reference: Any) -> Tensor:
        return term.loss(outputs, reference(term) if term.needs_reference else None)

    def _factor(self, number: int) -> float:
        progress = self.state.global_step / max(1, self.state.max_steps)
        return self.terms[number].weight.at(progress, self.duals.get(number))

    def _note(self, parts: Mapping[int, Tensor]) -> None:
        """Adds the parts up for the log, and raises dual variables; nothing is read from the device for the former."""
        for number, part in parts.items():
            term = self.terms[number]
            self._sums[term.name] = self._sums.get(term.name, 0) + part.detach()
            self._counts[term.name] += 1
            if term.weight.schedule == "dual" and self.accelerator.sync_gradients:
                mean = self.accelerator.reduce(part.detach(), "mean").item()
                self.duals.observe(number, term.weight, mean)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Adds each part's mean since the last log."""
        parts = {name: (total / self._counts[name]).item() for name, total in self._sums.items()}
        self._sums.clear()
        self._counts.clear()
        duals = {f"weight/{self.terms[int(n)].name}": value for n, value in self.duals.values.items()}
        super().log({**logs, **parts, **duals}, *args, **kwargs)

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """Clips as the base class does; raises UserError before a step that would ruin the weights."""
        norm = super()._clip_grad_norm(model)
        if norm is not None and not math.isfinite(float(norm)):
            raise UserError(
                f"step {self.state.global_step + 1}: the gradient is not a finite number ({float(norm)}) though the "
                f"loss is. {_HINT}"
            )
        return norm

    def _not_finite(self, parts: Mapping[int, Tensor], inputs: Mapping[str, Batch]) -> str:
        bad = ", ".join(f"{self.terms[n].name} = {part.item()}" for n, part in parts.items() if not part.isfinite())
        rows = {role: [self.ids[role][row] for row in batch["row"].tolist()] for role, batch in inputs.items()}
        named = "; ".join(f"{role}: {', '.join(ids)}" for role, ids in rows.items())
        step = f"step {self.state.global_step + 1}"
        return f"{step}: the loss is not a finite number ({bad or 'through its weights'}). Rows {named}. {_HINT}"


_HINT = (
    "The last saved step stays as it was. A smaller lr, a smaller coefficient or beta, precision=fp32, or a retain "
    "term for a method without one helps most often."
)
