"""Image features computed once for each image, while what makes them is frozen.

Two places to keep them: after the projector ("projected"), where tower and projector are frozen, and after the tower
("tower"), where the projector is trained. Both are proved on a few pictures before they are used: the logits must
equal those from the pixels. Features lie on disk, under a key of model and pictures, and are valid for every run that
starts from the same checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from unmirage.align.store import RowStore

Batch = dict[str, Any]
Place = Literal["projected", "tower"]
FEATURES = {"projected": "image_features", "tower": "tower_states"}
LISTS = (*FEATURES.values(), "image_deepstack")
"""Keys of a batch that hold one tensor for each picture."""
NOT_INPUTS = ("labels", "image_mask", "row", "group", *LISTS)
"""Keys of a batch that are ours, not arguments of a model."""
PIXELS = "pixel_values"


def bare(model: nn.Module) -> Any:
    """The model itself, without what spreads it over devices or compiles it."""
    for name in ("module", "_orig_mod"):
        while isinstance(inner := model.__dict__.get("_modules", {}).get(name), nn.Module):
            model = inner
    return model


def model_inputs(batch: Batch) -> Batch:
    """What a model's forward takes of a batch; stored features stand for the pixels."""
    inputs = {key: value for key, value in batch.items() if key not in NOT_INPUTS}
    if "image_features" in batch:
        inputs["mm_encoder_outputs"] = {"image": _encoder_output(batch)}
    return inputs


def _encoder_output(batch: Batch) -> Any:
    """Stored features in the shape in which the family's own function gives them: one tensor of all, or one each."""
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    pictures = batch["image_features"]
    output = BaseModelOutputWithPooling(pooler_output=torch.cat(pictures) if pictures[0].ndim > 2 else pictures)
    if "image_deepstack" in batch:
        output.deepstack_features = [tuple(layer) for layer in zip(*batch["image_deepstack"], strict=True)]
    return output


@contextmanager
def stored_tower(model: nn.Module, batch: Batch) -> Iterator[None]:
    """Where the batch holds the tower's outputs, the tower gives them instead of looking at the pixels."""
    if "tower_states" not in batch:
        yield
        return
    network = bare(model)
    tower = network.get_encoder(modality="image")
    states = torch.cat(batch["tower_states"])
    own = tower.forward
    tower.forward = lambda *_args, **_options: _tower_output(states, feature_layers(network.config))
    try:
        yield
    finally:
        tower.forward = own


def feature_layers(config: Any) -> tuple[int, ...]:
    """Which hidden states of the tower the model reads; () where it reads the last one only."""
    found = getattr(config, "vision_feature_layer", None)
    if found is None:
        return ()
    return (found,) if isinstance(found, int) else tuple(found)


class _Sparse(tuple[Any, ...]):
    """The few hidden states that were kept, found under the numbers by which the model asks for them."""

    __slots__ = ()

    def __new__(cls, kept: dict[int, Tensor]) -> _Sparse:
        return super().__new__(cls, (kept,))

    def __getitem__(self, number: Any) -> Any:
        return super().__getitem__(0)[number]


def _tower_output(states: Tensor, layers: Sequence[int]) -> Any:
    """The tower's output from its stored states, shape (images, kept, tokens, width); the last of them is the last."""
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    hidden = _Sparse({layer: states[:, at] for at, layer in enumerate(layers)})
    return BaseModelOutputWithPooling(last_hidden_state=states[:, -1], hidden_states=hidden)


@torch.no_grad()
def picture_features(model: nn.Module, batch: Batch, place: Place) -> dict[str, Tensor]:
    """The features of the one picture of a batch of one sample, by what they are called beside its digest.

    "" is what stands for the picture: (tokens, width) projected, or (parts, tokens, width) where the family gives it
    so; (parts, kept, tokens, width) from the tower. ".deepstack" holds what Qwen3-VL adds in later layers.
    """
    network = bare(model)
    inputs = {key: value for key, value in model_inputs(batch).items() if key not in _TEXT}
    if place == "tower":
        return {"": _tower_states(network, inputs)}
    found = network.get_image_features(**inputs)
    pooled = found.pooler_output if isinstance(found.pooler_output, Tensor) else torch.cat(list(found.pooler_output))
    deeper = getattr(found, "deepstack_features", None)
    return {"": pooled} | ({".deepstack": torch.stack([torch.cat(list(one)) for one in deeper])} if deeper else {})


def _tower_states(network: Any, inputs: Batch) -> Tensor:
    """What the model reads of the tower's output for one picture, with the last hidden state at the end."""
    layers = feature_layers(network.config)
    seen: list[Any] = []
    hook = network.get_encoder(modality="image").register_forward_hook(lambda _m, _a, output: seen.append(output))
    try:
        network.get_image_features(**inputs)
    finally:
        hook.remove()
    hidden = seen[0].hidden_states
    states = [hidden[layer] for layer in layers if hidden is not None] + [seen[0].last_hidden_state]
    return torch.stack(states, dim=1)


_TEXT = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")


@dataclass(frozen=True, slots=True)
class ImageCache:
    """Stored features of pictures, by the picture's digest."""

    store: RowStore
    place: Place

    @property
    def key(self) -> str:
        """The key of a sample under which its features stand."""
        return FEATURES[self.place]

    def swap(self, sample: Batch, digest: str) -> Batch:
        """The sample with stored features instead of pixels."""
        kept = {key: value for key, value in sample.items() if key != PIXELS or self.place == "tower"}
        deeper = f"{digest}.deepstack"
        return {**kept, self.key: self.store[digest]} | (
            {"image_deepstack": self.store[deeper]} if deeper in self.store else {}
        )
