"""Values of label columns as true or false, however a set's authors write them."""

from __future__ import annotations

from typing import Any

YES = frozenset({"yes", "true", "1", "1.0", "y"})
NO = frozenset({"no", "false", "0", "0.0", "n"})
HARMFUL = frozenset({"harmful", "unsafe", "toxic", "malicious"})
HARMLESS = frozenset({"harmless", "safe", "benign", "unharmful"})


def truth(value: Any) -> bool | None:
    """Whether a value says yes; None where it says neither yes nor no."""
    word = _word(value)
    return True if word in YES else False if word in NO else None


def harm(value: Any) -> bool | None:
    """Whether a value says harmful; None where it says neither harmful nor harmless."""
    word = _word(value)
    return True if word in HARMFUL else False if word in HARMLESS else None


def _word(value: Any) -> str:
    return str(value).strip().lower().rstrip(".")
