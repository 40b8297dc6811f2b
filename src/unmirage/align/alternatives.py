"""Better answers made up by the model itself, as AltPO prefers them: Mekala et al. 2024, arXiv 2409.13474."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from unmirage.align.config import AlignConfig
from unmirage.align.processes import agree, here, share
from unmirage.backends.prompts import Prompt, adds_special_tokens, open_image, turns
from unmirage.runs import write_json
from unmirage.schema import Query, content_hash

ATTEMPTS = 8
LONGEST = 256
KEPT = 16
"""Answers after which what was sampled is written down."""

Sampler = Callable[[Sequence[Query]], list[str]]


def sampler(network: Any, processor: Any, config: AlignConfig, out: Path) -> Sampler:
    """A function that samples one other answer for each query; what an interrupted run sampled is read back.

    Several processes share the work. The function raises UserError where the model gives a query only the answer that
    is to be forgotten, or none.
    """
    folder = out / "training"

    def sample(queries: Sequence[Query]) -> list[str]:
        network.eval()
        kept = _kept(folder)
        path = folder / f"alternatives-{here().process_index}.json"
        own = _read(path) if path.exists() else {}
        missing = [query for query in share(queries) if query.id not in kept and query.id not in own]
        for start in range(0, len(missing), KEPT):
            own |= {q.id: alternative(network, processor, q, config.seed) for q in missing[start : start + KEPT]}
            write_json(path, own)
        lacking = [query.id for query in share(queries) if query.id in own and own[query.id] is None]
        agree(_none_for(lacking, len(queries)) if lacking else None)
        kept = _kept(folder)
        return [kept[query.id] for query in queries]

    return sample


def _read(path: Path) -> dict[str, str | None]:
    found: dict[str, str | None] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _kept(folder: Path) -> dict[str, str]:
    """Everything that is sampled already, by query, whichever process did it."""
    files = sorted(folder.glob("alternatives-*.json"))
    return {name: answer for path in files for name, answer in _read(path).items() if answer is not None}


def _none_for(lacking: Sequence[str], among: int) -> str:
    return (
        f"the model gave {len(lacking)} of {among} queries no other answer in {ATTEMPTS} attempts, such as "
        f"{lacking[0]!r}; give better answers yourself."
    )


def alternative(network: Any, processor: Any, query: Query, seed: int) -> str | None:
    """An answer other than the query's own, sampled at temperature 1; the same from the same seed. None: there is none.

    Sampling is from the whole vocabulary.
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
            answer: str = processor.tokenizer.decode(new, skip_special_tokens=True).strip()
            if answer and answer != (query.reference or "").strip():
                return answer
    return None
