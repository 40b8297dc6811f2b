"""Edits of one word at one place: an opening word exchanged, or a word put in at the beginning or the end."""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import Literal

from unmirage.backends.prompts import Prompt
from unmirage.schema import Query

Position = Literal["opening", "begin", "end"]
POSITIONS: tuple[Position, ...] = ("opening", "begin", "end")
Role = Literal["candidate", "control"]
Source = Literal["given", "data", "lexicon", "gradient", "neutral", "random"]
_CLOSING = ".?!\u2026\u3002\uff1f\uff01"


@dataclass(frozen=True, slots=True)
class Edit:
    """One word at one place. At "opening" it stands for the first word; at "begin" and "end" it is put in besides."""

    word: str
    position: Position

    @property
    def kind(self) -> str:
        """`substitution` or `insertion`: only the first leaves the number of words as it is."""
        return "substitution" if self.position == "opening" else "insertion"

    @property
    def name(self) -> str:
        """Names the edit in logs and records: "opening:what"."""
        return f"{self.position}:{self.word.lower()}"

    def apply(self, question: str) -> str:
        """The edited question; the same text where the word stands there already.

        An opening word is written with a capital or without, as the one it stands for; a word at the end stands
        before the closing mark.
        """
        words = question.split()
        if self.position == "end":
            return question if bare(words[-1]) == bare(self.word) else _appended(question, self.word.lower())
        if bare(words[0]) == bare(self.word):
            return question
        word = cased(self.word, like=words[0])
        if self.position == "begin":
            return f"{word} {question}"
        return question.replace(words[0], word, 1)

    def changes(self, question: str) -> bool:
        """Whether the edit leaves another text."""
        return self.apply(question) != question

    def prompt(self, query: Query) -> Prompt:
        """The edited query as it is asked."""
        return Prompt(query.id, self.apply(query.question), query.image, self.name, self.word)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A word that is tried at a place, and why: as a candidate or as a control."""

    edit: Edit
    role: Role
    source: Source


def bare(word: str) -> str:
    """A word as it is compared: without case and without marks around it."""
    return word.strip(string.punctuation + _CLOSING).lower()


def cased(word: str, *, like: str) -> str:
    """The word with a small or a capital first letter, as `like` has it."""
    first = like[:1]
    if first.islower():
        return word[:1].lower() + word[1:]
    return word[:1].upper() + word[1:] if first.isupper() else word


def _appended(question: str, word: str) -> str:
    text = question.rstrip()
    stem = text.rstrip(_CLOSING)
    return f"{stem.rstrip()} {word}{text[len(stem) :]}"
