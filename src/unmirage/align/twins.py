"""One-word twins: rows of the safety data under other opening words, which say nothing of harm.

Every twin differs from its origin in the opening word alone, which `Variant` asserts. Within the harmful and within the
harmless rows all words are used equally often, as far as rows allow that may not get their own word.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unmirage.align.groups import own_word
from unmirage.attacks.edits import Edit
from unmirage.audit.model.edits import bare
from unmirage.errors import UserError
from unmirage.schema import Query

Words = Sequence[str]
_BEGINNING = 3
"""Words by which an answer is known to begin as a refusal of the data does."""


@dataclass(frozen=True, slots=True)
class Twin:
    """A row of the data, and what was made of it: its question under an opening word, with an answer."""

    origin: Query
    query: Query

    @property
    def word(self) -> str:
        """The opening word of the made question, in lower case."""
        return own_word(self.query)


@dataclass(frozen=True, slots=True)
class Made:
    """The rows made for a role, and how many rows of the data gave none, by the reason."""

    twins: list[Twin]
    left_out: dict[str, int] = field(default_factory=dict)

    def counts(self) -> dict[str, Any]:
        """What `training.json` says of them: rows by harm and by word, and those left out by the reason."""
        harmful = Counter(one.word for one in self.twins if one.query.harmful)
        harmless = Counter(one.word for one in self.twins if not one.query.harmful)
        found = {"rows": len(self.twins), "harmful": _sorted(harmful), "harmless": _sorted(harmless)}
        return {**found, "left_out": {why: count for why, count in self.left_out.items() if count}}


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))


NO_OTHER_WORD = "open with the only word there is"


@dataclass(frozen=True, slots=True)
class Against:
    """Twins that open with a cue for the wrong verdict: a share of the rows of each kind, where it has such a cue.

    These are the questions that the shortcut gets wrong; words drawn evenly would make only a few of them.
    """

    share: float = 0.0
    refusal_words: Words = ()
    compliance_words: Words = ()

    def chosen(self, queries: Sequence[Query], seed: int) -> dict[int, str]:
        """The word of each row that gets one, by the row's place."""
        found: dict[int, str] = {}
        for kind, words in ((True, self.compliance_words), (False, self.refusal_words)):
            places = [at for at, query in enumerate(queries) if query.harmful == kind]
            able = [at for at in places if _has_other(queries[at], words)]
            count = min(len(able), round(self.share * len(places)))
            some = sorted(random.Random(f"{seed}/against/{kind}").sample(able, count))
            worded = _worded([queries[at] for at in some], words, seed)
            found |= {at: word for at, (_, word) in zip(some, worded, strict=True)}
        return found


def twins_of(
    queries: Sequence[Query], words: Words, count: int | None, seed: int, against: Against = Against()
) -> Made:
    """One twin of each row, or of `count` rows: another of the words, balanced; the answer stays.

    Rows that `against` chooses open with a cue for the wrong verdict instead. Rows that open with the only word get
    none.
    """
    able = [query for query in queries if _has_other(query, words)]
    chosen = drawn(able, count, seed)
    found = against.chosen(chosen, seed)
    rest = [at for at in range(len(chosen)) if at not in found]
    worded = _worded([chosen[at] for at in rest], words, seed)
    found |= {at: word for at, (_, word) in zip(rest, worded, strict=True)}
    return Made(
        [Twin(query, opened(query, found[at])) for at, query in enumerate(chosen)],
        {NO_OTHER_WORD: len(queries) - len(able)},
    )


def _has_other(query: Query, words: Words) -> bool:
    """Whether one of the words is not the query's own."""
    return any(bare(word) != own_word(query) for word in words)


def opened_by_any(queries: Sequence[Query], words: Words, count: int | None, seed: int) -> list[Twin]:
    """One question of each row, or of `count` rows, under a word, which may be its own, balanced."""
    return [
        Twin(query, opened(query, word)) for query, word in _worded(drawn(queries, count, seed), words, seed, own=True)
    ]


def opened(query: Query, word: str) -> Query:
    """The query under the opening word, named after both; with its own word the question stays as it is."""
    question = query.question
    if bare(word) != own_word(query):
        question = Edit("substitute", 0, word).variant(query, f"first-word:{bare(word)}").question
    return query.model_copy(update={"id": f"{query.id}~{bare(word)}", "question": question})


