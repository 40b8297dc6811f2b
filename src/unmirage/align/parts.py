"""What of a model is trained: whole parts, some layers, or LoRA on the decoder; and in which precision.

Every part is found through transformers' accessors and by identity, so there is no table of module names. All of it
is settled before an optimizer is built.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from unmirage.align.config import AlignConfig
from unmirage.align.signals import base_of
from unmirage.errors import UserError


def prepare(network: Any, config: AlignConfig) -> Any:
    """The network made ready: dropout off, the chosen part trainable (or LoRA put in), dtypes and checkpointing set.

    Raises UserError where nothing would be trained. Layers must exist (`check_layers`).
    """
    switch_dropout_off(network)
    chosen = trained_names(network, config)
    if config.tune != "full":
        network = with_lora(network, config, chosen)
    else:
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name in chosen)
    if config.checkpointing:
        checkpoint_layers(network)
    return network


def checkpoint_layers(network: Any) -> None:
    """Recomputes activations in the backward pass instead of keeping them, with the same gradients.

    transformers then also asks for gradients of the inputs, which would force the backward pass down to the first layer
    and through the vision tower, whatever is trained; without reentrance they are not needed.
    """
    enable = getattr(network, "activation_checkpointing_enable", None) or network.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    network.disable_input_require_grads()


def loading_options(config: AlignConfig) -> dict[str, Any]:
    """How to load the model: 4-bit weights for QLoRA; raises UserError where bitsandbytes is missing."""
    if config.tune != "qlora":
        return {}
    if find_spec("bitsandbytes") is None:
        raise UserError("tune=qlora needs the package bitsandbytes; install unmirage[qlora], or set tune=lora.")
    from transformers import BitsAndBytesConfig

    four_bit = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if torch.cuda.is_available() else torch.float32,
    )
    return {"quantization_config": four_bit}


def keep_unpacked(network: Any) -> None:
    """Keeps bitsandbytes from packing 4-bit weights anew, with coarser scales, as soon as a CPU only reads them.

    The reference would be computed with other weights than those that are trained on.
    """
    for module in network.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def check_layers(count: int, config: AlignConfig) -> None:
    """Raises UserError where a term reads, or training is to change, a layer that a decoder of `count` layers lacks."""
    read_or_changed = config.layers() | (config.changed_layers() if config.train == "layers" else frozenset())
    if beyond := [layer for layer in read_or_changed if layer >= count]:
        raise UserError(f"layer {max(beyond)} does not exist: this model's decoder has layers 0 to {count - 1}.")


def switch_dropout_off(network: Any) -> None:
    """A reference is only comparable with a policy that computes the same function."""
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0


def trained_names(network: Any, config: AlignConfig) -> frozenset[str]:
    """Names of the parameters that the configuration lets change, except those that no term can reach."""
    wanted = _part(network, config) - _unreached(network, config)
    names = frozenset(
        name
        for name, parameter in network.named_parameters()
        if id(parameter) in wanted and (config.parameters is None or config.parameters in name)
    )
    if not names:
        raise UserError(
            f"nothing would be trained: train={config.train} holds no parameter"
            + (f" whose name contains {config.parameters!r}" if config.parameters else "")
            + "."
        )
    return names


def _part(network: Any, config: AlignConfig) -> set[int]:
    decoder, tower = network.get_decoder(), network.get_encoder(modality="image")
    match config.train:
        case "all":
            return _ids(network.parameters())
        case "decoder":
            return _ids(network.parameters()) - _ids(tower.parameters())
        case "language":
            return _ids(decoder.parameters()) | _ids(network.get_output_embeddings().parameters())
        case "layers":
            return _ids(p for number in config.changed_layers() for p in decoder.layers[number].parameters())


def _unreached(network: Any, config: AlignConfig) -> set[int]:
    """What lies above the last layer read, where no term reads an answer: it would never get a gradient."""
    if any(base_of(term.found().signal) != "activations" for term in config.terms):
        return set()
    decoder = network.get_decoder()
    below = _ids(p for layer in decoder.layers[: max(config.layers()) + 1] for p in layer.parameters())
    language = _ids(decoder.parameters()) | _ids(network.get_output_embeddings().parameters())
    return language - below - _ids(network.get_input_embeddings().parameters())


def _ids(parameters: Iterable[nn.Parameter]) -> set[int]:
    return {id(parameter) for parameter in parameters}


def with_lora(network: Any, config: AlignConfig, chosen: Iterable[str]) -> Any:
    """The network with a fresh adapter on the chosen linear layers of its decoder, and on nothing else.

    Raises UserError where peft is missing, or the part holds no linear layer of the decoder.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise UserError("LoRA needs the package peft; install unmirage[lora].") from error
    settings = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=lora_targets(network, chosen),
        bias="none",
    )
    return get_peft_model(network, settings)


def lora_targets(network: Any, chosen: Iterable[str]) -> str:
    """A regular expression that full names of the chosen linear modules in the decoder's layers match, no others."""
    layers = network.get_decoder().layers
    path = next(name for name, module in network.named_modules() if module is layers)
    owners = {name.rpartition(".")[0] for name in chosen}
    inside = [name for name, module in layers.named_modules() if isinstance(module, nn.Linear)]
    targets = [name for name in inside if f"{path}.{name}" in owners]
    if not targets:
        raise UserError("LoRA finds no linear layer to adapt in the part of the decoder that may change.")
    return rf"{re.escape(path)}\.({'|'.join(map(re.escape, targets))})"


def uses_bf16(config: AlignConfig, stored: torch.dtype) -> bool:
    """Whether to compute in bfloat16."""
    if config.precision != "auto":
        return config.precision == "bf16"
    return stored in (torch.float16, torch.bfloat16) and torch.cuda.is_available()


def set_dtypes(network: Any, bf16: bool) -> None:
    """What is trained in float32, for Adam's steps are lost in the rounding of half precision; the rest may be bf16."""
    for parameter in network.parameters():
        if parameter.is_floating_point() and not hasattr(parameter, "quant_state"):
            half = bf16 and not parameter.requires_grad
            parameter.data = parameter.data.to(torch.bfloat16 if half else torch.float32)
    for buffer in network.buffers():
        if buffer.is_floating_point() and buffer.dtype in (torch.float16, torch.bfloat16):
            buffer.data = buffer.data.float()
