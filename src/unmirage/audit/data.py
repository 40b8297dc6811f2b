"""The audit of data: one pass over the rows, then the cues, the scores and the defects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl

from unmirage.audit.cues import ALPHA, MIN_N, Cue, Example, cue_table, example_rows, with_examples
from unmirage.audit.defects import LISTED, Fingerprints, Listed, from_problem
from unmirage.audit.evidence import Floats
from unmirage.audit.labels import judged
from unmirage.audit.score import Score, folds_of, opening_score, openings, word_log_odds, words_score
from unmirage.audit.strata import content_mask, strata_of
from unmirage.audit.tally import BY_IMAGE, Bag, Grouping, Presence, Tally
from unmirage.audit.words import Bools, Ints, Vocabulary, leading, split_words
from unmirage.datasets import Problem
from unmirage.errors import UserError
from unmirage.judges import Judge
from unmirage.judges.keywords import vlguard_keywords


class Frames(Protocol):
    """What can be audited: rows as frames, see `table.Source`."""

    @property
    def paths(self) -> Sequence[Path]:
        """The files, in the order of the frames' column `file`."""
        ...

    @property
    def problems(self) -> list[Problem]:
        """The first problems of each kind."""
        ...

    @property
    def defects(self) -> Counter[str]:
        """Number of problems of each kind."""
        ...

    @property
    def warnings(self) -> list[str]:
        """Remarks on a file as a whole."""
        ...

    @property
    def weighted(self) -> bool:
        """Whether rows have weights; a row without one is then left out."""
        ...

    def has_labels(self, file: int) -> bool:
        """Whether the file with this number has labels of its own."""
        ...

    def frames(self) -> Iterator[pl.DataFrame]:
        """Yield all rows, those of one file at a time; may be called again."""
        ...


@dataclass(frozen=True)
class Settings:
    """How to audit.

    labels: `given` (what the data say), `answers` (what the judge says) or `auto`: given in files that have labels.
    target: what a true label is called, and what a false one is; `cue` names the two directions.
    """

    min_n: int = MIN_N
    labels: str = "auto"
    judge: Judge = field(default_factory=vlguard_keywords)
    extra_function_words: frozenset[str] = frozenset()
    target: str = "refusal"
    directions: tuple[str, str] = ("refusal", "compliance")


@dataclass(frozen=True)
class Audit:
    """What an audit found. `n` rows were counted, `k` of them refused; `scores[0]` is the mirage score.

    `base_rate` is k / n or, where rows have weights, the weighted rate; `n_effective` is then Kish's effective sample
    size, else None. `grouped_by` tells what rows of one fold share.
    """

    n: int
    k: int
    base_rate: float
    n_effective: float | None
    grouped_by: str
    target: str
    directions: tuple[str, str]
    files: list[str]
    label_source: str
    scores: list[Score]
    cues: list[Cue]
    cues_tested: int
    defects: dict[str, Listed]
    notes: list[str]
    one_in: int
    min_n: int

    @property
    def mirage_score(self) -> Score:
        """How well the opening word alone predicts refusal."""
        return self.scores[0]

    @property
    def shortcuts(self) -> list[Cue]:
        """Cues without content that move the refusal rate among questions with the same content."""
        return [cue for cue in self.cues if cue.shortcut]

    @property
    def legitimate(self) -> list[Cue]:
        """Content that moves the refusal rate; no pair with a shortcut in it, which may owe it all to that."""
        words = {cue.cue for cue in self.shortcuts if cue.position in ("opening", "anywhere")}
        found = [cue for cue in self.cues if cue.content_word and cue.q < ALPHA]
        return [cue for cue in found if not words & set(cue.cue.split(" "))]

    def record(self) -> dict[str, Any]:
        """The content of `audit.json`."""
        score = self.mirage_score
        return {
            "schema": 1,
            "mirage_score": {"value": score.value, "low": score.low, "high": score.high, "majority": score.majority},
            "target": self.target,
            "files": self.files,
            "rows": self.n,
            "rows_effective": self.n_effective,
            "base_rate": self.base_rate,
            "grouped_by": self.grouped_by,
            "label_source": self.label_source,
            "min_n": self.min_n,
            "scores": [asdict(one) for one in self.scores],
            "scored_one_row_in": self.one_in,
            "cues_tested": self.cues_tested,
            "cues": [cue.record() for cue in self.cues],
            "defects": {kind: asdict(listed) for kind, listed in self.defects.items()},
            "notes": self.notes,
        }


