"""Better answers made up by the model itself, as AltPO prefers them: Mekala et al. 2024, arXiv 2409.13474."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from unmirage.align.config import AlignConfig
from unmirage.backends.prompts import Prompt, adds_special_tokens, open_image, turns
from unmirage.errors import UserError
from unmirage.runs import write_json
from unmirage.schema import Query, content_hash

ATTEMPTS = 8
LONGEST = 256


def sampler(network: Any, processor: Any, config: AlignConfig, out: Path) -> Callable[[Sequence[Query]], list[str]]:
    """A function that samples one other answer for each query, or reads what an interrupted run sampled."""
    path = out / "training" / "alternatives.json"

    def sample(queries: Sequence[Query]) -> list[str]:
        import json

        if path.exists():
            answers: list[str] = json.loads(path.read_text())
            return answers
        network.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        answers = [alternative(network, processor, query, config.seed) for query in queries]
        write_json(path, answers)
        return answers

    return sample


def alternative(network: Any, processor: Any, query: Query, seed: int) -> str:
    """An answer other than the query's own, sampled at temperature 1; the same from the same seed.

    Raises UserError where the model gives only that one, or none.
    """
    prompt = Prompt.of(query)
    text = processor.apply_chat_template(turns(prompt), tokenize=False, add_generation_prompt=True)
    image = open_image(prompt)
    pictures = {"images": [image]} if image is not None else {}
    special = adds_special_tokens(processor, text)
    inputs = processor(text=[text], **pictures, return_tensors="pt", add_special_tokens=special).to(network.device)
    with torch.random.fork_rng(devices=[network.device] if network.device.type == "cuda" else []), torch.no_grad():
        torch.manual_seed(int(content_hash(seed, query.id)[:8], 16))
        for _ in range(ATTEMPTS):
            tokens = network.generate(**inputs, do_sample=True, temperature=1.0, top_k=0, max_new_tokens=LONGEST)
            new = tokens[0, inputs["input_ids"].shape[1] :]
            answer: str = processor.tokenizer.decode(new, skip_special_tokens=True)
            if answer.strip() and answer.strip() != (query.reference or "").strip():
                return answer.strip()
    raise UserError(
        f"the model gave no other answer to query {query.id!r} in {ATTEMPTS} attempts; give better answers yourself."
    )
