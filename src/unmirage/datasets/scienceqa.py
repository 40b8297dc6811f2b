"""ScienceQA: multiple-choice questions of school science, half of them with a picture.

Lu et al. 2022, arXiv 2209.09513; layout of `problems.json` (id -> `{question, choices, answer, hint, image, split}`;
`answer` counts from 0), `pid_splits.json` (split -> ids) and pictures `images/<split>/<id>/image.png`. The format
`scienceqa-image` is only the questions that have a picture, as tables of vision-language models mostly count them.
"""

from __future__ import annotations

from pathlib import Path
from string import ascii_uppercase
from typing import Annotated

from pydantic import BaseModel, Field, NonNegativeInt

from unmirage.datasets.catalog import About, Part
from unmirage.datasets.files import Loose, Words
from unmirage.datasets.loaded import LoadedData
from unmirage.datasets.questions import Reader, Wording, image_folder, read_json
from unmirage.errors import UserError
from unmirage.schema import Text

ABOUT = About(
    name="scienceqa",
    title="ScienceQA: multiple-choice questions of school science",
    paper="Lu et al. 2022, arXiv 2209.09513",
    page="https://scienceqa.github.io",
    licence="CC BY-NC-SA 4.0",
    gated=False,
    purpose="utility",
    rows={"train": 12726, "val": 4241, "test": 4241},
    note="About half of the questions have a picture; tables of vision-language models mostly count these alone "
    "(scienceqa-image).",
)
PROMPT = "{question}\nAnswer with the option's letter from the given choices directly."
"""LLaVA-1.5's wording for multiple choice (arXiv 2310.03744; its docs/Evaluation.md)."""
PART = "test"


class Problem(BaseModel):
    """One question; keys that are not named here are of no use here."""

    question: Text
    choices: Annotated[list[Words], Field(min_length=2, max_length=len(ascii_uppercase))]
    answer: NonNegativeInt
    hint: Loose = ""
    image: Text | None = None
    split: str

    @property
    def asked(self) -> str:
        """Context where there is one, question, and the options, each on a line after its letter."""
        hint = [f"Context: {self.hint.strip()}"] if self.hint.strip() else []
        options = [f"{letter}. {text}" for letter, text in zip(ascii_uppercase, self.choices, strict=False)]
        return "\n".join([*hint, self.question, *options])

    @property
    def right(self) -> tuple[str, ...]:
        """The right letter and, where no other option reads the same, its text."""
        letter, text = ascii_uppercase[self.answer], self.choices[self.answer]
        bare = [choice.strip().removesuffix(".") for choice in self.choices]
        return (letter, text) if bare.count(bare[self.answer]) == 1 else (letter,)


def find(folder: Path) -> list[Part]:
    """`problems.json` once for each of the authors' three splits that the file beside it names."""
    for place in (folder, folder / "data" / "scienceqa"):
        file, splits = place / "problems.json", place / "pid_splits.json"
        if file.is_file() and splits.is_file():
            return [Part(ABOUT.name, part, file) for part in _splits(splits) if part in ABOUT.rows]
    return []


def _splits(file: Path) -> list[str]:
    try:
        return list(read_json(file, dict, "ScienceQA's pid_splits.json"))
    except UserError:
        return []


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
    pictured: bool = False,
) -> LoadedData:
    """Read `problems.json`; the other options are those of `unmirage.datasets.load`.

    `split` is one of those in `pid_splits.json` beside the file, without it "test". The image folder is `images/`
    beside the file or the file's own; it holds one folder for each split. `pictured` leaves out questions without
    a picture. `prompt` has {question}, which stands for context, question and options.
    """
    file, wording, part = Path(path), Wording(prompt), split or PART
    problems = read_json(file, dict, "ScienceQA's problems.json")
    name = name or f"scienceqa-{'image-' if pictured else ''}{part}"
    reader = Reader(file, name, image_folder(file, images, "images"), split, strict, verify_images, require_images)
    for number, pid in enumerate(_ids(file.with_name("pid_splits.json"), part)):
        if pid not in problems:
            fix = "fetch both files again"
            reader.report(number, pid, "no-problem", f"pid_splits.json names {pid!r}, which is not here", fix)
        elif row := reader.row(Problem, number, problems[pid], at=pid):
            _add(reader, number, pid, row, wording, pictured)
    return reader.loaded()


def load_pictured(
    path: str | Path,
    name: str | None = None,
    *,
    images: str | Path | None = None,
    split: str | None = None,
    strict: bool = False,
    verify_images: bool = False,
    require_images: bool = True,
) -> LoadedData:
    """Read only the questions that have a picture; otherwise as `load`."""
    return load(
        path,
        name,
        images=images,
        split=split,
        strict=strict,
        verify_images=verify_images,
        require_images=require_images,
        pictured=True,
    )


def _add(reader: Reader, number: int, pid: str, row: Problem, wording: Wording, pictured: bool) -> None:
    if row.answer >= len(row.choices):
        what = f"there are {len(row.choices)} choices, and the right one is number {row.answer}, counting from 0"
        reader.report(number, f"{pid}.answer", "bad-answer", what, "correct it or leave the row out")
    elif row.image is not None or not pictured:
        image = f"{row.split}/{pid}/{row.image}" if row.image else None
        more = {"answers": row.right, "reference": f"{row.right[0]}. {row.choices[row.answer]}"}
        subset = "image" if image else "no-image"
        reader.add(number, pid, wording.fill(question=row.asked), image, subset=subset, **more)


def _ids(file: Path, part: str) -> list[str]:
    """The ids of one split."""
    splits = read_json(file, dict, "ScienceQA's pid_splits.json, beside problems.json")
    ids = splits.get(part)
    if not isinstance(ids, list) or not ids:
        raise UserError(f"{file} has no split {part!r}; it has {', '.join(map(str, splits)) or 'none'}.")
    return [str(one) for one in ids]
