"""Chooses the examples without looking at any answer, and prepares what the page shows of them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from unmirage.report.edits import Phrases, phrases
from unmirage.report.images import Picture, embed
from unmirage.report.load import Row, RunData
from unmirage.report.wording import printable
from unmirage.schema import Answer, Label, Query, Variant, Verdict, content_hash

SHOWN_CHARACTERS = 280
UNUSABLE = {Label.ERROR, Label.UNPARSED}
REFUSED = {Label.REFUSAL, Label.FILTERED}
CHIPS = {
    Label.REFUSAL: "refused",
    Label.PARTIAL: "answered in part",
    Label.COMPLIANCE: "answered",
    Label.IRRELEVANT: "off topic",
    Label.FILTERED: "held back by a filter",
    Label.ERROR: "error",
    Label.UNPARSED: "verdict unreadable",
}


@dataclass(frozen=True)
class Marked:
    """A question cut at the word that the attack changes."""

    start: str
    word: str
    end: str


@dataclass(frozen=True)
class Chip:
    """A judge's verdict as a small label."""

    judge: str
    text: str
    tone: str
    why: str


@dataclass(frozen=True)
class Reply:
    """One model's answer: its text or why there is none, and what the judges say."""

    state: str
    text: str
    rest: str
    characters: int
    chip: Chip | None
    others: list[Chip]


@dataclass(frozen=True)
class Exchange:
    """One model's replies before and after."""

    model: str
    before: Reply
    after: Reply | None


@dataclass(frozen=True)
class Example:
    """One query with its picture, both wordings and every model's replies; `said` tells what the attack did to it."""

    query: Query
    picture: Picture | None
    before: Marked
    after: Marked | None
    exchanges: list[Exchange]
    said: Phrases


Attacks = Mapping[bool, str | None]


def choose(runs: Sequence[RunData], attacks: Attacks, count: int) -> list[Query]:
    """`count` queries that all runs asked, by hash of id, taking turns over harmfulness, subset and split."""
    strata: dict[tuple[bool, str, str], list[Query]] = defaultdict(list)
    for query in sorted(_candidates(runs, attacks), key=lambda query: content_hash(query.id)):
        strata[(query.harmful, query.subset or "", query.split or "")].append(query)
    ordered = sorted(strata)
    kinds = [[strata[key] for key in ordered if key[0] is harmful] for harmful in (True, False)]
    groups = [group for pair in zip_longest(*kinds) for group in pair if group]
    turns = [query for turn in zip_longest(*groups) for query in turn if query is not None]
    return turns[:count]


def _candidates(runs: Sequence[RunData], attacks: Attacks) -> list[Query]:
    first, *others = runs
    shared = [query for query in first.queries.values() if all(_asked(other, query) for other in others)]
    changed = {v.origin.id for v in first.variants if v.attack == attacks[v.origin.harmful] and not v.is_origin}
    chosen = []
    for harmful in (True, False):
        kind = [query for query in shared if query.harmful is harmful]
        chosen += [query for query in kind if query.id in changed] or kind
    return chosen


def _asked(run: RunData, query: Query) -> bool:
    other = run.queries.get(query.id)
    return other is not None and (other.question, other.harmful) == (query.question, query.harmful)


def build(runs: Sequence[RunData], queries: Sequence[Query], attacks: Attacks, judge: str, show: bool) -> list[Example]:
    """What the page shows of the chosen queries."""
    pictures = embed(query.image for query in queries)
    return [
        _example(runs, query, attacks[query.harmful], pictures.get(query.image) if query.image else None, judge, show)
        for query in queries
    ]


def _variant(runs: Sequence[RunData], query: Query, attack: str | None) -> Variant | None:
    wanted = (query.id, attack)
    found = [v for run in runs for v in run.variants if (v.origin.id, v.attack) == wanted]
    # One that repeats its question shows nothing of the attack, so any other goes before it.
    return min(found, key=lambda variant: (variant.is_origin, variant.shot), default=None)


def _example(
    runs: Sequence[RunData], query: Query, attack: str | None, picture: Picture | None, judge: str, show: bool
) -> Example:
    variant = _variant(runs, query, attack)
    after = (query.id, variant.attack, variant.shot) if variant else None
    exchanges = [
        Exchange(
            run.label,
            reply(run, query, (query.id, None, 0), judge, show),
            reply(run, query, after, judge, show) if after else None,
        )
        for run in runs
    ]
    before, changed = _marked(query, variant)
    said = phrases([attack], [variant] if variant else [v for run in runs for v in run.variants])
    return Example(query, picture, before, changed, exchanges, said)


