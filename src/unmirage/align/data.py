"""Which queries play which part: the rows of each role, and the better answers of preference terms."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from unmirage.align.config import AlignConfig
from unmirage.align.roles import MADE, Role
from unmirage.align.twins import (
    Against,
    Made,
    drawn,
    opened_by_any,
    refusals_of,
    spurious_harmful,
    spurious_harmless,
    twins_of,
    with_answers,
)
from unmirage.backends.prompts import image_bytes
from unmirage.errors import UserError
from unmirage.schema import Query, content_hash

REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I can't assist with this request.",
    "Sorry, this is something I won't describe.",
    "I'm not able to give instructions for that.",
    "I won't help with this, because it could hurt someone.",
    "That is not something I can share.",
    "I have to decline this request.",
    "This could cause harm, so I will not answer it.",
)
"""Better answers of IdkDPO where the user gives none."""

Sampler = Callable[[Sequence[Query]], list[str]]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the model before training is asked for: another answer than a query has, and its own greedy answer."""

    alternatives: Sampler
    answers: Sampler


@dataclass(frozen=True, slots=True)
class Parts:
    """The rows of each role; those that were made of the data's by exchanging opening words are in `made` too."""

    rows: Mapping[str, list[Query]]
    made: Mapping[str, Made]

    def notes(self) -> list[str]:
        """What was left out, in sentences."""
        return [
            f"{count} rows of the data are left out of {role}: they {why}."
            for role, made in self.made.items()
            for why, count in made.left_out.items()
            if count
        ]


def rows_of(
    config: AlignConfig,
    queries: Sequence[Query],
    general: Sequence[Query],
    preferred: Sequence[Query],
    sample: Sampler,
) -> dict[str, list[Query]]:
    """The rows of each role alone, where the model is asked for one thing only; see `parts_of`."""
    return dict(parts_of(config, queries, general, preferred, Asked(sample, sample)).rows)


def parts_of(
    config: AlignConfig, queries: Sequence[Query], general: Sequence[Query], preferred: Sequence[Query], asked: Asked
) -> Parts:
    """The rows of each role that the configuration's terms have; see `methods` for what the roles hold.

    Raises UserError where preference, spurious or refuse terms lack answers, and where no row can be made.
    """
    some = _drawn(general, config.general_rows, config.seed)
    harmful = [query for query in queries if query.harmful]
    harmless = [query for query in queries if not query.harmful]
    makers: Mapping[Role, Callable[[], list[Query]]] = {
        "learn": lambda: [*queries, *some],
        "forget": lambda: harmful,
        "retain": lambda: [*harmless, *some],
        "preference": lambda: [*better(config, harmful, preferred, asked.alternatives), *harmful],
    }
    roles = config.roles()
    made: dict[str, Made] = {r: _made(r, config, queries, preferred, asked) for r in roles if r in MADE}
    rows: dict[str, list[Query]] = {r: _rows(r, made[r]) if r in made else makers[r]() for r in roles}
    return Parts(rows, made)


def _rows(role: str, made: Made) -> list[Query]:
    twins = [one.query for one in made.twins]
    return [*(one.origin for one in made.twins), *twins] if role == "pairs" else twins


def _made(role: Role, config: AlignConfig, queries: Sequence[Query], preferred: Sequence[Query], asked: Asked) -> Made:
    """The rows of a role that are made by exchanging opening words."""
    if role == "spurious":
        made = _spurious(config, queries, preferred, asked)
    elif role == "refuse":
        harmful = [query for query in queries if query.harmful]
        some = opened_by_any(harmful, config.words, config.twin_rows, config.seed)
        answered = better(config, [one.origin for one in some], preferred, asked.alternatives)
        made = Made(with_answers(some, [query.reference or "" for query in answered]))
    else:
        against = Against(config.cue_share, config.refusal_words, config.compliance_words)
        made = twins_of(queries, config.words, config.twin_rows, config.seed, against)
    if not made.twins:
        why = "; ".join(f"{count} rows {why}" for why, count in made.left_out.items() if count)
        raise UserError(
            f"no row can be made for {role} ({why or 'the data has no row for it'}); give other words or data."
        )
    _check_names(role, made, queries)
    return made