def audit_data(source: Frames, settings: Settings | None = None) -> Audit:
    """Audit all rows of a source.

    Raises UserError where no row has a question and a label, and where all labels are the same.
    """
    settings = settings or Settings()
    tally = Tally(Vocabulary(settings.extra_function_words))
    found = _Found(source, settings)
    for counted, lists in _split(found.take(frame) for frame in source.frames()):
        found.fingerprints.add(counted, tally.add(counted, lists))
    tally.pairs.merge()
    _check_classes(tally, source, settings)
    bag = Bag.joined(tally.sample.parts)
    tally.sample.parts.clear()  # the same rows once more
    content = content_words(tally.vocabulary, bag)
    words = Presence.of(bag.tokens, content)
    strata, odds = strata_of(bag, words, content)
    cues, tested = cue_table(tally, bag, words, strata, settings.min_n, settings.directions)
    shown = _with_examples(cues, tally, bag, words, source)
    return Audit(
        n=tally.n,
        k=tally.k,
        base_rate=tally.base_rate,
        n_effective=tally.n_effective,
        grouped_by=bag.grouping.by,
        target=settings.target,
        directions=settings.directions,
        files=[path.name for path in source.paths],
        label_source=found.label_source,
        scores=scores_of(tally.vocabulary, bag, words, odds),
        cues=shown,
        cues_tested=tested,
        defects=found.defects(),
        notes=[*source.warnings, *_notes(tally, bag.grouping, tested - len(shown))],
        one_in=tally.sample.one_in,
        min_n=settings.min_n,
    )


def _split(frames: Iterator[pl.DataFrame]) -> Iterator[tuple[pl.DataFrame, pl.Series]]:
    """Each frame that has rows, with its questions split; the next frame is split while the last one is counted."""
    with ThreadPoolExecutor(1) as pool:
        waiting: tuple[pl.DataFrame, Future[pl.Series]] | None = None
        for frame in frames:
            coming = (frame, pool.submit(split_words, frame["question"])) if len(frame) else None
            if waiting is not None:
                yield waiting[0], waiting[1].result()
            waiting = coming
        if waiting is not None:
            yield waiting[0], waiting[1].result()


def labelled(source: Frames, settings: Settings) -> pl.DataFrame:
    """All rows that an audit counts, with their labels, as one frame."""
    found = _Found(source, settings)
    return pl.concat([found.take(frame) for frame in source.frames()])


def content_words(vocabulary: Vocabulary, bag: Bag) -> Bools:
    """Of each word of the bag whether it is content."""
    plain = vocabulary.heads()
    function = np.array([kind != "content" for kind in vocabulary.kinds(leading=False)], dtype=np.bool_)
    if not len(bag.tokens.codes):
        return np.zeros(0, dtype=np.bool_)
    return content_mask(bag.tokens, leading(bag.tokens, plain), function)


def scores_of(vocabulary: Vocabulary, bag: Bag, words: Presence, content_odds: Floats) -> list[Score]:
    """The mirage score first, then what longer openings, all words, and each sort of words can do."""
    folds = folds_of(bag.groups)
    plain_odds = word_log_odds(words, ~words.content, bag.labels, folds, bag.weights)
    all_odds = word_log_odds(words, np.ones(len(words.rows), dtype=np.bool_), bag.labels, folds, bag.weights)
    first, three = openings(bag.tokens, 1), openings(bag.tokens, 3)
    plain = _plain_openings(vocabulary, first[0])

    _ = bag.clusters  # once for all, before two threads ask for it
    with ThreadPoolExecutor(2) as pool:
        scores = [
            pool.submit(opening_score, "opening word", first, bag),
            pool.submit(opening_score, "opening word, if it is no content word", [plain], bag),
            pool.submit(opening_score, "opening three words", three, bag),
            pool.submit(words_score, "function and instruction words", plain_odds, bag),
            pool.submit(words_score, "content words (legitimate)", content_odds, bag),
            pool.submit(words_score, "all words", all_odds, bag),
        ]
        return [score.result() for score in scores]


def _plain_openings(vocabulary: Vocabulary, first: Ints) -> Ints:
    """The opening words with all content words taken as one."""
    content = np.array([kind == "content" for kind in [*vocabulary.kinds(leading=True), "content"]])
    return np.where(content[first], -1, first)


def _check_classes(tally: Tally, source: Frames, settings: Settings) -> None:
    names = ", ".join(str(path) for path in source.paths)
    if tally.n == 0:
        raise UserError(
            f"{names}: no row has both a question and a label; name the column of the labels with --label, or that of "
            "the answers with --answer (and --labels-from answers, where there is a column of labels too)."
        )
    if tally.k in (0, tally.n):
        which = settings.directions[0 if tally.k else 1]
        raise UserError(
            f"{names}: all {tally.n} rows have the label {which!r}, so nothing can tell labels apart; give data with "
            "both, or compare with another file by --against."
        )


def _with_examples(cues: list[Cue], tally: Tally, bag: Bag, words: Presence, source: Frames) -> list[Cue]:
    chosen = example_rows(tally, bag, words, cues)
    wanted = np.unique([row for rows in chosen for row in rows]).astype(np.int64)
    texts = _texts(source, bag, wanted)
    return [
        with_examples(cue, [Example(texts[row][0], bool(bag.labels[row]), texts[row][1]) for row in rows])
        for cue, rows in zip(cues, chosen, strict=True)
    ]


