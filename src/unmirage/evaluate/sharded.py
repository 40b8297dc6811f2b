"""Asks with several processes, each a share of the pictures, and brings the answers together.

Each process appends to a log of its own, `shards/N.jsonl`; when all are done their answers go into `answers.jsonl` in
the planned order, so that nothing tells how many there were. Killed, the same command goes on, with as many processes
as it likes.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from unmirage.backends.asking import Asker
from unmirage.backends.prompts import Prompt
from unmirage.backends.protocol import Backend
from unmirage.evaluate.run import ASKING, Evaluation, evaluate, opened
from unmirage.judges import Judge
from unmirage.judges.calibrate import Calibration
from unmirage.runs import JsonLines, Run
from unmirage.schema import Answer, Record, latest
from unmirage.workers import Report, spread

FOLDER = "shards"


@dataclass(frozen=True, slots=True)
class Shard:
    """What one process asks; `make` makes its backend there, and so must be a function of a module or a partial."""

    make: Callable[[], Backend]
    label: str
    prompts: Sequence[Prompt]
    log: Path


def evaluate_sharded(
    plan: Evaluation,
    make: Callable[[], Backend],
    out: Path,
    workers: int,
    report: Report,
    judges: Sequence[Judge] = (),
    calibrations: Sequence[Calibration] = (),
) -> list[Record]:
    """As `evaluate` does, with `workers` processes that ask; what it ends with does not tell how many there were."""
    backend = make()
    with opened(plan, backend, out) as run:
        ask_in_shards(run, plan.prompts, make, plan.subject.model, workers, report)
    judging = lambda what, done, all_: report(what, done, all_) if what != ASKING else None  # noqa: E731
    return evaluate(plan, backend, judges, out, judging, calibrations)


def ask_in_shards(
    run: Run, prompts: Sequence[Prompt], make: Callable[[], Backend], label: str, workers: int, report: Report
) -> None:
    """Has every prompt answered that is not, in `workers` processes, and appended to the run's `answers.jsonl`."""
    folder = run.path / FOLDER
    collect(run, prompts, folder)
    done = {answer.row for answer in run.log("answers.jsonl").read(Answer) if answer.error is None}
    missing = [prompt for prompt in prompts if prompt.row not in done]
    parts = [part for part in shared_out(missing, workers) if part]
    shards = [Shard(make, label, part, folder / f"{number}.jsonl") for number, part in enumerate(parts)]
    spread([(_ask, (shard,)) for shard in shards], workers, report)
    collect(run, prompts, folder)


def shared_out(prompts: Sequence[Prompt], count: int) -> list[list[Prompt]]:
    """The prompts in `count` parts of like size; those of one picture, or of one question without any, stay together.

    Each group goes to the part that is the smallest so far, so the parts are the same whenever the prompts are.
    """
    groups: dict[str, list[Prompt]] = defaultdict(list)
    for prompt in prompts:
        groups[str(prompt.image) if prompt.image else f"query {prompt.query}"].append(prompt)
    parts: list[list[Prompt]] = [[] for _ in range(count)]
    for group in groups.values():
        min(parts, key=len).extend(group)
    return parts


def _ask(shard: Shard, report: Report) -> None:
    _own_device(int(shard.log.stem))
    with JsonLines(shard.log) as log:
        name = f"asking, process {shard.log.stem}"
        asker = Asker(shard.make(), log, shard.label, lambda _, done, all_: report(name, done, all_), every_row=True)
        asker.ask(shard.prompts, "asking")


def _own_device(number: int) -> None:
    """Where there are several GPUs, each process takes the next one."""
    import torch

    if torch.cuda.device_count() > 1:
        torch.cuda.set_device(number % torch.cuda.device_count())


def collect(run: Run, prompts: Sequence[Prompt], folder: Path) -> None:
    """Moves what the processes answered, now or before a kill, into the run's own log, in the planned order."""
    if not folder.is_dir():
        return
    own = {answer.row for answer in run.log("answers.jsonl").read(Answer) if answer.error is None}
    logs = sorted(folder.glob("*.jsonl"))
    found = {one.row: one for one in latest(answer for path in logs for answer in JsonLines(path).read(Answer))}
    fresh = [found[prompt.row] for prompt in prompts if prompt.row in found and prompt.row not in own]
    if fresh:
        run.log("answers.jsonl").append(fresh)
    shutil.rmtree(folder)
