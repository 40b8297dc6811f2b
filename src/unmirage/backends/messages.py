"""A prompt as messages in OpenAI's form, with the very pixels that a model in this process would get."""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import ExifTags, Image

from unmirage.backends.prompts import Prompt, image_bytes
from unmirage.errors import UserError

_SENT_AS_IS = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
"""What every server reads; pictures of other formats are sent as PNG, which loses nothing of them."""


def messages(prompt: Prompt) -> list[dict[str, Any]]:
    """One message of the user; the picture, where there is one, before the question."""
    if prompt.image is None:
        return [{"role": "user", "content": prompt.question}]
    picture = {"type": "image_url", "image_url": {"url": data_url(prompt)}}
    return [{"role": "user", "content": [picture, {"type": "text", "text": prompt.question}]}]


def data_url(prompt: Prompt) -> str:
    """The prompt's picture as a data URL with the type that its bytes tell; UserError where it cannot be read.

    The file is sent as it is where a receiver can read nothing else in it than we do. Where it could (transparency,
    palettes, several frames, a turn noted in EXIF, more than 8 bits) our own reading is sent, as PNG.
    """
    assert prompt.image is not None
    content = image_bytes(prompt.image, prompt.query)
    try:
        with Image.open(io.BytesIO(content)) as image:
            kind = _SENT_AS_IS.get(image.format or "")
            if kind is None or not _is_plain(image):
                kind, content = "image/png", _as_png(image.convert("RGB"))
    except Exception as error:  # Pillow's plugins raise whatever their parsers run into
        raise UserError(
            f"{prompt.image}: the image of query {prompt.query!r} cannot be read ({error}); "
            "repair the file or remove the row."
        ) from error
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _is_plain(image: Image.Image) -> bool:
    turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    return image.mode in ("RGB", "L") and getattr(image, "n_frames", 1) == 1 and not turned


def _as_png(image: Image.Image) -> bytes:
    """Of the pixels alone: a note of how the picture is to be turned would be followed by who reads it."""
    out = io.BytesIO()
    Image.frombytes("RGB", image.size, image.tobytes()).save(out, format="PNG")
    return out.getvalue()
