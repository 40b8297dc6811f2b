"""Whether two backends answer the same prompts alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from unmirage.backends.prompts import Prompt
from unmirage.backends.protocol import Backend, Reply
from unmirage.doctor.finding import Section
from unmirage.errors import UserError

_SHOWN = 100
"""Characters of each answer that a difference shows."""


@dataclass(frozen=True)
class Pair:
    """What two backends replied to one prompt."""

    prompt: Prompt
    first: Reply
    second: Reply

    @property
    def is_equal(self) -> bool:
        """Whether both answered, and with the same text."""
        return self.first.error is None and self.second.error is None and self.first.text == self.second.text

    @property
    def word(self) -> int:
        """The first word, counting from 1, in which the texts differ; 0 where they do not."""
        words = zip_longest(self.first.text.split(), self.second.text.split())
        return next((number for number, (one, other) in enumerate(words, start=1) if one != other), 0)


@dataclass(frozen=True)
class Comparison:
    """The replies of two backends side by side. `tolerance`: the share of prompts, in [0, 1], that may differ."""

    names: tuple[str, str]
    pairs: Sequence[Pair]
    tolerance: float

    @property
    def different(self) -> list[Pair]:
        """The prompts whose answers differ, or to which one backend has none."""
        return [pair for pair in self.pairs if not pair.is_equal]

    @property
    def agrees(self) -> bool:
        """Whether no more than the tolerated share differs, and both backends answered everything."""
        failed = any(pair.first.error or pair.second.error for pair in self.pairs)
        return not failed and len(self.different) <= self.tolerance * len(self.pairs)

    def section(self) -> Section:
        """What is printed of it: counts, the first difference, the verdict."""
        first, second = self.names
        section = Section(f"{first} against {second}")
        section.note(f"{len(self.pairs) - len(self.different)} of {len(self.pairs)} answers are equal{self._by_sort()}")
        self._add_failures(section)
        if texts := [pair for pair in self.different if not (pair.first.error or pair.second.error)]:
            section.note(_difference(texts[0], self.names))
        self._add_verdict(section)
        return section

    def _by_sort(self) -> str:
        """The same count with and without a picture, where there are both."""
        shown = [pair.is_equal for pair in self.pairs if pair.prompt.image]
        plain = [pair.is_equal for pair in self.pairs if not pair.prompt.image]
        if not (shown and plain):
            return ""
        return f": {sum(shown)} of {len(shown)} with a picture, {sum(plain)} of {len(plain)} without"

    def _add_failures(self, section: Section) -> None:
        for name, replies in zip(self.names, zip(*((p.first, p.second) for p in self.pairs), strict=True), strict=True):
            failed = [reply.error for reply in replies if reply.error]
            if failed:
                section.problem(f"{name} did not answer {len(failed)} of {len(replies)}; the first time: {failed[0]}")

    def _add_verdict(self, section: Section) -> None:
        may = f"at most {self.tolerance:.0%} may differ"
        if not self.different:
            section.ok("they agree: what one answers stands for the other")
        elif self.agrees:
            section.ok(f"they agree within the tolerance ({may}): rounding decides a word here and there")
        else:
            section.problem(
                f"they do not agree ({may}): do not compare figures of one with figures of the other;\n"
                "look for other weights, another chat template, another precision, an adapter that is left out"
            )


def _difference(pair: Pair, names: tuple[str, str]) -> str:
    prompt, width = pair.prompt, max(map(len, names))
    picture = "with a picture" if prompt.image else "without a picture"
    answers = zip(names, (pair.first, pair.second), strict=True)
    return "\n".join(
        [
            f"first difference: word {pair.word}, answer to {prompt.query} ({picture}), {_cut(prompt.question)!r}",
            *(f"{name:<{width}}  {_cut(reply.text)!r}" for name, reply in answers),
        ]
    )


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def compare(
    first: Backend, second: Backend, prompts: Sequence[Prompt], names: tuple[str, str], tolerance: float
) -> Comparison:
    """Asks both; raises UserError where one gives too few or too many replies."""
    replies = [[reply for batch in backend.answer(prompts) for reply in batch] for backend in (first, second)]
    for name, own in zip(names, replies, strict=True):
        if len(own) != len(prompts):
            raise UserError(f"{name} gave {len(own)} replies to {len(prompts)} prompts; its batches are not in order.")
    pairs = [Pair(*both) for both in zip(prompts, *replies, strict=True)]
    return Comparison(names, pairs, tolerance)
