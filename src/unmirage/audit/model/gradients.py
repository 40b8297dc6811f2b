"""What a model's own gradient says: which opening words would move the score, and which words of a question do.

Both read the gradient of the score (see `scoring`) at the outputs of the input embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unmirage.audit.model.edits import Edit, bare
from unmirage.audit.model.encoding import (
    Local,
    Sample,
    batches,
    differing,
    embeddings,
    prompt_sample,
    question_span,
)
from unmirage.audit.model.scoring import Starts, log_odds
from unmirage.backends.prompts import Prompt
from unmirage.errors import UserError

PROBES = (Edit("Today", "opening"), Edit("Xq", "opening"), Edit("7", "opening"))
STEPS = 32


def opening_words(local: Local, prompts: Sequence[Prompt], starts: Starts, count: int) -> list[str]:
    """`count` words of one token each that should move the score most at the opening, half of them either way.

    First-order estimate for token w in the place of the opening's first token t: (e_w - e_t) . dscore/de_t, averaged
    over the prompts; after HotFlip (Ebrahimi et al. 2018, ACL, section 2), there for characters. A token counts where
    it stands in that place as a whole word. Raises UserError where no prompt shows where its opening is.
    """
    vocabulary = _all_embeddings(local)
    total, used = torch.zeros(len(vocabulary)), 0
    for batch in batches(local, prompts):
        samples, places = _with_opening(local, batch)
        if samples:
            total += _estimates(local, samples, places, starts, vocabulary)
            used += len(samples)
    if not used:
        raise UserError("the opening words of these questions are not tokens of their own; use --candidates lexicon.")
    return _whole_words(local, prompts[0], torch.argsort(total, descending=True).tolist(), count)


def _all_embeddings(local: Local) -> Tensor:
    """What the input embeddings put out for every token, (V, d)."""
    layer = local.model.get_input_embeddings()
    with torch.no_grad():
        found: Tensor = layer(torch.arange(layer.weight.shape[0], device=local.model.device)).float().cpu()
    return found


def _with_opening(local: Local, prompts: Sequence[Prompt]) -> tuple[list[Sample], list[int]]:
    """The prompts whose opening begins with a token of its own, and where that is."""
    samples, places = [], []
    for prompt in prompts:
        own = prompt_sample(local.processor, prompt)
        place, _ = differing([own, *(_probe(local, prompt, probe) for probe in PROBES)])
        if place < len(own["input_ids"]):
            samples.append(own)
            places.append(place)
    return samples, places


def _probe(local: Local, prompt: Prompt, probe: Edit) -> Sample:
    return prompt_sample(local.processor, Prompt(prompt.query, probe.apply(prompt.question), prompt.image))


def _estimates(
    local: Local, samples: list[Sample], places: list[int], starts: Starts, vocabulary: Tensor
) -> Tensor:  # fmt: skip
    """Sum over the prompts of (e_w - e_t) . gradient for every token w, shape (V,)."""
    kept: list[Tensor] = []

    def _keep(output: Tensor) -> Tensor:
        leaf = output.detach().requires_grad_(True)
        kept.append(leaf)
        return leaf

    with torch.enable_grad(), embeddings(local.model, _keep):
        total = log_odds(local, samples, starts).sum()
    gradients = torch.autograd.grad(total, kept)
    gradient = sum((part.float().cpu() for part in gradients), torch.zeros(1))
    rows = torch.arange(len(samples))
    own, at = kept[0].detach().float().cpu()[rows, places], gradient[rows, places]
    return vocabulary @ at.sum(dim=0) - (own * at).sum()


def _whole_words(local: Local, prompt: Prompt, ranked: Sequence[int], count: int) -> list[str]:
    """Words from both ends of the ranking, by turns."""
    probes = [_probe(local, prompt, probe) for probe in PROBES]
    place, tail = differing(probes)
    ends = ranked[: len(ranked) // 2], ranked[: len(ranked) // 2 - 1 : -1]
    found: list[list[str]] = [[], []]
    for words, tokens, most in zip(found, ends, (count - count // 2, count // 2), strict=True):
        for token in tokens:
            word = local.processor.tokenizer.decode([token]).strip()
            if (
                len(words) < most
                and bare(word) not in map(bare, words)
                and _stands(local, prompt, word, token, place, tail)
            ):
                words.append(word)
    return list(dict.fromkeys(found[0] + found[1]))


def _stands(local: Local, prompt: Prompt, word: str, token: int, place: int, tail: int) -> bool:
    """Whether the word at the opening is just this token."""
    if not word.isalpha() or len(word) < 2:
        return False
    ids = _probe(local, prompt, Edit(word, "opening"))["input_ids"].tolist()
    return place < len(ids) and ids[place] == token and len(ids) - tail == place + 1


@dataclass(frozen=True, slots=True)
class WordGradients:
    """Integrated gradients of a question's words; `span` is what they should sum to, `gap` how far the sum is off."""

    words: list[float]
    span: float
    gap: float


