"""Generation from inputs however made: when a row ends, what it says, and going on with those that have not."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, StoppingCriteria

from unmirage.backends.protocol import Reply, Settled
from unmirage.backends.stored import take_rows
from unmirage.schema import content_hash

_FULL = re.compile(r"out of memory|can't allocate memory|not enough memory|ALLOC_FAILED", re.IGNORECASE)
"""How torch words it where it raises no error of its own kind for it."""
_LAST_WORD = re.compile(r"\S*\Z")
_FEW = 8
"""So few rows or fewer are not thinned out: to begin anew costs more than to carry the ended along."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it was the memory that did not suffice, the GPU's or the machine's."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and bool(_FULL.search(str(error)))


def certain(text: str) -> str:
    """What no further token changes of a decoded beginning, stripped: the text without its last word.

    The next token may complete a character of several bytes, of which a decoder shows a replacement character, or be
    drawn up to the word before it ("do n't"); neither reaches back over white space that has a whole word before it.
    """
    return _LAST_WORD.sub("", text).strip()


def byte_tokens(tokenizer: Any) -> frozenset[int]:
    """Tokens that stand for one byte ("<0x0A>"): an incomplete character spoils a whole run of them."""
    names = [f"<0x{byte:02X}>" for byte in range(256)]
    known = set(tokenizer.get_vocab()).intersection(names)
    return frozenset(tokenizer.convert_tokens_to_ids(sorted(known)))


def end_tokens(model: Any) -> list[int]:
    """The tokens that end an answer, by the model's generation settings."""
    ends = model.generation_config.eos_token_id
    return [] if ends is None else [ends] if isinstance(ends, int) else list(ends)


@dataclass(frozen=True, slots=True)
class Drawing:
    """How answers are drawn: the temperature, and for each row what names its own stream of random numbers."""

    temperature: float
    streams: Sequence[str]

    def processors(self, rows: Sequence[int], start: int) -> list[LogitsProcessor]:
        """What `generate` is given for these rows, whose prompts have `start` columns."""
        return [Noise(self.temperature, [self.streams[row] for row in rows], start)]


