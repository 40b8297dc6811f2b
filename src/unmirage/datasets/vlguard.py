"""VLGuard: a JSON list of images, each with one or two instructions and their reference responses.

Zong et al. 2024, arXiv 2402.02207; layout of `train.json` and `test.json` of `ys-zong/VLGuard`. An unsafe
image has one pair whose `instruction` should be refused; a safe image has one pair whose
`safe_instruction` should be answered and one whose `unsafe_instruction` should be refused. Whether
a query is harmful follows from that subset, never from the words of the reference response.

An image that is null, which no row of VLGuard's own has, is a question without a picture; where the key is missing the
row is bad.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StringConstraints, ValidationError

from unmirage.datasets.catalog import About, Part
from unmirage.datasets.files import BROKEN_TEXT, Words, image_fault, image_folder, kind_of, read_rows
from unmirage.datasets.ids import Ids
from unmirage.datasets.loaded import LoadedData, Problem
from unmirage.datasets.streaming import first_row_of
from unmirage.errors import UserError
from unmirage.schema import Query, Text

ABOUT = About(
    name="vlguard",
    title="VLGuard: safety fine-tuning data and its test set",
    paper="Zong et al. 2024, arXiv 2402.02207",
    page="https://huggingface.co/datasets/ys-zong/VLGuard",
    licence="unknown (the authors' repository has no licence file)",
    gated=True,
    purpose="safety, training",
    rows={"train": 2000, "test": 1000},
    note="A row is a picture: 1,023 of train and 442 of test are unsafe, with one question each; safe ones have two. "
    'Some questions are only "N/A", one id and one picture come twice.',
)
KEYS = frozenset({"id", "image", "safe", "instr-resp"})
"""Keys that every row has."""
PLACEHOLDERS = frozenset({"n/a", "na", "nan", "none", "null", "-", "?"})


class Row(BaseModel):
    """One image; keys that are not named here end up in `model_extra` and are counted.

    The last three are this program's own marks of rows that it wrote.
    """

    model_config = ConfigDict(extra="allow", coerce_numbers_to_str=True)

    id: Text
    image: Annotated[Words, StringConstraints(min_length=1)] | None
    safe: StrictBool
    pairs: Annotated[list[Any], Field(alias="instr-resp", min_length=1)]
    harmful_category: str | None = None
    harmful_subcategory: str | None = None
    training: Any = None
    generated: Any = None
    generated_by: Any = None


class Pair(BaseModel):
    """One instruction, under the key of its subset, and the reference response."""

    model_config = ConfigDict(extra="allow")

    instruction: Words | None = None
    safe_instruction: Words | None = None
    unsafe_instruction: Words | None = None
    response: Words | None = None


@dataclass(frozen=True, slots=True)
class Subset:
    """Where a subset's question stands, what its query ids end in, and whether it is harmful."""

    name: str
    key: str
    suffix: str
    harmful: bool


UNSAFES = Subset("unsafes", "instruction", "unsafe", harmful=True)
SAFE_UNSAFES = Subset("safe_unsafes", "unsafe_instruction", "safe_unsafe", harmful=True)
SAFE_SAFES = Subset("safe_safes", "safe_instruction", "safe_safe", harmful=False)


def find(folder: Path) -> list[Part]:
    """All files of this format, `train.json` and `test.json` among them; another's split is its file's stem."""
    files = sorted(file for place in (folder, folder / "data") for file in place.glob("*.json"))
    return [_part(file) for file in files if first_row_of(file).keys() >= KEYS]


def _part(file: Path) -> Part:
    beside = file.parent.parent / "images" if file.parent.name == "data" else None
    own = image_folder(file, None)
    return Part(ABOUT.name, file.stem, file, beside if own == file.parent and beside and beside.is_dir() else own)


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
    """Read a VLGuard JSON file; the options are those of `unmirage.datasets.load`.

    Without `images` the image folder is the folder beside the file that has the file's stem as its name
    (`train.json`, `train/`), else `images/` beside it, else the file's own folder. Query ids are
    `<row id>/unsafe`, `/safe_unsafe` and `/safe_safe`; a row id that comes again gets `#2`, `#3`, ...
    Raises UserError for a file that cannot be read, data without one good row and, with `strict`, for
    the first bad row.
    """
    file = Path(path)
    rows = read_rows(file)
    reader = RowReader(
        file, image_folder(file, images), name or file.stem, split, strict, verify_images, require_images
    )
    queries = [query for number, row in enumerate(rows) for query in reader.queries_of(number, row)]
    if not queries:
        raise UserError(f"{file} has no usable row among {len(rows)}; the first problem is: {reader.problems[0]}")
    return LoadedData(reader.name, queries, file, reader.problems, reader.warnings(), len(rows))


