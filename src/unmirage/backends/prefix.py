"""Variants of a question share picture and beginning: both are run once, and their keys and values used for all.

    picture 1, variant 1   pad pad [image] [image] Q1     pad Steps to  make it
    picture 1, variant 2   pad pad [image] [image] Q1     How   do   I  make it
    picture 2, variant 1   [image] [image] [image] [image] Q1   pad pad What is it
                           `---- the prefixes, run once ----'  `-- the rest ---'
                                 for each picture               for each variant

Padding stands left of the prefixes and left of the rest; it is masked, and positions do not count it, so each row is
computed as it would be alone. The plain way is what decides: before the first batch a few rows are asked in both ways,
and where tokens or logits differ nothing is shared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

import torch
from torch import Tensor

from unmirage.backends.decoding import is_out_of_memory
from unmirage.backends.prompts import Prompt, adds_special_tokens
from unmirage.backends.stored import odd_layers, take_rows

Inputs = dict[str, Any]
Tell = Callable[[str], object]

_SEQUENCES = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
"""What a processor gives for each token; anything else that is as long as the tokens is not understood here."""
_NOT_READ = ("labels",)
"""What PaliGemma's gives besides, for training."""
_CHECKED, _TOKENS = 3, 8
_TOLERANCE = {torch.float32: 1e-3}
_TOLERANCE_LOW = 0.05
"""Of logits, relative to their spread: in half precision the plain way alone differs so much from batch to batch."""


class CannotShareError(Exception):
    """Why the rows at hand, or all, cannot share a prefix; a clause to go on with in a sentence."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Prompts taken apart. `prefix`: model inputs, one row a picture, padded on the left; `rows`: each prompt's
    picture, as its row there; `rest`: each prompt's own tokens after the prefix, one at least.
    """

    prefix: Inputs
    rows: list[int]
    rest: list[list[int]]


