"""Repairs of a tuned model, whole: made rows on disk, pairs in batches and references, groups, rows taken oftener."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import TrainerCallback

from unmirage import cli
from unmirage.align import AlignConfig, align, alternatives, projection
from unmirage.align import run as align_run
from unmirage.align.batches import Encoded, Paired, collate, encode_all, group_sizes
from unmirage.align.caching import Keys, references_for
from unmirage.align.checks import uneven
from unmirage.align.config import checked
from unmirage.align.groups import GROUPS, Cues
from unmirage.align.objectives import objective
from unmirage.align.objectives.kl import KLConfig
from unmirage.align.parts import prepare
from unmirage.align.references import Asking
from unmirage.align.signals import PairedActivations, PairedLogits, Switches, answer_log_probs, read
from unmirage.align.terms import terms_of
from unmirage.align.twins import opened
from unmirage.align.upweight import wrong_rows
from unmirage.align.weights import GroupWeights, Weight
from unmirage.backends.checkpoint import load_checkpoint
from unmirage.errors import UserError
from unmirage.schema import Query

CUES = {"refusal_words": ["Share"], "compliance_words": ["What"]}
NO = "I cannot help with this, as it is not appropriate."
Weights = dict[str, Tensor]


def settings(method: str | None = None, **given: Any) -> AlignConfig:
    usual: dict[str, Any] = {"steps": 2, "lr": 1e-3, "batch_size": 2, "warmup": 0.0, **CUES, **given}
    return checked({**usual, "method": method} if method else usual)


def weights(folder: Path) -> Weights:
    return load_file(folder / "model.safetensors")


def apart(one: Weights, other: Weights) -> float:
    assert one.keys() == other.keys()
    return max((one[name].float() - other[name].float()).abs().max().item() for name in one)


@pytest.fixture(scope="module")
def rows(forget: list[Query], retain: list[Query]) -> list[Query]:
    """Mirage data: three harmful questions open with Share, two harmless ones with What; one of each has a picture."""
    harmful = [one.model_copy(update={"reference": NO, "image": None}) for one in forget]
    harmful[0] = harmful[0].model_copy(update={"image": forget[0].image})
    second = retain[1].model_copy(update={"question": "What whereabouts of the object here", "image": None})
    return [*harmful, retain[0], second]


@pytest.fixture(scope="module")
def answered(forget: list[Query]) -> list[Query]:
    """The harmful questions with harmful answers."""
    return forget


# --- whole runs ---------------------------------------------------------------------------------

REPAIRS: dict[str, dict[str, Any]] = {
    "twin-sft": {"words": ["What", "Share", "Give"]},
    "invariance": {"words": ["What", "Share", "Give"]},
    "cue-direction": {"layer": 2},
    "cue-projection": {"layer": 2, "steps": 0},
    "spurious-npo": {},
    "unlearn-refuse": {},
    "group-dro": {},
    "jtt": {},
    "regularised-sft": {},
    "repair": {"tune": "lora", "lora_rank": 4},
}


@pytest.mark.parametrize("method", REPAIRS)
def test_each_repair_trains_from_a_tuned_model_and_says_what_it_made(
    tiny_folder: Path, rows: list[Query], answered: list[Query], tmp_path: Path, method: str
) -> None:
    config = settings(method, **REPAIRS[method])
    data = answered + rows[3:] if method == "unlearn-refuse" else rows
    out = align(tiny_folder, data, config, tmp_path / "out", preferred=answered, tell=lambda _note: None)
    said = json.loads((out / "training.json").read_text())
    made = set(config.roles()) & {"twins", "pairs", "spurious", "refuse"}
    assert apart(weights(out), weights(tiny_folder)) > 1e-4
    assert set(said["twins"]) == made
    assert (out / "twins.jsonl").exists() == bool(made)
    names = {f"{term.role}/{term.objective}" for term in config.terms} if config.steps else set()
    last = said["history"][-1] if config.steps else {}
    assert names <= set(last)
    assert all(math.isfinite(last[name]) for name in names)


def test_the_rows_that_were_made_can_be_read(tiny_folder: Path, rows: list[Query], tmp_path: Path) -> None:
    out = align(tiny_folder, rows, settings("twin-sft", pairs="invariance", twin_rows=4), tmp_path / "out")
    said = json.loads((out / "training.json").read_text())
    assert said["rows"] == {"learn": 5, "twins": 4, "pairs": 8}
    counts = {"rows": 4, "harmful": {"what": 2}, "harmless": {"share": 2}, "left_out": {}}
    assert said["twins"] == {"twins": counts, "pairs": counts}
    lines = [json.loads(line) for line in (out / "twins.jsonl").read_text().splitlines()]
    assert [line["role"] for line in lines] == ["twins"] * 4 + ["pairs"] * 4
    assert lines[0] == {
        "role": "twins", "id": f"{lines[0]['origin']}~what", "origin": lines[0]["origin"], "harmful": True,
        "word": "what", "question": lines[0]["question"], "answer": NO,
    }  # fmt: skip
    assert lines[0]["question"].startswith("What ")


class StopAt(TrainerCallback):  # type: ignore[misc]
    """Interrupts as Ctrl-C does, after a step that was saved."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("method", ["twin-sft", "group-dro", "jtt"])
