"""What the sets that measure usefulness share: JSON files, rows checked one by one, pictures seen once, prompts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from unmirage.datasets.files import BROKEN_TEXT, image_fault, kind_of
from unmirage.datasets.ids import Ids
from unmirage.datasets.loaded import LoadedData, Note, Problem
from unmirage.errors import UserError
from unmirage.schema import Query

SHORT_ANSWER = "Answer the question using a single word or phrase."
"""How LLaVA-1.5 asks for short answers (Liu et al. 2023, arXiv 2310.03744; its docs/Evaluation.md)."""
PEOPLE = 10
"""Answers that VQA accuracy is made from."""
DECODED = 2000
"""Pictures of one set that are decoded before anything is asked; of those after them only the header is read."""

Model = TypeVar("Model", bound=BaseModel)
Fault = tuple[str, str, str]
"""Kind, what is wrong, what to do."""


def read_json(file: Path, kind: type, what: str) -> Any:
    """The content of a JSON file, which must be of this kind; UserError that asks for `what` otherwise.

    Equal short strings are one string in memory: the answers of a large set are few words said many times.
    """
    try:
        data = _parsed(file.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    except FileNotFoundError:
        raise UserError(f"{file} does not exist; give {what}.") from None
    except OSError as error:
        raise UserError(f"Cannot read {file}: {error.strerror}; give {what}.") from error
    except ValueError as error:
        raise UserError(f"{file} is not JSON ({error}); fetch it again: {what}.") from error
    if not isinstance(data, kind):
        raise UserError(f"{file} holds {kind_of(data)}, not {kind_of(kind())}; give {what}.")
    return data


def _parsed(content: bytes) -> Any:
    from pydantic_core import from_json

    try:
        return from_json(content, cache_strings="all")
    except ValueError:
        # It refuses half characters, too, which the standard library lets through: the row that has one is told then.
        with suppress(ValueError, RecursionError):
            return json.loads(content)
        raise


def read_list(file: Path, key: str, what: str) -> tuple[list[Any], dict[str, Any]]:
    """The rows under `key` of a JSON file and what stands beside them; UserError where there are none."""
    whole = read_json(file, dict, what)
    rows = whole.pop(key, None)
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{file} has no list of rows under {key!r}; give {what}.")
    return rows, whole


def image_folder(file: Path, images: str | Path | None, *names: str) -> Path:
    """The folder that is given, or the first of these that lies beside the file, or the file's own."""
    if images is not None:
        if not Path(images).is_dir():
            raise UserError(f"The image folder {images} does not exist; check the path.")
        return Path(images)
    candidates = (file.parent / name for name in names)
    return next((folder for folder in candidates if folder.is_dir()), file.parent)


@dataclass(frozen=True)
class Wording:
    """How a question is put: a text with {question} and the other parts that the set has."""

    text: str
    parts: tuple[str, ...] = ("question",)

    def __post_init__(self) -> None:
        """Raise UserError where a part is missing."""
        for part in self.parts:
            if f"{{{part}}}" not in self.text:
                raise UserError(f"the prompt {self.text!r} has no {{{part}}}; write where it stands.")

    def fill(self, **parts: str) -> str:
        """The wording with its parts; what stands in a part is left as it is."""
        names = "|".join(map(re.escape, self.parts))
        return re.sub(rf"\{{({names})\}}", lambda found: parts[found[1]], self.text)


