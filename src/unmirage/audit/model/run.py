"""One audit of a model in one run folder: asked once, scored where that is as good, measured from what was answered.

answers.jsonl       one answer for each distinct request, appended batch by batch
scores.jsonl        one score for each request that was scored
occlusions/         pictures with a part greyed, as they were asked about
audit_model.json    everything that was found
audit_model.html    the same as a page
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from unmirage.audit.model import candidates as words
from unmirage.audit.model.edits import POSITIONS, Candidate, Edit, Position, bare
from unmirage.audit.model.findings import Findings, Table
from unmirage.audit.model.page import write_page
from unmirage.audit.model.results import ModelAudit
from unmirage.audit.model.screening import Screening
from unmirage.audit.model.sidebyside import Words, notable, side_by_side
from unmirage.backends.asking import Asker, Progress
from unmirage.backends.protocol import Backend
from unmirage.errors import UserError
from unmirage.judges import Judge
from unmirage.runs import Run
from unmirage.schema import Query, content_hash

SOURCES = ("lexicon", "data", "gradient")


@dataclass(frozen=True, slots=True)
class Plan:
    """What an audit tries.

    sources: where words come from besides `given`: lexicon, data, gradient. sample: most harmful and most harmless
    questions. controls: neutral and random control words at each place, of each sort. top: words that are generated in
    full after the score has ranked them, besides those that are given or in the data. cells: edited questions whose
    real answers calibrate the score. attribute: refusals that are taken apart. score False: generate everything.
    """

    label: str
    data: str
    sources: tuple[str, ...] = ("lexicon",)
    given: tuple[str, ...] = ()
    positions: tuple[Position, ...] = POSITIONS
    sample: int = 100
    seed: int = 0
    controls: int = 4
    top: int = 16
    from_source: int = 20
    cells: int = 400
    attribute: int = 4
    score: bool = True

    def __post_init__(self) -> None:
        unknown = [source for source in self.sources if source not in SOURCES]
        if unknown:
            raise UserError(f"words come from {', '.join(SOURCES)}, not from {unknown[0]!r}.")
        if min(self.sample, self.controls) < 1:
            raise UserError("an audit needs at least one question of a sort and one control word of a sort.")


@dataclass
class _Audit:
    """One audit at work."""

    plan: Plan
    table: Table
    held: Words
    notes: list[str] = field(default_factory=list)

    def candidates(self) -> list[Candidate]:
        """All words but those that the gradient will name."""
        plan = self.plan
        found = [words.given(plan.given, plan.positions)]
        if "data" in plan.sources:
            first, inner = notable(self.held, plan.from_source)
            found.append(words.openers(first, plan.positions, "data"))
            found.append(words.insertions(inner, plan.positions, "data"))
        if "lexicon" in plan.sources:
            found.append(words.lexicon(plan.positions))
        return words.merged(*found)


def audit_model(
    plan: Plan,
    queries: Sequence[Query],
    backend: Backend,
    judge: Judge,
    out: Path,
    *,
    held: Words | None = None,
    show_harmful: bool = False,
    progress: Progress = lambda _what, _done, _planned: None,
) -> ModelAudit:
    """Finds the words that move a model's refusals; writes and returns what it found.

    `held` are the words of the data that the model learnt from, where they are known. A backend without a model in this
    process is only asked. Raises UserError where the run folder holds another audit, and where there is nothing to ask.
    """
    held = held or {}
    if "data" in plan.sources and not held:
        raise UserError("words from data need the data: give --data, or leave out --candidates data.")
    asked, notes = sampled(plan, queries)
    config = {**asdict(plan), "judge": judge.name, "backend": dict(backend.identity)}
    inputs = {"questions": _digest(asked), "data": content_hash(sorted(map(str, held.items())))}
    with Run.open(out, "audit model", config, inputs) as run:
        known = {"model": plan.label, "data": plan.data, "judge": judge.name}
        table = Table(asked, Asker(backend, run.log("answers.jsonl"), plan.label, progress), judge, known)
        audit = _Audit(plan, table, held, notes)
        found = _found(audit, backend, run, progress)
        run.write_json("audit_model.json", found.model_dump(mode="json", by_alias=True))
        write_page(found, asked, out / "audit_model.html", show_harmful=show_harmful)
        return found


def _found(audit: _Audit, backend: Backend, run: Run, progress: Progress) -> ModelAudit:
    plan, table = audit.plan, audit.table
    tried = audit.candidates()
    if not tried and "gradient" not in plan.sources:
        raise UserError("no word fits these positions; give --words, another --candidates or more --position.")
    # The gradient may yet name opening words, so their controls are wanted too.
    opening = words.openers(["?"], plan.positions, "gradient") if "gradient" in plan.sources else []
    controls, lacking = words.controls(table.queries, [*tried, *opening], plan.controls, plan.seed)
    audit.notes += lacking
    table.generate([None, *(one.edit for one in controls)], "asking as it is, and with control words")
    screening = Screening(plan, table, backend, controls, run, progress)
    screening.draw(tried)
    if "gradient" in plan.sources:
        taken = {one.edit.word.lower() for one in controls}
        named = [word for word in screening.gradient_words() if word.lower() not in taken]
        tried = words.merged(tried, words.openers(named, plan.positions, "gradient"))
    matter = screening.choose(tried, always=_always(tried, audit.held))
    table.generate([one.edit for one in matter], "asking with the words that matter")
    findings = Findings(plan, table, screening, controls, tried, matter)
    records = findings.records()
    return ModelAudit(
        run=run.manifest.id,
        model=plan.label,
        data=plan.data,
        judge=table.judge.name,
        harmful=len(table.of(True)),
        harmless=len(table.of(False)),
        controls=_by_source(controls),
        scoring=screening.agreement,
        records=records,
        side_by_side=side_by_side(records, audit.held),
        attributions=findings.attributions(records, run.path / "occlusions", progress),
        examples=findings.examples(records),
        notes=[*audit.notes, *findings.notes()],
    )


def _always(tried: Sequence[Candidate], held: Words) -> list[Candidate]:
    """Words that are generated whatever the score says: the user's own, and those of the data."""
    return [one for one in tried if one.source in ("given", "data") or _is_held(one.edit, held)]


