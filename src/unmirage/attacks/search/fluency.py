"""How likely a question is to the attacked model itself: an edit that makes it much less likely is no plain question.

score(q) = mean over the question's tokens of log p(token | picture, template and tokens before), in nats
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from unmirage.align.batches import collate
from unmirage.align.signals import answer_log_probs
from unmirage.attacks.edits import Edit
from unmirage.audit.model.encoding import Local, Sample, batches, continued, differing, prompt_sample
from unmirage.audit.model.scoring import Score
from unmirage.backends.prompts import Prompt
from unmirage.errors import UserError
from unmirage.runs import JsonLines
from unmirage.schema import Query, content_hash

_OTHERS = ("7", "Zq!", "- x")
"""Questions that begin and end in ways of their own: what all prompts share is the template."""


class Fluency:
    """Scores questions, each distinct request once; those in the log are not computed again."""

    def __init__(self, local: Local, key: Callable[[Prompt], str], log: JsonLines) -> None:
        """Reads what the log holds already."""
        self._local, self._key, self._log = local, key, log
        self._known = {score.key: score.value for score in log.read(Score)}
        self.used: set[str] = set()

    def admitted(self, query: Query, edits: Sequence[Edit], worse_by: float) -> list[Edit]:
        """The edits whose score is at most `worse_by` nats a token below that of the question as it is, in order."""
        own, *scores = self.scores(query, [Prompt.of(query), *(edit.prompt(query) for edit in edits)])
        return [edit for edit, score in zip(edits, scores, strict=True) if score >= own - worse_by]

    def scores(self, query: Query, prompts: Sequence[Prompt]) -> list[float]:
        """The score of each prompt, all of one query; raises UserError where the template hides the question."""
        keys = [content_hash("fluency", self._key(prompt)) for prompt in prompts]
        missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in self._known}
        if missing:
            start, tail = self._frame(query)
            values: list[float] = []
            for batch in batches(self._local, list(missing.values())):
                values += self._pass([prompt_sample(self._local.processor, prompt) for prompt in batch], start, tail)
            self._log.append([Score(key=key, value=value) for key, value in zip(missing, values, strict=True)])
            self._known |= dict(zip(missing, values, strict=True))
        self.used |= set(keys)
        return [self._known[key] for key in keys]

    def _frame(self, query: Query) -> tuple[int, int]:
        """How many tokens of the template stand before the question, and behind it."""
        texts = (query.question, *_OTHERS)
        samples = [prompt_sample(self._local.processor, Prompt(query.id, text, query.image)) for text in texts]
        return differing(samples)

    def _pass(self, samples: Sequence[Sample], start: int, tail: int) -> list[float]:
        rows = [_labelled(sample, start, tail) for sample in samples]
        batch = collate(rows, self._local.processor.tokenizer.pad_token_id)
        device = self._local.model.device
        batch = {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}
        with torch.inference_mode():
            return [float(value) for value in answer_log_probs(self._local.model, batch).reduce("mean")]


def _labelled(sample: Sample, start: int, tail: int) -> Sample:
    """The prompt with the question's tokens as labels."""
    row = continued(sample, ())
    end = len(row["input_ids"]) - tail
    if not 0 < start < end:
        raise UserError("the chat template does not show where a question begins and ends; leave --fluency out.")
    row["labels"][start:end] = row["input_ids"][start:end]
    return row
