"""A Hugging Face VLM in this process: batched greedy generation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from unmirage.backends.checkpoint import load_checkpoint, revision
from unmirage.backends.prompts import Prompt, image_bytes, open_image, turns
from unmirage.schema import content_hash


class HuggingFaceBackend:
    """Answers prompts with the checkpoint in a folder, greedily, at most `max_new_tokens` tokens each."""

    def __init__(self, folder: Path, *, batch_size: int = 64, max_new_tokens: int = 64) -> None:
        """Loads the checkpoint; raises UserError where the folder does not hold one."""
        self.revision = revision(folder)
        self.model, self.processor = load_checkpoint(folder)
        self.model.eval()
        self.processor.tokenizer.padding_side = "left"
        self.batch_size = batch_size
        self.settings = {"do_sample": False, "max_new_tokens": max_new_tokens}

    def render(self, prompt: Prompt) -> str:
        """The prompt as the model's chat template writes it."""
        text: str = self.processor.apply_chat_template(turns(prompt), tokenize=False, add_generation_prompt=True)
        return text

    def key(self, prompt: Prompt) -> str:
        """Content hash of everything that decides the answer: weights, rendered prompt, image bytes, settings."""
        pixels = image_bytes(prompt.image, prompt.query) if prompt.image else b""
        return content_hash(self.revision, self.render(prompt), pixels, self.settings)

    def answer(self, prompts: Sequence[Prompt]) -> Iterator[list[str]]:
        """Answers batch by batch, in order; prompts with and without a picture never share a batch."""
        for _, alike in groupby(prompts, key=lambda prompt: prompt.image is None):
            rows = list(alike)
            for start in range(0, len(rows), self.batch_size):
                yield self._generate(rows[start : start + self.batch_size])

    def _generate(self, prompts: Sequence[Prompt]) -> list[str]:
        import torch

        inputs = self._inputs(prompts).to(self.model.device)
        with torch.inference_mode():
            out = self.model.generate(**inputs, **self.settings)
        new = out[:, inputs["input_ids"].shape[1] :]
        return [text.strip() for text in self.processor.batch_decode(new, skip_special_tokens=True)]

    def _inputs(self, prompts: Sequence[Prompt]) -> Any:
        texts = [self.render(prompt) for prompt in prompts]
        images = [image for prompt in prompts if (image := open_image(prompt)) is not None]
        pictures = {"images": images} if images else {}
        return self.processor(text=texts, **pictures, padding=True, return_tensors="pt", add_special_tokens=False)
