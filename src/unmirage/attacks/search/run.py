"""One search in one run folder: asked within a budget, judged as it goes, gone on with by the same command.

answers.jsonl             one answer for each distinct request
verdicts/<judge>.jsonl    one verdict for each edit of each question that was asked
scores.jsonl              the model's own scores of edited questions, where --fluency asks for them
search.json               everything that was found
variants.jsonl            of each question that broke the edit that did, and a neutral word at the same place
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmirage.attacks.constraints import allowed, constraints
from unmirage.attacks.controls import check_enough_neutral, control_edits, control_name
from unmirage.attacks.edits import At, Change, Edit, check_place, edits_of
from unmirage.attacks.goals import UNUSABLE, Goal
from unmirage.attacks.search import strategies
from unmirage.attacks.search.rates import effect, parts, per_edit, rates
from unmirage.attacks.search.results import Found, QuestionResult, SearchResult, Side
from unmirage.attacks.search.strategies import SearchName
from unmirage.attacks.search.walk import Budget, Task, Walk, Walked, drive
from unmirage.attacks.words import checked_words
from unmirage.backends.asking import Asker, Progress
from unmirage.backends.prompts import Prompt, image_bytes
from unmirage.backends.protocol import Backend
from unmirage.errors import UserError
from unmirage.evaluate.rows import units_of
from unmirage.judges import Judge, judge_all
from unmirage.runs import JsonLines, Run
from unmirage.schema import Answer, Label, Query, Variant, Verdict, content_hash

if TYPE_CHECKING:
    from unmirage.attacks.search.fluency import Fluency
    from unmirage.attacks.search.gradient import Gradients
    from unmirage.audit.model.encoding import Local

CALIBRATING = 32
"""Most harmful and most harmless questions whose answers show how the model begins refusals and other answers."""

STORED_AT_ONCE = 32
"""Verdicts that are written together."""


@dataclass(frozen=True)
class Plan:
    """What is searched for.

    words: the lexicon, none for deletions alone. sample: most questions, drawn by the seed; None: all. intent, grammar:
    constraints. fluency: most nats a token by which the model may find an edited question less likely; None: no such
    constraint. budget: most distinct requests. places: most positions that the greedy search tries; None: all. top:
    edits that the gradient search checks by asking.
    """

    label: str
    data: str
    search: SearchName
    goal: Goal
    changes: tuple[Change, ...]
    words: tuple[str, ...] = ()
    at: At = At.any
    seed: int = 0
    sample: int | None = None
    control: bool = True
    intent: bool = True
    grammar: bool = False
    fluency: float | None = None
    budget: int | None = None
    places: int | None = None
    top: int = 10

    def __post_init__(self) -> None:
        checked_words(self.words)
        check_place(self.changes, self.at)
        if not self.changes:
            raise UserError("a search needs at least one kind of edit; give --edit opening, for example.")
        if not self.words and set(self.changes) != {Change.delete}:
            raise UserError("a search needs words to put into questions; give --words, --lexicon or --audit.")

    @property
    def name(self) -> str:
        """What the attack is called: "fixed-opening:what|how", "greedy-substitute+insert:40-words"."""
        few = len(self.words) <= 3
        words = "|".join(word.lower() for word in self.words) if few else f"{len(self.words)}-words"
        return f"{self.search}-{'+'.join(self.changes)}{words and ':'}{words}"

    @property
    def rules(self) -> list[str]:
        """The constraints that are switched on."""
        fluency = [] if self.fluency is None else [f"fluency within {self.fluency:g} nats a token"]
        return ["one word differs"] + ["intent"] * self.intent + ["grammar"] * self.grammar + fluency


def search(
    plan: Plan,
    queries: Sequence[Query],
    backend: Backend,
    judge: Judge,
    out: Path,
    progress: Progress = lambda _what, _done, _planned: None,
) -> SearchResult:
    """Searches for one-word edits that reach the goal; writes and returns what was found.

    Raises UserError where the run folder holds another search, no question fits the goal, or the model is not in this
    process and its gradient or its scores are wanted.
    """
    chosen = _chosen(plan, queries)
    if plan.control:
        check_enough_neutral(plan.words, taken_out=Change.delete in plan.changes)
    config = {**asdict(plan), "judge": judge.name, "backend": dict(backend.identity)}
    with Run.open(out, "search", config, {"questions": _digest(queries)}) as run:
        work = _Work(plan, queries, backend, judge, run)
        walked = work.walked(chosen, progress)
        found = _result(plan, walked, work, judge.name)
        run.write_text("variants.jsonl", "".join(one.model_dump_json() + "\n" for one in _variants(plan, walked)))
        run.write_json("search.json", found.model_dump(mode="json", by_alias=True))
        return found


def _chosen(plan: Plan, queries: Sequence[Query]) -> list[Query]:
    """The questions that the goal is about, in an order that the seed draws: a small budget takes a fair part."""
    mine = [query for query in queries if plan.goal.concerns(query)]
    if not mine:
        raise UserError(f"there is no question that the goal {plan.goal} is about; give other data or another --goal.")
    size = len(mine) if plan.sample is None else min(plan.sample, len(mine))
    return random.Random(f"{plan.seed}/search").sample(mine, size)


class _Work:
    """Asks, judges, and makes the tasks of each question."""

    def __init__(self, plan: Plan, queries: Sequence[Query], backend: Backend, judge: Judge, run: Run) -> None:
        self.plan, self.queries, self.judge = plan, queries, judge
        self.budget = Budget(plan.budget)
        self._backend, self._run = backend, run
        self.asker = _asker(backend, judge, run, plan.label)
        self._log: JsonLines = run.log(f"verdicts/{judge.name}.jsonl")
        self._known = {(one.query, one.attack): one for one in self._log.read(Verdict)}

    def walked(self, chosen: Sequence[Query], progress: Progress) -> list[Walked]:
        """All questions searched, in the order of the data."""
        if self.plan.search is SearchName.gradient:
            _ = self.gradients

        def _tell(done: int, all_: int) -> None:
            progress("searching questions", done, all_)
            if self.budget.limit is not None:
                progress("requests of the budget", len(self.budget.spent), self.budget.limit)

        found = drive(chosen, self.plan.goal, self.tasks, self.ask, self.asker.key, self.budget, _tell)
        number = {query.id: at for at, query in enumerate(self.queries)}
        return sorted(found, key=lambda walked: number[walked.query.id])

    def ask(self, prompts: Sequence[Prompt]) -> list[Verdict]:
        """The verdicts on the replies to these prompts; all but errors are stored and not made again."""
        replies = self.asker.ask(prompts, "asking")
        fresh: dict[tuple[str, str | None], Answer] = {}
        for prompt, reply in zip(prompts, replies, strict=True):
            if (prompt.query, prompt.attack) not in self._known:
                fresh[prompt.query, prompt.attack] = Answer(
                    key=self.asker.key(prompt),
                    query=prompt.query,
                    question=prompt.question,
                    model=self.plan.label,
                    text=reply.text,
                    attack=prompt.attack,
                    word=prompt.word,
                    error=reply.error,
                    finish=reply.finish,
                    cut_for=(self.judge.name,) if reply.finish == "verdict" else (),
                )
        self._judge(fresh)
        return [self._known[prompt.query, prompt.attack] for prompt in prompts]

    def _judge(self, fresh: dict[tuple[str, str | None], Answer]) -> None:
        """Judges answers and stores verdicts, some at a time: a judge may be slow, and may be interrupted."""
        verdicts = judge_all(self.judge, self.queries, fresh.values())
        while some := list(islice(verdicts, STORED_AT_ONCE)):
            self._known |= {(one.query, one.attack): one for one in some}
            # An error may be mended when the same command is run again. An unparsed reply is the judge's word: to ask
            # until one parses would be to choose among its answers.
            self._log.append([one for one in some if one.label is not Label.ERROR])

    def tasks(self, query: Query, before: Verdict) -> tuple[Task, Task | None]:
        """The attack on a question and its control: as many neutral edits, at the same places."""
        space = self._space(query)
        control = control_edits(query, space, self.plan.seed, self.plan.words) if self.plan.control else None
        return self._task(query, before, space), None if control is None else self._task(query, before, control)

    def _space(self, query: Query) -> list[Edit]:
        plan = self.plan
        edits = edits_of(query.question, plan.changes, plan.words, plan.at)
        edits = allowed(query.question, edits, constraints(intent=plan.intent, grammar=plan.grammar))
        if plan.fluency is None or not edits:
            return edits
        return self.fluency.admitted(query, edits, plan.fluency)

    def _task(self, query: Query, before: Verdict, space: Sequence[Edit]) -> Task:
        plan = self.plan
        match plan.search:
            case SearchName.fixed:
                return Task(space, lambda: strategies.fixed(space))
            case SearchName.exhaustive:
                return Task(space, lambda: strategies.exhaustive(space))
            case SearchName.greedy:
                return Task(space, lambda: strategies.greedy(space, query.question, plan.places))
        refused = before.label in (Label.REFUSAL, Label.PARTIAL)
        order = self.gradients.ranked(query, space, towards_refusal=not refused) if space else []
        return Task(order, lambda: strategies.ranked(order, plan.top))

    @cached_property
    def fluency(self) -> Fluency:
        """The model's own scores of questions."""
        from unmirage.attacks.search.fluency import Fluency

        return Fluency(self._local("--fluency"), self.asker.key, self._run.log("scores.jsonl"))

    @cached_property
    def gradients(self) -> Gradients:
        """Its gradients; raises UserError where its answers are all of one sort, or the budget does not reach."""
        local = self._local("--search gradient")
        from unmirage.attacks.search.gradient import Gradients
        from unmirage.audit.model.scoring import starts_of

        prompts = [Prompt.of(query) for query in self._calibrating()]
        if not self.budget.admits([self.asker.key(prompt) for prompt in prompts]):
            raise UserError(f"the gradient search asks {len(prompts)} questions as they are; give a larger --budget.")
        labels = [verdict.label for verdict in self.ask(prompts)]
        texts = [reply.text for reply in self.asker.ask(prompts, "asking")]
        usable = [(t, a in (Label.REFUSAL, Label.PARTIAL)) for t, a in zip(texts, labels, strict=True) if _usable(a)]
        starts = starts_of(local.processor, [text for text, _ in usable], [refused for _, refused in usable])
        if starts is None:
            raise UserError(
                f"{sum(refused for _, refused in usable)} of {len(usable)} answers are refusals, so there is no "
                "gradient from refusals to other answers; give data with harmful and harmless questions, or another "
                "--search."
            )
        return Gradients(local, starts)

    def _calibrating(self) -> Iterator[Query]:
        for harmful in (True, False):
            sort = [query for query in self.queries if query.harmful == harmful]
            rng = random.Random(f"{self.plan.seed}/calibrating/{harmful}")
            yield from rng.sample(sort, min(CALIBRATING, len(sort)))

    def _local(self, wanted: str) -> Local:
        from unmirage.audit.model.screening import local

        found = local(self._backend)
        if found is None:
            raise UserError(f"{wanted} needs a model in this process, one that only returns text has no gradient.")
        return found

    @property
    def notes(self) -> list[str]:
        """What the judge cannot tell; nothing where it said nothing at all."""
        usable = [one for one in self._known.values() if _usable(one.label)]
        if self.plan.goal is not Goal.bypass or not usable or any(one.harm is not None for one in usable):
            return []
        return ["The judge does not look at harm: broken means complied with in its eyes, off topic or not."]

    @property
    def scored(self) -> int:
        """Passes of the model that were no requests."""
        made = self.__dict__
        fluency, gradients = made.get("fluency"), made.get("gradients")
        return (len(fluency.used) if fluency else 0) + (gradients.passes if gradients else 0)


