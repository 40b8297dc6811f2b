"""Weights stored in another precision; an adapter is merged with its model first, as it is for deployment."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from unmirage.backends.checkpoint import adapted
from unmirage.stress.models import loaded, made_model, saved
from unmirage.stress.protocol import Plan, StressConfig, Work
from unmirage.stress.registry import stress


class Precision(StressConfig):
    """dtype: what weights are stored in, and computed with; float32 for an adapter shows what merging alone does."""

    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"


@stress("precision", about="adapter merged, weights stored in another precision", config=Precision)
def precision(plan: Plan, config: Precision, work: Work) -> Plan:
    """The plan with the model whole and in that precision."""
    import torch

    def make(folder: Path) -> dict[str, Any]:
        model, processor = loaded(plan.folder)
        saved(model.to(getattr(torch, config.dtype)), processor, folder)
        return {"merged": adapted(plan.folder) is not None}

    return plan.about(made_model(work, plan.folder, make))
