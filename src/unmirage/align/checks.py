"""What is wrong with the data, said before training starts, with counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from unmirage.align.batches import Encoded, group_sizes
from unmirage.align.data import image_digest
from unmirage.align.encode import told
from unmirage.align.groups import GROUPS, cue_of, own_word
from unmirage.align.terms import Term
from unmirage.audit.model.edits import bare
from unmirage.errors import UserError
from unmirage.schema import Query

CONFOUNDED = 0.5
"""Total variation distance between the opening words of forget and retain set from which a warning is due."""
_FEW = 3
_ENOUGH = 20
"""Rows of each set from which the distance says something: few rows differ by chance."""


def check_rows(parts: Mapping[str, Sequence[Query]]) -> None:
    """Raises UserError where a role has no rows, rows lack answers or pictures, or forget and retain share some."""
    for role, rows in parts.items():
        if not rows:
            raise UserError(f"the {role} set is empty; the method needs at least one {role} row.")
    every = {(query.id, query.question, query.image): query for rows in parts.values() for query in rows}
    told([fault for query in every.values() if (fault := _lacks(query))], len(every))
    if shared := _shared([*parts.get("forget", ()), *parts.get("preference", ())], parts.get("retain", ())):
        raise UserError(
            f"{len(shared)} rows are to be forgotten and retained at once (same question, same picture), such as "
            f"{', '.join(map(repr, shared[:_FEW]))}; take them out of one of the two sets."
        )


def _lacks(query: Query) -> str | None:
    """What a row lacks, as far as that shows without opening its picture."""
    if not (query.reference or "").strip():
        return f"query {query.id!r} has no answer to train on; give each row a response."
    if query.image is not None and not query.image.is_file():
        return f"{query.image}: the image of query {query.id!r} is missing; restore the file or remove the row."
    return None


def _shared(forgotten: Sequence[Query], retained: Sequence[Query]) -> list[str]:
    """The ids of the forgotten rows whose question, with the same picture under whatever name, is retained too."""
    asked = {_words(query) for query in forgotten} & {_words(query) for query in retained}
    pairs = {(_words(query), image_digest(query)) for query in retained if _words(query) in asked}
    both = [query.id for query in forgotten if _words(query) in asked and (_words(query), image_digest(query)) in pairs]
    return list(dict.fromkeys(both))


def _words(query: Query) -> str:
    return " ".join(query.question.split()).casefold()


def check_answers(parts: Mapping[str, Encoded], max_length: int | None) -> list[str]:
    """Raises UserError where `max_length` cuts whole answers away; returns a note where it cuts into some."""
    gone = {role: _answerless(part) for role, part in parts.items()}
    if lost := {role: ids for role, ids in gone.items() if ids}:
        counts = " and ".join(f"{len(ids)} of {len(parts[role])} {role} rows" for role, ids in lost.items())
        some = [name for ids in lost.values() for name in ids][:_FEW]
        raise UserError(
            f"{counts} have no answer left within max_length={max_length} tokens, such as "
            f"{', '.join(map(repr, some))}; raise max_length or shorten their questions."
        )
    return [
        f"{part.shortened} of {len(part)} {role} answers are cut at max_length={max_length} tokens."
        for role, part in parts.items()
        if part.shortened
    ]


def uneven(pairs: Encoded) -> str | None:
    """A note where twins have other answer tokens than their origins, because `max_length` cuts one shorter.

    Raises UserError where the same answer is not the same tokens: the two could not be compared token by token.
    """
    answers, half = pairs.answers(), len(pairs) // 2
    both = list(zip(answers[:half], answers[half:], strict=True))
    if odd := [at for at, (one, two) in enumerate(both) if any(a != b for a, b in zip(one, two, strict=False))]:
        raise UserError(
            f"the answer of {pairs.queries[odd[0]].id!r} is other tokens after its question than after its one-word "
            "twin, so pairs cannot be compared with this tokenizer; use twins (ce) instead."
        )
    cut = sum(len(one) != len(two) for one, two in both)
    return f"{cut} of {half} pairs are compared on the shorter answer, as the other one is cut." if cut else None


def unstirred(steps: int, warmup: float) -> str | None:
    """A note where warming up takes every step: its first step has a learning rate of 0."""
    if steps != 1 or not warmup:
        return None
    return "warmup takes the only step, whose learning rate is 0, so nothing is learnt; set warmup=0 or more steps."


NO_CUE_MOVES = "no twin has another cue than its origin"


def unmoved(pairs: Encoded, *, needed: bool) -> str | None:
    """A note where no pair changes its cue, so that there is no direction of a cue; with `needed` a UserError."""
    half = len(pairs) // 2
    if any(cue_of(one) != cue_of(two) for one, two in zip(pairs.groups[:half], pairs.groups[half:], strict=True)):
        return None
    if needed:
        raise UserError(
            f"{NO_CUE_MOVES}: there is no direction to project out; give words that are cues, or data that has them."
        )
    return f"{NO_CUE_MOVES}, so cue-direction changes nothing; give words that are cues, or data that has them."


def one_sided(roles: Sequence[str], queries: Sequence[Query], general: Sequence[Query]) -> list[str]:
    """Notes where rows of one kind are missing, so that a repair teaches one verdict for everything."""
    harmful, harmless = (any(query.harmful == kind for query in queries) for kind in (True, False))
    notes = []
    if not harmless and not general:
        notes.append("there is no harmless row: nothing keeps the model from refusing everything.")
    if not harmful and {"twins", "pairs"} & set(roles):
        notes.append("the data has no harmful row: nothing in it teaches which questions to refuse.")
    return notes


def unheard(queries: Sequence[Query], refusal: Sequence[str], compliance: Sequence[str]) -> list[str]:
    """Notes for cues with which no row of the data opens that they should tell, as those of other data's audit."""
    notes = []
    for harmful, kind, words in ((True, "refusal", refusal), (False, "compliance", compliance)):
        opened = {own_word(query) for query in queries if query.harmful == harmful}
        if words and opened and opened.isdisjoint(map(bare, words)):
            sort = "harmful" if harmful else "harmless"
            notes.append(
                f"no {sort} row of the data opens with a {kind} word ({', '.join(words)}): these cues may be those of "
                "other data."
            )
    return notes


