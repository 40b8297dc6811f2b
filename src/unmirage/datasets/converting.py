"""One data set written in another format: row by row, whole or not at all, and nothing is lost without a word."""

from __future__ import annotations

import json
import random
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from unmirage.datasets import about, check_training
from unmirage.datasets.catalog import Part
from unmirage.datasets.checking import keep_some
from unmirage.datasets.loaded import Problem
from unmirage.datasets.marks import MARK, marked
from unmirage.datasets.streaming import Opened, open_rows
from unmirage.datasets.writing import IMAGES, STREAMS, SUFFIXES, Pictures, Place
from unmirage.errors import UserError
from unmirage.runs import digest_file, write_json, write_text
from unmirage.schema import Frozen, Query

RECORD = "conversion.json"
TRAINED_ON = ("vlguard", "llava")
"""Formats that are read for training, in which a set that must not be trained on is not written."""
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Wish:
    """What is wanted: the target format, its folder, and which rows.

    `limit` is the most queries that are read, drawn with `seed`; None: all. `image_bytes` puts pictures into a Parquet
    file instead of beside it.
    """

    to: str
    out: Path
    limit: int | None = None
    seed: int = 0
    image_bytes: bool = True
    strict: bool = False


class Conversion(Frozen):
    """What was read and written.

    `skipped` counts problems of the source by kind, `left_out` queries that the target cannot hold, and `dropped` what
    it cannot hold of queries that are written. `split` is that of all of them, where they have one.
    """

    source: str
    digest: str | None
    format: str
    split: str | None
    set: str | None
    licence: str | None
    training: bool
    to: str
    file: str
    read: int
    chosen: int
    seed: int | None
    questions: int
    rows: int
    pictures: int
    skipped: dict[str, int]
    left_out: dict[str, int]
    dropped: dict[str, int]
    warnings: tuple[str, ...]


def convert(source: Part, wish: Wish, progress: Progress = lambda _what, _done, _planned: None) -> Conversion:
    """Writes a part of a data set into the folder `wish.out`, which comes to be when all is written.

    The folder has the data file, pictures in `images/`, `README.md` (a card for the Hugging Face Hub) and
    `conversion.json`. Raises UserError where the folder is not empty, where the authors forbid training and the target
    is read for training, and where nothing is left to write.
    """
    _check_out(wish.out)
    _check_terms(source, wish.to)
    temporary = wish.out.absolute().parent / f".{wish.out.name}.{secrets.token_hex(4)}.tmp"
    temporary.mkdir(parents=True)
    try:
        done = _write(source, wish, temporary, progress)
        _check_out(wish.out)
        temporary.rename(wish.out.absolute())
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return done


def _check_out(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; give a new folder.")
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"--out {out} is not empty, and what is there stays; give a new folder.")


def _check_terms(source: Part, to: str) -> None:
    if to not in TRAINED_ON:
        return
    try:
        check_training(source.format, source.path)
    except UserError as error:
        raise UserError(
            f"{to} is a format that is trained on; convert to parquet or jsonl, where every row says "
            f'"{MARK}": false. {error}'
        ) from error


@dataclass
class _Source:
    """The queries of a source as they are read; what is wrong with it is counted on the way."""

    opened: Opened
    progress: Progress
    read: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    def queries(self) -> Iterator[Query]:
        """The rows; what is skipped is counted by kind, and progress is told."""
        for item in self.opened.items:
            if isinstance(item, Problem):
                self.skipped[item.kind] += item.skipped
                continue
            self.read += 1
            if self.read % 1000 == 0:
                self.progress("rows read", self.read, self.read)
            yield item

    def drawn(self, size: int, seed: int) -> Iterator[Query]:
        """An even sample in the order of the file."""
        kept: list[tuple[int, Query]] = []
        chance = random.Random(seed)
        for number, query in enumerate(self.queries()):
            keep_some(kept, number, query, size, chance)
        yield from (query for _, query in sorted(kept, key=lambda one: one[0]))


def _write(part: Part, wish: Wish, folder: Path, progress: Progress) -> Conversion:
    known = about(part.format)
    options = {"images": part.images, "split": part.split or None, "strict": wish.strict}
    source = _Source(open_rows(part.path, part.format, **options), progress)  # type: ignore[arg-type]
    queries = source.queries() if wish.limit is None else source.drawn(wish.limit, wish.seed)
    pictures = Pictures(folder / IMAGES)
    training = (known is None or known.training) and marked(part.path) is None
    marks = {} if training else {MARK: False}
    embedded = wish.to == "parquet" and wish.image_bytes
    place = Place(folder / f"data{SUFFIXES[wish.to]}", pictures, marks, embedded, part.split or None)
    done = STREAMS[wish.to](queries, place)
    if not done.questions:
        why = ", ".join(f"{count} {what}" for what, count in done.left_out.items()) or "no row can be used"
        raise UserError(f"{part.path}: nothing can be written as {wish.to}: {why}; choose another target.")
    record = Conversion(
        source=part.path.name,
        digest=digest_file(part.path) if part.path.is_file() else None,
        format=part.format,
        split=part.split or None,
        set=known.title if known else None,
        licence=known.licence if known else None,
        training=training,
        to=wish.to,
        file=place.file.name,
        read=source.read,
        chosen=done.questions + sum(done.left_out.values()),
        seed=None if wish.limit is None else wish.seed,
        pictures=len(pictures.names),
        skipped=dict(+source.skipped),
        warnings=tuple(source.opened.warnings),
        questions=done.questions,
        rows=done.rows,
        left_out=dict(done.left_out),
        dropped=dict(done.dropped),
    )
    write_json(folder / RECORD, record)
    write_text(folder / "README.md", _card(record))
    return record


def _card(record: Conversion) -> str:
    """A card as the Hugging Face Hub has it: its header names the data file, so that nothing else is taken for data."""
    header = f"---\nconfigs:\n- config_name: default\n  data_files: {json.dumps(record.file)}\n---\n"
    terms = "Its authors forbid to train on it." if not record.training else "Its authors' terms hold for this copy."
    origin = f"{record.set} (format `{record.format}`)" if record.set else f"data of the format `{record.format}`"
    lines = [
        f"# {record.source} as {record.to}",
        f"{record.questions:,} questions in {record.rows:,} rows, from {origin}. "
        f"Licence: {record.licence or 'unknown'}. {terms}",
        f"What was left out and dropped on the way is in `{RECORD}`.",
    ]
    return header + "\n" + "\n\n".join(lines) + "\n"
