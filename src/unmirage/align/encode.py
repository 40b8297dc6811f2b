"""From a query to one sample: the chat rendered and tokenised, with the answer's tokens found.

The answer's tokens come from the template's own `{% generation %}` tags where it has them, else they are those after
the rendered prompt. Either way they must decode to the answer; where neither does, the template is refused, not
guessed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from unmirage.backends.prompts import Prompt, adds_special_tokens, open_image, turns
from unmirage.errors import UserError
from unmirage.schema import Query

Batch = dict[str, Any]
TOKENS = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
SEQUENCES = (*TOKENS, "labels", "image_mask")
_CROSS = "cross_attention_mask"
_FEW = 3
_LONGEST = 200
_GENERATION = re.compile(r"\{%-?\s*generation\b")
_NOT_OURS = ("assistant_masks", "labels")
"""What some processors add: a mask that was asked for, and labels of their own (PaliGemma)."""


def encode(processor: Any, query: Query) -> Batch:
    """One query with its reference answer: unpadded tensors of shape (t,), pixels as the processor gives them.

    `labels` is -100 outside the answer; `image_mask` marks the image's placeholder tokens. Raises UserError for a row
    without an answer, an image that cannot be read or that the processor rejects, and a template in which the answer
    cannot be found.
    """
    check_answer(query)
    prompt = Prompt.of(query)
    image = open_image(prompt)
    try:
        inputs = _render(processor, turns(prompt, query.reference), image)
        ids = inputs["input_ids"][0]
        answer = _answer_mask(processor, query, ids, image)
    except UserError:
        raise
    except Exception as error:  # processors raise whatever their arithmetic runs into
        raise UserError(_rejected(query, image, error)) from error
    tokens = {key: inputs[key][0] for key in TOKENS if key in inputs}
    pixels = {key: value for key, value in inputs.items() if key not in tokens and key not in _NOT_OURS}
    pictures = torch.isin(ids, torch.tensor(image_tokens(processor)))
    if "labels" in inputs and "token_type_ids" in tokens:
        # PaliGemma's processor, the only one with labels of its own: by 1 it marks what may not be looked ahead at.
        tokens["token_type_ids"] = answer.to(ids.dtype)
    sample = {**tokens, **pixels, "labels": ids.masked_fill(~answer, -100), "image_mask": pictures}
    return _ended(processor, sample)


def _rejected(query: Query, image: Image.Image | None, error: Exception) -> str:
    """What a processor that raises says of a query."""
    reason = " ".join(str(error).split()) or type(error).__name__
    if image is None:
        return f"the model's processor rejects query {query.id!r} ({reason[:_LONGEST]}); remove the row."
    size = f"{image.width} x {image.height} pixels"
    return (
        f"the model's processor rejects the image of query {query.id!r}, {query.image}, {size} ({reason[:_LONGEST]}); "
        "replace the image or remove the row."
    )


def told(problems: Sequence[str], among: int) -> None:
    """Raises UserError that tells how many rows have problems, with the first few; nothing where there are none."""
    if not problems:
        return
    first = " ".join(problems[:_FEW])
    more = f" And {len(problems) - _FEW} more." if len(problems) > _FEW else ""
    raise UserError(f"{len(problems)} of {among} rows cannot be used: {first}{more}")


def check_answer(query: Query) -> None:
    """Raises UserError where a query has no reference answer to train on."""
    if not (query.reference or "").strip():
        raise UserError(f"query {query.id!r} has no answer to train on; give each row a response.")


def image_tokens(processor: Any) -> list[int]:
    """The ids of the tokens that stand for an image; empty where the processor has none."""
    several = getattr(processor, "image_token_ids", None)
    tokens = several if several is not None else [getattr(processor, "image_token_id", None)]
    return [int(token) for token in tokens if token is not None]


def _render(processor: Any, chat: list[dict[str, Any]], image: Image.Image | None, **options: Any) -> Batch:
    text = processor.apply_chat_template(chat, tokenize=False, **options)
    images = {"images": [image]} if image is not None else {}
    special = adds_special_tokens(processor, text)
    return dict(processor(text=[text], **images, return_tensors="pt", add_special_tokens=special))


def _answer_mask(processor: Any, query: Query, ids: Tensor, image: Image.Image | None) -> Tensor:
    """Which tokens are the answer, shape (t,)."""
    faults = []
    for find in (_tagged, _after_prompt):
        mask, fault = find(processor, query, ids, image)
        fault = fault or _misread(processor, query, ids[mask])
        if not fault:
            return mask
        faults.append(fault)
    raise UserError(
        f"the chat template of this model does not show where the answer of query {query.id!r} is: "
        f"{'; '.join(faults)}. Give it a template with generation tags, or one whose prompt begins the whole."
    )


def _tagged(processor: Any, query: Query, ids: Tensor, image: Image.Image | None) -> tuple[Tensor, str]:
    """The mask by the template's tags, and what is wrong with it."""
    mask = torch.zeros_like(ids, dtype=torch.bool)
    if not _GENERATION.search(str(processor.chat_template)):
        return mask, "it has no generation tags"
    chat = turns(Prompt.of(query), query.reference)
    if image is not None:
        chat[0]["content"][0]["image"] = image
    options = {"tokenize": True, "return_dict": True, "return_assistant_tokens_mask": True, "return_tensors": "pt"}
    found = processor.apply_chat_template(chat, **options)
    if not torch.equal(found["input_ids"][0], ids):
        return mask, "its tagged rendering has other tokens than the plain one"
    return torch.as_tensor(found["assistant_masks"])[0].bool(), ""


