"""Reading large data: seconds and memory of LLaVA's instruction JSON at its real size, and of tables with pictures.

    python benchmarks/data.py [--rows 66500 665000] [--pictures 500 5000] [--out benchmarks/results/data.json]

The conversations are made up: one to six exchanges of drawn words, 0.9 kB a row (the mix of LLaVA-1.5 has as many rows
in 1 GB); of sixteen rows fifteen name one of 20,000 pictures, which are there. `load` keeps every query in memory, so
what grows with the rows is the text that is used; `stream` keeps ids and names alone. The plain way parses the whole
file and makes a validated query of each row; equal queries are checked on the smallest file. The tables have pictures
of 50 kB inside, in row groups of 100 as the Hugging Face library writes them: read for the first time, when they are
written to a folder, and again.

Each case runs in a process of its own. Memory is the highest resident memory above that of the process before it reads.
Times are those of the fastest of several runs, as on a shared machine the others measure the neighbours; memory is the
most that any run took.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import random
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl
from PIL import Image

from unmirage.datasets import llava, load
from unmirage.runs import write_json
from unmirage.schema import Query, content_hash

Record = dict[str, Any]
PICTURES = 20_000
PICTURE_BYTES = 50_000
ROW_GROUP = 100
MOST_COMPARED = 100_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/data.json"))
    parser.add_argument("--rows", type=int, nargs="+", default=[66_500, 665_000])
    parser.add_argument("--pictures", type=int, nargs="+", default=[500, 5_000])
    parser.add_argument("--repeat", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        records = conversations(Path(folder), options.rows, options.repeat)
        records += tables(Path(folder), options.pictures, options.repeat)
    names = ("polars", "pydantic")
    result = {"schema": 1, "device": platform.processor() or platform.machine()}
    write_json(options.out, {**result, "versions": {name: version(name) for name in names}, "records": records})
    print(json.dumps(records, indent=1))


def conversations(folder: Path, sizes: list[int], repeat: int) -> list[Record]:
    make_pictures(folder / "images")
    records: list[Record] = []
    for rows in sizes:
        file = make_conversations(folder / f"llava-{rows}.json", rows)
        case, size = f"LLaVA JSON, {rows} rows", file.stat().st_size
        found = {name: best(way, file, repeat) for name, way in WAYS.items()}
        digests = [found[name]["digest"] for name in ("load", "plain: parsed whole")]
        equal = digests[0] == digests[1] if digests[0] is not None else None
        for name, run in found.items():
            records += figures(case, name, run, size, equal if run["digest"] is not None else None)
        file.unlink()
    return records


def tables(folder: Path, sizes: list[int], repeat: int) -> list[Record]:
    records: list[Record] = []
    for rows in sizes:
        place = folder / f"table-{rows}"
        place.mkdir()
        file = make_table(place / "train-00000-of-00001.parquet", rows)
        case, size = f"Parquet with {rows} pictures of {PICTURE_BYTES // 1000} kB", file.stat().st_size
        records += figures(case, "load, pictures written", measured(table, file), size, None)
        records += figures(case, "load, pictures there", best(table, file, repeat), size, None)
    return records


def figures(case: str, variant: str, run: Record, size: int, equal: bool | None) -> list[Record]:
    numbers = {
        "seconds": run["seconds"],
        "CPU seconds": run["cpu"],
        "memory above the start, MiB": run["memory"],
        "memory above the start / file size": run["memory"] / (size / (1 << 20)),
    }
    return [
        {"case": case, "variant": variant, "metric": name, "value": round(value, 2), "equal_outputs": equal}
        for name, value in numbers.items()
    ]


def best(way: Callable[[Path], Any], file: Path, repeat: int) -> Record:
    runs = [measured(way, file) for _ in range(repeat)]
    return {**min(runs, key=lambda run: float(run["cpu"])), "memory": max(run["memory"] for run in runs)}


def measured(way: Callable[[Path], Any], file: Path) -> Record:
    """Run in a process of its own, whose highest memory is then that of this run alone."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        result: Record = pool.apply(run, (way, file))
    return result


