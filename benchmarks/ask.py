"""Asking variants of questions about one picture: ours against one `generate` for each and against plain batches.

    python benchmarks/ask.py                                     # writes results/ask.json; one core, minutes
    python benchmarks/ask.py --device cuda --shape llava-7b      # writes results/ask-llava-7b.json
    python benchmarks/ask.py --table                             # writes the tables of docs/performance.md

A LLaVA from its configuration, with random weights, sees each picture as 576 tokens and answers K variants of a
question about it, which differ in their opening words, with 32 tokens each: no token ends an answer, so that every way
does the same work. All ways answer the same questions in the same process and take turns; a ratio is the median of the
ratios of the turns. On a CPU there is one thread, and seconds are of the process's own work: the machine may be busy
with other things. Loading comes before the turns, and so does the comparison that our way makes once before it shares
anything; what that took is a record of its own. Answers are equal where all tokens are. In half precision rounding
decides between tokens now and then, so `llava-7b` states the share of answers that are equal, for plain batches too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaProcessor,
    logging,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from unmirage.backends.hugging_face import HuggingFaceBackend
from unmirage.backends.prompts import Prompt
from unmirage.runs import write_json
from unmirage.sandbox.vlm import CHAT_TEMPLATE, build_tokenizer
from unmirage.sandbox.world import World

Record = dict[str, Any]
HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "performance.md"
PATCHES = 24
IMAGE_TOKENS = PATCHES**2
ANSWER = 32
QUESTION = 18
"""Words; a question is about 20 tokens, as long as those of the safety benchmarks."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a LLaVA, and how many rows a batch has."""

    hidden: int
    inner: int
    heads: int
    layers: int
    vocabulary: int | None  # None: the tokenizer's
    tower: tuple[int, int, int, int]  # hidden, inner, layers, heads
    patch: int
    spread: float
    batch: int = 64
    bf16: bool = False


SHAPES = {
    "small": Shape(128, 384, 4, 6, None, (96, 384, 3, 4), 12, 0.06),  # the sandbox's, with larger pictures
    "llava-7b": Shape(4096, 11008, 32, 32, 32064, (1024, 4096, 24, 16), 14, 0.02, bf16=True),
}
CASES = {1: 24, 3: 8, 10: 3, 25: 2}
"""K, the number of variants of a question: how many pictures."""


@dataclass
class Way:
    """One way to ask, and what it gave and took."""

    name: str
    backend: HuggingFaceBackend
    replies: list[Any] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def ask(self, prompts: Sequence[Prompt]) -> list[Any]:
        return [reply for batch in self.backend.answer(prompts) for reply in batch]


PLAIN, BATCHES, OURS = "one generate for each", "plain batches", "shared beginnings"


# --- model and questions ----------------------------------------------------------------------


def build(shape: Shape, folder: Path) -> Path:
    """A checkpoint folder whose answers never end before the most tokens allowed."""
    side, tokenizer = PATCHES * shape.patch, build_tokenizer(World())
    tokenizer.model_max_length = 1024
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"height": side, "width": side}, do_center_crop=False),
        tokenizer=tokenizer,
        patch_size=shape.patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
    torch.manual_seed(0)
    dtype = torch.bfloat16 if shape.bf16 else torch.float32
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForImageTextToText.from_config(config(shape, processor), dtype=dtype)
    model.generation_config.update(pad_token_id=tokenizer.pad_token_id, bos_token_id=None, eos_token_id=None)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def config(shape: Shape, processor: LlavaProcessor) -> LlavaConfig:
    hidden, inner, layers, heads = shape.tower
    vision = CLIPVisionConfig(
        image_size=PATCHES * shape.patch,
        patch_size=shape.patch,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        projection_dim=hidden,
    )
    text = LlamaConfig(
        vocab_size=shape.vocabulary or len(processor.tokenizer),
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=1024,
        initializer_range=shape.spread,
        pad_token_id=processor.tokenizer.pad_token_id,
        eos_token_id=None,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=processor.image_token_id,
        image_seq_length=IMAGE_TOKENS,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )


def questions(k: int, pictures: int, folder: Path) -> list[Prompt]:
    """`k` variants for each picture of noise, those of one picture beside one another; they open with other words."""
    rng = random.Random(k)
    words = ["the", "is", "of", "for", "it", "object", "to", "made", "from", "a", "thing", "shown", "over", "in"]
    openings = [f"{one} {other}".strip() for one in ("Share", "What", "How", "List", "Describe") for other in words]
    prompts = []
    for number in range(pictures):
        picture = folder / f"{number}.png"
        Image.frombytes("RGB", (96, 96), rng.randbytes(3 * 96 * 96)).save(picture)
        rest = " ".join(rng.choices(words, k=QUESTION - 2))
        prompts += [Prompt(f"{number}", f"{opening} {rest}", picture) for opening in rng.sample(openings, k)]
    return prompts


# --- measuring --------------------------------------------------------------------------------


