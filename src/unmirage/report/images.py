"""Pictures as data URIs: only pixels enter the page, never the file's own bytes or metadata."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from unmirage.schema import content_hash

LARGEST_SIDE = 448
FEW_COLOURS = 4096


@dataclass(frozen=True)
class Picture:
    """One embedded picture; `id` depends on the pixels alone, so the same picture is embedded once."""

    id: str
    uri: str
    width: int
    height: int

    @property
    def small(self) -> bool:
        """Drawn so small that smoothing would blur it when enlarged."""
        return max(self.width, self.height) < 200


def embed(paths: Iterable[Path | None]) -> dict[Path, Picture | None]:
    """Each path's picture, None where the file is gone or no picture (the page says so)."""
    return {path: _picture(path) for path in dict.fromkeys(paths) if path is not None}


def _picture(path: Path) -> Picture | None:
    from PIL import Image

    try:
        with Image.open(path) as image:
            pixels = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    pixels.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    # Drawings stay exact and small as PNG, photographs would be many times larger in it.
    drawn = pixels.getcolors(FEW_COLOURS) is not None
    buffer = io.BytesIO()
    pixels.save(buffer, "PNG", optimize=True) if drawn else pixels.save(buffer, "JPEG", quality=82)
    data = buffer.getvalue()
    uri = f"data:image/{'png' if drawn else 'jpeg'};base64,{base64.b64encode(data).decode('ascii')}"
    return Picture(f"picture-{content_hash(data)[:12]}", uri, pixels.width, pixels.height)