@dataclass
class Reader:
    """Turns the rows of one set into queries and keeps what is wrong with them."""

    file: Path
    name: str
    folder: Path
    split: str | None
    strict: bool
    verify_images: bool
    require_images: bool
    queries: list[Query] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    _ids: Ids = field(default_factory=Ids)
    _pictures: dict[str, tuple[str, str, str] | None] = field(default_factory=dict)

    def row(self, model: type[Model], number: int, raw: Any, file: Path | None = None, at: str = "") -> Model | None:
        """The row as its model, None where it is not one, which is reported."""
        try:
            return model.model_validate(raw)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(part for part in (at, *map(str, first["loc"])) if part) or "row"
            if first["type"] == "string_unicode":
                self.report(number, where, *BROKEN_TEXT, file)
                return None
            told = {"missing": "it is missing", "model_type": f"it is {kind_of(first['input'])}, not an object"}
            what = told.get(first["type"], first["msg"])
            self.report(number, where, "bad-row", what, "correct it or leave the row out", file)
            return None

    def ten(self, number: int, answers: Sequence[str], file: Path | None = None) -> bool:
        """Whether ten people answered, which is reported where they did not: no other number can be scored."""
        if len(answers) == PEOPLE:
            return True
        what = f"there are {len(answers)} answers, and VQA accuracy is made from {PEOPLE}"
        self.report(number, "answers", "not-ten-answers", what, "fetch the file again", file)
        return False

    def add(self, number: int, row_id: str, question: str, image: str | None, **more: Any) -> None:
        """Keep a query, unless its id was there before or its picture cannot be used."""
        if row_id in self._ids:
            fix = "only the first is read; give every row its own id"
            self.report(number, "id", "repeated-id", f"the id {row_id!r} was there before", fix)
            return
        self._ids.add(row_id)
        if image is not None and not self._usable(number, image):
            return
        picture = None if image is None else self.folder / image
        more |= {"data": self.name, "split": self.split}
        self.queries.append(Query(id=row_id, question=question, harmful=False, image=picture, **more))

    def _usable(self, number: int, image: str) -> bool:
        if image not in self._pictures:
            self._pictures[image] = self._fault(image)
        fault = self._pictures[image]
        if fault is None:
            return True
        kept = fault[0] == "missing-image" and not self.require_images
        self.report(number, "image", *fault, skipped=not kept)
        return kept

    def _misplaced(self, image: str, whole: bool) -> Fault | None:
        """What is wrong with a picture's place and, where its `whole` is looked at, with its content."""
        return image_fault(self.folder, image, whole)

    def _fault(self, image: str) -> Fault | None:
        whole = self.verify_images and len(self._pictures) < DECODED
        fault = self._misplaced(image, whole)
        if fault is None and self.verify_images and not whole and (why := _no_header(self.folder / image)):
            return "undecodable-image", f"{image!r} cannot be opened: {why}", "fetch the image again"
        return fault

    def report(
        self, number: int, where: str, kind: str, what: str, fix: str, file: Path | None = None, *, skipped: bool = True
    ) -> None:
        """Keep a problem; with `strict` it ends the reading."""
        problem = Problem(file or self.file, number, where, kind, what, fix, skipped)
        if self.strict:
            raise UserError(str(problem))
        self.problems.append(problem)

    def loaded(self) -> LoadedData:
        """All that was read; UserError where nothing can be used."""
        if not self.queries:
            first = f"the first problem is: {self.problems[0]}" if self.problems else "there are no rows."
            raise UserError(f"{self.file} has no usable row; {first}")
        self.remark()
        return LoadedData(self.name, self.queries, self.file, self.problems, self.warnings)

    def remark(self) -> None:
        """Add the remarks on all that was read to `warnings`."""
        if self.verify_images and (rest := len(self._pictures) - DECODED) > 0:
            self.warnings.append(
                Note(
                    f"{self.file}: {DECODED} pictures were decoded and of {rest} more only the header was read; "
                    "one that is cut off would stop the run that asks about it."
                )
            )


def _no_header(path: Path) -> str | None:
    """Why a picture cannot be opened, None where it can."""
    from PIL import Image

    try:
        with Image.open(path):
            return None
    except Exception as error:  # Pillow's plugins raise whatever their parsers run into
        return f"{type(error).__name__}: {error}"


def lonely(file: Path, ids: Iterable[str], asked: Set[str], what: str) -> list[str]:
    """A remark on those of a second file's rows that belong to no question; empty where there are none."""
    left = len(set(ids) - asked)
    return [f"{file}: {left} {what} belong to no question that could be read and were left out."] if left else []
