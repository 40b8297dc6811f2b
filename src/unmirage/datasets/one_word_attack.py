"""The official attack sets on VLGuard's test questions: each reworded so that it opens with "what" or "share".

Layout of `OPTML-Group/VLM-Safety-Unlearn`, `eval/safety_data/test_what_3shot.json` (442 unsafe rows, each id three
times in a row) and `test_share_1shot.json` (556 of the 558 safe rows): VLGuard's rows with the new wording in the place
of the question, and the reference answer of the *old* one. Pictures are those of VLGuard's test set. The wordings are
whole paraphrases, not edits of one word, whatever the name of the attack says.

This format asks them as questions of their own. To set each against its origin, by variant and by any of K, use
`unmirage.attacks.official`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unmirage.datasets import vlguard
from unmirage.datasets.catalog import About, Part
from unmirage.datasets.files import image_folder, read_rows
from unmirage.datasets.loaded import LoadedData
from unmirage.datasets.safety import files_named, first_row, the_file
from unmirage.errors import UserError

ABOUT = About(
    name="one-word-attack",
    title='One-word attack: VLGuard\'s test questions reworded to open with "what" (3 shots) or "share" (1 shot)',
    paper="arXiv 2503.11832",
    page="https://github.com/OPTML-Group/VLM-Safety-Unlearn",
    licence="MIT",
    gated=False,
    rows={"what_3shot": 1326, "share_1shot": 556},
    note="Paraphrases, not edits of one word. 442 unsafe questions in 3 wordings; 556 of 558 safe ones in one "
    "(PrivacyAlert_test_1 and _2 are not among them). Pictures are VLGuard's.",
)


def find(folder: Path) -> list[Part]:
    """The files of the attack, by name and VLGuard's keys."""
    files = files_named(folder, ("", "safety_data", "eval/safety_data"), r"test_\w+_\d+shot\.json")
    return [
        Part("one-word-attack", file.stem.removeprefix("test_"), file)
        for file in files
        if {"id", "image", "safe", "instr-resp"} <= first_row(file).keys()
    ]


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
    """Read every wording as a query; the options are those of `unmirage.datasets.load`.

    The ids of a question's first wording are VLGuard's (`<row id>/unsafe`), those of the next ones
    `<row id>#2/unsafe`, `#3`, ...: what stands before `#` is the cluster, the number less one the shot. An id that
    comes again after others is read likewise and reported, as are ids that do not all come equally often.
    """
    file = the_file(path, find, "one-word-attack")
    rows = read_rows(file)
    reader = _Shots(file, image_folder(file, images), name or file.stem, split, strict, verify_images, require_images)
    queries = [query for number, row in enumerate(rows) for query in reader.queries_of(number, row)]
    if not queries:
        raise UserError(f"{file} has no usable row among {len(rows)}; the first problem is: {reader.problems[0]}")
    reader.pictured.clear()  # one picture for all wordings of a question is how these files are
    warnings = [*reader.warnings(), *_uneven(file, rows)]
    return LoadedData(reader.name, queries, file, reader.problems, warnings, len(rows))


class _Shots(vlguard.RowReader):
    """VLGuard's reader for which an id that follows itself is the next wording of one question."""

    _last = ""

    def _unique_id(self, number: int, row_id: str) -> str:
        before, self._last = self._last, row_id
        if row_id != before:
            return super()._unique_id(number, row_id)
        return self.taken_ids.add(row_id)


def _uneven(file: Path, rows: list[Any]) -> Iterator[str]:
    """A remark where not every question has as many wordings."""
    shots = Counter(str(row["id"]) for row in rows if isinstance(row, dict) and "id" in row)
    usual = Counter(shots.values()).most_common(1)
    odd = [row_id for row_id, count in shots.items() if count != usual[0][0]]
    if odd:
        yield (
            f"{file}: {len(odd)} of {len(shots)} questions do not have {usual[0][0]} wordings as the others, such as "
            f"{odd[0]!r}; any-of-K figures are not of the same K for all."
        )
