"""The direction of a cue taken out of the weights that write to the residual stream: directional ablation.

Arditi et al. 2024, arXiv 2406.11717, section 2.4, for the direction of refusal and all weights; here for the direction
by which an opening word moves a layer (see `CueSums`), and the weights up to that layer. A question and its one-word
twin, which end alike, then do not differ along it at the end of the prompt, where that layer ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from unmirage.align.batches import Encoded, collate
from unmirage.align.features import Batch, bare
from unmirage.align.objectives._targets import TINY, CueSums
from unmirage.align.references import Asking, to_device
from unmirage.align.signals import PairedActivations, Wanted, read
from unmirage.align.terms import Term
from unmirage.errors import UserError

State = dict[str, Tensor]
_WRITERS = ("o_proj", "out_proj", "down_proj", "fc2")
"""Names of the modules that end attention and MLP in decoders; whether they are all is checked by running them."""
_CLOSE = 1e-2


@torch.no_grad()
def measured(part: Encoded, term: Term, asking: Asking) -> Tensor:
    """The cue's direction over all pairs, shape (hidden,), in float32; the same in all processes.

    Raises UserError where no pair changes its cue.
    """
    half, sums = len(part) // 2, None
    asking.model.eval()
    for start in range(0, half, asking.batch_size):
        rows = range(start, min(start + asking.batch_size, half))
        batch = _batch(Subset(part, [*rows, *(half + row for row in rows)]), asking)
        with asking.autocast():
            found = term.signal(read(asking.model, batch, term.wanted, asking.switches))
        assert isinstance(found, PairedActivations)
        sums = CueSums.of(found) if sums is None else sums + CueSums.of(found)
    assert sums is not None
    direction = sums.direction()[0]
    if direction.norm() < TINY:
        raise UserError(
            "no twin has another cue than its origin, or the model does not tell them apart at this layer: there is no "
            "direction to project out; give words that are cues, or another layer."
        )
    return direction


def _batch(rows: Subset[Batch], asking: Asking) -> Batch:
    loader: DataLoader[Batch] = DataLoader(rows, len(rows), collate_fn=partial(collate, padding=asking.padding))
    return to_device(next(iter(loader)), asking.model)


def writers(model: Any, last: int) -> dict[str, nn.Module]:
    """The modules that write to the residual stream in the decoder's layers up to `last`, by their names."""
    network = bare(model)
    inside = {id(module) for layer in network.get_decoder().layers[: last + 1] for module in layer.modules()}
    return {
        name: module
        for name, module in network.named_modules()
        if id(module) in inside and name.rsplit(".", 1)[-1] in _WRITERS
    }


@torch.no_grad()
def check_writers(part: Encoded, last: int, asking: Asking) -> None:
    """Raises UserError where what a layer adds to its input is not what its writers put out, as in some families."""
    batch, layers = _batch(Subset(part, [0]), asking), bare(asking.model).get_decoder().layers
    known = writers(asking.model, last)
    with _written(layers[: last + 1], known) as (added, written):
        read(asking.model, batch, Wanted(layers=frozenset({last})), asking.switches)
    for number, layer in enumerate(layers[: last + 1]):
        own = {id(module) for module in layer.modules()}
        total = sum((value for module, value in written if id(module) in own), torch.zeros_like(added[number]))
        if (total - added[number]).norm() > _CLOSE * added[number].norm():
            raise UserError(
                f"finish=project does not know what writes to the residual stream of layer {number} in this model "
                "family; train the direction away instead (method=cue-direction)."
            )


@contextmanager
def _written(layers: Any, known: dict[str, nn.Module]) -> Iterator[tuple[list[Tensor], list[tuple[nn.Module, Tensor]]]]:
    """Collects what each layer adds to its input, and what each writer puts out."""
    added: list[Tensor] = []
    written: list[tuple[nn.Module, Tensor]] = []

    def layer(_module: nn.Module, args: Any, options: Any, output: Any) -> None:
        before = args[0] if args else options["hidden_states"]
        added.append(((output[0] if isinstance(output, tuple) else output) - before).float())

    hooks = [one.register_forward_hook(layer, with_kwargs=True) for one in layers]
    for module in known.values():
        hooks.append(module.register_forward_hook(lambda own, _args, output: written.append((own, output.float()))))
    try:
        yield added, written
    finally:
        for hook in hooks:
            hook.remove()


def projected(state: State, names: Any, direction: Tensor) -> State:
    """The weights W - u u^T W, and biases b - u (u . b), of the named modules; the others as they are."""
    found = dict(state)
    for name in names:
        for key in (f"{name}.weight", f"{name}.bias"):
            if key in state:
                value = state[key].float()
                u = direction.to(value)
                along = u @ value
                found[key] = (value - (torch.outer(u, along) if value.ndim > 1 else u * along)).to(state[key])
    return found