def _after_prompt(processor: Any, query: Query, ids: Tensor, image: Image.Image | None) -> tuple[Tensor, str]:
    """The mask of what follows the rendered prompt, and what is wrong with it."""
    prompt = _render(processor, turns(Prompt.of(query)), image, add_generation_prompt=True)["input_ids"][0]
    mask = torch.arange(len(ids)) >= len(prompt)
    if len(prompt) >= len(ids) or not torch.equal(ids[: len(prompt)], prompt):
        return mask, "its prompt is not the beginning of the whole conversation"
    return mask, ""


def _misread(processor: Any, query: Query, answer: Tensor) -> str:
    decoded = processor.tokenizer.decode(answer, skip_special_tokens=True).strip()
    if decoded == str(query.reference).strip():
        return ""
    return f"the tokens found read {decoded!r}, not its answer {query.reference!r}"


def _ended(processor: Any, sample: Batch) -> Batch:
    """The sample with its answer closed: a model that is never taught the end of an answer never stops."""
    end = processor.tokenizer.eos_token_id
    if end is None or end in sample["labels"].tolist():
        return sample
    last = {"input_ids": end, "labels": end, "attention_mask": 1}
    grown = {
        key: torch.cat([sample[key], sample[key].new_tensor([last.get(key, 0)])]) for key in SEQUENCES if key in sample
    }
    if _CROSS in sample:
        grown[_CROSS] = torch.cat([sample[_CROSS], sample[_CROSS][:, -1:]], dim=1)
    return {**sample, **grown}


def cut(sample: Batch, query: Query, max_length: int | None) -> Batch:
    """The sample cut at its end to `max_length` tokens, so that its answer may be cut too, or gone.

    Raises UserError where the picture alone is longer.
    """
    if max_length is None or len(sample["input_ids"]) <= max_length:
        return sample
    if sample["image_mask"][max_length:].any():
        raise UserError(
            f"the picture of query {query.id!r} alone takes more than max_length={max_length} tokens; raise max_length."
        )
    kept = {key: sample[key][:max_length] for key in SEQUENCES if key in sample}
    if _CROSS in sample:
        kept[_CROSS] = sample[_CROSS][:, :max_length]
    return {**sample, **kept}
