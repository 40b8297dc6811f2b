"""What is asked: a question with at most one picture, as a conversation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from unmirage.errors import UserError
from unmirage.schema import Query, Variant


@dataclass(frozen=True, slots=True)
class Prompt:
    """One planned row: a query as it is, or one of its variants (`attack`, `word`, `shot`)."""

    query: str
    question: str
    image: Path | None
    attack: str | None = None
    word: str | None = None
    shot: int = 0

    @classmethod
    def of(cls, asked: Query | Variant) -> Prompt:
        """The prompt of a query or of a variant."""
        if isinstance(asked, Query):
            return cls(asked.id, asked.question, asked.image)
        origin = asked.origin
        return cls(origin.id, asked.question, origin.image, asked.attack, asked.word, asked.shot)

    @property
    def row(self) -> tuple[str, str | None, int]:
        """Identifies the planned row: (query id, attack, shot)."""
        return (self.query, self.attack, self.shot)


def turns(prompt: Prompt, answer: str | None = None) -> list[dict[str, Any]]:
    """The conversation that asks and, with `answer`, ends with it; in the form of transformers' chat templates."""
    picture: list[dict[str, Any]] = [{"type": "image"}] if prompt.image else []
    chat: list[dict[str, Any]] = [{"role": "user", "content": [*picture, {"type": "text", "text": prompt.question}]}]
    if answer is not None:
        chat.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    return chat


def open_image(prompt: Prompt) -> Image.Image | None:
    """The picture as RGB, None where there is none; raises UserError where it cannot be read."""
    if prompt.image is None:
        return None
    try:
        with Image.open(prompt.image) as image:
            return image.convert("RGB")
    except Exception as error:  # Pillow's plugins raise whatever their parsers run into
        raise UserError(
            f"{prompt.image}: the image of query {prompt.query!r} cannot be read ({error}); "
            "repair the file or remove the row."
        ) from error


def adds_special_tokens(processor: Any, text: str) -> bool:
    """Whether the tokenizer must still add its own tokens to a chat: not where its template begins with BOS."""
    bos = processor.tokenizer.bos_token
    return bos is None or not text.startswith(bos)


def image_bytes(path: Path, query: str) -> bytes:
    """The image file as it lies on disk; raises UserError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: the image of query {query!r} cannot be read ({error.strerror}); "
            "repair the file or remove the row."
        ) from error
