"""Speed and memory of `unmirage audit data` on a million questions, after reading, against counting in plain Python.

    python benchmarks/audit.py [--rows 1000000] [--out benchmarks/results/audit.json]

The questions are made up: words drawn with the frequencies of natural text (Zipf), eleven a question, a third of them
refused, with an opening word that tells it. Memory is the highest resident memory of a process that reads a Parquet
file and audits it, and what that is above the process with the file just read. Times are those of the fastest of
several runs, as on a shared machine the others measure the neighbours; memory is the most that any run took.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import tempfile
import time
from collections import Counter
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from unmirage.audit import FrameSource, audit_data
from unmirage.runs import write_json

Record = dict[str, Any]
OPENERS = ("share", "what", "how", "describe", "can", "explain", "list", "why", "give", "is")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/audit.json"))
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "questions.parquet"
        questions(options.rows).write_parquet(file)
        runs = [measured(file, "ours") for _ in range(options.repeat)]
        plain = measured(file, "plain")
    ours = min(runs, key=lambda run: run["seconds"])
    memory = max(run["memory"] for run in runs)
    equal = ours["cues"] == plain["cues"]
    case = f"{options.rows} questions"
    records = [
        record(case, "ours, whole audit", "seconds", ours["seconds"], None, None),
        record(case, "ours, whole audit", "CPU seconds", ours["cpu"], None, None),
        record(case, "ours, counting only", "seconds", ours["counting"], plain["seconds"] / ours["counting"], equal),
        record(case, "plain Python, counting only", "seconds", plain["seconds"], 1.0, equal),
        record(case, "ours, whole audit", "highest memory, MiB", memory, None, None),
        record(case, "ours, whole audit", "memory above the data read, MiB", memory - ours["before"], None, None),
    ]
    names = ("polars", "numpy")
    result = {"schema": 1, "device": platform.processor() or platform.machine()}
    write_json(options.out, {**result, "versions": {name: version(name) for name in names}, "records": records})
    print(json.dumps(records, indent=1))


def record(case: str, variant: str, metric: str, value: float, ratio: float | None, equal: bool | None) -> Record:
    ratio = None if ratio is None else round(ratio, 2)
    numbers = {"value": round(value, 2), "ratio_to_plain": ratio, "equal_outputs": equal}
    return {"case": case, "variant": variant, "metric": metric, **numbers}


def questions(rows: int) -> pl.DataFrame:
    """Made-up questions with labels; equal arguments give equal rows."""
    rng = np.random.default_rng(0)
    words = np.array([f"w{i}" for i in range(50_000)])
    chance = 1 / np.arange(1, len(words) + 1)
    label = rng.random(rows) < 1 / 3
    told = rng.random(rows) < 0.5
    opener = np.where(told, np.where(label, 0, 1), rng.integers(0, len(OPENERS), rows))
    columns = [np.array(OPENERS)[opener]]
    columns += [words[rng.choice(len(words), rows, p=chance / chance.sum())] for _ in range(10)]
    frame = pl.DataFrame({str(i): column for i, column in enumerate(columns)})
    text = frame.select(pl.concat_str(pl.all(), separator=" ").str.to_titlecase() + "?").to_series()
    return pl.DataFrame({"question": text, "label": label})


def measured(file: Path, way: str) -> Record:
    """Run in a process of its own, whose highest memory is then that of this run alone."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        result: Record = pool.apply(run, (file, way))
    return result


def run(file: Path, way: str) -> Record:
    frame = pl.read_parquet(file)
    before = resident("VmRSS")
    start, cpu = time.perf_counter(), time.process_time()
    if way == "plain":
        cues = plain_counts(frame)
        return {"seconds": time.perf_counter() - start, "cues": cues}
    audit_data(FrameSource(frame))
    seconds, cpu, memory = time.perf_counter() - start, time.process_time() - cpu, resident("VmHWM")
    start = time.perf_counter()
    cues = our_counts(frame)
    counting = time.perf_counter() - start
    return {"seconds": seconds, "cpu": cpu, "before": before, "memory": memory, "counting": counting, "cues": cues}


def resident(key: str) -> float:
    """MiB that this process holds (VmRSS) or has held at most (VmHWM), from Linux; a child's own, not its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) / 1024


def our_counts(frame: pl.DataFrame) -> dict[str, tuple[int, int]]:
    from unmirage.audit.tally import Tally
    from unmirage.audit.words import Vocabulary

    tally = Tally(Vocabulary())
    for part in FrameSource(frame).frames():
        tally.add(part)
    tally.pairs.merge()
    words = tally.vocabulary.words
    counts = zip(words, tally.anywhere.n.tolist(), tally.anywhere.k.tolist(), strict=True)
    return {word: (n, k) for word, n, k in counts}


def plain_counts(frame: pl.DataFrame) -> dict[str, tuple[int, int]]:
    """The plain way: a loop over the questions with counters of openings, words and pairs."""
    tallies: dict[str, tuple[Counter[Any], Counter[Any]]] = {
        name: (Counter(), Counter()) for name in ("opening", "anywhere", "pairs")
    }
    for question, label in frame.iter_rows():
        words = question.lower().rstrip("?").split()
        found = {"opening": [words[0]], "anywhere": set(words), "pairs": set(pairwise(words))}
        for name, keys in found.items():
            tallies[name][0].update(keys)
            if label:
                tallies[name][1].update(keys)
    n, k = tallies["anywhere"]
    return {word: (count, k[word]) for word, count in n.items()}


if __name__ == "__main__":
    main()
