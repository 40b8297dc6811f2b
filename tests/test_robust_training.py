"""Training that is killed, runs into numbers that are none, lacks memory, or is given bad rows; and its switches."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForImageTextToText, TrainerCallback

from unmirage.align import AlignConfig, align, alternatives
from unmirage.align.batches import Encoded, encode_all
from unmirage.align.checks import check_answers, check_rows, confounding
from unmirage.align.data import REFUSALS, rows_of
from unmirage.align.encode import encode
from unmirage.align.failures import memory_errors
from unmirage.align.objectives import OBJECTIVES
from unmirage.align.parts import prepare
from unmirage.align.signals import Activations
from unmirage.align.trainer import AlignTrainer
from unmirage.backends.checkpoint import load_checkpoint, load_model
from unmirage.errors import UserError
from unmirage.schema import Query

KILLS = Path(__file__).with_name("kills.py")
Weights = dict[str, Tensor]


def config(method: str, **settings: Any) -> AlignConfig:
    usual: dict[str, Any] = {"steps": 2, "lr": 1e-3, "batch_size": 2, "warmup": 0.0}
    usual |= {"layer": 3, "coefficient": 5.0} if method == "rmu" else {}
    return AlignConfig(**{"method": method, **usual, **settings})


def weights(folder: Path) -> Weights:
    return load_file(folder / "model.safetensors")


def apart(one: Weights, other: Weights) -> float:
    assert one.keys() == other.keys()
    return max((one[name].float() - other[name].float()).abs().max().item() for name in one)


def refusal(function: Callable[..., Any], *args: Any, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        function(*args, **options)
    return str(caught.value)


@pytest.fixture(scope="module")
def rows(forget: list[Query], retain: list[Query]) -> list[Query]:
    """Four harmful and four harmless rows, without pictures to be quick, but for one of each."""
    harmful = [forget[0], *(forget[i].model_copy(update={"image": None}) for i in (1, 2))]
    harmful.append(harmful[1].model_copy(update={"id": "f3", "question": "Share how this is made"}))
    harmless = [retain[0], retain[1].model_copy(update={"image": None})]
    harmless += [one.model_copy(update={"id": f"{one.id}b", "image": None, "question": "Why?"}) for one in harmless]
    harmless[-1] = harmless[-1].model_copy(update={"question": "Who?"})
    return [*harmful, *harmless]


# --- killed -----------------------------------------------------------------------------------

STEPS = 6
DRAWN = sorted(random.Random(11).sample(range(1, STEPS + 1), 3))
KILLED: dict[str, Any] = {
    "npo": {"method": "npo", "kills": [["store", 2], *(["step", n] for n in DRAWN)]},
    "npo-lora": {"method": "npo", "tune": "lora", "lora_rank": 4, "kills": [["step", n] for n in DRAWN]},
    "pdu": {"method": "pdu", "accumulation": 2, "kills": [*(["step", n] for n in DRAWN), ["save", STEPS]]},
}


@pytest.fixture(scope="module")
def killed(tiny_folder: Path, rows: list[Query], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    usual = {"steps": STEPS, "save_steps": 2, "batch_size": 1, "lr": 1e-3, "weight_decay": 0.01}
    runs = {
        name: {"kills": one["kills"], "settings": usual | {key: one[key] for key in one if key != "kills"}}
        for name, one in KILLED.items()
    }
    jobs = {"model": str(tiny_folder), "rows": [row.model_dump(mode="json") for row in rows], "runs": runs}
    (folder / "jobs.json").write_text(json.dumps(jobs))
    command = [sys.executable, str(KILLS), str(folder / "jobs.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    (folder / "ends.txt").write_text(done.stdout)
    return folder


@pytest.mark.parametrize("name", KILLED)
def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(killed: Path, tiny_folder: Path, name: str) -> None:
    ends = next(line.split()[1:] for line in (killed / "ends.txt").read_text().splitlines() if line.split()[0] == name)
    assert ends == ["0", *[str(-signal.SIGKILL)] * len(KILLED[name]["kills"]), "0"]
    whole, cut = killed / name / "whole", killed / name / "cut"
    assert apart(weights(tiny_folder), weights(whole)) > 1e-3
    assert apart(weights(whole), weights(cut)) < 1e-6
    assert not (cut / "training").exists()
    last = [json.loads((folder / "training.json").read_text())["history"][-1] for folder in (whole, cut)]
    if name == "pdu":
        assert last[0]["weight/retain/ce"] == pytest.approx(last[1]["weight/retain/ce"], rel=1e-6)
        assert last[0]["weight/retain/ce"] != pytest.approx(1.0, abs=1e-3), "the dual variable must have moved"


def test_references_of_a_killed_run_are_kept_and_used(killed: Path) -> None:
    for name in ("whole", "cut"):
        files = sorted(killed.joinpath("npo", f"{name}-cache").glob("reference-*/*.safetensors"))
        assert len(files) == 4
    # The second file was written beside its place when its process was killed.
    assert len(list(killed.joinpath("npo", "cut-cache").glob("*/*.part"))) == 1


class At(TrainerCallback):  # type: ignore[misc]
    """Does something with the model at the beginning of a step."""

    def __init__(self, step: int, do: Callable[[Any], None]) -> None:
        self.step, self.do = step, do

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if state.global_step + 1 == self.step:
            self.do(model)


def test_a_lora_run_goes_on_with_its_adapter(tiny_folder: Path, rows: list[Query], tmp_path: Path) -> None:
    setting = config("npo", tune="lora", lora_rank=4, steps=4, save_steps=2)
    seen: list[Weights] = []

    def look(model: Any) -> None:
        seen.append({name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad})

    def stop(model: Any) -> None:
        look(model)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        align(tiny_folder, rows, setting, tmp_path / "out", callbacks=[At(3, stop)])
    align(tiny_folder, rows, setting, tmp_path / "out", callbacks=[At(3, look)])
    assert apart(seen[0], seen[1]) == 0
    assert any(value.any() for name, value in seen[1].items() if "lora_B" in name), "a fresh adapter would be zero"


# --- numbers that are none, and memory --------------------------------------------------------


def poison(model: Any) -> None:
    with torch.no_grad():
        model.get_decoder().layers[2].mlp.down_proj.weight[0, 0] = float("nan")


def blow_up(model: Any) -> None:
    weight = model.get_decoder().layers[2].mlp.down_proj.weight
    weight.register_hook(lambda gradient: gradient * float("inf"))


@pytest.mark.parametrize(
    ("harm", "said"),
    [(poison, "step 3: the loss is not a finite number"), (blow_up, "step 3: the gradient is not a finite number")],
)
def test_what_is_no_number_stops_with_step_rows_and_a_hint(
    tiny_folder: Path, rows: list[Query], tmp_path: Path, harm: Callable[[Any], None], said: str
) -> None:
    setting, out = config("npo", steps=4, save_steps=1), tmp_path / "out"
    message = refusal(align, tiny_folder, rows, setting, out, callbacks=[At(3, harm)])
    assert message.startswith(said)
    assert "forget: f" in message
    assert "retain: r" in message
    assert "lr" in message
    assert "last saved step stays" in message
    kept = out / "training" / "checkpoint-2"
    assert all(value.isfinite().all() for value in weights(kept).values())
    assert not (out / "training.json").exists()
    align(tiny_folder, rows, setting, out)
    assert apart(weights(out), weights(align(tiny_folder, rows, setting, tmp_path / "whole"))) < 1e-6


def test_a_learning_rate_far_too_high_is_told_from_the_numbers(
    tiny_folder: Path, rows: list[Query], tmp_path: Path
) -> None:
    message = refusal(align, tiny_folder, rows, config("npo", lr=1e30, steps=4), tmp_path / "out")
    assert message.startswith("step 2: the loss is not a finite number (")
    assert "forget/npo = " in message


def test_memory_that_does_not_suffice_names_the_switches(
    tiny_folder: Path, rows: list[Query], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(AlignTrainer, "_weighted", full)
    message = refusal(align, tiny_folder, rows, config("rmu", batch_size=4), tmp_path / "out")
    assert message.startswith("the memory does not suffice; set batch_size=2 with accumulation=2 (the same step), ")
    for switch in ("checkpointing=true", "precision=bf16", "tune=lora", "train=layers", "max_length"):
        assert switch in message
    least = config("npo", batch_size=1, checkpointing=True, precision="bf16", tune="lora")
    message = refusal(align, tiny_folder, rows, least, tmp_path / "least")
    assert message == "the memory does not suffice; set a smaller max_length. Saved steps are kept."


def fail(error: Exception) -> None:
    with memory_errors(config("npo")):
        raise error


def test_only_errors_of_memory_are_taken_for_them() -> None:
    assert "batch_size=1" in refusal(fail, RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ..."))
    with pytest.raises(RuntimeError, match="shapes"):
        fail(RuntimeError("shapes do not fit"))


# --- bad rows ---------------------------------------------------------------------------------


def test_rows_without_answers_or_pictures_are_told_together(rows: list[Query], tmp_path: Path) -> None:
    mute = [row.model_copy(update={"id": f"m{i}", "reference": None}) for i, row in enumerate(rows[:3])]
    lost = rows[0].model_copy(update={"id": "lost", "image": tmp_path / "lost.png"})
    message = refusal(check_rows, {"forget": [*mute, lost, rows[0]], "retain": rows[4:]})
    assert message.startswith("4 of 9 rows cannot be used: query 'm0' has no answer")
    assert "'m2' has no answer" in message
    assert message.endswith(" And 1 more.")
    namesake = lost.model_copy(update={"id": rows[4].id})
    assert refusal(check_rows, {"forget": [namesake], "retain": rows[4:]}).startswith("1 of 5 rows cannot be used")


def test_a_picture_shared_under_another_name_is_told(rows: list[Query], tmp_path: Path) -> None:
    assert rows[0].image is not None
    copied = rows[0].model_copy(update={"id": "x", "image": Path(shutil.copy(rows[0].image, tmp_path / "copy.png"))})
    message = refusal(check_rows, {"forget": rows[:4], "retain": [copied, *rows[4:]]})
    assert message.startswith("1 rows are to be forgotten and retained at once")


def test_empty_sets_and_shared_rows_are_told(rows: list[Query]) -> None:
    assert "the forget set is empty" in refusal(check_rows, {"forget": [], "retain": rows[4:]})
    assert "the retain set is empty" in refusal(check_rows, {"forget": rows[:4], "retain": []})
    again = [rows[1].model_copy(update={"id": "x", "question": f"  {rows[1].question.upper()}"}), *rows[4:]]
    message = refusal(check_rows, {"forget": rows[:4], "retain": again})
    assert message.startswith("1 rows are to be forgotten and retained at once")
    assert "'f1'" in message
    check_rows({"forget": rows[:4], "retain": [rows[0].model_copy(update={"image": rows[4].image}), *rows[4:]]})


def test_answers_that_are_cut_away_are_counted(processor: Any, rows: list[Query]) -> None:
    long = {"forget": Encoded(processor, rows[1:4]), "retain": Encoded(processor, rows[5:])}
    prompts = {role: [int((s["labels"] == -100).sum()) for s in part._samples] for role, part in long.items()}
    lengths = [len(s["labels"]) for part in long.values() for s in part._samples]
    most = max(itertools.chain(*prompts.values()))
    cut = encode_all(processor, {"forget": rows[1:4], "retain": rows[5:]}, most)
    gone = {role: sum(length >= most for length in some) for role, some in prompts.items()}
    message = refusal(check_answers, cut, most)
    for role, count in gone.items():
        assert (f"{count} of 3 {role} rows" in message) == (count > 0)
    assert f"max_length={most}" in message
    half = encode_all(processor, {"forget": rows[1:4], "retain": rows[5:]}, most + 1)
    notes = check_answers(half, most + 1)
    assert sum(int(note.split()[0]) for note in notes) == sum(length > most + 1 for length in lengths)
    assert check_answers(long, None) == []


def test_a_picture_longer_than_max_length_is_told(processor: Any, rows: list[Query]) -> None:
    message = refusal(encode_all, processor, {"forget": [rows[0], rows[1]]}, 10)
    assert message.startswith("forget: 1 of 2 rows cannot be used: the picture of query 'f0' alone takes more")


@pytest.fixture
def choosy(processor: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A processor that cannot tell channels from columns in a picture one pixel wide, as many cannot."""
    call = type(processor.image_processor).__call__

    def strict(self: Any, images: Any, *args: Any, **options: Any) -> Any:
        several = images if isinstance(images, list) else [images]
        if any(1 in image.size for image in several if isinstance(image, Image.Image)):
            raise ValueError("mean must have 1 elements if it is an iterable, got 3")
        return call(self, images, *args, **options)

    monkeypatch.setattr(type(processor.image_processor), "__call__", strict)
    return processor