class PrefixSharing:
    """Inputs for `generate` that go on from shared prefixes. `plain` makes a batch's inputs in the plain way."""

    def __init__(
        self, model: Any, processor: Any, render: Callable[[Prompt], str], plain: Callable[..., Any], tell: Tell
    ) -> None:
        """Nothing is computed before the first batch."""
        self._model, self._processor, self._render, self._plain = model, processor, render, plain
        self._tell = tell
        self._proved: bool | None = None
        self._window = _window(model)

    def inputs(self, prompts: Sequence[Prompt], most: int) -> Inputs | None:
        """Inputs of `generate` for the prompts, to which `most` tokens will be added; None where the plain way is due.

        The first call that could share compares both ways. Why nothing is shared is told, once for each reason.
        """
        if self._proved is False or not _worthwhile(prompts):
            return None
        try:
            if self._proved is None:
                self._prove(prompts)
            return self._start(prompts, most)
        except CannotShareError as why:
            self._tell(f"each variant is read anew, picture and all, which takes longer: {why}.")
            return None

    def _prove(self, prompts: Sequence[Prompt]) -> None:
        """Asks a few rows in both ways; raises CannotShareError, now and for all later rows, where they differ."""
        sample = _sample(prompts)
        plain = self._plain(sample)  # outside: a picture that cannot be used is no fault of sharing
        try:
            fault = self._difference(sample, plain)
        except CannotShareError as why:
            fault = str(why)
        except Exception as error:  # whatever a family's code runs into where it is asked in an unusual way
            if is_out_of_memory(error):
                raise
            fault = f"this model cannot go on from stored keys and values ({type(error).__name__}: {error})"
        self._proved = fault is None
        if fault is not None:
            raise CannotShareError(fault)

    def _difference(self, prompts: Sequence[Prompt], plain: Any) -> str | None:
        plain, shared = plain.to(self._model.device), self._start(prompts, _TOKENS)
        if _unpadded(plain) != _unpadded(shared):
            return "its processor tokenizes a prompt otherwise than its parts"
        (ours, our_logits), (theirs, their_logits) = self._ask(shared), self._ask(plain)
        if _distance(our_logits, their_logits) > _TOLERANCE.get(self._model.dtype, _TOLERANCE_LOW):
            return "this model reads what comes before in the light of what follows, or places it otherwise"
        if self._model.dtype == torch.float32 and not torch.equal(ours, theirs):
            return "this model's answers differ"
        return None

    def _ask(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """New tokens (rows, n) and the logits of the first of them (rows, vocabulary)."""
        start = inputs["input_ids"].shape[1]
        kind = {"do_sample": False, "output_logits": True, "return_dict_in_generate": True}
        with torch.inference_mode():
            out = self._model.generate(**inputs, max_new_tokens=_TOKENS, **kind)
        return out.sequences[:, start:], out.logits[0]

    def _start(self, prompts: Sequence[Prompt], most: int) -> Inputs:
        parts = self._parts(prompts)
        ids, mask = _joined(parts, self._processor.tokenizer.pad_token_id)
        length = ids.shape[1] + most
        if self._window is not None and length > self._window:
            raise CannotShareError(f"some are longer than this model's window of {self._window} tokens")
        device = self._model.device
        room = ids.shape[1] - parts.prefix["input_ids"].shape[1] + most
        cache = self._run_prefixes(parts, torch.tensor(parts.rows, device=device), room)
        return {"input_ids": ids.to(device), "attention_mask": mask.to(device), "past_key_values": cache}

    def _run_prefixes(self, parts: Parts, rows: Tensor, room: int) -> Any:
        """Keys and values of the prefixes, one row for each of `rows`, with room for so many more tokens."""
        inputs = {name: value.to(self._model.device) for name, value in parts.prefix.items()}
        with torch.inference_mode():
            out = self._model.generate(**inputs, do_sample=False, max_new_tokens=1, return_dict_in_generate=True)
        cache = out.past_key_values
        if odd := odd_layers(cache):
            raise CannotShareError(f"this model keeps {odd}, which cannot be divided into rows")
        take_rows(self._model, cache, rows, room)
        return cache

    def _parts(self, prompts: Sequence[Prompt]) -> Parts:
        """Opens and processes each picture once; raises CannotShareError where a picture is not all in the prefix."""
        groups = [list(group) for _, group in groupby(prompts, key=lambda prompt: prompt.image)]
        firsts = self._plain([group[0] for group in groups])
        if odd := _odd_inputs(firsts):
            raise CannotShareError(f"this model takes {odd}, which is not understood here")
        lengths: list[int] = []
        rest: list[list[int]] = []
        for group, whole in zip(groups, _unpadded(firsts), strict=True):
            tokens = self._tokens(group)
            common = _common(tokens)
            own = [one[common:] for one in tokens]
            self._check_rest(whole, own)
            lengths.append(len(whole) - len(own[0]))
            rest += own
        rows = [row for row, group in enumerate(groups) for _ in group]
        return Parts(_cut(firsts, lengths, self._processor.tokenizer.pad_token_id), rows, rest)

    def _check_rest(self, whole: list[int], rest: list[list[int]]) -> None:
        """Raises CannotShareError unless the processor made `whole` of the first of these prompts by widening what
        comes before the rest, and would do the same to the others: a question may hold a picture's placeholder.
        """
        pictures = set(_image_tokens(self._processor))
        special = pictures.union(self._processor.tokenizer.all_special_ids)
        held = [[token for token in own if token in special] for own in rest]
        widened = len(whole) > len(rest[0]) and whole[-len(rest[0]) :] == rest[0] and not pictures.intersection(held[0])
        if not widened or any(one != held[0] for one in held):
            raise CannotShareError("its processor changes a prompt not only before the words that differ")

    def _tokens(self, group: Sequence[Prompt]) -> list[list[int]]:
        """Tokens of the prompts with a picture's place not yet widened to its number of tokens."""
        texts = [self._render(prompt) for prompt in group]
        special = adds_special_tokens(self._processor, texts[0])
        tokens: list[list[int]] = self._processor.tokenizer(texts, add_special_tokens=special)["input_ids"]
        return tokens


def _worthwhile(prompts: Sequence[Prompt]) -> bool:
    """Whether two prompts beside one another share a picture."""
    images = [prompt.image for prompt in prompts]
    return images[0] is not None and any(one == other for one, other in pairwise(images))


def _sample(prompts: Sequence[Prompt]) -> list[Prompt]:
    """A picture's shortest and longest question and one of another picture, if there is: all sorts of padding."""
    groups = [list(group) for _, group in groupby(prompts, key=lambda prompt: prompt.image)]
    most = max(groups, key=len)
    by_length = sorted(most, key=lambda prompt: len(prompt.question))
    other = [group[0] for group in groups if group is not most]
    return [by_length[0], by_length[-1], *other][:_CHECKED]


def _window(model: Any) -> int | None:
    """Tokens that the narrowest layer looks back on; None where all layers see everything."""
    from transformers import DynamicCache

    layers = DynamicCache(config=model.config.get_text_config(decoder=True)).layers
    return min((layer.get_max_length() for layer in layers if getattr(layer, "is_sliding", False)), default=None)


def _image_tokens(processor: Any) -> list[int]:
    several = getattr(processor, "image_token_ids", None) or [getattr(processor, "image_token_id", None)]
    return [token for token in several if token is not None]


def _odd_inputs(inputs: Any) -> str | None:
    """The name of an input that has an element for each token and is none that is known how to cut."""
    shape = inputs["input_ids"].shape
    known = (*_SEQUENCES, *_NOT_READ)
    odd = (name for name, value in inputs.items() if name not in known and tuple(value.shape[:2]) == tuple(shape))
    return next(odd, None)


def _common(tokens: Sequence[Sequence[int]]) -> int:
    """How many tokens all begin with; each keeps one at least for itself."""
    most = min(map(len, tokens)) - 1
    alike = (len(set(column)) == 1 for column in zip(*tokens, strict=False))
    return next((place for place, same in enumerate(alike) if not same or place == most), most)


def _cut(inputs: Any, lengths: Sequence[int], pad: int) -> Inputs:
    """The first `lengths` real tokens of each row, padded on the left again; what is not of tokens stays."""
    real, fill = inputs["attention_mask"].bool(), {"input_ids": pad}
    cut = {name: value for name, value in inputs.items() if name not in _NOT_READ}
    for name in [name for name in cut if name in _SEQUENCES]:
        kept = [row[there][:n] for row, there, n in zip(cut[name], real, lengths, strict=True)]
        cut[name] = _left_padded(kept, fill.get(name, 0))
    return cut


def _left_padded(rows: Sequence[Tensor], fill: int) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=fill, padding_side="left")


def _joined(parts: Parts, pad: int) -> tuple[Tensor, Tensor]:
    """Tokens and mask of all rows, (rows, columns of prefix and rest)."""
    rest = [torch.tensor(own) for own in parts.rest]
    ids = torch.cat([parts.prefix["input_ids"][parts.rows], _left_padded(rest, pad)], dim=1)
    ones = [torch.ones_like(own) for own in rest]
    return ids, torch.cat([parts.prefix["attention_mask"][parts.rows], _left_padded(ones, 0)], dim=1)


def _unpadded(inputs: Any) -> list[list[int]]:
    rows = zip(inputs["input_ids"], inputs["attention_mask"].bool(), strict=True)
    return [ids[there].tolist() for ids, there in rows]


def _distance(one: Tensor, other: Tensor) -> float:
    """The largest over rows of the norm of what differs, over the norm of what varies within the row."""
    one, other = one.float(), other.float()
    spread = (one - one.mean(dim=1, keepdim=True)).norm(dim=1)
    return float(((one - other).norm(dim=1) / spread.clamp_min(1e-9)).max())
