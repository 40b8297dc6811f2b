"""HoliSafe-Bench: pictures and questions in all combinations of safe and unsafe, harmless ones among them.

Lee et al. 2025, arXiv 2506.04704; rows as the README of `youngwanLEE/holisafe` shows them: `holisafe_bench.json`, a
list of `{id, image, query, type, category, subcategory, image_safe, image_safety_label}` with pictures under `images/`.
`type` has three letters, S (safe) or U (unsafe), for the picture, the question and both together; by the last one the
authors' evaluation counts a refusal as right (U) or wrong (S), and that is what is harmful here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unmirage.datasets.catalog import About, Part
from unmirage.datasets.files import Words, read_rows
from unmirage.datasets.loaded import LoadedData
from unmirage.datasets.safety import (
    Columns,
    SafetyReader,
    check_rows,
    files_named,
    first_named,
    first_row,
    looks_like,
    picture_folder,
    the_file,
)
from unmirage.errors import UserError
from unmirage.schema import Text

ABOUT = About(
    name="holisafe",
    title="HoliSafe-Bench: pictures and questions, each safe or unsafe",
    paper="Lee et al. 2025, arXiv 2506.04704",
    page="https://huggingface.co/datasets/etri-vilab/holisafe-bench",
    licence="unknown",
    gated=True,
    rows={"bench": 4031},
    note="1,796 pictures; the paper's first version counted 4,163 questions about 1,779. Of the five types only SSS is "
    "harmless, also where picture and question are safe each by itself (SSU). The authors average over types.",
)
WHAT = "HoliSafe's holisafe_bench.json"
TYPES = ("SSS", "SSU", "SUU", "USU", "UUU")
"""Safety of the picture, of the question, and of both together."""


class Row(Columns):
    """One question about one picture."""

    id: Text
    image: Text
    query: Words
    type: Words
    category: Any = None
    subcategory: Any = None
    image_safe: bool | None = None
    image_safety_label: Any = None


def find(folder: Path) -> list[Part]:
    """The one file, by its columns, whatever its name; else what has HoliSafe in its name, which cannot be read."""
    files = files_named(folder, ("", "data"), r".*\.json")
    ours = [file for file in files if looks_like(file, Row)]
    named = files_named(folder, ("", "data"), r".*holisafe.*\.(json|jsonl|csv|parquet)")
    parts = [Part("holisafe", "bench", file, _pictures(file, None, first_named(file, "image"))) for file in ours]
    # Not called "bench": whoever knows such a file better may have it.
    return parts or [Part("holisafe", file.stem, file) for file in named]


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
    """Read the questions; the options are those of `unmirage.datasets.load`. `subset` is the type, such as USU.

    Raises UserError naming the columns of a file that has others. A type that is none of the five is reported and its
    row left out; one that contradicts `image_safe` is reported.
    """
    file = the_file(path, find, "holisafe")
    _check_kind(file)
    reader = SafetyReader(file, name or "holisafe", file.parent, split, strict, verify_images, require_images)
    rows = read_rows(file)
    check_rows(file, rows, Row, WHAT)
    found = [(number, reader.row(Row, number, raw)) for number, raw in enumerate(rows)]
    reader.folder = _pictures(file, images, [row.image for _, row in found if row])
    for number, row in found:
        if row is not None and (kind := _type(reader, number, row)) is not None:
            more: dict[str, Any] = {"where": "query", "subset": kind}
            reader.ask(number, row.id, row.query, row.image, harmful=kind.endswith("U"), **more)
    return reader.loaded()


def _check_kind(file: Path) -> None:
    if not file.exists():
        raise UserError(f"{file} does not exist; give {WHAT}.")
    if file.suffix.lower() != ".json":
        has = f" It has the columns {', '.join(first_row(file))}." if file.suffix.lower() == ".csv" else ""
        raise UserError(f"{file}: of HoliSafe only the JSON list of its authors is known here; give {WHAT}.{has}")


def _type(reader: SafetyReader, number: int, row: Row) -> str | None:
    """The row's type; None, which is reported, where it is none of the five: what is harmful is not guessed."""
    kind = row.type.strip().upper()
    if kind not in TYPES:
        what = f"{row.type!r} is none of the types {', '.join(TYPES)}"
        reader.report(number, "type", "bad-type", what, "correct it or delete the row")
        return None
    if row.image_safe is not None and row.image_safe is not (kind[0] == "S"):
        what = f"the type {kind} and image_safe {str(row.image_safe).lower()} say different things of the picture"
        reader.report(
            number, "image_safe", "contradiction", what, "the type is followed; see which is right", skipped=False
        )
    return kind


def _pictures(file: Path, images: str | Path | None, named: list[str]) -> Path:
    return picture_folder(file, images, ("images", "../images", ""), named)
