"""Two people's labels of one sample: how far they agree, what is settled, and the file that a judge is measured on."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unmirage.errors import UserError
from unmirage.labelling.marks import CHOICES, HARMS, Choice, Harm, Mark, Sample
from unmirage.labelling.session import Person
from unmirage.runs import digest_file, write_json, write_text
from unmirage.stats import Interval, cohen_kappa, weighted_rate, wilson

COLUMNS = (
    "question", "answer", "label", "harm", "weight", "settled", "label_1", "label_2", "harm_1", "harm_2", "note_1",
    "note_2", "query", "attack", "shot", "stratum",
)  # fmt: skip
LOW_KAPPA = 0.6
"""Kappa below which people agree too little; 0.61 and more is called substantial (Landis and Koch 1977)."""

AGREED, DECIDED, OPEN, UNSURE, MISSING = "agreed", "decided", "undecided", "cannot say", "not labelled by both"


@dataclass(frozen=True)
class Agreement:
    """Two people on the items that both put into a class; `table[i][j]`: the first said class i, the second j.

    `equal` is the share of equal classes (Wilson), `kappa` Cohen's; None where there is nothing to count, and for
    `kappa` where both used one class only. What either could not say is not in it.
    """

    classes: tuple[str, ...]
    table: tuple[tuple[int, ...], ...]
    n: int
    equal: Interval | None
    kappa: Interval | None


@dataclass(frozen=True)
class Settled:
    """What is held of one item. `state` and `harm_state` say how: AGREED, DECIDED (by the third person), or why not."""

    item: int
    choice: Choice | None
    state: str
    harm: Harm | None
    harm_state: str


@dataclass(frozen=True)
class Rate:
    """The share of one label among a part of the run's answers, as people see them.

    The interval reaches from the low end as if none of the `left_out` had the label to the high end as if all had.
    """

    harmful: bool
    attacked: bool
    label: str
    interval: Interval
    n: int
    left_out: int


@dataclass(frozen=True)
class Merged:
    """Two people's labels of one sample, settled as far as they are."""

    sample: Sample
    people: tuple[Person, Person]
    decider: Person | None
    choices: Agreement
    harms: Agreement
    settled: tuple[Settled, ...]

    @property
    def who(self) -> tuple[str, str]:
        """The two people's names."""
        return self.people[0].who, self.people[1].who

    @property
    def disputed(self) -> list[int]:
        """Items on whose label or harm the two disagree, "cannot say" against anything else included."""
        one, other = self.people
        pairs = [(item, one.mark(item), other.mark(item)) for item in range(len(self.sample.items))]
        return [item for item, a, b in pairs if a and b and (a.choice, a.harm) != (b.choice, b.harm)]

    @property
    def written(self) -> list[Settled]:
        """What goes out: items with a label that is settled and can be said."""
        return [one for one in self.settled if one.choice is not None]

    @property
    def counts(self) -> dict[str, int]:
        """Every item of the sample once for its label, and what is known of harm among those that go out."""
        states = Counter(one.state for one in self.settled)
        harms = Counter(one.harm is not None for one in self.written)
        decider = self.decider.who if self.decider else "a third person"
        return {
            "label agreed": states[AGREED],
            f"label decided by {decider}": states[DECIDED],
            "left out, as nobody has decided": states[OPEN],
            "left out, as they cannot say": states[UNSURE],
            "left out, as not labelled by both": states[MISSING],
            "written": len(self.written),
            "of these with harm settled": harms[True],
            "of these with harm left open": harms[False],
        }

    def said(self, item: int) -> str:
        """What the two said of an item, in words."""
        return "; ".join(f"{person.who}: {_words(person.mark(item))}" for person in self.people)

    def rates(self) -> list[Rate]:
        """Shares of labels and of harm by harmfulness and attack, weighted to all answers of the run."""
        return list(_rates(self))

    def warnings(self) -> list[str]:
        """What speaks against using these labels as they are."""
        found = []
        if (kappa := self.choices.kappa) is not None and kappa.value < LOW_KAPPA:
            found.append(
                f"the two agree little (kappa {kappa.value:.2f}, below {LOW_KAPPA}); talk about what the labels mean "
                "and label anew before a judge is measured on them."
            )
        left = self.counts["left out, as nobody has decided"]
        if left:
            found.append(
                f"{left} answers that the two disagree on are left out, and these are the hard ones: a judge will look "
                "better than it is; have them decided with --settle WHO or --third FILE."
            )
        missing = self.counts["left out, as not labelled by both"]
        if missing:
            found.append(f"{missing} answers are not labelled by both yet; go on with `unmirage label RUN`.")
        return found


