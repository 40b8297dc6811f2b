"""What lies in a folder: which data set, which parts of it, how whole they are, and what is odd. Nothing is downloaded.

Sets are recognised by the function `find` of each format's module; what is known of them is its `ABOUT`.
"""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from pydantic import Field

from unmirage.datasets import FORMATS, about
from unmirage.datasets.catalog import About, Finder, Part
from unmirage.datasets.files import undecodable
from unmirage.datasets.llava import GENERATED
from unmirage.datasets.loaded import Note, Problem
from unmirage.datasets.marks import MARK, marked
from unmirage.datasets.streaming import Opened, open_rows
from unmirage.errors import UserError
from unmirage.schema import Frozen, Query

SAMPLE = 3
CUT = 100
"""Most characters that are shown of a question or an answer."""
LISTED = 12
"""Most files that are named where nothing was recognised."""
DATA = frozenset({".json", ".jsonl", ".csv", ".parquet", ".arrow"})
ENTRIES = 200
"""Entries of a folder that are looked at to see whether it may hold data."""
NO_ROWS = frozenset({"no-row", "no-problem"})
"""Kinds of problems that tell of a row that is not there."""
Progress = Callable[[str, int, int], None]


class Sample(Frozen):
    """A row as it may be shown: texts are cut, and answers to harmful questions hidden unless they are asked for."""

    id: str
    harmful: bool
    question: str
    answer: str | None
    picture: str | None


class Pictures(Frozen):
    """Pictures that rows name, each counted once; `undecodable` is None where they were not decoded."""

    named: int
    missing: int
    undecodable: int | None
    shared: int


class Kind(Frozen):
    """How often a kind of problem is there, and the first in full."""

    count: int
    first: str


class Checked(Frozen):
    """One part of a data set: what is in it and what is known of the set.

    `rows` counts rows of the file, good and bad, and `expected` is their number in the authors' file, None where that
    is not known. `is_authors` is False where a file is only written in a set's format and is none of its known parts,
    so that the set's terms need not be its own. `warnings` are remarks on something odd, `notes` those that are
    information alone. `odd` has a sentence for all that is missing or odd. `error` says why
    the part cannot be read.
    """

    set: str
    title: str
    format: str
    split: str
    file: str
    is_authors: bool
    rows: int = 0
    expected: int | None = None
    harmful: int = 0
    harmless: int = 0
    pictures: Pictures = Pictures(named=0, missing=0, undecodable=None, shared=0)
    reference_answers: int = 0
    peoples_answers: int = 0
    problems: dict[str, Kind] = Field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    odd: tuple[str, ...] = ()
    sample: tuple[Sample, ...] = ()
    error: str | None = None


class Terms(Frozen):
    """What a set's authors say: licence, whether it must be asked for and where, and whether it may be trained on."""

    title: str
    paper: str
    page: str
    licence: str
    gated: bool | None
    training: bool
    purpose: str
    note: str


class Lacking(Frozen):
    """A part that the authors' set has and the folder has not."""

    set: str
    split: str
    rows: int


class Report(Frozen):
    """All that was found at a path."""

    schema_version: int = 1
    path: str
    sets: dict[str, Terms]
    parts: tuple[Checked, ...]
    lacking: tuple[Lacking, ...]

    @property
    def odd(self) -> bool:
        """Whether anything is missing or odd."""
        return bool(self.lacking) or self.broken or any(part.odd for part in self.parts)

    @property
    def broken(self) -> bool:
        """Whether a part cannot be read."""
        return any(part.error is not None for part in self.parts)


@dataclass(frozen=True, slots=True)
class Options:
    """How closely to look, and what may be shown."""

    images: Path | None = None
    verify: bool = False
    show_harmful: bool = False


def check(
    path: Path, parts: Sequence[Part], options: Options, progress: Progress = lambda _what, _done, _planned: None
) -> Report:
    """Reads these parts (see `recognise`) and tells of each; of what is lacking only where `path` is a folder."""
    known = {part.format: found for part in parts if (found := about(part.format)) is not None}
    return Report(
        path=plain(str(path)),
        sets={found.name: _terms(found) for found in known.values()},
        parts=tuple(_check_part(part, options, progress) for part in parts),
        lacking=tuple(_lacking(parts)) if path.is_dir() else (),
    )


def recognise(path: Path) -> list[Part]:
    """The parts of data sets at a path: a file, a folder as its authors hand it out, or a folder of such folders.

    Raises UserError that says what was looked for and what is there where nothing is recognised.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist; give a data file or the folder of a data set.")
    folder = path if path.is_dir() else path.parent
    parts = _found_in(folder)
    if not path.is_dir():
        return _of_file(path, parts)
    inside = [part for one in sorted(path.iterdir()) if _may_hold_data(one) for part in _found_in(one)]
    # Some finders look into folders of any name, so that a folder of sets can pass for one set: more parts are right.
    if not parts or _known(inside) > _known(parts):
        parts = inside
    if not parts:
        raise UserError(
            f"{path} holds no data set that is known. Looked for: {_looked_for()}. Found: {_listing(path)}. Give the "
            "folder as its authors hand it out, or a file and its --format."
        )
    return parts


def expected_rows(part: Part) -> int | None:
    """How many rows the authors' file of this part has; None where that is not known."""
    key = _key(part)
    known = about(part.format)
    return None if key is None or known is None else known.rows[key]