def _marked(query: Query, variant: Variant | None) -> tuple[Marked, Marked | None]:
    """Both wordings, each cut at the word that only it has; none is marked in other wordings altogether."""
    if variant is None:
        return mark(query.question, 0), None
    before = variant.position if variant.edit in ("substitute", "delete") else None
    after = variant.position if variant.edit in ("substitute", "insert") else None
    return mark(query.question, before), mark(variant.question, after)


def mark(question: str, position: int | None) -> Marked:
    """Cut a question at its word number `position`; None marks no word."""
    question = printable(question)
    words = list(re.finditer(r"\S+", question))
    if position is None or position >= len(words):
        return Marked("", "", question)
    word = words[position]
    return Marked(question[: word.start()], word.group(), question[word.end() :])


def reply(run: RunData, query: Query, row: Row, judge: str, show: bool) -> Reply:
    """One row's answer; harmful text is replaced by its length unless `show`."""
    verdicts = {name: rows[row] for name, rows in run.verdicts.items() if row in rows}
    answer = run.answers.get(row)
    hidden = bool(answer) and query.harmful and not show and must_redact(verdicts, judge)
    chips = {name: _chip(verdict, query, hidden) for name, verdict in sorted(verdicts.items())}
    main = chips.pop(judge, None)
    # A judge that agrees says nothing new; the tables have every judge's figures.
    agreed = verdicts[judge].label if main else None
    others = [chip for name, chip in chips.items() if verdicts[name].label is not agreed]
    return _reply(answer, hidden, main, others)


def _reply(answer: Answer | None, hidden: bool, chip: Chip | None, others: list[Chip]) -> Reply:
    if answer is None:
        return Reply("missing", "", "", 0, chip, others)
    if answer.error is not None:
        return Reply("error", printable(answer.error), "", 0, chip, others)
    if answer.finish == "filter" and not answer.text:
        return Reply("error", "a content filter of the service held it back", "", 0, chip, others)
    if hidden:
        return Reply("redacted", "", "", len(answer.text), chip, others)
    text = printable(answer.text)
    cut = SHOWN_CHARACTERS if len(text) > SHOWN_CHARACTERS * 1.2 else len(text)
    return Reply("text", text[:cut], text[cut:], len(answer.text), chip, others)


def must_redact(verdicts: Mapping[str, Verdict], judge: str) -> bool:
    """Whether an answer to a harmful query may not be shown.

    Harm seen by any judge hides it. "compliance" hides it too; a keyword judge calls everything that
    is not a refusal so, hence a headline judge that did look at harm has the last word on it. What no
    judge could label stays hidden, and so does what came through before a service's filter cut it off.
    """
    usable = {name: v for name, v in verdicts.items() if v.label not in UNUSABLE and v.label is not Label.FILTERED}
    if not usable or any(verdict.harm for verdict in usable.values()):
        return True
    main = usable.get(judge)
    deciding: Iterable[Verdict] = [main] if main and main.harm is not None else usable.values()
    return any(verdict.label is Label.COMPLIANCE for verdict in deciding)


def _chip(verdict: Verdict, query: Query, hidden: bool) -> Chip:
    text = CHIPS[verdict.label]
    if _is_garbled(verdict, query):
        text += ", garbled"
    if verdict.harm:
        text += ", harmful"
    elif verdict.score is not None:
        text += f", score {verdict.score:.2g}"
    elif verdict.correct is not None and verdict.label is not Label.REFUSAL and not query.harmful:
        text += ", correct" if verdict.correct else ", wrong"
    # A judge's reason may quote the answer.
    why = "" if hidden else printable(verdict.why)
    return Chip(verdict.judge, text, _tone(verdict, query), why)


def _is_garbled(verdict: Verdict, query: Query) -> bool:
    """Whether a harmful question got a refusal that the judge knows to be no whole one."""
    return query.harmful and verdict.label is Label.REFUSAL and verdict.correct is False


def _tone(verdict: Verdict, query: Query) -> str:
    if verdict.label in UNUSABLE:
        return "unknown"
    if query.harmful:
        good, bad = verdict.label in REFUSED and not _is_garbled(verdict, query), bool(verdict.harm)
    else:
        good, bad = bool(verdict.correct) or verdict.score == 1, verdict.label in REFUSED
    return "bad" if bad else "good" if good else "middling"
