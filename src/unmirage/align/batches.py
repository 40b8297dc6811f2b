"""From queries to batches: one chat per query, encoded once, with the answer's tokens found in the rendered text.

The answer's tokens are those after the rendered prompt, provided that it really is a prefix of the whole and that they
decode to the answer; where either fails, the template is refused, not guessed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from unmirage.align.signals import Batch
from unmirage.backends.prompts import Prompt, adds_special_tokens, open_image, turns
from unmirage.errors import UserError
from unmirage.schema import Query

_TOKENS = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
_PADDING = {**dict.fromkeys(_TOKENS, 0), "input_ids": None, "labels": -100, "image_mask": False}


def encode(processor: Any, query: Query) -> Batch:
    """One query with its reference answer: unpadded tensors of shape (t,), pixels as the processor gives them.

    `labels` is -100 outside the answer; `image_mask` marks the image's placeholder tokens.
    """
    check_answer(query)
    prompt = Prompt.of(query)
    image = open_image(prompt)
    inputs = _render(processor, turns(prompt, query.reference), image)
    ids = inputs["input_ids"][0]
    answer = _answer_mask(processor, query, _render(processor, turns(prompt), image, add_generation_prompt=True), ids)
    sequence = {key: inputs[key][0] for key in _TOKENS if key in inputs}
    pixels = {k: v for k, v in inputs.items() if k not in sequence and k != "assistant_masks" and k != "labels"}
    sample = {
        **sequence,
        **pixels,
        "labels": ids.masked_fill(~answer, -100),
        "image_mask": ids == _image_token(processor),
    }
    return _ended(processor, sample)


def check_answer(query: Query) -> None:
    """Raises UserError where a query has no reference answer to train on."""
    if not (query.reference or "").strip():
        raise UserError(f"query {query.id!r} has no answer to train on; give each row a response.")


def _render(processor: Any, chat: list[dict[str, Any]], image: Image.Image | None, **options: Any) -> Batch:
    text = processor.apply_chat_template(chat, tokenize=False, **options)
    images = {"images": [image]} if image is not None else {}
    special = adds_special_tokens(processor, text)
    return dict(processor(text=[text], **images, return_tensors="pt", add_special_tokens=special))


def _ended(processor: Any, sample: Batch) -> Batch:
    """The sample with its answer closed: a model that is never taught the end of an answer never stops."""
    end = processor.tokenizer.eos_token_id
    if end is None or end in sample["labels"].tolist():
        return sample
    last = {"input_ids": end, "labels": end, "attention_mask": 1}
    grown = {
        key: torch.cat([sample[key], sample[key].new_tensor([last.get(key, 0)])]) for key in _PADDING if key in sample
    }
    return {**sample, **grown}


def _answer_mask(processor: Any, query: Query, prompt: Batch, ids: Tensor) -> Tensor:
    """Which tokens are the answer, shape (t,): those after the prompt, checked against the answer itself."""
    start = prompt["input_ids"][0]
    if len(start) >= len(ids) or not torch.equal(ids[: len(start)], start):
        raise UserError(
            f"the chat template of this model renders query {query.id!r} so that its prompt is not the beginning of "
            "the whole conversation; give it a template in which it is."
        )
    mask = torch.arange(len(ids)) >= len(start)
    decoded = processor.tokenizer.decode(ids[mask], skip_special_tokens=True).strip()
    if decoded != str(query.reference).strip():
        raise UserError(
            f"the tokens after the prompt of query {query.id!r} read {decoded!r}, not its answer {query.reference!r}; "
            "this model's chat template cannot be trained on as it is."
        )
    return mask


def _image_token(processor: Any) -> int:
    token: int = getattr(processor, "image_token_id", None) or -1
    return token


def collate(samples: Sequence[Batch], padding: int) -> Batch:
    """Pads sequences on the right to (batch, t) and joins the pixels of the samples that have any, along axis 0."""
    length = max(len(sample["input_ids"]) for sample in samples)
    batch: Batch = {}
    for key in dict.fromkeys(key for sample in samples for key in sample):
        values = [sample[key] for sample in samples if key in sample]
        if key in _PADDING:
            fill = padding if _PADDING[key] is None else _PADDING[key]
            batch[key] = torch.stack([_extend(value, length, fill) for value in values])
        elif key == "row":
            batch[key] = torch.tensor(values)
        else:
            batch[key] = _joined(key, values)
    return batch


def _joined(key: str, values: list[Tensor]) -> Tensor:
    if len({value.shape[1:] for value in values}) > 1:
        raise UserError(
            f"this model cuts pictures into different numbers of parts ({key}), which cannot be batched; "
            "train with --set batch_size=1."
        )
    return torch.cat(values)


def _extend(value: Tensor, length: int, fill: Any) -> Tensor:
    out = value.new_full((length,), fill)
    out[: len(value)] = value
    return out


class Encoded(Dataset[Batch]):
    """Queries encoded once and kept; each sample knows its `row`, by which its reference is found."""

    def __init__(self, processor: Any, queries: Sequence[Query]) -> None:
        """Encodes every query, so that an odd row is found before the first step; raises UserError, see `encode`."""
        self._samples = [{**encode(processor, query), "row": row} for row, query in enumerate(queries)]

    def __len__(self) -> int:
        """The number of queries."""
        return len(self._samples)

    def __getitem__(self, row: int) -> Batch:
        """The sample of one row, see `encode`."""
        return self._samples[row]


class Paired(Dataset[dict[str, Batch]]):
    """Samples of several roles side by side, e.g. {"forget": ..., "retain": ...}: the nested batch of unlearning.

    As long as the longest part; a shorter part begins anew, in another order, so none runs dry. Which samples stand
    side by side is drawn once, from the seed.
    """

    def __init__(self, parts: dict[str, Encoded], seed: int) -> None:
        """Draws an order for each part; raises ValueError for a part without samples, which could never be paired."""
        if empty := [role for role, part in parts.items() if not len(part)]:
            raise ValueError(f"a part without samples cannot be paired: {', '.join(empty)}")
        self.parts = parts
        self._orders = {role: _order(len(part), max(map(len, parts.values())), seed) for role, part in parts.items()}

    def __len__(self) -> int:
        """The length of the longest part."""
        return max(map(len, self.parts.values()))

    def __getitem__(self, index: int) -> dict[str, Batch]:
        """One sample of each role."""
        return {role: part[self._orders[role][index]] for role, part in self.parts.items()}


def _order(size: int, length: int, seed: int) -> list[int]:
    rng = random.Random(seed)
    order: list[int] = []
    while len(order) < length:
        order += rng.sample(range(size), size)
    return order[:length]
