"""The settings that a recipe's model is trained with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from unmirage.recipes.config import Model

if TYPE_CHECKING:
    from unmirage.align.config import AlignConfig


def align_settings(model: Model, seed: int, audit: Path | None = None) -> AlignConfig:
    """The checked settings, with the cues of an audit where the model names one; raises UserError naming a faulty one.

    Before the audit is made, without `audit`, words that stand for its cues take their place.
    """
    from unmirage.align.config import checked

    settings = dict(model.settings)
    if model.audit:
        from unmirage.align.cues import pending, with_cues

        settings = with_cues(settings, audit) if audit else pending(settings)
    return checked({**settings, "method": model.method, "seed": seed})
