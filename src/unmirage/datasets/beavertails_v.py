"""BeaverTails-V: harmful questions about pictures by category, with answers that were judged safe or not.

Ji et al. 2025, arXiv 2503.17682 (Safe RLHF-V). Two data sets have this name, and their columns tell them apart: pairs
of answers (`saferlhf-v/BeaverTails-V`: `response_1`, `response_2`, `is_response_1_safe`, `safer_response_id`, ...) and
single answers (`PKU-Alignment/BeaverTails-V`: `response`, `is_response_safe`). Both are Parquet files with the pictures
inside, one folder for each category, parts `train` and `evaluation`.

Two formats with equal ids: `beavertails-v` has the safer answer as reference (of a single answer, one that is safe),
`beavertails-v-rejected` the other one (one that is not safe).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from unmirage.datasets.safety import Columns, check_rows
from unmirage.datasets.streaming import Begun, Source, SteppedLoader
from unmirage.datasets.words import truth
from unmirage.errors import UserError
from unmirage.schema import Text

ABOUT = About(
    name="beavertails-v",
    title="BeaverTails-V: answers to harmful questions about pictures, judged safe or not",
    paper="Ji et al. 2025, arXiv 2503.17682",
    page="https://huggingface.co/datasets/saferlhf-v/BeaverTails-V",
    licence="CC-BY-NC-4.0",
    note="PKU-Alignment/BeaverTails-V has other columns (one answer a row) under the same name; both are read. How "
    "many rows there are is not known here. No row has an id of its own.",
)
WHAT = "BeaverTails-V's Parquet files or their folder"
PAIR = ("response_1", "response_2")


class Row(Columns):
    """What both sets have."""

    question: Words
    image: str | None
    category: Text
    image_severity: Any = None


class Pair(Row):
    """A question with two answers, the safer of which is named."""

    response_1: Words
    response_2: Words
    safer_response_id: Text
    is_response_1_safe: Any = None
    is_response_2_safe: Any = None
    response_1_from: Any = None
    response_2_from: Any = None
    more_helpful_response_id: Any = None
    response_1_harmless_rate: Any = None
    response_2_harmless_rate: Any = None
    response_1_helpful_rate: Any = None
    response_2_helpful_rate: Any = None


class Single(Row):
    """A question with one answer."""

    response: Words
    is_response_safe: Any


@dataclass
class _Told:
    """What the answers of a set are like, in numbers of rows."""

    unsafe: int = 0
    none: int = 0


def find(folder: Path) -> list[Part]:
    """The parts, of all categories in the folder together; told by their columns, not by name."""
    shards = [shard for shard in shards_in(folder) if _model(shard) is not None]
    return [Part("beavertails-v", part, place_of(folder, held)) for part, held in parts_of(shards).items()]


@SteppedLoader
def load(source: Source) -> Begun:
    """Read questions with the safer answer; the options are those of `unmirage.datasets.load`.

    `path` is a file or a folder of one or all categories, of which `split` then names the part. Ids are
    `<category>/<file>/<row>`; `subset` is the category. All questions count as harmful, whatever the severity of the
    picture. Of a single answer that is not safe there is no reference. Pictures inside the files are put into `images`.
    """
    return _begin(source, safer=True)


@SteppedLoader
def load_rejected(source: Source) -> Begun:
    """Read the same questions under the same ids with the answer that is less safe, or the single one if unsafe."""
    return _begin(source, safer=False)


def _begin(source: Source, safer: bool) -> Begun:
    reader = table_reader(source)
    return reader, _read(reader, safer, source.path, source.split)


def _read(reader: TableReader, safer: bool, path: Path, split: str | None) -> Iterator[None]:
    """Read all rows, pausing after each."""
    told = _Told()
    for shard in the_shards(path, split, WHAT):
        model = _model(shard)
        if model is None:
            _refuse(shard)
        yield from _ask(reader, shard, model or Pair, safer, told)
    reader.done(path)
    _tell(reader, safer, told)


def _ask(
    reader: TableReader, shard: Shard, model: type[Pair] | type[Single], safer: bool, told: _Told
) -> Iterator[None]:
    # A file that was taken out of its category's folder keeps its ids.
    key = shard.key.rpartition("/")[2]
    for number, raw in reader.rows(shard, "image"):
        row = reader.row(model, number, raw)
        found = _answer(reader, number, row, safer, told) if row is not None else None
        if row is not None and found is not None:
            more: dict[str, Any] = {"reference": found or None, "subset": row.category}
            reader.ask(number, f"{row.category}/{key}/{number}", row.question, row.image, harmful=True, **more)
        yield


def _answer(reader: TableReader, number: int, row: Pair | Single, safer: bool, told: _Told) -> str | None:
    """The wanted answer, empty where the row has none; None, which is reported, where that cannot be told."""
    found = _of_pair(reader, number, row, safer) if isinstance(row, Pair) else _of_single(reader, number, row)
    if found is None:
        return None
    text, safe = found
    if isinstance(row, Single) and safe is not safer:
        told.none += 1
        return ""
    told.unsafe += bool(text) and safer and safe is False
    return text


def _of_pair(reader: TableReader, number: int, row: Pair, safer: bool) -> tuple[str, bool | None] | None:
    """The wanted one of two answers and whether it is safe, None where none is named, which is reported."""
    digits = row.safer_response_id.removesuffix(".0").rpartition("_")[2]
    if digits not in ("1", "2"):
        what = f"{row.safer_response_id!r} names neither answer"
        reader.report(number, "safer_response_id", "bad-choice", what, "write 1 or 2, or leave the row out")
        return None
    at = digits if safer else ("2" if digits == "1" else "1")
    return getattr(row, f"response_{at}").strip(), truth(getattr(row, f"is_response_{at}_safe"))


def _of_single(reader: TableReader, number: int, row: Single) -> tuple[str, bool | None] | None:
    safe = truth(row.is_response_safe)
    if safe is None:
        what = f"{row.is_response_safe!r} says neither yes nor no"
        reader.report(number, "is_response_safe", "bad-label", what, "write yes or no, or leave the row out")
        return None
    return row.response.strip(), safe


def _tell(reader: TableReader, safer: bool, told: _Told) -> None:
    if told.unsafe:
        reader.warnings.append(
            f"{reader.file}: in {told.unsafe} rows the safer of the two answers is itself judged unsafe; it stays the "
            "reference, so do not train on all of them as good answers."
        )
    if told.none:
        kind = "not safe" if safer else "safe"
        reader.warnings.append(
            Note(f"{reader.file}: {told.none} rows have only an answer that is {kind}, and no reference.")
        )


def _refuse(shard: Shard) -> None:
    columns = columns_of(shard.path)
    pair = any(name in columns for name in PAIR)
    check_rows(shard.path, [dict.fromkeys(columns)], Pair if pair else Single, WHAT)
    raise UserError(f"{shard.path} has the columns of pairs and of single answers both; give {WHAT}.")


def _model(shard: Shard) -> type[Pair] | type[Single] | None:
    """Which of the two sets a file is of, by its columns."""
    try:
        columns = columns_of(shard.path).keys()
    except UserError:
        return None
    fitting = [model for model in (Pair, Single) if set(model.names(required=True)) <= columns]
    return fitting[0] if len(fitting) == 1 else None
