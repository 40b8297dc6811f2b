"""Failures of the machine that a user can do something about, as one sentence: a full disk, too little memory."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from unmirage.align.config import AlignConfig
from unmirage.errors import UserError

_NEARLY_FULL = 1_000_000
"""Bytes; with less than this left, a failure to save is put down to the disk."""

_UNALLOCATED = re.compile(r"can't allocate memory|not enough memory|ALLOC_FAILED")
"""How torch words it where memory other than the GPU's own does not suffice."""


@contextmanager
def disk_errors(out: Path) -> Iterator[None]:
    """Makes a UserError of what torch and safetensors raise on a full disk, which is no OSError of theirs."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        full = shutil.disk_usage(out).free < _NEARLY_FULL or "No space left" in str(error)
        if not full:
            raise
        raise UserError(
            f"{out}: no space is left on the disk; nothing that was saved before is lost. "
            "Free some space and run the same command again."
        ) from error


@contextmanager
def memory_errors(config: AlignConfig) -> Iterator[None]:
    """Makes a UserError of memory that does not suffice, which names the switches that are left to turn."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not _UNALLOCATED.search(str(error)):
            raise
        raise UserError(f"the memory does not suffice; {saves_memory(config)}. Saved steps are kept.") from error


def saves_memory(config: AlignConfig) -> str:
    """What would need less memory, for a sentence."""
    half = max(1, config.batch_size // 2)
    switches = {
        f"batch_size={half} with accumulation={config.accumulation * 2} (the same step)": config.batch_size > 1,
        "checkpointing=true": not config.checkpointing,
        "precision=bf16": config.precision != "bf16",
        "tune=lora": config.tune == "full",
        "train=layers": config.train != "layers" and bool(config.layers()),
        "a smaller max_length": True,
    }
    return "set " + ", ".join(name for name, helps in switches.items() if helps)
