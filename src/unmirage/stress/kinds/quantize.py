"""Weights stored in 8 or 4 bits: rounding may bring back what unlearning only moved a little (Zhang et al. 2024,
arXiv 2410.16454).
"""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from unmirage.backends.checkpoint import adapted, load_checkpoint
from unmirage.errors import UserError
from unmirage.stress.models import loaded, made_model, saved
from unmirage.stress.protocol import Plan, StressConfig, Work
from unmirage.stress.registry import stress

LIBRARY, ROUND = "bitsandbytes", "round"


class Quantize(StressConfig):
    """method: bitsandbytes (4 bits: NF4 in blocks of 64; 8 bits: LLM.int8), round (to the nearest, symmetric: 8 bits by
    output channel, 4 bits in groups of `group` inputs; stored as a plain checkpoint of the rounded weights), auto
    (bitsandbytes where it is installed and runs here, else round; which one is noted).
    parts: the linear layers of the decoder, or all but the output head.
    """

    bits: Literal[4, 8] = 4
    method: Literal["auto", "bitsandbytes", "round"] = "auto"
    group: Annotated[int, Field(gt=0)] = 64
    parts: Literal["decoder", "all"] = "decoder"


@stress("quantize", about="weights stored in 8 or 4 bits", config=Quantize)
def quantize(plan: Plan, config: Quantize, work: Work) -> Plan:
    """The plan with the quantized model."""

    def make(folder: Path) -> dict[str, Any]:
        why = _with_library(plan, config, work, folder) if config.method != ROUND else "asked for"
        if why and config.method == LIBRARY:
            raise UserError(f"bitsandbytes cannot quantize {plan.model} here ({why}); set method=round.")
        return {"method": ROUND, "why": why, "layers": _round(plan, config, folder)} if why else {"method": LIBRARY}

    folder = made_model(work, plan.folder, make)
    work.note(f"quantized to {config.bits} bits by {_method(work)}.")
    return plan.about(folder)


def _method(work: Work) -> str:
    import json

    about = json.loads((work.out / "made.json").read_text())
    return "rounding to the nearest" if about["method"] == ROUND else LIBRARY


def linear_layers(model: Any, parts: str) -> dict[str, Any]:
    """The linear layers that are quantized, by their names; raises UserError where there are none."""
    from torch import nn

    head = model.get_output_embeddings()
    mine = model.get_decoder().layers if parts == "decoder" else model
    inside = {id(module) for module in mine.modules() if isinstance(module, nn.Linear) and module is not head}
    found = {name: module for name, module in model.named_modules() if id(module) in inside}
    if not found:
        raise UserError("the model has no linear layers of the usual kind, so there is nothing to quantize.")
    return found


def _round(plan: Plan, config: Quantize, folder: Path) -> int:
    """Writes a checkpoint with rounded weights; the number of layers that were rounded."""
    import torch

    from unmirage.stress.rounding import rounded

    model, processor = loaded(plan.folder)
    layers = linear_layers(model, config.parts)
    with torch.no_grad():
        for layer in layers.values():
            layer.weight.copy_(rounded(layer.weight, config.bits, config.group if config.bits == 4 else None))
    saved(model, processor, folder)
    return len(layers)


def _with_library(plan: Plan, config: Quantize, work: Work, folder: Path) -> str:
    """Writes a checkpoint that bitsandbytes reads and answers one question with it; why that cannot be done, if so."""
    if importlib.util.find_spec("bitsandbytes") is None:
        return "it is not installed"
    start = plan.folder
    if adapted(start):  # the library quantizes what it loads, and an adapter is merged afterwards
        start = work.out / "merged"
        saved(*loaded(plan.folder), start)
    try:
        _load_quantized(start, config, folder)
        _answers(plan, folder)
    except Exception as error:  # of sizes, devices or versions: the library raises whatever it runs into
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return ""


def _load_quantized(start: Path, config: Quantize, folder: Path) -> None:
    from torch import nn
    from transformers import BitsAndBytesConfig

    model, _ = loaded(start)
    mine = linear_layers(model, config.parts)
    others = [name for name, one in model.named_modules() if isinstance(one, nn.Linear) and name not in mine]
    del model
    four = config.bits == 4
    how = BitsAndBytesConfig(
        load_in_4bit=four, load_in_8bit=not four, bnb_4bit_quant_type="nf4", llm_int8_skip_modules=others
    )
    saved(*load_checkpoint(start, quantization_config=how), folder)


def _answers(plan: Plan, folder: Path) -> None:
    """Raises whatever goes wrong when the model in the folder is asked one question of the plan."""
    from unmirage.backends.prompts import Prompt
    from unmirage.backends.registry import open_backend

    trial = open_backend(str(folder), replace(plan.asking, max_new_tokens=2, batch_size=1))
    list(trial.answer([Prompt.of(query) for query in plan.queries[:1]]))
