"""The finding in words, and the order in which words are shown."""

from __future__ import annotations

from collections.abc import Sequence

from unmirage.audit.model.results import Effect, ModelAudit
from unmirage.report.wording import listing


def headline(audit: ModelAudit) -> list[str]:
    """One sentence for each sort of questions, and one on whether any change does the same."""
    sentences = []
    for harmful in (True, False):
        mine = [one for one in audit.records if one.harmful == harmful and one.role == "candidate"]
        if mine:
            sentences.append(_sentence(mine, "harmful" if harmful else "harmless"))
    return sentences


def _sentence(records: Sequence[Effect], sort: str) -> str:
    refusing, complying = _cues(records, "refusal cue"), _cues(records, "compliance cue")
    parts = []
    if refusing:
        parts.append(f"{listing(refusing)} {'makes' if len(refusing) == 1 else 'make'} this model refuse")
    if complying:
        parts.append(f"{listing(complying)} {'makes' if len(complying) == 1 else 'make'} it answer")
    changed = any(one.reading == "any change" and one.metric == "refusal" for one in records)
    control = " Other words change its refusals too, but no more than neutral words do." if changed else ""
    if not parts:
        return f"On {sort} questions no word moves its refusals beyond what neutral words do.{control}"
    return f"On {sort} questions, more than any neutral word in the same place, {', and '.join(parts)}.{control}"


def _cues(records: Sequence[Effect], reading: str, most: int = 4) -> list[str]:
    """Words of one reading by any metric, the strongest first, with where they stand."""
    found = sorted((one for one in records if one.reading == reading), key=lambda one: -abs(one.minus_control or 0.0))
    places = {"opening": "at the opening", "begin": "put in at the beginning", "end": "put in at the end"}
    names = list(dict.fromkeys(f"“{one.word}” {places[one.position]}" for one in found))
    rest = len(names) - most
    return names[:most] + ([f"{rest} other{'s' if rest > 1 else ''}"] if rest > 0 else [])


def order(one: Effect) -> tuple[str, bool, bool, float, str]:
    """Records by metric, harmful first, candidates before controls, the strongest first."""
    return (one.metric, not one.harmful, one.role == "control", -abs(one.minus_control or 0.0), one.word)
