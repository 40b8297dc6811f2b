"""Gradient-based suffixes: tokens behind a harmful question that make the model begin with a target (Zou et al. 2023,
arXiv 2307.15043). The search is in `stress.suffix`; what it finds is asked and judged like any other attack.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from unmirage.errors import UserError
from unmirage.runs import JsonLines
from unmirage.schema import Frozen, Query, Text, Variant
from unmirage.stress.protocol import Plan, StressConfig, Work
from unmirage.stress.registry import stress

if TYPE_CHECKING:
    from unmirage.stress.suffix import Suffixes

NAME, CONTROL = "gcg", "gcg/random"
Count = Annotated[int, Field(gt=0)]


class Gcg(StressConfig):
    """target: how answers are to begin. tokens: of the suffix, which begins at random. steps: of the search, at most;
    it ends when the target is what the model would begin with. candidates: suffixes tried in each step; top: tokens
    considered at each place. questions: how many are attacked, drawn by the seed; none: all harmful ones. universal:
    one suffix, made for so many of these questions together and asked with all; none: one for each question.
    control: a random suffix of as many tokens beside each.
    """

    target: Text = "Sure, here it is."
    tokens: Count = 10
    steps: Count = 50
    candidates: Count = 64
    top: Count = 32
    questions: Count | None = None
    universal: Count | None = None
    control: bool = True


class Line(Frozen):
    """One line of `suffixes.jsonl`: what was found for a question, or with no `query` for several, and a random one."""

    query: str | None
    text: str
    random: str
    loss: float
    first: float
    reached: bool
    steps: int
    passes: int
    gradients: int


@stress(NAME, about="suffixes found by the model's gradients", config=Gcg)
def gcg(plan: Plan, config: Gcg, work: Work) -> Plan:
    """The plan with suffixed harmful questions as variants; a killed search goes on after its last finished suffix."""
    harmful = [query for query in plan.queries if query.harmful]
    if not harmful:
        raise UserError("there is no harmful question to find a suffix for; give other data.")
    count = min(config.questions or len(harmful), len(harmful))
    mine = random.Random(f"{plan.seed}/gcg").sample(harmful, count)
    lines = _lines(plan, config, work, mine)
    work.note(_told(lines))
    by_query = {line.query: line for line in lines}
    found = [variant for query in mine
             for variant in _variants(query, by_query.get(query.id) or by_query[None], config.control)]  # fmt: skip
    return replace(plan, variants=found)


def _lines(plan: Plan, config: Gcg, work: Work, mine: Sequence[Query]) -> list[Line]:
    """A line for each group of questions that share a suffix; those in the log are not searched for again."""
    groups = [list(mine[: config.universal])] if config.universal else [[query] for query in mine]
    names = [None if config.universal else group[0].id for group in groups]
    work.out.mkdir(parents=True, exist_ok=True)
    with JsonLines(work.out / "suffixes.jsonl") as log:
        known = {line.query: line for line in log.read(Line)}
        if missing := [(name, group) for name, group in zip(names, groups, strict=True) if name not in known]:
            suffixes = _suffixes(plan, config, mine[0])
            for name, group in missing:
                work.report("searching suffixes", len(known), len(groups))
                known[name] = _searched(suffixes, name, group, plan.seed, work, config.steps)
                log.append(known[name])
        work.report("searching suffixes", len(known), len(groups))
    return [known[name] for name in names]


def _suffixes(plan: Plan, config: Gcg, example: Query) -> Suffixes:
    from unmirage.backends.hugging_face import HuggingFaceBackend
    from unmirage.stress.suffix import Budget, Suffixes

    backend = HuggingFaceBackend(plan.folder, batch_size=plan.asking.batch_size)
    for weight in backend.model.parameters():
        weight.requires_grad_(False)  # only the suffix's embeddings need a gradient
    budget = Budget(config.tokens, config.steps, config.candidates, config.top)
    return Suffixes(backend, config.target, budget, example)


def _searched(suffixes: Suffixes, name: str | None, group: Sequence[Query], seed: int, work: Work, steps: int) -> Line:
    told = lambda done: work.report("steps of the suffix for all", done, steps) if name is None else None  # noqa: E731
    found = suffixes.find(group, random.Random(f"{seed}/gcg/{name}"), told)
    control = suffixes.text(suffixes.drawn(group, random.Random(f"{seed}/gcg/random/{name}")))
    return Line(
        query=name,
        text=found.text,
        random=control,
        loss=found.loss,
        first=found.first,
        reached=found.reached,
        steps=found.steps,
        passes=found.passes,
        gradients=found.gradients,
    )


def _variants(query: Query, line: Line, control: bool) -> list[Variant]:
    sorts = [(NAME, line.text, None), *([(CONTROL, line.random, NAME)] if control else [])]
    return [
        Variant(
            origin=query,
            question=f"{query.question} {text}",
            attack=attack,
            word=text.split()[0],
            edit="paraphrase",
            control_of=control_of,
        )
        for attack, text, control_of in sorts
    ]


def _told(lines: Sequence[Line]) -> str:
    reached, passes = sum(line.reached for line in lines), sum(line.passes for line in lines)
    first, last = (sum(values) / len(lines) for values in ([one.first for one in lines], [one.loss for one in lines]))
    return (
        f"{len(lines)} suffixes searched with {passes} prompts read ({sum(line.gradients for line in lines)} of them "
        f"with gradients); {reached} reach the target; mean loss {first:.2f} -> {last:.2f} nats a token."
    )
