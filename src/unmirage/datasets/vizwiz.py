"""VizWiz-VQA: what blind people asked about their own pictures, each answered by ten people.

Gurari et al. 2018, arXiv 1802.08218; layout of `val.json`: a list of `{image, question, answers: [{answer,
answer_confidence}, ...], answer_type, answerable}`. Many pictures do not show what was asked for; then people said
"unanswerable", which is a right answer like any other. Rows have no id but their picture's name.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from unmirage.datasets.catalog import About, Part
from unmirage.datasets.files import Loose, Words, read_rows
from unmirage.datasets.loaded import LoadedData
from unmirage.datasets.questions import SHORT_ANSWER, Reader, Wording, image_folder
from unmirage.datasets.streaming import first_row_of
from unmirage.schema import Text

ABOUT = About(
    name="vizwiz",
    title="VizWiz-VQA: blind people's questions about their own pictures",
    paper="Gurari et al. 2018, arXiv 1802.08218",
    page="https://vizwiz.org",
    licence="CC BY 4.0",
    gated=False,
    purpose="utility",
    rows={"train": 20523, "val": 4319},
    note="Many pictures do not show what was asked for. The answers of the test set are not published.",
)
KEYS = frozenset({"image", "question", "answers", "answer_type"})
PROMPT = f"{{question}}\nWhen the provided information is insufficient, respond with 'Unanswerable'.\n{SHORT_ANSWER}"
"""LLaVA-1.5's wording for VizWiz (arXiv 2310.03744, appendix)."""


class Said(BaseModel):
    """What one person answered; how sure they were does not enter the score."""

    answer: Words


class Row(BaseModel):
    """One question; keys that are not named here are of no use here."""

    image: Text
    question: Text
    answers: list[Said]
    answer_type: Loose | None = None


def find(folder: Path) -> list[Part]:
    """`train.json` and `val.json`, by their first rows: others have files of these names, too."""
    places = (folder, folder / "Annotations", folder / "annotations")
    named = {one.resolve(): one for place in places for part in ABOUT.rows if (one := place / f"{part}.json").is_file()}
    return [Part(ABOUT.name, file.stem, file) for file in named.values() if first_row_of(file).keys() >= KEYS]


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
    """Read a file of questions; the options are those of `unmirage.datasets.load`.

    Pictures are in the folder with the file's stem as its name (`val.json`, `val/`) beside the file or beside its
    folder, in `images/` or in the file's own folder. `subset` is the sort of answer, "unanswerable" among them.
    """
    file, wording = Path(path), Wording(prompt)
    folder = image_folder(file, images, file.stem, f"../{file.stem}", "images")
    reader = Reader(file, name or f"vizwiz-{file.stem}", folder, split, strict, verify_images, require_images)
    for number, raw in enumerate(read_rows(file)):
        row = reader.row(Row, number, raw)
        if row is None or not reader.ten(number, answers := tuple(said.answer for said in row.answers)):
            continue
        text = wording.fill(question=row.question)
        reader.add(number, row.image, text, row.image, answers=answers, subset=row.answer_type)
    return reader.loaded()