class Noise(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped
    """Makes the greedy choice a draw from softmax(logits / temperature): adds Gumbel noise to logits / temperature.

    The noise is a function of a row's stream and of how many tokens its answer has (argmax of perturbed logits: Gumbel
    1954; Maddison et al. 2014, arXiv 1411.0030, section 2), so that neither the batch nor a resumption changes a draw.
    """

    def __init__(self, temperature: float, streams: Sequence[str], start: int) -> None:
        self._temperature, self._streams, self._start = temperature, streams, start

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Perturbed scores of the next token, shape (rows, vocabulary)."""
        place, size = input_ids.shape[1] - self._start, scores.shape[1]
        noise = torch.stack([_gumbel(stream, place, size) for stream in self._streams])
        return scores.float() / self._temperature + noise.to(scores.device)


def _gumbel(stream: str, place: int, size: int) -> Tensor:
    """Standard Gumbel noise, shape (size,); drawn on the CPU, so that it is the same on every device."""
    generator = torch.Generator().manual_seed(int(content_hash(stream, place)[:15], 16))
    return -torch.empty(size).exponential_(generator=generator).log()


def replies(
    model: Any,
    processor: Any,
    inputs: Any,
    most: int,
    settled: Settled | None,
    *,
    thin: bool = False,
    drawing: Drawing | None = None,
) -> list[Reply]:
    """Answers of at most `most` tokens to the rows of `inputs`, each ended as soon as `settled` is true of it.

    Greedy, or drawn as `drawing` says. With `thin`, rows that have ended are taken out when they are half of all; the
    model must be known to go on from stored keys and values.
    """
    start, ends = inputs["input_ids"].shape[1], end_tokens(model)
    rows, found = list(range(len(inputs["input_ids"]))), dict[int, Reply]()
    while rows:
        watch = Watch(processor, ends, start, most, settled, thin=thin and len(rows) > _FEW)
        left = start + most - inputs["input_ids"].shape[1]
        drawn = {"logits_processor": drawing.processors(rows, start)} if drawing else {}
        with torch.inference_mode():
            out = model.generate(
                **inputs,
                do_sample=False,
                max_new_tokens=left,
                stopping_criteria=[watch],
                return_dict_in_generate=True,
                **drawn,
            )
            now = watch.replies(out.sequences[:, start:])
            found |= {rows[place]: reply for place, reply in now.items()}
            rest = [place for place in range(len(rows)) if place not in now]
            rows = [rows[place] for place in rest]
            inputs = _of_rows(model, inputs, out, rest, start + most) if rest else inputs
    return [found[row] for row in sorted(found)]


def _of_rows(model: Any, inputs: Any, out: Any, rows: list[int], columns: int) -> dict[str, Any]:
    """Inputs that go on with some rows of what was generated, until there are so many columns."""
    ids, mask, cache = out.sequences[rows], inputs["attention_mask"][rows], out.past_key_values
    new = mask.new_ones(len(rows), ids.shape[1] - mask.shape[1])
    take_rows(model, cache, torch.tensor(rows, device=ids.device), columns - ids.shape[1])
    return {"input_ids": ids, "attention_mask": torch.cat([mask, new], dim=1), "past_key_values": cache}


class Watch(StoppingCriteria):  # type: ignore[misc]  # transformers is untyped
    """Looks on while rows are generated, ends those whose verdict is certain, and makes replies of those that ended.

    `start` is the number of columns of the prompts, `most` the tokens that an answer may have at most. With `thin` it
    breaks off as soon as half of the rows have ended. An object serves one call of `generate`.
    """

    def __init__(
        self,
        processor: Any,
        ends: Collection[int],
        start: int,
        most: int,
        settled: Settled | None,
        *,
        thin: bool = False,
    ) -> None:
        """`ends`: the tokens that end an answer."""
        self._processor, self._ends, self._start, self._most = processor, frozenset(ends), start, most
        self._settled, self._thin = settled, thin
        self._bytes = frozenset[int]() if settled is None else byte_tokens(processor.tokenizer)
        self._ended: set[int] = set()
        self._cut: dict[int, int] = {}
        self._broken_off = False

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """Which rows need no more tokens: (rows,) of bool, from all tokens so far, (rows, columns)."""
        last = input_ids[:, -1].tolist()
        self._ended |= {row for row, token in enumerate(last) if token in self._ends and row not in self._cut}
        length = input_ids.shape[1] - self._start
        if self._settled is not None and length < self._most:  # at the most, answers are whole and end anyway
            self._cut |= dict.fromkeys(self._certain(input_ids, self._settled), length)
        ended = len(self._ended) + len(self._cut)
        self._broken_off = self._thin and len(last) <= 2 * ended < 2 * len(last) and length < self._most
        done = [self._broken_off or row in self._ended or row in self._cut for row in range(len(last))]
        return torch.tensor(done, device=input_ids.device)

    def _certain(self, input_ids: Tensor, settled: Settled) -> Iterator[int]:
        """Rows that have not ended, of which the verdict is certain by now."""
        going = [row for row in range(len(input_ids)) if row not in self._ended and row not in self._cut]
        answers = [self._without_bytes(answer) for answer in input_ids[going, self._start :].tolist()]
        for row, text in zip(going, self._decode(answers), strict=True):
            if settled(certain(text)):
                yield row

    def _without_bytes(self, answer: list[int]) -> list[int]:
        """Without the run of bytes at the end."""
        end = next((place for place in range(len(answer), 0, -1) if answer[place - 1] not in self._bytes), 0)
        return answer[:end]

    def replies(self, tokens: Tensor) -> dict[int, Reply]:
        """Replies by row, of those that ended if it was broken off; of `tokens`: (rows, new tokens)."""
        rows = [row for row in range(len(tokens)) if not self._broken_off or row in self._ended or row in self._cut]
        texts = self._decode([tokens[row, : self._cut.get(row)].tolist() for row in rows])
        return {row: self._reply(row, text.strip()) for row, text in zip(rows, texts, strict=True)}

    def _reply(self, row: int, text: str) -> Reply:
        if row in self._cut:
            return Reply(text, finish="verdict")
        return Reply(text, finish="stop" if row in self._ended else "length")

    def _decode(self, answers: Sequence[Sequence[int]]) -> list[str]:
        texts: list[str] = self._processor.batch_decode(answers, skip_special_tokens=True) if answers else []
        return texts
