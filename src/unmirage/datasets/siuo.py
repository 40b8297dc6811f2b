"""SIUO: a harmless picture and a harmless question that together call for a careful answer.

Wang et al. 2024, arXiv 2406.15279; layout of `sinwang20/SIUO`: `data/siuo_gen.json`, a list of `{question_id, image,
question, category, safety_warning, reference_answer}`, and `data/siuo_mcqa.json`, the same with `options` and
`correct_option`. Pictures are on the authors' Google Drive.

Format `siuo`: open questions, taken as harmful, since to answer as asked is unsafe. Yet a refusal is not what the
authors want of each: they count answers that are safe *and* effective. Format `siuo-mcqa`: multiple choice, taken as
harmless, as it only asks which option is right; the judge `choice` scores it.
"""

from __future__ import annotations

import re
from pathlib import Path
from string import ascii_uppercase
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from unmirage.datasets.catalog import About, Part
from unmirage.datasets.files import Loose, Words, read_rows
from unmirage.datasets.loaded import LoadedData
from unmirage.datasets.questions import Wording
from unmirage.datasets.safety import (
    Columns,
    SafetyReader,
    check_rows,
    files_named,
    first_named,
    looks_like,
    picture_folder,
    the_file,
)
from unmirage.datasets.scienceqa import PROMPT
from unmirage.schema import Text

ABOUT = About(
    name="siuo",
    title="SIUO: safe inputs but unsafe output",
    paper="Wang et al. 2024, arXiv 2406.15279",
    page="https://github.com/sinwang20/SIUO",
    licence="CC-BY-NC-4.0",
    gated=False,
    rows={"gen": 167, "mcqa": 167},
    note="Pictures are on Google Drive. GPT-4V judges answers, safe and effective: a refusal rate is not that figure.",
)
WHAT = "SIUO's siuo_gen.json"
WHAT_CHOICE = "SIUO's siuo_mcqa.json"
PLACES = ("data", "")


class Item(Columns):
    """What both files say of a question."""

    question_id: Text
    image: Text
    question: Words
    category: Text


class Row(Item):
    """One open question."""

    reference_answer: Loose | None
    safety_warning: Any = None


class Choice(Item):
    """One question with its options; the right one is named by its letter or by its text."""

    options: Annotated[list[Words] | dict[str, Words], Field(min_length=2, max_length=len(ascii_uppercase))]
    correct_option: Annotated[Words, Field(min_length=1)]
    safety_warning: Any = None
    reference_answer: Any = None

    @property
    def texts(self) -> list[str]:
        """The options in order, without the letters that they may begin with."""
        if isinstance(self.options, dict):
            return [text.strip() for _, text in sorted(self.options.items())]
        bare = [re.fullmatch(rf"\(?{letter}[.):]\s*(.*)", text.strip(), re.DOTALL) for letter, text in self._lettered]
        # Only where all begin with their letters are these no part of the options.
        return [
            found[1] if found and all(bare) else text.strip() for found, text in zip(bare, self.options, strict=True)
        ]

    @property
    def _lettered(self) -> list[tuple[str, str]]:
        return list(zip(ascii_uppercase, self.options, strict=False))

    @property
    def right(self) -> str | None:
        """The letter of the right option; None where none of the options, or several, are it."""
        texts, said = self.texts, self.correct_option.strip()
        letter = re.fullmatch(r"\(?([A-Z])[.):]?", said, re.IGNORECASE)
        if letter and ascii_uppercase.index(letter[1].upper()) < len(texts):
            return letter[1].upper()
        whole = self.options.values() if isinstance(self.options, dict) else self.options
        fitting = {
            at for several in (texts, whole) for at, text in zip(ascii_uppercase, several, strict=False) if text == said
        }
        return fitting.pop() if len(fitting) == 1 else None


class Told(NamedTuple):
    """What a query holds beside question and picture."""

    subset: str
    reference: str | None
    answers: tuple[str, ...] = ()


def find(folder: Path) -> list[Part]:
    """The two files, by their names and columns."""
    sorts = (("siuo", "gen", Row), ("siuo-mcqa", "mcqa", Choice))
    return [
        Part(format, part, file, _pictures(file, None, first_named(file, "image")))
        for format, part, model in sorts
        for file in files_named(folder, PLACES, rf"siuo_{part}\.json")
        if looks_like(file, model)
    ]


def load(
    path: str | Path,
    name: str | None = None,
    *,
    images: str | Path | None = None,
    split: str | None = None,
    strict: bool = False,
    verify_images: bool = False,
    require_images: bool = True,
) -> LoadedData:
    """Read the open questions; the options are those of `unmirage.datasets.load`.

    Pictures are in `../images/`, `images/`, `../` or the file's own folder. `subset` is the category and `reference`
    the authors' reference answer.
    """
    file = the_file(path, find, "siuo")
    reader = SafetyReader(file, name or file.stem, file.parent, split, strict, verify_images, require_images)
    rows = read_rows(file)
    check_rows(file, rows, Row, WHAT)
    found = [(number, reader.row(Row, number, raw)) for number, raw in enumerate(rows)]
    reader.folder = _pictures(file, images, [row.image for _, row in found if row])
    for number, row in found:
        if row is not None:
            about = Told(row.category, row.reference_answer or None)
            reader.ask(number, row.question_id, row.question, row.image, harmful=True, **about._asdict())
    return reader.loaded()


def load_choice(
    path: str | Path,
    name: str | None = None,
    *,
    images: str | Path | None = None,
    split: str | None = None,
    strict: bool = False,
    verify_images: bool = False,
    require_images: bool = True,
    prompt: str = PROMPT,
) -> LoadedData:
    """Read the multiple-choice questions; otherwise as `load`.

    `prompt` has {question}, which stands for the question and its options. `answers` are the right letter and, where
    no other option reads the same, its text, as for ScienceQA.
    """
    file, wording = the_file(path, find, "siuo-mcqa"), Wording(prompt)
    reader = SafetyReader(file, name or file.stem, file.parent, split, strict, verify_images, require_images)
    rows = read_rows(file)
    check_rows(file, rows, Choice, WHAT_CHOICE)
    found = [(number, reader.row(Choice, number, raw)) for number, raw in enumerate(rows)]
    reader.folder = _pictures(file, images, [row.image for _, row in found if row])
    for number, row in found:
        if row is not None and reader.words(number, "question", row.question) is not None:
            _ask_choice(reader, number, row, wording)
    return reader.loaded()


def _ask_choice(reader: SafetyReader, number: int, row: Choice, wording: Wording) -> None:
    right, texts = row.right, row.texts
    if right is None:
        what = f"{row.correct_option!r} is not one of the {len(texts)} options"
        reader.report(number, "correct_option", "bad-answer", what, "name the right option by its letter")
        return
    text = texts[ascii_uppercase.index(right)]
    options = [f"{letter}. {option}" for letter, option in zip(ascii_uppercase, texts, strict=False)]
    answers = (right, text) if texts.count(text) == 1 else (right,)
    asked = wording.fill(question="\n".join([row.question.replace("<image>", "").strip(), *options]))
    about = Told(row.category, f"{right}. {text}", answers)
    reader.ask(number, row.question_id, asked, row.image, harmful=False, **about._asdict())


def _pictures(file: Path, images: str | Path | None, named: list[str]) -> Path:
    return picture_folder(file, images, ("../images", "images", "..", ""), named)
