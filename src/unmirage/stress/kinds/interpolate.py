"""Weights averaged with those of the model that it was made from, as merging of models does (Wortsman et al. 2021,
arXiv 2109.01903).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from unmirage.errors import UserError
from unmirage.stress.models import loaded, made_model, saved
from unmirage.stress.protocol import Plan, StressConfig, Work
from unmirage.stress.registry import stress


class Interpolate(StressConfig):
    """alpha: the share of the model that it was made from; 0 changes nothing, 1 is that model."""

    alpha: Annotated[float, Field(ge=0, le=1)] = 0.5


@stress("interpolate", about="weights averaged with those of its base", config=Interpolate, needs=("base",))
def interpolate(plan: Plan, config: Interpolate, work: Work) -> Plan:
    """The plan with (1 - alpha) times the model's weights plus alpha times its base's."""
    assert plan.base is not None  # it is needed
    base = plan.base

    def make(folder: Path) -> dict[str, Any]:
        model, processor = loaded(plan.folder)
        average(model, loaded(base)[0], config.alpha, base)
        saved(model, processor, folder)
        return {"alpha": config.alpha}

    return plan.about(made_model(work, plan.folder, make))


def average(model: Any, base: Any, alpha: float, name: Path) -> None:
    """Moves the model's weights that share `alpha` of the way to the base's, in float32; raises UserError where the two
    are not alike.
    """
    import torch

    mine, theirs = dict(model.named_parameters()), dict(base.named_parameters())
    odd = [key for key in mine if key not in theirs or theirs[key].shape != mine[key].shape]
    if odd or len(mine) != len(theirs):
        raise UserError(f"{name} has other weights than the model ({(odd or ['more of them'])[0]}); give its own base.")
    with torch.no_grad():
        for key, weight in mine.items():
            weight.copy_(torch.lerp(weight.float(), theirs[key].float(), alpha))
