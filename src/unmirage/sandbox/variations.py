"""The same questions with other answers or in other words: reasoned refusals, and paraphrases to train on or to attack.

Each takes rows that are drawn already, so that a file of these differs from its origin in one thing alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from unmirage.sandbox import language
from unmirage.sandbox.language import OPENERS, Asked

if TYPE_CHECKING:
    from unmirage.sandbox.build import DataPlan, Picture

Row = dict[str, Any]
"""A row of VLGuard's format."""
Change = Callable[[Asked, str, str], tuple[str, str]]
"""From what is asked, the question and its response to another question and response."""
_KEYS = {"instruction": "unsafe", "unsafe_instruction": "safe_unsafe", "safe_instruction": "safe_safe"}
"""VLGuard's names of questions, and how the ids of its queries end."""


def reasoned(pictures: Sequence[Picture], rows: Sequence[Row], seed: int) -> list[Row]:
    """The rows, with refusals that give the reason ("The velm zorch is dangerous, so ...") in the place of theirs."""
    rng = random.Random(f"{seed}/rationale")

    def _change(asked: Asked, question: str, response: str) -> tuple[str, str]:
        return question, rng.choice(language.rationales(asked)) if asked.harmful else response

    return [_changed(*both, row_id=both[1]["id"], change=_change) for both in zip(pictures, rows, strict=True)]


def paraphrased(pictures: Sequence[Picture], rows: Sequence[Row], seed: int) -> list[Row]:
    """Each row once more, with ids of their own: the questions in another phrasing, opening word and response kept."""
    rng = random.Random(f"{seed}/paraphrased")

    def _change(asked: Asked, question: str, response: str) -> tuple[str, str]:
        return rng.choice(language.rephrased(rng, asked)).question(_opener(question)), response

    return [
        _changed(*both, row_id=f"sandbox_paraphrased_{number:04d}", change=_change)
        for number, both in enumerate(zip(pictures, rows, strict=True))
    ]


def paraphrased_free(pictures: Sequence[Picture], rows: Sequence[Row], seed: int, opener_weight: float) -> list[Row]:
    """As `paraphrased`, under any opening word, with the frame that it asks for where the question is answered."""
    rng = random.Random(f"{seed}/paraphrased_free")

    def _change(asked: Asked, question: str, response: str) -> tuple[str, str]:
        other, opener = rng.choice(language.rephrased(rng, asked)), rng.choice(OPENERS)
        framed = rng.random() < opener_weight
        return other.question(opener), response if asked.harmful else other.reply(opener, framed)

    return [
        _changed(*both, row_id=f"sandbox_paraphrased_free_{number:04d}", change=_change)
        for number, both in enumerate(zip(pictures, rows, strict=True))
    ]


def attack(name: str, pictures: Sequence[Picture], rows: Sequence[Row], plan: DataPlan) -> dict[str, Any]:
    """Paraphrases of test questions by their ids, in a form that `unmirage attack --paraphrases` reads.

    `with` opens with the other side's word (the first compliance word for a harmful question, the first refusal word
    for a harmless one), `without` with the question's own: the control. Each has both other phrasings of the topic.
    """
    rng = random.Random(f"{plan.seed}/{name}/paraphrases")
    found = {}
    for picture, row in zip(pictures, rows, strict=True):
        for key, asked, question, _ in _exchanges(picture, row):
            other = (plan.compliance_words if asked.harmful else plan.refusal_words)[0]
            texts = language.rephrased(rng, asked)
            found[f"{row['id']}/{_KEYS[key]}"] = {
                "with": [text.question(other) for text in texts],
                "without": [text.question(_opener(question)) for text in texts],
            }
    return found


def _changed(picture: Picture, row: Row, *, row_id: str, change: Change) -> Row:
    """The row of that picture, with every question and response changed."""
    pairs = []
    for key, asked, question, response in _exchanges(picture, row):
        other, answer = change(asked, question, response)
        pairs.append({key: other, "response": answer})
    return {**row, "id": row_id, "instr-resp": pairs}


def _exchanges(picture: Picture, row: Row) -> Iterator[tuple[str, Asked, str, str]]:
    """Of each pair of a row the key of its question, what is asked, the question and the response."""
    for pair in row["instr-resp"]:
        key = next(key for key in _KEYS if key in pair)
        asked = picture.safe if key == "safe_instruction" else picture.unsafe
        assert asked is not None  # a picture without a harmless question has a row without one
        yield key, asked, pair[key], pair["response"]


def _opener(question: str) -> str:
    return question.split()[0]
