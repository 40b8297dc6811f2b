"""A step of unlearning, ours against the plain way of the released codes (`plain.py`), in one run, with equal results.

    python benchmarks/align.py                                     # writes results/align.json; 2 cores, minutes
    python benchmarks/align.py --device cuda --shape llava-7b      # writes results/align-llava-7b.json
    python benchmarks/align.py --table                             # writes the tables of docs/performance.md

A step is: put the batch together, compute the loss, go backward. The optimizer's update is the same in every way and
left out, so that the weights stay and every way can be checked to give the same loss and the same gradients. Each way
runs in a process of its own, on one thread. On a CPU the ways take turns, step by step, a ratio is the median of the
ratios of the turns, and seconds are of the process's own work: the machine may be busy with other things. Peak
memory is twofold: the tensors that exist at once, which is exact, and what the process grows by, from before the model
is built to the end of the steps, which holds whatever the allocator keeps and differs from run to run.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import platform
import random
import resource
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path
from typing import Any

import peft  # noqa: F401 -- before the processes part, so that none of them counts it as its memory
import torch
import torch.multiprocessing as multiprocessing
from PIL import Image
from plain import Plain
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from transformers import (
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaProcessor,
    logging,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from unmirage.align import AlignConfig
from unmirage.align.batches import Encoded, Paired, collate_roles
from unmirage.align.caching import Keys, references_for, use_features
from unmirage.align.parts import checkpoint_layers, prepare, set_dtypes
from unmirage.align.references import Asking
from unmirage.align.run import arguments
from unmirage.align.signals import Switches, read
from unmirage.align.terms import Term, terms_of, wanted_by
from unmirage.align.trainer import AlignTrainer
from unmirage.runs import write_json
from unmirage.sandbox.vlm import CHAT_TEMPLATE, build_tokenizer
from unmirage.sandbox.world import World
from unmirage.schema import Query

Record = dict[str, Any]
HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "performance.md"
TOLERANCE = {"cpu": 1e-4, "cuda": 5e-2}
"""Of a parameter's gradient, relative: float32 sums in another order; bfloat16 rounds after each of them."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a LLaVA and of a batch; the tower must cost a realistic share of a pass (in LLaVA-1.5-7B: 4%)."""

    hidden: int
    inner: int
    heads: int
    layers: int
    vocabulary: int
    tower: tuple[int, int, int, int]  # hidden, inner, layers, heads
    side: int
    question: int
    answer: int
    batch: int
    spread: float
    bf16: bool = False


