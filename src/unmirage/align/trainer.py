"""A Trainer for nested batches: every role's terms read one forward pass; everything else is transformers' own."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from transformers import Trainer

from unmirage.align.features import Batch
from unmirage.align.groups import GROUPS
from unmirage.align.processes import agree, together
from unmirage.align.references import Reference
from unmirage.align.saving import restore
from unmirage.align.signals import Outputs, Switches, read
from unmirage.align.terms import Term, wanted_by
from unmirage.align.weights import DualWeights, GroupWeights
from unmirage.errors import UserError

T = TypeVar("T")


class AlignTrainer(Trainer):  # type: ignore[misc]
    """Nested batches in, the weighted sum of each term's mean loss out; the parts are logged apart."""

    loss_is_scaled_for_ga = False

    def __init__(
        self,
        *,
        terms: Sequence[Term],
        references: Mapping[str, Reference],
        ids: Mapping[str, Sequence[str]],
        sizes: Mapping[str, Sequence[int]] | None = None,
        switches: Switches | None = None,
        **kwargs: Any,
    ) -> None:
        """`references`, `ids` (of the queries, by row) and `sizes` (of the groups of rows, for terms that average over
        these) are by role; everything else goes to the base class.
        """
        super().__init__(**kwargs)
        self.terms, self.references, self.ids = list(terms), references, ids
        self.switches = switches or Switches()
        self.sizes = sizes or {}
        self.add_callback(DualWeights())
        self.add_callback(GroupWeights())
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = defaultdict(int)
        self._batch: Mapping[str, Batch] = {}
        self._constrained: dict[int, list[Tensor]] = defaultdict(list)
        self._grouped: dict[int, list[Tensor]] = defaultdict(list)

    @property
    def duals(self) -> DualWeights:
        """The dual variables; found anew, since the Trainer replaces its callbacks when it resumes."""
        return next(one for one in self.callback_handler.callbacks if isinstance(one, DualWeights))

    @property
    def group_weights(self) -> GroupWeights:
        """The weights of groups of rows; found anew, as `duals`."""
        return next(one for one in self.callback_handler.callbacks if isinstance(one, GroupWeights))

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Batch], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The scalar loss; see the base class. Raises UserError where a part of it is not a finite number."""
        self._batch = inputs
        loss, parts = in_one_pass(model, lambda network: self._weighted(network, inputs))
        self._check_finite(loss, parts, inputs)
        self._note(parts)
        return (loss, None) if return_outputs else loss

    def _weighted(self, model: nn.Module, inputs: Mapping[str, Batch]) -> tuple[Tensor, dict[int, Tensor]]:
        """The loss, and its parts without their weights."""
        parts = {number: loss for role, batch in inputs.items() for number, loss in self._role(model, role, batch)}
        loss = torch.stack([self._factor(number) * part for number, part in sorted(parts.items())]).sum()
        return loss, {number: part.detach() for number, part in parts.items()}

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
            losses += [(number, self._loss(number, outputs, reference)) for number in numbers]
        return losses

    def _loss(self, number: int, outputs: Outputs, reference: Any) -> Tensor:
        term = self.terms[number]
        losses = term.losses(outputs, reference(term) if term.needs_reference else None)
        return losses.mean() if term.weight.average == "rows" else self._over_groups(number, losses, outputs.batch)

    def _over_groups(self, number: int, losses: Tensor, batch: Batch) -> Tensor:
        """The weighted sum of the groups' mean losses, each over the rows that all processes have of it.

        Scaled so that the mean over the processes, which is what the gradients get, is that sum.
        """
        groups = batch["group"][: len(losses)]  # of a pair, the origin's
        sums = losses.new_zeros(len(GROUPS)).index_add(0, groups, losses)
        counts = self._sum(torch.bincount(groups, minlength=len(GROUPS)).to(losses))
        self._grouped[number].append(torch.stack([self._sum(sums.detach()), counts]))
        weights = losses.new_tensor(self.group_weights.get(number, self.sizes[self.terms[number].role]))
        found: Tensor = (weights * sums / counts.clamp(min=1)).sum() * self.args.world_size
        return found

    def _factor(self, number: int) -> float:
        progress = self.state.global_step / max(1, self.state.max_steps)
        return self.terms[number].weight.at(progress, self.duals.get(number))

    def _note(self, parts: Mapping[int, Tensor]) -> None:
        """Adds the parts up for the log, and raises dual variables; nothing is read from the device for the former."""
        for number, part in parts.items():
            term = self.terms[number]
            self._sums[term.name] = self._sums.get(term.name, 0) + part
            self._counts[term.name] += 1
            if term.weight.schedule == "dual":
                self._raise(number, part)
            if term.weight.average == "groups" and self.accelerator.sync_gradients:
                self._weigh_groups(number)

    def _raise(self, number: int, part: Tensor) -> None:
        """Dual ascent once a step, by the mean loss of all its batches in all processes."""
        self._constrained[number].append(part)
        if self.accelerator.sync_gradients:
            mean = self._mean(torch.stack(self._constrained.pop(number)).mean()).item()
            self.duals.observe(number, self.terms[number].weight, mean)

    def _weigh_groups(self, number: int) -> None:
        """One step of ascent of a term's group weights, by the mean losses of all batches of the step."""
        sums, counts = torch.stack(self._grouped.pop(number)).sum(dim=0).tolist()
        losses = [total / count if count else None for total, count in zip(sums, counts, strict=True)]
        self.group_weights.observe(number, self.terms[number].weight.rate, losses)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Adds each part's mean since the last log, over all processes."""
        means = [total / self._counts[name] for name, total in self._sums.items()]
        values = self._mean(torch.stack(means)).tolist() if means else []
        parts = dict(zip(self._sums, values, strict=True))
        if "train_loss" in logs:  # of this process alone
            logs = {**logs, "train_loss": self._mean(torch.tensor(logs["train_loss"])).item()}
        self._sums.clear()
        self._counts.clear()
        duals = {f"weight/{self.terms[int(n)].name}": value for n, value in self.duals.values.items()}
        groups = {
            f"weight/{self.terms[int(n)].name}/{name}": value
            for n, values in self.group_weights.values.items()
            for name, value in zip(GROUPS, values, strict=True)
        }
        super().log({**logs, **parts, **duals, **groups}, *args, **kwargs)

    def _mean(self, values: Tensor) -> Tensor:
        """The mean over all processes."""
        found: Tensor = self.accelerator.reduce(values.to(self.args.device), "mean")
        return found

    def _sum(self, values: Tensor) -> Tensor:
        """The sum over all processes; a tensor of its own."""
        found: Tensor = self.accelerator.reduce(values.clone(), "sum")
        return found

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Reads a saved step back; the base class can do so for adapters and for sharded weights only."""
        if hasattr(self.model, "peft_config") or self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            restore(self.model, resume_from_checkpoint)

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """Clips as the base class does; raises UserError before a step that would ruin the weights."""
        norm = super()._clip_grad_norm(model)
        if norm is not None and not math.isfinite(float(norm)):  # the same in all processes
            rows = "; ".join(together(self._rows(self._batch)))
            raise UserError(
                f"step {self.state.global_step + 1}: the gradient is not a finite number ({float(norm)}) though the "
                f"loss is. Rows of its last batch {rows}. {_HINT}"
            )
        return norm

    def _check_finite(self, loss: Tensor, parts: Mapping[int, Tensor], inputs: Mapping[str, Batch]) -> None:
        """Raises UserError in every process where the loss of one of them is not a finite number."""
        bad = not math.isfinite(loss.item())
        if self.args.world_size > 1:
            flag = torch.tensor(float(bad), device=loss.device)
            if self.accelerator.reduce(flag, "sum").item():
                agree(self._not_finite(parts, inputs) if bad else None)
        elif bad:
            raise UserError(self._not_finite(parts, inputs))

    def _not_finite(self, parts: Mapping[int, Tensor], inputs: Mapping[str, Batch]) -> str:
        bad = ", ".join(f"{self.terms[n].name} = {part.item()}" for n, part in parts.items() if not part.isfinite())
        step = f"step {self.state.global_step + 1}"
        where = bad or "through its weights"
        return f"{step}: the loss is not a finite number ({where}). Rows {self._rows(inputs)}. {_HINT}"

    def _rows(self, inputs: Mapping[str, Batch]) -> str:
        """The ids of a batch's rows, by role."""
        rows = {role: [self.ids[role][row] for row in batch["row"].tolist()] for role, batch in inputs.items()}
        return "; ".join(f"{role}: {', '.join(dict.fromkeys(ids))}" for role, ids in rows.items())


_HINT = (
    "The last saved step stays as it was. A smaller lr, a smaller coefficient or beta, precision=fp32, or a retain "
    "term for a method without one helps most often."
)


def in_one_pass(model: nn.Module, compute: Callable[[nn.Module], T]) -> T:
    """`compute(model)`, however often it runs the model; for DistributedDataParallel within one forward pass of its.

    That wrapper finds out from the outcome of a pass which gradients to wait for: with a pass for each role it would
    wait for some that another role's pass gives, or never come.
    """
    if not isinstance(model, DistributedDataParallel):
        return compute(model)
    network = model.module
    own = network.__dict__.get("forward")

    def restore() -> None:
        network.__dict__.pop("forward", None)
        if own is not None:
            network.__dict__["forward"] = own

    def forward(_: None) -> T:
        restore()
        return compute(network)

    network.__dict__["forward"] = forward
    try:
        found: T = model(None)
        return found
    finally:
        restore()
