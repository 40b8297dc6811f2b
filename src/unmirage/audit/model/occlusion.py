"""Questions with a word taken out or exchanged, and pictures with a part greyed: what occlusion asks."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from unmirage.audit.model.edits import cased
from unmirage.backends.prompts import Prompt, open_image
from unmirage.schema import content_hash

GREY = (127, 127, 127)


@dataclass(frozen=True, slots=True)
class Occlusion:
    """One prompt with something hidden: word number `word`, the whole picture (`patch` -1) or one patch of it."""

    prompt: Prompt
    word: int | None = None
    removed: bool = False
    patch: int | None = None


def word_occlusions(prompt: Prompt, fillers: Sequence[str]) -> list[Occlusion]:
    """Each word taken out, where others are left, and each filler in its place."""
    words = prompt.question.split()
    found = []
    for place, word in enumerate(words):
        if len(words) > 1:
            found.append(Occlusion(_named(prompt, words[:place] + words[place + 1 :], place, ""), place, removed=True))
        for filler in fillers:
            changed = [*words[:place], cased(filler, like=word), *words[place + 1 :]]
            found.append(Occlusion(_named(prompt, changed, place, filler), place))
    return found


def _named(prompt: Prompt, words: Sequence[str], place: int, filler: str) -> Prompt:
    edit = f"occlude:word {place}{':' + filler if filler else ''}"
    return replace(prompt, question=" ".join(words), attack=edit, word=filler or None)


def image_occlusions(prompt: Prompt, grid: int, folder: Path) -> list[Occlusion]:
    """The picture all grey, then each of grid x grid patches grey, row by row; none where there is no picture.

    The pictures are written to `folder`, as whatever answers may only take files.
    """
    image = open_image(prompt)
    if image is None:
        return []
    patches = [-1, *range(grid * grid)]
    return [
        Occlusion(replace(prompt, image=_written(greyed(image, grid, patch), folder), attack=f"occlude:patch {patch}"),
                  patch=patch)
        for patch in patches
    ]  # fmt: skip


def greyed(image: Image.Image, grid: int, patch: int) -> Image.Image:
    """A copy with one patch grey, counted row by row from 0; -1 is the whole picture."""
    if patch < 0:
        return Image.new("RGB", image.size, GREY)
    row, column = divmod(patch, grid)
    xs = [round(image.width * i / grid) for i in (column, column + 1)]
    ys = [round(image.height * i / grid) for i in (row, row + 1)]
    copy = image.copy()
    copy.paste(GREY, (xs[0], ys[0], xs[1], ys[1]))
    return copy


def _written(image: Image.Image, folder: Path) -> Path:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    path = folder / f"{content_hash(buffer.getvalue())}.png"
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_bytes() != buffer.getvalue():
        path.write_bytes(buffer.getvalue())
    return path