def merge(one: Person, other: Person, decider: Person | None = None) -> Merged:
    """Pair the labels of two people, and let `decider` decide where they disagree.

    What both say alike is settled; what they disagree on and nobody decides stays open and is counted. Label and harm
    are settled apart. Raises UserError where the people are the same, the samples differ, or nothing is settled by
    anybody because the two have no item in common.
    """
    _check(one, other)
    if decider is not None:
        _check(one, decider)
        _check(other, decider)
    items = range(len(one.sample.items))
    pairs = [(a, b) for item in items if (a := one.mark(item)) and (b := other.mark(item))]
    if not pairs:
        raise UserError(f"{one.path} and {other.path} have no labelled answer in common; label more first.")
    return Merged(
        sample=one.sample,
        people=(one, other),
        decider=decider,
        choices=_agreement([(a.choice, b.choice) for a, b in pairs], list(CHOICES)),
        harms=_agreement([(a.harm, b.harm) for a, b in pairs], list(HARMS)),
        settled=tuple(_settle(item, one, other, decider) for item in items),
    )


def write_merged(found: Merged, out: Path) -> tuple[Path, Path]:
    """Write the settled labels as CSV for `unmirage judge calibrate`, and figures and digests beside it as JSON.

    Raises UserError where no label is settled, and where a file cannot be written.
    """
    if not found.written:
        raise UserError("no label is settled, so there is nothing to write; settle some with --settle WHO.")
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_row(found, one) for one in found.written)
    path = write_text(out, table.getvalue())
    return path, write_json(out.with_suffix(".json"), _figures(found, path))


def _check(one: Person, other: Person) -> None:
    if one.sample.id != other.sample.id:
        raise UserError(
            f"{other.path} holds labels of another sample ({other.sample.id}) than {one.path} ({one.sample.id}); both "
            "people need the same run, --sample, --seed and --stratify."
        )
    if one.who == other.who:
        raise UserError(f"{one.path} and {other.path} are both the labels of {one.who!r}; give two people's.")


def _agreement(pairs: Sequence[tuple[Any, Any]], classes: Sequence[Any]) -> Agreement:
    """Of pairs of classes of which the last, "cannot say", does not count."""
    known = classes[:-1]
    counts = Counter(pair for pair in pairs if pair[0] in known and pair[1] in known)
    table = tuple(tuple(counts[a, b] for b in known) for a in known)
    n = counts.total()
    return Agreement(
        classes=tuple(str(one) for one in known),
        table=table,
        n=n,
        equal=wilson(sum(counts[a, a] for a in known), n) if n else None,
        kappa=cohen_kappa(table) if n else None,
    )


def _settle(item: int, one: Person, other: Person, decider: Person | None) -> Settled:
    a, b, c = one.mark(item), other.mark(item), decider.mark(item) if decider else None
    if a is None or b is None:
        return Settled(item, None, MISSING, None, MISSING)
    choice, state = _decide(a.choice, b.choice, c and c.choice, Choice.CANNOT_SAY)
    harm, harm_state = _decide(a.harm, b.harm, c and c.harm, Harm.CANNOT_SAY)
    return Settled(item, choice, state, harm, harm_state)


def _decide(a: Any, b: Any, c: Any, unsure: Any) -> tuple[Any, str]:
    """What is held and how; nothing where it is open or cannot be said."""
    held, state = (a, AGREED) if a is b else (c, OPEN if c is None else DECIDED)
    return (None, UNSURE) if held is unsure else (held, state)


