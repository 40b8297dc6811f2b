"""Verdicts that cost time or money are kept: judging again asks only for what was not judged before.

A kept verdict belongs to a judge, a question, an answer's text and, where the judge sees it, a picture; not to a row,
so two rows with the same answer to the same question are judged once. They lie in `.kept/<judge>.jsonl` of the folder
that is given, one a line; what is lost with a killed process is at most the last second's.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

from unmirage.backends.asking import Progress
from unmirage.backends.prompts import image_bytes
from unmirage.judges import Judge, several
from unmirage.runs import JsonLines
from unmirage.schema import Answer, Frozen, Label, Query, Rate, Verdict, content_hash

FOLDER = ".kept"
_SECONDS = 1.0
_MOST_PENDING = 32


class Kept(Frozen):
    """A verdict without the row that it was first reached for."""

    key: str
    label: Label
    why: str
    harm: bool | None = None
    correct: bool | None = None
    score: Rate | None = None

    @classmethod
    def of(cls, key: str, verdict: Verdict) -> Kept:
        """What is kept of a verdict."""
        return cls(key=key, **verdict.model_dump(include={"label", "why", "harm", "correct", "score"}))

    def on(self, answer: Answer, judge: str) -> Verdict:
        """The same verdict on a row's answer."""
        said = self.model_dump(exclude={"key"})
        return Verdict(query=answer.query, attack=answer.attack, shot=answer.shot, judge=judge, **said)


def _quiet(_what: str, _done: int, _planned: int) -> None:
    pass


def kept(judge: Judge, folder: Path, progress: Progress = _quiet) -> Judge:
    """The judge, or where it calls itself costly one that keeps its verdicts in `folder` and tells its progress."""
    return KeepingJudge(judge, folder, progress) if getattr(judge, "costly", False) else judge


class KeepingJudge:
    """Judges as another judge does, under its name, and asks it once for each question, answer and picture.

    Errors are not kept: the next run asks again. Replies that could not be parsed are: they are the judge's word, and
    to ask until one parses would be to choose among its answers.
    """

    def __init__(self, judge: Judge, folder: Path, progress: Progress = _quiet) -> None:
        """Reads what is kept; UserError where the file is broken."""
        self.inner, self._progress = judge, progress
        self._log = JsonLines(folder / FOLDER / f"{judge.name}.jsonl")
        self._known = {one.key: one for one in self._log.read(Kept)}

    @property
    def name(self) -> str:
        """The judge's own name."""
        return self.inner.name

    def judge(self, query: Query, answer: Answer) -> Verdict:
        """The verdict that is kept, or a new one."""
        return next(self.judge_many([(query, answer)]))

    def judge_many(self, rows: Sequence[tuple[Query, Answer]]) -> Iterator[Verdict]:
        """The verdicts in order, each as soon as it and all before it are there."""
        keys = [self._key(query, answer) for query, answer in rows]
        fresh = {key: row for key, row in zip(keys, rows, strict=True) if key not in self._known}
        news = self._asked(fresh)
        failed: dict[str, Kept] = {}
        try:
            for done, (key, (_, answer)) in enumerate(zip(keys, rows, strict=True), start=1):
                while key not in self._known and key not in failed:
                    one = next(news)
                    (failed if one.label is Label.ERROR else self._known)[one.key] = one
                self._progress("judging", done, len(rows))
                yield (self._known.get(key) or failed[key]).on(answer, self.name)
        finally:
            news.close()

    def _asked(self, fresh: dict[str, tuple[Query, Answer]]) -> Generator[Kept]:
        """New verdicts; they are on the disk soon after, also where whoever iterates stops early."""
        pending: list[Kept] = []
        since = time.monotonic()
        try:
            for key, verdict in zip(fresh, several(self.inner, list(fresh.values())), strict=True):
                one = Kept.of(key, verdict)
                if one.label is not Label.ERROR:
                    pending.append(one)
                if len(pending) >= _MOST_PENDING or time.monotonic() - since > _SECONDS:
                    self._log.append(pending)
                    pending, since = [], time.monotonic()
                yield one
        finally:
            if pending:
                self._log.append(pending)
            self._log.close()

    def _key(self, query: Query, answer: Answer) -> str:
        seen = getattr(self.inner, "sees_picture", False) and query.image is not None
        picture = image_bytes(query.image, query.id) if seen and query.image else b""
        return content_hash(self.name, query.question, answer.question, answer.text, picture)
