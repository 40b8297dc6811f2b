"""Which words are tried, and which stand beside them as controls."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from unmirage.audit.model.edits import POSITIONS, Candidate, Edit, Position, Source, bare
from unmirage.audit.model.lexicon import NEUTRAL, OPENERS, POLITENESS
from unmirage.errors import UserError
from unmirage.schema import Query


def given(words: Sequence[str], positions: Sequence[Position]) -> list[Candidate]:
    """The user's own words at every position; raises UserError for what is not one word, or comes twice."""
    for word in words:
        if word.split() != [word] or not bare(word):
            raise UserError(f"{word!r} is not one word; give single words, such as --words What --words Share.")
    if len({bare(word) for word in words}) < len(words):
        raise UserError(f"the words {', '.join(words)} repeat one another; give each once.")
    return _each(words, positions, "given")


def lexicon(positions: Sequence[Position]) -> list[Candidate]:
    """Openers to stand for the first word, politeness words to be put in at either end."""
    return openers(OPENERS, positions, "lexicon") + insertions(POLITENESS, positions, "lexicon")


def openers(words: Iterable[str], positions: Sequence[Position], source: Source) -> list[Candidate]:
    """Words found elsewhere, to stand for the first word."""
    return _each(words, [place for place in positions if place == "opening"], source)


def insertions(words: Iterable[str], positions: Sequence[Position], source: Source) -> list[Candidate]:
    """Words found elsewhere, to be put in at either end."""
    return _each(words, [place for place in positions if place != "opening"], source)


def _each(words: Iterable[str], positions: Sequence[Position], source: Source) -> list[Candidate]:
    return [Candidate(Edit(word, place), "candidate", source) for word in words for place in positions]


def merged(*lists: Iterable[Candidate]) -> list[Candidate]:
    """All of them, each edit once: the first that names it keeps it."""
    found: dict[str, Candidate] = {}
    for candidate in (one for several in lists for one in several):
        found.setdefault(candidate.edit.name, candidate)
    return list(found.values())


def controls(
    queries: Sequence[Query], candidates: Sequence[Candidate], each: int, seed: int
) -> tuple[list[Candidate], list[str]]:
    """`each` neutral and `each` random words at every position that has a candidate, and notes on what is lacking.

    Random words are drawn from the harmless questions, never from their first words, so that the model knows them and
    they carry no harm; at the opening they make as little sense as any word there.
    """
    tried = {bare(one.edit.word) for one in candidates}
    neutral = [word for word in NEUTRAL if bare(word) not in tried][:each]
    pool = _inner_words(queries, tried | {bare(word) for word in NEUTRAL})
    drawn = random.Random(f"{seed}/controls").sample(pool, min(each, len(pool)))
    places = [place for place in POSITIONS if any(one.edit.position == place for one in candidates)]
    found = [Candidate(Edit(word, place), "control", "neutral") for place in places for word in neutral]
    found += [Candidate(Edit(word, place), "control", "random") for place in places for word in drawn]
    if not found:
        raise UserError("every neutral word is among the words to be tried, so no control is left; leave some out.")
    lacking = each - len(drawn)
    notes = [f"The harmless questions hold only {len(drawn)} words fit for random controls, not {each}."]
    return found, notes if lacking else []


def _inner_words(queries: Sequence[Query], without: set[str]) -> list[str]:
    """Words of the harmless questions behind their first word, sorted."""
    first = {bare(query.question.split()[0]) for query in queries}
    inner = {bare(word) for query in queries if not query.harmful for word in query.question.split()[1:]}
    return sorted(word for word in inner - first - without if word.isalpha() and len(word) > 1)
