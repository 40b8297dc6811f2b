"""A fast stand-in for asking: how much rather a model begins one of its refusals than one of its other answers.

score(x) = log sum_{r in R} p(r | x) - log sum_{c in C} p(c | x), in nats

R are the starts of the model's own refusals, C those of its other answers, both from real answers to a sample and as
short as tells them apart. Where one token does, one forward pass takes the place of a whole answer.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unmirage.audit.model.encoding import Ids, Local, Sample, answer_tokens, batches, next_log_probs, prompt_sample
from unmirage.backends.asking import Asker, Progress
from unmirage.backends.prompts import Prompt
from unmirage.runs import JsonLines
from unmirage.schema import Frozen, content_hash

LONGEST_START, MOST_PASSES, TOLERATED = 4, 8, 0.02


@dataclass(frozen=True, slots=True)
class Starts:
    """Starts of refusals and of other answers, all of `length` tokens.

    coverage: share of the answers that they were taken from which begin with one of them.
    """

    refusals: tuple[Ids, ...]
    others: tuple[Ids, ...]
    coverage: float

    @property
    def length(self) -> int:
        """Tokens of every start."""
        return len(self.refusals[0])

    @property
    def by_parent(self) -> dict[Ids, list[Ids]]:
        """Starts by all of their tokens but the last: those of one parent are scored in one pass."""
        found: dict[Ids, list[Ids]] = defaultdict(list)
        for start in (*self.refusals, *self.others):
            found[start[:-1]].append(start)
        return dict(found)


def find_starts(refusals: Sequence[Ids], others: Sequence[Ids]) -> Starts | None:
    """Starts that tell refusals from other answers, as short as loses few answers against the best length.

    None where there are no refusals or no other answers. A start that both sorts have is left to the one that has it
    more often. Starts are kept as far as `MOST_PASSES` passes score them, the most frequent first.
    """
    if not refusals or not others:
        return None
    lengths = range(1, LONGEST_START + 1)
    lost = {k: _lost(refusals, others, k) for k in lengths}
    tolerated = min(lost.values()) + TOLERATED * (len(refusals) + len(others))
    length = next(k for k in lengths if lost[k] <= tolerated)
    first, second = _counted(refusals, length), _counted(others, length)
    ours = {start: n for start, n in first.items() if n > second[start]}
    theirs = {start: n for start, n in second.items() if n >= first[start]}
    passes = _parents({**ours, **theirs})
    kept, rest = _within(ours, passes), _within(theirs, passes)
    if not kept or not rest:
        return None
    covered = sum(ours[start] for start in kept) + sum(theirs[start] for start in rest)
    return Starts(kept, rest, covered / (len(refusals) + len(others)))


def _counted(answers: Sequence[Ids], length: int) -> Counter[Ids]:
    return Counter(answer[:length] for answer in answers if len(answer) >= length)


def _lost(refusals: Sequence[Ids], others: Sequence[Ids], length: int) -> int:
    """Answers whose start is more often one of the other sort, or that are too short for such a start."""
    first, second = _counted(refusals, length), _counted(others, length)
    minority = sum(min(n, second[start]) for start, n in first.items())
    return minority + len(refusals) + len(others) - first.total() - second.total()


def _parents(counts: dict[Ids, int]) -> set[Ids]:
    """The most frequent beginnings of all but the last token."""
    found: Counter[Ids] = Counter()
    for start, n in counts.items():
        found[start[:-1]] += n
    return {parent for parent, _ in found.most_common(MOST_PASSES)}


def _within(counts: dict[Ids, int], parents: set[Ids]) -> tuple[Ids, ...]:
    return tuple(
        sorted((start for start in counts if start[:-1] in parents), key=lambda start: (-counts[start], start))
    )


def log_odds(local: Local, samples: Sequence[Sample], starts: Starts) -> Tensor:
    """The score of each prompt, shape (batch,), see the head of this file; differentiable."""
    found: dict[Ids, Tensor] = {}
    for parent, children in starts.by_parent.items():
        # The last token is only there to have a place to predict; any of the children does.
        log_probs = next_log_probs(local, samples, children[0])
        before = sum((log_probs[:, i, token] for i, token in enumerate(parent)), log_probs.new_zeros(len(samples)))
        found |= {child: before + log_probs[:, -1, child[-1]] for child in children}
    refusals = torch.stack([found[start] for start in starts.refusals])
    others = torch.stack([found[start] for start in starts.others])
    return torch.logsumexp(refusals, dim=0) - torch.logsumexp(others, dim=0)


class Score(Frozen):
    """One line of the log of scores."""

    key: str
    value: float


@dataclass
class Scorer:
    """Scores prompts, each distinct request once; those in the log are not computed again."""

    local: Local
    starts: Starts
    asker: Asker
    log: JsonLines
    progress: Progress

    def __post_init__(self) -> None:
        """Reads what the log holds already."""
        self._known = {score.key: score.value for score in self.log.read(Score)}

    def score(self, prompts: Sequence[Prompt], what: str) -> list[float]:
        """The score of each prompt, in order."""
        keys = [self._key(prompt) for prompt in prompts]
        missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in self._known}
        order = sorted(missing, key=lambda key: (missing[key].image is None, len(missing[key].question), key))
        done = 0
        for batch in batches(self.local, [missing[key] for key in order]):
            values = self._pass(batch)
            mine = order[done : done + len(batch)]
            self.log.append([Score(key=key, value=value) for key, value in zip(mine, values, strict=True)])
            self._known |= dict(zip(mine, values, strict=True))
            done += len(batch)
            self.progress(what, done, len(order))
        return [self._known[key] for key in keys]

    def _key(self, prompt: Prompt) -> str:
        return content_hash(self.asker.key(prompt), self.starts.refusals, self.starts.others)

    def _pass(self, prompts: Sequence[Prompt]) -> list[float]:
        samples = [prompt_sample(self.local.processor, prompt) for prompt in prompts]
        with torch.inference_mode():
            return [float(value) for value in log_odds(self.local, samples, self.starts)]


def starts_of(processor: object, texts: Sequence[str], refused: Sequence[bool]) -> Starts | None:
    """`find_starts` of real answers; raises UserError where the chat template does not show where an answer is."""
    tokens = _memory(lambda text: answer_tokens(processor, text))
    sorted_ = [(tokens(text), refusal) for text, refusal in zip(texts, refused, strict=True)]
    return find_starts(
        [path for path, refusal in sorted_ if refusal], [path for path, refusal in sorted_ if not refusal]
    )


def _memory(function: Callable[[str], Ids]) -> Callable[[str], Ids]:
    known: dict[str, Ids] = {}

    def _remembered(text: str) -> Ids:
        if text not in known:
            known[text] = function(text)
        return known[text]

    return _remembered
