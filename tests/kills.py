"""Alignments that are killed: `python kills.py JOBS.json`; every try is a process of its own.

JOBS.json: {"model", "rows", "runs": {name: {"settings", "kills"}}}. A run is done once whole (`<name>/whole`) and once
cut (`<name>/cut`): one try for each kill, and one that is let be. A kill is ["step", n]: in the middle of step n, its
gradients there and its weights not yet changed; ["save", n]: while step n is saved; ["store", n]: while the nth file of
references is written. Prints how each try ended.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
import transformers

from unmirage.align import AlignConfig, align, caching, references, store
from unmirage.align.trainer import AlignTrainer
from unmirage.backends.checkpoint import load_checkpoint
from unmirage.schema import Query


def end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(what: str, number: int) -> None:
    """Lets this process end at a certain point."""
    if what == "step":
        step = AlignTrainer.training_step

        def training_step(self: Any, *args: Any, **options: Any) -> Any:
            loss = step(self, *args, **options)
            if self.state.global_step + 1 == number:
                assert any(p.grad is not None for p in self.model.parameters())
                end()
            return loss

        AlignTrainer.training_step = training_step
    elif what == "save":
        save = AlignTrainer._save_optimizer_and_scheduler

        def half(self: Any, folder: str) -> None:
            if self.state.global_step == number:
                end()
            save(self, folder)

        AlignTrainer._save_optimizer_and_scheduler = half
    else:
        files, save_file = [0], store.save_file

        def save_part(*args: Any) -> None:
            save_file(*args)
            files[0] += 1
            if files[0] == number:
                end()

        store.save_file = save_part


def one(jobs: dict[str, Any], run: dict[str, Any], out: Path, kill: tuple[str, int] | None) -> None:
    """One try, in a process of its own; ends this process."""
    references.FILE_ROWS = caching.FILE_ROWS = 1
    if kill:
        arm(*kill)
    rows = [Query.model_validate(row) for row in jobs["rows"]]
    align(Path(jobs["model"]), rows, AlignConfig(**run["settings"]), out, cache=out.with_name(f"{out.name}-cache"))


def ended(jobs: dict[str, Any], run: dict[str, Any], out: Path, kill: tuple[str, int] | None) -> int:
    """How a try ended: 0, or minus the signal."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        one(jobs, run, out, kill)
        code = 0
    finally:
        os._exit(code)


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    jobs = json.loads(Path(sys.argv[1]).read_text())
    load_checkpoint(Path(jobs["model"]))  # so that no try has to import all that again
    folder = Path(sys.argv[1]).parent
    for name, run in jobs["runs"].items():
        codes = [ended(jobs, run, folder / name / "whole", None)]
        codes += [ended(jobs, run, folder / name / "cut", kill) for kill in (*run["kills"], None)]
        print(name, *codes, flush=True)
