"""In what manner a model is asked: greedily or by sampling, with the beginning of its answer forced or free."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from unmirage.errors import UserError

_CLOSING = tuple(".,;:!?)]}'\u2019")
"""What stands against the word before it."""


@dataclass(frozen=True, slots=True)
class Manner:
    """`temperature` 0 is greedy; above it answers are drawn, the same ones whenever `seed` is the same.

    `prefix`: words with which every answer is made to begin; the model goes on from there. `show_prefix`: whether the
    text of an answer holds them too, or only what the model added. Raises UserError for a temperature that is none.
    """

    temperature: float = 0.0
    seed: int = 0
    prefix: str = ""
    show_prefix: bool = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise UserError(f"a temperature is a number from 0 up, not {self.temperature}; 0 asks greedily.")
        if self.prefix != self.prefix.strip():
            raise UserError(f"the forced beginning {self.prefix!r} has blanks at its ends; leave them out.")

    @property
    def samples(self) -> bool:
        """Whether answers are drawn."""
        return self.temperature > 0

    @property
    def identity(self) -> dict[str, Any]:
        """What is not as usual, for a backend's identity; empty where all is, so that other runs keep theirs."""
        drawn = {"do_sample": True, "temperature": self.temperature, "sample_seed": self.seed} if self.samples else {}
        forced = {"answer_prefix": self.prefix, "show_prefix": self.show_prefix} if self.prefix else {}
        return {**drawn, **forced}

    def shown(self, text: str) -> str:
        """The text of an answer of which the model added `text`."""
        if not self.prefix or not self.show_prefix:
            return text
        blank = "" if not text or text.startswith(_CLOSING) else " "
        return f"{self.prefix}{blank}{text}"

    def refuse_prefix(self, backend: str) -> None:
        """Raises UserError where a beginning is forced, for backends that cannot do it."""
        if self.prefix:
            raise UserError(
                f"the backend {backend} cannot force the beginning of an answer; ask the model in this process, with "
                "the backend hugging_face."
            )


def check_forced(processor: Any, ids: Any, beginning: str) -> None:
    """Raises UserError where the tokens of a prompt, shape (t,), do not end with the forced beginning of its answer.

    A processor may write something of its own behind a prompt (PaliGemma's a line's end).
    """
    if not processor.tokenizer.decode(ids, clean_up_tokenization_spaces=False).endswith(beginning):
        raise UserError(
            f"this model's processor does not let an answer begin with {beginning!r}: it puts something of its own "
            "between that and what the model adds; ask this model without a forced beginning."
        )


USUAL = Manner()
"""Greedy and free."""