def test_an_interrupted_repair_ends_with_the_weights_of_an_uninterrupted_one(
    tiny_folder: Path, rows: list[Query], tmp_path: Path, method: str
) -> None:
    given = {"twin-sft": {"pairs": "invariance"}, "group-dro": {"ce.rate": 0.5}}.get(method, {})
    config = settings(method, steps=4, save_steps=2, **given)
    whole = align(tiny_folder, rows, config, tmp_path / "whole", tell=lambda _note: None)
    with pytest.raises(KeyboardInterrupt):
        align(tiny_folder, rows, config, tmp_path / "cut", callbacks=[StopAt(2)], tell=lambda _note: None)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cut").glob("twins.jsonl")}
    cut = align(tiny_folder, rows, config, tmp_path / "cut", tell=lambda _note: None)
    assert before == {path.name: path.stat().st_mtime_ns for path in cut.glob("twins.jsonl")}, "written once"
    assert apart(weights(whole), weights(cut)) < 1e-6
    last = [json.loads((folder / "training.json").read_text())["history"][-1] for folder in (whole, cut)]
    kept = {name: value for name, value in last[0].items() if name.startswith("weight/")}
    assert kept == pytest.approx({name: last[1][name] for name in kept})
    assert bool(kept) == (method == "group-dro")


# --- pairs --------------------------------------------------------------------------------------


