"""Several processes that train together, started by `accelerate launch` or `torchrun`: which one this is, who writes.

Only the first process writes into the run folder, locks it and speaks; what is computed once is shared out among all.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from unmirage.errors import UserError

T = TypeVar("T")


def here() -> Any:
    """The state of this process among the others; joins them at the first call."""
    return PartialState(cpu=on_cpu())


def on_cpu() -> bool:
    """Whether to compute on the CPU: where there is no GPU, or the launcher was told so."""
    return not torch.cuda.is_available() or os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")


def is_first() -> bool:
    """Whether this process writes and speaks."""
    return bool(here().is_main_process)


def share(rows: Sequence[T]) -> Sequence[T]:
    """This process's part of what all of them compute together, such that every part is of use by itself."""
    return rows[here().process_index :: here().num_processes]


def together(value: T) -> list[T]:
    """The values of all processes, in their order, in each of them; waits until all are there."""
    found: list[T] = gather_object([value])
    return found


def summed(values: torch.Tensor) -> torch.Tensor:
    """The sum of the values of all processes that train together, in each of them; one process has its own back.

    It asks torch, as joining the others (`here`) is not for an objective to do. All processes have to ask.
    """
    from torch import distributed

    if not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() == 1:
        return values
    found = values.detach().clone()
    distributed.all_reduce(found)
    return found


def by_first(action: Callable[[], T]) -> T | None:
    """Does something in the first process while the others wait; None for these.

    Raises UserError in all of them where the first one does, so that none waits for ever.
    """
    result, complaint = None, [""]
    if is_first():
        try:
            result = action()
        except UserError as error:
            complaint = [str(error)]
    broadcast_object_list(complaint)
    if complaint[0]:
        raise UserError(complaint[0])
    return result


def agree(complaint: str | None) -> None:
    """Raises UserError in all processes where one of them complains; each has to ask."""
    if complaints := [one for one in together(complaint) if one]:
        raise UserError(" ".join(dict.fromkeys(complaints)))


def leave(code: int) -> None:
    """Ends this process with an exit code where it had joined others; returns where it had not.

    It never lets the interpreter close. gloo's threads may still hold tensors then, and one that lets go of them while
    the interpreter closes ends the process with SIGABRT, "terminate called without an active exception", though all of
    its work was done (https://github.com/pytorch/pytorch/issues/190489). To destroy the group does not end these
    threads once a model was trained by DDP. NCCL asks for it, and where something failed it may wait for the others.
    """
    from torch import distributed

    if not distributed.is_available() or not distributed.is_initialized():
        return
    if code == 0:
        distributed.destroy_process_group()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def check_launch() -> None:
    """Raises UserError for a way to spread the model that this trainer does not serve."""
    if not _asks_for_fsdp():
        return
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise UserError("only the second version of FSDP is served; write `fsdp_version: 2` into accelerate's file.")
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"  # it would give all but the first process empty weights


def shard_by_layer(network: Any) -> None:
    """Tells accelerate what to shard one by one, where its file does not: the decoder's layers."""
    os.environ.setdefault("FSDP_TRANSFORMER_CLS_TO_WRAP", type(network.get_decoder().layers[0]).__name__)


def unsharded(sharded: bool) -> list[str]:
    """A note where shards were asked for and accelerate made none, as it does without saying so on CPUs."""
    if not _asks_for_fsdp() or sharded:
        return []
    return ["accelerate shards on GPUs only: each process holds the whole model, and they train by DDP."]


def _asks_for_fsdp() -> bool:
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
