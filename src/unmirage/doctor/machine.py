"""What there is to compute with: devices and their memory, threads, disk."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from unmirage.doctor.finding import Section

GIB = 2**30
_LITTLE_DISK = 5 * GIB
"""Bytes; a checkpoint of a small model takes as much."""


def check_machine(folder: Path) -> Section:
    """Devices as torch sees them, and the disk below `folder`, where runs will be written."""
    section = Section("Machine")
    _add_processor(section)
    _add_accelerators(section)
    free = shutil.disk_usage(folder).free
    said = f"disk: {size(free)} free in {folder.resolve()}"
    (section.ok if free >= _LITTLE_DISK else section.note)(said)
    return section


def size(count: float) -> str:
    """Bytes as GiB."""
    return f"{count / GIB:.1f} GiB"


def _add_processor(section: Section) -> None:
    import torch

    section.ok(
        f"cpu: {os.cpu_count()} cores, {torch.get_num_threads()} threads for torch, {size(_memory())} memory"
        if _memory()
        else f"cpu: {os.cpu_count()} cores, {torch.get_num_threads()} threads for torch"
    )


def _memory() -> int:
    """Bytes of memory of the machine; 0 where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 0


def _add_accelerators(section: Section) -> None:
    import torch

    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(number)
        major, minor = torch.cuda.get_device_capability(number)
        half = "bfloat16" if major >= 8 else "no bfloat16"
        section.ok(
            f"cuda:{number}: {torch.cuda.get_device_name(number)}, {size(free)} of {size(total)} memory free, "
            f"compute capability {major}.{minor}, {half}"
        )
    if torch.backends.mps.is_available():
        section.note("mps: there is one, but models are run on cuda or cpu")
    if not torch.cuda.is_available():
        built = torch.version.cuda
        why = f"torch is built for CUDA {built} but sees no device" if built else "this torch is built without CUDA"
        section.note(f"no GPU: {why}; models run on the cpu")
