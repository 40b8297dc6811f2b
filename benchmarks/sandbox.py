"""Speed of training and evaluation on the sandbox: each fast way against the plain one, in one run, with equal results.

    python benchmarks/sandbox.py [--out benchmarks/results/sandbox.json] [--demo runs/demo]

Times are the median of several repetitions on one thread; on a shared machine only the ratios mean something. With
`--demo`, the seconds of a finished demo's steps are added, to show where its time goes.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from unmirage.align.batches import Encoded, collate
from unmirage.align.signals import AnswerLogProbs, answer_log_probs, layer_activations
from unmirage.backends.checkpoint import load_checkpoint
from unmirage.backends.hugging_face import HuggingFaceBackend
from unmirage.backends.prompts import Prompt
from unmirage.datasets import load
from unmirage.runs import write_json
from unmirage.sandbox.build import DataPlan, build
from unmirage.sandbox.shipped import base_weights
from unmirage.sandbox.world import World

Record = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/sandbox.json"))
    parser.add_argument("--demo", type=Path)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        plan = DataPlan(unsafe_train=64, safe_train=64, general=6, unsafe_test=64, safe_test=64)
        data = build(World(), plan, Path(folder))
        records = training(data, options.repeat) + evaluation(data, options.repeat)
    if options.demo:
        records += demo_times(options.demo)
    result = {"schema": 1, "device": platform.processor() or platform.machine(), "versions": versions()}
    write_json(options.out, {**result, "records": records})
    print(json.dumps(records, indent=1))


def versions() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "transformers", "accelerate")}


def training(data: Path, repeat: int) -> list[Record]:
    """One forward and backward pass of a batch of 64, by the signal that the objective reads."""
    model, processor = load_checkpoint(base_weights())
    queries = [query for query in load(data / "unlearn.json").queries if query.harmful][:64]
    encoded = Encoded(processor, queries)
    batch = collate([encoded[row] for row in range(len(queries))], processor.tokenizer.pad_token_id)
    tokens = int(batch["attention_mask"].sum())
    fast: dict[str, tuple[Callable[[], torch.Tensor], Callable[[], torch.Tensor]]] = {
        "answer log-probabilities": (
            lambda: answer_log_probs(model, batch).values,
            lambda: full_log_probs(model, batch).values,
        ),
        "activations of layer 3 of 6": (
            lambda: layer_activations(model, batch, 3, "text").values,
            lambda: full_activations(model, batch, 3),
        ),
    }
    records = []
    for case, (ours, plain) in fast.items():
        equal = same_gradients(model, ours, plain)
        times = {name: timed(partial(backward, model, way), repeat) for name, way in (("ours", ours), ("plain", plain))}
        records += rates(case, "tokens per second of training", tokens, times, equal)
    return records


def backward(model: Any, way: Callable[[], torch.Tensor]) -> None:
    model.zero_grad()
    way().pow(2).mean().backward()


def same_gradients(model: Any, *ways: Callable[[], torch.Tensor]) -> bool:
    """Whether all ways give the same gradients, up to the rounding of float32."""
    found = []
    for way in ways:
        backward(model, way)
        found.append(
            {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}
        )
    return all(torch.allclose(found[0][name], other[name], atol=1e-6) for other in found[1:] for name in other)


def full_log_probs(model: Any, batch: Any) -> AnswerLogProbs:
    """The plain way: logits of every position, then pick."""
    inputs = {k: v for k, v in batch.items() if k in ("input_ids", "attention_mask", "pixel_values")}
    labels = batch["labels"][:, 1:]
    logits = model(**inputs).logits[:, :-1]
    values = torch.log_softmax(logits, -1).gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return AnswerLogProbs(values * (labels != -100), labels != -100)


def full_activations(model: Any, batch: Any, layer: int) -> torch.Tensor:
    """The plain way: all hidden states of the whole model, then pick."""
    inputs = {k: v for k, v in batch.items() if k in ("input_ids", "attention_mask", "pixel_values")}
    states: torch.Tensor = model(**inputs, output_hidden_states=True).hidden_states[layer + 1]
    return states


def evaluation(data: Path, repeat: int) -> list[Record]:
    """Answers to 96 questions: in batches against one `generate` each."""
    prompts = [Prompt.of(query) for query in load(data / "test_seen.json").queries][:96]
    ways = {
        name: HuggingFaceBackend(base_weights(), batch_size=size, max_new_tokens=40)
        for name, size in (("ours", 96), ("plain", 1))
    }
    answers = {name: [text for texts in way.answer(prompts) for text in texts] for name, way in ways.items()}
    times = {name: timed(lambda way=way: list(way.answer(prompts)), max(1, repeat // 2)) for name, way in ways.items()}
    equal = answers["ours"] == answers["plain"]
    return rates("evaluation of 96 questions", "answers per second", len(prompts), times, equal)


def timed(call: Callable[[], Any], repeat: int) -> float:
    """Median seconds of a call, after one to warm up."""
    call()
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def rates(case: str, metric: str, amount: int, seconds: dict[str, float], equal: bool) -> list[Record]:
    return [
        {
            "case": case,
            "variant": variant,
            "metric": metric,
            "value": round(amount / spent, 1),
            "ratio_to_plain": round(seconds["plain"] / spent, 2),
            "equal_outputs": equal,
        }
        for variant, spent in seconds.items()
    ]


def demo_times(run: Path) -> list[Record]:
    """Seconds of each step of a finished demo, from what each left when it was done."""
    done = [json.loads(path.read_text()) for path in sorted(run.glob("steps/*/done.json"))]
    timings: dict[str, float] = {one["step"]: one["seconds"] for one in done}
    return [
        {
            "case": "demo",
            "variant": part,
            "metric": "seconds",
            "value": round(seconds, 1),
            "ratio_to_plain": None,
            "equal_outputs": None,
        }
        for part, seconds in timings.items()
    ]


if __name__ == "__main__":
    main()