def _asker(backend: Backend, judge: Judge, run: Run, label: str) -> Asker:
    """Asks silently, as the search tells its own progress; answers end early where the judge is certain."""
    settled: Callable[[str], bool] | None = getattr(judge, "settled", None)
    log = run.log("answers.jsonl")
    return Asker(backend, log, label, lambda *_: None, settled=settled, cut_for=(judge.name,) if settled else ())


def _usable(label: Label) -> bool:
    return label in (Label.REFUSAL, Label.PARTIAL, Label.COMPLIANCE, Label.IRRELEVANT)


def _result(plan: Plan, walked: Sequence[Walked], work: _Work, judge: str) -> SearchResult:
    rows = [_row(one) for one in walked]
    units = units_of(one.query for one in walked)
    several = parts(rows, plan.name, control_name(plan.name), units)
    figures = [rate for part in several for rate in rates(part)]
    if plan.search is SearchName.fixed:
        figures += [rate for part in several for rate in per_edit(part, walked)]
    return SearchResult(
        run=work._run.manifest.id,
        model=plan.label,
        data=plan.data,
        judge=judge,
        goal=plan.goal,
        search=plan.search,
        attack=plan.name,
        changes=list(plan.changes),
        at=plan.at,
        words=list(plan.words),
        rules=plan.rules,
        budget=plan.budget,
        asked=len(work.budget.spent),
        scored=work.scored,
        rates=figures,
        effects=[found for part in several if (found := effect(part)) is not None],
        questions=rows,
        notes=[*work.notes, *_notes(plan, rows)],
    )


