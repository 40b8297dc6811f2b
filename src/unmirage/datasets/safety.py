"""What the sets that measure safety share: tables and JSON files of rows, columns that are told of, pictures found."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from unmirage.datasets.catalog import Finder
from unmirage.datasets.files import BROKEN_TEXT, is_whole, kind_of
from unmirage.datasets.questions import Model, Reader
from unmirage.datasets.vlguard import PLACEHOLDERS
from unmirage.errors import UserError
from unmirage.schema import Query
from unmirage.tables import Ragged, headings, records, row_of

HEAD = 1 << 20
"""Bytes of a file that are read to see whose it is; a first row is shorter."""


class Columns(BaseModel):
    """Base of a set's rows: numbers may stand for texts, and a column that nobody knows is kept to be told of.

    Columns that are of no use here take any value, so that they cost no row.
    """

    model_config = ConfigDict(extra="allow", coerce_numbers_to_str=True, populate_by_name=False)

    @classmethod
    def names(cls, *, required: bool = False) -> list[str]:
        """The authors' names of all columns, or only of those that no row can do without."""
        fields = cls.model_fields.items()
        return [known.alias or name for name, known in fields if known.is_required() or not required]


@dataclass
class SafetyReader(Reader):
    """Reads rows that say what is harmful; repeated ids are read under a new name, unknown columns are counted.

    With `one_each` no picture is expected to be asked about twice, and those that are get a remark.
    """

    one_each: bool = False
    _unknown: Counter[str] = field(default_factory=Counter)
    _asked_about: Counter[str] = field(default_factory=Counter)

    def row(self, model: type[Model], number: int, raw: Any, file: Path | None = None, at: str = "") -> Model | None:
        """The row as its model, None where it is not one, which is reported; columns that nobody knows are counted."""
        if isinstance(raw, Ragged):
            what = f"it has {raw.fields} fields, and the header has {raw.columns}"
            self.report(number, at or "row", "ragged-row", what, "quote fields that hold a comma, or correct it", file)
            return None
        row = super().row(model, number, raw, file, at)
        self.count(row.model_extra or () if row is not None else ())
        return row

    def count(self, columns: Iterable[str]) -> None:
        """Take note of columns that nobody knows."""
        self._unknown.update(list(columns))

    def ask(
        self,
        number: int,
        row_id: str,
        question: str,
        image: str | None,
        *,
        harmful: bool,
        where: str = "question",
        at: str = "image",
        **more: Any,
    ) -> None:
        """Keep a query, unless there is nothing to ask or its picture cannot be used; `where` and `at` name columns."""
        if not is_whole(row_id):
            self.report(number, "id", *BROKEN_TEXT)
            return
        # Taken before anything is looked at: the number of a repeated id must not depend on the pictures found.
        unique = self._unique(number, row_id)
        text = self.words(number, where, question)
        if text is None or (image is not None and not self._usable(number, image, at)):
            return
        if image is not None and self.one_each:
            self._asked_about[image] += 1
        picture = None if image is None else self.folder / image
        more = {"data": self.name, "split": self.split, **more}
        self.queries.append(Query(id=unique, question=text, harmful=harmful, image=picture, **more))

    def remark(self) -> None:
        """Add the remarks on all that was read to `warnings`: columns that nobody knows, pictures asked about twice."""
        for key, count in sorted(self._unknown.items()):
            self.warnings.append(f"{self.file}: the column {key!r} is not known and was ignored, in {count} rows.")
        again = [image for image, count in self._asked_about.items() if count > 1]
        if self.one_each and again:
            self.warnings.append(
                f"{self.file}: {len(again)} pictures are asked about by more than one row, such as {again[0]!r}; "
                "rows are told apart by their ids."
            )
        super().remark()

    def _unique(self, number: int, row_id: str) -> str:
        unique = self._ids.add(row_id)
        if unique != row_id:
            what, fix = f"the id {row_id!r} was there before", f"it is read as {unique!r}; give every row its own id"
            self.report(number, "id", "repeated-id", what, fix, skipped=False)
        return unique

    def words(self, number: int, where: str, text: str) -> str | None:
        """The text without the mark of a picture; None where there is none or only a placeholder, which is reported."""
        words, fix = text.replace("<image>", "").strip(), "write the question or delete the row"
        if not words:
            self.report(number, where, "empty-question", "the question is empty", fix)
        elif words.lower().rstrip(".") in PLACEHOLDERS:
            what = f"the question is only the placeholder {words!r}"
            self.report(number, where, "placeholder-question", what, fix)
        else:
            return words
        return None

    def _usable(self, number: int, image: str, at: str = "image") -> bool:
        if image not in self._pictures:
            self._pictures[image] = self._fault(image)
        fault = self._pictures[image]
        if fault is None:
            return True
        kept = fault[0] == "missing-image" and not self.require_images
        self.report(number, at, *fault, skipped=not kept)
        return kept


def read_table(file: Path, model: type[Columns], what: str) -> list[dict[str, str] | Ragged]:
    """The rows of a CSV file with these columns; UserError where it cannot be read, lacks a column or has no row."""
    try:
        # What is half a character passes here, and is then told by its row.
        text = file.read_bytes().removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogatepass")
        lines = list(records(io.StringIO(text, newline="")))
    except FileNotFoundError:
        raise UserError(f"{file} does not exist; give {what}.") from None
    except OSError as error:
        raise UserError(f"Cannot read {file}: {error.strerror}; give {what}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not text in UTF-8 ({error}); fetch it again: {what}.") from error
    except csv.Error as error:
        raise UserError(f"{file} is not CSV ({error}); close every quote, or fetch it again: {what}.") from error
    header, *rest = lines or [[]]
    columns = headings(file, header)
    _check_columns(file, set(columns), model, what)
    rows = [row_of(columns, record) for record in rest]
    if not rows:
        raise UserError(f"{file} has a header and no row; give {what}.")
    return rows


