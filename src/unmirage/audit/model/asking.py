"""Asks a model for answers, each distinct request once, whatever happens in between.

All that is needed of what answers is `answer(prompts)`, so a server that returns nothing but text will do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from unmirage.backends.prompts import Prompt, image_bytes
from unmirage.errors import UserError
from unmirage.runs import JsonLines
from unmirage.schema import Answer, content_hash

Progress = Callable[[str, int, int], None]
"""Called with what is being done, what is done of it and what there is to do."""


class Answers(Protocol):
    """What answers prompts, batch by batch and in order.

    It may also have `identity` (JSON-able, decides the answers) and `key(prompt)`, as `evaluate.run.Backend` has.
    """

    def answer(self, prompts: Sequence[Prompt]) -> Iterator[list[str]]:
        """Yield the answers of consecutive batches of `prompts`."""
        ...


def identity_of(backend: Answers, label: str) -> dict[str, Any]:
    """What is known of a model before it is asked; of one that says nothing of itself only its label."""
    found = getattr(backend, "identity", None)
    return dict(found) if found is not None else {"label": label}


class Asker:
    """Answers by request; those in the log are not asked again, new ones are appended batch by batch."""

    def __init__(self, backend: Answers, log: JsonLines, label: str, progress: Progress) -> None:
        """Reads what the log holds already."""
        self.backend, self.label = backend, label
        self._log, self._progress = log, progress
        self._texts = {answer.key: answer.text for answer in log.read(Answer) if answer.error is None}
        self._identity = identity_of(backend, label)
        self._keys: dict[tuple[str, Path | None], str] = {}

    def key(self, prompt: Prompt) -> str:
        """Content hash of everything that decides the answer; computed once for each question and picture."""
        asked = (prompt.question, prompt.image)
        if asked not in self._keys:
            self._keys[asked] = self._key(prompt)
        return self._keys[asked]

    def _key(self, prompt: Prompt) -> str:
        own = getattr(self.backend, "key", None)
        if own is not None:
            return str(own(prompt))
        pixels = image_bytes(prompt.image, prompt.query) if prompt.image else b""
        return content_hash(self._identity, prompt.question, pixels)

    def ask(self, prompts: Sequence[Prompt], what: str) -> list[str]:
        """The answers in order; raises UserError where a batch comes back with too few or too many."""
        keys = [self.key(prompt) for prompt in prompts]
        missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in self._texts}
        # Prompts of one sort and of like length share a batch, which keeps padding short.
        order = sorted(missing, key=lambda key: (missing[key].image is None, len(missing[key].question), key))
        done = len(set(keys)) - len(missing)
        self._progress(what, done, done + len(missing))
        start = 0
        for texts in self.backend.answer([missing[key] for key in order]) if order else ():
            batch = order[start : start + len(texts)]
            self._keep(batch, [missing[key] for key in batch], texts)
            start += len(texts)
            self._progress(what, done + start, done + len(missing))
        if start != len(order):
            raise UserError(f"{self.label} answered {start} of {len(order)} questions; run the same command again.")
        return [self._texts[key] for key in keys]

    def _keep(self, keys: Sequence[str], prompts: Sequence[Prompt], texts: Sequence[str]) -> None:
        if len(keys) != len(texts):
            raise UserError(f"{self.label} gave more answers than there were questions; its batches are not in order.")
        self._log.append([_answer(k, p, t, self.label) for k, p, t in zip(keys, prompts, texts, strict=True)])
        self._texts |= dict(zip(keys, texts, strict=True))


def _answer(key: str, prompt: Prompt, text: str, label: str) -> Answer:
    return Answer(
        key=key,
        query=prompt.query,
        question=prompt.question,
        model=label,
        text=text,
        attack=prompt.attack,
        word=prompt.word,
        shot=prompt.shot,
    )
