"""The finding in words, and the order in which words are shown."""

from __future__ import annotations

from collections.abc import Sequence

from unmirage.audit.model.edits import Position
from unmirage.audit.model.results import Effect, ModelAudit
from unmirage.report.wording import listing

_PLACES: dict[Position, str] = {
    "opening": "at the opening",
    "begin": "put in at the beginning",
    "end": "put in at the end",
}


def headline(audit: ModelAudit) -> list[str]:
    """One sentence for each sort of questions, and one on whether any change does the same."""
    sentences = []
    for harmful in (True, False):
        mine = [one for one in audit.records if one.harmful == harmful and one.role == "candidate"]
        if mine:
            sentences.append(_sentence(mine, "harmful" if harmful else "harmless"))
    return sentences


def _sentence(records: Sequence[Effect], sort: str) -> str:
    parts = [
        *_cues(records, "refusal cue", "this model refuse"),
        *_cues(records, "compliance cue", "it answer"),
    ]
    changed = any(one.reading == "any change" and one.metric == "refusal" for one in records)
    control = " Other words change its refusals too, but no more than neutral words do." if changed else ""
    if not parts:
        return f"On {sort} questions no word moves its refusals beyond what neutral words do.{control}"
    return f"On {sort} questions, more than any neutral word in the same place, {', and '.join(parts)}.{control}"


def _cues(records: Sequence[Effect], reading: str, does: str, most: int = 4) -> list[str]:
    """What the words of one reading do, by any metric: the strongest first, each place once behind its words."""
    mine = sorted((one for one in records if one.reading == reading), key=lambda one: -abs(one.minus_control or 0.0))
    found = list(dict.fromkeys((one.position, one.word) for one in mine))
    if not found:
        return []
    words: dict[Position, list[str]] = {}
    for place, word in found[:most]:
        words.setdefault(place, []).append(f"“{word}”")
    rest = len(found) - most
    named = [f"{listing(some)} {_PLACES[place]}" for place, some in words.items()]
    others = [f"{rest} other{'s' if rest > 1 else ''}"] if rest > 0 else []
    return [f"{listing([*named, *others])} {'makes' if len(found) == 1 else 'make'} {does}"]


def order(one: Effect) -> tuple[str, bool, bool, float, str]:
    """Records by metric, harmful first, candidates before controls, the strongest first."""
    return (one.metric, not one.harmful, one.role == "control", -abs(one.minus_control or 0.0), one.word)
