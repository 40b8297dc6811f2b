"""Which words move this model's refusals? Words exchanged and put in, against neutral words at the same place.

audit = audit_model(Plan("my-model", "questions"), queries, backend, judge, Path("runs/words"))
[one.word for one in audit.records if one.reading == "refusal cue"]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unmirage.audit.model.results import ModelAudit
    from unmirage.audit.model.run import Plan, audit_model

__all__ = ["ModelAudit", "Plan", "audit_model"]
_HOMES = {"ModelAudit": "results", "Plan": "run", "audit_model": "run"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: the command line's help must not wait for the libraries."""
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
