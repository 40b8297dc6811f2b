"""Data of any format as columns: one frame of questions after the other, and what was wrong with the rows.

A frame has the columns `file`, `row` (from 0 in its file), `id`, `question`, `label` (true = refusal), `answer`,
`image`, `width` and `height`; all but the first two may be null. Frames are read anew for each pass where they would
not fit into memory.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from unmirage.audit import reading
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
}
CACHE_BYTES = 512 << 20
CHUNK_ROWS, CHUNK_CHARACTERS = 16_384, 8 << 20
MOST_PICTURES = 20_000
PLACEHOLDERS = frozenset({"n/a", "na", "nan", "none", "null", "-", "?"})
REFUSAL_VALUES = frozenset(
    {"true", "1", "1.0", "yes", "refusal", "refused", "refuse", "unsafe", "harmful", "reject", "rejected"}
)
COMPLIANCE_VALUES = frozenset(
    {"false", "0", "0.0", "no", "compliance", "complied", "comply", "safe", "harmless", "answer", "answered"}
)


@dataclass(frozen=True)
class Columns:
    """What the columns of a table are called, and which values of the label mean refusal."""

    question: str | None = None
    answer: str | None = None
    label: str | None = None
    image: str | None = None
    id: str | None = None
    refusal: tuple[str, ...] = ()


@dataclass
class Source:
    """One or more files as frames; iterate `frames()` as often as needed.

    `problems` holds the first of each kind of problem, `defects` counts them all; both are complete after the first
    whole pass.
    """

    paths: Sequence[Path]
    columns: Columns = Columns()
    format: str = "auto"
    images: Path | None = None
    encoding: str = "utf-8"
    strict: bool = False
    problems: list[Problem] = field(default_factory=list)
    defects: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)
    _cache: list[pl.DataFrame] = field(default_factory=list)
    _state: str = "unread"

    def frames(self) -> Iterator[pl.DataFrame]:
        """Yield all rows, at most 16,384 at a time."""
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

    def format_of(self, path: Path) -> str:
        """The format of one of the files: what was asked for or, with `auto`, what its beginning shows."""
        if self.format != "auto":
            return self.format
        if path.suffix.lower() == ".json" and path.is_file():
            with path.open("rb") as file:
                head = file.read(1 << 16)
            for key, name in ((b'"instr-resp"', "vlguard"), (b'"conversations"', "llava")):
                if key in head:
                    return name
        return "table"

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
            self.source.warnings += loaded.warnings
        folder = image_folder(self.path, self.source.images)
        for row, query in enumerate(loaded.queries):
            image = str(query.image.relative_to(folder)) if query.image else None
            label = query.harmful if format == "vlguard" else None
            width, height = self._size(query.image)
            yield {
                "file": self.number, "row": row, "id": query.id, "question": query.question, "label": label,
                "answer": query.reference, "image": image, "width": width, "height": height,
            }  # fmt: skip

    def _table(self) -> Iterator[dict[str, Any]]:
        columns = self.source.columns
        if columns.question is None:
            raise UserError(f"{self.path} is a table; name the column of its questions with --question.")
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
                "answer": _text(raw.get(columns.answer)) if columns.answer else None,
                "image": image, "width": width, "height": height,
            }  # fmt: skip

    def _check_columns(self, raw: dict[str, Any]) -> None:
        """Names that the first row lacks; JSON rows may leave out what is null, but hardly in the first."""
        columns = self.source.columns
        named = {"question": columns.question, "answer": columns.answer, "label": columns.label}
        for option, name in (named | {"image": columns.image, "id": columns.id}).items():
            if name is not None and name not in raw:
                there = ", ".join(map(repr, list(raw)[:30]))
                raise UserError(f"{self.path} has no column {name!r} (--{option}); its columns are {there}.")

    def _labeller(self, columns: Columns) -> Callable[[int, dict[str, Any]], bool | None]:
        if columns.label is None:
            return lambda _row, _raw: None
        name, chosen = columns.label, {value.strip().lower() for value in columns.refusal}

        def label_of(row: int, raw: dict[str, Any]) -> bool | None:
            text = (_text(raw.get(name)) or "").strip().lower()
            if not text:
                self._report(Problem(self.path, row, name, "no-label", "there is no label", "add it", skipped=False))
                return None
            if chosen:
                return text in chosen
            if text not in REFUSAL_VALUES | COMPLIANCE_VALUES:
                raise UserError(
                    f"{self.path}, row {row} (counting from 0), field {name!r}: {text[:60]!r} is not known as a label; "
                    "say with --refusal VALUE which values mean refusal (it may be repeated)."
                )
            return text in REFUSAL_VALUES

        return label_of

    def _question(self, row: int, value: Any) -> str | None:
        name = self.source.columns.question or ""
        if isinstance(value, (dict, list)):
            what = f"the question is {kind_of(value)}, not text"
            self._report(Problem(self.path, row, name, "question-not-text", what, "name a column of text"))
            return None
        text = (_text(value) or "").replace("<image>", "").strip()
        fix = "write the question or delete the row"
        if not text:
            self._report(Problem(self.path, row, name, "empty-question", "the question is empty", fix))
            return None
        if text.lower().rstrip(".") in PLACEHOLDERS:
            what = f"the question is only the placeholder {text!r}"
            self._report(Problem(self.path, row, name, "placeholder-question", what, fix))
            return None
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