def test_pictures_that_the_processor_rejects_are_told_by_row(choosy: Any, rows: list[Query], tmp_path: Path) -> None:
    narrow, broken = tmp_path / "narrow.png", tmp_path / "broken.png"
    Image.new("RGB", (1, 40)).save(narrow)
    broken.write_bytes(b"no picture")
    bad = [rows[0].model_copy(update={"id": name, "image": path}) for name, path in (("n", narrow), ("b", broken))]
    message = refusal(encode, choosy, bad[0])
    assert message.startswith("the model's processor rejects the image of query 'n'")
    assert f"{narrow}, 1 x 40 pixels (mean must have 1 elements" in message
    message = refusal(encode_all, choosy, {"forget": [rows[1], *bad], "retain": [rows[4], bad[0]]}, None)
    assert "forget: 2 of 3 rows cannot be used" in message
    assert "retain: 1 of 2 rows cannot be used" in message
    assert "broken.png" in message


def test_bad_rows_are_told_before_weights_are_loaded(
    choosy: Any, tiny_folder: Path, rows: list[Query], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unmirage.align.run.load_model", lambda *_args, **_options: pytest.fail("weights were loaded"))
    Image.new("RGB", (1, 40)).save(tmp_path / "narrow.png")
    bad = rows[0].model_copy(update={"id": "n", "image": tmp_path / "narrow.png"})
    assert "'n'" in refusal(align, tiny_folder, [bad, *rows], config("npo"), tmp_path / "out")


def asked(words: str, count: int, harmful: bool) -> list[Query]:
    pattern = itertools.cycle(words.split())
    name = "f" if harmful else "r"
    return [
        Query(id=f"{name}{i}", question=f"{next(pattern)} it, {name}{i}", reference="It is red.", harmful=harmful)
        for i in range(count)
    ]


def test_a_confounded_pair_is_warned_of_with_its_figures() -> None:
    forget = [*asked("Share", 18, True), *asked("What", 2, True)]
    retain = [*asked("share,", 1, False), *asked("What", 19, False), *asked("Describe", 5, False)]
    # share: 18/20 - 1/25 = .86; what: 2/20 - 19/25 = -.66; describe: 0 - 5/25 = -.2; half of the sum of sizes: .86
    found = confounding({"forget": forget, "retain": retain})
    assert found is not None
    assert "total variation distance 0.86 of 1" in found
    assert "'share' opens 18 of 20 forget rows and 1 of 25 retain rows" in found
    assert "give the retain set more rows that open with 'share'" in found


def test_a_balanced_pair_or_one_too_small_to_tell_is_not_warned_of() -> None:
    assert confounding({"forget": asked("Share What", 40, True), "retain": asked("What Share", 30, False)}) is None
    # share: 28/40 against 8/40: half of (.5 + .5) is the bound, and one row less is below it
    forget = [*asked("Share", 28, True), *asked("What", 12, True)]
    below = [*asked("Share", 9, False), *asked("What", 31, False)]
    assert confounding({"forget": forget, "retain": below}) is None
    assert confounding({"forget": forget, "retain": [*below[1:], *asked("What", 1, False)]}) is not None
    assert confounding({"forget": asked("Share", 19, True), "retain": asked("What", 40, False)}) is None


def test_the_warning_reaches_the_caller_and_the_record(tiny_folder: Path, tmp_path: Path) -> None:
    told: list[str] = []
    biased = [*asked("Share", 20, True), *asked("What", 20, False)]
    out = align(tiny_folder, biased, config("simnpo", steps=1), tmp_path / "out", tell=told.append)
    assert [note for note in told if "opening words" in note] == told
    assert len(told) == 1
    assert json.loads((out / "training.json").read_text())["notes"] == told


# --- switches of the training -----------------------------------------------------------------


class Gradients(TrainerCallback):  # type: ignore[misc]
    """Keeps the gradients of the first step."""

    def __init__(self) -> None:
        self.kept: Weights = {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if not self.kept:
            self.kept = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("method", ["npo", "pdu", "rmu"])
def test_accumulated_batches_equal_one_large_one(
    tiny_folder: Path, rows: list[Query], tmp_path: Path, method: str
) -> None:
    seen, outs = (Gradients(), Gradients()), (tmp_path / "large", tmp_path / "small")
    for watch, out, sizes in zip(seen, outs, ((4, 1), (1, 4)), strict=True):
        setting = config(method, batch_size=sizes[0], accumulation=sizes[1])
        align(tiny_folder, rows, setting, out, callbacks=[watch])
    large, small = (watch.kept for watch in seen)
    assert large.keys() == small.keys()
    scale = max(value.abs().max().item() for value in large.values())
    assert apart(large, small) < 1e-5 * scale
    # Adam divides a gradient by its size, and so magnifies what rounding does to the smallest ones.
    assert apart(weights(outs[0]), weights(outs[1])) < 1e-4 < apart(weights(tiny_folder), weights(outs[0]))
    last = [json.loads((out / "training.json").read_text())["history"][-1] for out in outs]
    names = [name for name in last[0] if "/" in name]
    assert ("weight/retain/ce" in names) == (method == "pdu")
    assert [last[1][name] for name in names] == pytest.approx([last[0][name] for name in names], rel=1e-4)


@pytest.mark.parametrize("settings", [{"method": "npo"}, {"method": "rmu", "tune": "lora"}])
def test_checkpointing_changes_no_weight(
    tiny_folder: Path, rows: list[Query], tmp_path: Path, settings: dict[str, Any]
) -> None:
    without = align(tiny_folder, rows, config(**settings), tmp_path / "without")
    with_it = align(tiny_folder, rows, config(**settings, checkpointing=True), tmp_path / "with")
    assert apart(weights(tiny_folder), weights(without)) > 1e-4
    assert apart(weights(without), weights(with_it)) < 1e-6


@pytest.mark.parametrize("tune", ["full", "lora"])
def test_bf16_keeps_what_is_trained_in_float32(tiny_folder: Path, rows: list[Query], tmp_path: Path, tune: str) -> None:
    seen: list[dict[bool, set[torch.dtype]]] = []
    inside: list[torch.dtype] = []

    def look(model: Any) -> None:
        kinds: dict[bool, set[torch.dtype]] = {True: set(), False: set()}
        for parameter in model.parameters():
            kinds[parameter.requires_grad].add(parameter.dtype)
        seen.append(kinds)
        layer = model.get_decoder().layers[1].mlp.gate_proj
        layer.register_forward_hook(lambda _m, _a, output: inside.append(output.dtype))

    half = config("npo", precision="bf16", tune=tune)
    out = align(tiny_folder, rows, half, tmp_path / "half", callbacks=[At(2, look)])
    full = align(tiny_folder, rows, config("npo", tune=tune), tmp_path / "full")
    assert seen == [{True: {torch.float32}, False: {torch.bfloat16}}]
    assert set(inside) == {torch.bfloat16}
    found = weights(out)
    assert {value.dtype for value in found.values()} == {torch.float32}, "the type of the checkpoint"
    assert apart(weights(tiny_folder), found) > 1e-4
    assert 0 < apart(weights(full), found) < 5e-3


def test_distances_between_bf16_activations_are_not_rounded() -> None:
    values = torch.tensor([[[[1.0, 2.0], [3.0, 5.0]]]], dtype=torch.bfloat16, requires_grad=True)
    found = Activations(values, torch.tensor([[True, True]])).mean_square(torch.tensor(0.1, dtype=torch.bfloat16))
    target = torch.tensor(0.1, dtype=torch.bfloat16).item()
    by_hand = sum((value - target) ** 2 for value in (1, 2, 3, 5)) / 4
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(by_hand, rel=1e-6)


def adapted_modules(network: Any) -> list[str]:
    return [name for name, module in network.named_modules() if hasattr(module, "lora_A")]


def test_lora_adapts_the_decoder_and_nothing_else(tiny: Any) -> None:
    layers = {id(module) for module in tiny.get_decoder().layers.modules()}
    tower = {id(module) for module in tiny.get_encoder(modality="image").modules()}
    network = prepare(tiny, config("npo", tune="lora"))
    names = adapted_modules(network)
    parts = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
    parts += ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    path = "base_model.model.model.language_model.layers"
    assert sorted(names) == sorted(f"{path}.{layer}.{part}" for layer in range(6) for part in parts)
    below = {id(network.get_submodule(name).base_layer) for name in names}
    assert below <= layers
    assert not below & tower
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert len(trained) == 2 * len(names)
    assert all("lora_" in name for name in trained)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"train": "layers", "trained_layers": (1, 4), "parameters": "mlp.down_proj"}, (1, 4)),
        ({"parameters": "mlp.down_proj"}, range(6)),
        ({"method": "rmu", "parameters": "mlp.down_proj"}, range(4)),
        ({"method": "rmu", "train": "layers", "parameters": "mlp.down_proj"}, (1, 2, 3)),
        ({"train": "language", "parameters": "mlp.down_proj"}, range(6)),
    ],
)
def test_parameters_are_chosen_by_name(tiny_folder: Path, settings: dict[str, Any], expected: Any) -> None:
    chosen = {f"language_model.layers.{layer}.mlp.down_proj" for layer in expected}
    for tune in ("full", "lora"):
        network = load_model(tiny_folder)
        network = prepare(network, config(**{"method": "npo", "tune": tune, **settings}))
        found = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
        cleaned = {name.split(".lora_")[0].removesuffix(".weight").partition("language_model")[2] for name in found}
        assert {f"language_model{name}" for name in cleaned} == chosen


