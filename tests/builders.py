"""What tests of objectives are made of: signals from plain lists, batches with real labels, and models made of tables.

A `TableModel` looks its logits and activations up by the token it reads, so that everything can be worked out by hand;
what it says after padding is junk on purpose.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unmirage.align.batches import collate
from unmirage.align.features import Batch
from unmirage.align.objectives import OBJECTIVES
from unmirage.align.signals import (
    Activations,
    AnswerLogits,
    AnswerLogProbs,
    Kind,
    Positions,
    Preference,
    Signal,
    Switches,
    Wanted,
    base_of,
    read,
)

Rows = Sequence[Sequence[float]]
Points = Sequence[Sequence[Sequence[float]]]
Sample = tuple[Sequence[int], Sequence[int]]
"""The tokens of a question and those of its answer."""

PAD = 0
JUNK = 99.0
"""What is at positions that must not count."""


def log_probs(rows: Rows, padding: int = 0) -> AnswerLogProbs:
    """One list of log-probabilities for each sample; a prompt position before, padding behind."""
    length = 1 + max(map(len, rows)) + padding
    values, mask = torch.zeros(len(rows), length), torch.zeros(len(rows), length, dtype=torch.bool)
    for at, row in enumerate(rows):
        values[at, 1 : 1 + len(row)] = torch.tensor(row)
        mask[at, 1 : 1 + len(row)] = True
    return AnswerLogProbs(values, mask)


def preference(chosen: Rows, rejected: Rows) -> Preference:
    """Log-probabilities of preferred and other answers."""
    return Preference(log_probs(chosen), log_probs(rejected))


def activations(rows: Points, padding: int = 0, junk: float = JUNK) -> Activations:
    """One list of vectors for each sample, of one layer; positions that do not count hold `junk`."""
    length, width = max(map(len, rows)) + padding, len(rows[0][0])
    values = torch.full((len(rows), 1, length, width), junk)
    mask = torch.zeros(len(rows), length, dtype=torch.bool)
    for at, row in enumerate(rows):
        values[at, 0, : len(row)] = torch.tensor(row)
        mask[at, : len(row)] = True
    return Activations(values, mask)


def layered(*layers: Activations) -> Activations:
    """Several layers of the same positions."""
    return Activations(torch.cat([layer.values for layer in layers], dim=1), layers[0].mask)


def batch_of(samples: Sequence[Sample], padding: int = 0) -> Batch:
    """A batch as training sees it: -100 outside the answers, padded on the right to `padding` more than is needed."""
    return _longer(collate([_encoded(*sample) for sample in samples], padding=PAD), padding)


def _encoded(question: Sequence[int], answer: Sequence[int]) -> Batch:
    ids = torch.tensor([*question, *answer])
    labels = torch.tensor([-100] * len(question) + list(answer))
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": labels,
        "image_mask": torch.zeros_like(ids, dtype=torch.bool),
    }


def _longer(batch: Batch, padding: int) -> Batch:
    fill = {"input_ids": PAD, "labels": -100, "attention_mask": 0, "image_mask": False}
    return {key: nn.functional.pad(value, (0, padding), value=fill[key]) for key, value in batch.items()}


class _Layer(nn.Module):
    """A decoder layer whose output depends on the token read, not on its input."""

    def __init__(self, states: Tensor) -> None:
        super().__init__()
        self.states = nn.Parameter(states)

    def forward(self, ids: Tensor) -> Tensor:
        return self.states[ids]


class _Decoder(nn.Module):
    """Where the layers are, so that they can be cut."""

    def __init__(self, layers: list[_Layer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)


class TableModel(nn.Module):
    """After each token it says the logits, and has the activations, that the tables hold for that token.

    logits: (tokens, vocabulary). states: (layers, tokens, width). Both are parameters, so that gradients can be read.
    """

    def __init__(self, logits: Tensor, states: Tensor | None = None) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)
        self.decoder = _Decoder([_Layer(layer) for layer in (states if states is not None else ())])

    def get_decoder(self) -> nn.Module:
        return self.decoder

    def forward(self, input_ids: Tensor, logits_to_keep: Tensor | int, **_others: object) -> object:
        for layer in self.decoder.layers:
            layer(input_ids)
        whole = self.logits[input_ids]
        kept = whole[logits_to_keep] if isinstance(logits_to_keep, Tensor) else whole[:, -logits_to_keep:]
        return type("Output", (), {"logits": kept})()


def table(rows: dict[int, Sequence[float]], vocabulary: int) -> Tensor:
    """Logits (tokens, vocabulary) from those after some tokens; after any other token they are junk."""
    values = torch.full((vocabulary, vocabulary), JUNK)
    values[:, 0] = -JUNK
    for token, row in rows.items():
        values[token] = torch.tensor(row)
    return values


def random_model(seed: int, *, vocabulary: int = 12, layers: int = 2, width: int = 4, scale: float = 2.0) -> TableModel:
    """A model of random tables; what it holds for padding is large."""
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(vocabulary, vocabulary, generator=generator)
    states = scale * torch.randn(layers, vocabulary, width, generator=generator)
    logits[PAD] *= JUNK
    states[:, PAD] *= JUNK
    return TableModel(logits, states)


def signal(
    model: nn.Module,
    batch: Batch,
    kind: Kind,
    layers: Sequence[int] = (0, 1),
    positions: Positions = "text",
    switches: Switches | None = None,
) -> Signal:
    """The signal of a batch as an objective would get it."""
    deep = base_of(kind) == "activations"
    wanted = Wanted(not deep, frozenset(layers if deep else ()))
    return read(model, batch, wanted, switches).signal(kind, layers, positions)


def logits(model: nn.Module, batch: Batch) -> AnswerLogits:
    """The logits that predict the batch's answers."""
    found = signal(model, batch, "logits")
    assert isinstance(found, AnswerLogits)
    return found


@dataclass(frozen=True)
class Untouchable:
    """Stands for a reference that must not be read."""

    def __getattribute__(self, name: str) -> object:
        raise AssertionError(f"the reference was read ({name})")


@contextmanager
def only_known_objectives() -> Iterator[None]:
    """Forgets the objectives that are registered meanwhile, and looks for installed ones anew."""
    from unmirage.align.objectives import load_installed

    before = dict(OBJECTIVES)
    load_installed.cache_clear()
    try:
        yield
    finally:
        OBJECTIVES.clear()
        OBJECTIVES.update(before)
        load_installed.cache_clear()
