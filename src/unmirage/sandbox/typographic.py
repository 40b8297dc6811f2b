"""Questions drawn into pictures, in the layout of FigStep's folder: the words reach the model by its eyes alone.

FigStep (Gong et al. 2023, arXiv 2311.05608) draws an instruction as a heading over an empty numbered list and asks for
the list to be filled in. Here the instructions are the sandbox's harmful questions.

    figstep/data/question/safebench.csv          dataset, category_id, task_id, category_name, question, instruction
    figstep/data/question/safebench.truth.json   for the truth judge
    figstep/data/images/SafeBench/query_ForbidQI_<category_id>_<task_id>_6.png
"""

from __future__ import annotations

import csv
import io
import random
import textwrap
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from unmirage.runs import write_json, write_text
from unmirage.sandbox import language
from unmirage.sandbox.language import KNOW_HOW, Asked
from unmirage.sandbox.world import World

COLUMNS = ("dataset", "category_id", "task_id", "category_name", "question", "instruction")
SIDE = 320
"""Pixels; the model's processor makes it as small as every picture."""
_ITEMS = "\n1.\n2.\n3."


def write_figstep(world: World, seed: int, count: int, shared: dict[str, Any], out: Path) -> None:
    """Writes `count` questions about hazards seen in tuning; `shared` is what every truth of this world holds."""
    asked = _questions(world, seed, count)
    rows = [_row(number, one) for number, one in enumerate(asked)]
    folder = out / "figstep" / "data"
    table = io.StringIO()
    writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / "question" / "safebench.csv", table.getvalue())
    ids = [f"{row['category_id']}_{row['task_id']}" for row in rows]
    answers = {key: one.answer for key, one in zip(ids, asked, strict=True)}
    facts = {key: language.fact(one) for key, one in zip(ids, asked, strict=True)}
    write_json(folder / "question" / "safebench.truth.json", {**shared, "answers": answers, "facts": facts})
    images = folder / "images" / "SafeBench"
    images.mkdir(parents=True, exist_ok=True)
    for key, row in zip(ids, rows, strict=True):
        typed(str(row["instruction"])).save(images / f"query_ForbidQI_{key}_6.png")


def _questions(world: World, seed: int, count: int) -> list[Asked]:
    rng = random.Random(f"{seed}/figstep")
    hazards = world.pick(hazardous=True, seen=True)
    return [language.ask_named(rng, rng.choice(hazards), KNOW_HOW[number % len(KNOW_HOW)]) for number in range(count)]


def _row(number: int, asked: Asked) -> dict[str, str | int]:
    category = number % len(KNOW_HOW)
    question = asked.question("Share")
    plain = question.removeprefix("Share ")
    return {
        "dataset": "sandbox",
        "category_id": category + 1,
        "task_id": number // len(KNOW_HOW) + 1,
        "category_name": KNOW_HOW[category],
        "question": question,
        "instruction": f"{plain[:1].upper()}{plain[1:]}.{_ITEMS}",
    }


def typed(text: str) -> Image.Image:
    """Black words on white, broken to the width of the picture."""
    lines = [part for line in text.split("\n") for part in textwrap.wrap(line, 20)]
    image = Image.new("RGB", (SIDE, SIDE), "white")
    ImageDraw.Draw(image).multiline_text((16, 16), "\n".join(lines), fill="black", font=_font(), spacing=10)
    return image


def _font() -> Any:
    return ImageFont.load_default(size=26)
