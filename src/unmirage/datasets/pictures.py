"""Pictures that lie inside a table, put into a folder as files: a query names its picture by a path.

Each file is called by the hash of its content, so that equal pictures are one file, a second reading writes nothing,
and several sets may share a folder. A file appears under its name only when it is whole. What a table's rows hold is
noted beside the pictures, so that the next reading passes over the column of pictures altogether.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unmirage.errors import UserError
from unmirage.schema import content_hash

VARIABLE = "UNMIRAGE_PICTURES"
"""The environment variable that names a folder for the pictures of all tables."""
BESIDE = "unmirage-pictures"
"""What the folder beside a table is called where no other is named."""
KINDS = (
    (b"\xff\xd8\xff", ".jpg"),
    (b"\x89PNG", ".png"),
    (b"GIF8", ".gif"),
    (b"BM", ".bmp"),
    (b"II*\0", ".tif"),
    (b"MM\0*", ".tif"),
)
Noted = tuple[str, int] | None
"""The name of a row's picture in the folder and its size in bytes; None where the row has none."""


@dataclass
class PictureFolder:
    """Where the pictures of tables go; counts what was written anew."""

    folder: Path
    written: int = 0
    bytes_written: int = 0
    _seen: dict[str, int] = field(default_factory=dict)

    def put(self, data: bytes) -> str:
        """Write a picture, unless it is there already whole, and return its name in the folder."""
        digest = hashlib.sha256(data).hexdigest()[:32]
        name = f"{digest[:2]}/{digest}{_suffix(data)}"
        if name not in self._seen and _size(self.folder / name) != len(data):
            self._write(name, data)
            self.written += 1
            self.bytes_written += len(data)
        self._seen[name] = len(data)
        return name

    def noted(self, name: str | None) -> Noted:
        """What is noted of a row with this picture."""
        return None if name is None else (name, self._seen[name])

    def note(self, table: Path, column: str, rows: Sequence[Noted]) -> None:
        """Keep which pictures the rows of a table hold, for `recall`."""
        self._write(self._note_of(table, column), json.dumps(rows).encode())

    def recall(self, table: Path, column: str) -> list[Noted] | None:
        """Which pictures the rows of a table hold; None where that is not noted, or one of them is not there whole."""
        try:
            rows: list[Noted] = json.loads((self.folder / self._note_of(table, column)).read_bytes())
            known = dict(row for row in rows if row is not None)
        except (OSError, ValueError, TypeError):
            return None
        if any(_size(self.folder / name) != size for name, size in known.items()):
            return None
        self._seen |= known
        return rows

    def told(self) -> list[str]:
        """A sentence about what was written; empty where nothing was."""
        if not self.written:
            return []
        size = f"{self.bytes_written / (1 << 20):.1f} MiB"
        return [
            f"{self.written} pictures that lie inside the tables were written to {self.folder} ({size}), where later "
            f"runs find them; --images or the variable {VARIABLE} names another folder."
        ]

    def _write(self, name: str, data: bytes) -> None:
        target = self.folder / name
        beside = target.with_name(f"{target.name}.{os.getpid()}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            beside.write_bytes(data)
            os.replace(beside, target)
        except OSError as error:
            beside.unlink(missing_ok=True) if target.parent.is_dir() else None
            raise UserError(
                f"Pictures that lie inside the tables cannot be written to {self.folder} ({error.strerror}); name "
                f"another folder with --images or with the environment variable {VARIABLE}."
            ) from error

    @staticmethod
    def _note_of(table: Path, column: str) -> str:
        """A name that is another one once the table is another."""
        there = table.stat()
        return f"rows/{content_hash(str(table.resolve()), there.st_size, there.st_mtime_ns, column)}.json"


def folder_for(table: Path, images: str | Path | None) -> PictureFolder:
    """The folder that is given, that of the environment variable, or one beside the table."""
    named = images or os.environ.get(VARIABLE)
    if named:
        return PictureFolder(Path(named))
    return PictureFolder((table if table.is_dir() else table.parent) / BESIDE)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _suffix(data: bytes) -> str:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ".webp"
    return next((suffix for start, suffix in KINDS if data.startswith(start)), ".img")
