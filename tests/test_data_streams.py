"""Large sets as streams: what `load` gives, in memory for ids and names of pictures alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dataset_fixtures_b as made
import polars as pl
import pytest

from unmirage.datasets import LoadedData, load
from unmirage.datasets.loaded import Problem
from unmirage.datasets.streaming import open_rows

FORMATS_OF_TABLES = ("spa-vl", "spa-vl-rejected", "beavertails-v", "beavertails-v-rejected", "hf")


def parts(format: str, folder: Path) -> Iterator[tuple[Path, str]]:
    """Files of a format with all that can be told of them: an unknown column, a bad row, an empty answer."""
    if format.startswith("spa-vl"):
        rows = [made.spa_row(0), made.spa_row(1, question="N/A"), made.spa_row(2, chosen=" ", rejected=" ", new=1)]
        yield made.parquet(made.spa_vl(folder) / "data" / "train-00002-of-00003.parquet", rows).parent, "train"
        yield made.spa_vl_json(folder), ""
        if format == "spa-vl":
            yield folder / "test", "help"
    elif format.startswith("beavertails-v"):
        rows = [made.pair_row(7, safer_response_id=3), made.pair_row(8, is_response_1_safe="no", new=1)]
        made.parquet(made.beavertails_v(folder / "pairs") / "b" / "train-00000-of-00001.parquet", rows)
        yield folder / "pairs", "train"
        single = made.beavertails_v(folder / "single", made.single_row) / "b" / "train-00000-of-00001.parquet"
        made.parquet(single, [made.single_row(8, is_response_safe=s) for s in ("no", "perhaps")])
        yield folder / "single", "train"
    else:
        yield made.hf(folder), "train"


def whole(opened: Any) -> tuple[list[Any], list[str], list[str]]:
    """Queries, problems and remarks of a stream."""
    items = list(opened.items)
    problems = [str(item) for item in items if isinstance(item, Problem)]
    return [item for item in items if not isinstance(item, Problem)], problems, opened.warnings


@pytest.mark.parametrize("format", FORMATS_OF_TABLES)
def test_a_stream_gives_what_load_gives(format, tmp_path):
    told = 0
    for path, split in parts(format, tmp_path):
        images = None if path.suffix == ".json" else tmp_path / "pictures"
        loaded: LoadedData = load(path, format=format, split=split or None, images=images)
        queries, problems, warnings = whole(open_rows(path, format, split=split or None, images=images))
        assert queries == loaded.queries
        assert problems == [str(problem) for problem in loaded.problems]
        # Pictures were written by the first reading alone, which tells so.
        assert warnings == [one for one in loaded.warnings if "were written to" not in one]
        told += len(problems) + len(warnings)
    assert told > 0


def test_the_large_formats_are_streams_and_each_reads_its_own_answer(tmp_path, monkeypatch):
    path = made.spa_vl(tmp_path / "s") / "data"
    pairs = made.beavertails_v(tmp_path / "b")

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("it was read whole")

    monkeypatch.setattr("unmirage.datasets.load", fail)
    chosen, rejected = (whole(open_rows(path, format))[0] for format in ("spa-vl", "spa-vl-rejected"))
    assert [query.reference for query in chosen] == [f"Better not, {n}." for n in range(4)]
    assert [query.reference for query in rejected] == [f"With zindle {n}." for n in range(4)]
    safer, other = (
        whole(open_rows(pairs, format, split="train"))[0] for format in ("beavertails-v", "beavertails-v-rejected")
    )
    assert [query.id for query in safer] == [query.id for query in other]
    assert [query.reference for query in safer[:2]] == ["Let them be, 0.", "Let them be, 1."]
    assert [query.reference for query in other[:2]] == ["In box 0.", "In box 1."]


# --- memory ------------------------------------------------------------------------------------------------------

TEXT, SMALL = 4_000, 2_000
"""Characters of each answer, and rows of the smaller table; the larger has ten times as many: 160 MB of text."""
RUN = """
import re, sys
from pathlib import Path
from unmirage.datasets.streaming import open_rows
count = sum(1 for _ in open_rows(Path(sys.argv[1]), sys.argv[2], images=Path(sys.argv[3])).items)
print(count, re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""
ROWS: dict[str, Callable[..., dict[str, Any]]] = {"spa-vl": made.spa_row, "beavertails-v": made.pair_row}
ANSWERS = {"spa-vl": ("chosen", "rejected"), "beavertails-v": ("response_1", "response_2")}


def table(folder: Path, format: str, rows: int) -> Path:
    """A table with a picture and two long answers in each row, in small row groups as the Hub's are."""
    held = made.inside(1)
    frames = []
    for start in range(0, rows, 1000):
        made_rows = []
        for number in range(start, start + 1000):
            long = {name: os.urandom(TEXT // 2).hex() for name in ANSWERS[format]}
            made_rows.append(ROWS[format](number, image=held, **long))
        frames.append(pl.DataFrame(made_rows, schema_overrides={"image": made.PICTURE}))
    file = folder / f"train-{rows:05}.parquet"
    pl.concat(frames).write_parquet(file, row_group_size=100)
    return file


@pytest.mark.skipif(sys.platform != "linux", reason="the most memory is read from /proc")
@pytest.mark.parametrize("format", ROWS)
def test_memory_of_a_stream_does_not_grow_with_the_rows(format, tmp_path):
    peaks = []
    for rows in (SMALL, 10 * SMALL):
        file = table(tmp_path, format, rows)
        run = [sys.executable, "-c", RUN, file, format, tmp_path / "pictures"]
        environment = {**os.environ, "POLARS_MAX_THREADS": "1"}
        found = subprocess.run(run, capture_output=True, text=True, check=True, env=environment)
        count, peak = re.findall(r"\d+", found.stdout)
        assert int(count) == rows
        peaks.append(int(peak))
        size = file.stat().st_size >> 10
    assert peaks[1] - peaks[0] < size // 4  # KiB; the file is compressed to half
