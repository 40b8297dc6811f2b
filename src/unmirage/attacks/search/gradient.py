"""What the model's own gradient expects of one-word edits at any position; only a ranking, checked by asking.

With s the score of `audit.model.scoring` (log-odds of the model's refusals against its other answers), q_n the question
with a neutral word n at the place of the edit (put in or exchanged, as the edit does), g its gradient summed over the
tokens of n, and e_w, e_n mean embeddings of the tokens of a word,

    substitute or insert w:  mean_n [ s(q_n) + (e_w - e_n) . g ] - s(q)
    delete:                  mean_n s(q_n) - s(q)

First order, after HotFlip (Ebrahimi et al. 2018, ACL, section 2), but not around the question itself: where its own
word decides the refusal, the score is flat there, and its gradient points nowhere. Neutral words are where it is not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unmirage.attacks.edits import Edit, Kind
from unmirage.attacks.words import neutral_words
from unmirage.audit.model.edits import bare
from unmirage.audit.model.encoding import Local, embeddings, prompt_sample, question_span
from unmirage.audit.model.scoring import Starts, log_odds
from unmirage.backends.prompts import Prompt
from unmirage.schema import Query

POINTS = 4
"""Neutral words at each place around which the score is taken as linear."""


@dataclass(frozen=True, slots=True)
class _Point:
    """A prompt with a neutral word at a place: its score, and there the mean embedding and the sum of gradients."""

    score: float
    mean: Tensor
    gradient: Tensor


class Gradients:
    """Ranks edits of a question by what the gradient expects of them."""

    def __init__(self, local: Local, starts: Starts) -> None:
        """`starts` tell the model's refusals from its other answers."""
        self._local, self._starts = local, starts
        self.passes = 0

    def ranked(self, query: Query, edits: Sequence[Edit], *, towards_refusal: bool) -> list[Edit]:
        """The edits, those first that should move the score most in that direction; ties stay in order.

        Raises UserError where words and tokens of the question cannot be matched.
        """
        expected = self.expected(query, edits)
        sign = -1.0 if towards_refusal else 1.0
        order = sorted(range(len(edits)), key=lambda at: sign * expected[at])
        return [edits[at] for at in order]

    def expected(self, query: Query, edits: Sequence[Edit]) -> list[float]:
        """The expected change of the score by each edit, in nats."""
        places = list(dict.fromkeys(map(_place, edits)))
        words = neutral_words(0, query.id, [])
        probes = [Edit(kind, at, word) for kind, at in places for word in _fitting(words, query.question)[:POINTS]]
        own = self._score(query)
        points: dict[tuple[Kind, int], list[_Point]] = defaultdict(list)
        for probe, point in zip(probes, self._points(query, probes), strict=True):
            points[_place(probe)].append(point)
        return [self._of(edit, points[_place(edit)]) - own for edit in edits]

    def _of(self, edit: Edit, points: Sequence[_Point]) -> float:
        """The expected score of an edited question, averaged over the points."""
        if edit.kind == "delete":
            return sum(point.score for point in points) / len(points)
        word = self._embedded(edit)
        return sum(point.score + float((word - point.mean) @ point.gradient) for point in points) / len(points)

    def _embedded(self, edit: Edit) -> Tensor:
        """Mean embedding of a word's tokens as it is written at that position, shape (d,)."""
        written = edit.word if edit.position == 0 else f" {edit.word.lower()}"
        ids = self._local.processor.tokenizer(written, add_special_tokens=False)["input_ids"]
        layer = self._local.model.get_input_embeddings()
        with torch.no_grad():
            found: Tensor = layer(torch.tensor(ids, device=self._local.model.device)).mean(dim=0)
        return found.float().cpu()

    def _score(self, query: Query) -> float:
        self.passes += 1
        with torch.no_grad():
            return float(log_odds(self._local, [prompt_sample(self._local.processor, Prompt.of(query))], self._starts))

    def _points(self, query: Query, probes: Sequence[Edit]) -> list[_Point]:
        found: list[_Point] = []
        for start in range(0, len(probes), self._local.batch_size):
            found += self._backward(query, probes[start : start + self._local.batch_size])
        self.passes += len(probes)
        return found

    def _backward(self, query: Query, probes: Sequence[Edit]) -> list[_Point]:
        spans = [question_span(self._local.processor, probe.prompt(query)) for probe in probes]
        kept: list[Tensor] = []

        def _keep(output: Tensor) -> Tensor:
            leaf = output.detach().requires_grad_(True)
            kept.append(leaf)
            return leaf

        with torch.enable_grad(), embeddings(self._local.model, _keep):
            scores = log_odds(self._local, [sample for sample, *_ in spans], self._starts)
        gradients = torch.autograd.grad(scores.sum(), kept)
        gradient = sum((part.float().cpu() for part in gradients), torch.zeros(1))
        values = kept[0].detach().float().cpu()
        found = []
        for row, (probe, (_, start, _, words)) in enumerate(zip(probes, spans, strict=True)):
            tokens = [start + i for i, word in enumerate(words) if word == probe.position]
            sums = gradient[row, tokens].sum(dim=0)
            found.append(_Point(float(scores[row].detach()), values[row, tokens].mean(dim=0), sums))
        return found


def _place(edit: Edit) -> tuple[Kind, int]:
    """Where a neutral word stands for the edit; in the place of a word that is taken out, one is exchanged for it."""
    return ("insert" if edit.kind == "insert" else "substitute", edit.position)


def _fitting(words: Sequence[str], question: str) -> list[str]:
    """Neutral words that the question does not hold."""
    own = {bare(word) for word in question.split()}
    return [word for word in words if bare(word) not in own]
