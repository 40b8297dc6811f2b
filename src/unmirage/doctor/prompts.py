"""Harmless questions with drawn pictures, for checks that need some; or the first rows of the user's own data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from unmirage.backends.prompts import Prompt
from unmirage.schema import Query

_SHAPES = ("ellipse", "rectangle", "triangle")
_COLOURS = ("red", "green", "blue", "orange", "black")
_ABOUT_A_PICTURE = (
    "What shape is in the picture?",
    "Describe the picture in one sentence.",
    "Which colour is the shape?",
    "How many shapes are there?",
    "Is the shape on the left or on the right?",
    "Share one word for this picture.",
    "What could this be a sign for?",
    "What is the background like?",
    "Name three things of this colour.",
    "Write a title for the picture.",
)
_WITHOUT = (
    "What is the capital of France?",
    "Name three fruits.",
    "Write one sentence about rain.",
    "What comes after Monday?",
    "How many legs does a spider have?",
    "Translate 'good morning' into Spanish.",
    "What is two plus three?",
    "Give a short definition of a triangle.",
    "Which season comes after winter?",
    "Share a tip for watering house plants.",
)
SHIPPED = len(_ABOUT_A_PICTURE) + len(_WITHOUT)


def shipped_prompts(folder: Path, count: int = SHIPPED) -> list[Prompt]:
    """Half of them with a picture, and these first; the pictures are drawn into `folder`."""
    prompts: list[Prompt] = []
    for number, (shown, plain) in enumerate(zip(_ABOUT_A_PICTURE, _WITHOUT, strict=True)):
        path = folder / f"{number}.png"
        draw(_SHAPES[number % len(_SHAPES)], _COLOURS[number % len(_COLOURS)], number).save(path)
        prompts += [Prompt(f"picture-{number + 1}", shown, path), Prompt(f"text-{number + 1}", plain, None)]
    return _shown_first(prompts[:count])


def draw(shape: str, colour: str, number: int) -> Image.Image:
    """A shape on white, at a place that depends on the number; RGB, 224 x 224 pixels."""
    image = Image.new("RGB", (224, 224), "white")
    pen = ImageDraw.Draw(image)
    left, top = 20 + 24 * (number % 4), 20 + 16 * (number % 6)
    box = (left, top, left + 90, top + 90)
    if shape == "ellipse":
        pen.ellipse(box, fill=colour)
    elif shape == "rectangle":
        pen.rectangle(box, fill=colour)
    else:
        pen.polygon([(left, top + 90), (left + 45, top), (left + 90, top + 90)], fill=colour)
    return image


def spread(queries: Sequence[Query], count: int) -> list[Prompt]:
    """So many prompts as `count`, or as there are, taken evenly from all over the data."""
    chosen = min(count, len(queries))
    return _shown_first([Prompt.of(queries[number * len(queries) // chosen]) for number in range(chosen)])


def _shown_first(prompts: list[Prompt]) -> list[Prompt]:
    """Backends do not mix both sorts in a batch: each change of sort would end one."""
    return sorted(prompts, key=lambda prompt: prompt.image is None)