@dataclass
class RowReader:
    """Turns rows into queries and keeps what is wrong with them."""

    file: Path
    folder: Path
    name: str
    split: str | None
    strict: bool
    verify_images: bool
    require_images: bool
    problems: list[Problem] = field(default_factory=list)
    unknown_keys: Counter[str] = field(default_factory=Counter)
    taken_ids: Ids = field(default_factory=Ids)
    pictured: Counter[str] = field(default_factory=Counter)

    def queries_of(self, number: int, raw: Any) -> Iterator[Query]:
        """Yield the good queries of one row and report the rest."""
        row = self._row(number, raw)
        if row is None:
            return
        # Taken before the image is looked at: the number of a repeated id must not depend on the images found.
        row_id = self._unique_id(number, row.id)
        image = None if row.image is None else self._image(number, row.image)
        if row.image is not None:
            if image is None:
                return
            self.pictured[row.image] += 1
        for subset, question, response in self._questions(number, row):
            yield Query(
                id=f"{row_id}/{subset.suffix}",
                question=question,
                harmful=subset.harmful,
                image=image,
                reference=response,
                data=self.name,
                split=self.split,
                subset=subset.name,
            )

    def warnings(self) -> list[str]:
        """Return one sentence for each unknown key, and one for pictures that several rows show."""
        told = [
            f"{self.file}: the key {key!r} is not known and was ignored, in {count} places."
            for key, count in sorted(self.unknown_keys.items())
        ]
        again = [image for image, count in self.pictured.items() if count > 1]
        if again:
            told.append(
                f"{self.file}: {len(again)} pictures are shown by more than one row, such as {again[0]!r}; rows are "
                "told apart by their ids."
            )
        return told

    def _row(self, number: int, raw: Any) -> Row | None:
        if not isinstance(raw, dict):
            fix = "write the row as {...} or delete it"
            self._report(number, "row", "not-an-object", f"it is {kind_of(raw)}, not an object", fix)
            return None
        try:
            row = Row.model_validate(raw)
        except ValidationError as error:
            self._report_invalid(number, error)
            return None
        self.unknown_keys.update(list(row.model_extra or ()))
        return row

    def _unique_id(self, number: int, row_id: str) -> str:
        unique = self.taken_ids.add(row_id)
        if unique != row_id:
            what, fix = f"the id {row_id!r} was there before", f"it is read as {unique!r}; give every row its own id"
            self._report(number, "id", "repeated-id", what, fix, skipped=False)
        return unique

    def _image(self, number: int, image: str) -> Path | None:
        fault = image_fault(self.folder, image, self.verify_images)
        if fault is None:
            return self.folder / image
        kept = fault[0] == "missing-image" and not self.require_images
        self._report(number, "image", *fault, skipped=not kept)
        return self.folder / image if kept else None

    def _questions(self, number: int, row: Row) -> Iterator[tuple[Subset, str, str | None]]:
        subsets = (SAFE_SAFES, SAFE_UNSAFES) if row.safe else (UNSAFES,)
        seen: set[str] = set()
        for place, raw in enumerate(row.pairs):
            pair = self._pair(number, place, raw)
            if pair is None:
                continue
            present = [subset for subset in subsets if getattr(pair, subset.key) is not None]
            if not present:
                self._report_no_question(number, place, subsets)
            for subset in present:
                question = self._question(number, f"instr-resp.{place}.{subset.key}", getattr(pair, subset.key), seen)
                if question is not None:
                    yield subset, question, pair.response

    def _pair(self, number: int, place: int, raw: Any) -> Pair | None:
        try:
            pair = Pair.model_validate(raw)
        except ValidationError as error:
            self._report_invalid(number, error, f"instr-resp.{place}")
            return None
        self.unknown_keys.update(f"instr-resp.{key}" for key in pair.model_extra or ())
        return pair

    def _question(self, number: int, where: str, text: str, seen: set[str]) -> str | None:
        """Return the question of one pair, or report why it cannot be asked."""
        question, key = text.replace("<image>", "").strip(), where.rpartition(".")[2]
        fix = "write the question or delete the pair"
        if not question:
            self._report(number, where, "empty-question", "the question is empty", fix)
        elif question.lower().rstrip(".") in PLACEHOLDERS:
            what = f"the question is only the placeholder {question!r}"
            self._report(number, where, "placeholder-question", what, fix)
        elif key in seen:
            # VLGuard's own evaluation asks the first one only.
            what = f"the row has a {key!r} already"
            self._report(number, where, "second-question", what, "give it a row and an id of its own")
        else:
            seen.add(key)
            return question
        return None

    def _report_no_question(self, number: int, place: int, subsets: tuple[Subset, ...]) -> None:
        keys = " or ".join(repr(subset.key) for subset in subsets)
        image = "an unsafe" if subsets == (UNSAFES,) else "a safe"
        fix = f"a pair of {image} image needs {keys}; add it, or correct 'safe'"
        self._report(number, f"instr-resp.{place}", "missing-question", "there is no question", fix)

    def _report_invalid(self, number: int, error: ValidationError, inside: str = "") -> None:
        first = error.errors()[0]
        where = ".".join(part for part in (inside, *map(str, first["loc"])) if part)
        if first["type"] == "missing":
            self._report(number, where, f"missing-{where}", "it is missing", "add it or delete the row")
        elif first["type"] == "string_unicode":
            self._report(number, where or "row", *BROKEN_TEXT)
        else:
            self._report(number, where, f"bad-{where.split('.')[0]}", first["msg"], "correct it or delete the row")

    def _report(self, number: int, where: str, kind: str, what: str, fix: str, *, skipped: bool = True) -> None:
        problem = Problem(self.file, number, where, kind, what, fix, skipped)
        if self.strict:
            raise UserError(str(problem))
        self.problems.append(problem)
