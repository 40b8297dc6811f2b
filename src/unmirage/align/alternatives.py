"""What the model before training is asked for: other answers than the given ones, and what it says by itself.

Alternatives are what AltPO prefers: Mekala et al. 2024, arXiv 2409.13474. Both outlive an interruption.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from unmirage.align.config import AlignConfig
from unmirage.align.processes import agree, here, share
from unmirage.backends.hugging_face import HuggingFaceBackend
from unmirage.backends.prompts import Prompt, adds_special_tokens, open_image, turns
from unmirage.errors import UserError
from unmirage.runs import write_json
from unmirage.schema import Query, content_hash

ATTEMPTS = 8
LONGEST = 256
KEPT = 16
"""Answers after which what was sampled is written down."""

Sampler = Callable[[Sequence[Query]], list[str]]
Report = Callable[[str, int, int], None]
"""Called with what is being done, what is done of it and what there is to do: of this process's share."""
SAMPLING, ASKING = "sampling other answers", "asking the model before training"


def sampler(network: Any, processor: Any, config: AlignConfig, out: Path, report: Report) -> Sampler:
    """A function that samples one other answer for each query; what an interrupted run sampled is read back.

    Several processes share the work. The function raises UserError where the model gives a query only the answer that
    is to be forgotten, or none.
    """
    kept = Kept(out / "training", "alternatives")

    def sample(queries: Sequence[Query]) -> list[str]:
        """One other answer for each query."""
        network.eval()
        ask = lambda some: [alternative(network, processor, one, config.seed) for one in some]  # noqa: E731
        own = kept.fill(queries, ask, KEPT, partial(report, SAMPLING))
        lacking = [query.id for query in share(queries) if query.id in own and own[query.id] is None]
        agree(_none_for(lacking, len(queries)) if lacking else None)
        return kept.of(queries)

    return sample


def answerer(model: Path, config: AlignConfig, out: Path, report: Report) -> Sampler:
    """A function that gives the greedy answers of the checkpoint `model`; it loads and drops the weights itself.

    Several processes share the work. The function raises UserError for a question that cannot be asked.
    """
    kept = Kept(out / "training", "answers")

    def answer(queries: Sequence[Query]) -> list[str]:
        """The greedy answer to each query."""
        backend = HuggingFaceBackend(model, batch_size=config.batch_size, max_new_tokens=LONGEST)
        block = max(KEPT, config.batch_size)
        kept.fill(queries, lambda some: _answers(backend, some), block, partial(report, ASKING))
        agree(None)  # waits for the others' files
        return kept.of(queries)

    return answer


def _answers(backend: HuggingFaceBackend, queries: Sequence[Query]) -> list[str | None]:
    replies = [reply for batch in backend.answer([Prompt.of(query) for query in queries]) for reply in batch]
    if faults := [reply.error for reply in replies if reply.error]:
        raise UserError(faults[0])
    return [reply.text for reply in replies]


@dataclass(frozen=True, slots=True)
class Kept:
    """Answers by the query's id in files `name`-PROCESS.json, each of which only its process writes."""

    folder: Path
    name: str

    def fill(
        self,
        queries: Sequence[Query],
        ask: Callable[[Sequence[Query]], list[str | None]],
        block: int,
        tell: Callable[[int, int], object],
    ) -> dict[str, str | None]:
        """Asks for what is missing of this process's share, and writes it down after every `block`; returns that file.

        `tell` gets how many of the share are there, and how many it has. None stands for a query that was asked in
        vain; it is not asked again.
        """
        known = self._read()
        path = self.folder / f"{self.name}-{here().process_index}.json"
        own = _read(path) if path.exists() else {}
        mine = share(queries)
        missing = [query for query in mine if query.id not in known and query.id not in own]
        tell(len(mine) - len(missing), len(mine))
        for start in range(0, len(missing), block):
            some = missing[start : start + block]
            own |= {query.id: answer for query, answer in zip(some, ask(some), strict=True)}
            write_json(path, own)
            tell(len(mine) - len(missing) + start + len(some), len(mine))
        return own

    def of(self, queries: Sequence[Query]) -> list[str]:
        """The answers to queries, whichever process asked."""
        known = self._read()
        return [known[query.id] for query in queries]

    def _read(self) -> dict[str, str]:
        files = sorted(self.folder.glob(f"{self.name}-*.json"))
        return {name: answer for path in files for name, answer in _read(path).items() if answer is not None}


def _read(path: Path) -> dict[str, str | None]:
    found: dict[str, str | None] = json.loads(path.read_text(encoding="utf-8"))
    return found


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