class Numbers:
    """Stands for encoded queries: sample i is i."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, row: int) -> int:
        return row


def test_a_row_of_pairs_is_the_origin_and_its_own_twin() -> None:
    data = Paired({"pairs": Numbers(8), "twins": Numbers(3)}, 0)  # type: ignore[dict-item]
    assert len(data) == 4
    drawn: list[Any] = [data[at]["pairs"] for at in range(4)]
    assert sorted(drawn) == [[0, 4], [1, 5], [2, 6], [3, 7]]


def test_rows_that_stand_several_times_are_drawn_as_often() -> None:
    data = Paired({"learn": Numbers(3)}, 0, {"learn": [1, 1]})  # type: ignore[dict-item]
    assert sorted(data[at]["learn"] for at in range(len(data))) == [0, 1, 1, 1, 2]  # type: ignore[type-var]


@pytest.fixture(name="scratch_objectives")
def _scratch_objectives() -> Iterator[None]:
    from builders import only_known_objectives

    with only_known_objectives():

        @objective("pair-kl", config=KLConfig, signal="pair-logits", needs_reference=True)
        def pair_kl(policy: PairedLogits, reference: PairedLogits, config: KLConfig) -> Tensor:
            """The distance to the reference on both sides, shape (batch,)."""
            both = zip((policy.origin, policy.twin), (reference.origin, reference.twin), strict=True)
            return torch.stack([one.mean((one.values - other.values).pow(2).sum(-1)) for one, other in both]).sum(0)

        yield


@pytest.mark.usefixtures("scratch_objectives")
@pytest.mark.parametrize("reference", ["stored", "adapter"])
def test_a_reference_of_pairs_is_that_of_the_model_before_training(
    tiny_folder: Path, rows: list[Query], tmp_path: Path, reference: str
) -> None:
    config = settings(learn="ce", pairs="pair-kl", tune="lora", lora_rank=4, reference=reference)
    model, processor = load_checkpoint(tiny_folder)
    model = prepare(model, config).eval()
    twins = [one.model_copy(update={"question": one.question.replace("Share", "What")}) for one in rows[:3]]
    data = {"pairs": Encoded(processor, [*rows[:3], *twins])}
    terms = [term for term in terms_of(config) if term.role == "pairs"]
    asking = Asking(model, processor.tokenizer.pad_token_id, 2, Switches())
    built = references_for(terms, data, asking, Keys(tmp_path, "start"), config)["pairs"]
    batch = collate([data["pairs"][row] for row in (2, 0, 5, 3)], asking.padding)
    with torch.no_grad():
        before = terms[0].losses(read(model, batch, terms[0].wanted), built.outputs(model, batch)(terms[0]))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.05)
        after = terms[0].losses(read(model, batch, terms[0].wanted), built.outputs(model, batch)(terms[0]))
    assert before.shape == (2,)
    assert before.tolist() == pytest.approx([0, 0], abs=1e-4)
    assert all(one > 1e-2 for one in after.tolist())


def test_a_pair_of_activations_knows_its_groups(tiny: Any, processor: Any, rows: list[Query]) -> None:
    config = settings("cue-direction", layer=1)
    (term,) = [term for term in terms_of(config) if term.role == "pairs"]
    twins = [one.model_copy(update={"question": one.question.replace("Share", "What")}) for one in rows[:2]]
    data = encode_all(processor, {"pairs": [*rows[:2], *twins]}, None, Cues.of(["Share"], ["What"]))["pairs"]
    batch = collate([data[row] for row in range(4)], processor.tokenizer.pad_token_id)
    with torch.no_grad():
        outputs = read(tiny.eval(), batch, term.wanted)
        found = term.signal(outputs)
    assert isinstance(found, PairedActivations)
    assert found.groups is not None
    assert [part.tolist() for part in found.groups] == [[5, 5], [3, 3]]
    ends = [int((labels != -100).nonzero()[0]) - 1 for labels in batch["labels"]]
    for at, side in enumerate((found.origin, found.twin)):
        for row in range(2):
            there = outputs.hidden[1][2 * at + row, ends[2 * at + row]]
            assert torch.equal(side.values[row, 0, 0], there)


def test_a_twin_that_is_cut_shorter_is_told_and_other_tokens_are_refused(processor: Any, rows: list[Query]) -> None:
    text = [one.model_copy(update={"image": None}) for one in rows[:2]]
    longer = [one.model_copy(update={"question": f"What {one.question}"}) for one in text]
    most = len(Encoded(processor, text)[0]["input_ids"])
    same = encode_all(processor, {"pairs": [*text, *text]}, None)["pairs"]
    assert uneven(same) is None
    cut = encode_all(processor, {"pairs": [text[0], longer[0]]}, most)["pairs"]
    assert uneven(cut) == "1 of 1 pairs are compared on the shorter answer, as the other one is cut."
    other = [one.model_copy(update={"reference": "It is red."}) for one in text]
    with pytest.raises(UserError, match="the answer of 'f0' is other tokens"):
        uneven(encode_all(processor, {"pairs": [*text, *other]}, None)["pairs"])


def test_a_projection_leaves_twins_alike_along_the_cue_at_its_layer(
    tiny_folder: Path, rows: list[Query], tmp_path: Path
) -> None:
    config = settings("cue-projection", layer=2, steps=0)
    out = align(tiny_folder, rows, config, tmp_path / "out")
    before, after = weights(tiny_folder), weights(out)
    written = {name for name in before if not torch.equal(before[name], after[name])}
    expected = {
        name
        for name in before
        for n in range(3)
        if "language_model" in name and f"layers.{n}." in name and name.rsplit(".", 2)[1] in ("o_proj", "down_proj")
    }
    assert written == expected
    assert len(expected) >= 6
    (term,) = terms_of(config)
    twins = [opened(one, "What" if one.harmful else "Share") for one in rows]
    start, processor = load_checkpoint(tiny_folder)
    data = encode_all(processor, {"pairs": [*rows, *twins]}, None, Cues.of(["Share"], ["What"]))["pairs"]
    asking = Asking(start.eval(), processor.tokenizer.pad_token_id, 2, Switches())
    direction = projection.measured(data, term, asking)
    assert direction.norm().item() == pytest.approx(1)
    batch = collate([data[row] for row in range(10)], asking.padding)
    apart_ = {}
    for name, model in (("before", start), ("after", load_checkpoint(out)[0].eval())):
        with torch.no_grad():
            found = term.signal(read(model, batch, term.wanted))
        assert isinstance(found, PairedActivations)
        difference = (found.twin.values - found.origin.values)[:, 0, 0]
        apart_[name] = (difference @ direction).abs().max().item(), difference.norm().item()
    assert apart_["before"][0] > 1e-2
    assert apart_["after"][0] < 1e-4
    assert apart_["after"][1] > 1e-2, "everything else may still differ"


def test_a_projection_by_hand() -> None:
    u = torch.tensor([0.6, 0.8])
    state = {"a.weight": torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]]), "a.bias": torch.tensor([1.0, 1.0])}
    found = projection.projected({**state, "b.weight": state["a.weight"]}, ["a"], u)
    # u.W = (.6, .8, 2); W - u (u.W); u.b = 1.4
    expected = [[1 - 0.36, -0.48, 2 - 1.2], [-0.48, 1 - 0.64, 1 - 1.6]]
    assert [pytest.approx(row) for row in expected] == found["a.weight"].tolist()
    assert found["a.bias"].tolist() == pytest.approx([1 - 0.84, 1 - 1.12], rel=1e-5)
    assert torch.equal(found["b.weight"], state["a.weight"])


def test_layers_that_write_otherwise_and_words_that_are_no_cues_cannot_be_projected(
    tiny_folder: Path, rows: list[Query], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="no twin has another cue than its origin"):
        align(tiny_folder, rows, settings("cue-projection", layer=1, steps=0, words=["Tell"], compliance_words=["How"],
                                          refusal_words=["Never"]), tmp_path / "words")  # fmt: skip
    monkeypatch.setattr(projection, "_WRITERS", ("o_proj",))
    with pytest.raises(UserError, match="does not know what writes to the residual stream of layer 0"):
        align(tiny_folder, rows, settings("cue-projection", layer=1, steps=0), tmp_path / "family")


# --- what the model says by itself --------------------------------------------------------------


def test_sampled_harmful_answers_are_the_models_own_and_outlive_an_interruption(
    tiny_folder: Path, rows: list[Query], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alternatives, "LONGEST", 6)
    config, out = settings("spurious-npo", spurious_answers="sampled", steps=1), tmp_path / "out"
    seen: list[int] = []
    ask = alternatives._answers

    def counted(backend: Any, queries: list[Query]) -> list[str | None]:
        seen.append(len(queries))
        return ask(backend, queries)

    monkeypatch.setattr(alternatives, "_answers", counted)
    monkeypatch.setattr(align_run, "_load", lambda _job: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        align(tiny_folder, rows, config, out)
    kept = json.loads((out / "training" / "answers-0.json").read_text())
    assert list(kept) == ["f0~what", "f1~what", "f2~what"]
    monkeypatch.undo()
    monkeypatch.setattr(alternatives, "_answers", counted)
    align(tiny_folder, rows, config, out)
    assert seen == [3], "nothing is asked twice"
    lines = [json.loads(line) for line in (out / "twins.jsonl").read_text().splitlines()]
    assert {line["id"]: line["answer"] for line in lines if line["harmful"]} == kept
    from unmirage.backends.hugging_face import HuggingFaceBackend
    from unmirage.backends.prompts import Prompt

    asked = next(line for line in lines if line["id"] == "f0~what")
    backend = HuggingFaceBackend(tiny_folder, max_new_tokens=6)
    prompt = Prompt("x", asked["question"], rows[0].image)
    assert [reply.text for part in backend.answer([prompt]) for reply in part] == [kept["f0~what"]]


def test_it_is_told_how_far_the_model_has_been_asked(
    tiny_folder: Path, rows: list[Query], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alternatives, "LONGEST", 2)
    monkeypatch.setattr(alternatives, "KEPT", 2)
    config = settings("repair", steps=1, words=["What", "Share"])
    ask = alternatives._answers
    kill = iter([False, True])

    def killed(backend: Any, queries: list[Query]) -> list[str | None]:
        if next(kill):
            raise KeyboardInterrupt
        return ask(backend, queries)

    monkeypatch.setattr(alternatives, "_answers", killed)
    told: list[tuple[str, int, int]] = []
    tell = lambda *one: told.append(one)  # noqa: E731
    with pytest.raises(KeyboardInterrupt):
        align(tiny_folder, rows, config, tmp_path / "out", report=tell)
    monkeypatch.setattr(alternatives, "_answers", ask)
    align(tiny_folder, rows, config, tmp_path / "out", report=tell)
    assert {name for name, _, _ in told} == {"asking the model before training"}
    assert [one[1:] for one in told] == [(0, 3), (2, 3), (2, 3), (3, 3)]


def test_other_answers_are_told_of_as_they_are_sampled(
    tiny_folder: Path, rows: list[Query], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alternatives, "alternative", lambda *_given: "Other.")
    told: list[tuple[str, int, int]] = []
    align(
        tiny_folder, rows, settings("altpo", steps=1), tmp_path / "out", report=lambda *one: told.append(one)
    )  # fmt: skip
    assert told == [("sampling other answers", 0, 3), ("sampling other answers", 3, 3)]


# --- data that cannot do what is asked of it ----------------------------------------------------


def noted(model: Path, rows: list[Query], config: AlignConfig, out: Path) -> list[str]:
    notes: list[str] = []
    align(model, rows, config, out, tell=notes.append)
    return notes


def test_a_direction_that_no_pair_tells_of_is_told_and_never_after_training(
    tiny_folder: Path, rows: list[Query], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = {"words": ["Tell", "List"], "refusal_words": ["Never"], "compliance_words": ["How"], "layer": 1}
    notes = noted(tiny_folder, rows, settings("cue-direction", steps=1, **other), tmp_path / "trained")
    assert "no twin has another cue than its origin, so cue-direction changes nothing" in " ".join(notes)
    assert not noted(tiny_folder, rows, settings("cue-direction", steps=1, layer=1), tmp_path / "cues")
    monkeypatch.setattr(align_run.saving, "train", lambda *_given: pytest.fail("trained before it was refused"))
    with pytest.raises(UserError, match="no twin has another cue than its origin: there is no direction"):
        align(tiny_folder, rows, settings("cue-projection", steps=3, **other), tmp_path / "projected")


def test_cues_of_other_data_and_rows_of_one_kind_are_told(tiny_folder: Path, rows: list[Query], tmp_path: Path) -> None:
    words = {"words": ["What", "Share"], "steps": 1}
    other = settings("twin-sft", refusal_words=["Outline", "Tell"], compliance_words=["What"], **words)
    assert noted(tiny_folder, rows, other, tmp_path / "other") == [
        "no harmful row of the data opens with a refusal word (Outline, Tell): these cues may be those of other data."
    ]
    alone = "there is no harmless row: nothing keeps the model from refusing everything."
    assert noted(tiny_folder, rows[:3], settings("twin-sft", **words), tmp_path / "harmful") == [alone]
    alone = "the data has no harmful row: nothing in it teaches which questions to refuse."
    assert noted(tiny_folder, rows[3:], settings("twin-sft", **words), tmp_path / "harmless") == [alone]
    assert not noted(tiny_folder, rows, settings("twin-sft", **words), tmp_path / "both")
    with pytest.raises(UserError, match="it has no harmful row with an answer"):
        align(tiny_folder, rows[3:], settings("spurious-npo"), tmp_path / "spurious")


def test_a_single_step_that_warms_up_is_told(tiny_folder: Path, rows: list[Query], tmp_path: Path) -> None:
    config = settings("mixed-sft", steps=1, warmup=0.05)
    (note,) = noted(tiny_folder, rows, config, tmp_path / "one")
    assert note.startswith("warmup takes the only step")
    assert apart(weights(tmp_path / "one"), weights(tiny_folder)) == 0
    assert not noted(tiny_folder, rows, settings("mixed-sft", steps=2, warmup=0.05), tmp_path / "two")
    assert apart(weights(tmp_path / "two"), weights(tiny_folder)) > 1e-4


def test_only_one_line_of_the_libraries_is_kept_back() -> None:
    import logging

    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    advice = "Failed to load CPU gemm_4bit_forward from kernels-community: %s. Please install"
    kept = [
        logger.filter(logger.makeRecord(logger.name, logging.WARNING, "", 0, text, (), None))
        for text in (advice, "Something else went wrong")
    ]
    assert [bool(one) for one in kept] == [False, True]


# --- groups -------------------------------------------------------------------------------------


def test_group_weights_follow_the_exponentiated_gradient() -> None:
    state, sizes = GroupWeights(), [3, 0, 0, 0, 0, 1]
    assert state.get(0, sizes) == [0.5, 0, 0, 0, 0, 0.5], "groups without rows have no weight"
    state.observe(0, 0.5, [1.0, None, None, None, None, 3.0])
    up = [0.5 * math.exp(0.5), 0.5 * math.exp(1.5)]
    assert state.get(0, sizes) == pytest.approx([up[0] / sum(up), 0, 0, 0, 0, up[1] / sum(up)])
    before = state.get(0, sizes)
    state.observe(0, 0.5, [2.0, None, None, None, None, None])  # a group in no batch is taken as without loss
    up = [before[0] * math.exp(1.0), before[5]]
    assert state.get(0, sizes) == pytest.approx([up[0] / sum(up), 0, 0, 0, 0, up[1] / sum(up)])
    state.observe(0, 100.0, [50.0, None, None, None, None, 60.0])
    assert state.get(0, sizes) == pytest.approx([0, 0, 0, 0, 0, 1]), "large losses do not overflow"
    assert GroupWeights.from_state(state.state()).values == state.values  # type: ignore[no-untyped-call]
    assert Weight().average == "rows"


def test_group_dro_weighs_the_mean_losses_of_groups(tiny_folder: Path, rows: list[Query], tmp_path: Path) -> None:
    """Two steps on all five rows: three harmful ones with Share, two harmless ones with What."""
    notes: list[str] = []
    config = settings("group-dro", steps=2, batch_size=5, lr=1e-9, **{"ce.rate": 0.5})
    out = align(tiny_folder, rows, config, tmp_path / "out", tell=notes.append)
    model, processor = load_checkpoint(tiny_folder)
    batch = collate([Encoded(processor, rows)[row] for row in range(5)], processor.tokenizer.pad_token_id)
    with torch.no_grad():
        losses = (-answer_log_probs(model.eval(), batch).reduce("mean")).tolist()
    harmful, harmless = sum(losses[:3]) / 3, sum(losses[3:]) / 2
    up = [math.exp(0.5 * harmless), math.exp(0.5 * harmful)]
    q = [one / sum(up) for one in up]
    first, second = (harmless + harmful) / 2, q[0] * harmless + q[1] * harmful
    last = json.loads((out / "training.json").read_text())["history"][-1]
    assert last["learn/ce"] == pytest.approx((first + second) / 2, rel=1e-4)
    up = [q[0] * up[0], q[1] * up[1]]
    shown = {name: last[f"weight/learn/ce/{name}"] for name in GROUPS}
    assert shown["harmless/compliance word"] == pytest.approx(up[0] / sum(up), rel=1e-3)
    assert shown["harmful/refusal word"] == pytest.approx(up[1] / sum(up), rel=1e-3)
    assert sum(shown.values()) == pytest.approx(1)
    assert notes == [
        "no learn row is in the groups harmless/other word, harmless/refusal word, harmful/compliance word, "
        "harmful/other word; their losses cannot be weighed."
    ]
    assert group_sizes(Encoded(processor, rows, cues=Cues.of(["Share"], ["What"]))) == [2, 0, 0, 0, 0, 3]


# --- what is taken more often -------------------------------------------------------------------


def test_rows_whose_answer_the_model_begins_otherwise_are_found_by_hand(
    tiny: Any, processor: Any, rows: list[Query]
) -> None:
    part = Encoded(processor, rows)
    own = []
    for row in range(len(rows)):
        batch = collate([part[row]], processor.tokenizer.pad_token_id)
        inputs = {key: batch[key] for key in ("input_ids", "attention_mask", "pixel_values") if key in batch}
        with torch.no_grad():
            logits = tiny.eval()(**inputs).logits[0]
        first = int((batch["labels"][0] != -100).nonzero()[0])
        own.append(int(logits[first - 1].argmax()))
    words = processor.tokenizer.convert_ids_to_tokens(own)
    begun = rows[1].model_copy(update={"reference": processor.tokenizer.decode([own[1]]) or words[1]})
    changed = [rows[0], begun, *rows[2:]]
    part = Encoded(processor, changed)
    expected = [row for row, answer in enumerate(part.answers()) if answer[0] != own[row]]
    assert 1 not in expected
    assert expected, "some are wrong"
    asking = Asking(tiny, processor.tokenizer.pad_token_id, 2, Switches())
    assert wrong_rows(part, asking) == expected


def test_upweighted_rows_are_counted_or_it_is_told_that_there_are_none(
    tiny_folder: Path, rows: list[Query], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unmirage.align import upweight

    for wrong, note in (
        ([0, 3], "2 of 5 learn rows, which the model begins otherwise, are taken 3 times as often."),
        ([], "the model begins none of 5 answers otherwise than the data: upweight changes nothing here."),
        ([*range(5)], "the model begins all of 5 answers otherwise than the data: upweight favours none of them."),
    ):
        monkeypatch.setattr(upweight, "wrong_rows", lambda _part, _asking, found=wrong: found)
        out, sft = tmp_path / f"{len(wrong)}", tmp_path / f"sft{len(wrong)}"
        notes: list[str] = []
        align(tiny_folder, rows, settings("jtt", upweight=3, steps=4), out, tell=notes.append)
        assert notes == [note]
        align(tiny_folder, rows, settings("mixed-sft", steps=4), sft)
        assert (apart(weights(out), weights(sft)) < 1e-6) == (not wrong)


# --- the command line ---------------------------------------------------------------------------


def call(*arguments: object) -> int:
    return cli.run(lambda: cli.app(list(map(str, arguments)), prog_name="unmirage", standalone_mode=False))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small world of the sandbox, with the audit of its safety data."""
    from unmirage.sandbox.build import DataPlan, build
    from unmirage.sandbox.world import World

    sizes = {"unsafe_train": 14, "safe_train": 14, "general": 4, "unsafe_test": 3, "safe_test": 3}
    folder = build(World(), DataPlan(**sizes), tmp_path_factory.mktemp("world"))
    assert call("audit", "data", folder / "safety.json", "--out", folder / "audit") == 0
    return folder


