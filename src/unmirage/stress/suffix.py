"""Suffixes of tokens that make a model begin with a given target, found by its gradients (greedy coordinate gradient).

With x a question, s a suffix of L tokens and t the target, the loss is the mean over tokens of -log p(t | x s). In each
step the gradient of the loss at the embeddings g_i of the suffix says which tokens w should lower it most at place i,
by -e_w . g_i; candidates exchange one place for one of its k best tokens, and the best candidate is the next suffix
(Zou et al. 2023, arXiv 2307.15043, algorithm 1; for several questions together their losses are added, as there).
A candidate counts only where the tokenizer reads its text back as the same tokens, as a user could not type it else.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from unmirage.align.encode import encode
from unmirage.audit.model.encoding import (
    Ids,
    Local,
    Sample,
    embeddings,
    next_log_probs,
    question_span,
)
from unmirage.backends.prompts import Prompt
from unmirage.errors import UserError
from unmirage.schema import Query

TRIES = 200


@dataclass(frozen=True, slots=True)
class Budget:
    """tokens: of the suffix. steps: at most. candidates: tried in each. top: tokens considered at each place."""

    tokens: int = 10
    steps: int = 50
    candidates: int = 64
    top: int = 32


@dataclass(frozen=True, slots=True)
class Found:
    """The best suffix with its loss in nats a token, the loss of the one begun with, and what was spent.

    reached: after it the target's tokens are the model's own first choices, for every question it was made for.
    passes: prompts that the model read; gradients: how many of them backward too.
    """

    text: str
    loss: float
    first: float
    reached: bool
    steps: int
    passes: int
    gradients: int


@dataclass(frozen=True)
class _Place:
    """A question with a suffix as tokens, and where the suffix stands in it."""

    sample: Sample
    start: int

    def with_(self, suffix: Sequence[int]) -> Sample:
        """The same with another suffix of as many tokens."""
        ids = self.sample["input_ids"].clone()
        ids[self.start : self.start + len(suffix)] = ids.new_tensor(suffix)
        return {**self.sample, "input_ids": ids}


class Suffixes:
    """Finds suffixes for one model. `target`: how its answers are to begin; `example`: any question with a picture."""

    def __init__(self, local: Local, target: str, budget: Budget, example: Query) -> None:
        """Raises UserError where the target has no tokens or the chat template does not show where an answer is."""
        self._local, self._budget = local, budget
        self._tokenizer = local.processor.tokenizer
        self._target = self._tokens_of(target, example)
        if not self._target:
            raise UserError(f"the target {target!r} has no tokens; give words that an answer may begin with.")
        self._passes = self._gradients = 0

    def find(
        self, queries: Sequence[Query], rng: random.Random, tell: Callable[[int], object] = lambda _: None
    ) -> Found:
        """One suffix for these questions together; `tell` gets the steps that are done.

        Raises UserError where no suffix of so many tokens can be written behind the questions.
        """
        self._passes = self._gradients = 0
        suffix = self.drawn(queries, rng)
        places = [self._place(query, suffix) for query in queries]
        (first,), (reached,) = self._losses(places, [suffix])
        best, loss, steps = suffix, first, 0
        while not reached and steps < self._budget.steps:
            candidates = self._candidates(queries, places, suffix, rng)
            losses, hits = self._losses(places, candidates)
            at = min(range(len(candidates)), key=losses.__getitem__)
            suffix, steps = candidates[at], steps + 1
            if losses[at] < loss:
                best, loss, reached = suffix, losses[at], hits[at]
            tell(steps)
        return Found(self.text(best), loss, first, reached, steps, self._passes, self._gradients)

    def _tokens_of(self, target: str, example: Query) -> Ids:
        """The target's tokens as the chat template writes them at the beginning of an answer."""
        answered = encode(self._local.processor, example.model_copy(update={"reference": target}))
        labels = answered["labels"]
        ids = labels[labels != -100].tolist()
        while ids and not self._tokenizer.decode(ids[-1:], skip_special_tokens=True).strip():
            ids.pop()  # what ends an answer is no part of its beginning
        return tuple(ids)

    def text(self, suffix: Sequence[int]) -> str:
        """The suffix as it is written behind a question and a blank."""
        written: str = self._tokenizer.decode(suffix, clean_up_tokenization_spaces=False)
        return written.strip()

    def drawn(self, queries: Sequence[Query], rng: random.Random) -> Ids:
        """A suffix of tokens drawn at random that can be written; raises UserError where none is found."""
        for _ in range(TRIES):
            suffix = tuple(rng.choice(self._beginnings) for _ in range(self._budget.tokens))
            if all(self._is_written(query, suffix) for query in queries):
                return suffix
        raise UserError(
            f"no suffix of {self._budget.tokens} tokens was found that this model's tokenizer reads back as they are; "
            "set fewer tokens."
        )

    def _is_written(self, query: Query, suffix: Ids) -> bool:
        """Whether the tokens stay the same when their text is read behind the question."""
        text = f"{query.question} {self.text(suffix)}"
        ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return tuple(ids[-len(suffix) :]) == tuple(suffix)

    def _place(self, query: Query, suffix: Ids) -> _Place:
        """Raises UserError where the question's template does not keep the suffix's tokens together."""
        prompt = Prompt(query.id, f"{query.question} {self.text(suffix)}", query.image)
        sample, _, end, _ = question_span(self._local.processor, prompt)
        start = end - len(suffix)
        if tuple(sample["input_ids"][start:end].tolist()) != tuple(suffix):
            raise UserError(f"the model's chat template changes the end of question {query.id!r}; leave it out.")
        return _Place(sample, start)

    def _losses(self, places: Sequence[_Place], suffixes: Sequence[Ids]) -> tuple[list[float], list[bool]]:
        """Of each suffix the mean loss over the questions, and whether the target is the first choice after all."""
        with torch.no_grad():
            several = [self._of_place(place, suffixes) for place in places]
        losses = torch.stack([loss for loss, _ in several]).mean(dim=0)
        hits = torch.stack([hit for _, hit in several]).all(dim=0)
        return losses.tolist(), hits.tolist()

    def _of_place(self, place: _Place, suffixes: Sequence[Ids]) -> tuple[Tensor, Tensor]:
        """Losses and hits of one question, each of shape (suffixes,)."""
        losses, hits = [], []
        for start in range(0, len(suffixes), self._local.batch_size):
            rows = [place.with_(suffix) for suffix in suffixes[start : start + self._local.batch_size]]
            log_probs = self._read(rows)
            losses.append(self._loss(log_probs))
            hits.append((log_probs.argmax(dim=-1) == self._ids(log_probs)).all(dim=-1))
        return torch.cat(losses).cpu(), torch.cat(hits).cpu()

    def _read(self, rows: Sequence[Sample]) -> Tensor:
        self._passes += len(rows)
        return next_log_probs(self._local, rows, self._target)

    def _ids(self, log_probs: Tensor) -> Tensor:
        return torch.tensor(self._target, device=log_probs.device)

    def _loss(self, log_probs: Tensor) -> Tensor:
        """-log p a token, shape (rows,), of log-probabilities of shape (rows, target, vocabulary)."""
        ids = self._ids(log_probs).expand(len(log_probs), -1)
        return -log_probs.gather(-1, ids[..., None])[..., 0].mean(dim=-1)

    def _candidates(
        self, queries: Sequence[Query], places: Sequence[_Place], suffix: Ids, rng: random.Random
    ) -> list[Ids]:
        """Suffixes with one token exchanged that can be written; the suffix itself where there is none."""
        best = self._exchanges(places, suffix)
        found: dict[Ids, None] = {}
        for _ in range(self._budget.candidates):
            at = rng.randrange(len(suffix))
            made = (*suffix[:at], rng.choice(best[at]), *suffix[at + 1 :])
            if made != suffix and all(self._is_written(query, made) for query in queries):
                found[made] = None
        return list(found) or [suffix]

    def _exchanges(self, places: Sequence[_Place], suffix: Ids) -> list[list[int]]:
        """At each place of the suffix the tokens that should lower the loss most, by first order."""
        gradient = sum((self._gradient(place, suffix) for place in places), torch.zeros(1))
        scores = -(gradient @ self._embedded.T)  # (L, V); less what the token there now has, which is the same for all
        scores[:, ~self._allowed] = -torch.inf
        top = min(self._budget.top, int(self._allowed.sum()))
        chosen: list[list[int]] = scores.topk(top, dim=1).indices.tolist()
        return chosen

    def _gradient(self, place: _Place, suffix: Ids) -> Tensor:
        """Gradient of the loss at the suffix's embeddings, scaled to length 1 as in the source, shape (L, d)."""
        kept: list[Tensor] = []

        def keep(output: Tensor) -> Tensor:
            leaf = output.detach().requires_grad_(True)
            kept.append(leaf)
            return leaf

        self._gradients += 1
        with torch.enable_grad(), embeddings(self._local.model, keep):
            loss = self._loss(self._read([place.with_(suffix)]))
        (found,) = torch.autograd.grad(loss.sum(), kept)
        here = found[0, place.start : place.start + len(suffix)].float().cpu()
        scaled: Tensor = here / here.norm().clamp_min(1e-12)
        return scaled

    @cached_property
    def _embedded(self) -> Tensor:
        """What the input embeddings put out for every token, (V, d)."""
        layer: Any = self._local.model.get_input_embeddings()
        with torch.no_grad():
            found: Tensor = layer(torch.arange(layer.weight.shape[0], device=self._local.model.device))
        return found.float().cpu()

    @cached_property
    def _allowed(self) -> Tensor:
        """Tokens that may stand in a suffix: plain printable text, shape (V,) of bool."""
        allowed = torch.zeros(len(self._embedded), dtype=torch.bool)
        special = {*self._tokenizer.all_special_ids, *self._tokenizer.get_added_vocab().values()}
        size = min(len(allowed), len(self._tokenizer))
        for token in range(size):
            text = self._tokenizer.decode([token])
            allowed[token] = token not in special and bool(text.strip()) and text.isascii() and text.isprintable()
        return allowed

    @cached_property
    def _beginnings(self) -> list[int]:
        """Allowed tokens that begin a word: such a suffix can nearly always be written."""
        ids = self._allowed.nonzero()[:, 0].tolist()
        names = self._tokenizer.convert_ids_to_tokens(ids)
        found = [token for token, name in zip(ids, names, strict=True) if name[:1] in "\u0120\u2581" and len(name) > 1]
        return found or ids
