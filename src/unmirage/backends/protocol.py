"""What every backend offers: prompts in, replies out, batch by batch and in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from unmirage.backends.prompts import Prompt
from unmirage.schema import Answer, Finish, Query

Settled = Callable[[str], bool]
"""Whether the verdict is certain after this beginning of an answer, whatever follows."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for one prompt: a text, or the reason why there is none; and how it ended, where that is known."""

    text: str
    error: str | None = None
    finish: Finish | None = None

    def as_answer(self, query: Query) -> Answer:
        """As the answer to a query asked apart from any plan, to be judged."""
        return Answer(
            key="",
            query=query.id,
            question=query.question,
            model="",
            text=self.text,
            error=self.error,
            finish=self.finish,
        )


class Backend(Protocol):
    """What answers prompts.

    `identity` is everything about it that decides answers (weights, generation settings), known without loading it.
    """

    @property
    def identity(self) -> dict[str, Any]:
        """JSON-able; a run folder that was made with another one is refused."""
        ...

    def key(self, prompt: Prompt) -> str:
        """Content hash of everything that decides the answer."""
        ...

    def answer(self, prompts: Sequence[Prompt], settled: Settled | None = None) -> Iterator[list[Reply]]:
        """Yield the replies to consecutive prompts, several at a time.

        An answer may be ended, with `finish` "verdict", as soon as `settled` is true of what there is of it; a backend
        that cannot do this generates it whole.
        """
        ...
