"""A Hugging Face VLM in this process: batched greedy generation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from unmirage.backends.checkpoint import load_checkpoint, revision
from unmirage.backends.prompts import Prompt, adds_special_tokens, image_bytes, open_image, turns
from unmirage.backends.protocol import Reply, Settled
from unmirage.errors import UserError
from unmirage.schema import content_hash


class HuggingFaceBackend:
    """Answers prompts with the checkpoint in a folder, greedily, at most `max_new_tokens` tokens each.

    The weights are loaded when the first prompt is rendered, so a run that has all its answers never loads them. Runs
    on a GPU where there is one.
    """

    def __init__(self, folder: Path, *, batch_size: int = 64, max_new_tokens: int = 64) -> None:
        """Reads the checkpoint's revision; raises UserError where the folder does not hold one."""
        self.folder = folder
        self.batch_size = batch_size
        self.settings = {"do_sample": False, "max_new_tokens": max_new_tokens}
        self.identity = {"revision": revision(folder), **self.settings}

    def render(self, prompt: Prompt) -> str:
        """The prompt as the model's chat template writes it."""
        text: str = self.processor.apply_chat_template(turns(prompt), tokenize=False, add_generation_prompt=True)
        return text

    def key(self, prompt: Prompt) -> str:
        """Content hash of everything that decides the answer: weights, rendered prompt, image bytes, settings."""
        pixels = image_bytes(prompt.image, prompt.query) if prompt.image else b""
        return content_hash(self.identity, self.render(prompt), pixels)

    def answer(self, prompts: Sequence[Prompt], settled: Settled | None = None) -> Iterator[list[Reply]]:
        """Answers batch by batch, in order; prompts with and without a picture never share a batch."""
        for _, alike in groupby(prompts, key=lambda prompt: prompt.image is None):
            rows = list(alike)
            for start in range(0, len(rows), self.batch_size):
                yield [Reply(text) for text in self._generate(rows[start : start + self.batch_size])]

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

    def _generate(self, prompts: Sequence[Prompt]) -> list[str]:
        import torch

        inputs = self._inputs(prompts).to(self.model.device)
        try:
            with torch.inference_mode():
                out = self.model.generate(**inputs, **self.settings)
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"the GPU's memory does not hold {len(prompts)} questions at once; "
                "run the same command again with a smaller --batch-size."
            ) from error
        new = out[:, inputs["input_ids"].shape[1] :]
        return [text.strip() for text in self.processor.batch_decode(new, skip_special_tokens=True)]

    def _inputs(self, prompts: Sequence[Prompt]) -> Any:
        texts = [self.render(prompt) for prompt in prompts]
        images = [image for prompt in prompts if (image := open_image(prompt)) is not None]
        pictures = {"images": images} if images else {}
        special = adds_special_tokens(self.processor, texts[0])
        return self.processor(text=texts, **pictures, padding=True, return_tensors="pt", add_special_tokens=special)


def _greedy(given: Any) -> Any:
    """Only the special tokens of a checkpoint's generation settings: its beams and penalties would not be greedy."""
    from transformers import GenerationConfig

    kept = ("bos_token_id", "eos_token_id", "pad_token_id")
    return GenerationConfig(**{name: getattr(given, name) for name in kept})