class _Twice(list[tuple[str, Any]]):
    """The members of a JSON object that has a key twice, all of them."""


def _object(members: list[tuple[str, Any]]) -> Any:
    held = dict(members)
    return held if len(held) == len(members) else _Twice(members)


def read_items(file: Path, what: str) -> list[tuple[str, Any]]:
    """The members of a JSON object of rows, keys that are there twice among them; UserError where it is none."""
    try:
        held = json.loads(file.read_text(encoding="utf-8-sig"), object_pairs_hook=_object)
    except FileNotFoundError:
        raise UserError(f"{file} does not exist; give {what}.") from None
    except OSError as error:
        raise UserError(f"Cannot read {file}: {error.strerror}; give {what}.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is not JSON in UTF-8 ({error}); fetch it again: {what}.") from error
    if not isinstance(held, dict | _Twice):
        raise UserError(f"{file} holds {kind_of(held)}, not an object of rows; give {what}.")
    if not held:
        raise UserError(f"{file} holds an empty object; there is nothing to read. Give {what}.")
    return list(held.items()) if isinstance(held, dict) else held


def check_rows(file: Path, rows: Iterable[Any], model: type[Columns], what: str) -> None:
    """UserError where a column that no row can do without is in none of these rows of a JSON file."""
    _check_columns(file, {key for row in rows if isinstance(row, dict) for key in row}, model, what)


def _check_columns(file: Path, present: set[str], model: type[Columns], what: str) -> None:
    missing = [name for name in model.names(required=True) if name not in present]
    if missing:
        has = ", ".join(sorted(present)) or "none"
        raise UserError(
            f"{file} lacks {', '.join(map(repr, missing))}: it has the columns {has}, and {what} has "
            f"{', '.join(model.names())}; check the file and its format."
        )


def picture_folder(file: Path, images: str | Path | None, places: Sequence[str], named: Iterable[str]) -> Path:
    """The folder that is given, or the first of `places`, as seen from the file, that holds one of the `named`.

    Where none does, the first that is there, else the file's own: the rows then tell of missing pictures.
    """
    if images is not None:
        if not Path(images).is_dir():
            raise UserError(f"The image folder {images} does not exist; check the path.")
        return Path(images)
    folders = [_tidy(file.parent / place) for place in places if (file.parent / place).is_dir()]
    first = [name for name in dict.fromkeys(named) if _is_plain(name)][:50]
    holding = (folder for folder in folders if any((folder / name).is_file() for name in first))
    return next(holding, folders[0] if folders else file.parent)


def _is_plain(name: str) -> bool:
    """Whether a name could be a file's; what else is wrong with it is told row by row."""
    return bool(name) and "\0" not in name and len(os.fsencode(name)) < 256


def _tidy(path: Path) -> Path:
    """The path without `..`, unless a link makes that another folder."""
    plain = Path(os.path.normpath(path))
    return plain if plain.exists() and plain.samefile(path) else path


def the_file(path: str | Path, find: Finder, format: str) -> Path:
    """The path itself or, where it is a folder, the one file of this format in it; UserError where that is unclear."""
    path = Path(path)
    if not path.is_dir():
        return path
    found = sorted({part.path for part in find(path) if part.format == format})
    if len(found) == 1:
        return found[0]
    if not found:
        raise UserError(f"{path} is a folder in which there is no file of the format {format!r}; give the data file.")
    raise UserError(f"{path} holds several files of the format {format!r}; give one: {', '.join(map(str, found))}.")


def files_named(folder: Path, places: Sequence[str], pattern: str) -> list[Path]:
    """The files in these places of a folder whose names match the regular expression; case does not matter."""
    matches = re.compile(pattern, re.IGNORECASE).fullmatch
    held = (one for place in places for one in _listed(folder / place) if matches(one.name))
    return [one for one in held if one.is_file()]


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def first_row(file: Path) -> dict[str, Any]:
    """The first row of a JSON list, or of an object of rows, or the header of a CSV file; empty where there is none."""
    try:
        with file.open("rb") as opened:
            text = opened.read(HEAD).decode("utf-8-sig", errors="ignore")
    except OSError:
        return {}
    if file.suffix.lower() == ".csv":
        return _header(text)
    start = text.find("{", text.find("{") + 1 if text.lstrip().startswith("{") else 0)
    try:
        row, _ = json.JSONDecoder().raw_decode(text, start) if start >= 0 else ({}, 0)
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}


def _header(text: str) -> dict[str, Any]:
    """The columns of CSV; empty where it is none, which is told when the file is read."""
    try:
        return {name.strip(): "" for name in next(records(io.StringIO(text, newline="")), [])}
    except csv.Error:
        return {}


def first_named(file: Path, column: str) -> list[str]:
    """The picture that the first row names, by which its folder is found; empty where it names none."""
    name = first_row(file).get(column)
    return [name] if isinstance(name, str) else []


def looks_like(file: Path, model: type[Columns]) -> bool:
    """Whether a file's first row has every column that no row of this model can do without."""
    return set(model.names(required=True)) <= first_row(file).keys()
