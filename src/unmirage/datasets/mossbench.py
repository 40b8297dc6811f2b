"""MOSSBench: harmless questions about harmless pictures that models refuse, and a contrast set that is harmful.

Li et al. 2024, arXiv 2406.17806; layout of `xirui-li/MOSSBench`: `data/images_information/information.json`, an object
from `pid` to `{image, "short description", question, metadata: {over, human, child, syn, ocr, harm}, pid,
description}`, pictures in `data/images/`. The contrast set lies under `data_contrast/`; that it is laid out alike is
assumed here, and a file that is not is refused.

Two formats, as nothing in a row says which set it is of: `mossbench` takes all rows as harmless, `mossbench-contrast`
as harmful. The authors forbid to train on either.
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
    check_rows,
    files_named,
    first_named,
    looks_like,
    picture_folder,
    read_items,
    the_file,
)
from unmirage.errors import UserError
from unmirage.schema import Text

ABOUT = About(
    name="mossbench",
    title="MOSSBench: oversensitivity to safe queries, with a contrast set",
    paper="Li et al. 2024, arXiv 2406.17806",
    page="https://github.com/xirui-li/MOSSBench",
    licence="CC BY-SA 4.0 (the copy on the Hugging Face Hub says cc); training on it is prohibited",
    gated=False,
    training=False,
    rows={"benign": 300, "contrast": 244},
    note="The authors ask GPT for refusal, 0 or 1. Answers of models in data/results/*/data.js carry no labels.",
)
WHAT = "MOSSBench's data/images_information/information.json"
CONTRAST = "data_contrast"
"""The folder by which the contrast set is told."""
INNER = ("images_information", "")


class Metadata(Columns):
    """What the authors say of a question."""

    over: Any = None
    human: Any = None
    child: Any = None
    syn: Any = None
    ocr: Any = None
    harm: Any = None


class Row(Columns):
    """One question about one picture."""

    image: Text
    question: Words
    pid: Text
    short: Any = Field(None, alias="short description")
    description: Any = None
    metadata: Metadata | None = None


def find(folder: Path) -> list[Part]:
    """The two sets, by their folders; a file in no such folder is taken for the harmless one."""
    places = [f"{top}{inner}" for top in ("data/", f"{CONTRAST}/", "") for inner in INNER]
    files = [one for one in files_named(folder, places, r"information\.json") if looks_like(one, Row)]
    return [_part(file) for file in dict.fromkeys(files)]


def _part(file: Path) -> Part:
    pictures = _pictures(file, None, first_named(file, "image"))
    if _is_contrast(file):
        return Part("mossbench-contrast", "contrast", file, pictures)
    return Part("mossbench", "benign", file, pictures)


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
    """Read the harmless questions; the options are those of `unmirage.datasets.load`.

    Ids are the authors' `pid`, `subset` is `metadata.over`. Pictures are in `../images/`, `images/` or the file's own
    folder. Raises UserError for a file under `data_contrast`, which would be called harmless.
    """
    file = the_file(path, find, "mossbench")
    if _is_contrast(file):
        raise UserError(
            f"{file} lies under {CONTRAST}, so its questions are harmful; read it in the format mossbench-contrast."
        )
    reader = SafetyReader(file, name or "mossbench", file.parent, split, strict, verify_images, require_images)
    return _read(reader, images, harmful=False)


def load_contrast(
    path: str | Path,
    name: str | None = None,
    *,
    images: str | Path | None = None,
    split: str | None = None,
    strict: bool = False,
    verify_images: bool = False,
    require_images: bool = True,
) -> LoadedData:
    """Read the harmful questions of the contrast set; otherwise as `load`. Ids are `contrast_<pid>`.

    Raises UserError for the file of the harmless questions, by its place `data/images_information/`.
    """
    file = the_file(path, find, "mossbench-contrast")
    if file.absolute().parts[-3:-1] == ("data", "images_information"):
        raise UserError(f"{file} holds MOSSBench's harmless questions; read it in the format mossbench.")
    reader = SafetyReader(file, name or "mossbench-contrast", file.parent, split, strict, verify_images, require_images)
    return _read(reader, images, harmful=True)


def _read(reader: SafetyReader, images: str | Path | None, *, harmful: bool) -> LoadedData:
    file, reader.one_each = reader.file, True
    if file.suffix.lower() == ".js":
        raise UserError(f"{file} is JavaScript with answers of models, not MOSSBench's questions; give {WHAT}.")
    items = read_items(file, WHAT)
    check_rows(file, [raw for _, raw in items], Row, WHAT)
    found = [(number, key, reader.row(Row, number, raw, at=key)) for number, (key, raw) in enumerate(items)]
    reader.folder = _pictures(file, images, [row.image for _, _, row in found if row])
    for number, key, row in found:
        if row is not None:
            _check(reader, number, key, row)
            over = row.metadata.over if row.metadata else None
            subset = over if isinstance(over, str) else None
            row_id = f"contrast_{row.pid}" if harmful else row.pid
            reader.ask(number, row_id, row.question, row.image, harmful=harmful, subset=subset)
    return reader.loaded()


def _check(reader: SafetyReader, number: int, key: str, row: Row) -> None:
    reader.count(f"metadata.{name}" for name in (row.metadata and row.metadata.model_extra) or ())
    if row.pid != key:
        what = f"the row stands under {key!r} and calls itself {row.pid!r}"
        reader.report(number, f"{key}.pid", "odd-id", what, "its pid is believed; correct one of them", skipped=False)


def _is_contrast(file: Path) -> bool:
    return CONTRAST in file.absolute().parts


def _pictures(file: Path, images: str | Path | None, named: list[str]) -> Path:
    return picture_folder(file, images, ("../images", "..", "images", ""), named)