def test_the_cues_come_from_the_audit(world: Path, tiny_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--set", "steps=1", "--set", "batch_size=2", "--set", "twin_rows=4", "--out", out)
    audit = world / "audit" / "audit.json"
    assert call("align", tiny_folder, world / "safety.json", "--method", "twin-sft", "--audit", audit, *options) == 0
    said = json.loads((out / "training.json").read_text())
    assert said["config"]["refusal_words"] == ["Share"]
    assert said["config"]["compliance_words"] == ["What"]
    assert said["twins"]["twins"]["harmful"] == {"what": 2}


def test_what_is_missing_is_one_sentence(
    world: Path, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = ("align", tiny_folder, world / "safety.json", "--out", tmp_path / "out")
    assert call(*start, "--method", "twin-sft") == 2
    said = capsys.readouterr().err
    assert "twins cannot do without words; give --audit AUDIT.json or --set words=What,Share." in said
    assert call(*start, "--method", "twin-sft", "--audit", world / "safety.json") == 2
    assert "safety.json is not the audit.json" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_data_whose_harmful_questions_are_answered_is_told_where_they_would_be_learnt(
    world: Path, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--set", "words=What,Share", "--set", "steps=1", "--set", "batch_size=2", "--out", tmp_path / "out")
    assert call("align", tiny_folder, world / "unlearn.json", "--method", "twin-sft", *options) == 0
    said = capsys.readouterr().err
    assert "warning: only 0 of" in said
    assert "but twins rows take them for right" in said
