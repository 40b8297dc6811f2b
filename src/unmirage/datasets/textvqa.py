"""TextVQA: questions about the text in pictures, each answered by ten people; asked with or without the text itself.

Singh et al. 2019, arXiv 1904.08920; layout of `TextVQA_0.5.1_val.json` (`data`: `{question_id, image_id, question,
answers: [str x 10]}`; pictures `train_images/<image_id>.jpg`, for the validation split too) and of
`TextVQA_Rosetta_OCR_v0.2_val.json` (`data`: `{image_id, ocr_tokens: [str, ...]}`). Whether the prompt holds these
tokens changes the score, so it is part of the data's name: `-ocr` or `-no-ocr`.
"""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from unmirage.datasets.catalog import About, Part
from unmirage.datasets.files import Words
from unmirage.datasets.loaded import LoadedData
from unmirage.datasets.questions import SHORT_ANSWER, Reader, Wording, image_folder, read_list
from unmirage.errors import UserError
from unmirage.schema import Text

ABOUT = About(
    name="textvqa",
    title="TextVQA: questions about the text in pictures, answered by ten people",
    paper="Singh et al. 2019, arXiv 1904.08920",
    page="https://textvqa.org",
    licence="CC BY 4.0",
    gated=False,
    purpose="utility",
    rows={"train": 34602, "val": 5000},
    note="Asked with OCR tokens (textvqa-ocr) or without; that moves the score by several points.",
)
PROMPT = f"{{question}}\n{SHORT_ANSWER}"
OCR_PROMPT = f"{{question}}\nReference OCR token: {{ocr}}\n{SHORT_ANSWER}"
"""As LLaVA-1.5 asks it: its eval_textvqa.py reads the question out of prompts of this form."""


class Row(BaseModel):
    """One question; keys that are not named here are of no use here."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    question_id: Text
    image_id: Text
    question: Text
    answers: list[Words]


class Read(BaseModel):
    """What a machine read in one picture."""

    image_id: Text
    ocr_tokens: list[Words]


def find(folder: Path) -> list[Part]:
    """The files of questions, by the authors' names; the test set, whose answers are not published, is not read."""
    named = ((file, re.fullmatch(r"TextVQA_[\d.]+_(train|val)\.json", file.name)) for file in sorted(folder.glob("*")))
    return [Part(ABOUT.name, found[1], file) for file, found in named if found and file.is_file()]


def load(
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
    """Read a file of questions, asked without OCR tokens; the options are those of `unmirage.datasets.load`.

    Pictures are in `train_images/`, `train_val_images/train_images/`, `images/` or the file's own folder. `prompt` has
    {question} where the question stands.
    """
    file = Path(path)
    name = f"{name or file.stem}-no-ocr"
    reader = Reader(file, name, _folder(file, images), split, strict, verify_images, require_images)
    return _read(reader, Wording(prompt), None)


def load_with_ocr(
    path: str | Path,
    name: str | None = None,
    *,
    images: str | Path | None = None,
    split: str | None = None,
    strict: bool = False,
    verify_images: bool = False,
    require_images: bool = True,
    prompt: str = OCR_PROMPT,
    ocr: str | Path | None = None,
) -> LoadedData:
    """Read a file of questions, asked with the OCR tokens of their pictures; otherwise as `load`.

    Without `ocr` the tokens are those of the newest `TextVQA_Rosetta_OCR_v*_<split>.json` beside the questions.
    `prompt` has {question} and {ocr}.
    """
    file = Path(path)
    name = f"{name or file.stem}-ocr"
    reader = Reader(file, name, _folder(file, images), split, strict, verify_images, require_images)
    tokens = _tokens(reader, Path(ocr) if ocr else _beside(file))
    return _read(reader, Wording(prompt, ("question", "ocr")), tokens)


def _folder(file: Path, images: str | Path | None) -> Path:
    return image_folder(file, images, "train_images", "train_val_images/train_images", "images")


def _read(reader: Reader, wording: Wording, tokens: dict[str, str] | None) -> LoadedData:
    rows, _ = read_list(reader.file, "data", "a file of TextVQA questions, such as TextVQA_0.5.1_val.json")
    for number, raw in enumerate(rows):
        row = reader.row(Row, number, raw)
        if row is None or not reader.ten(number, row.answers):
            continue
        if tokens is not None and row.image_id not in tokens:
            fix = "fetch the OCR file of the same split, or ask without OCR tokens"
            reader.report(number, "image_id", "no-ocr", f"picture {row.image_id!r} has no OCR tokens", fix)
            continue
        text = wording.fill(question=row.question, ocr=(tokens or {}).get(row.image_id, ""))
        reader.add(number, row.question_id, text, f"{row.image_id}.jpg", answers=tuple(row.answers))
    return reader.loaded()


def _beside(file: Path) -> Path:
    """The newest file of OCR tokens of the same split."""
    found = re.search(r"_(train|val|test)\.json$", file.name)
    pattern = f"TextVQA_Rosetta_OCR_v*_{found[1] if found else '*'}.json"
    several = sorted(file.parent.glob(pattern))
    if not several:
        raise UserError(
            f"{file}: there is no {pattern} beside it; fetch the OCR tokens from the page of TextVQA, or ask without "
            "them (format textvqa)."
        )
    return several[-1]


def _tokens(reader: Reader, file: Path) -> dict[str, str]:
    """The tokens of each picture, joined by commas as LLaVA-1.5 does."""
    rows, _ = read_list(file, "data", "a file of OCR tokens, such as TextVQA_Rosetta_OCR_v0.2_val.json")
    found = (reader.row(Read, number, raw, file) for number, raw in enumerate(rows))
    return {row.image_id: ", ".join(row.ocr_tokens) for row in found if row}