def test_a_name_that_no_parameter_has_is_refused(tiny: Any) -> None:
    assert "whose name contains 'nowhere'" in refusal(prepare, tiny, config("npo", parameters="nowhere"))
    lora = config("npo", tune="lora", parameters="norm")
    assert "no linear layer" in refusal(prepare, tiny, lora)


def logits(network: Any, batch: dict[str, Any]) -> Tensor:
    wanted = ("input_ids", "attention_mask", "pixel_values")
    with torch.no_grad():
        found: Tensor = network.eval()(**{key: batch[key] for key in wanted if key in batch}).logits
    return found


def test_a_merged_model_an_adapter_and_all_their_loaders_agree(
    tiny_folder: Path, rows: list[Query], tmp_path: Path, batch_of: Any
) -> None:
    peft = pytest.importorskip("peft")
    setting = {"tune": "lora", "lora_rank": 4, "lr": 1e-2}
    merged = align(tiny_folder, rows, config("npo", **setting), tmp_path / "merged")
    adapter = align(tiny_folder, rows, config("npo", **setting, merge=False), tmp_path / "adapter")
    assert not list(merged.glob("adapter_*"))
    assert not (adapter / "model.safetensors").exists()
    batch = batch_of(*rows[:2])
    expected = logits(AutoModelForImageTextToText.from_pretrained(merged), batch)
    base = AutoModelForImageTextToText.from_pretrained(tiny_folder)
    assert (logits(base, batch) - expected).abs().max() > 1e-2
    loaded = {
        "ours": load_checkpoint(adapter)[0],
        "peft": peft.PeftModel.from_pretrained(base, adapter),
        "transformers": AutoModelForImageTextToText.from_pretrained(adapter),
    }
    for name, network in loaded.items():
        assert torch.allclose(logits(network, batch), expected, atol=1e-4, rtol=1e-4), name


