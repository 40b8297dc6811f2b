"""Asks a model, each distinct request once, and keeps every answer in a log from which a later run goes on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from unmirage.backends.prompts import Prompt
from unmirage.backends.protocol import Backend, Reply, Settled
from unmirage.errors import UserError
from unmirage.runs import JsonLines
from unmirage.schema import Answer, content_hash

Progress = Callable[[str, int, int], None]
"""Called with what is being done, what is done of it and what there is to do."""


class Asker:
    """Replies to prompts; those in the log are not asked again, new ones are appended batch by batch.

    A failed request is logged with its error, and asked again by the next run (not by this one). With `every_row` the
    log gets a line for each planned row, else one for each distinct request. With `settled` answers may be cut short
    where the verdicts of the judges `cut_for` are certain; they are stored as such, and not taken for whole ones.
    """

    def __init__(
        self,
        backend: Backend,
        log: JsonLines,
        label: str,
        progress: Progress,
        *,
        every_row: bool = False,
        settled: Settled | None = None,
        cut_for: tuple[str, ...] = (),
    ) -> None:
        """Reads what the log holds already."""
        self.backend, self.label = backend, label
        self._log, self._progress, self._every_row = log, progress, every_row
        self._settled, self._cut_for = settled, cut_for if settled else ()
        there = [answer for answer in log.read(Answer) if answer.error is None]
        self._replies = {answer.key: Reply(answer.text, finish=answer.finish) for answer in there}
        self._rows = {answer.row: answer.key for answer in there if every_row}
        self._keys: dict[tuple[str, Path | None], str] = {}

    def key(self, prompt: Prompt) -> str:
        """Content hash of everything that decides the answer; computed once for each question and picture."""
        asked = (prompt.question, prompt.image)
        if asked not in self._keys:
            own = self.backend.key(prompt)
            self._keys[asked] = content_hash(own, self._cut_for) if self._cut_for else own
        return self._keys[asked]

    def is_known(self, prompt: Prompt) -> bool:
        """Whether the prompt would be answered from the log."""
        return self.key(prompt) in self._replies

    def ask(self, prompts: Sequence[Prompt], what: str) -> list[Reply]:
        """The replies in order; raises UserError where a batch comes back with too few or too many."""
        # A row that is in the log needs no key: to make one may mean to load a model.
        keyed = [(self._rows.get(prompt.row) or self.key(prompt), prompt) for prompt in prompts]
        rows: dict[str, list[Prompt]] = defaultdict(list)
        for key, prompt in keyed:
            rows[key].append(prompt)
        fresh = [key for key in rows if key not in self._replies]
        if self._every_row:
            self._catch_up(keyed)
        # Those with a picture first, and variants of one picture beside one another, so that a backend can share work.
        order = sorted(fresh, key=lambda key: (rows[key][0].image is None, str(rows[key][0].image or "")))
        done = len(keyed) - sum(len(rows[key]) for key in fresh)
        self._progress(what, done, len(keyed))
        start = 0
        for replies in self.backend.answer([rows[key][0] for key in order], self._settled) if order else ():
            self._keep(order[start : start + len(replies)], replies, rows)
            done += sum(len(rows[key]) for key in order[start : start + len(replies)])
            start += len(replies)
            self._progress(what, done, len(keyed))
        if start != len(order):
            raise UserError(f"{self.label} answered {start} of {len(order)} questions; run the same command again.")
        return [self._replies[key] for key, _ in keyed]

    def _catch_up(self, keyed: Sequence[tuple[str, Prompt]]) -> None:
        """Rows whose request is answered already, for another row."""
        late = [(k, p) for k, p in keyed if k in self._replies and p.row not in self._rows]
        self._append([(k, p, self._replies[k]) for k, p in late])

    def _keep(self, keys: Sequence[str], replies: Sequence[Reply], rows: dict[str, list[Prompt]]) -> None:
        if len(keys) != len(replies):
            raise UserError(f"{self.label} gave more answers than there were questions; its batches are not in order.")
        self._replies |= dict(zip(keys, replies, strict=True))
        several = slice(None) if self._every_row else slice(1)
        self._append([(k, p, r) for k, r in zip(keys, replies, strict=True) for p in rows[k][several]])

    def _append(self, found: Sequence[tuple[str, Prompt, Reply]]) -> None:
        if found:
            self._log.append([self._answer(*one) for one in found])
            self._rows |= {prompt.row: key for key, prompt, _ in found if self._every_row}

    def _answer(self, key: str, prompt: Prompt, reply: Reply) -> Answer:
        return Answer(
            key=key,
            query=prompt.query,
            question=prompt.question,
            model=self.label,
            text=reply.text,
            attack=prompt.attack,
            word=prompt.word,
            shot=prompt.shot,
            error=reply.error,
            finish=reply.finish,
            cut_for=self._cut_for if reply.finish == "verdict" else (),
        )
