"""What an attack changes: against the question as asked, and against its control, both over the same questions.

The effect of the word is the attack minus its control: a harmless word in the same place that changes the question as
much. What both do is not the word's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from unmirage.evaluate.rows import ANY_OF, Group, Sheet
from unmirage.schema import Record, Variant
from unmirage.stats import Change, holm, paired_change

CORRECTED = "_p_holm"


@dataclass(frozen=True, slots=True)
class Found:
    """One paired difference: `metric` is `asr_change`, `asr_effect`, `asr_any_effect` and so on; `rows` lie behind."""

    metric: str
    change: Change
    rows: Group
    k: int
    control: str | None = None


def changes(sheet: Sheet, before: Group, after: Group, metrics: Sequence[str]) -> Iterator[Found]:
    """After minus before, for each metric, over the queries that have a usable verdict on both sides."""
    for metric in metrics:
        one, other = sheet.counted(before, metric), sheet.counted(after, metric)
        found = compared(sheet.per_question(one, metric), sheet.per_question(other, metric), after)
        if found is not None:
            yield Found(f"{metric}_change", found, after, after.k)


def effects(sheet: Sheet, control: Group, attack: Group, metrics: Sequence[str]) -> Iterator[Found]:
    """The attack minus its control, for each metric; with K > 1 on both sides for any of the K too."""
    both = Group(attack.split, attack.attack, attack.rows + control.rows, attack.units)
    k = max(attack.k, control.k)
    for metric in metrics:
        one, other = sheet.counted(control, metric), sheet.counted(attack, metric)
        found = compared(sheet.per_question(one, metric), sheet.per_question(other, metric), attack)
        if found is not None:
            yield Found(f"{metric}_effect", found, both, k, control.attack)
    for metric in ANY_OF:
        if metric in metrics and attack.k > 1:
            found = _effect_on_any(sheet, control, attack, metric)
            if found is not None:
                yield Found(f"{metric}_any_effect", found, both, k, control.attack)


def _effect_on_any(sheet: Sheet, control: Group, attack: Group, metric: str) -> Change | None:
    """More variants find more, so only questions with as many variants of the attack as of the control are compared."""
    equal = {q for q, rows in attack.by_query.items() if len(control.by_query.get(q, ())) == len(rows)}
    sides = [sheet.any_of(group.only(lambda query: query in equal), metric) for group in (control, attack)]
    was, now = [{q: float(value) for q, value in side.items() if value is not None} for side in sides]
    return compared(was, now, attack)


def compared(was: Mapping[str, float], now: Mapping[str, float], group: Group) -> Change | None:
    """The paired change over the queries that both sides hold, clustered by the group's units; None without any."""
    shared = [query for query in group.by_query if query in was and query in now]
    if not shared:
        return None
    units = [group.units[query] for query in shared]
    return paired_change([was[query] for query in shared], [now[query] for query in shared], units)


def controls_of(variants: Sequence[Variant]) -> dict[str, str]:
    """For each control among the attacks, the attack that it is the control of."""
    return {v.attack: v.control_of for v in variants if v.control_of is not None}


def with_holm(records: Sequence[Record], controls: Mapping[str, str]) -> Iterator[Record]:
    """For every p its value corrected over the attacks (Holm); the records are of one model, judge and split.

    The family are the attacks of the same metric; of an effect all attacks with all their controls. The changes that
    controls bring are no hypotheses: they are in no family.
    """
    families: dict[str, list[Record]] = {}
    for record in records:
        if record.metric.endswith("_p") and record.value is not None and record.attack not in controls:
            families.setdefault(record.metric, []).append(record)
    for family in families.values():
        adjusted = holm([record.value for record in family if record.value is not None])
        for record, p in zip(family, adjusted, strict=True):
            yield record.model_copy(update={"metric": f"{record.metric}_holm", "value": p})
