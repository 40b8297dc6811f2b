"""From samples to batches: queries encoded once, padded, and put side by side by role."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from unmirage.align.encode import SEQUENCES, Batch, cut, encode, told
from unmirage.align.features import LISTS, PIXELS, ImageCache
from unmirage.align.groups import GROUPS, Cues
from unmirage.align.roles import samples_of
from unmirage.errors import UserError
from unmirage.schema import Query

_FILL = {**dict.fromkeys(SEQUENCES, 0), "labels": -100, "image_mask": False}
_PLAIN = ("row", "group")
_CROSS = "cross_attention_mask"
"""Which tokens see which parts of a picture, (1, t, pictures, parts): Mllama's."""
PIXELS_KEPT = 1 << 30
"""Bytes of pixels that one data set keeps in memory; beyond it a picture is read again each time it is needed."""


def collate(samples: Sequence[Batch], padding: int) -> Batch:
    """Pads sequences on the right to (batch, t) and joins the pixels of the samples that have any, along axis 0."""
    length = max(len(sample["input_ids"]) for sample in samples)
    batch: Batch = {}
    for key in dict.fromkeys(key for sample in samples for key in sample):
        values = [sample[key] for sample in samples if key in sample]
        if key == _CROSS and len(values) < len(samples):
            raise UserError(
                "this model family mixes up rows with and without a picture in one batch; "
                "train with --set batch_size=1, or on rows that all have one."
            )
        if key in _FILL:
            fill = padding if key == "input_ids" else _FILL[key]
            batch[key] = torch.stack([_extend(value, length, fill) for value in values])
        elif key in _PLAIN:
            batch[key] = torch.tensor(values)
        else:
            batch[key] = values if key in LISTS else _joined(key, values, length)
    return batch


def _joined(key: str, values: list[Tensor], length: int) -> Tensor:
    """One tensor of all pictures, joined along axis 0; cut into different numbers of parts, they are padded with 0."""
    shape = [max(sizes) for sizes in zip(*(value.shape[1:] for value in values), strict=True)]
    if key == _CROSS:
        shape[0] = length
    return torch.cat([_padded(value, shape) for value in values])


def _padded(value: Tensor, shape: Sequence[int]) -> Tensor:
    if list(value.shape[1:]) == list(shape):
        return value
    out = value.new_zeros(len(value), *shape)
    out[tuple(slice(size) for size in value.shape)] = value
    return out


def _extend(value: Tensor, length: int, fill: Any) -> Tensor:
    out = value.new_full((length,), fill)
    out[: len(value)] = value
    return out


def collate_roles(samples: Sequence[Mapping[str, Batch | list[Batch]]], padding: int) -> dict[str, Batch]:
    """Collates each role of nested samples apart; where a role has several samples a row, all first ones come first."""
    return {role: collate(_flat([sample[role] for sample in samples]), padding) for role in samples[0]}


def _flat(rows: Sequence[Batch | list[Batch]]) -> list[Batch]:
    columns = zip(*(row if isinstance(row, list) else [row] for row in rows), strict=True)
    return [sample for column in columns for sample in column]