def run(way: Callable[[Path], Any], file: Path) -> Record:
    before = resident("VmRSS")
    start, cpu = time.perf_counter(), time.process_time()
    made = way(file)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    memory = resident("VmHWM") - before
    few = isinstance(made, list) and len(made) < MOST_COMPARED
    digest = content_hash([query.model_dump(mode="json") for query in made]) if few else None
    return {"seconds": seconds, "cpu": cpu, "memory": memory, "digest": digest}


def ours(file: Path) -> list[Query]:
    return load(file, format="llava").queries


def verified(file: Path) -> int:
    return len(load(file, format="llava", verify_images=True).queries)


def streamed(file: Path) -> int:
    return sum(1 for _ in llava.load.stream(file).items)


def plain(file: Path) -> list[Query]:
    """The plain way: the file parsed as a whole, every picture looked for, a validated query for each row."""
    queries, taken, images = [], set(), file.parent / "images"
    for row in json.loads(file.read_text()):
        unique, again = row["id"], 1
        while unique in taken:
            again += 1
            unique = f"{row['id']}#{again}"
        taken.add(unique)
        image = images / row["image"] if "image" in row else None
        assert image is None or image.resolve().is_relative_to(images.resolve())
        said = [turn["value"] for turn in row["conversations"]]
        question = said[0].replace("<image>", "").strip()
        queries.append(
            Query(id=unique, question=question, harmful=False, image=image, reference=said[1], data=file.stem)
        )
    return queries


WAYS = {"load": ours, "load, pictures verified": verified, "stream": streamed, "plain: parsed whole": plain}


def table(file: Path) -> int:
    return len(load(file, format="hf").queries)


def resident(key: str) -> float:
    """MiB that this process holds (VmRSS) or has held at most (VmHWM), from Linux; a child's own, not its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) / 1024


def make_pictures(folder: Path) -> None:
    """One picture under many names, by links."""
    first = folder / "coco" / f"{0:012}.png"
    first.parent.mkdir(parents=True)
    Image.new("RGB", (8, 8), "red").save(first)
    for number in range(1, PICTURES):
        os.link(first, first.with_name(f"{number:012}.png"))


def make_conversations(file: Path, rows: int) -> Path:
    """Made-up conversations; equal arguments give equal rows."""
    draw = random.Random(0)
    words = " ".join(draw.choices([f"word{n}" for n in range(5000)], k=100_000))

    def text(length: int) -> str:
        start = draw.randrange(len(words) - length)
        return words[start : start + length].strip()

    with file.open("w") as opened:
        for number in range(rows):
            said = []
            for exchange in range(draw.choice((1, 1, 1, 2, 4, 6))):
                mark = "<image>\n" if exchange == 0 and number % 16 else ""
                said.append({"from": "human", "value": mark + text(draw.randint(30, 150))})
                said.append({"from": "gpt", "value": text(draw.choice((20, 40, 250, 450)))})
            row: Record = {"id": f"{draw.randrange(10**9):012}"}
            row |= {"image": f"coco/{draw.randrange(PICTURES):012}.png"} if number % 16 else {}
            opened.write(("[" if number == 0 else ",\n") + json.dumps(row | {"conversations": said}))
        opened.write("]")
    return file


def make_table(file: Path, rows: int) -> Path:
    """Questions with random bytes as pictures, which compress as little as real ones."""
    parts = []
    for start in range(0, rows, ROW_GROUP):
        numbers = range(start, min(rows, start + ROW_GROUP))
        held = [{"bytes": b"\x89PNG" + os.urandom(PICTURE_BYTES - 4), "path": f"{n}.png"} for n in numbers]
        parts.append(pl.DataFrame({"image": held, "question": [f"What is {n}?" for n in numbers]}))
    pl.concat(parts).write_parquet(file, row_group_size=ROW_GROUP)
    return file


if __name__ == "__main__":
    main()
