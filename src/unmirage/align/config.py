"""What decides an alignment run: one validated model, and what each method makes of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from unmirage.align.objectives import OBJECTIVES
from unmirage.align.objectives.ce import CEConfig
from unmirage.align.objectives.hidden import HiddenConfig
from unmirage.align.objectives.npo import NPOConfig
from unmirage.align.objectives.rmu import RMUConfig
from unmirage.align.signals import Positions, Reduction
from unmirage.align.trainer import Term
from unmirage.errors import UserError

Method = Literal["sft", "npo", "rmu"]
Positive = Annotated[float, Field(gt=0)]


class AlignConfig(BaseModel):
    """Settings of one run.

    steps: optimizer steps. lr: peak learning rate, cosine decay after `warmup` (a share of the steps).
    forget_weight, retain_weight: factors of the two losses of an unlearning method (alpha of RMU is retain_weight).
    beta, reduction: NPO. layer (from 0), coefficient, positions: RMU. train: which part may change: "decoder" (with
    the projector), "all" (vision tower too) or "rmu" (the chosen layer and the two below it).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Method
    steps: Annotated[int, Field(gt=0)] = 200
    lr: Positive = 3e-4
    batch_size: Annotated[int, Field(gt=0)] = 32
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    seed: Annotated[int, Field(ge=0)] = 0
    forget_weight: Positive = 1.0
    retain_weight: Annotated[float, Field(ge=0)] = 1.0
    beta: Positive = 0.1
    reduction: Reduction = "sum"
    layer: Annotated[int, Field(ge=0)] = 7
    coefficient: Positive = 20.0
    positions: Positions = "text"
    train: Literal["decoder", "all", "rmu"] = "decoder"
    save_steps: Annotated[int, Field(gt=0)] = 100

    def terms(self) -> list[Term]:
        """The loss of the method, as a sum of weighted objectives."""
        ce, hidden = OBJECTIVES["ce"], OBJECTIVES["hidden"]
        match self.method:
            case "sft":
                return [Term("train", ce, CEConfig())]
            case "npo":
                options = NPOConfig(self.beta, self.reduction)
                return [
                    Term("forget", OBJECTIVES["npo"], options, self.forget_weight),
                    Term("retain", ce, CEConfig(), self.retain_weight),
                ]
            case "rmu":
                steer = RMUConfig(self.coefficient, self.seed, self.positions)
                place = {"layer": self.layer, "positions": self.positions}
                keep = {"layer": self.layer, "positions": "text" if self.positions == "answer" else self.positions}
                return [
                    Term("forget", OBJECTIVES["rmu"], steer, self.forget_weight, **place),  # type: ignore[arg-type]
                    Term("retain", hidden, HiddenConfig(), self.retain_weight, **keep),  # type: ignore[arg-type]
                ]


def parse_settings(method: str, settings: list[str], seed: int) -> AlignConfig:
    """The configuration from `name=value` pairs as on the command line; raises UserError naming the faulty one."""
    values: dict[str, str | int] = {"method": method, "seed": seed}
    for setting in settings:
        name, sign, value = setting.partition("=")
        if not sign or not name:
            raise UserError(f"--set {setting!r} is not a setting; write it as --set lr=1e-4.")
        if name in values:
            raise UserError(f"{name} has an option of its own or is set twice; leave --set {setting} out.")
        if name not in AlignConfig.model_fields:
            raise UserError(f"there is no setting {name!r}; the settings are {', '.join(AlignConfig.model_fields)}.")
        values[name] = value
    try:
        return AlignConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise UserError(f"--set {name}={first['input']}: {first['msg']}.") from error
