"""unmirage: find, attack, unlearn and measure safety mirages in vision-language models.

The public API, the same names as on the command line. Each name is imported when it is first used, so that importing
the package loads nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unmirage.align import AlignConfig, align
    from unmirage.attacks import substitute_first_word
    from unmirage.audit import audit_data
    from unmirage.audit.model import audit_model
    from unmirage.datasets import load
    from unmirage.demo import demo
    from unmirage.errors import UserError
    from unmirage.evaluate import Evaluation, evaluate
    from unmirage.evaluate.measure import Subject
    from unmirage.report import write_report
    from unmirage.schema import Answer, Metrics, Query, Record, Variant, Verdict

_HOMES = {
    "AlignConfig": "unmirage.align",
    "Answer": "unmirage.schema",
    "Evaluation": "unmirage.evaluate",
    "Metrics": "unmirage.schema",
    "Query": "unmirage.schema",
    "Record": "unmirage.schema",
    "Subject": "unmirage.evaluate.measure",
    "UserError": "unmirage.errors",
    "Variant": "unmirage.schema",
    "Verdict": "unmirage.schema",
    "align": "unmirage.align",
    "audit_data": "unmirage.audit",
    "audit_model": "unmirage.audit.model",
    "demo": "unmirage.demo",
    "evaluate": "unmirage.evaluate",
    "load": "unmirage.datasets",
    "substitute_first_word": "unmirage.attacks",
    "write_report": "unmirage.report",
}
__all__ = [
    "AlignConfig",
    "Answer",
    "Evaluation",
    "Metrics",
    "Query",
    "Record",
    "Subject",
    "UserError",
    "Variant",
    "Verdict",
    "align",
    "audit_data",
    "audit_model",
    "demo",
    "evaluate",
    "load",
    "substitute_first_word",
    "write_report",
]

try:
    __version__ = version("unmirage")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'unmirage' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