class Encoded(Dataset[Batch]):
    """Queries encoded once; each sample knows its `row`, by which its reference is found, and its `group`.

    Tokens stay in memory, pixels only up to `PIXELS_KEPT`; with `features` there are stored features instead.
    `shortened` counts the rows that were cut at `max_length` tokens.
    """

    def __init__(
        self,
        processor: Any,
        queries: Sequence[Query],
        *,
        max_length: int | None = None,
        pixels_kept: int = PIXELS_KEPT,
        cues: Cues | None = None,
    ) -> None:
        """Encodes every query, so that odd rows are found before the first step; raises UserError, see `encode`.

        All rows that cannot be encoded are told together.
        """
        self.queries = list(queries)
        self.groups = [(cues or Cues()).group(query) for query in self.queries]
        self.features: ImageCache | None = None
        self.digests: Sequence[str | None] = ()
        self._processor, self._max_length = processor, max_length
        self._samples: list[Batch] = []
        self.shortened = 0
        problems, room = [], pixels_kept
        for row, query in enumerate(self.queries):
            try:
                sample = self._encoded(query)
            except UserError as error:
                problems.append(str(error))
                continue
            room -= _pixel_bytes(sample)
            self._samples.append(self._marked(sample if room >= 0 else _light(sample), row))
        told(problems, len(self.queries))

    def _encoded(self, query: Query) -> Batch:
        whole = encode(self._processor, query)
        sample = cut(whole, query, self._max_length)
        self.shortened += len(sample["input_ids"]) < len(whole["input_ids"])
        return sample

    def _marked(self, sample: Batch, row: int) -> Batch:
        return {**sample, "row": row, "group": self.groups[row]}

    def use(self, features: ImageCache, digests: Sequence[str | None]) -> None:
        """From now on gives stored features instead of pixels; `digests` are the rows' pictures."""
        self.features, self.digests = features, digests

    def __len__(self) -> int:
        """The number of queries."""
        return len(self._samples)

    def __getitem__(self, row: int) -> Batch:
        """The sample of one row, see `encode`."""
        sample = self._samples[row]
        if self.features is not None and (digest := self.digests[row]) is not None:
            place_needs_pixels = self.features.place == "tower"
            return self.features.swap(self._whole(sample) if place_needs_pixels else sample, digest)
        return self._whole(sample)

    def _whole(self, sample: Batch) -> Batch:
        """The sample with its pixels, read again where they were not kept."""
        query = self.queries[sample["row"]]
        if query.image is None or PIXELS in sample:
            return sample
        return self._marked(cut(encode(self._processor, query), query, self._max_length), sample["row"])

    def answer_lengths(self) -> list[int]:
        """Answer tokens of each row; 0 where the answer was cut away."""
        return [len(tokens) for tokens in self.answers()]

    def answers(self) -> list[list[int]]:
        """The answer tokens of each row."""
        return [sample["labels"][sample["labels"] != -100].tolist() for sample in self._samples]


def group_sizes(part: Encoded) -> list[int]:
    """How many rows of a part are in each group."""
    return [part.groups.count(number) for number in range(len(GROUPS))]


def encode_all(
    processor: Any, rows: Mapping[str, Sequence[Query]], max_length: int | None, cues: Cues | None = None
) -> dict[str, Encoded]:
    """The encoded rows of every role; raises UserError that tells the rows of all roles that cannot be encoded."""
    found, problems = {}, []
    for role, queries in rows.items():
        try:
            found[role] = Encoded(processor, queries, max_length=max_length, cues=cues)
        except UserError as error:
            problems.append(f"{role}: {error}")
    if problems:
        raise UserError(" ".join(problems))
    return found


def _light(sample: Batch) -> Batch:
    return {key: value for key, value in sample.items() if key != PIXELS}


def _pixel_bytes(sample: Batch) -> int:
    return sample[PIXELS].numel() * sample[PIXELS].element_size() if PIXELS in sample else 0


class Paired(Dataset[dict[str, Batch | list[Batch]]]):
    """Samples of several roles side by side, e.g. {"forget": ..., "retain": ...}: the nested batch of unlearning.

    As long as the longest part; a shorter part begins anew, in another order, so none runs dry. Which samples stand
    side by side is drawn once, from the seed. The parts `preference` and `pairs` hold all first samples of their
    rows and then all second ones; each of their rows gives two samples.
    """

    def __init__(
        self, parts: Mapping[str, Encoded], seed: int, extra: Mapping[str, Sequence[int]] | None = None
    ) -> None:
        """Draws an order for each part; raises ValueError for a part without samples, which could never be paired.

        `extra` names rows of parts that stand once more in them, or several times.
        """
        if empty := [role for role, part in parts.items() if not len(part)]:
            raise ValueError(f"a part without samples cannot be paired: {', '.join(empty)}")
        self.parts = parts
        self._sizes = {role: len(part) // samples_of(role) for role, part in parts.items()}
        rows = {role: [*range(size), *(extra or {}).get(role, ())] for role, size in self._sizes.items()}
        self._length = max(map(len, rows.values()))
        self._orders = {role: _order(some, self._length, seed) for role, some in rows.items()}

    def __len__(self) -> int:
        """The length of the longest part, with the rows that stand in it several times."""
        return self._length

    def __getitem__(self, index: int) -> dict[str, Batch | list[Batch]]:
        """One sample of each role, two of a preference or a pair."""
        return {role: self._row(role, order[index]) for role, order in self._orders.items()}

    def _row(self, role: str, row: int) -> Batch | list[Batch]:
        part = self.parts[role]
        return [part[row], part[self._sizes[role] + row]] if samples_of(role) == 2 else part[row]


def _order(rows: Sequence[int], length: int, seed: int) -> list[int]:
    rng = random.Random(seed)
    order: list[int] = []
    while len(order) < length:
        order += rng.sample(rows, len(rows))
    return order[:length]
