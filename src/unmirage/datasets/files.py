"""What every format shares: a JSON file of rows, and images that must stay in their folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import StringConstraints

from unmirage.errors import UserError

Loose = Annotated[str, StringConstraints(min_length=0)]
"""Any text that can be written, or what stands for one. Unlike `str` it is looked through: half a character that JSON
can name ("\\ud800" without its other half) is a validation error of the type `string_unicode`."""
Words = Annotated[Loose, StringConstraints(strict=True)]
"""The same, and no number or anything else in the place of a text."""
BROKEN_TEXT = (
    "broken-text",
    "the text holds half a character (a lone surrogate, such as \\ud800), which cannot be written or asked",
    "write the whole character or delete the row",
)
"""Kind of the problem that such a text is, what is wrong, what to do."""


def is_whole(text: str) -> bool:
    """Whether a text can be written in UTF-8: no character of it is half of one."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_rows(file: Path) -> list[Any]:
    """Return the rows of a JSON file; UserError where it cannot be read, is no list or holds no row."""
    try:
        rows = json.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"{file} does not exist; give the path of a data file, such as VLGuard's train.json.") from None
    except OSError as error:
        raise UserError(f"Cannot read {file}: {error.strerror}; give the path of a data file.") from error
    except json.JSONDecodeError as error:
        raise UserError(
            f"{file} is not JSON: line {error.lineno}, column {error.colno}: {error.msg}; correct it or fetch it again."
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} cannot be read as JSON in UTF-8: {error}; fetch it again.") from error
    if not isinstance(rows, list):
        raise UserError(f"{file} holds {kind_of(rows)}, not a list of rows; is it a data file?")
    if not rows:
        raise UserError(f"{file} holds an empty list; there is nothing to read.")
    return rows


def image_folder(file: Path, images: str | Path | None) -> Path:
    """Return the folder that image names are relative to: the given one, or the first that lies beside the file."""
    if images is not None:
        if not Path(images).is_dir():
            raise UserError(f"The image folder {images} does not exist; check the path.")
        return Path(images)
    candidates = (file.with_suffix(""), file.parent / "images", file.parent)
    return next(folder for folder in candidates if folder.is_dir())


def image_fault(folder: Path, image: str, verify: bool) -> tuple[str, str, str] | None:
    """Return (kind, what, fix) for the first thing that is wrong with an image, None where it is good."""
    try:
        path = (folder / image).resolve()
        inside = not Path(image).is_absolute() and ".." not in Path(image).parts
        if not (inside and path.is_relative_to(folder.resolve())):
            fix = "put the image, itself and not a link, into the image folder and name it relative to that"
            return "image-outside", f"{image!r} leaves the image folder {folder}", fix
        if not path.is_file():
            return "missing-image", f"there is no file {folder / image}", "put it there or give another image folder"
        if verify and (why := undecodable(path)):
            return "undecodable-image", f"{image!r} cannot be decoded: {why}", "fetch the image again"
    except (OSError, RuntimeError, ValueError) as error:  # too long a name, a ring of links, a NUL byte
        return "bad-image", f"{image!r} cannot be a path: {error}", "correct it or delete the row"
    return None


def undecodable(path: Path) -> str | None:
    """Return why an image cannot be decoded, None where it can."""
    try:
        from PIL import Image
    except ImportError:
        raise UserError("Checking that images decode needs Pillow; install it with: pip install pillow.") from None
    try:
        with Image.open(path) as image:
            image.verify()
        # `verify` reads no pixels of most formats, so a cut-off file shows only when it is decoded.
        with Image.open(path) as image:
            image.load()
    except Exception as error:  # Pillow's plugins raise whatever their parsers run into
        return f"{type(error).__name__}: {error}"
    return None


def kind_of(value: Any) -> str:
    """Name a JSON value for a user."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