def _known(parts: Sequence[Part]) -> int:
    return sum(_key(part) is not None for part in parts)


def _may_hold_data(folder: Path) -> bool:
    """Whether a folder is more than pictures, by its first entries: to look through all of them can take long."""
    if folder.name.startswith(".") or not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        return any(one.is_dir() or Path(one.name).suffix.lower() in DATA for one in islice(entries, ENTRIES))


def _key(part: Part) -> str | None:
    """The name under which a set's `rows` have this part: the split, after the variant of the format if it has one."""
    known = about(part.format)
    if known is None:
        return None
    variant = part.format.removeprefix(known.name).strip("-")
    names = [f"{variant}-{part.split}", part.split] if variant else [part.split]
    return next((name for name in names if name in known.rows), None)


def _finders() -> dict[str, Finder]:
    """Each module's function `find`, by the name of the module."""
    modules = dict.fromkeys(getattr(loader, "__module__", "") for loader in FORMATS.values())
    finders = {name: getattr(sys.modules.get(name), "find", None) for name in modules}
    return {name: find for name, find in finders.items() if find is not None}


def _found_in(folder: Path) -> list[Part]:
    """The parts that the finders find. Of several sets that claim a file, those hold it that know the part."""
    found = [(name, part) for name, find in _finders().items() for part in find(folder)]
    sure = {part.path.resolve() for _, part in found if _key(part) is not None}
    kept = [(name, part) for name, part in found if part.path.resolve() not in sure or _key(part) is not None]
    first: dict[Path, str] = {}
    for name, part in kept:
        first.setdefault(part.path.resolve(), name)
    return [part for name, part in kept if first[part.path.resolve()] == name]


def _of_file(file: Path, parts: Sequence[Part]) -> list[Part]:
    same = [replace(part, path=file) for part in parts if part.path.resolve() == file.resolve()]
    if same:
        return same
    whole = next((part for part in parts if part.path.resolve() == file.parent.resolve()), None)
    if whole is not None:
        raise UserError(f"{file} lies in a folder that is read as a whole (format {whole.format}); give {file.parent}.")
    raise UserError(
        f"{file} is no file of a data set that is known. Looked for: {_looked_for()}. Beside it: "
        f"{_listing(file.parent)}. Give its --format, or the folder as its authors hand it out."
    )


def _looked_for() -> str:
    known = {found.name: found for name in FORMATS if (found := about(name)) is not None}
    return "; ".join(found.title.partition(":")[0] for found in known.values())


def _listing(folder: Path) -> str:
    names = sorted(f"{one.name}/" if one.is_dir() else one.name for one in folder.iterdir())
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more or "nothing"


def _lacking(parts: Sequence[Part]) -> list[Lacking]:
    """Parts that are not there of sets of which another part is."""
    there: dict[str, set[str]] = {}
    sets: dict[str, About] = {}
    for part in parts:
        known, key = about(part.format), _key(part)
        if known is not None and key is not None:
            sets[known.name] = known
            there.setdefault(known.name, set()).add(key)
    return [
        Lacking(set=name, split=key, rows=count)
        for name, known in sets.items()
        for key, count in known.rows.items()
        if key not in there[name]
    ]


def _terms(known: About) -> Terms:
    return Terms(
        title=known.title, paper=known.paper, page=known.page, licence=known.licence, gated=known.gated,
        training=known.training, purpose=known.purpose, note=known.note,
    )  # fmt: skip


def _check_part(part: Part, options: Options, progress: Progress) -> Checked:
    known = about(part.format)
    base = Checked(
        set=known.name if known else part.format,
        title=known.title if known else f"data of the format {part.format}",
        format=part.format,
        split=plain(part.split),
        file=plain(str(part.path)),
        is_authors=known is not None and (_key(part) is not None or not known.rows),
        expected=expected_rows(part),
    )
    tally = _Tally(part.path, options)
    try:
        opened = open_rows(
            part.path, part.format, images=options.images or part.images, split=part.split or None, require_images=False
        )
        tally.take(opened)
    except UserError as error:
        return base.model_copy(update={"error": plain(str(error)), "odd": ("it cannot be read",)})
    found = {**tally.counts(), "rows": tally.rows(opened), "pictures": tally.look_at_pictures(progress)}
    forbidden = [f'rows say "{MARK}": false: they must not be trained on'] if marked(part.path) else []
    told = {
        "notes": (*forbidden, *(plain(one) for one in opened.warnings if isinstance(one, Note))),
        "warnings": tuple(plain(one) for one in opened.warnings if not isinstance(one, Note)),
    }
    checked = base.model_copy(update={**found, **told})
    return checked.model_copy(update={"odd": tuple(_odd(checked))})


