"""A Hugging Face VLM in this process: greedy generation, in batches, with shared beginnings where the model allows it.

An answer does not depend on what is asked with it or before it, in float32 up to ties that rounding decides: sums are
formed in another order where a batch is padded otherwise. In half precision rounding does decide now and then.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmirage.backends.checkpoint import load_checkpoint, revision
from unmirage.backends.manner import USUAL, Manner, check_forced
from unmirage.backends.prompts import Prompt, adds_special_tokens, image_bytes, open_image, turns
from unmirage.backends.protocol import Reply, Settled
from unmirage.errors import UserError
from unmirage.schema import content_hash

if TYPE_CHECKING:
    from unmirage.backends.decoding import Drawing
    from unmirage.backends.prefix import PrefixSharing

_TOO_LITTLE_MEMORY = (
    "the memory does not hold one question with its picture and an answer of {} tokens; free memory, or run the same "
    "command again with a smaller --max-new-tokens or a smaller model."
)


class HuggingFaceBackend:
    """Answers prompts with the checkpoint in a folder, greedily, at most `max_new_tokens` tokens each.

    The weights are loaded when the first prompt is rendered, so a run that has all its answers never loads them. Runs
    on a GPU where there is one. With `share_prefix`, prompts about one picture that stand beside one another share what
    they have in common, where a check shows that this model's answers stay the same. `manner` has answers drawn or
    their beginning forced; a drawn answer too does not depend on what is asked with it. `notes` holds what a user
    should know of how it went; each is also given to `tell` when it comes up.
    """

    def __init__(
        self,
        folder: Path,
        *,
        batch_size: int = 64,
        max_new_tokens: int = 64,
        share_prefix: bool = True,
        manner: Manner = USUAL,
        tell: Callable[[str], object] = warnings.warn,
    ) -> None:
        """Reads the checkpoint's revision; raises UserError where the folder does not hold one."""
        self.folder = folder
        self.batch_size, self.manner = batch_size, manner
        self.notes: list[str] = []
        self._room, self._share, self._tell = batch_size, share_prefix, tell
        self.settings = {"do_sample": False, "max_new_tokens": max_new_tokens}
        self.identity = {"revision": revision(folder), **self.settings, **manner.identity}

    def render(self, prompt: Prompt) -> str:
        """The prompt as the model's chat template writes it, with the forced beginning of its answer, if any."""
        forced = self.manner.prefix
        how = {"continue_final_message": True} if forced else {"add_generation_prompt": True}
        text: str = self.processor.apply_chat_template(turns(prompt, forced or None), tokenize=False, **how)
        return text

    def key(self, prompt: Prompt) -> str:
        """Content hash of everything that decides the answer: weights, rendered prompt, image bytes, settings."""
        pixels = image_bytes(prompt.image, prompt.query) if prompt.image else b""
        return content_hash(self.identity, self.render(prompt), pixels)

    def answer(self, prompts: Sequence[Prompt], settled: Settled | None = None) -> Iterator[list[Reply]]:
        """Answers batch by batch, in order; prompts with and without a picture never share a batch.

        A prompt whose picture cannot be used gets a reply with an error. Where the memory does not hold a batch, it is
        halved, and so are all later ones; raises UserError where it does not hold one prompt.
        """
        start = 0
        while start < len(prompts):
            end = _batch_end(prompts, start, self._room)
            yield self._replies(prompts[start:end], settled)
            start = end

    @property
    def model(self) -> Any:
        """The model, in evaluation mode."""
        return self._loaded[0]

    @property
    def processor(self) -> Any:
        """Its processor, padding on the left as generation needs it."""
        return self._loaded[1]

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        import torch

        model, processor = load_checkpoint(self.folder)
        processor.tokenizer.padding_side = "left"
        model.generation_config = _greedy(model.generation_config)
        return model.eval().to("cuda" if torch.cuda.is_available() else "cpu"), processor

    @cached_property
    def _sharing(self) -> PrefixSharing:
        from unmirage.backends.prefix import PrefixSharing

        return PrefixSharing(self.model, self.processor, self.render, self._inputs, self._note)

    def _note(self, note: str) -> None:
        """Tells a note when it first comes up, and keeps it."""
        if note not in self.notes:
            self.notes.append(note)
            self._tell(note)

    def _replies(self, prompts: Sequence[Prompt], settled: Settled | None) -> list[Reply]:
        """One reply for each prompt; halves them, as often as it takes, where they cannot be answered together."""
        import torch

        from unmirage.backends.decoding import is_out_of_memory

        why = ""
        try:
            return self._generate(prompts, settled)
        except _RejectedError as rejected:
            if len(prompts) == 1:
                return [Reply("", error=str(rejected))]
            why = str(rejected)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if len(prompts) == 1:
                raise UserError(_TOO_LITTLE_MEMORY.format(self.settings["max_new_tokens"])) from error
            self._room = min(self._room, len(prompts) // 2)
            self._note(f"the memory does not hold {len(prompts)} questions at once; going on with {self._room}.")
        # Not before here: while an error is handled, it keeps the tensors of the failed call.
        torch.cuda.empty_cache()
        half = len(prompts) // 2
        replies = self._replies(prompts[:half], settled) + self._replies(prompts[half:], settled)
        if why and not any(reply.error for reply in replies):
            self._note(f"pictures are asked about in smaller batches, as they cannot be put into one: {why}")
        return replies

    def _generate(self, prompts: Sequence[Prompt], settled: Settled | None) -> list[Reply]:
        from unmirage.backends.decoding import replies

        most = self.settings["max_new_tokens"]
        shared = self._sharing.inputs(prompts, most) if self._share else None
        inputs = shared or self._inputs(prompts).to(self.model.device)
        thin, drawing = shared is not None, self._drawing(prompts)
        found = replies(self.model, self.processor, inputs, most, settled, thin=thin, drawing=drawing)
        return [replace(reply, text=self.manner.shown(reply.text)) for reply in found]

    def _drawing(self, prompts: Sequence[Prompt]) -> Drawing | None:
        """What each answer is drawn by: its key, which holds temperature and seed."""
        from unmirage.backends.decoding import Drawing

        manner = self.manner
        return Drawing(manner.temperature, [self.key(one) for one in prompts]) if manner.samples else None

    def _inputs(self, prompts: Sequence[Prompt]) -> Any:
        texts = [self.render(prompt) for prompt in prompts]
        special = adds_special_tokens(self.processor, texts[0])
        with _rejecting(prompts):
            images = [[image] for prompt in prompts if (image := open_image(prompt)) is not None]
            pictures = {"images": images} if images else {}  # a list for each prompt: not all families take a flat one
            made = self.processor(text=texts, **pictures, padding=True, return_tensors="pt", add_special_tokens=special)
        if self.manner.prefix:
            check_forced(self.processor, made["input_ids"][0], self.manner.prefix)
        return made


class _RejectedError(Exception):
    """A prompt, or one of several, that cannot be made an input of the model."""


@contextmanager
def _rejecting(prompts: Sequence[Prompt]) -> Iterator[None]:
    """Makes one sentence of what goes wrong with pictures."""
    from unmirage.backends.decoding import is_out_of_memory

    try:
        yield
    except UserError as error:
        raise _RejectedError(str(error)) from error
    except Exception as error:  # processors raise whatever they run into
        if is_out_of_memory(error):
            raise
        first, reason = prompts[0], str(error).split("\n")[0]
        raise _RejectedError(
            f"the model's processor rejects query {first.query!r} with the image {first.image} "
            f"({type(error).__name__}: {reason}); remove the row."
        ) from error


def _batch_end(prompts: Sequence[Prompt], start: int, most: int) -> int:
    """Where the batch that begins at `start` ends: before a prompt of the other sort, and, where it can be, not
    between prompts about one picture.
    """
    last = min(start + most, len(prompts))
    sort = prompts[start].image is None
    end = next((i for i in range(start, last) if (prompts[i].image is None) != sort), last)
    if sort or end == len(prompts) or prompts[end].image != prompts[end - 1].image:
        return end
    whole = next(i for i in range(end, start - 1, -1) if i == start or prompts[i - 1].image != prompts[end].image)
    return end if whole == start else whole


def _greedy(given: Any) -> Any:
    """Only the special tokens of a checkpoint's generation settings: its beams and penalties would not be greedy."""
    from transformers import GenerationConfig

    kept = ("bos_token_id", "eos_token_id", "pad_token_id")
    return GenerationConfig(**{name: getattr(given, name) for name in kept})
