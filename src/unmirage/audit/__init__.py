"""Audits: find the shortcut before it bites. Here: in data, without any model.

audit = audit_data(Source([Path("train.json")]))
audit.mirage_score.value, audit.mirage_score.majority
[cue.cue for cue in audit.cues if cue.shortcut]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unmirage.audit.data import Audit, audit_data
    from unmirage.audit.table import Columns, FrameSource, Source

__all__ = ["Audit", "Columns", "FrameSource", "Source", "audit_data"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: the command line's help must not wait for the libraries."""
    from importlib import import_module

    if name in ("Audit", "audit_data"):
        return getattr(import_module("unmirage.audit.data"), name)
    if name in ("Columns", "FrameSource", "Source"):
        return getattr(import_module("unmirage.audit.table"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
