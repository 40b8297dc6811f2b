"""Cues from an audit of data as settings: which opening words go with refusal, and which with compliance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unmirage.align.methods import METHODS
from unmirage.audit.model.edits import bare
from unmirage.errors import UserError

REFUSAL, COMPLIANCE, WORDS = "refusal_words", "compliance_words", "words"
MOST = 20
"""Cues of each direction that are taken, those furthest from chance first."""
_PENDING = {REFUSAL: ("Share",), COMPLIANCE: ("What",)}


def with_cues(settings: Mapping[str, Any], audit: Path) -> dict[str, Any]:
    """The settings with `refusal_words`, `compliance_words` and `words` from an `audit.json`, where they lack them.

    Cues are opening words that are no content and go significantly with refusal or compliance. `words` are the method's
    own, and all cues.
    Raises UserError where the file is no audit of data, or has no cue that the settings lack.
    """
    return filled(settings, cues_of(audit))


def pending(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with words that stand for cues of an audit that is still to be made: to check all the others."""
    return filled(settings, _PENDING)


def filled(settings: Mapping[str, Any], cues: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The settings with the cues that they lack; `words` where they are missing: the method's own, and all cues."""
    known = dict(settings)
    known |= {name: words for name, words in cues.items() if words and not known.get(name)}
    usual = _usual_words(known.get("method"))
    if not known.get(WORDS) and (words := joined(usual, known.get(REFUSAL) or (), known.get(COMPLIANCE) or ())):
        known[WORDS] = words
    return known


def _usual_words(name: Any) -> Sequence[str]:
    """The words that a method has twins made with where none are set."""
    found: Sequence[str] = METHODS[name].settings.get(WORDS, ()) if isinstance(name, str) and name in METHODS else ()
    return found


def joined(*lists: Sequence[str] | str) -> tuple[str, ...]:
    """All words in their order, each once."""
    found: dict[str, str] = {}
    for words in lists:
        for word in [words] if isinstance(words, str) else words:
            found.setdefault(bare(word), word)
    return tuple(found.values())


def cues_of(audit: Path) -> dict[str, tuple[str, ...]]:
    """The cues of an `audit.json` by the setting that they belong to, capitalised; raises UserError where it has none.

    One direction may have none.
    """
    cues = _single_openers(audit, _read(audit))
    ordered = sorted(cues, key=lambda cue: (-abs(cue["z"] or 0.0), cue["cue"]))
    found = {
        name: tuple(cue["cue"].capitalize() for cue in ordered if cue["direction"] == direction)[:MOST]
        for name, direction in ((REFUSAL, "refusal"), (COMPLIANCE, "compliance"))
    }
    if not any(found.values()):
        raise UserError(
            f"{audit} has no opening word that goes with refusal or with compliance beyond chance: this data gives no "
            "mirage to repair. Audit the data that the model was tuned on, or name words yourself: "
            "--set refusal_words=Share --set compliance_words=What."
        )
    return found


def _read(audit: Path) -> list[Any]:
    try:
        record = json.loads(audit.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{audit} cannot be read as an audit ({error}); make one with `unmirage audit data`."
        ) from error
    if not isinstance(record, dict) or not isinstance(record.get("cues"), list) or record.get("target") != "refusal":
        raise UserError(
            f"{audit} is not the audit.json of an audit of one data set; make one with `unmirage audit data`."
        )
    return list(record["cues"])


def _single_openers(audit: Path, cues: Sequence[Any]) -> list[Any]:
    """The significant cues that are one opening word without content."""
    try:
        return [
            cue
            for cue in cues
            if cue["position"] == "opening" and cue["shortcut"] and not cue["content_word"] and cue["cue"].isalpha()
        ]
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{audit}: a cue lacks a field ({error}); audit the data again.") from error