def _check_names(role: str, made: Made, queries: Sequence[Query]) -> None:
    """Raises UserError where a row that is made would be called as one of the data."""
    if taken := {query.id for query in queries} & {one.query.id for one in made.twins}:
        raise UserError(
            f"the data has a row {min(taken)!r}, as a row that is made for {role} would be called; give it another id."
        )


def _spurious(config: AlignConfig, queries: Sequence[Query], preferred: Sequence[Query], asked: Asked) -> Made:
    """Harmless questions under refusal words with refusals, harmful ones under compliance words with answers."""
    chosen = drawn(queries, config.twin_rows, config.seed)
    refusals = refusals_of(queries)
    harmless = spurious_harmless(chosen, refusals, config.refusal_words, config.seed)
    harmful = opened_by_any([q for q in chosen if q.harmful], config.compliance_words, None, config.seed)
    if config.spurious_answers == "sampled":
        answers = asked.answers([one.query for one in harmful])
    else:
        answers = _harmful_answers([one.origin for one in harmful], preferred)
    leaks = spurious_harmful(harmful, answers, refusals)
    return Made([*leaks.twins, *harmless], leaks.left_out)


def _harmful_answers(harmful: Sequence[Query], preferred: Sequence[Query]) -> list[str]:
    """Harmful answers by the query's id."""
    found, missing = _by_id(harmful, preferred)
    if missing:
        raise UserError(
            f"{len(missing)} of {len(harmful)} harmful rows have no harmful answer, such as {missing[0]!r}; give "
            "a file with the same ids as preferred data, or set spurious_answers=sampled."
        )
    return found


def _by_id(queries: Sequence[Query], answered: Sequence[Query]) -> tuple[list[str], list[str]]:
    """The other data's answers to the queries, "" where it has none, and the ids of these."""
    answers = {query.id: query.reference or "" for query in answered}
    return [answers.get(query.id, "") for query in queries], [q.id for q in queries if not answers.get(q.id)]


def _drawn(general: Sequence[Query], count: int | None, seed: int) -> Sequence[Query]:
    if count is None or count >= len(general):
        return general
    return random.Random(seed).sample(list(general), count)


def better(config: AlignConfig, harmful: Sequence[Query], preferred: Sequence[Query], sample: Sampler) -> list[Query]:
    """The harmful queries with better answers, in the same order."""
    if config.preferred == "given":
        answers = _given(harmful, preferred)
    elif config.preferred == "refusals":
        texts = sorted({query.reference for query in preferred if query.harmful and query.reference}) or REFUSALS
        rng = random.Random(config.seed)
        answers = [rng.choice(texts) for _ in harmful]
    else:
        answers = sample(harmful)
    return [query.model_copy(update={"reference": text}) for query, text in zip(harmful, answers, strict=True)]


def _given(harmful: Sequence[Query], preferred: Sequence[Query]) -> list[str]:
    """Better answers by the query's id."""
    found, missing = _by_id(harmful, preferred)
    if missing:
        raise UserError(
            f"{len(missing)} of {len(harmful)} harmful rows have no better answer, such as {missing[0]!r}; give a file "
            "with the same ids as preferred data, or set preferred=refusals."
        )
    same = [q.id for q, text in zip(harmful, found, strict=True) if text.strip() == (q.reference or "").strip()]
    if same:
        raise UserError(
            f"{len(same)} of {len(harmful)} harmful rows have the same answer as the preferred data, such as "
            f"{same[0]!r}; there is nothing to prefer."
        )
    return found


def digest(queries: Sequence[Query]) -> str:
    """Content hash of what is trained on: questions, answers and image bytes."""
    return content_hash([(q.question, q.reference, q.harmful, image_digest(q)) for q in queries])


def image_digest(query: Query) -> str | None:
    """Content hash of a query's picture; None where it has none."""
    return content_hash(image_bytes(query.image, query.id)) if query.image else None
