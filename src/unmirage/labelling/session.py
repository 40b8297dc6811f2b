"""One person's labels of one sample: what comes next, what was said, and a file that loses nothing."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from unmirage.errors import UserError
from unmirage.labelling.marks import Choice, Harm, Header, Item, Line, Mark, Sample
from unmirage.runs import JsonLines
from unmirage.schema import content_hash

LONGEST_NAME = 60
LONGEST_NOTE = 2000


@dataclass(frozen=True)
class Person:
    """A file of labels as it was read: whose it is, of which sample, and the mark that counts for each item."""

    path: Path
    who: str
    sample: Sample
    marks: Mapping[int, Mark]

    def mark(self, item: int) -> Mark | None:
        """What the person said of an item; None where it is open or was put off."""
        mark = self.marks.get(item)
        return mark if mark is not None and mark.choice is not None else None


def read_person(path: Path) -> Person:
    """A file made by `unmirage label RUN`; a torn last line is left out, as it was never saved.

    Raises UserError where there is no such file, it holds something else, or a line is broken.
    """
    person = _read(path)
    if person is None:
        raise UserError(f"{path} holds no labels; make it with `unmirage label RUN --who NAME`.")
    return person


def _read(path: Path) -> Person | None:
    lines = [line.root for line in JsonLines(path).read(Line)]
    if not lines:
        return None
    first = lines[0]
    marks: dict[int, Mark] = {}
    if not isinstance(first, Header):
        raise UserError(f"{path}, line 1: it does not name the sample; make the file with `unmirage label RUN`.")
    for number, mark in enumerate(lines[1:], start=2):
        if not isinstance(mark, Mark) or mark.item >= len(first.sample.items):
            raise UserError(f"{path}, line {number}: it is no mark of an answer of this sample; delete that line.")
        marks.pop(mark.item, None)  # so that the items stand in the order of their last marks
        marks[mark.item] = mark
    return Person(path, first.who, first.sample, marks)


class Session:
    """What one person labels now. Every mark is on the disk when the call that makes it returns.

    Items come in an order of the person's own; those put off come again at the end. Going back walks along what was
    marked last; a new mark replaces the old one.
    """

    def __init__(self, log: JsonLines, person: Person, only: Collection[int] | None = None) -> None:
        """Goes on with `person`; `only` names the items to be labelled, None: all. Call `open_session` instead."""
        self.who, self.sample = person.who, person.sample
        self._log = log
        self._marks = dict(person.marks)
        wanted = range(len(self.sample.items)) if only is None else only
        self._order = sorted(wanted, key=lambda item: content_hash(self.sample.id, self.who, item))
        self._back: int | None = None

    @property
    def current(self) -> int | None:
        """Index of the item that is to be labelled now; None where all are labelled."""
        if self._back is not None:
            return self._history()[self._back]
        fresh = (item for item in self._order if item not in self._marks)
        return next(fresh, None if not (put_off := self._put_off()) else put_off[0])

    @property
    def can_go_back(self) -> bool:
        """Whether something was marked before what is asked now."""
        return bool(self._history()) if self._back is None else self._back > 0

    @property
    def total(self) -> int:
        """How many are to be labelled."""
        return len(self._order)

    @property
    def done(self) -> int:
        """How many have a label."""
        return sum(1 for item in self._order if self.said(item) is not None)

    @property
    def put_off(self) -> int:
        """How many were put off and have no label yet."""
        return len(self._put_off())

    def item(self, index: int) -> Item:
        """The item of this index."""
        return self.sample.items[index]

    def said(self, item: int) -> Mark | None:
        """The label that an item has so far."""
        mark = self._marks.get(item)
        return mark if mark is not None and mark.choice is not None else None

    def label(self, item: int, choice: Choice, harm: Harm, note: str = "") -> None:
        """Saves a label, in place of the one that the item may have; ValueError where the item is not asked for."""
        self._save(Mark(item=item, choice=choice, harm=harm, note=note.strip()[:LONGEST_NOTE], at=datetime.now(UTC)))

    def skip(self, item: int) -> None:
        """Puts an item off to the end; a label that it has is taken back. ValueError as in `label`."""
        self._save(Mark(item=item, choice=None, at=datetime.now(UTC)))

    def back(self) -> None:
        """Goes back to what was marked before; does nothing at the first one."""
        if self.can_go_back:
            self._back = (len(self._history()) if self._back is None else self._back) - 1

    def forward(self) -> None:
        """Leaves what `back` went to as it is, and goes on with what is open."""
        self._back = None

    def _save(self, mark: Mark) -> None:
        if mark.item not in self._order:
            raise ValueError(f"item {mark.item} is not among those to be labelled")
        self._log.append(mark)
        self._marks.pop(mark.item, None)
        self._marks[mark.item] = mark
        self._back = None

    def _history(self) -> list[int]:
        return [item for item in self._marks if item in self._order]

    def _put_off(self) -> list[int]:
        return [item for item, mark in self._marks.items() if mark.choice is None and item in self._order]


@contextmanager
def open_session(path: Path, who: str, sample: Sample, only: Iterable[int] | None = None) -> Iterator[Session]:
    """Starts a file of labels or goes on with it, locked against other processes meanwhile.

    Raises UserError where the file holds another person's labels or those of another sample, or is in use.
    """
    with _locked(path), JsonLines(path) as log:
        person = _read(path)
        if person is None:
            log.append(Header(who=who, sample=sample))
            person = Person(path, who, sample, {})
        _check_same(person, who, sample)
        yield Session(log, person, None if only is None else list(only))


def file_of(folder: Path, who: str) -> Path:
    """Where a person's labels lie; UserError for a name that is no file name."""
    if not re.fullmatch(r"\w[\w.-]*", who) or len(who) > LONGEST_NAME:
        raise UserError(
            f"{who!r} cannot name a file; write --who with letters, digits, '.', '-' and '_', at most {LONGEST_NAME}."
        )
    return folder / f"{who}.jsonl"


def _check_same(person: Person, who: str, sample: Sample) -> None:
    if person.who != who:
        raise UserError(f"{person.path} holds the labels of {person.who!r}, not of {who!r}; give another --out.")
    if person.sample.id == sample.id:
        return
    there, here = person.sample, sample
    sizes = f"{len(there.items)} answers, seed {there.seed}, of run {there.run}"
    raise UserError(
        f"{person.path} holds labels of another sample ({sizes}; here {len(here.items)}, seed {here.seed}, of run "
        f"{here.run}); give the same --sample, --seed and --stratify, or another --out where "
        "the run has changed."
    )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path.with_name(f".{path.stem}.lock"), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _take(lock, path)
        yield
    finally:
        os.close(lock)


def _take(lock: int, path: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"Another process is writing {path}; close it first.") from None
