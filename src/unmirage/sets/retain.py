"""The retain set: the safety data's harmless questions, topped up with general data so that no opening word is missing.

With a retain set as biased as the forget set, unlearning learns the opening word instead of the harm; therefore every
opening word of the forget set is in the retain set too, in twins of other rows where the data do not have it.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from unmirage.audit.twins import form_of, swapped
from unmirage.runs import digest_file
from unmirage.schema import Query
from unmirage.sets.config import SetsConfig

Refuses = Callable[[Query], bool]


@dataclass
class Retained:
    """The retain set, where its rows come from, and what was left out."""

    rows: list[Query] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    lacking: list[str] = field(default_factory=list)
    """Opening words of the forget set for which too few rows could be had or made, or for which there was no room."""
    twins: set[str] = field(default_factory=set)
    """Ids of the rows that were made of others; none is made of them in turn."""


def opener(question: str) -> str:
    """The opening word as it is compared: in small letters."""
    return question.split()[0].lower()


def retain_set(
    harmless: Sequence[Query], general: Sequence[Query], forget: Sequence[Query], refuses: Refuses, config: SetsConfig
) -> Retained:
    """At most `config.retain` rows: first the safety data's, then for each opening word, then at random.

    The safety data's rows leave room for the opening words, and take what of it was not needed before general rows do.
    Left out: rows without an answer, rows whose answer is a refusal, and rows that ask what is to be forgotten about
    the same picture, whatever its name, or without any. The order within what is drawn is random by the seed.
    """
    found = Retained()
    leaks = Leaks(forget)
    own = [query for query in harmless if _usable(query, leaks, refuses, found, "safety")]
    pool = [query for query in general if _usable(query, leaks, refuses, found, "general")]
    rng = random.Random(f"retain {config.seed}")
    rng.shuffle(own)
    rng.shuffle(pool)
    wanted = list(dict.fromkeys(opener(query.question) for query in forget))
    room = config.retain - config.opener_rows * len(wanted)
    _take(found, own[: max(room, 0)], "safety", config.retain)
    for word in wanted:
        _represent(word, (own, pool), leaks, found, config)
    _take(found, own, "safety", config.retain)
    _take(found, pool, "general", config.retain)
    return found


class Leaks:
    """Which rows ask what is to be forgotten."""

    def __init__(self, forget: Sequence[Query]) -> None:
        self._asked: dict[str, list[Query]] = defaultdict(list)
        for query in forget:
            self._asked[_plain(query.question)].append(query)

    def __contains__(self, query: object) -> bool:
        """Whether the same is asked of a picture with the same content, or where one of the two has no picture."""
        assert isinstance(query, Query)
        return any(_same_picture(query.image, other.image) for other in self._asked.get(_plain(query.question), ()))


def _plain(question: str) -> str:
    """The question as it is compared: without case, spaces and the marks at its end."""
    return " ".join(question.lower().split()).rstrip(" .?!")


def _same_picture(one: Path | None, other: Path | None) -> bool:
    if one is None or other is None or one == other:
        return True
    return _content(one) == _content(other)


@lru_cache(maxsize=65_536)
def _content(picture: Path) -> str:
    return digest_file(picture)


def _usable(query: Query, leaks: Leaks, refuses: Refuses, found: Retained, source: str) -> bool:
    if not (query.reference or "").strip():
        why = "without an answer"
    elif query in leaks:
        why = "also to be forgotten"
    elif refuses(query):
        why = "refusals"
    else:
        return True
    found.counts[f"{source}, left out: {why}"] += 1
    return False


def _take(found: Retained, rows: Sequence[Query], source: str, most: int) -> None:
    there = {query.id for query in found.rows}
    fresh = [query for query in rows if query.id not in there][: max(most - len(found.rows), 0)]
    found.rows += fresh
    found.counts[source] += len(fresh)


def _represent(
    word: str, sources: tuple[Sequence[Query], Sequence[Query]], leaks: Leaks, found: Retained, config: SetsConfig
) -> None:
    """Sees to it that enough rows open with the word: the safety data's, general ones, twins of others."""

    def _missing() -> int:
        return max(config.opener_rows - sum(opener(query.question) == word for query in found.rows), 0)

    for rows, source in zip(sources, ("safety", "general"), strict=True):
        there = {query.id for query in found.rows}
        fitting = [query for query in rows if opener(query.question) == word and query.id not in there]
        _take(found, fitting[: _missing()], f"{source}, for its opening word", config.retain)
    if _missing():
        others = [query for query in found.rows if query.id not in found.twins] + list(sources[1])
        twins = _twins(word, others, leaks, _missing())
        found.twins |= {twin.id for twin in twins}
        _take(found, twins, "one-word twins", config.retain)
    if _missing():
        found.lacking.append(word)


def _twins(word: str, rows: Sequence[Query], leaks: Leaks, count: int) -> list[Query]:
    """Rows under another opening word of the same form; what is asked stays the same, so the answer may stay.

    No twin of a row asks what is to be forgotten.
    """
    form = form_of(f"{word} it") or form_of(f"{word} is")
    made: dict[str, Query] = {}
    for query in rows if form else ():
        if len(made) >= count:
            break
        own = form_of(query.question)
        question = swapped(query.question, word) if own and form and own[0] == form[0] else None
        twin = query.model_copy(update={"id": f"{query.id}~{word}", "question": question or query.question})
        if question is not None and twin not in leaks:
            made[twin.id] = twin
    return list(made.values())