def _texts(source: Frames, bag: Bag, wanted: Ints) -> dict[int, tuple[str, str | None]]:
    """Question and id of some rows of the bag, found by file and row."""
    row_of = {(int(bag.files[row]), int(bag.rows[row])): int(row) for row in wanted}
    places = pl.DataFrame(
        list(row_of), schema={"file": pl.Int32, "row": pl.Int64}, orient="row"
    )  # fmt: skip
    found: dict[int, tuple[str, str | None]] = {}
    for frame in source.frames():
        for file, row, question, name in (
            frame.join(places, on=["file", "row"], how="semi").select("file", "row", "question", "id").iter_rows()
        ):
            found[row_of[file, row]] = (question, name)
        if len(found) == len(row_of):
            break
    return found


def _notes(tally: Tally, grouping: Grouping, left_out: int) -> list[str]:
    notes = []
    if grouping.by == BY_IMAGE:
        notes.append(
            f"Folds keep the rows of an image together, not those of a question: images and questions hang together in "
            f"one group of {grouping.largest:.0%} of the rows, which cannot be parted into folds."
        )
    if tally.n_effective is not None:
        notes.append(
            f"Rows have weights: n counts rows, all else is weighted; the {tally.n} rows weigh as much as "
            f"{tally.n_effective:.0f} of equal weight (Kish)."
        )
    if left_out:
        notes.append(f"{left_out} of the cues tested are not listed: those that are least remarkable.")
    if tally.sample.one_in > 1:
        notes.append(f"Scores and tests given content use one row in {tally.sample.one_in}, drawn by hash.")
    if tally.pairs.pruned:
        notes.append("Pairs of words that were rare at first were dropped, as there are too many to count them all.")
    return notes


@dataclass
class _Found:
    """Labels and defects, frame by frame."""

    source: Frames
    settings: Settings
    fingerprints: Fingerprints = field(default_factory=Fingerprints)
    listed: dict[str, Listed] = field(default_factory=dict)
    sources: set[str] = field(default_factory=set)

    @property
    def label_source(self) -> str:
        names = {"given": "the data's own labels", "answers": f"the answers, judged by {self.settings.judge.name}"}
        return " and ".join(names[name] for name in sorted(self.sources, reverse=True))

    def take(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The rows that can be counted, each with its label; the others are counted as defects."""
        given, answers = frame["label"], judged(frame["answer"], self.settings.judge)
        self._contradictions(frame, given, answers)
        which = self._which(frame)
        label = given if which == "given" else answers
        self.sources.add(which)
        self._list("no-label", frame.filter(label.is_null()))
        counted = self._weighted(frame.with_columns(label.alias("label")).filter(label.is_not_null()))
        wordless = counted.filter(~counted["question"].str.contains(r"[\p{L}\p{N}]"))
        self._list("no-word", wordless)
        return counted

    def _which(self, frame: pl.DataFrame) -> str:
        """File by file, not row by row: labels of two sorts would not mean the same."""
        if self.settings.labels != "auto" or not len(frame):
            return "given" if self.settings.labels == "auto" else self.settings.labels
        return "given" if self.source.has_labels(int(frame["file"][0])) else "answers"

    def _weighted(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The rows that weigh anything; all of them where rows have no weights."""
        if not self.source.weighted:
            return frame
        self._list("no-weight", frame.filter(pl.col("weight").is_null()))
        self._list("zero-weight", frame.filter(pl.col("weight") == 0))
        return frame.filter(pl.col("weight") > 0)

    def _contradictions(self, frame: pl.DataFrame, given: pl.Series, answers: pl.Series) -> None:
        if self.settings.target == "refusal":
            self._list("answer-contradicts-label", frame.filter((given != answers).fill_null(False)))

    def _list(self, kind: str, rows: pl.DataFrame) -> None:
        if not len(rows):
            return
        listed = self.listed.setdefault(kind, Listed())
        for entry in rows.head(max(0, LISTED - listed.count)).select("file", "row", "id", "question").to_dicts():
            listed.rows.append(entry | {"file": self.source.paths[entry["file"]].name})
        listed.count += len(rows)

    def defects(self) -> dict[str, Listed]:
        """All defects, the most frequent first."""
        found = dict(self.listed)
        for kind, count in self.source.defects.items():
            entries = [from_problem(p, p.file.name) for p in self.source.problems if p.kind == kind]
            before = found.get(kind, Listed())
            found[kind] = Listed(before.count + count, (before.rows + entries)[:LISTED])
        repeats = self.fingerprints.repeats()
        for kind, places in repeats.items():
            if len(places):
                before = found.get(kind, Listed())
                rows = [self._place(place) for place in places[:LISTED].tolist()]
                found[kind] = Listed(before.count + len(places), (before.rows + rows)[:LISTED])
        return dict(sorted(found.items(), key=lambda item: (-item[1].count, item[0])))

    def _place(self, place: int) -> dict[str, Any]:
        return {"file": self.source.paths[place >> 40].name, "row": place & ((1 << 40) - 1)}
