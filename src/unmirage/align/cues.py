"""Cues from an audit of data as settings: which opening words go with refusal, and which with compliance."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unmirage.audit.model.edits import bare
from unmirage.errors import UserError

REFUSAL, COMPLIANCE = "refusal_words", "compliance_words"
MOST = 20
"""Cues of each direction that are taken, those furthest from chance first."""
_PENDING = {REFUSAL: ("Share",), COMPLIANCE: ("What",)}


def with_cues(settings: Mapping[str, Any], audit: Path) -> dict[str, Any]:
    """The settings with `refusal_words` and `compliance_words` from an `audit.json`, where they lack them.

    Cues are opening words that are no content and go significantly with refusal or compliance. Which `words` twins get
    where none are set follows from method and cues, see `AlignConfig`.
    Raises UserError where the file is no audit of data, or has no cue.
    """
    return filled(settings, cues_of(audit))


def pending(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with words that stand for cues of an audit that is still to be made: to check all the others."""
    return filled(settings, _PENDING)


def filled(settings: Mapping[str, Any], cues: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The settings with the cues that they lack."""
    lacking = {name: words for name, words in cues.items() if words and not settings.get(name)}
    return {**settings, **lacking}


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
    with _whole(audit):
        cues = _single_openers(_read(audit))
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
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{audit} cannot be read as an audit ({error}); make one with `unmirage audit data`."
        ) from error
    if not isinstance(record, dict) or not isinstance(record.get("cues"), list) or record.get("target") != "refusal":
        raise UserError(
            f"{audit} is not the audit.json of an audit of one data set; make one with `unmirage audit data`."
        )
    return list(record["cues"])


@contextmanager
def _whole(audit: Path) -> Iterator[None]:
    """Makes one sentence of what a cue that lacks a field, or holds something else in one, leads to."""
    try:
        yield
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{audit}: a cue lacks a field ({error}); audit the data again.") from error


def _single_openers(cues: Sequence[Any]) -> list[Any]:
    """The significant cues that are one opening word without content."""
    return [
        cue
        for cue in cues
        if cue["position"] == "opening" and cue["shortcut"] and not cue["content_word"] and cue["cue"].isalpha()
    ]
