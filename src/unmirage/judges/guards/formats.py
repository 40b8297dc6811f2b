"""Guards that were fine-tuned on one text format of their own: WildGuard, HarmBench's classifiers."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from functools import cache, cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from unmirage.judges.cleaning import VERSION as CLEANING
from unmirage.judges.cleaning import without_markers
from unmirage.judges.guards.asking import continued
from unmirage.judges.guards.contract import RULE, TOO_LONG, Exchange, Finding
from unmirage.judges.guards.readers import Reader, read
from unmirage.judges.local import digest, in_batches, load_text_model, pad_on_the_left
from unmirage.schema import content_hash


class FormatGuard:
    """A causal language model that was fine-tuned on one text format, and answers in words (WildGuard, HarmBench)."""

    sees_picture = False

    def __init__(
        self,
        kind: str,
        folder: Path,
        reader: Reader,
        *,
        new_tokens: int,
        knows_refusal: bool = False,
        most_answer: int | None = None,
        batch_size: int = 16,
    ) -> None:
        """`most_answer`: the answer's tokens that are read, from its beginning; None: all."""
        self.kind, self.folder, self.reader, self.batch_size = kind, folder, reader, batch_size
        self.new_tokens, self.knows_refusal, self.most_answer = new_tokens, knows_refusal, most_answer
        self._revision = digest(folder)

    @cached_property
    def name(self) -> str:
        """Kind and hash of files, format and settings."""
        decides = (RULE, CLEANING, self._revision, self._format, self.new_tokens, self.most_answer)
        return f"{self.kind}-{content_hash(*decides)[:8]}"

    def findings(self, rows: Sequence[Exchange]) -> Iterator[Finding]:
        """What it says of each exchange, batch by batch."""
        return in_batches(rows, self.batch_size, self._batch)

    def render(self, row: Exchange) -> str:
        """The text that the model is given."""
        tokenizer = self._loaded[1]
        question = without_markers(row.question, tokenizer.all_special_tokens)
        answer = self._clipped(without_markers(row.answer, tokenizer.all_special_tokens))
        # Not str.format: braces in an answer are its own.
        before, between, after = re.split(r"\{question\}|\{answer\}", self._format["template"])
        return f"{before}{question}{between}{answer}{after}"

    @property
    def _format(self) -> dict[str, Any]:
        return _formats()[self.kind]

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        model, tokenizer = load_text_model(self.folder, "AutoModelForCausalLM")
        pad_on_the_left(tokenizer)
        return model, tokenizer

    def _clipped(self, answer: str) -> str:
        if self.most_answer is None:
            return answer
        tokenizer = self._loaded[1]
        ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
        return answer if len(ids) <= self.most_answer else str(tokenizer.decode(ids[: self.most_answer]))

    def _batch(self, rows: Sequence[Exchange]) -> list[Finding]:
        texts = [self.render(row) for row in rows]
        said = continued(*self._loaded, texts, self.new_tokens, special=self._format["special_tokens"])
        return [read(self.reader, one) if one is not None else TOO_LONG for one in said]


@cache
def _formats() -> dict[str, dict[str, Any]]:
    return tomllib.loads((files(__package__) / "formats.toml").read_text(encoding="utf-8"))
