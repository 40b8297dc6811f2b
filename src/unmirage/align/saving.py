"""The Trainer's saved steps, and the checkpoint that comes out: merged or an adapter, in the type it came in."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unmirage.align.config import AlignConfig
from unmirage.backends.checkpoint import load_model, merge_adapter

State = dict[str, Tensor]


def train(trainer: Any, work: Path) -> None:
    """Trains to the end, from the newest saved step where there is one."""
    if trainer.args.max_steps:
        trainer.train(resume_from_checkpoint=last_checkpoint(work))


def last_checkpoint(work: Path) -> str | None:
    """The newest saved step of an interrupted run, if any; one that was cut off while it was saved does not count."""
    states = work.glob("checkpoint-*/trainer_state.json")  # the Trainer writes it last
    steps = sorted(states, key=lambda path: int(path.parent.name.rsplit("-", 1)[1]), reverse=True)
    return next((str(path.parent) for path in steps if _is_json(path)), None)


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except ValueError:
        return False
    return True


def restore(network: Any, saved: str) -> None:
    """Puts the weights of a saved step into the model.

    The Trainer's own way does not: it saves under the names that files have on the Hub, reads them back without
    renaming, and only warns that none of them fits.
    """
    weights = type(network).from_pretrained(saved, dtype=torch.float32, use_safetensors=True).state_dict()
    network.load_state_dict(weights)


def save(
    trainer: Any,
    processor: Any,
    stored: torch.dtype,
    base: Path,
    out: Path,
    config: AlignConfig,
    change: Callable[[State], State] = lambda state: state,
) -> None:
    """Writes the trained model and its processor to `out`, from the first process, in the type it was stored in.

    `change` is made to all weights before (tune=full only).
    """
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if not trainer.is_world_process_zero():
        return
    network = trainer.accelerator.unwrap_model(trainer.model_wrapped)
    if config.tune == "full":
        state = change(untied(network, state))
        state = negated(state, base, config.task_scale) if config.finish == "negate" else state
        network.save_pretrained(out, state_dict=cast(state, stored))
        network.config.dtype = stored
        network.config.save_pretrained(out)
    else:
        save_adapter(network, state, stored, base, out, config)
    processor.save_pretrained(out)


def untied(network: Any, state: State) -> State:
    """The weights without those that are another one's second name: gathered from shards they would be saved twice."""
    tied = getattr(network, "all_tied_weights_keys", None) or {}
    return {name: value for name, value in state.items() if name not in tied or tied[name] not in state}


def cast(state: State, dtype: torch.dtype) -> State:
    """The weights in the type of the checkpoint that they came from."""
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in state.items()}


def negated(state: State, base: Path, scale: float) -> State:
    """theta_0 - scale (theta - theta_0): the way that was learnt, gone backwards (arXiv 2212.04089, section 3)."""
    start = load_model(base).state_dict()
    origin = {name: start[name].float() for name in state}
    return {name: origin[name] - scale * (value.cpu().float() - origin[name]) for name, value in state.items()}


def save_adapter(network: Any, state: State, stored: torch.dtype, base: Path, out: Path, config: AlignConfig) -> None:
    """Writes the adapter, or the model that it is merged with: loaded anew, so that 4-bit weights are never merged."""
    for settings in network.peft_config.values():
        settings.base_model_name_or_path = str(base.resolve())
    if not config.merge:
        network.save_pretrained(out, state_dict=state)
        return
    adapter = out / "training" / "adapter"
    network.save_pretrained(adapter, state_dict=state)
    merge_adapter(base, adapter).to(stored).save_pretrained(out)
    shutil.rmtree(adapter)
