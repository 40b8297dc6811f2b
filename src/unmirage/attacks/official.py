"""The official one-word attack sets as variants of the questions that they reword.

The files are those of `unmirage.datasets.one_word_attack`: VLGuard's rows with a new wording in the place of the
question, an id once for each of K shots. Each wording becomes a `Variant` with `edit="paraphrase"`, as that is what
they are, under an attack named after the file ("official:what-3shot") and with its place among the K as shot. A wording
that repeats its question is asked like the others, as the published denominators count it, and such questions are told.
An empty one leaves its shot empty and is told too, as the denominator is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from unmirage.attacks.paraphrases import Found, Paraphrased, read_paraphrases
from unmirage.schema import Query, Variant

_FILE = re.compile(r"(?:test_)?(\w+_\d+shot)", re.IGNORECASE)


def is_official(path: Path) -> bool:
    """Whether a file is called as the authors call theirs, such as test_what_3shot.json."""
    return path.suffix == ".json" and _FILE.fullmatch(path.stem) is not None


def attack_name(path: Path) -> str:
    """The name of the attack in a file: `official:what-3shot` of `test_what_3shot.json`."""
    found = _FILE.fullmatch(path.stem)
    return f"official:{(found[1] if found else path.stem).lower().replace('_', '-')}"


def variants(path: Path, queries: Sequence[Query]) -> list[Variant]:
    """The wordings of a file as variants of these questions; see `official`, which also tells what is lacking."""
    return official(path, queries).variants


def official(path: Path, queries: Sequence[Query]) -> Paraphrased:
    """The wordings of a file as variants of these questions, and a sentence on the denominator.

    Joined by id, never by place. The questions that count are those of the kinds that the file rewords (unsafe ones, or
    safe ones with safe questions). Raises UserError where the file cannot be read.
    """
    found = read_paraphrases(path)
    unused: Counter[str] = Counter()
    made = list(_variants(attack_name(path), queries, found, unused))
    return Paraphrased(made, _told(attack_name(path), queries, found, made, unused))


def _variants(attack: str, queries: Sequence[Query], found: Found, unused: Counter[str]) -> Iterator[Variant]:
    for query in queries:
        for shot, text in enumerate(found.texts.get(query.id, ())):
            words = text.split()
            if not words:
                unused["empty"] += 1
            else:
                yield Variant(
                    origin=query, question=text.strip(), attack=attack, word=words[0], shot=shot, edit="paraphrase"
                )


def _told(attack: str, queries: Sequence[Query], found: Found, made: Sequence[Variant], unused: Counter[str]) -> str:
    kinds = {_kind(name) for name in found.texts}
    asked = [query.id for query in queries if _kind(query.id) in kinds]
    having = {variant.origin.id for variant in made}
    lacking = [name for name in asked if name not in having]
    parts = [f"{len(made)} {attack} of {len(having)} of {len(asked)} questions", *_own(made)]
    if lacking:
        shown = ", ".join(lacking[:5]) + (", ..." if len(lacking) > 5 else "")
        parts.append(f"{len(lacking)} have none: {shown}")
    foreign = len(found.texts.keys() - {query.id for query in queries})
    if foreign:
        parts.append(f"{foreign} ids of the file are of no question given")
    if unused:
        parts.append("not used: " + ", ".join(f"{count} {why}" for why, count in sorted(unused.items())))
    return "; ".join(parts)


def _own(made: Sequence[Variant]) -> Iterator[str]:
    """How many questions nothing is done to, as all of their wordings, or some, repeat them."""
    same: dict[str, set[bool]] = {}
    for variant in made:
        same.setdefault(variant.origin.id, set()).add(variant.is_origin)
    whole, partly = (sum(found == kind for found in same.values()) for kind in ({True}, {True, False}))
    if whole:
        yield f"{whole} {'question is its' if whole == 1 else 'questions are their'} own rewrite"
    if partly:
        yield f"{partly} {'question is' if partly == 1 else 'questions are'} repeated by some of the rewrites"


def _kind(name: str) -> str:
    """How VLGuard's id of a query ends, which tells the sort of question."""
    return name.rpartition("/")[2]
