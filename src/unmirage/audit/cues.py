"""Cues: each word, pair of words and surface feature with the refusals among the questions that have it.

What counts as content is decided by `lexicon`: a word of content that goes with refusal is what a safe model should
learn ("bomb"); a cue without content that still does so among questions with the same content is a shortcut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmirage.audit import evidence, lexicon, surface
from unmirage.audit.evidence import Floats
from unmirage.audit.strata import within_strata, within_weighted_strata
from unmirage.audit.tally import Bag, Counts, Keys, Presence, Sums, Tally, distinct, pairs_of
from unmirage.audit.words import Bools, Ints, Tokens
from unmirage.stats import benjamini_hochberg

MIN_N = 10
MOST_CUES = 2000
ALPHA = 0.05
EXAMPLES = 3
SEARCHED = 10_000
POSITIONS = ("opening", "anywhere", "bigram", "surface")


@dataclass(frozen=True)
class Example:
    """A question that has the cue, and whether it is refused."""

    question: str
    refused: bool
    id: str | None = None


@dataclass(frozen=True)
class Cue:
    """One cue: `n` questions have it, `rate` of them are refused (Wilson's interval), `lift` is rate / base rate.

    `z` is the competency statistic. `p` is exact; for a cue without content it is the larger one of that and of the
    test within strata of equal content, whose statistic is `z_given_content`. `q` corrects `p` for the number of cues
    (Benjamini and Hochberg). `shortcut`: no content, and q below 0.05. `mutual_information` is in bits.

    With weights `n` is still a count of rows; all else is weighted: the interval and `z` have the effective sample size
    `n_effective` (Kish), and `p` is that of `evidence.weighted_z`. Without weights `n_effective` is `n`.
    """

    cue: str
    position: str
    n: int
    rate: float
    low: float
    high: float
    lift: float
    z: float
    q: float
    direction: str
    content_word: bool
    kind: str
    shortcut: bool
    p: float
    z_given_content: float | None
    mutual_information: float
    n_effective: float
    examples: list[Example] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """The cue as `audit.json` has it."""
        return asdict(self)


@dataclass
class Family:
    """The cues of one position that have enough questions: codes (or keys of pairs), counts, sums and kinds."""

    position: str
    codes: Keys
    n: Ints
    k: Ints
    sums: Sums
    names: list[str]
    kinds: list[str]

    @property
    def content(self) -> Bools:
        """Which cues are content."""
        return np.array([kind == "content" for kind in self.kinds], dtype=np.bool_)


def families(tally: Tally, min_n: int) -> list[Family]:
    """All cues with at least `min_n` questions, by position; what all questions have or none says nothing."""
    words, kinds = tally.vocabulary.words, _kinds(tally)
    found = []
    for position, counts in (("opening", tally.opening), ("anywhere", tally.anywhere)):
        codes = _enough(counts, min_n, tally.n)
        names = [words[code] for code in codes.tolist()]
        own = [kinds[position][code] for code in codes.tolist()]
        found.append(
            Family(position, codes.astype(np.uint64), counts.n[codes], counts.k[codes], counts.sums[codes], names, own)
        )
    return [*found, _pairs(tally, min_n, kinds["anywhere"]), _surfaces(tally, min_n)]


def _kinds(tally: Tally) -> dict[str, list[str]]:
    """Kind of each word at the head and anywhere: what it is in most of the questions that have it."""
    head, inside = tally.vocabulary.kinds(leading=True), tally.vocabulary.kinds(leading=False)
    mostly = (2 * tally.leading.n > tally.anywhere.n).tolist()
    return {"opening": head, "anywhere": [a if m else b for a, b, m in zip(head, inside, mostly, strict=True)]}


def _enough(counts: Counts, min_n: int, total: int) -> Ints:
    return np.flatnonzero((counts.n >= min_n) & (counts.n < total))


def _pairs(tally: Tally, min_n: int, kind_of: list[str]) -> Family:
    pairs, words = tally.pairs, tally.vocabulary.words
    keep = np.flatnonzero((pairs.n >= min_n) & (pairs.n < tally.n))
    keys = pairs.keys[keep]
    first, second = (keys >> np.uint64(32)).tolist(), (keys & np.uint64(0xFFFFFFFF)).tolist()
    names = [f"{words[a]} {words[b]}" for a, b in zip(first, second, strict=True)]
    kinds = [_pair_kind(kind_of[a], kind_of[b]) for a, b in zip(first, second, strict=True)]
    n, k = pairs.n[keep].astype(np.int64), pairs.k[keep].astype(np.int64)
    sums = np.zeros((len(keep), 0)) if pairs.sums is None else pairs.sums[keep]
    return Family("bigram", keys, n, k, sums, names, kinds)


def _pair_kind(first: str, second: str) -> str:
    kinds = {first, second}
    if "content" in kinds:
        return "content"
    return next(kind for kind in ("instruction", "polite", "function") if kind in kinds)


def _surfaces(tally: Tally, min_n: int) -> Family:
    codes = _enough(tally.surface, min_n, tally.n)
    names = [surface.NAMES[code] for code in codes.tolist()]
    counts = tally.surface
    kinds = ["surface"] * len(names)
    n, k, sums = counts.n[codes], counts.k[codes], counts.sums[codes]
    return Family("surface", codes.astype(np.uint64), n, k, sums, names, kinds)


def incidence(family: Family, bag: Bag, words: Presence) -> tuple[Ints, Ints]:
    """Pairs (row of the bag, place in the family) in which the row has the cue, each once."""
    tokens = bag.tokens
    if family.position == "surface":
        found = [np.flatnonzero(surface.has(bag.bits, int(code))) for code in family.codes]
        places = [np.full(len(rows), place) for place, rows in enumerate(found)]
        return np.concatenate([*found, np.zeros(0, np.int64)]), np.concatenate([*places, np.zeros(0, np.int64)])
    if family.position == "bigram":
        return _pair_incidence(family, tokens)
    if family.position == "opening":
        first = tokens.nth(0)
        return _looked_up(family, np.flatnonzero(first >= 0), first[first >= 0])
    return _looked_up(family, *words.words())


def _pair_incidence(family: Family, tokens: Tokens) -> tuple[Ints, Ints]:
    size = max(1, len(family.codes))
    parts = [np.zeros(0, dtype=np.int64)]
    for first, _, block in tokens.blocks():
        rows, keys = pairs_of(block)
        place, there = _places(family.codes, keys)
        parts.append((rows[there] + first) * size + place[there])
    both = distinct(np.concatenate(parts))
    return both // size, both % size


def _looked_up(family: Family, rows: NDArray[np.integer], codes: NDArray[np.integer]) -> tuple[Ints, Ints]:
    """The pairs of row and place for those codes that the family has."""
    place_of = np.full(max(int(codes.max(initial=0)), int(family.codes.max(initial=0))) + 1, -1, dtype=np.int64)
    place_of[family.codes.astype(np.int64)] = np.arange(len(family.codes))
    places = place_of[codes]
    there = places >= 0
    return rows[there].astype(np.int64), places[there]


def _places(known: Keys, keys: Keys) -> tuple[Ints, Bools]:
    """Place of each key in the ascending `known`, and whether it is there."""
    if not len(known):
        return np.zeros(len(keys), dtype=np.int64), np.zeros(len(keys), dtype=np.bool_)
    place = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return place, known[place] == keys


def without_content(family: Family) -> Family:
    """Only the cues that are no content."""
    keep = np.flatnonzero(~family.content)
    names, kinds = [family.names[i] for i in keep], [family.kinds[i] for i in keep]
    return Family(family.position, family.codes[keep], family.n[keep], family.k[keep], family.sums[keep], names, kinds)


def cue_table(
    tally: Tally, bag: Bag, words: Presence, strata: Ints, min_n: int, directions: tuple[str, str]
) -> tuple[list[Cue], int]:
    """The cues, the largest |z| first, and how many were tested; where they are too many the least remarkable are
    left out. `directions` names what more and fewer refusals than usual mean.
    """
    found = families(tally, min_n)
    given = [_given_content(family, bag, words, strata) for family in found]
    p = np.concatenate([_p_values(family, z, tally) for family, z in zip(found, given, strict=True)])
    q = np.array(benjamini_hochberg(p.tolist()))
    z = np.concatenate([Rates.of(family, tally).z for family in found])
    content = np.concatenate([family.content for family in found])
    listed = np.zeros(len(p), dtype=np.bool_)
    listed[np.lexsort((-np.abs(z), q >= ALPHA, content | (q >= ALPHA)))[:MOST_CUES]] = True
    cues: list[Cue] = []
    start = 0
    for family, own in zip(found, given, strict=True):
        here = slice(start, start + len(family.codes))
        cues += _cues(family, np.flatnonzero(listed[here]), own, p[here], q[here], tally, directions)
        start += len(family.codes)
    return sorted(cues, key=lambda cue: (-abs(cue.z), POSITIONS.index(cue.position), cue.cue)), len(p)


def _given_content(family: Family, bag: Bag, words: Presence, strata: Ints) -> Floats:
    """Statistic within strata of each cue without content; NaN for content."""
    z = np.full(len(family.codes), np.nan)
    plain = without_content(family)
    rows, places = incidence(plain, bag, words)
    size = len(plain.codes)
    z[~family.content] = (
        within_strata(rows, places, size, strata, bag.labels)
        if bag.weights is None
        else within_weighted_strata(rows, places, size, strata, bag.labels, bag.weights)
    )
    return z


@dataclass(frozen=True)
class Rates:
    """Refusals among the questions of each cue of a family: `k` of `n`, or what stands for these with weights.

    There `n` is the effective sample size and k / n the weighted rate; `base` is the weighted rate of all rows.
    """

    k: Floats | Ints
    n: Floats | Ints
    base: float
    mutual_information: Floats

    @staticmethod
    def of(family: Family, tally: Tally) -> Rates:
        """The rates of all cues of a family."""
        if not family.sums.shape[1]:
            bits = evidence.mutual_information(family.k, family.n, tally.k, tally.n)
            return Rates(family.k, family.n, tally.k / tally.n, bits)
        weight, refused, squares, _ = family.sums.T
        total, total_refused = float(tally.sums[0]), float(tally.sums[1])
        n = evidence.kish(weight, squares)
        bits = evidence.mutual_information(refused, weight, total_refused, total)
        return Rates(n * (refused / weight), n, total_refused / total, bits)

    @property
    def z(self) -> Floats:
        """Competency statistic of each cue."""
        return evidence.competency_z(self.k, self.n, self.base)


def _p_values(family: Family, given: Floats, tally: Tally) -> Floats:
    if family.sums.shape[1]:
        p = evidence.normal_p(evidence.weighted_z(family.sums, tally.sums))
    else:
        p = evidence.hypergeometric_p(family.k, family.n, tally.k, tally.n)
    plain = ~family.content
    p[plain] = np.maximum(p[plain], evidence.normal_p(given[plain]))
    return p


def _cues(
    family: Family, places: Ints, given: Floats, p: Floats, q: Floats, tally: Tally, directions: tuple[str, str]
) -> list[Cue]:
    """The cues of a family at some places; the arrays have one entry for each cue of the family."""
    rates = Rates.of(family, tally)
    n, k = rates.n[places], rates.k[places]
    low, high = evidence.wilson_many(k, n)
    z, rate = rates.z[places], k / n
    return [
        Cue(
            cue=family.names[place],
            position=family.position,
            n=int(family.n[place]),
            rate=float(rate[i]),
            low=float(low[i]),
            high=float(high[i]),
            lift=float(rate[i] / rates.base),
            z=float(z[i]),
            q=float(q[place]),
            direction=directions[0] if z[i] > 0 else directions[1],
            content_word=family.kinds[place] == "content",
            kind=family.kinds[place],
            shortcut=family.kinds[place] != "content" and bool(q[place] < ALPHA),
            p=float(p[place]),
            z_given_content=None if np.isnan(given[place]) else float(given[place]),
            mutual_information=float(rates.mutual_information[place]),
            n_effective=float(n[i]),
        )
        for i, place in enumerate(places.tolist())
    ]


def example_rows(tally: Tally, bag: Bag, words: Presence, cues: Sequence[Cue]) -> list[list[int]]:
    """For each cue up to three rows of the bag that have it: two that go along with it, one that does not."""
    found: dict[tuple[str, str], list[int]] = {}
    along = {(cue.position, cue.cue): cue.z > 0 for cue in cues}
    for position in POSITIONS:
        wanted = [cue for cue in cues if cue.position == position]
        family = _family_of(position, wanted, tally)
        rows, places = incidence(family, bag, words)
        order = np.argsort(places, kind="stable")
        rows = rows[order]
        starts = np.searchsorted(places[order], np.arange(len(family.codes) + 1))
        for place, name in enumerate(family.names):
            own = rows[starts[place] : min(starts[place + 1], starts[place] + SEARCHED)]
            fits = bag.labels[own] == along[position, name]
            against = own[~fits][:1].tolist()
            found[position, name] = own[fits][: EXAMPLES - len(against)].tolist() + against
    return [found[cue.position, cue.cue] for cue in cues]


def _family_of(position: str, cues: Sequence[Cue], tally: Tally) -> Family:
    coded = sorted((_code(position, cue.cue, tally), cue.cue) for cue in cues)
    codes = np.array([code for code, _ in coded], dtype=np.uint64)
    zeros = np.zeros(len(coded), dtype=np.int64)
    sums = np.zeros((len(coded), 0))
    return Family(position, codes, zeros, zeros, sums, [name for _, name in coded], ["function"] * len(coded))


def _code(position: str, name: str, tally: Tally) -> int:
    if position == "surface":
        return surface.NAMES.index(name)
    codes = [tally.vocabulary.code(word) or 0 for word in name.split(" ")]
    return codes[0] if position != "bigram" else codes[0] << 32 | codes[1]


def with_examples(cue: Cue, examples: list[Example]) -> Cue:
    """The cue with its examples."""
    return replace(cue, examples=examples)


__all__ = ["Cue", "Example", "cue_table", "example_rows", "families", "lexicon", "with_examples"]
