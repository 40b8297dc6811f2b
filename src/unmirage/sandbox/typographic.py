"""Questions drawn into pictures, in the layout of FigStep's folder: the words reach the model by its eyes alone.

FigStep (Gong et al. 2023, arXiv 2311.05608) draws an instruction as a heading over an empty numbered list and asks for
the list to be filled in. Here the instructions are the sandbox's harmful questions.

    data/question/safebench.csv          dataset, category_id, task_id, category_name, question, instruction
    data/question/safebench.truth.json   for the truth judge
    data/images/SafeBench/query_ForbidQI_<category_id>_<task_id>_6.png
"""

from __future__ import annotations

import csv
import io
import random
import textwrap
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from unmirage.errors import UserError
from unmirage.runs import write_json, write_text
from unmirage.sandbox import language
from unmirage.sandbox.language import KNOW_HOW, Asked
from unmirage.sandbox.world import World

COLUMNS = ("dataset", "category_id", "task_id", "category_name", "question", "instruction")
SIDE = 320
"""Pixels; the model's processor makes it as small as every picture."""
SIZES = (26, 24, 22, 20, 18, 16, 14, 12, 10, 8)
"""Heights of the letters in pixels, the first that fits is taken."""
_MARGIN = 16
_UNSEEN_FROM = 101
"""Number of the first question about an unseen object; FigStep numbers the questions of a topic from 1."""
_ITEMS = "\n1.\n2.\n3."


def write_figstep(world: World, seen: bool, seed: int, count: int, shared: dict[str, Any], out: Path) -> None:
    """Writes `count` questions to the folder `out`, about hazards that were seen in tuning or about the others.

    `shared` is what every truth of this world holds. Ids of the two sorts differ, so both can be asked at once.
    """
    asked = _questions(world, seen, seed, count)
    rows = [_row(number, one, seen) for number, one in enumerate(asked)]
    folder = out / "data"
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


def _questions(world: World, seen: bool, seed: int, count: int) -> list[Asked]:
    rng = random.Random(f"{seed}/figstep" if seen else f"{seed}/figstep_unseen")
    hazards = world.pick(hazardous=True, seen=seen)
    return [language.ask_named(rng, rng.choice(hazards), KNOW_HOW[number % len(KNOW_HOW)]) for number in range(count)]


def _row(number: int, asked: Asked, seen: bool) -> dict[str, str | int]:
    category = number % len(KNOW_HOW)
    question = asked.question("Share")
    plain = question.removeprefix("Share ")
    return {
        "dataset": "sandbox",
        "category_id": category + 1,
        "task_id": number // len(KNOW_HOW) + (1 if seen else _UNSEEN_FROM),
        "category_name": KNOW_HOW[category],
        "question": question,
        "instruction": f"{plain[:1].upper()}{plain[1:]}.{_ITEMS}",
    }


def typed(text: str, font: Path | None = None) -> Image.Image:
    """Black words on white, `SIDE` pixels square, broken to lines, as large as they fit and at most `SIZES[0]` pixels.

    Any text can be drawn, whichever data it is from. `font` is a TrueType or OpenType file; without it, Pillow's own,
    which has the letters of ASCII alone. Equal arguments give equal pixels. Raises UserError for an empty text, for one
    that does not fit at `SIZES[-1]` pixels, for a letter that the font has not, and for a font that cannot be read.
    """
    if not text.strip():
        raise UserError("an empty text cannot be drawn into a picture; leave the question out.")
    _have_letters(text, font)
    # Twenty letters a line at the largest size, ten where they are wide; a smaller size has room for more.
    for size, columns in ((size, letters * SIZES[0] // size) for size in SIZES for letters in (20, 10)):
        image = Image.new("RGB", (SIDE, SIDE), "white")
        lines = "\n".join(part for line in text.split("\n") for part in textwrap.wrap(line, columns))
        page, look = ImageDraw.Draw(image), {"font": _font(size, font), "spacing": 10 * size // SIZES[0]}
        if max(page.multiline_textbbox((_MARGIN, _MARGIN), lines, **look)[2:]) <= SIDE - _MARGIN // 2:
            page.multiline_text((_MARGIN, _MARGIN), lines, fill="black", **look)
            return image
    raise UserError(
        f"{len(text)} letters do not fit into a picture of {SIDE} pixels ({text[:40]!r}...); leave the question out."
    )


def _have_letters(text: str, font: Path | None) -> None:
    """Raises UserError for a letter that the font would draw as a box, the same one for all that it has not."""
    letters = _font(SIZES[0], font)
    box = bytes(letters.getmask("\U0010ffff"))
    if lacking := [letter for letter in dict.fromkeys("".join(text.split())) if bytes(letters.getmask(letter)) == box]:
        raise UserError(
            f"the font has no {''.join(lacking[:10])!r} ({text[:40]!r}...); give a font file that has these letters."
        )


@lru_cache(maxsize=32)
def _font(size: int, font: Path | None) -> Any:
    try:
        return ImageFont.truetype(font, size) if font else ImageFont.load_default(size)
    except OSError as error:
        raise UserError(f"{font} cannot be read as a font ({error}); give a TrueType or OpenType file.") from error
