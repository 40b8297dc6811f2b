"""Which queries play which part: the rows of each role, and the better answers of preference terms."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from unmirage.align.config import AlignConfig, Role
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


def rows_of(
    config: AlignConfig,
    queries: Sequence[Query],
    general: Sequence[Query],
    preferred: Sequence[Query],
    sample: Sampler,
) -> dict[str, list[Query]]:
    """The rows of each role that the configuration's terms have; see `methods` for what the roles hold.

    Raises UserError where preference terms lack better answers.
    """
    some = _drawn(general, config.general_rows, config.seed)
    harmful = [query for query in queries if query.harmful]
    harmless = [query for query in queries if not query.harmful]
    makers: Mapping[Role, Callable[[], list[Query]]] = {
        "learn": lambda: [*queries, *some],
        "forget": lambda: harmful,
        "retain": lambda: [*harmless, *some],
        "preference": lambda: [*better(config, harmful, preferred, sample), *harmful],
    }
    return {role: makers[role]() for role in config.roles()}


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
    by_id = {query.id: query.reference for query in preferred}
    missing = [query.id for query in harmful if not by_id.get(query.id)]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(harmful)} harmful rows have no better answer, such as {missing[0]!r}; give a file "
            "with the same ids as preferred data, or set preferred=refusals."
        )
    same = [query.id for query in harmful if (by_id[query.id] or "").strip() == (query.reference or "").strip()]
    if same:
        raise UserError(
            f"{len(same)} of {len(harmful)} harmful rows have the same answer as the preferred data, such as "
            f"{same[0]!r}; there is nothing to prefer."
        )
    return [by_id[query.id] or "" for query in harmful]


def digest(queries: Sequence[Query]) -> str:
    """Content hash of what is trained on: questions, answers and image bytes."""
    return content_hash([(q.question, q.reference, q.harmful, image_digest(q)) for q in queries])


def image_digest(query: Query) -> str | None:
    """Content hash of a query's picture; None where it has none."""
    return content_hash(image_bytes(query.image, query.id)) if query.image else None