def test_qlora_trains_an_adapter_on_four_bit_weights(tiny_folder: Path, rows: list[Query], tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    kinds: list[set[str]] = []
    look = At(2, lambda model: kinds.append({type(parameter).__name__ for parameter in model.parameters()}))
    setting = config("npo", tune="qlora", lora_rank=4, lr=1e-2)
    cache = tmp_path / "cache"
    out = align(tiny_folder, rows, setting, tmp_path / "out", cache=cache, callbacks=[look])
    align(tiny_folder, rows, config("npo", tune="lora", lora_rank=4, steps=1), tmp_path / "lora", cache=cache)
    for kind in ("features", "reference"):
        assert len(list(cache.glob(f"{kind}-*"))) == 2, "those of 4-bit weights lie apart"
    assert "Params4bit" in kinds[0]
    before, after = weights(tiny_folder), weights(out)
    assert {value.dtype for value in after.values()} == {torch.float32}
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert len(moved) == 42, "seven linear layers in each of six"
    assert all("language_model.model.layers." in name for name in moved), "merged with the weights as they were"
    history = json.loads((out / "training.json").read_text())["history"][-1]
    assert history["forget/npo"] < 2 / 0.1 * 0.6932 + 1e-3, "equal to the reference at first, then below"


def test_qlora_without_bitsandbytes_is_refused(
    tiny_folder: Path, rows: list[Query], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unmirage.align.parts.find_spec", lambda _name: None)
    message = refusal(align, tiny_folder, rows, config("npo", tune="qlora"), tmp_path / "out")
    assert message == "tune=qlora needs the package bitsandbytes; install unmirage[qlora], or set tune=lora."


# --- methods ----------------------------------------------------------------------------------


def test_a_task_vector_is_subtracted_from_where_it_began(tiny_folder: Path, rows: list[Query], tmp_path: Path) -> None:
    settings = {"steps": 2, "batch_size": 2, "lr": 1e-3, "warmup": 0.0}
    tuned = align(tiny_folder, rows, AlignConfig(forget="ce", **settings), tmp_path / "tuned")
    out = align(tiny_folder, rows, AlignConfig(method="task-vector", task_scale=0.7, **settings), tmp_path / "out")
    start, there, found = weights(tiny_folder), weights(tuned), weights(out)
    by_hand = {name: start[name] - 0.7 * (there[name] - start[name]) for name in start}
    assert apart(found, by_hand) < 1e-6
    assert apart(found, start) > 1e-4


def roles(setting: AlignConfig, rows: list[Query], general: list[Query]) -> dict[str, list[str]]:
    found = rows_of(setting, rows, general, [], lambda queries: ["Another."] * len(queries))
    return {role: [query.id for query in part] for role, part in found.items()}


def test_the_supervised_methods_choose_their_rows(rows: list[Query]) -> None:
    general = asked("What", 9, False)
    harmful, harmless, more = ([query.id for query in part] for part in (rows[:4], rows[4:], general))
    assert roles(config("mixed-sft"), rows, general) == {"learn": [*harmful, *harmless, *more]}
    assert roles(config("unsafe-filter"), rows, general) == {"retain": [*harmless, *more]}
    assert config("posthoc-sft").general_rows == 5000
    few = roles(config("posthoc-sft", general_rows=3), rows, general)["learn"]
    assert few[:8] == [*harmful, *harmless]
    assert len(few) == 11
    assert set(few[8:]) < set(more)
    other = roles(config("posthoc-sft", general_rows=3, seed=1), rows, general)["learn"]
    assert few == roles(config("posthoc-sft", general_rows=3), rows, general)["learn"] != other


def test_preferred_answers_are_refusals_or_given_by_id(rows: list[Query]) -> None:
    def chosen(setting: AlignConfig, preferred: list[Query]) -> list[str | None]:
        found = rows_of(setting, rows, [], preferred, lambda _queries: [])["preference"]
        assert [query.id for query in found] == [query.id for query in rows[:4]] * 2
        assert [query.reference for query in found[4:]] == [query.reference for query in rows[:4]]
        return [query.reference for query in found[:4]]

    drawn = chosen(config("idk-dpo"), [])
    assert set(drawn) <= set(REFUSALS)
    assert drawn == chosen(config("idk-dpo"), [])
    assert any(drawn != chosen(config("idk-dpo", seed=seed), []) for seed in (1, 2, 3))
    own = [rows[0].model_copy(update={"id": "x", "reference": "No, thanks."})]
    assert set(chosen(config("idk-dpo"), own)) == {"No, thanks."}
    better = [row.model_copy(update={"reference": f"Better {row.id}."}) for row in rows[:4]]
    assert chosen(config("dpo"), better[::-1]) == [row.reference for row in better]
    message = refusal(chosen, config("dpo"), better[:3])
    assert message.startswith("1 of 4 harmful rows have no better answer, such as 'f3'")
    assert "preferred=refusals" in message
    message = refusal(chosen, config("dpo"), [*better[:3], rows[3]])
    assert message.startswith("1 of 4 harmful rows have the same answer as the preferred data, such as 'f3'")


@pytest.mark.skipif("dpo" not in OBJECTIVES, reason="needs the objective dpo")
def test_dpo_with_given_pairs_prefers_them(tiny_folder: Path, rows: list[Query], tmp_path: Path) -> None:
    better = [row.model_copy(update={"reference": "It is red."}) for row in rows[:4]]
    setting = config("dpo", steps=6, batch_size=4, lr=3e-3)
    out = align(tiny_folder, rows, setting, tmp_path / "out", preferred=better)
    said = json.loads((out / "training.json").read_text())
    assert said["rows"] == {"preference": 8, "retain": 4}
    assert said["history"][-1]["preference/dpo"] < 0.6931
    message = refusal(align, tiny_folder, rows, setting, tmp_path / "few", preferred=better[:1])
    assert "3 of 4 harmful rows have no better answer" in message
    assert not (tmp_path / "few").exists()


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The ids of queries for which an alternative is sampled; interrupted before the third, the first time."""
    asked: list[str] = []
    sample = alternatives.alternative

    def alternative(network: Any, processor: Any, query: Query, seed: int) -> str | None:
        if len(asked) == 2 and "stop" not in asked:
            asked.append("stop")
            raise KeyboardInterrupt
        asked.append(query.id)
        return sample(network, processor, query, seed)

    monkeypatch.setattr(alternatives, "LONGEST", 8)
    monkeypatch.setattr(alternatives, "KEPT", 1)
    monkeypatch.setattr(alternatives, "alternative", alternative)
    return iter([asked])


@pytest.mark.skipif("dpo" not in OBJECTIVES, reason="needs the objective dpo")
def test_sampled_alternatives_come_from_the_seed_and_outlive_an_interruption(
    tiny_folder: Path, rows: list[Query], tmp_path: Path, counted: Iterator[list[str]]
) -> None:
    ids, out = next(counted), tmp_path / "out"
    setting = config("altpo", steps=1)
    with pytest.raises(KeyboardInterrupt):
        align(tiny_folder, rows, setting, out)
    kept = json.loads((out / "training" / "alternatives-0.json").read_text())
    assert list(kept) == ["f0", "f1"]
    align(tiny_folder, rows, setting, out)
    assert ids == ["f0", "f1", "stop", "f2", "f3"]
    whole = align(tiny_folder, rows, setting, tmp_path / "whole")
    assert apart(weights(out), weights(whole)) < 1e-6
    network, processor = load_checkpoint(tiny_folder)
    network.eval()
    again, other = (alternatives.alternative(network, processor, rows[0], seed) for seed in (0, 1))
    assert again == kept["f0"] != other
    assert kept["f0"] != rows[0].reference


def test_a_model_without_another_answer_is_told_with_counts(
    tiny_folder: Path, rows: list[Query], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"f0": "One.", "f1": None, "f2": "Two.", "f3": None}
    monkeypatch.setattr(alternatives, "alternative", lambda _network, _processor, query, _seed: found[query.id])
    message = refusal(align, tiny_folder, rows, config("altpo", steps=1), tmp_path / "out")
    assert message.startswith("the model gave 2 of 4 queries no other answer in 8 attempts, such as 'f1'")
    monkeypatch.delattr(alternatives, "alternative")  # the same seed would give the same: nothing is sampled again
    assert refusal(align, tiny_folder, rows, config("altpo", steps=1), tmp_path / "out") == message
