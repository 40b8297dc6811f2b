"""LLaVA instruction data: a JSON list of conversations about at most one image each.

Liu et al. 2023, arXiv 2304.08485; rows `{id, image, conversations: [{from: human | gpt, value}, ...]}`. Only the first
exchange of a conversation is used; later ones are reported. The format has no harm label: all rows are taken as
harmless, as general instruction data are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictStr, ValidationError

from unmirage.datasets.files import image_fault, image_folder, read_rows
from unmirage.datasets.loaded import LoadedData, Problem
from unmirage.errors import UserError
from unmirage.schema import Query, Text


class Turn(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(populate_by_name=True)

    speaker: Literal["human", "gpt"] = Field(alias="from")
    value: StrictStr


class Row(BaseModel):
    """One conversation."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    id: Text
    image: StrictStr | None = None
    conversations: Annotated[list[Turn], Field(min_length=2)]


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
    """Read a LLaVA instruction file; the options are those of `unmirage.datasets.load`."""
    file = Path(path)
    folder = image_folder(file, images)
    queries: list[Query] = []
    problems: list[Problem] = []
    taken: set[str] = set()
    longer = 0
    for number, raw in enumerate(read_rows(file)):
        found = _query(file, number, raw, folder, verify_images, require_images)
        if isinstance(found, Problem):
            if strict:
                raise UserError(str(found))
            problems.append(found)
            continue
        if not require_images and found.image is not None and (fault := image_fault(folder, raw["image"], False)):
            problems.append(Problem(file, number, "image", *fault, skipped=False))
        longer += len(raw["conversations"]) > 2
        update = {"id": _unique(found.id, taken), "data": name or file.stem, "split": split}
        queries.append(found.model_copy(update=update))
    if not queries:
        raise UserError(f"{file} has no usable row; the first problem is: {problems[0]}")
    warnings = [f"{file}: only the first exchange of {longer} longer conversations is read."] if longer else []
    return LoadedData(name or file.stem, queries, file, problems, warnings)


def _unique(row_id: str, taken: set[str]) -> str:
    """The id itself or, where it was there before, with the first free number."""
    unique, again = row_id, 1
    while unique in taken:
        again += 1
        unique = f"{row_id}#{again}"
    taken.add(unique)
    return unique


def _query(file: Path, number: int, raw: Any, folder: Path, verify: bool, require: bool) -> Query | Problem:
    def problem(where: str, kind: str, what: str, fix: str) -> Problem:
        return Problem(file, number, where, kind, what, fix)

    try:
        row = Row.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "row"
        return problem(where, "bad-row", first["msg"], "correct it or delete the row")
    fault = image_fault(folder, row.image, verify) if row.image is not None else None
    if fault and (require or fault[0] != "missing-image"):
        return problem("image", *fault)
    if [turn.speaker for turn in row.conversations[:2]] != ["human", "gpt"]:
        fix = "put the question, from 'human', before its answer, from 'gpt'"
        return problem("conversations", "bad-row", "it does not begin with a question and its answer", fix)
    question = row.conversations[0].value.replace("<image>", "").strip()
    if not question:
        return problem("conversations.0.value", "empty-question", "the question is empty", "write it or delete the row")
    return Query(
        id=row.id,
        question=question,
        harmful=False,
        image=folder / row.image if row.image else None,
        reference=row.conversations[1].value.strip(),
    )
