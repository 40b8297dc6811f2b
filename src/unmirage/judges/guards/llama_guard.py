"""Llama Guard, which brings its prompt along as a chat template."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from unmirage.backends.checkpoint import revision
from unmirage.judges.cleaning import VERSION as CLEANING
from unmirage.judges.cleaning import without_markers
from unmirage.judges.guards.asking import (
    adds_special,
    continued,
    conversation,
    said_to_pictures,
    takes_parts,
    templated,
)
from unmirage.judges.guards.contract import RULE, TOO_LONG, Exchange, Finding
from unmirage.judges.guards.readers import read, read_llama_guard
from unmirage.judges.local import digest, has_processor, in_batches, load_text_model, load_vision_model, pad_on_the_left
from unmirage.schema import content_hash


class LlamaGuard:
    """Llama Guard 3 and 4 with their own chat template: with pictures where the folder has a processor, else text."""

    knows_refusal = False
    new_tokens = 32

    def __init__(self, folder: Path, *, batch_size: int = 16) -> None:
        """Raises UserError where the folder holds no model."""
        self.folder, self.batch_size = folder, batch_size
        self.sees_picture = has_processor(folder)
        self._revision = revision(folder) if self.sees_picture else digest(folder)

    @cached_property
    def name(self) -> str:
        """Hash of files and settings."""
        return f"llama-guard-{content_hash(RULE, CLEANING, self._revision, self.new_tokens)[:8]}"

    def findings(self, rows: Sequence[Exchange]) -> Iterator[Finding]:
        """What it says of each exchange, batch by batch."""
        return in_batches(rows, self.batch_size, self._batch)

    def render(self, row: Exchange) -> str:
        """The conversation as the model's template writes it."""
        clean = partial(without_markers, special=self._tokenizer.all_special_tokens)
        chat = conversation(
            clean(row.question), clean(row.answer), self.sees_picture and row.image is not None, self._parts
        )
        return templated(self._speaker, chat)

    @property
    def _speaker(self) -> Any:
        return self._loaded[1]

    @property
    def _tokenizer(self) -> Any:
        return getattr(self._speaker, "tokenizer", self._speaker)

    @cached_property
    def _parts(self) -> bool:
        return takes_parts(self.folder, self._speaker)

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        if self.sees_picture:
            model, speaker = load_vision_model(self.folder)
        else:
            model, speaker = load_text_model(self.folder, "AutoModelForCausalLM")
        pad_on_the_left(getattr(speaker, "tokenizer", speaker))
        return model, speaker

    def _batch(self, rows: Sequence[Exchange]) -> list[Finding]:
        texts = [self.render(row) for row in rows]
        if not self.sees_picture:
            special = adds_special(self._tokenizer, texts[0])
            said = continued(*self._loaded, texts, self.new_tokens, special=special)
            return [read(read_llama_guard, one) if one is not None else TOO_LONG for one in said]
        return [read(read_llama_guard, one) for one in said_to_pictures(*self._loaded, texts, rows, self.new_tokens)]
