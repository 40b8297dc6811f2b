"""Edits of one word: another word in its place, a word put in, a word taken out; and all such edits of a question.

Words are what white space parts. Everything but the one word stays as it is, white space included.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from unmirage.audit.model.edits import bare
from unmirage.backends.prompts import Prompt
from unmirage.errors import UserError
from unmirage.schema import Query, Variant

Kind = Literal["substitute", "insert", "delete"]


class Change(StrEnum):
    """What is done to a question; `opening` is `substitute` of the first word."""

    opening = "opening"
    substitute = "substitute"
    insert = "insert"
    delete = "delete"


class At(StrEnum):
    """Where: at the first word or before it, at the last word or behind it, between these, or anywhere."""

    begin = "begin"
    inner = "inner"
    end = "end"
    any = "any"


@dataclass(frozen=True, slots=True)
class Edit:
    """One word at one position, counted from 0 in the longer of the two questions.

    `word` is what is put there; with `delete` the word that is taken out, as it stands in the question.
    """

    kind: Kind
    position: int
    word: str

    @property
    def name(self) -> str:
        """Names the edit among those of one question: "insert:2:please"."""
        return f"{self.kind}:{self.position}:{self.word.lower()}"

    def apply(self, question: str) -> str:
        """The edited question.

        The opening word is replaced whole and the new one written as given. Elsewhere marks around the replaced word
        stay, and a capitalised word is written small, but for "I" and words with further capitals.
        Raises IndexError where the question has no such position.
        """
        spans = [match.span() for match in re.finditer(r"\S+", question)]
        if self.kind == "insert":
            return self._inserted(question, spans)
        start, end = spans[self.position]
        if self.kind == "delete":
            return _cut(question, spans, self.position)
        if self.position == 0:
            return question[:start] + self.word + question[end:]
        before, after = _marks(question[start:end])
        return f"{question[:start]}{before}{_small(self.word)}{after}{question[end:]}"

    def variant(self, query: Query, attack: str, *, shot: int = 0, control_of: str | None = None) -> Variant:
        """The edited query; its one word is checked anew (`Variant`)."""
        return Variant(
            origin=query,
            question=self.apply(query.question),
            attack=attack,
            word=self.word,
            position=self.position,
            shot=shot,
            edit=self.kind,
            control_of=control_of,
        )

    def prompt(self, query: Query) -> Prompt:
        """The edited query as it is asked, under the edit's name; raises ValueError where it is no one-word edit."""
        return Prompt.of(self.variant(query, self.name))

    def _inserted(self, question: str, spans: Sequence[tuple[int, int]]) -> str:
        if self.position == 0:
            return f"{self.word} {question}"
        if self.position == len(spans):
            return f"{question} {_small(self.word)}"
        start = spans[self.position][0]
        return f"{question[:start]}{_small(self.word)} {question[start:]}"


def check_place(changes: Sequence[Change], at: At) -> None:
    """Raises UserError where a place is asked for that the changes do not have."""
    if set(changes) == {Change.opening} and at in (At.inner, At.end):
        raise UserError(f"the opening word stands at the beginning; leave out --at {at}, or give --edit substitute.")


def edits_of(question: str, changes: Sequence[Change], words: Sequence[str], at: At = At.any) -> list[Edit]:
    """All edits of a question with these words, in the order of changes, positions and words; no two give one text.

    A word is not put where it stands already (case and marks do not count) nor beside itself, and the only word of a
    question is not taken out.
    """
    found: dict[str, Edit] = {}
    for change in changes:
        for edit in _edits(question.split(), change, words, at):
            found.setdefault(" ".join(edit.apply(question).split()), edit)
    return list(found.values())


def positions(count: int, change: Change, at: At) -> list[int]:
    """The positions of a question of `count` words at which the change is made."""
    last = count if change is Change.insert else count - 1
    if change is Change.opening or (at is At.begin):
        return [0]
    return {At.inner: list(range(1, last)), At.end: [last], At.any: list(range(last + 1))}[at]


def _edits(own: Sequence[str], change: Change, words: Sequence[str], at: At) -> Iterator[Edit]:
    if change is Change.delete and len(own) == 1:
        return
    for place in positions(len(own), change, at):
        if change is Change.delete:
            yield Edit("delete", place, own[place])
            continue
        kind: Kind = "insert" if change is Change.insert else "substitute"
        beside = own[max(0, place - 1) : place + 1] if kind == "insert" else own[place : place + 1]
        taken = {bare(word) for word in beside}
        yield from (Edit(kind, place, word) for word in words if bare(word) not in taken)


def _cut(question: str, spans: Sequence[tuple[int, int]], position: int) -> str:
    """Without one word and the white space behind it, or before it where it is the last."""
    if position + 1 < len(spans):
        return question[: spans[position][0]] + question[spans[position + 1][0] :]
    return question[: spans[position - 1][1]]


def _marks(word: str) -> tuple[str, str]:
    """The marks before and behind a word; none where it is nothing but marks."""
    core = re.search(r"\w.*\w|\w", word)
    return (word[: core.start()], word[core.end() :]) if core else ("", "")


def _small(word: str) -> str:
    """Written as inside a sentence."""
    rest = word[1:]
    return word if word == "I" or word.startswith("I'") or rest != rest.lower() else word.lower()
