"""A picture as a page may show it: only its pixels, neither the file's own bytes nor its metadata or name."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

LARGEST_SIDE = 1280
FEW_COLOURS = 4096


class Picture(NamedTuple):
    """An encoded picture with its media type; width and height in pixels."""

    data: bytes
    kind: str
    width: int
    height: int


@lru_cache(maxsize=8)
def read_picture(path: Path) -> Picture | None:
    """The picture, at most `LARGEST_SIDE` wide and high; None where the file is gone or no picture."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            pixels = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    pixels.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    # Drawings stay exact and small as PNG, photographs would be many times larger in it.
    form = "PNG" if pixels.getcolors(FEW_COLOURS) is not None else "JPEG"
    buffer = io.BytesIO()
    pixels.save(buffer, form)
    return Picture(buffer.getvalue(), f"image/{form.lower()}", pixels.width, pixels.height)