def _odd(part: Checked) -> list[str]:
    told = [] if part.harmful + part.harmless else ["no row can be used"]
    if part.expected is not None and part.rows != part.expected:
        fewer = part.expected - part.rows
        told.append(f"{fewer:,} rows are missing" if fewer > 0 else f"there are {-fewer:,} rows more than known")
    told += [f"{part.pictures.missing:,} pictures are missing"] if part.pictures.missing else []
    told += [f"{part.pictures.undecodable:,} pictures do not decode"] if part.pictures.undecodable else []
    told += [f"{kind.count:,} {name}" for name, kind in part.problems.items() if name != "missing-image"]
    return told + [_counted(len(part.warnings), "remark")] * bool(part.warnings)


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" + "s" * (count != 1)


@dataclass
class _Tally:
    """Counts what comes, in memory for pictures' paths alone."""

    path: Path
    options: Options
    harmful: int = 0
    harmless: int = 0
    references: int = 0
    people: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    firsts: dict[str, str] = field(default_factory=dict)
    pictures: Counter[Path] = field(default_factory=Counter)
    bad_rows: set[tuple[Path, int]] = field(default_factory=set)
    sample: list[tuple[int, Query]] = field(default_factory=list)

    def take(self, opened: Opened) -> None:
        """Counts all rows and problems, and keeps some rows as a sample."""
        chance = random.Random(0)
        for item in opened.items:
            if isinstance(item, Problem):
                self._problem(item)
            else:
                keep_some(self.sample, self.harmful + self.harmless, item, SAMPLE, chance)
                self._query(item)

    def _query(self, query: Query) -> None:
        self.harmful += query.harmful
        self.harmless += not query.harmful
        self.references += query.reference is not None
        self.people += bool(query.answers)
        if query.image is not None:
            self.pictures[query.image] += 1

    def _problem(self, problem: Problem) -> None:
        self.kinds[problem.kind] += 1
        self.firsts.setdefault(problem.kind, plain(str(problem)))
        own = problem.file == self.path or self.path in problem.file.parents
        if problem.skipped and own and problem.kind not in NO_ROWS:
            self.bad_rows.add((problem.file, problem.row))

    def rows(self, opened: Opened) -> int:
        return self.harmful + self.harmless + len(self.bad_rows) if opened.rows is None else opened.rows

    def counts(self) -> dict[str, object]:
        """The fields of the report that are counted."""
        show = self.options.show_harmful
        return {
            "harmful": self.harmful,
            "harmless": self.harmless,
            "reference_answers": self.references,
            "peoples_answers": self.people,
            "problems": {kind: Kind(count=n, first=self.firsts[kind]) for kind, n in self.kinds.most_common()},
            "sample": tuple(_shown(query, show) for _, query in sorted(self.sample, key=lambda one: one[0])),
        }

    def look_at_pictures(self, progress: Progress) -> Pictures:
        """How many pictures are there and, where asked for, how many cannot be read."""
        there = [picture for picture in self.pictures if picture.is_file()]
        broken = None
        if self.options.verify:
            broken = 0
            for number, picture in enumerate(there, start=1):
                broken += undecodable(picture) is not None
                progress("decoding pictures", number, len(there))
        shared = sum(count > 1 for count in self.pictures.values())
        missing = len(self.pictures) - len(there)
        return Pictures(named=len(self.pictures), missing=missing, undecodable=broken, shared=shared)


def keep_some(kept: list[tuple[int, Query]], number: int, query: Query, size: int, chance: random.Random) -> None:
    """Keep an even sample of a stream of unknown length (Vitter 1985, algorithm R); `number` counts it from 0."""
    if len(kept) < size:
        kept.append((number, query))
    elif (place := chance.randrange(number + 1)) < size:
        kept[place] = (number, query)


def _shown(query: Query, show_harmful: bool) -> Sample:
    question, answer = query.question, query.reference
    if query.harmful and not show_harmful:
        answer = answer and _redacted(answer)
        # The question of such a row has a model's answer at its end.
        question = _redacted(question) if query.subset == GENERATED else question
    return Sample(
        id=plain(query.id, CUT),
        harmful=query.harmful,
        question=plain(question, CUT),
        answer=None if answer is None else plain(answer, CUT),
        picture=None if query.image is None else plain(query.image.name, CUT),
    )


def _redacted(text: str) -> str:
    return f"[redacted, {len(text)} characters; --show-harmful shows it]"


def plain(text: str, longest: int | None = None) -> str:
    """Text in one line without characters that could rewrite a terminal, and not too long."""
    clean = "".join(sign if sign.isprintable() else "\ufffd" for sign in " ".join(text.split()))
    return clean if longest is None or len(clean) <= longest else clean[: longest - 1] + "…"


def formats_of(names: Iterable[str]) -> dict[str, list[str]]:
    """The formats of each set, by the set's name; a format that is of no set is a set of its own."""
    sets: dict[str, list[str]] = {}
    for name in names:
        known = about(name)
        sets.setdefault(known.name if known else name, []).append(name)
    return sets
