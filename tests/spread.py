"""What each of several processes does that a launcher starts: `torchrun ... spread.py JOBS.json [fsdp2]`.

JOBS.json is a list of runs. A run is one command of the program, `arguments`, and may have `stop`: a step after whose
saving all processes are interrupted, or `poison`: a process whose loss is not a number. What a process said goes to
`<name>.<process>.json`.

accelerate shards on GPUs only. With `fsdp2` this script lets it do on CPUs what torch itself can do there.
"""

from __future__ import annotations

import io
import json
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from unmirage import cli
from unmirage.align.processes import leave


def shard_on_cpus() -> None:
    """Makes accelerate take CPUs for devices that it can shard on; the processes are joined here."""
    import torch
    from accelerate import PartialState
    from accelerate.utils import DistributedType

    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    torch.distributed.init_process_group("gloo")
    PartialState._prepare_backend = lambda *_args, **_options: ("gloo", DistributedType.MULTI_GPU)


def watched(run: dict[str, Any], kinds: set[str]) -> Any:
    """A callback that looks at the parameters and stops where it is told to."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            kinds.update(type(parameter).__name__ for parameter in model.parameters())

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == run.get("stop"):
                raise KeyboardInterrupt

    return Watch()


def one(run: dict[str, Any], rank: int) -> None:
    """One command, in this process."""
    import unmirage.align
    from unmirage.align.trainer import AlignTrainer

    kinds: set[str] = set()
    unmirage.align.on_step = lambda _progress: watched(run, kinds)
    weighted = AlignTrainer._weighted
    if run.get("poison") == rank:

        def poisoned(self: Any, *args: Any) -> Any:
            loss, parts = weighted(self, *args)
            return loss * float("nan"), parts

        AlignTrainer._weighted = poisoned  # type: ignore[method-assign]
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = cli.run(lambda: cli.app(run["arguments"], prog_name="unmirage", standalone_mode=False))
    AlignTrainer._weighted = weighted  # type: ignore[method-assign]
    said = {"code": code, "out": out.getvalue(), "err": err.getvalue(), "kinds": sorted(kinds)}
    Path(f"{run['name']}.{rank}.json").write_text(json.dumps(said))


if __name__ == "__main__":
    cli._FIRST_ENDS = 0.0
    cli.quiet_libraries()
    if "fsdp2" in sys.argv:
        shard_on_cpus()
    for each in json.loads(Path(sys.argv[1]).read_text()):
        one(each, int(os.environ["RANK"]))
    leave(0)