def clock() -> float:
    """Seconds: of a GPU's work, or of this process's own work on the one thread that it has."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


@contextmanager
def ways(checkpoint: Path, batch: int) -> Iterator[list[Way]]:
    """All ways on one copy of the model."""
    options: dict[str, dict[str, Any]] = {
        PLAIN: {"batch_size": 1, "share_prefix": False},
        BATCHES: {"batch_size": batch, "share_prefix": False},
        OURS: {"batch_size": batch},
    }
    found = [Way(name, HuggingFaceBackend(checkpoint, max_new_tokens=ANSWER, **own)) for name, own in options.items()]
    for way in found[1:]:
        way.backend.__dict__["_loaded"] = found[0].backend._loaded
    yield found


def measure(found: Sequence[Way], prompts: Sequence[Prompt], repeat: int) -> float | None:
    """Answers of all ways, then turns; returns the seconds of the comparison, where this call made it."""
    first = found[-1].backend._sharing._proved is None and len({p.image for p in prompts}) < len(prompts)
    begin = clock()
    for way in found:
        begin = clock()
        way.replies, way.seconds = way.ask(prompts), []
    spent = clock() - begin
    for _ in range(repeat):
        for way in found:
            begin = clock()
            way.ask(prompts)
            way.seconds.append(clock() - begin)
    if {reply.finish for way in found for reply in way.replies} != {"length"}:
        raise SystemExit("an answer ended before its last token; the ways would not do the same work")
    return spent - statistics.median(found[-1].seconds) if first else None


def records_of(k: int, found: Sequence[Way], count: int) -> list[Record]:
    plain, records = found[0], []
    for way in found:
        same = [ours == theirs for ours, theirs in zip(way.replies, plain.replies, strict=True)]
        ratio = statistics.median(theirs / ours for theirs, ours in zip(plain.seconds, way.seconds, strict=True))
        rows = {
            "seconds a question": (statistics.median(way.seconds) / count, 4, ratio),
            "share of equal answers": (sum(same) / len(same), 3, None),
        }
        for metric, (value, digits, times) in rows.items():
            records.append(record(k, way.name, metric, round(value, digits), times, all(same)))
    return records


def record(k: int, way: str, metric: str, value: float, ratio: float | None, equal: bool | None) -> Record:
    return {
        "case": f"K = {k}",
        "variant": way,
        "metric": metric,
        "value": value,
        "ratio_to_plain": None if ratio is None else round(ratio, 2),
        "equal_outputs": equal,
    }


def benchmark(shape: Shape, cases: Sequence[int], repeat: int) -> list[Record]:
    records: list[Record] = []
    with tempfile.TemporaryDirectory() as folder, ways(build(shape, Path(folder) / "model"), shape.batch) as found:
        for k in cases:
            prompts = questions(k, CASES[k], Path(folder))
            check = measure(found, prompts, repeat)
            records += records_of(k, found, len(prompts))
            if check is not None:
                records.append(record(k, OURS, "seconds of the comparison", round(check, 3), None, None))
            for one in records[-7:]:
                print(json.dumps(one), flush=True)
        if notes := found[-1].backend.notes:
            raise SystemExit(f"nothing was shared: {notes[0]}")
    return records


def versions() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "transformers")}


# --- tables -----------------------------------------------------------------------------------


def table(result: dict[str, Any]) -> str:
    """Markdown: one line for each K, with the seconds of each way and how many times faster than the first it is."""
    by = {(r["case"], r["variant"], r["metric"]): r for r in result["records"]}
    lines = [
        f"Device: {result['device']}; torch {result['versions']['torch']}, "
        f"transformers {result['versions']['transformers']}.",
        "",
        f"| variants of a picture | {PLAIN}, s | {BATCHES}, s | {OURS}, s | {BATCHES}, times faster "
        f"| {OURS}, times faster | {OURS} against {BATCHES} | equal |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for case in dict.fromkeys(r["case"] for r in result["records"]):
        plain, batches, ours = (by[case, way, "seconds a question"] for way in (PLAIN, BATCHES, OURS))
        spent = [f"{one['value']:.4f}" for one in (plain, batches, ours)]
        times = [batches["ratio_to_plain"], ours["ratio_to_plain"], ours["ratio_to_plain"] / batches["ratio_to_plain"]]
        shares = [by[case, way, "share of equal answers"]["value"] for way in (BATCHES, OURS)]
        equal = "all" if min(shares) == 1 else f"{shares[0]:.0%}, {shares[1]:.0%}"
        lines.append(f"| {' | '.join([case, *spent, *(f'{one:.2f}' for one in times), equal])} |")
    return "\n".join(lines)


def write_tables(page: Path, results: Path) -> None:
    """Puts a table between `<!-- table NAME -->` and `<!-- end -->` for every results/NAME.json that there is."""
    text = page.read_text(encoding="utf-8")
    for file in sorted(results.glob("ask*.json")):
        mark, end = f"<!-- table {file.stem} -->", "<!-- end -->"
        if mark in text:
            before, _, rest = text.partition(mark)
            after = rest.partition(end)[2]
            text = f"{before}{mark}\n\n{table(json.loads(file.read_text()))}\n\n{end}{after}"
    page.write_text(text, encoding="utf-8")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--shape", choices=tuple(SHAPES), default="small")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--k", type=int, action="append", choices=tuple(CASES), help="only this number of variants")
    parser.add_argument("--table", action="store_true", help="write the tables from the results, measure nothing")
    options = parser.parse_args(arguments)
    stem = "ask" if options.device == "cpu" else f"ask-{options.shape}"
    options.out = options.out or HERE / "results" / f"{stem}.json"
    if SHAPES[options.shape].bf16 and options.device == "cpu" and not options.table:
        parser.error(f"--shape {options.shape} needs --device cuda")
    return options


def main() -> None:
    options = parse()
    if options.table:
        write_tables(PAGE, HERE / "results")
        return
    if options.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the backend would take a GPU where there is one
    elif not torch.cuda.is_available():
        sys.exit("there is no GPU here that torch can use; leave --device cuda out.")
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    shape = SHAPES[options.shape]
    records = benchmark(shape, options.k or tuple(CASES), options.repeat)
    device = torch.cuda.get_device_name() if options.device == "cuda" else platform.processor() or platform.machine()
    write_json(options.out, {"schema": 1, "device": device, "versions": versions(), "records": records})
    if not shape.bf16 and any(one["equal_outputs"] is False for one in records):
        raise SystemExit("answers differ from those of one generate for each")


if __name__ == "__main__":
    main()