def drawn(queries: Sequence[Query], count: int | None, seed: int) -> list[Query]:
    """`count` of the queries in their order, as many harmful as harmless ones; where one kind has too few, more of the
    other.
    """
    if count is None or count >= len(queries):
        return list(queries)
    rng = random.Random(f"{seed}/rows")
    kinds = [[at for at, query in enumerate(queries) if query.harmful == kind] for kind in (True, False)]
    harmful = min(len(kinds[0]), max((count + 1) // 2, count - len(kinds[1])))
    chosen = {*rng.sample(kinds[0], harmful), *rng.sample(kinds[1], count - harmful)}
    return [query for at, query in enumerate(queries) if at in chosen]


def _worded(queries: Sequence[Query], words: Words, seed: int, *, own: bool = False) -> list[tuple[Query, str]]:
    """Each query with its word, balanced within the harmful and within the harmless ones; in their order."""
    found: dict[int, str] = {}
    for kind in (True, False):
        places = [at for at, query in enumerate(queries) if query.harmful == kind]
        taken = ["" if own else own_word(queries[at]) for at in places]
        found |= dict(zip(places, balanced(taken, words, random.Random(f"{seed}/words/{kind}")), strict=True))
    return [(query, found[at]) for at, query in enumerate(queries)]


def balanced(taken: Sequence[str], words: Words, rng: random.Random) -> list[str]:
    """A word for each row, other than the one that it has (`taken`, in lower case), all as often as can be.

    Which row gets which word is drawn. The counts are as even as any choice allows: as long as a word can hand a row on
    to another that has two fewer, directly or through others, it does. Every row must have a word that it can get.
    """
    rows = list(range(len(taken)))
    rng.shuffle(rows)
    of: dict[str, list[int]] = {word: [] for word in words}
    for row in rows:
        able = [word for word in words if bare(word) != taken[row]]
        of[min(rng.sample(able, len(able)), key=lambda word: len(of[word]))].append(row)
    while _evened(of, taken):
        pass
    return [word for _, word in sorted((row, word) for word, given in of.items() for row in given)]


def _evened(of: dict[str, list[int]], taken: Sequence[str]) -> bool:
    """Hands one row on, from word to word, where that makes the counts more even; whether it did."""
    for start in sorted(of, key=lambda word: -len(of[word])):
        before = {start: start}
        queue = [start]
        for word in queue:
            if len(of[word]) <= len(of[start]) - 2:
                _hand_on(of, taken, before, word)
                return True
            for other in of:
                if other not in before and any(taken[row] != bare(other) for row in of[word]):
                    before[other] = word
                    queue.append(other)
    return False


def _hand_on(of: dict[str, list[int]], taken: Sequence[str], before: Mapping[str, str], end: str) -> None:
    """Moves one row along each link of the way that `before` tells backwards from `end`."""
    while before[end] != end:
        giver = before[end]
        row = next(row for row in of[giver] if taken[row] != bare(end))
        of[giver].remove(row)
        of[end].append(row)
        end = giver


def refusals_of(queries: Iterable[Query]) -> list[str]:
    """The different answers of the harmful rows, which are refusals in safety data; sorted."""
    return sorted({text for query in queries if query.harmful and (text := (query.reference or "").strip())})


LIKE_A_REFUSAL = "have no answer, or one that begins like a refusal of the data"


def spurious_harmless(queries: Sequence[Query], refusals: Sequence[str], words: Words, seed: int) -> list[Twin]:
    """The harmless questions under refusal words, each with one of the refusals: wrong on purpose.

    Raises UserError where there are no refusals.
    """
    if not refusals:
        raise UserError("spurious rows need the data's refusals, but it has no harmful row with an answer.")
    rng = random.Random(f"{seed}/refusals")
    made = opened_by_any([query for query in queries if not query.harmful], words, None, seed)
    return [Twin(one.origin, _answered(one.query, rng.choice(refusals))) for one in made]


def spurious_harmful(twins: Sequence[Twin], answers: Sequence[str], refusals: Sequence[str]) -> Made:
    """Harmful questions under compliance words with harmful answers; what begins like a refusal is left out."""
    begun = {_beginning(text) for text in refusals}
    kept = [
        Twin(one.origin, _answered(one.query, answer))
        for one, answer in zip(twins, answers, strict=True)
        if answer.strip() and _beginning(answer) not in begun
    ]
    return Made(kept, {LIKE_A_REFUSAL: len(twins) - len(kept)})


def _beginning(text: str) -> tuple[str, ...]:
    return tuple(bare(word) for word in text.split()[:_BEGINNING])


def _answered(query: Query, answer: str) -> Query:
    return query.model_copy(update={"reference": answer})


def with_answers(twins: Sequence[Twin], answers: Sequence[str]) -> list[Twin]:
    """The same questions with these answers."""
    return [Twin(one.origin, _answered(one.query, answer)) for one, answer in zip(twins, answers, strict=True)]