def empty_groups(terms: Sequence[Term], parts: Mapping[str, Encoded]) -> list[str]:
    """Notes for groups without rows, which group weights cannot help."""
    notes = []
    for role in dict.fromkeys(term.role for term in terms if term.weight.average == "groups"):
        sizes = group_sizes(parts[role])
        if none := [name for name, size in zip(GROUPS, sizes, strict=True) if not size]:
            notes.append(f"no {role} row is in the groups {', '.join(none)}; their losses cannot be weighed.")
    return notes


def _answerless(part: Encoded) -> list[str]:
    return [query.id for query, length in zip(part.queries, part.answer_lengths(), strict=True) if not length]


def confounding(parts: Mapping[str, Sequence[Query]]) -> str | None:
    """A warning where the opening word tells the forget set from the retain set, else None.

    The measure is the total variation distance between the two sets' opening words: 0 where they open alike, 1 where
    no word opens both. Unlearning then learns the word as easily as the harm.
    """
    forget, retain = ([opening(query) for query in parts.get(role, ())] for role in ("forget", "retain"))
    if min(len(forget), len(retain)) < _ENOUGH:
        return None
    ours, theirs = Counter(forget), Counter(retain)
    excess = {word: ours[word] / len(forget) - theirs[word] / len(retain) for word in ours | theirs}
    distance = sum(map(abs, excess.values())) / 2
    if distance < CONFOUNDED:
        return None
    word = max(excess, key=lambda word: excess[word])
    return (
        f"the opening words of the forget and the retain set differ (total variation distance {distance:.2f} of 1): "
        f"{word!r} opens {ours[word]} of {len(forget)} forget rows and {theirs[word]} of {len(retain)} retain rows. "
        f"Unlearning may learn the word instead of the harm; give the retain set more rows that open with {word!r}."
    )


def opening(query: Query) -> str:
    """The first word of a question, in lower case and without punctuation around it."""
    words = query.question.split()
    return words[0].casefold().strip(".,;:!?\"'()") if words else ""