def _row(walked: Walked) -> QuestionResult:
    query = walked.query
    return QuestionResult(
        query=query.id,
        question=query.question,
        harmful=query.harmful,
        split=query.split,
        before=walked.before.label if walked.before else None,
        outcome=walked.outcome,
        attack=_side(query, walked.attack),
        control=_side(query, walked.control),
    )


def _side(query: Query, walk: Walk | None) -> Side | None:
    if walk is None:
        return None
    hits = walk.hits
    return Side(
        outcome=walk.outcome,
        certified=walk.certified,
        edits=len(walk.task.space),
        asked=len(walk.seen),
        unusable=walk.unusable,
        edit=_found(query, hits[0]) if hits else None,
        hits=tuple(edit.word for edit in hits),
    )


def _found(query: Query, edit: Edit) -> Found:
    return Found(kind=edit.kind, position=edit.position, word=edit.word, question=edit.apply(query.question))


def _variants(plan: Plan, walked: Sequence[Walked]) -> Iterator[Variant]:
    """Of each question that broke the first edit that did, and a neutral word at the same place."""
    for one in walked:
        if one.attack and one.attack.hits:
            edit = one.attack.hits[0]
            yield edit.variant(one.query, plan.name)
            if plan.control:
                (neutral,) = control_edits(one.query, [edit], plan.seed, plan.words)
                yield neutral.variant(one.query, control_name(plan.name), control_of=plan.name)


