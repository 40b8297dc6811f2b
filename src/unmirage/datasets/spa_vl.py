"""SPA-VL: harmful questions about pictures, each with a chosen and a rejected answer.

Zhang et al. 2024, arXiv 2406.12030; layout of `sqrti/SPA-VL` on the Hugging Face Hub, Parquet with the pictures inside:
`data/train-*` (`image, question, chosen, rejected, image_name`), `validation/validation-*` (with `class1`, `class2`,
`class3`, without `image_name`), `test/harm-*` and `test/help-*` (`image, question, class1`-`class3`, no answers). And
the JSON of `EchoseChen/SPA-VL-RLHF`: a list of `{id, image, question, chosen, rejected}` with pictures as files.

Two formats with equal ids: `spa-vl` has the chosen answer as reference, `spa-vl-rejected` the rejected one. The first
is data to be trained on; preference terms take the second as data and the first as preferred data.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from unmirage.datasets.catalog import About, Part
from unmirage.datasets.columnar import (
    Shard,
    TableReader,
    columns_of,
    parts_of,
    place_of,
    shards_in,
    table_reader,
    the_shards,
)
from unmirage.datasets.files import Words
from unmirage.datasets.loaded import Note
from unmirage.datasets.rows import json_rows
from unmirage.datasets.safety import Columns, check_rows, files_named, looks_like, picture_folder
from unmirage.datasets.streaming import Begun, Source, SteppedLoader
from unmirage.errors import UserError
from unmirage.schema import Text

ABOUT = About(
    name="spa-vl",
    title="SPA-VL: safety preference alignment for vision-language models",
    paper="Zhang et al. 2024, arXiv 2406.12030",
    page="https://huggingface.co/datasets/sqrti/SPA-VL",
    licence="CC-BY-4.0",
    rows={"train": 93258, "validation": 7000, "harm": 265, "help": 265},
    note="Pairs of a chosen and a rejected answer; the test parts harm and help have no answers. No row of the Parquet "
    "files has an id of its own. How answers are judged is not released.",
)
WHAT = "SPA-VL's Parquet files, their folder, or the JSON of SPA-VL-RLHF"
HELP = "help"
Answer = Literal["chosen", "rejected"]


class Row(Columns):
    """One question with what there is of its two answers."""

    question: Words
    image: str | None
    chosen: Words | None = None
    rejected: Words | None = None
    image_name: Any = None
    class1: Words | None = None
    class2: Any = None
    class3: Any = None


class JsonRow(Row):
    """One row of the RLHF JSON, which has an id and both answers."""

    id: Text
    image: Text
    chosen: Words
    rejected: Words


def find(folder: Path) -> list[Part]:
    """The parts in Parquet, and JSON files of preference pairs, told by their columns: the names are anyone's."""
    shards = [shard for shard in shards_in(folder) if _is_ours(shard)]
    parts = [Part("spa-vl", part, place_of(folder, held)) for part, held in parts_of(shards).items()]
    files = files_named(folder, ("", "data"), r".*\.json")
    return parts + [
        Part("spa-vl", file.stem, file, _json_pictures(file, None, [])) for file in files if looks_like(file, JsonRow)
    ]


@SteppedLoader
def load(source: Source) -> Begun:
    """Read questions with the chosen answer; the options are those of `unmirage.datasets.load`.

    `path` is a Parquet file, a folder with several, of which `split` then names the part ("train"), or the RLHF JSON.
    Ids of Parquet rows are `<file>/<row>` ("train-00003/17"), those of JSON rows their own. All questions count as
    harmful, those of the part "help" too: they are of the set's classes of harm. `subset` is `class1`.
    Pictures inside the files are put into `images`, see `unmirage.datasets.pictures`.
    """
    return _begin(source, "chosen")


@SteppedLoader
def load_rejected(source: Source) -> Begun:
    """Read the same questions under the same ids with the rejected answer; UserError where there are no answers."""
    return _begin(source, "rejected")


def _begin(source: Source, answer: Answer) -> Begun:
    reader = table_reader(source)
    return reader, _read(reader, answer, source)


def _read(reader: TableReader, answer: Answer, source: Source) -> Iterator[None]:
    """Read all rows, pausing after each."""
    if source.path.suffix.lower() == ".json":
        for number, raw in json_rows(source.path):
            _ask_json(reader, answer, number, raw, source.images)
            yield
    else:
        for shard in the_shards(source.path, source.split, WHAT):
            yield from _ask_shard(reader, answer, shard)
    reader.done(source.path)


def _ask_shard(reader: TableReader, answer: Answer, shard: Shard) -> Iterator[None]:
    columns = columns_of(shard.path)
    _check(shard.path, columns, answer)
    if shard.part == HELP and "chosen" not in columns:
        reader.warnings.append(
            Note(
                f"{shard.path}: the questions of this part are harmful ones by which the authors compare how helpful "
                "answers are; a rate of refusals is not their figure."
            )
        )
    for number, raw in reader.rows(shard, "image"):
        row = reader.row(Row, number, raw)
        if row is not None:
            reference = _reference(reader, number, row, answer) if answer in columns else None
            more: dict[str, Any] = {"reference": reference, "subset": row.class1 or None}
            reader.ask(number, f"{shard.key}/{number}", row.question, row.image, harmful=True, **more)
        yield


def _check(file: Path, columns: dict[str, Any], answer: Answer) -> None:
    check_rows(file, [dict.fromkeys(columns)], Row, WHAT)
    if not ({"chosen", "rejected"} <= columns.keys() or "class1" in columns):
        has = ", ".join(columns)
        raise UserError(
            f"{file} has neither answers (chosen, rejected) nor classes (class1): its columns are {has}. Give {WHAT}, "
            "or read it with the format hf."
        )
    if answer == "rejected" and answer not in columns:
        raise UserError(f"{file} has no column 'rejected', as it is a test part; read it with the format spa-vl.")


def _ask_json(reader: TableReader, answer: Answer, number: int, raw: Any, images: str | Path | None) -> None:
    if number == 0:
        first = raw if isinstance(raw, dict) else {}
        check_rows(reader.file, [first], JsonRow, WHAT)
        reader.folder = _json_pictures(reader.file, images, [first["image"]])
    row = reader.row(JsonRow, number, raw)
    if row is not None:
        more: dict[str, Any] = {"reference": _reference(reader, number, row, answer), "subset": row.class1 or None}
        reader.ask(number, row.id, row.question, row.image, harmful=True, **more)


def _reference(reader: TableReader, number: int, row: Row, answer: Answer) -> str | None:
    text = (getattr(row, answer) or "").strip()
    if text:
        return text
    reader.report(number, answer, "empty-answer", "the answer is empty", "write it or delete the row", skipped=False)
    return None


def _json_pictures(file: Path, images: str | Path | None, named: list[Any]) -> Path:
    places = ("images", "../images", "image", "..", "")
    return picture_folder(file, images, places, [name for name in named if isinstance(name, str)])


def _is_ours(shard: Shard) -> bool:
    try:
        columns = columns_of(shard.path).keys()
    except UserError:  # no table after all
        return False
    pairs = {"question", "image", "chosen", "rejected"} <= columns
    return pairs or {"question", "image", "class1", "class2", "class3"} <= columns
