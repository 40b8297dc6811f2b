"""Keys and values of tokens that a model has read: their rows taken, and more tokens read from there."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer


class RoomyLayer(DynamicLayer):  # type: ignore[misc]  # transformers is untyped
    """A layer's keys and values, each (rows, heads, tokens, width), in buffers with room for more tokens.

    The library's own layer copies all of them for each new token, which costs more than the attention does.
    """

    _buffers: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, layer: Any, rows: Tensor, room: int) -> RoomyLayer:
        """The given rows of another layer, any number of times each, with room for so many more tokens."""
        made = cls()
        made.lazy_initialization(layer.keys, layer.values)
        made._buffers = (_roomy(layer.keys, rows, room), _roomy(layer.values, rows, room))
        made._show(layer.keys.shape[2])
        return made

    def _show(self, tokens: int) -> None:
        self.keys, self.values = (buffer[:, :, :tokens] for buffer in self._buffers)

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Writes new tokens' keys and values; returns all of them."""
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = new
        self._show(end)
        return self.keys, self.values


def _roomy(states: Tensor, rows: Tensor, room: int) -> Tensor:
    _, heads, tokens, width = states.shape
    buffer = states.new_empty(len(rows), heads, tokens + room, width)
    buffer[:, :, :tokens] = states[rows]
    return buffer


def odd_layers(cache: Any) -> str:
    """Names of those of a cache's layers whose rows `take_rows` cannot take; empty where it can take all."""
    kinds = {type(layer) for layer in cache.layers} - {DynamicLayer, DynamicSlidingWindowLayer, RoomyLayer}
    return ", ".join(sorted(kind.__name__ for kind in kinds))


def take_rows(model: Any, cache: Any, rows: Tensor, room: int) -> None:
    """Makes a cache of these rows of it, any number of times each, with room for so many more tokens.

    What the model itself keeps of each row changes likewise, so it must have read this cache's tokens last.
    """
    for place, layer in enumerate(cache.layers):  # one by one: each old one is freed before the next is copied
        if isinstance(layer, DynamicSlidingWindowLayer):
            layer.batch_select_indices(rows)
        else:
            cache.layers[place] = RoomyLayer.of(layer, rows, room)
    inner = getattr(model, "model", model)
    if getattr(inner, "rope_deltas", None) is not None:  # by how much a picture shifts positions, in Qwen's models
        inner.rope_deltas = inner.rope_deltas[rows]
