"""The mark of rows that must not be trained on, which they carry when a set was converted: `"training": false`.

A converted file is no longer known to be its authors' set, so what they forbid is written into every row.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from unmirage.datasets.columnar import columns_of, records_of, shards_in, texts_in
from unmirage.datasets.rows import CHUNK
from unmirage.datasets.textual import is_text
from unmirage.datasets.words import truth
from unmirage.errors import UserError

MARK = "training"


def marked(path: Path) -> tuple[Path, int] | None:
    """File and number (from 0) of the first marked row at a path, a file or a folder of tables; None without one.

    What cannot be read has no mark here: reading it says what is wrong. Large files of text are parsed only where the
    word is in them.
    """
    for file in _tables(path):
        with suppress(UserError):
            if (row := _first(file)) is not None:
                return file, row
    return None


def is_marked(row: object) -> bool:
    """Whether a row says that it must not be trained on."""
    return isinstance(row, dict) and truth(row.get(MARK)) is False


def _tables(path: Path) -> list[Path]:
    with suppress(UserError):
        return [shard.path for shard in shards_in(path) or texts_in(path)]
    return []


def _first(file: Path) -> int | None:
    if is_text(file):
        # Within a text of JSON no quote stands without a backslash, so that this is a key or a whole text.
        word = MARK if file.suffix.lower() == ".csv" else f'"{MARK}"'
        there = _mentions(file, word.encode())
    else:
        there = MARK in columns_of(file)
    if not there:
        return None
    rows = enumerate(records_of(file, [MARK]))
    return next((number for number, row in rows if is_marked(row)), None)


def _mentions(file: Path, word: bytes) -> bool:
    """Whether bytes are anywhere in a file, of which a piece is in memory at a time."""
    kept = len(word) - 1
    with suppress(OSError), file.open("rb") as opened:
        piece = b""
        while read := opened.read(CHUNK):
            piece = piece[-kept:] + read
            if word in piece:
                return True
    return False
