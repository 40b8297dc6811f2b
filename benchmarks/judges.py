"""Judges against people: one Markdown table over files of labelled answers, and how many answers a second each judges.

    python benchmarks/judges.py xstest_v2_completions_gpt4.csv xstest_v2_completions_llama2orig.csv

Full refusal against full compliance; a judge's "partial" counts as refusing. Speed is of one thread's CPU time.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from unmirage.judges import Judge
from unmirage.judges.calibrate import Calibration, Figure, calibrate
from unmirage.judges.labels import Labelled, read_labels
from unmirage.judges.registry import JUDGES, judge_named
from unmirage.schema import Answer, Query

ROUNDS = 5
NOT_HERE = ("truth", "keywords")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", nargs="+", type=Path)
    parser.add_argument("--judge", action="append", help="name of a judge; without it all of them")
    arguments = parser.parse_args()
    for path in arguments.labels:
        rows = read_labels(path)
        print(f"\n{path.stem}, {len(rows)} answers\n")
        print("| judge | accuracy | false positives | recall | three classes equal | kappa | answers/s |")
        print("|---|---|---|---|---|---|---|")
        for name in arguments.judge or [name for name in JUDGES if name not in NOT_HERE]:
            judge = judge_named(name)
            print(line(name, calibrate(judge, rows, path.stem, ""), speed(judge, rows)))


def line(name: str, found: Calibration, rate: float) -> str:
    view = found.full
    figures = (view.accuracy, view.false_positive_rate, view.sensitivity, found.agreement)
    kappa = f"{found.kappa.value:.2f} [{found.kappa.low:.2f}, {found.kappa.high:.2f}]" if found.kappa else "-"
    return f"| {name} | {' | '.join(map(percent, figures))} | {kappa} | {rate:,.0f} |"


def percent(figure: Figure | None) -> str:
    return f"{100 * figure.value:.1f} [{100 * figure.low:.1f}, {100 * figure.high:.1f}]" if figure else "-"


def speed(judge: Judge, rows: list[Labelled]) -> float:
    """Answers a second, the best of several rounds."""
    query = Query(id="q", question="?", harmful=False)
    answers = [Answer(key="", query="q", question="?", model="", text=row.text) for row in rows]
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        for answer in answers:
            judge.judge(query, answer)
        times.append(time.process_time() - start)
    return len(answers) / min(times)


if __name__ == "__main__":
    main()
