"""The retain set: the safety data's harmless questions, topped up with general data so that no opening word is missing.

With a retain set as biased as the forget set, unlearning learns the opening word instead of the harm; therefore every
opening word of the forget set is in the retain set too, in twins of other rows where the data do not have it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from unmirage.audit.twins import form_of, swapped
from unmirage.schema import Query
from unmirage.sets.config import SetsConfig

Refuses = Callable[[Query], bool]


@dataclass
class Retained:
    """The retain set, where its rows come from, and what was left out."""

    rows: list[Query] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    lacking: list[str] = field(default_factory=list)
    """Opening words of the forget set for which no row could be had or made."""


def opener(question: str) -> str:
    """The opening word as it is compared: in small letters."""
    return question.split()[0].lower()


def retain_set(
    harmless: Sequence[Query], general: Sequence[Query], forget: Sequence[Query], refuses: Refuses, config: SetsConfig
) -> Retained:
    """At most `config.retain` rows: first the safety data's, then for each opening word, then at random.

    Left out of the general data: rows without an answer, rows whose answer is a refusal, and rows that ask what is to
    be forgotten about the same picture. The order within what is drawn is random by the seed.
    """
    found = Retained()
    own = [query for query in harmless if _usable(query, forget, refuses, found, "safety")]
    pool = [query for query in general if _usable(query, forget, refuses, found, "general")]
    rng = random.Random(f"retain {config.seed}")
    rng.shuffle(own)
    rng.shuffle(pool)
    wanted = list(dict.fromkeys(opener(query.question) for query in forget))
    room = config.retain - config.opener_rows * len(wanted)
    _take(found, own[: max(room, 0)], "safety", config.retain)
    for word in wanted:
        _represent(word, pool, found, config)
    _take(found, pool, "general", config.retain)
    return found


def _usable(query: Query, forget: Sequence[Query], refuses: Refuses, found: Retained, source: str) -> bool:
    if not query.reference:
        why = "without an answer"
    elif refuses(query):
        why = "refusals"
    elif any(_same(query, other) for other in forget if other.question == query.question):
        why = "also to be forgotten"
    else:
        return True
    found.counts[f"{source}, left out: {why}"] += 1
    return False


def _same(one: Query, other: Query) -> bool:
    return one.question == other.question and one.image == other.image


def _take(found: Retained, rows: Sequence[Query], source: str, most: int) -> None:
    there = {query.id for query in found.rows}
    fresh = [query for query in rows if query.id not in there][: max(most - len(found.rows), 0)]
    found.rows += fresh
    found.counts[source] += len(fresh)


def _represent(word: str, pool: Sequence[Query], found: Retained, config: SetsConfig) -> None:
    """Sees to it that enough rows open with the word."""
    missing = config.opener_rows - sum(opener(query.question) == word for query in found.rows)
    if missing <= 0:
        return
    there = {query.id for query in found.rows}
    fitting = [query for query in pool if opener(query.question) == word and query.id not in there][:missing]
    _take(found, fitting, "general, for its opening word", config.retain)
    twins = list(_twins(word, [*found.rows, *pool], missing - len(fitting)))
    _take(found, twins, "one-word twins", config.retain)
    if len(fitting) + len(twins) < missing:
        found.lacking.append(word)


def _twins(word: str, rows: Sequence[Query], count: int) -> list[Query]:
    """Rows under another opening word of the same form; what is asked stays the same, so the answer may stay."""
    form = form_of(f"{word} it") or form_of(f"{word} is")
    made: list[Query] = []
    for query in rows if form else ():
        if len(made) >= count:
            break
        own = form_of(query.question)
        twin = swapped(query.question, word) if own and form and own[0] == form[0] else None
        if twin is not None:
            made.append(query.model_copy(update={"id": f"{query.id}~{word}", "question": twin}))
    return made