SHAPES = {
    # 144 image tokens and about 40 others: the same proportion as in LLaVA-1.5 with 576 of 720
    "small": Shape(128, 344, 4, 32, 1024, (96, 384, 3, 4), 168, 18, 14, 4, 0.06),
    "llava-7b": Shape(4096, 11008, 32, 32, 32064, (1024, 4096, 24, 16), 336, 80, 58, 8, 0.02, bf16=True),
}
PATCH = 14
METRICS = ("seconds a step", "peak of tensors in MiB", "peak memory in MiB")


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to compute a step: which techniques are on. The defaults are those of the plain way."""

    name: str
    plain: bool = False
    truncate: bool = False
    answer_head: bool = False
    share_forward: bool = False
    image_cache: bool = False
    reference: str = "copy"  # or "stored", "adapter"
    checkpointing: bool = True
    input_gradients: bool = True

    def switches(self) -> Switches:
        return Switches(self.truncate, self.answer_head, self.share_forward)


PLAIN = Variant("plain", plain=True)
PLAIN_KEPT = Variant("plain, no checkpointing", plain=True, checkpointing=False, input_gradients=False)
ALL = Variant(
    "all",
    truncate=True,
    answer_head=True,
    share_forward=True,
    image_cache=True,
    reference="stored",
    checkpointing=False,
    input_gradients=False,
)
ALL_RECOMPUTED = replace(ALL, name="all, checkpointing", checkpointing=True)


@dataclass(frozen=True, slots=True)
class Case:
    """A method, what of the model it trains, and the single techniques that can tell there."""

    name: str
    settings: dict[str, Any]
    single: tuple[str, ...] = field(default=())

    def config(self, shape: Shape, checkpointing: bool = False) -> AlignConfig:
        usual = {"batch_size": shape.batch, "precision": "bf16" if shape.bf16 else "fp32", "preferred": "given"}
        return AlignConfig(**{**usual, **self.settings, "checkpointing": checkpointing})

    def variants(self) -> list[Variant]:
        return [PLAIN, PLAIN_KEPT, *(SINGLE[name] for name in self.single), ALL_RECOMPUTED, ALL]


SINGLE = {
    "truncate": Variant("truncate", truncate=True),
    "answer_head": Variant("answer_head", answer_head=True),
    "share_forward": Variant("share_forward", share_forward=True),
    "image_cache": Variant("image_cache", image_cache=True),
    "stored": Variant("reference=stored", reference="stored"),
    "adapter": Variant("reference=adapter", reference="adapter"),
    "input": Variant("no gradient of the input", input_gradients=False),
}
# Where the released codes steer: all positions, image tokens too.
RMU = {"method": "rmu", "positions": "all", "layer": 7}
RMU_LM = {**RMU, "retain": ["hidden", "ce"]}
FULL_LAYERS, FULL = {"train": "layers"}, {"train": "language"}
LORA = {"tune": "lora", "train": "language"}
LABELS = ("answer_head", "image_cache", "stored")
CASES = [
    Case("RMU, full", {**RMU, **FULL_LAYERS}, ("truncate", "image_cache", "stored", "input")),
    Case("RMU, down_proj", {**RMU, **FULL_LAYERS, "parameters": "mlp.down_proj"}, ("truncate", "stored")),
    Case("RMU, LoRA", {**RMU, **LORA}, ("truncate", "image_cache", "stored", "adapter")),
    Case("RMU with LM loss, full", {**RMU_LM, **FULL_LAYERS}, ("truncate", "share_forward", *LABELS, "input")),
    Case("RMU with LM loss, LoRA", {**RMU_LM, **LORA}, ("truncate", "share_forward", *LABELS, "adapter")),
    Case("NPO, full", {"method": "npo", **FULL}, LABELS),
    Case("NPO, LoRA", {"method": "npo", **LORA}, (*LABELS, "adapter")),
    Case("DPO, full", {"method": "dpo", **FULL}, LABELS),
    Case("DPO, LoRA", {"method": "dpo", **LORA}, (*LABELS, "adapter")),
]


# --- model and data ---------------------------------------------------------------------------


def model_config(shape: Shape) -> LlavaConfig:
    hidden, inner, layers, heads = shape.tower
    vision = CLIPVisionConfig(
        image_size=shape.side,
        patch_size=PATCH,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        projection_dim=hidden,
    )
    text = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=4096,
        initializer_range=shape.spread,
        pad_token_id=0,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=3,
        image_seq_length=(shape.side // PATCH) ** 2,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )


@cache
def build_processor(shape: Shape) -> LlavaProcessor:
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"height": shape.side, "width": shape.side}, do_center_crop=False, crop_size=shape.side
        ),
        tokenizer=build_tokenizer(World()),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def build_model(shape: Shape, device: str) -> Any:
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(
            model_config(shape), dtype=torch.bfloat16 if shape.bf16 else torch.float32
        )
    return model.eval()


def rows(shape: Shape, folder: Path) -> dict[str, list[Query]]:
    """Noise pictures, and questions and answers of words, the answers of unequal length; one batch for each role."""
    rng, side = random.Random(0), shape.side
    words = ["the", "is", "of", "for", "it", "object", "to", "made", "from", "a", "thing", "shown", "over", "in"]

    def some(role: str, harmful: bool) -> list[Query]:
        found = []
        for number in range(shape.batch):
            name = folder / f"{role}{number}.png"
            Image.frombytes("RGB", (side, side), rng.randbytes(3 * side * side)).save(name)
            question, answer = (
                " ".join(rng.choices(words, k=k)) for k in (shape.question, max(1, shape.answer - number))
            )
            found.append(Query(id=f"{role}{number}", question=question, reference=answer, harmful=harmful, image=name))
        return found

    forget, retain = some("forget", True), some("retain", False)
    better = [one.model_copy(update={"reference": " ".join(rng.choices(words, k=shape.answer))}) for one in forget]
    return {"forget": forget, "retain": retain, "preference": [*better, *forget]}


# --- one way to compute a step ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SecondCopy:
    """The plain way to have a reference: another model."""

    model: Any
    terms: Sequence[Term]
    switches: Switches

    @torch.no_grad()
    def outputs(self, _model: Any, batch: Any) -> Callable[[Term], Any]:
        found = read(self.model, batch, wanted_by(self.terms), self.switches)
        return lambda term: term.signal(found)


@dataclass(frozen=True, slots=True)
class Way:
    """A model, and what computes the loss of a step on it."""

    network: Any
    second: Any
    loss: Callable[[], Tensor]

    def step(self) -> Tensor:
        self.network.zero_grad(set_to_none=True)
        loss = self.loss()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()


def way_of(case: Case, variant: Variant, shape: Shape, folder: Path, device: str) -> Way:
    config, folder = case.config(shape), Path(tempfile.mkdtemp(dir=folder))
    network, processor = build_model(shape, device), build_processor(shape)
    second = copy.deepcopy(network) if variant.reference == "copy" else None
    network = prepare(network, config)
    set_dtypes(network, shape.bf16)
    network.to(device)
    found = rows(shape, folder)
    parts = {role: found[role] for role in config.roles()}  # in the order of a run
    data = {role: Encoded(processor, part) for role, part in parts.items()}
    autocast = partial(torch.autocast, device, torch.bfloat16, enabled=shape.bf16)
    asking = Asking(network, 0, shape.batch, variant.switches(), autocast, "bfloat16" if shape.bf16 else "float32")
    keys, terms = Keys(folder, "start"), terms_of(config)
    if variant.image_cache and (note := use_features(data, asking, keys)):
        raise RuntimeError(note)
    if second is None:
        asked = config.model_copy(update={"reference": variant.reference})
        references = references_for(terms, data, asking, keys, asked)
    else:
        needing = {role: [one for one in terms if one.role == role and one.needs_reference] for role in data}
        references = {role: SecondCopy(second, some, asking.switches) for role, some in needing.items() if some}
    move(network)
    checkpoint(network, variant)
    if variant.plain:
        loss = Plain(network, second, config).loss
    else:
        trainer = AlignTrainer(
            model=network,
            args=arguments(config, folder, shape.bf16),
            terms=terms,
            references=references,
            ids={role: [query.id for query in part] for role, part in parts.items()},
            switches=asking.switches,
        )
        loss = partial(trainer.compute_loss, network)
    network.train()
    pairs = Paired(data, 0)

    def of_a_step() -> Tensor:
        samples = [pairs[row] for row in range(shape.batch)]
        batch = {role: moved(part, device) for role, part in collate_roles(samples, 0).items()}
        with autocast():
            found: Tensor = loss(batch)
        return found

    return Way(network, second, of_a_step)


def move(network: Any) -> None:
    """Moves what is trained a little, as if by some steps: at the start policy and reference are the same."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.005)