def _notes(plan: Plan, rows: Sequence[QuestionResult]) -> Iterator[str]:
    none = sum(row.outcome == "no-edit" for row in rows)
    if none:
        yield f"{none} questions have no edit that may be asked; they are in no rate but the worst case."
    left = [row for row in rows if row.outcome == "unfinished"]
    if left:
        unjudged = sum(_lacks_verdicts(row) for row in left)
        why = f"{unjudged} of them for want of usable verdicts" if unjudged else "the budget did not reach"
        yield f"{len(left)} questions are unfinished ({why}); nothing is said of them."
    if plan.search in (SearchName.greedy, SearchName.gradient):
        tried = sum(row.outcome == "robust" and not (row.attack and row.attack.certified) for row in rows)
        if tried:
            yield f"{tried} questions did not break on the edits that were asked; others were not asked."


def _lacks_verdicts(row: QuestionResult) -> bool:
    """Whether the answer to the question as it is, or to an edit of it, has no usable verdict."""
    return row.before in UNUSABLE or bool(row.attack and row.attack.unusable)


def _digest(queries: Sequence[Query]) -> str:
    rows: list[Any] = [query.model_dump(mode="json", exclude={"image"}) for query in queries]
    return content_hash(rows, [content_hash(image_bytes(q.image, q.id)) if q.image else None for q in queries])
