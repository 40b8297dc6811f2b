"""VLSBench: harmful only by picture and text together, with nothing of it in the text alone.

Hu et al. 2024, arXiv 2411.19939; layout of `AI45Lab/VLSBench`: `data/data.json`, a list of `{instruction_id,
instruction, image_path, category, sub_category, source, image_description, safety_reason}`; pictures come as `imgs.tar`
from the Hugging Face Hub. All rows are unsafe. Most begin with "what" or "how", against the habit of VLGuard's harmful
questions, which makes the set a check of what a model learnt from those.
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
    looks_like,
    picture_folder,
    the_file,
)
from unmirage.errors import UserError
from unmirage.schema import Text

ABOUT = About(
    name="vlsbench",
    title="VLSBench: unsafe pairs whose text does not give them away",
    paper="Hu et al. 2024, arXiv 2411.19939",
    page="https://github.com/AI45Lab/VLSBench",
    licence="Apache-2.0",
    rows={"data": 2241},
    note="Pictures are imgs.tar (2.45 GB) on the Hugging Face Hub. Unsafe rows only. GPT-4o gives one of three labels.",
)
WHAT = "VLSBench's data/data.json"
ARCHIVE = "imgs.tar"


class Row(Columns):
    """One instruction about one picture."""

    instruction_id: Text
    instruction: Words
    image_path: Text
    category: Text
    sub_category: Any = None
    source: Any = None
    image_description: Any = None
    safety_reason: Any = None


def find(folder: Path) -> list[Part]:
    """The one file, by its name and columns: `data.json` is a name that others have, too."""
    files = files_named(folder, ("data", ""), r"data\.json")
    return [
        Part("vlsbench", "data", file, _pictures(file, None, first_named(file, "image_path")))
        for file in files
        if looks_like(file, Row)
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
    """Read the instructions; the options are those of `unmirage.datasets.load`. `subset` is the category.

    `image_path` is relative to the file's own folder, the one above it, or `imgs/` or `images/` in either. Raises
    UserError where the pictures are still packed.
    """
    file = the_file(path, find, "vlsbench")
    reader = SafetyReader(file, name or "vlsbench", file.parent, split, strict, verify_images, require_images)
    rows = read_rows(file)
    check_rows(file, rows, Row, WHAT)
    found = [(number, reader.row(Row, number, raw)) for number, raw in enumerate(rows)]
    named = [row.image_path for _, row in found if row]
    reader.one_each = True
    reader.folder = _pictures(file, images, named)
    if require_images and images is None:
        _refuse_packed(file, reader.folder, named)
    for number, row in found:
        if row is not None:
            more = {"where": "instruction", "at": "image_path", "subset": row.category}
            reader.ask(number, row.instruction_id, row.instruction, row.image_path, harmful=True, **more)
    return reader.loaded()


def _refuse_packed(file: Path, folder: Path, named: list[str]) -> None:
    packed = [place / ARCHIVE for place in (file.parent, file.absolute().parent.parent)]
    there = next((archive for archive in packed if archive.is_file()), None)
    if there is not None and not any((folder / name).is_file() for name in named[:50]):
        raise UserError(f"{file}: its pictures are still packed in {there}; unpack them: tar -xf {there.name} there.")


def _pictures(file: Path, images: str | Path | None, named: list[str]) -> Path:
    return picture_folder(file, images, ("imgs", "../imgs", "images", "../images", "..", ""), named)
