"""What the model said before training, for the terms that compare with it; never from a second copy of the model.

Either computed once for every row and kept on disk, under a key of model, rows and what is read, so that it is valid
after an interruption and for other runs from the same start; or asked of the model with its adapter switched off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from unmirage.align.batches import Encoded, collate
from unmirage.align.features import Batch, bare
from unmirage.align.processes import share, together
from unmirage.align.signals import (
    Activations,
    AnswerLogits,
    AnswerLogProbs,
    Outputs,
    Signal,
    Switches,
    answer_mask,
    base_of,
    parted,
    positions_mask,
    read,
)
from unmirage.align.store import RowStore
from unmirage.align.terms import Term, wanted_by
from unmirage.schema import content_hash

FILE_ROWS = 64
Autocast = Callable[[], AbstractContextManager[Any]]


class Reference(Protocol):
    """Gives the reference's signal for a batch of the role that it was made for."""

    def outputs(self, model: nn.Module, batch: Batch) -> Callable[[Term], Signal]:
        """Reads the reference for a batch; the result gives each term its signal."""
        ...


@dataclass(frozen=True, slots=True)
class AdapterOff:
    """The model itself with its adapter switched off: bit for bit the model before training."""

    terms: Sequence[Term]
    switches: Switches

    @torch.no_grad()
    def outputs(self, model: nn.Module, batch: Batch) -> Callable[[Term], Signal]:
        """One forward pass for all terms."""
        with bare(model).disable_adapter():
            found = read(model, batch, wanted_by(self.terms), self.switches)
        return lambda term: term.signal(found)


@dataclass(frozen=True, slots=True)
class Stored:
    """Signals of every row, computed before the first step."""

    stores: dict[str, RowStore]

    def outputs(self, model: nn.Module, batch: Batch) -> Callable[[Term], Signal]:
        """Looks the rows up."""
        return partial(self._signal, batch)

    def _signal(self, batch: Batch, term: Term) -> Signal:
        store = self.stores[signal_key(term)]
        rows = [store[str(row)] for row in batch["row"].tolist()]
        return assembled(term, batch, torch.cat(rows).to(batch["input_ids"].device, non_blocking=True))


def signal_key(term: Term) -> str:
    """Names what a term reads, so that terms which read the same share it."""
    kind = base_of(term.objective.signal)
    where = f"-{'.'.join(map(str, term.layers))}-{term.positions}" if kind == "activations" else ""
    return f"{kind}{where}"


def compact(term: Term, outputs: Outputs) -> list[Tensor]:
    """The signal of each row of a batch, without padding and without positions that do not count."""
    kind = base_of(term.objective.signal)
    if kind == "activations":
        found = outputs.signal(kind, term.layers, term.positions)
        assert isinstance(found, Activations)
        return [values[:, mask].transpose(0, 1) for values, mask in zip(found.values, found.mask, strict=True)]
    assert outputs.logits is not None
    counts = outputs.logits.mask.sum(dim=1).tolist()
    if kind == "logits":
        return list(torch.split(outputs.logits.values, counts))
    whole = outputs.logits.log_probs()
    return [values[mask] for values, mask in zip(whole.values, whole.mask, strict=True)]


def assembled(term: Term, batch: Batch, flat: Tensor) -> Signal:
    """A batch's signal from the rows' compact ones, joined: the inverse of `compact`."""
    return parted(term.objective.signal, _padded(term, batch, flat), batch)


def _padded(term: Term, batch: Batch, flat: Tensor) -> Signal:
    kind = base_of(term.objective.signal)
    if kind == "activations":
        mask = positions_mask(batch, term.positions)
        values = flat.new_zeros(*mask.shape, *flat.shape[1:])  # (batch, t, layers, hidden)
        values[mask] = flat
        return Activations(values.transpose(1, 2), mask)
    mask = answer_mask(batch)
    if kind == "logits":
        return AnswerLogits(flat, batch["labels"][:, 1:][mask], mask)
    values = torch.zeros(mask.shape, dtype=flat.dtype, device=flat.device).masked_scatter(mask, flat)
    return AnswerLogProbs(values, mask)


@dataclass(frozen=True, slots=True)
class Asking:
    """How to ask the model before it is trained."""

    model: nn.Module
    padding: int
    batch_size: int
    switches: Switches
    autocast: Autocast = nullcontext
    dtype: str = "float32"


@torch.no_grad()
def stored(terms: Sequence[Term], data: Encoded, asking: Asking, root: Path, key: str) -> Stored:
    """Computes what the terms of one role read for all rows of its data, as far as it is not on disk yet.

    `key` names model and rows. The same batches are formed after an interruption, so the values are the same too.
    Several processes share the work.
    """
    by_key = {signal_key(term): term for term in terms}
    stores = {name: RowStore(root / f"reference-{content_hash(key, name)[:16]}-{name}") for name in by_key}
    asking.model.eval()
    block = max(1, FILE_ROWS // asking.batch_size) * asking.batch_size
    for start in share(range(0, len(data), block)):
        rows = range(start, min(start + block, len(data)))
        missing = [name for name in by_key if any(str(row) not in stores[name] for row in rows)]
        if missing:
            found = _ask(asking, Subset(data, rows), [by_key[name] for name in missing])
            for name, values in zip(missing, found, strict=True):
                stores[name].add(dict(zip(map(str, rows), values, strict=True)))
    together(None)
    return Stored({name: RowStore(store.folder) for name, store in stores.items()})


def _ask(asking: Asking, data: Subset[Batch], terms: Sequence[Term]) -> list[list[Tensor]]:
    """For each term the compact signals of all rows, on the CPU."""
    values: list[list[Tensor]] = [[] for _ in terms]
    loader: DataLoader[Batch] = DataLoader(data, asking.batch_size, collate_fn=partial(collate, padding=asking.padding))
    for batch in loader:
        with asking.autocast():
            outputs = read(asking.model, to_device(batch, asking.model), wanted_by(terms), asking.switches)
        for number, term in enumerate(terms):
            values[number] += [value.cpu() for value in compact(term, outputs)]
    return values


def to_device(batch: Batch, model: nn.Module) -> Batch:
    """The batch where the model is."""
    device = next(model.parameters()).device

    def moved(value: Any) -> Any:
        if isinstance(value, list):
            return [moved(one) for one in value]
        return value.to(device) if isinstance(value, Tensor) else value

    return {key: moved(value) for key, value in batch.items()}
