"""Twin distance: the same activations for a question and for its one-word twin.

Pairing of representations in place of logits, after counterfactual logit pairing, Garg et al. 2019, arXiv 1809.10610.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from unmirage.align.objectives import objective
from unmirage.align.signals import PairedActivations, PairPositions


@dataclass(frozen=True, slots=True)
class TwinHiddenConfig:
    """layer: from 0. positions: "answer", or "prompt-end", where its first word is decided.

    teacher: the side that is held fixed: "origin", or neither ("both").
    """

    layer: Annotated[int, Field(ge=0)] = 7
    positions: PairPositions = "answer"
    teacher: Literal["origin", "both"] = "both"


@objective("twin-hidden", config=TwinHiddenConfig, signal="pair-activations")
def twin_hidden(policy: PairedActivations, reference: None, config: TwinHiddenConfig) -> Tensor:
    """Loss per pair, shape (batch,): mean over positions and features of (h_twin - h_origin)^2."""
    target = policy.origin.values
    return policy.twin.mean_square(target.detach() if config.teacher == "origin" else target)