def integrated(local: Local, prompt: Prompt, starts: Starts, filler: Tensor, steps: int = STEPS) -> WordGradients:
    """Integrated gradients of the score over the embeddings of the question's tokens, summed by word.

    IG_i = (x_i - x'_i) . mean_s dscore/dx_i at x' + (s - 1/2)/steps (x - x'), s = 1..steps (Sundararajan et al. 2017,
    arXiv 1703.01365, equation 3, midpoint rule). Every token's baseline x' is `filler`, shape (d,); a baseline of zeros
    would say nothing where the model normalises its inputs, as all points between it and x are then alike.
    Raises UserError where words and tokens cannot be matched.
    """
    sample, start, end, words = question_span(local.processor, prompt)
    path = _Path(start, end, filler)
    alphas = (torch.arange(steps) + 0.5) / steps
    shares = torch.zeros(end - start)
    size = max(1, local.batch_size)
    for part in torch.split(alphas, size):
        shares += path.gradients(local, sample, starts, part) / steps
    ends = path.scores(local, sample, starts)
    totals = [0.0] * (max(words) + 1)
    for word, share in zip(words, shares.tolist(), strict=True):
        totals[word] += share
    span = ends[1] - ends[0]
    return WordGradients(totals, span, sum(totals) - span)


@dataclass(frozen=True)
class _Path:
    """The straight line from a question of fillers to the question itself, in embeddings."""

    start: int
    end: int
    filler: Tensor

    def at(self, output: Tensor, alphas: Tensor) -> Tensor:
        """Embeddings of a batch at the points `alphas` of the line."""
        own = output[:, self.start : self.end]
        base = self.filler.to(own)
        mixed = base + alphas.to(own)[:, None, None] * (own - base)
        return torch.cat([output[:, : self.start], mixed, output[:, self.end :]], dim=1)

    def gradients(self, local: Local, sample: Sample, starts: Starts, alphas: Tensor) -> Tensor:
        """Sum over `alphas` of (x - x') . gradient, one value for each token of the question."""
        kept: list[tuple[Tensor, Tensor]] = []

        def _keep(output: Tensor) -> Tensor:
            leaf = self.at(output.detach(), alphas).requires_grad_(True)
            kept.append((output.detach(), leaf))
            return leaf

        with torch.enable_grad(), embeddings(local.model, _keep):
            total = log_odds(local, [sample] * len(alphas), starts).sum()
        gradients = torch.autograd.grad(total, [leaf for _, leaf in kept])
        here = slice(self.start, self.end)
        change = kept[0][0][:, here] - self.filler.to(kept[0][0])
        shares = sum(((change * gradient[:, here]).sum(dim=(0, 2)) for gradient in gradients), change.new_zeros(1))
        return shares.float().cpu()

    def scores(self, local: Local, sample: Sample, starts: Starts) -> tuple[float, float]:
        """The score at both ends of the line."""
        with torch.no_grad(), embeddings(local.model, lambda output: self.at(output, torch.tensor([0.0, 1.0]))):
            first, last = log_odds(local, [sample] * 2, starts).tolist()
        return first, last


def filler(local: Local, prompts: Sequence[Prompt]) -> Tensor:
    """The mean embedding of the tokens of these prompts, shape (d,): a word that stands for no word in particular."""
    ids = torch.cat([prompt_sample(local.processor, Prompt(p.query, p.question, None))["input_ids"] for p in prompts])
    layer = local.model.get_input_embeddings()
    with torch.no_grad():
        found: Tensor = layer(ids.to(local.model.device)).mean(dim=0)
    return found
