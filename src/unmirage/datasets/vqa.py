"""VQAv2: a file of questions, a file of ten people's answers to each, and COCO pictures.

Goyal et al. 2017, arXiv 1612.00837; layout of `v2_OpenEnded_mscoco_val2014_questions.json` (`questions`: `{question_id,
image_id, question}`, `data_subtype`) and `v2_mscoco_val2014_annotations.json` (`annotations`: `{question_id, answers:
[{answer}, ...], answer_type, multiple_choice_answer}`), joined by `question_id`; pictures
`COCO_val2014_<image_id in 12 digits>.jpg`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, NonNegativeInt

from unmirage.datasets.catalog import About, Part
from unmirage.datasets.files import Loose, Words
from unmirage.datasets.loaded import LoadedData
from unmirage.datasets.questions import SHORT_ANSWER, Reader, Wording, image_folder, lonely, read_list
from unmirage.errors import UserError
from unmirage.schema import Text

ABOUT = About(
    name="vqav2",
    title="VQAv2: questions about COCO pictures, answered by ten people",
    paper="Goyal et al. 2017, arXiv 1612.00837",
    page="https://visualqa.org",
    licence="annotations CC BY 4.0; pictures under their owners' Flickr terms",
    gated=False,
    purpose="utility",
    rows={"train2014": 443757, "val2014": 214354},
    note="The answers of the test sets are not published.",
)
PROMPT = f"{{question}}\n{SHORT_ANSWER}"

QUESTIONS = "v2_OpenEnded_mscoco_*_questions.json"


class Question(BaseModel):
    """One question; keys that are not named here are of no use here."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    question_id: Text
    image_id: NonNegativeInt
    question: Text


class Said(BaseModel):
    """What one person answered."""

    answer: Words


class Annotation(BaseModel):
    """What people answered to one question."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    question_id: Text
    answers: list[Said]
    answer_type: Loose | None = None
    multiple_choice_answer: Loose | None = None


class People(NamedTuple):
    """What people answered to one question, the sort of answer, and the most frequent one."""

    answers: tuple[str, ...]
    subset: str | None
    reference: str | None


def find(folder: Path) -> list[Part]:
    """The files of questions, by the authors' names; their answers are found by `load`."""
    places = (folder, folder / "Questions", folder / "questions")
    files = sorted({file.resolve(): file for place in places for file in place.glob(QUESTIONS)}.values())
    return [Part(ABOUT.name, _part(file, {}), file) for file in files if re.search(r"(train|val)\d{4}", file.name)]


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
    annotations: str | Path | None = None,
) -> LoadedData:
    """Read a file of questions and that of their answers; the other options are those of `unmirage.datasets.load`.

    Without `annotations` the answers are in the file beside the questions, or in `../Annotations/`, that has their
    name with `annotations` for `questions` and without `OpenEnded_`. Pictures are in `val2014/` (the questions'
    `data_subtype`), `images/` or the file's own folder. `prompt` has {question} where the question stands.
    Raises UserError for a file that cannot be read or is missing and data without one good row.
    """
    file, wording = Path(path), Wording(prompt)
    rows, head = read_list(file, "questions", "a file of VQAv2 questions, such as v2_OpenEnded_mscoco_val2014_...")
    part = _part(file, head)
    folder = image_folder(file, images, part, "images", f"../Images/mscoco/{part}")
    reader = Reader(file, name or file.stem, folder, split, strict, verify_images, require_images)
    answered = Path(annotations) if annotations else _beside(file)
    people = _people(reader, answered)
    asked = _ask(reader, rows, people, wording, part)
    reader.warnings += lonely(answered, people.keys(), asked, "questions' answers")
    return reader.loaded()


def _ask(reader: Reader, rows: list[Any], people: dict[str, People], wording: Wording, part: str) -> set[str]:
    """Keep the questions that people answered; the ids of all that could be read."""
    asked: set[str] = set()
    for number, raw in enumerate(rows):
        row = reader.row(Question, number, raw)
        if row is None:
            continue
        asked.add(row.question_id)
        said = people.get(row.question_id)
        if said is None:
            fix = "fetch both files of one release and split"
            reader.report(number, "question_id", "no-answers", f"question {row.question_id} has no ten answers", fix)
            continue
        picture = f"COCO_{part}_{row.image_id:012d}.jpg"
        reader.add(number, row.question_id, wording.fill(question=row.question), picture, **said._asdict())
    return asked


def _beside(file: Path) -> Path:
    """The file of answers that belongs to a file of questions."""
    name = file.name.replace("OpenEnded_", "").replace("questions", "annotations")
    candidates = (file.parent / name, file.parent.parent / "Annotations" / name)
    found = next((one for one in candidates if one.is_file() and one.name != file.name), None)
    if found is None:
        raise UserError(
            f"{file}: the answers to these questions are not there; put {name} into the same folder (those of the test "
            "sets are not published, and answers to them are scored only by the authors' server)."
        )
    return found


def _part(file: Path, head: dict[str, Any]) -> str:
    """The COCO split in the names of the pictures, such as val2014."""
    told = head.get("data_subtype")
    found = re.search(r"(train|val|test)(?:-dev)?(20\d\d)", told if isinstance(told, str) else file.name)
    if found is None:
        raise UserError(
            f"{file} does not say whose pictures it asks about; give it the key 'data_subtype', such as \"val2014\"."
        )
    return "".join(found.groups())


def _people(reader: Reader, file: Path) -> dict[str, People]:
    """What people answered, by question; a question's second row is reported and left out."""
    rows, _ = read_list(file, "annotations", "the file of answers that belongs to the questions")
    people: dict[str, People] = {}
    for number, raw in enumerate(rows):
        row = reader.row(Annotation, number, raw, file)
        if row is None:
            continue
        answers = tuple(said.answer for said in row.answers)
        if row.question_id in people:
            what = f"question {row.question_id} was answered before"
            reader.report(number, "question_id", "repeated-answers", what, "only the first is read", file)
        elif reader.ten(number, answers, file):
            people[row.question_id] = People(answers, row.answer_type, row.multiple_choice_answer)
    return people
