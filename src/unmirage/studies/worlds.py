"""The sandbox's own studies, as tables in Markdown: the demo over several seeds, and the race in several worlds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from unmirage.demo import demo
from unmirage.sandbox.bases import pretrained
from unmirage.sandbox.world import World
from unmirage.schema import Record
from unmirage.workers import Report, spread

_CELLS = (("asr", "ASR"), ("rr", "RR"), ("utility", "utility"), ("refusal", "harmful refused"), ("ir", "irrelevant"))
WORLDS = (
    ("plainly marked and asked about, openers all alike", World("plain", 0.0)),
    ("small badge never asked about, openers all alike", World("badge", 0.0)),
    ("nothing shared among hazards, openers all alike", World("none", 0.0)),
    ("small badge never asked about, the opener shapes the answer", World("badge", 1.0)),
)


def seeds_table(out: Path, seeds: Sequence[int], workers: int, report: Report) -> str:
    """Runs the demo in `out`/seed-N for each seed; a table each for tuned-on and never-tuned-on objects."""
    by_seed = [
        demo(out / f"seed-{seed}", seed=seed, workers=workers, report=_prefixed(report, f"seed {seed}: "))
        for seed in seeds
    ]
    tables = [
        f"{title} objects, percent before → after; mean of seeds {', '.join(map(str, seeds))}, each in brackets:\n\n"
        + _table(by_seed, split)
        for split, title in (("seen", "Tuned-on"), ("unseen", "Never-tuned-on"))
    ]
    return "\n\n".join(tables)


def knobs_table(out: Path, workers: int, report: Report) -> str:
    """Pretrains a base in each world, tunes it for safety at rho 1 and rho 0, and attacks it."""
    folders = [out / f"world-{number}" for number in range(len(WORLDS))]
    jobs = [(pretrained, (world, folder / "base")) for folder, (_, world) in zip(folders, WORLDS, strict=True)]
    bases = spread(jobs, workers, report)
    rows = ["| world | rho | ASR seen | ASR unseen | RR seen | RR unseen |", "|---|---|---|---|---|---|"]
    for folder, base, (title, world) in zip(folders, bases, WORLDS, strict=True):
        only = ("mixed-sft", "mixed-sft-rho0")
        told = _prefixed(report, f"{_short(world)}: ")
        records = demo(folder / "demo", base=base, world=world, only=only, workers=workers, report=told)
        for model in dict.fromkeys(record.model for record in records):
            mine = [record for record in records if record.model == model]
            cells = [_arrow([mine], metric, split) for metric in ("asr", "rr") for split in ("seen", "unseen")]
            rows.append(f"| {title} | {'0' if 'rho=0' in model else '1'} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _short(world: World) -> str:
    return f"{world.salience}, {world.opener_weight:g}"


def _prefixed(report: Report, prefix: str) -> Report:
    return lambda name, done, total: report(prefix + name, done, total)


def _table(by_seed: Sequence[list[Record]], split: str) -> str:
    rows = ["| model | " + " | ".join(title for _, title in _CELLS) + " |", "|---" * (len(_CELLS) + 1) + "|"]
    for model in dict.fromkeys(record.model for record in by_seed[0]):
        mine = [[record for record in records if record.model == model] for records in by_seed]
        rows.append(f"| {model} | " + " | ".join(_arrow(mine, metric, split) for metric, _ in _CELLS) + " |")
    return "\n".join(rows)


def _arrow(by_seed: Sequence[list[Record]], metric: str, split: str) -> str:
    """Mean before → mean after and, with several seeds, each of them in brackets."""
    pairs = [(_value(records, metric, split, False), _value(records, metric, split, True)) for records in by_seed]
    both = " → ".join(f"{100 * mean(values):.1f}" for values in zip(*pairs, strict=True))
    if len(pairs) == 1:
        return both
    each = ", ".join(f"{100 * before:.0f} → {100 * after:.0f}" for before, after in pairs)
    return f"{both} ({each})"


def _value(records: Sequence[Record], metric: str, split: str, attacked: bool) -> float:
    found: list[Any] = [
        record.value
        for record in records
        if record.metric == metric
        and record.split == split
        and record.judge.startswith("sandbox-truth")
        and (record.attack is not None) == attacked
        and "/" not in (record.attack or "")  # a control
    ]
    return float(found[0])
