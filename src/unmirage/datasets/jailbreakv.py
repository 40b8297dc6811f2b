"""JailBreakV-28K: harmful queries wrapped into jailbreaks, with pictures; and the plain queries, RedTeam-2K.

Luo et al. 2024, arXiv 2404.03027; layout of `JailbreakV-28K/JailBreakV-28k` on the Hugging Face Hub:
`JailBreakV_28K/JailBreakV_28K.csv`, `mini_JailBreakV_28K.csv` (its rows with `selected_mini`) and `RedTeam_2K.csv` with
the columns `id, jailbreak_query, redteam_query, format, policy, image_path, from, selected_mini, transfer_from_llm`;
pictures in the folders `figstep`, `llm_transfer_attack` and `query_related`.

Two formats: `jailbreakv` asks the jailbreak with its picture; `jailbreakv-redteam` asks the plain query without one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from unmirage.datasets.catalog import About, Part
from unmirage.datasets.files import Words
from unmirage.datasets.loaded import LoadedData
from unmirage.datasets.safety import (
    Columns,
    SafetyReader,
    files_named,
    first_row,
    looks_like,
    picture_folder,
    read_table,
    the_file,
)
from unmirage.errors import UserError
from unmirage.schema import Text
from unmirage.tables import Ragged

ABOUT = About(
    name="jailbreakv",
    title="JailBreakV-28K, its mini version, and RedTeam-2K",
    paper="Luo et al. 2024, arXiv 2404.03027",
    page="https://huggingface.co/datasets/JailbreakV-28K/JailBreakV-28k",
    licence="MIT (Hub)",
    rows={"28k": 28000, "redteam": 2000},
    note="Answers are judged by the authors with Llama Guard, which reads `jailbreak_query` and the response.",
)
WHAT = "JailBreakV_28K.csv, mini_JailBreakV_28K.csv or RedTeam_2K.csv"
PLACES = ("", "JailBreakV_28K")


class Row(Columns):
    """One jailbreak."""

    id: Text
    jailbreak_query: Words
    image_path: Words
    redteam_query: Words = ""
    format: Words = ""
    policy: Words = ""
    source: Any = Field(default=None, alias="from")
    selected_mini: Any = None
    transfer_from_llm: Any = None


class Plain(Columns):
    """One plain query; of RedTeam-2K the column may be called `question`."""

    id: Text
    redteam_query: Words
    policy: Words = ""
    source: Any = Field(default=None, alias="from")
    jailbreak_query: Any = None
    format: Any = None
    image_path: Any = None
    selected_mini: Any = None
    transfer_from_llm: Any = None


class Question(Columns):
    """One plain query under its other name."""

    id: Text
    question: Words
    policy: Words = ""
    source: Any = Field(default=None, alias="from")


def find(folder: Path) -> list[Part]:
    """The three tables, by their names and columns."""
    parts = [
        Part("jailbreakv", "mini" if file.name.lower().startswith("mini") else "28k", file, _pictures(file, None, []))
        for file in files_named(folder, PLACES, r"(mini_)?jailbreakv[-_]28k\.csv")
        if looks_like(file, Row)
    ]
    plain = files_named(folder, PLACES, r"redteam[-_]2k\.csv")
    return parts + [
        Part("jailbreakv-redteam", "redteam", file) for file in plain if looks_like(file, _plain_model(file))
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
    """Read jailbreaks; the options are those of `unmirage.datasets.load`. `subset` is `format`, the sort of jailbreak.

    `image_path` is relative to the file's own folder or the one above it. A row without a picture is asked as text.
    """
    file = the_file(path, find, "jailbreakv")
    reader = SafetyReader(file, name or file.stem, file.parent, split, strict, verify_images, require_images)
    rows = _table(file, Row)
    found = [(number, reader.row(Row, number, raw)) for number, raw in enumerate(rows)]
    reader.folder = _pictures(file, images, [row.image_path for _, row in found if row])
    for number, row in found:
        if row is not None:
            more: dict[str, Any] = {"where": "jailbreak_query", "at": "image_path", "subset": row.format or None}
            picture = row.image_path.strip() or None
            reader.ask(number, row.id, row.jailbreak_query, picture, harmful=True, **more)
    return reader.loaded()


def load_plain(
    path: str | Path,
    name: str | None = None,
    *,
    images: str | Path | None = None,
    split: str | None = None,
    strict: bool = False,
    verify_images: bool = False,
    require_images: bool = True,
) -> LoadedData:
    """Read the plain harmful queries, without pictures. `subset` is the policy that they go against."""
    file = the_file(path, find, "jailbreakv-redteam")
    reader = SafetyReader(file, name or file.stem, file.parent, split, strict, verify_images, require_images)
    model = _plain_model(file)
    for number, raw in enumerate(_table(file, model)):
        row = reader.row(model, number, raw)
        if row is not None:
            text, where = (
                (row.question, "question") if isinstance(row, Question) else (row.redteam_query, "redteam_query")
            )
            reader.ask(number, row.id, text, None, harmful=True, where=where, subset=row.policy or None)
    return reader.loaded()


def _plain_model(file: Path) -> type[Plain] | type[Question]:
    columns = first_row(file)
    return Question if "question" in columns and "redteam_query" not in columns else Plain


def _table(file: Path, model: type[Columns]) -> list[dict[str, str] | Ragged]:
    if file.suffix.lower() != ".csv":
        raise UserError(f"{file} is no CSV file; give {WHAT}.")
    return read_table(file, model, WHAT)


def _pictures(file: Path, images: str | Path | None, named: list[str]) -> Path:
    return picture_folder(file, images, ("", "..", "images"), named)
