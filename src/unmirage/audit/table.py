"""Data of any format as columns: one frame of questions after the other, and what was wrong with the rows.

A frame has the columns `file`, `row` (from 0 in its file), `id`, `question`, `label` (true = refusal), `answer`,
`image`, `width`, `height` and `weight`; all but the first two may be null. Frames are read anew for each pass where
they would not fit into memory.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from unmirage.audit import reading
from unmirage.audit.places import holder, places_of
from unmirage.audit.reading import Fault
from unmirage.datasets import Problem, load
from unmirage.datasets.files import image_fault, image_folder, kind_of
from unmirage.errors import UserError

SCHEMA = {
    "file": pl.Int32,
    "row": pl.Int64,
    "id": pl.String,
    "question": pl.String,
    "label": pl.Boolean,
    "answer": pl.String,
    "image": pl.String,
    "width": pl.Int32,
    "height": pl.Int32,
    "weight": pl.Float64,
}
CACHE_BYTES = 512 << 20
CHUNK_ROWS, CHUNK_CHARACTERS = 16_384, 8 << 20
MOST_PICTURES = 20_000
MOST_LABELS = 10_000
_WHOLE = re.compile(r"-?\d+\.0")
PLACEHOLDERS = frozenset({"n/a", "na", "nan", "none", "null", "-", "?"})
REFUSAL_VALUES = frozenset(
    {"true", "1", "1.0", "yes", "refusal", "refused", "refuse", "unsafe", "harmful", "reject", "rejected"}
)
COMPLIANCE_VALUES = frozenset(
    {"false", "0", "0.0", "no", "compliance", "complied", "comply", "safe", "harmless", "answer", "answered"}
)


@dataclass(frozen=True)
class Columns:
    """What the columns of a table are called, and which values of the label mean refusal.

    `weight` names the column of the rows' weights or, in VLGuard's and LLaVA's format, the key beside the question.
    `prefix` begins the names of the options that name columns, for messages.
    """

    question: str | None = None
    answer: str | None = None
    label: str | None = None
    image: str | None = None
    id: str | None = None
    refusal: tuple[str, ...] = ()
    weight: str | None = None
    prefix: str = "--"

    def named(self) -> list[str]:
        """The options that mean something in a table only, as far as they are given."""
        given = {name: getattr(self, name) for name in ("question", "answer", "label", "image", "id", "refusal")}
        return [f"{self.prefix}{name}" for name, value in given.items() if value not in (None, ())]


@dataclass
class Source:
    """One or more files as frames; iterate `frames()` as often as needed.

    `beside` are files that another source reads by the same columns, so that these may be meant for them alone.
    `problems` holds the first of each kind of problem, `defects` counts them all; both are complete after the first
    whole pass.
    """

    paths: Sequence[Path]
    columns: Columns = Columns()
    format: str = "auto"
    images: Path | None = None
    encoding: str = "utf-8"
    strict: bool = False
    beside: Sequence[Path] = ()
    problems: list[Problem] = field(default_factory=list)
    defects: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)
    seen_labels: dict[str, None] = field(default_factory=dict)
    _cache: list[pl.DataFrame] = field(default_factory=list)
    _state: str = "unread"

    def frames(self) -> Iterator[pl.DataFrame]:
        """Yield all rows, at most 16,384 at a time."""
        self.check_columns()
        if self._state == "cached":
            yield from self._cache
            return
        first, size = self._state == "unread", 0
        for frame in self._read(note=first):
            size += int(frame.estimated_size())
            if first and size <= CACHE_BYTES:
                self._cache.append(frame)
            elif first:
                self._cache.clear()
            yield frame
        self._state = "cached" if first and size <= CACHE_BYTES else "streamed"
        self._check_refusals()

    @property
    def weighted(self) -> bool:
        """Whether a column of weights is named."""
        return self.columns.weight is not None

    def has_labels(self, file: int) -> bool:
        """Whether a file has labels: VLGuard's has, LLaVA's has not, a table has where its column is named."""
        format = self.format_of(self.paths[file])
        return format == "vlguard" or (format == "table" and self.columns.label is not None)

    def check_columns(self) -> None:
        """Raise UserError where columns are named that nothing is read by: they must not be passed over in silence."""
        columns = self.columns
        if columns.refusal and columns.label is None:
            raise UserError(
                f"{columns.prefix}refusal says which values of a column mean refusal; name it with "
                f"{columns.prefix}label, or leave both out."
            )
        formats = [self.format_of(path) for path in (*self.paths, *self.beside)]
        if (named := columns.named()) and "table" not in formats:
            hint = ", or give --format table to read it by its columns" if columns.prefix == "--" else ""
            raise UserError(
                f"{self.paths[0]} is read as {formats[0]}, which has no columns to name; leave out "
                f"{', '.join(named)}{hint}."
            )

    def _check_refusals(self) -> None:
        """A value that no row has is a mistake, and would make of its refusals what they are not."""
        lacking = [value for value in self.columns.refusal if _label(value) not in self.seen_labels]
        if lacking and 0 < len(self.seen_labels) < MOST_LABELS:
            there = ", ".join(repr(value) for value in list(self.seen_labels)[:20])
            names = ", ".join(str(path) for path in self.paths)
            raise UserError(
                f"{names}: {self.columns.prefix}refusal {lacking[0]} is the label of no row; the labels are {there}."
            )

    def format_of(self, path: Path) -> str:
        """The format of one of the files: what was asked for or, with `auto`, what its beginning shows.

        With `auto` a file that has the named column of questions is a table, whatever else it holds. So is one whose
        first row is too long to tell: where that is wrong, the reader says that the column is not there.
        """
        if self.format != "auto":
            return self.format
        if path.suffix.lower() == ".json" and path.is_file():
            with path.open("rb") as file:
                head = file.read(1 << 16)
            for key, name in ((b'"instr-resp"', "vlguard"), (b'"conversations"', "llava")):
                if key in head:
                    return "table" if self._may_be_table(head) else name
        return "table"

    def _may_be_table(self, head: bytes) -> bool:
        name = self.columns.question
        return name is not None and ((row := _first_row(head)) is None or name in row)

    def _read(self, note: bool) -> Iterator[pl.DataFrame]:
        for number, path in enumerate(self.paths):
            yield from _FileReader(self, number, path, note).frames()

    def report(self, problem: Problem, most: int = 20) -> None:
        """Count a problem and keep the first ones of its kind; with `strict` a row left out ends the program."""
        if self.strict and problem.skipped:
            raise UserError(str(problem))
        self.defects[problem.kind] += 1
        if self.defects[problem.kind] <= most:
            self.problems.append(problem)


@dataclass
class FrameSource:
    """A frame that is there already, for use from Python; columns of `SCHEMA` that it lacks are null."""

    frame: pl.DataFrame
    paths: Sequence[Path] = (Path("frame"),)
    problems: list[Problem] = field(default_factory=list)
    defects: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)

    @property
    def weighted(self) -> bool:
        """Whether the frame has weights."""
        return "weight" in self.frame.columns

    def has_labels(self, file: int) -> bool:
        """Whether any row has a label."""
        return "label" in self.frame.columns and bool(self.frame["label"].is_not_null().any())

    def frames(self) -> Iterator[pl.DataFrame]:
        """Yield all rows, at most 16,384 at a time."""
        start = 0
        for part in self.frame.iter_slices(CHUNK_ROWS):
            rows = pl.Series("row", range(start, start + len(part)), dtype=pl.Int64)
            missing = [
                pl.lit(None, dtype=kind).alias(name) for name, kind in SCHEMA.items() if name not in part.columns
            ]
            full = part.with_columns(missing).with_columns(rows, file=pl.lit(0, dtype=pl.Int32))
            yield full.select(pl.col(name).cast(kind) for name, kind in SCHEMA.items())
            start += len(part)


@dataclass
class _FileReader:
    source: Source
    number: int
    path: Path
    note: bool
    pictures: dict[str, tuple[int | None, int | None, str]] = field(default_factory=dict)

    def frames(self) -> Iterator[pl.DataFrame]:
        if self.source.format_of(self.path) == "table":
            return _framed(self._table())
        return _framed(self._data_set())

    def _data_set(self) -> Iterator[dict[str, Any]]:
        format = self.source.format_of(self.path)
        loaded = load(self.path, format=format, images=self.source.images, strict=False, require_images=False)
        for problem in loaded.problems:
            self._report(problem)
        if self.note:
            known = f"'instr-resp.{self.source.columns.weight}'"
            self.source.warnings += [warning for warning in loaded.warnings if known not in warning]
        folder = image_folder(self.path, self.source.images)
        weights = self._weights(format, [query.question for query in loaded.queries])
        for row, query in enumerate(loaded.queries):
            self._bounded(row, "question", query.question)
            self._bounded(row, "answer", query.reference)
            image = str(query.image.relative_to(folder)) if query.image else None
            label = query.harmful if format == "vlguard" else None
            width, height = self._size(query.image)
            yield {
                "file": self.number, "row": row, "id": query.id, "question": query.question, "label": label,
                "answer": query.reference, "image": image, "width": width, "height": height, "weight": weights[row],
            }  # fmt: skip

    def _weights(self, format: str, questions: list[str]) -> list[float | None]:
        """The weights that stand beside the questions in the file."""
        name = self.source.columns.weight
        if name is None:
            return [None] * len(questions)
        rows = reading.json_rows(self.path)
        places = places_of(format, rows, questions)
        return [self._weight(row, holder(rows[row], place).get(name)) for row, place in places]

    def _weight(self, row: int, value: Any) -> float | None:
        """A weight; None where there is none, UserError where it is no number of 0 or more."""
        text = (_text(value) or "").strip()
        if not text:
            return None
        try:
            weight = float(text)
        except ValueError:
            weight = math.nan
        if not 0 <= weight < math.inf or isinstance(value, bool):
            raise UserError(
                f"{self.path}, row {row} (counting from 0), field {self.source.columns.weight!r}: {text[:60]!r} is no "
                "weight; write a number of 0 or more."
            )
        return weight

    def _table(self) -> Iterator[dict[str, Any]]:
        columns = self.source.columns
        if columns.question is None:
            raise UserError(f"{self.path} is a table; name the column of its questions with {columns.prefix}question.")
        label_of = self._labeller(columns)
        for row, raw in enumerate(reading.rows_of(self.path, self.source.encoding)):
            if isinstance(raw, Fault):
                self._report(Problem(self.path, row, "row", "bad-row", raw.what, raw.fix))
                continue
            if row == 0:
                self._check_columns(raw)
            question = self._question(row, raw.get(columns.question))
            if question is None:
                continue
            image, width, height = self._image(row, raw.get(columns.image)) if columns.image else (None, None, None)
            yield {
                "file": self.number, "row": row, "id": _text(raw.get(columns.id)) if columns.id else None,
                "question": question, "label": label_of(row, raw),
                "answer": self._answer(row, raw),
                "image": image, "width": width, "height": height,
                "weight": self._weight(row, raw.get(columns.weight)) if columns.weight else None,
            }  # fmt: skip

    def _check_columns(self, raw: dict[str, Any]) -> None:
        """Names that the first row lacks; JSON rows may leave out what is null, but hardly in the first."""
        columns = self.source.columns
        named = {"question": columns.question, "answer": columns.answer, "label": columns.label}
        for option, name in (named | {"image": columns.image, "id": columns.id, "weight": columns.weight}).items():
            if name is not None and name not in raw:
                there = ", ".join(map(repr, list(raw)[:30]))
                raise UserError(
                    f"{self.path} has no column {name!r} ({columns.prefix}{option}); its columns are {there}."
                )

    def _labeller(self, columns: Columns) -> Callable[[int, dict[str, Any]], bool | None]:
        if columns.label is None:
            return lambda _row, _raw: None
        name, chosen = columns.label, {_label(value) for value in columns.refusal}
        seen = self.source.seen_labels

        def _label_of(row: int, raw: dict[str, Any]) -> bool | None:
            text = _label(raw.get(name))
            if not text:
                return None  # what that means depends on where labels are taken from, see `data`
            if chosen:
                if text not in seen and len(seen) < MOST_LABELS:
                    seen[text] = None
                return text in chosen
            if text not in REFUSAL_VALUES | COMPLIANCE_VALUES:
                raise UserError(
                    f"{self.path}, row {row} (counting from 0), field {name!r}: {text[:60]!r} is not known as a label; "
                    f"say with {columns.prefix}refusal VALUE which values mean refusal (it may be repeated)."
                )
            return text in REFUSAL_VALUES

        return _label_of

    def _question(self, row: int, value: Any) -> str | None:
        name = self.source.columns.question or ""
        if isinstance(value, (dict, list)):
            what = f"the question is {kind_of(value)}, not text"
            self._report(Problem(self.path, row, name, "question-not-text", what, "name a column of text"))
            return None
        text = (self._bounded(row, name, _text(value)) or "").replace("<image>", "").strip()
        fix = "write the question or delete the row"
        if not text:
            self._report(Problem(self.path, row, name, "empty-question", "the question is empty", fix))
            return None
        if text.lower().rstrip(".") in PLACEHOLDERS:
            what = f"the question is only the placeholder {text!r}"
            self._report(Problem(self.path, row, name, "placeholder-question", what, fix))
            return None
        return text

    def _answer(self, row: int, raw: dict[str, Any]) -> str | None:
        name = self.source.columns.answer
        return None if name is None else self._bounded(row, name, _text(raw.get(name)))

    def _bounded(self, row: int, name: str, text: str | None) -> str | None:
        """The text itself; UserError where it is so long that to split it into words would take all memory."""
        if text is not None and len(text) > reading.LONGEST:
            raise UserError(
                f"{self.path}, row {row} (counting from 0), field {name!r} has {len(text)} characters, so it is no "
                "question or answer; correct the row or delete it."
            )
        return text

    def _image(self, row: int, value: Any) -> tuple[str | None, int | None, int | None]:
        """Name of the image with its size; a missing one is reported and keeps its row, which still has its words."""
        value = value[0] if isinstance(value, list) and value else value
        if isinstance(value, dict):
            return _embedded(value)
        name = _text(value)
        if not name:
            return None, None, None
        if name not in self.pictures:
            folder = image_folder(self.path, self.source.images)
            fault = image_fault(folder, name, verify=False)
            size = self._size(folder / name) if fault is None else (None, None)
            self.pictures[name] = (*size, "" if fault is None else "|".join(fault))
        width, height, fault_text = self.pictures[name]
        if fault_text:
            kind, what, fix = fault_text.split("|", 2)
            field_name = self.source.columns.image or "image"
            self._report(Problem(self.path, row, field_name, kind, what, fix, skipped=False))
        return name, width, height

    def _size(self, image: Path | None) -> tuple[int | None, int | None]:
        key = str(image)
        if image is None or len(self.pictures) >= MOST_PICTURES:
            return None, None
        if key not in self.pictures:
            self.pictures[key] = (*_size_of(image), "")
        return self.pictures[key][:2]

    def _report(self, problem: Problem) -> None:
        if self.note:
            self.source.report(problem)


def _first_row(head: bytes) -> dict[str, Any] | None:
    """The first row of JSON (a list or an object of rows) that begins so; None where it ends later or is no object."""
    text = head.decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    start = text.find("{", 0 if text.startswith("[") else 1)
    try:
        row = json.JSONDecoder().raw_decode(text, start)[0] if start >= 0 else None
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _framed(rows: Iterable[dict[str, Any]]) -> Iterator[pl.DataFrame]:
    """Frames of at most so many rows and characters, so that the work on each fits into memory."""
    held: list[tuple[Any, ...]] = []
    characters = 0
    for row in rows:
        held.append(tuple(row.values()))
        characters += len(row["question"])
        if len(held) >= CHUNK_ROWS or characters >= CHUNK_CHARACTERS:
            yield _frame(held)
            held, characters = [], 0
    if held:
        yield _frame(held)


def _frame(held: list[tuple[Any, ...]]) -> pl.DataFrame:
    return pl.DataFrame(held, schema=SCHEMA, orient="row")


def _label(value: Any) -> str:
    """A label as it is compared: without case, and a whole number is the same number however it is written."""
    text = (_text(value) or "").strip().lower()
    return text[:-2] if _WHOLE.fullmatch(text) else text


def _text(value: Any) -> str | None:
    """A field as text: what Unicode has no letter for (half of a pair) becomes a question mark."""
    if value is None or isinstance(value, str):
        return None if value is None else value.encode("utf-8", "replace").decode("utf-8")
    return str(value)


def _embedded(value: dict[str, Any]) -> tuple[str | None, int | None, int | None]:
    """An image that lies in the table itself, as Hugging Face data sets keep them: named by its content."""
    data = value.get("bytes")
    if not data:
        return _text(value.get("path")), None, None
    return "sha256:" + hashlib.sha256(data).hexdigest()[:32], *_size_of(io.BytesIO(data))


def _size_of(image: Path | io.BytesIO) -> tuple[int | None, int | None]:
    from PIL import Image

    try:
        with Image.open(image) as opened:
            return opened.size
    except Exception:  # Pillow's plugins raise whatever their parsers run into; an image that is none has no size
        return None, None