def _words(mark: Mark | None) -> str:
    if mark is None or mark.choice is None or mark.harm is None:
        return "no label"
    note = f" ({mark.note})" if mark.note else ""
    return f"{CHOICES[mark.choice][0]}, harm {HARMS[mark.harm]}{note}"


def _row(found: Merged, one: Settled) -> dict[str, Any]:
    item = found.sample.items[one.item]
    marks = [person.mark(one.item) for person in found.people]
    row: dict[str, Any] = {
        "question": item.question,
        "answer": item.answer,
        "label": one.choice,
        "harm": one.harm or "",
        "weight": f"{found.sample.weight(one.item):.6g}",
        "settled": one.state,
        "query": item.query,
        "attack": item.attack or "",
        "shot": item.shot,
        "stratum": found.sample.strata[item.stratum].name,
    }
    for number, mark in enumerate(marks, start=1):
        row |= {f"label_{number}": mark and mark.choice, f"harm_{number}": mark and mark.harm}
        row[f"note_{number}"] = mark.note if mark else ""
    return row


def _figures(found: Merged, path: Path) -> dict[str, Any]:
    people = [*found.people, *([found.decider] if found.decider else [])]
    sample = found.sample
    return {
        "schema": 1,
        "domain": sample.data,
        "run": sample.run,
        "sample": {"id": sample.id, "seed": sample.seed, "n": len(sample.items), "stratified": sample.stratified,
                   "answered": sample.answered, "planned": sample.planned, "cut": sample.cut},
        "people": [_person(person) for person in people],
        "answers_sha256": sample.answers,
        "labels_sha256": digest_file(path),
        "counts": found.counts,
        "label": found.choices,
        "harm": found.harms,
        "disagreements": [_dispute(found, index) for index in found.disputed],
        "rates": found.rates(),
        "strata": sample.strata,
    }  # fmt: skip


def _person(person: Person) -> dict[str, Any]:
    return {"who": person.who, "file": person.path.name, "sha256": digest_file(person.path)}


def _dispute(found: Merged, index: int) -> dict[str, Any]:
    item, one = found.sample.items[index], found.settled[index]
    return {
        "query": item.query,
        "attack": item.attack,
        "shot": item.shot,
        "said": {person.who: _mark(person.mark(index)) for person in found.people},
        "settled": {"label": one.choice, "how": one.state, "harm": one.harm, "how_harm": one.harm_state},
    }


def _mark(mark: Mark | None) -> dict[str, Any] | None:
    return None if mark is None else {"label": mark.choice, "harm": mark.harm, "note": mark.note}


def _rates(found: Merged) -> Iterator[Rate]:
    parts: dict[tuple[bool, bool], list[Settled]] = {}
    for one in found.settled:
        item = found.sample.items[one.item]
        parts.setdefault((item.harmful, item.attack is not None), []).append(one)
    for (harmful, attacked), ones in sorted(parts.items()):
        for label in list(Choice)[:-1]:
            yield from _rate(found.sample, ones, harmful, attacked, label.value, lambda one: one.choice, label)
        yield from _rate(found.sample, ones, harmful, attacked, "harm", lambda one: one.harm, Harm.YES)


def _rate(
    sample: Sample,
    ones: Sequence[Settled],
    harmful: bool,
    attacked: bool,
    name: str,
    held: Callable[[Settled], Hashable],
    wanted: Hashable,
) -> Iterator[Rate]:
    """One rate; none where no answer of this part is settled."""
    known = [one for one in ones if held(one) is not None]
    if not known:
        return
    weights = [sample.weight(one.item) for one in known]
    seen = weighted_rate([held(one) == wanted for one in known], weights)
    share = sum(weights) / sum(sample.weight(one.item) for one in ones)
    low, high = seen.low * share, seen.high * share + 1 - share
    yield Rate(harmful, attacked, name, Interval(seen.value, low, high, seen.n), len(known), len(ones) - len(known))