def checkpoint(network: Any, variant: Variant) -> None:
    if variant.checkpointing:
        checkpoint_layers(network)
    if variant.input_gradients:  # of the text alone: the released codes never go back through the tower
        network.get_input_embeddings().register_forward_hook(lambda _module, _inputs, output: output.requires_grad_())


def moved(batch: dict[str, Any], device: str) -> dict[str, Any]:
    def to(value: Any) -> Any:
        return [to(one) for one in value] if isinstance(value, list) else value.to(device)

    return {key: to(value) for key, value in batch.items()}


def gradients(network: Any, most: int | None = None) -> dict[str, Tensor]:
    """The gradient of every parameter on the CPU, of large ones only evenly spaced elements where `most` says so."""
    found = {name: p.grad.flatten() for name, p in network.named_parameters() if p.grad is not None}
    return {name: g[:: max(1, len(g) // most) if most else 1].float().cpu() for name, g in found.items() if g.any()}


def difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Largest relative difference of a parameter's gradient; what is tiny beside the others counts as zero."""
    if one.keys() != other.keys():
        return float("inf")
    floor = 1e-3 * max(value.norm() for value in other.values())
    return max(float((one[name] - value).norm() / (value.norm() + floor)) for name, value in other.items())


# --- measuring --------------------------------------------------------------------------------


@dataclass
class Measured:
    """What one way gave. `seconds` is empty where the memory did not suffice."""

    variant: Variant
    seconds: list[float] = field(default_factory=list)
    peak: float = 0.0
    tensors: float = 0.0
    loss: float = 0.0
    gradients: dict[str, Tensor] = field(default_factory=dict)


def serve(pipe: Any, case: Case, variant: Variant, shape: Shape, folder: Path, device: str) -> None:
    """The child process: builds a way, sends its loss and gradients, then steps whenever it is told to."""
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    start = memory(device)
    try:
        way = way_of(case, variant, shape, folder, device)
        loss = float(way.step())
        pipe.send((loss, {k: v.numpy() for k, v in gradients(way.network, 4096 if device == "cuda" else None).items()}))
        gc.collect()
        reset_peak(device)
        while pipe.recv():
            begin = clock(device)
            way.step()
            pipe.send(clock(device) - begin)
        grown = memory(device, peak=True) - start
        pipe.send((grown, grown if device == "cuda" else tensors(way)))
    except torch.OutOfMemoryError:
        pipe.send(None)


def clock(device: str) -> float:
    """Seconds: of a GPU's work, or of this process's own work on the one thread that it has."""
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def memory(device: str, peak: bool = False) -> float:
    """MiB that this process holds now, or held at most since `reset_peak`."""
    if device == "cuda":
        return (torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()) / 2**20
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:  # not Linux; macOS counts bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    name = "VmHWM:" if peak else "VmRSS:"
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(name)) / 2**10


def tensors(way: Way) -> float:
    """MiB of tensors at the peak of a step: weights, and what is allocated and freed; the same in every run."""
    way.network.zero_grad(set_to_none=True)
    models = [way.network] if way.second is None else [way.network, way.second]
    weights = {t.data_ptr(): t.nbytes for model in models for t in (*model.parameters(), *model.buffers())}
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        way.step()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return (sum(weights.values()) + max(accumulate(changes))) / 2**20


def reset_peak(device: str) -> None:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")


@contextmanager
def child(case: Case, variant: Variant, shape: Shape, folder: Path, device: str) -> Iterator[Any]:
    context = multiprocessing.get_context("spawn" if device == "cuda" else "fork")
    pipe, end = context.Pipe()
    process = context.Process(target=serve, args=(end, case, variant, shape, folder, device), daemon=True)
    process.start()
    end.close()
    try:
        yield pipe
    finally:
        process.join(10)
        process.kill()


def measure(case: Case, shape: Shape, device: str, repeat: int) -> list[Measured]:
    """All ways of a case: taking turns on a CPU; one after the other on a GPU, whose memory holds one only."""
    build_processor(shape)  # once, before the processes part
    found = [Measured(variant) for variant in case.variants()]
    groups = [[one] for one in found] if device == "cuda" else [found]
    for group in groups:
        with tempfile.TemporaryDirectory() as folder:
            take_turns(case, shape, Path(folder), device, repeat, group)
    return found


def take_turns(case: Case, shape: Shape, folder: Path, device: str, repeat: int, group: list[Measured]) -> None:
    pipes: list[tuple[Any, Measured, Any]] = []
    for one in group:  # built one by one, so that their beginnings do not disturb each other
        entered = child(case, one.variant, shape, folder, device)
        pipe = entered.__enter__()
        pipes.append((pipe, one, entered))
        if (first := pipe.recv()) is not None:
            one.loss, one.gradients = first[0], {name: torch.from_numpy(g) for name, g in first[1].items()}
    alive = [(pipe, one) for pipe, one, _ in pipes if one.gradients]
    for turn in range(repeat + 1):
        for pipe, one in list(alive):
            pipe.send(True)
            seconds = pipe.recv()
            if seconds is None:
                alive.remove((pipe, one))
                one.seconds.clear()
            elif turn:  # the first is to warm up
                one.seconds.append(seconds)
    for pipe, one in alive:
        pipe.send(False)
        one.peak, one.tensors = pipe.recv()
    for _, _, entered in pipes:
        entered.__exit__(None, None, None)


def records_of(case: Case, found: Sequence[Measured], device: str) -> list[Record]:
    plain = found[0]
    records = []
    for one in found:
        equal = None
        if one.seconds and plain.seconds:
            close = abs(one.loss - plain.loss) <= TOLERANCE[device] * abs(plain.loss)
            equal = close and difference(one.gradients, plain.gradients) <= TOLERANCE[device]
        pairs = zip(plain.seconds, one.seconds, strict=False)
        ratio = statistics.median(theirs / ours for theirs, ours in pairs) if equal is not None else None
        spent = statistics.median(one.seconds) if one.seconds else None
        held, grown = (
            (value or None, theirs / value if equal is not None and value else None)
            for value, theirs in ((one.tensors, plain.tensors), (one.peak, plain.peak))
        )
        for metric, (value, times) in zip(METRICS, ((spent, ratio), held, grown), strict=True):
            records.append(
                {
                    "case": case.name,
                    "variant": one.variant.name,
                    "metric": metric,
                    "value": None if value is None else round(value, 3 if metric == METRICS[0] else 0),
                    "ratio_to_plain": None if times is None else round(times, 2),
                    "equal_outputs": equal,
                }
            )
    return records


def versions() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "transformers", "accelerate", "peft")}


