"""Any text drawn into a picture: whole, inside it, as large as it fits, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, ImageOps

from unmirage.errors import UserError
from unmirage.sandbox.typographic import SIDE, typed


def ink(image: Image.Image) -> tuple[int, int, int, int]:
    """The box around all that is not white."""
    box = ImageOps.invert(image.convert("L")).getbbox()
    assert box is not None
    return box


def rows_of(image: Image.Image) -> list[bytes]:
    """The grey values, row by row."""
    data = image.convert("L").tobytes()
    return [data[start : start + SIDE] for start in range(0, len(data), SIDE)]


@pytest.mark.parametrize(
    "text",
    ["Hi", "W" * 60, "Ways to make the velm zorch.\n1.\n2.\n3.", "word " * 300, "i" * 400, "(a)\t[b]  {c} ~ #1?"],
)
def test_text_stays_inside_the_picture(text: str) -> None:
    image = typed(text)
    assert (image.size, image.mode) == ((SIDE, SIDE), "RGB")
    left, top, right, bottom = ink(image)
    assert left >= 15
    assert top >= 15
    assert max(right, bottom) <= SIDE - 8
    assert image.tobytes() == typed(text).tobytes()


def test_every_word_is_drawn() -> None:
    words = ["word"] * 200
    inks = [sum(ImageOps.invert(typed(" ".join(words[:count])).convert("L")).histogram()[128:]) for count in (199, 200)]
    assert inks[0] < inks[1]


def test_a_longer_text_has_smaller_letters() -> None:
    heights = []
    for count in (1, 120, 300):
        dark = [min(row) < 128 for row in rows_of(typed("H " * count))]
        heights.append(dark[dark.index(True) :].index(False))
    assert heights[0] > heights[1] > heights[2] > 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an empty text"),
        (" \n\t", "an empty text"),
        ("word " * 600, "3000 letters do not fit into a picture of 320 pixels"),
        ("What is 日本?", "the font has no '日本'"),
    ],
)
def test_what_cannot_be_drawn_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        typed(text)


def test_a_file_that_is_no_font_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "font.ttf"
    with pytest.raises(UserError, match=r"font\.ttf cannot be read as a font"):
        typed("text", file)
    file.write_text("no font")
    with pytest.raises(UserError, match="give a TrueType or OpenType file"):
        typed("text", file)