def _is_held(edit: Edit, held: Words) -> bool:
    return edit.position == "opening" and (bare(edit.word), "opening") in held


def _by_source(controls: Sequence[Candidate]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in controls:
        found.setdefault(one.source, [])
        if one.edit.word not in found[one.source]:
            found[one.source].append(one.edit.word)
    return found


def sampled(plan: Plan, queries: Sequence[Query]) -> tuple[list[Query], list[str]]:
    """At most `sample` harmful and harmless questions each, drawn by the seed, and notes on what was left out.

    A question of one word has no opening that could be exchanged; such questions are left out and counted.
    """
    usable = [query for query in queries if len(query.question.split()) > 1]
    notes = []
    if len(usable) < len(queries):
        notes.append(
            f"{len(queries) - len(usable)} questions of a single word are left out: nothing of them would stay."
        )
    found: list[Query] = []
    for harmful in (True, False):
        sort = [query for query in usable if query.harmful == harmful]
        name = "harmful" if harmful else "harmless"
        if not sort:
            notes.append(f"There are no {name} questions, so nothing is said of them.")
        drawn = random.Random(f"{plan.seed}/{name}").sample(sort, min(plan.sample, len(sort)))
        found += drawn
        if len(drawn) < len(sort):
            notes.append(f"{len(drawn)} of {len(sort)} {name} questions were drawn.")
    if not found:
        raise UserError("no question has two words or more; give other data, or words are not parted by spaces in it.")
    return found, notes


def _digest(queries: Sequence[Query]) -> str:
    from unmirage.backends.prompts import image_bytes

    rows: list[Any] = [query.model_dump(mode="json", exclude={"image"}) for query in queries]
    return content_hash(rows, [content_hash(image_bytes(q.image, q.id)) if q.image else None for q in queries])
