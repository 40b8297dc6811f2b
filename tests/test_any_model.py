"""One training step of every family of models, by each kind of loss, in full and by LoRA: what moved, and what not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES, build
from torch import Tensor

from unmirage.align import AlignConfig, align
from unmirage.backends.checkpoint import decoder_depth, load_checkpoint
from unmirage.schema import Query

METHODS: dict[str, dict[str, Any]] = {"mixed-sft": {}, "npo": {}, "rmu": {"layer": 1, "coefficient": 5.0}}
NO_CACHE = ("mllama",)
"""Families whose image features cannot be handed back; the run says so."""


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(family)
    build(family, folder)
    return folder


def weights(folder: Path) -> tuple[Any, dict[str, Tensor]]:
    model, _ = load_checkpoint(folder)
    return model, dict(model.named_parameters())


def parts(model: Any) -> tuple[set[str], set[str], list[set[str]]]:
    """Names of the parameters of the tower, of everything, and of each decoder layer."""
    own = {id(p): name for name, p in model.named_parameters()}
    tower = {own[id(p)] for p in model.get_encoder(modality="image").parameters()}
    layers = [{own[id(p)] for p in layer.parameters()} for layer in model.get_decoder().layers]
    return tower, set(own.values()), layers


def test_the_configuration_tells_how_many_layers_there_are(folder: Path) -> None:
    assert decoder_depth(folder) == len(load_checkpoint(folder)[0].get_decoder().layers)


CASES = [(method, tune) for method in METHODS for tune in ("full", "lora")]


@pytest.mark.parametrize(("method", "tune"), CASES)
def test_one_step_moves_what_it_should(
    family: str,
    folder: Path,
    forget: list[Query],
    retain: list[Query],
    tmp_path: Path,
    method: str,
    tune: str,
) -> None:
    notes: list[str] = []
    config = AlignConfig(method=method, tune=tune, steps=1, batch_size=2, lr=1e-2, warmup=0.0, **METHODS[method])
    out = align(folder, [*forget, *retain], config, tmp_path / "out", tell=notes.append)
    model, before = weights(folder)
    _, after = weights(out)
    tower, everything, layers = parts(model)
    changed = {name for name in everything if not torch.equal(before[name], after[name])}
    assert not changed & tower, "the vision tower is never trained by accident"
    top = METHODS[method].get("layer", len(layers) - 1)
    for number, layer in enumerate(layers):
        linear = {name for name in layer if before[name].ndim == 2}
        expected = linear if tune == "lora" else layer
        if number > top:
            assert not changed & layer, "nothing above the layer read"
        elif "cross_attn" not in "".join(layer):  # a gate may stay shut
            still = {name for name in expected - changed if not name.endswith(("k_proj.bias", "sinks"))}
            assert not still, f"all of layer {number} below it"
    if tune == "lora":
        inside = set().union(*layers)
        assert changed <= inside, "an adapter sits in the decoder's layers only"
    elif method != "rmu":
        assert changed & (everything - tower - set().union(*layers)), "the projector or the embeddings"
    assert bool(notes) == (family in NO_CACHE), notes
