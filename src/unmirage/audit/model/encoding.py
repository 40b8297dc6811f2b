"""Prompts as the model's own tokens, with token sequences that continue them, for models in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from unmirage.align.batches import collate
from unmirage.align.encode import TOKENS, encode
from unmirage.align.signals import Wanted, read
from unmirage.backends.prompts import Prompt, adds_special_tokens, open_image, turns
from unmirage.errors import UserError
from unmirage.schema import Query

Sample = dict[str, Any]
Ids = tuple[int, ...]
"""Token ids, one after the other."""
_TYPE = "type of answer tokens"
_CROSS = "cross_attention_mask"


class Local(Protocol):
    """A backend whose model is in this process, as `HuggingFaceBackend`."""

    batch_size: int

    @property
    def model(self) -> Any:
        """The model."""
        ...

    @property
    def processor(self) -> Any:
        """Its processor."""
        ...


def prompt_sample(processor: Any, prompt: Prompt) -> Sample:
    """One prompt up to where its answer begins: tensors of shape (t,), pixels as the processor gives them."""
    text = processor.apply_chat_template(turns(prompt), tokenize=False, add_generation_prompt=True)
    image = open_image(prompt)
    pictures = {"images": [image]} if image is not None else {}
    special = adds_special_tokens(processor, text)
    inputs = dict(processor(text=[text], **pictures, return_tensors="pt", add_special_tokens=special))
    own_labels = inputs.pop("labels", None) is not None
    sample = {key: value[0] if key in TOKENS else value for key, value in inputs.items()}
    # As in `align.encode`: where a processor gives labels (PaliGemma), type 1 marks what may not be looked ahead at.
    return {**sample, _TYPE: int(own_labels)}


def continued(sample: Sample, tokens: Ids) -> Sample:
    """The prompt with tokens after it, which are its labels."""
    more = {key: sample[key].new_zeros(len(tokens)) for key in TOKENS if key in sample}
    if "token_type_ids" in more:
        more["token_type_ids"] += sample[_TYPE]
    more["input_ids"] = sample["input_ids"].new_tensor(tokens)
    more["attention_mask"] = torch.ones_like(more["input_ids"])
    grown = {**sample, **{key: torch.cat([sample[key], extra]) for key, extra in more.items()}}
    grown["labels"] = grown["input_ids"].clone()
    grown["labels"][: len(sample["input_ids"])] = -100
    if _CROSS in sample:
        last = sample[_CROSS][:, -1:]
        grown[_CROSS] = torch.cat([sample[_CROSS], *[last] * len(tokens)], dim=1)
    del grown[_TYPE]
    return grown


def next_log_probs(local: Local, samples: Sequence[Sample], tokens: Ids) -> Tensor:
    """log p of every token of the vocabulary at each place of `tokens` after each prompt, (batch, len(tokens), V)."""
    rows = [continued(sample, tokens) for sample in samples]
    batch = collate(rows, local.processor.tokenizer.pad_token_id)
    device = local.model.device
    batch = {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}
    logits = read(local.model, batch, Wanted(answers=True)).logits
    assert logits is not None
    return torch.log_softmax(logits.values.float(), dim=-1).view(len(rows), len(tokens), -1)


def answer_tokens(processor: Any, text: str) -> Ids:
    """An answer's tokens as the chat template writes them, its end included; raises UserError as `encode` does."""
    if not text.strip():
        return (int(processor.tokenizer.eos_token_id),)
    labels = encode(processor, Query(id="answer", question="?", harmful=False, reference=text))["labels"]
    return tuple(labels[labels != -100].tolist())


def batches(local: Local, prompts: Sequence[Prompt]) -> Iterator[list[Prompt]]:
    """Prompts in batches, those with and those without a picture apart."""
    for _, alike in groupby(prompts, key=lambda prompt: prompt.image is None):
        rows = list(alike)
        for start in range(0, len(rows), local.batch_size):
            yield rows[start : start + local.batch_size]


@contextmanager
def embeddings(model: nn.Module, change: Any) -> Iterator[None]:
    """`change(output)` stands for the output of the input embeddings; as before afterwards, also after an exception."""
    layer: nn.Module = model.get_input_embeddings()  # type: ignore[operator]
    hook = layer.register_forward_hook(lambda _module, _inputs, output: change(output))
    try:
        yield
    finally:
        hook.remove()


def differing(samples: Sequence[Sample]) -> tuple[int, int]:
    """(start, tail): tokens that all prompts share at their beginning, and at their end."""
    ids = [sample["input_ids"].tolist() for sample in samples]
    shortest = min(map(len, ids))
    start = next((i for i in range(shortest) if len({row[i] for row in ids}) > 1), shortest)
    rest = shortest - start
    tail = next((i for i in range(rest) if len({row[-1 - i] for row in ids}) > 1), rest)
    return start, tail


def question_span(processor: Any, prompt: Prompt) -> tuple[Sample, int, int, list[int]]:
    """The prompt, the first token of its question and the one behind its last, and the word that each token is of.

    A token that reaches over two words belongs to the one that it begins in. Raises UserError where the tokens found
    do not read as the question.
    """
    sample = prompt_sample(processor, prompt)
    others = [prompt_sample(processor, _asking(prompt, text)) for text in ("7", "Zq!", "- x")]
    start, tail = differing([sample, *others])
    ids = sample["input_ids"].tolist()
    end = len(ids) - tail
    texts = [processor.tokenizer.decode(ids[start : i + 1]) for i in range(start - 1, end)]
    lead = len(texts[-1]) - len(texts[-1].lstrip())
    if texts[-1].strip() != prompt.question.strip():
        raise UserError(f"the tokens of {prompt.question!r} read {texts[-1]!r}, so words and tokens cannot be matched.")
    starts = [max(0, len(text) - lead) for text in texts[:-1]]
    return sample, start, end, [_word_at(prompt.question.strip(), place) for place in starts]


def _asking(prompt: Prompt, question: str) -> Prompt:
    return Prompt(prompt.query, question, prompt.image)


def _word_at(text: str, place: int) -> int:
    """Number of the word that begins at or before `place`; white space belongs to the word behind it."""
    before = text[:place]
    inside = bool(before) and not before[-1].isspace() and place < len(text) and not text[place].isspace()
    return max(0, len(before.split()) - (1 if inside else 0))