# --- tables -----------------------------------------------------------------------------------


def table(result: dict[str, Any]) -> str:
    """Markdown: one line for each way of each case."""
    by = {(r["case"], r["variant"], r["metric"]): r for r in result["records"]}
    lines = [
        f"Device: {result['device']}; torch {result['versions']['torch']}, "
        f"transformers {result['versions']['transformers']}.",
        "",
        "| case | way | seconds a step | times faster | tensors, MiB | times less | process, MiB | equal |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for case, variant in dict.fromkeys((r["case"], r["variant"]) for r in result["records"]):
        spent, held, grown = (by[case, variant, metric] for metric in METRICS)
        equal = {True: "yes", False: "**no**", None: "-"}[spent["equal_outputs"]]
        cells = [shown(spent["value"], 3, "out of memory"), shown(spent["ratio_to_plain"], 2)]
        cells += [shown(held["value"], 0), shown(held["ratio_to_plain"], 2), shown(grown["value"], 0), equal]
        lines.append(f"| {case} | {variant} | {' | '.join(cells)} |")
    return "\n".join(lines)


def shown(value: float | None, digits: int, absent: str = "-") -> str:
    return absent if value is None else f"{value:,.{digits}f}"


def write_tables(page: Path, results: Path) -> None:
    """Puts a table between `<!-- table NAME -->` and `<!-- end -->` for every results/NAME.json that there is."""
    text = page.read_text(encoding="utf-8")
    for file in sorted(results.glob("align*.json")):
        mark, end = f"<!-- table {file.stem} -->", "<!-- end -->"
        if mark in text:
            before, _, rest = text.partition(mark)
            after = rest.partition(end)[2]
            text = f"{before}{mark}\n\n{table(json.loads(file.read_text()))}\n\n{end}{after}"
    page.write_text(text, encoding="utf-8")


def parse(arguments_: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--shape", choices=tuple(SHAPES), default="small")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--case", action="append", choices=[case.name for case in CASES], help="only this case")
    parser.add_argument("--table", action="store_true", help="write the tables from the results, measure nothing")
    options = parser.parse_args(arguments_)
    stem = "align" if options.shape == "small" and options.device == "cpu" else f"align-{options.shape}"
    options.out = options.out or HERE / "results" / f"{stem}.json"
    if SHAPES[options.shape].bf16 and options.device == "cpu" and not options.table:
        parser.error(f"--shape {options.shape} needs --device cuda")
    return options


def main() -> None:
    options = parse()
    if options.table:
        write_tables(PAGE, HERE / "results")
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an orderly end also ends the other processes
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    shape, records = SHAPES[options.shape], []
    for case in CASES:
        if options.case is None or case.name in options.case:
            records += records_of(case, measure(case, shape, options.device, options.repeat), options.device)
            for record in records[-len(METRICS) * len(case.variants()) :]:
                print(json.dumps(record), flush=True)
    device = torch.cuda.get_device_name() if options.device == "cuda" else platform.processor() or platform.machine()
    write_json(options.out, {"schema": 1, "device": device, "versions": versions(), "records": records})
    if wrong := [record for record in records if record["equal_outputs"] is False]:
        raise SystemExit(f"{len(wrong)} results differ from the plain way's")


if __name__ == "__main__":
    main()
