"""Signals, batches and whole alignments on a tiny real LLaVA with images."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor, TrainerCallback

from unmirage.align import AlignConfig, align, caching, on_step
from unmirage.align import run as align_run
from unmirage.align.batches import Encoded, Paired, collate, collate_roles
from unmirage.align.caching import Keys, references_for
from unmirage.align.data import rows_of
from unmirage.align.encode import encode
from unmirage.align.objectives import OBJECTIVES
from unmirage.align.objectives.npo import NPOConfig
from unmirage.align.parts import prepare
from unmirage.align.references import Asking, Reference, stored
from unmirage.align.saving import last_checkpoint
from unmirage.align.signals import (
    AnswerLogProbs,
    Switches,
    answer_log_probs,
    layer_activations,
    positions_mask,
    read,
    truncated,
)
from unmirage.align.terms import Term, terms_of
from unmirage.align.trainer import AlignTrainer
from unmirage.backends.checkpoint import load_checkpoint, revision
from unmirage.errors import UserError
from unmirage.schema import Query

Batcher = Callable[..., dict[str, Any]]
Weights = dict[str, Tensor]


def model_inputs(batch: dict[str, Any]) -> dict[str, Any]:
    return {key: batch[key] for key in ("input_ids", "attention_mask", "pixel_values") if key in batch}


# --- signals ----------------------------------------------------------------------------------


def test_answer_log_probs_are_the_full_forwards_gathered_one_position_earlier(
    tiny: Any, batch_of: Batcher, forget: list[Query], processor: Any
) -> None:
    batch = batch_of(*forget)
    assert len(set(batch["attention_mask"].sum(dim=1).tolist())) == 3, "the samples must differ in length"
    assert (batch["input_ids"] == processor.tokenizer.pad_token_id).any()
    with torch.no_grad():
        found = answer_log_probs(tiny, batch)
        full = tiny(**model_inputs(batch)).logits.log_softmax(dim=-1)
    for row, labels in enumerate(batch["labels"]):
        answer = [t for t in range(len(labels)) if labels[t] != -100]
        by_hand = [full[row, t - 1, labels[t]].item() for t in answer]
        assert found.values[row][found.mask[row]].tolist() == pytest.approx(by_hand, abs=1e-5)
        same_position = [full[row, t, labels[t]].item() for t in answer]
        assert same_position != pytest.approx(by_hand, abs=1e-2), "the test would not notice an off-by-one"
    assert found.values.shape == found.mask.shape == (3, batch["labels"].shape[1] - 1)
    assert (found.values[~found.mask] == 0).all()


def test_answer_log_probs_carry_the_full_forwards_gradient(tiny: Any, batch_of: Batcher, forget: list[Query]) -> None:
    batch = batch_of(*forget)
    answer_log_probs(tiny, batch).values.sum().backward()  # type: ignore[no-untyped-call]
    few = {name: p.grad.clone() for name, p in tiny.named_parameters() if p.grad is not None}
    tiny.zero_grad()
    logits, labels = tiny(**model_inputs(batch)).logits[:, :-1], batch["labels"][:, 1:]
    (-torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")).backward()  # type: ignore[no-untyped-call]
    for name, parameter in tiny.named_parameters():
        if parameter.grad is not None:
            assert torch.allclose(few[name], parameter.grad, atol=1e-3, rtol=1e-3), name
    assert "model.vision_tower.embeddings.patch_embedding.weight" in few, "the images must reach the model"


@pytest.mark.parametrize("layer", [0, 2])
def test_truncated_activations_and_gradients_equal_the_full_forwards(
    tiny: Any, batch_of: Batcher, forget: list[Query], layer: int
) -> None:
    batch = batch_of(*forget)
    short = layer_activations(tiny, batch, layer, "all").values[:, 0]
    short.pow(2).mean().backward()  # type: ignore[no-untyped-call]
    truncated_grads = {name: p.grad.clone() for name, p in tiny.named_parameters() if p.grad is not None}
    tiny.zero_grad()
    full = tiny(**model_inputs(batch), output_hidden_states=True).hidden_states[layer + 1]
    full.pow(2).mean().backward()
    assert torch.equal(short, full)
    full_grads = {name: p.grad for name, p in tiny.named_parameters() if p.grad is not None and p.grad.any()}
    assert f"model.language_model.layers.{layer}.mlp.down_proj.weight" in full_grads
    assert not any(f"layers.{layer + 1}." in name and "language_model" in name for name in truncated_grads)
    for name, gradient in full_grads.items():
        assert torch.allclose(truncated_grads[name], gradient, atol=1e-8, rtol=1e-5), name


def test_the_layers_above_are_not_run(tiny: Any, batch_of: Batcher, forget: list[Query]) -> None:
    ran: list[int] = []
    for number, layer in enumerate(tiny.get_decoder().layers):
        layer.register_forward_hook(lambda *_args, number=number: ran.append(number))
    layer_activations(tiny, batch_of(*forget), 2, "text")
    assert ran == [0, 1, 2]


def test_layers_are_whole_and_hooks_gone_after_success_and_after_an_exception(
    tiny: Any, batch_of: Batcher, forget: list[Query]
) -> None:
    whole, batch = tiny.get_decoder().layers, batch_of(*forget)
    layer_activations(tiny, batch, 1, "text")
    broken = {**batch, "pixel_values": batch["pixel_values"][:1]}  # fewer pictures than the prompts ask for
    with pytest.raises(ValueError, match=r"[Ii]mage"):
        layer_activations(tiny, broken, 1, "text")
    assert tiny.get_decoder().layers is whole
    assert len(whole) == 6
    assert not any(layer._forward_hooks for layer in whole)

    def fail_inside() -> None:
        with truncated(tiny, 0) as last:
            assert last is whole[0]
            assert len(tiny.get_decoder().layers) == 1
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail_inside()
    assert tiny.get_decoder().layers is whole


@pytest.mark.parametrize("layer", [6, -1])
def test_a_layer_that_does_not_exist_is_refused(tiny: Any, batch_of: Batcher, forget: list[Query], layer: int) -> None:
    with pytest.raises(ValueError, match="layers 0 to 5"):
        layer_activations(tiny, batch_of(*forget), layer, "text")


def test_position_masks_leave_out_image_tokens_and_padding(
    batch_of: Batcher, forget: list[Query], processor: Any
) -> None:
    batch = batch_of(*forget)
    ids, image, pad = batch["input_ids"], processor.image_token_id, processor.tokenizer.pad_token_id
    text = positions_mask(batch, "text")
    assert ((ids == image).sum(dim=1) == 16).all()
    assert torch.equal(text, (ids != image) & (ids != pad))
    assert torch.equal(positions_mask(batch, "all"), ids != pad)
    assert torch.equal(positions_mask(batch, "answer"), batch["labels"] != -100)
    assert (positions_mask(batch, "answer") & ~text).sum() == 0
    with pytest.raises(ValueError, match="'prompt'"):
        positions_mask(batch, "prompt")  # type: ignore[arg-type]


@pytest.mark.parametrize("positions", ["answer", "text", "all"])
def test_batching_real_samples_changes_neither_signal(
    tiny: Any, batch_of: Batcher, forget: list[Query], positions: Any
) -> None:
    rmu, config = OBJECTIVES["rmu"], OBJECTIVES["rmu"].config(coefficient=1.0, positions=positions)
    with torch.no_grad():
        together = rmu.function(layer_activations(tiny, batch_of(*forget), 2, positions), None, config)
        alone = [rmu.function(layer_activations(tiny, batch_of(q), 2, positions), None, config) for q in forget]
        sums = answer_log_probs(tiny, batch_of(*forget)).reduce("sum")
        sums_alone = [answer_log_probs(tiny, batch_of(query)).reduce("sum") for query in forget]
    assert together.shape == sums.shape == (3,)
    assert together.tolist() == pytest.approx([one.item() for one in alone], rel=1e-4)
    assert sums.tolist() == pytest.approx([one.item() for one in sums_alone], rel=1e-4)


# --- batches ----------------------------------------------------------------------------------


@pytest.mark.parametrize("with_image", [True, False])
def test_the_answer_mask_decodes_to_the_answer(processor: Any, forget: list[Query], with_image: bool) -> None:
    for query in forget:
        asked = query if with_image else query.model_copy(update={"image": None})
        sample = encode(processor, asked)
        kept = sample["labels"][sample["labels"] != -100]
        assert processor.tokenizer.decode(kept) == f"{query.reference}</s>", "the answer and the end that closes it"
        assert ("pixel_values" in sample) == with_image
        assert sample["image_mask"].sum() == (16 if with_image else 0)
        before = processor.tokenizer.decode(sample["input_ids"][sample["labels"] == -100])
        assert before.endswith("<assistant>")
        assert query.question in before


def test_the_mask_agrees_with_the_templates_own_generation_tags(processor: Any, forget: list[Query]) -> None:
    from unmirage.backends.prompts import Prompt, open_image, turns

    prompt = Prompt.of(forget[0])
    chat = turns(prompt, forget[0].reference)
    chat[0]["content"][0]["image"] = open_image(prompt)
    options = {"tokenize": True, "return_dict": True, "return_assistant_tokens_mask": True, "return_tensors": "pt"}
    tagged = processor.apply_chat_template(chat, **options)
    sample = encode(processor, forget[0])
    assert torch.equal(tagged["input_ids"][0], sample["input_ids"])
    assert torch.equal(torch.as_tensor(tagged["assistant_masks"])[0].bool(), sample["labels"] != -100)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        # the prompt ends in a mark that the whole conversation does not have
        ("{% for m in messages %}{{ m['content'][-1]['text'] }}{% endfor %}{% if add_generation_prompt %}!{% endif %}",
         "not the beginning"),
        # a prefix, but what follows is not the answer alone
        ("{% for m in messages %}<user>{{ m['content'][-1]['text'] }}{% endfor %}. The end.", "not the beginning"),
        ("{% for m in messages %}{% if m['role'] == 'assistant' %}So: {% endif %}"
         "{{ m['content'][-1]['text'] }}{% endfor %}", "not its answer"),
    ],
)  # fmt: skip
def test_a_template_whose_answer_cannot_be_found_is_refused(
    processor: Any, forget: list[Query], monkeypatch: pytest.MonkeyPatch, template: str, message: str
) -> None:
    monkeypatch.setattr(processor, "chat_template", template)
    query = forget[0].model_copy(update={"image": None})
    with pytest.raises(UserError, match=f"'f0'.*{message}|{message}.*'f0'"):
        encode(processor, query)


@pytest.mark.parametrize("reference", [None, "", "  "])
def test_a_row_without_an_answer_is_refused(processor: Any, forget: list[Query], reference: str | None) -> None:
    with pytest.raises(UserError, match="'f0' has no answer"):
        encode(processor, forget[0].model_copy(update={"reference": reference}))


def test_an_unreadable_image_is_refused_by_its_name(processor: Any, forget: list[Query], tmp_path: Path) -> None:
    good = forget[0].image
    assert good is not None
    data = bytearray(good.read_bytes())
    data[data.index(b"IDAT") + 4 :] = b"\xff" * 40  # a header that is fine and pixels that are not
    for name, content in (("text.png", b"no picture"), ("empty.png", b""), ("cut.png", bytes(data))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name}.*'f0' cannot be read"):
            encode(processor, forget[0].model_copy(update={"image": tmp_path / name}))
    with pytest.raises(UserError, match=r"absent\.png.*'f0' cannot be read"):
        encode(processor, forget[0].model_copy(update={"image": tmp_path / "absent.png"}))


def test_collate_pads_on_the_right_with_each_keys_own_fill() -> None:
    def sample(length: int, row: int) -> dict[str, Any]:
        ids = torch.arange(10, 10 + length)
        return {
            "input_ids": ids,
            "attention_mask": torch.ones(length, dtype=torch.long),
            "token_type_ids": torch.ones(length, dtype=torch.long),
            "labels": ids.clone(),
            "image_mask": torch.ones(length, dtype=torch.bool),
            "pixel_values": torch.full((1, 3, 2, 2), float(row)),
            "row": row,
        }

    batch = collate([sample(2, 4), sample(3, 9)], padding=7)
    assert batch["input_ids"].tolist() == [[10, 11, 7], [10, 11, 12]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert batch["token_type_ids"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert batch["labels"].tolist() == [[10, 11, -100], [10, 11, 12]]
    assert batch["image_mask"].tolist() == [[True, True, False], [True, True, True]]
    assert batch["pixel_values"].shape == (2, 3, 2, 2)
    assert batch["pixel_values"][:, 0, 0, 0].tolist() == [4, 9]
    assert batch["row"].tolist() == [4, 9]


@pytest.mark.parametrize("text_first", [True, False])
def test_rows_with_and_without_an_image_share_a_batch(
    tiny: Any, batch_of: Batcher, forget: list[Query], text_first: bool
) -> None:
    rows = [forget[0].model_copy(update={"image": None}), forget[1]]
    rows = rows if text_first else rows[::-1]
    batch = batch_of(*rows)
    assert batch["pixel_values"].shape[0] == 1
    with torch.no_grad():
        together = answer_log_probs(tiny, batch).reduce("sum")
        alone = [answer_log_probs(tiny, batch_of(row)).reduce("sum").item() for row in rows]
    assert together.tolist() == pytest.approx(alone, rel=1e-4)


class Numbers:
    """Stands for encoded queries: sample i is i."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, row: int) -> int:
        if not 0 <= row < self.size:
            raise IndexError(row)
        return row


def paired(seed: int, **sizes: int) -> Paired:
    return Paired({role: Numbers(size) for role, size in sizes.items()}, seed)  # type: ignore[misc]


def test_pairs_never_run_dry_and_cover_every_part() -> None:
    pairs = paired(0, forget=20, retain=6)
    assert len(pairs) == 20
    drawn: list[Any] = [pairs[i] for i in range(len(pairs))]
    assert sorted(pair["forget"] for pair in drawn) == list(range(20))
    short = [pair["retain"] for pair in drawn]
    assert set(Counter(short).values()) == {3, 4}, "each is used as often as any other, give or take one"
    rounds = [short[at : at + 6] for at in range(0, 18, 6)]
    assert all(sorted(one) == list(range(6)) for one in rounds)
    assert len(set(map(tuple, rounds))) > 1, "the shorter part begins anew in another order"


def test_pairs_come_from_the_seed() -> None:
    orders = [[tuple(paired(seed, a=9, b=4)[i].values()) for i in range(9)] for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


def test_a_part_without_samples_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="retain"):
        paired(0, forget=3, retain=0)


# --- what is trained --------------------------------------------------------------------------

# Unused by this model's forward at all: the pooled output's norm, and in the last vision layer nothing else.
UNUSED = {"model.vision_tower.post_layernorm.weight", "model.vision_tower.post_layernorm.bias"}


def config(method: str, **settings: Any) -> AlignConfig:
    usual: dict[str, Any] = {"steps": 1, "lr": 1e-2, "batch_size": 2, "warmup": 0.0, "save_steps": 100}
    usual |= {"layer": 3, "coefficient": 5.0} if method == "rmu" else {}
    usual |= {"trained_layers": (1, 2, 3)} if settings.get("train") == "layers" and method != "rmu" else {}
    return AlignConfig(**{"method": method, **usual, **settings})


def weights(folder: Path) -> Weights:
    return load_file(folder / "model.safetensors")


def changed(before: Weights, after: Weights) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def language_layers(names: set[str], *numbers: int) -> set[str]:
    return {name for name in names for n in numbers if name.startswith(f"language_model.model.layers.{n}.")} | {
        name for name in names for n in numbers if name.startswith(f"model.language_model.layers.{n}.")
    }


def expected_names(names: set[str], method: str, train: str) -> set[str]:
    """Written out by hand, by name: what one step of a method may and must change."""
    vision = {name for name in names if "vision_tower" in name}
    projector = {name for name in names if "multi_modal_projector" in name}
    embeddings = {name for name in names if "embed_tokens" in name}
    below = language_layers(names, 0, 1, 2, 3)
    if train == "layers":
        # `rmu` reads layer 3 only; the other losses read the end, through the three layers that may change.
        return language_layers(names, 1, 2, 3)
    unused = {name for name in vision if "post_layernorm" in name}
    tower = vision - unused if train == "all" else set()
    if method == "rmu":
        return tower | projector | embeddings | below
    return tower | (names - vision)


@pytest.mark.parametrize("train", ["decoder", "all", "layers"])
@pytest.mark.parametrize("method", ["mixed-sft", "npo", "rmu"])
def test_one_step_changes_exactly_the_parameters_that_it_should(
    tiny_folder: Path, forget: list[Query], retain: list[Query], tmp_path: Path, method: str, train: str
) -> None:
    out = align(tiny_folder, [*forget, *retain], config(method, train=train), tmp_path / "out")
    before, after = weights(tiny_folder), weights(out)
    names = set(before)
    assert len(names) > 100
    found = changed(before, after)
    expected = expected_names(names, method, train)
    # The key bias shifts all of a query's scores alike, so its gradient is zero but for rounding.
    exempt = {name for name in names if name.endswith("k_proj.bias")}
    assert found - exempt == expected - exempt
    assert found <= expected


@pytest.mark.parametrize(
    ("train", "frozen"),
    [
        ("decoder", ["vision_tower"]),
        ("all", []),
        ("layers", ["vision_tower", "projector", "embed_tokens", "norm.weight"]),
    ],
)
def test_what_is_outside_gets_no_gradient(
    tiny: Any, batch_of: Batcher, forget: list[Query], train: str, frozen: list[str]
) -> None:
    prepare(tiny, config("npo", train=train))
    answer_log_probs(tiny, batch_of(*forget)).values.sum().backward()  # type: ignore[no-untyped-call]
    with_grad = {name for name, p in tiny.named_parameters() if p.grad is not None}
    assert with_grad == {name for name, p in tiny.named_parameters() if p.requires_grad} - UNUSED
    if train == "layers":
        assert with_grad == language_layers({name for name, _ in tiny.named_parameters()}, 1, 2, 3)
    assert not any(part in name for part in frozen[:1] for name in with_grad)
    assert any("language_model.layers.3" in name for name in with_grad)


def test_the_first_layers_are_trained_where_the_chosen_one_is_low(tiny: Any) -> None:
    prepare(tiny, config("rmu", train="layers", layer=1))
    names = {name for name, p in tiny.named_parameters() if p.requires_grad}
    assert names == language_layers({name for name, _ in tiny.named_parameters()}, 0, 1)


# --- references -------------------------------------------------------------------------------


def asking(model: Any, processor: Any, batch_size: int = 2) -> Asking:
    return Asking(model, processor.tokenizer.pad_token_id, batch_size, Switches())


def test_npos_reference_is_the_untouched_start_model(
    tiny: Any, processor: Any, forget: list[Query], batch_of: Batcher, tiny_folder: Path, tmp_path: Path
) -> None:
    term = terms_of(config("npo"))[0]
    built = stored([term], Encoded(processor, forget), asking(tiny, processor), tmp_path, "key")
    with torch.no_grad():  # training moves the policy; the reference must not follow
        for parameter in tiny.parameters():
            parameter.mul_(1.1)
    start, _ = load_checkpoint(tiny_folder)
    batch = batch_of(*forget[::-1])
    batch["row"] = torch.tensor([2, 1, 0])  # another order and another padding than the reference was made with
    with torch.no_grad():
        policy, untouched = answer_log_probs(tiny, batch), answer_log_probs(start.eval(), batch)
        found = built.outputs(tiny, batch)(term)
    assert isinstance(found, AnswerLogProbs)
    assert torch.allclose(found.values[policy.mask], untouched.values[policy.mask], atol=1e-4)
    assert not torch.allclose(policy.values, untouched.values, atol=1e-1)
    loss = OBJECTIVES["npo"].function(untouched, found, NPOConfig(beta=0.1))
    assert loss.tolist() == pytest.approx([20 * 0.693147] * 3, rel=1e-3), "equal models: -(2/beta) log(1/2)"


def test_a_reference_of_activations_is_the_start_models_too(
    tiny: Any, processor: Any, retain: list[Query], batch_of: Batcher, tmp_path: Path
) -> None:
    term = terms_of(config("rmu"))[1]
    reference = stored([term], Encoded(processor, retain), asking(tiny, processor, 1), tmp_path, "key")
    batch = batch_of(*retain[::-1])
    batch["row"] = torch.tensor([1, 0])
    with torch.no_grad():
        policy = term.signal(read(tiny, batch, term.wanted))
    loss = term.objective.function(policy, reference.outputs(tiny, batch)(term), term.config)
    assert loss.tolist() == pytest.approx([0, 0], abs=1e-9)


@pytest.mark.parametrize(("method", "built"), [("mixed-sft", []), ("npo", ["forget"]), ("rmu", ["retain"])])
def test_a_reference_is_built_only_where_one_is_needed(
    tiny_folder: Path,
    forget: list[Query],
    retain: list[Query],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    built: list[str],
) -> None:
    made: list[str] = []

    def counted(terms: Sequence[Term], *args: Any) -> Reference:
        made.extend(term.role for term in terms)
        return stored(terms, *args)

    monkeypatch.setattr(caching, "stored", counted)
    align(tiny_folder, [*forget, *retain], config(method), tmp_path / "out")
    assert made == built


def test_the_loss_is_the_weighted_sum_of_its_terms(
    tiny: Any, processor: Any, forget: list[Query], retain: list[Query], tmp_path: Path
) -> None:
    setting = config("npo", forget_weight=0.5, retain_weight=3.0, beta=0.4, reduction="mean")
    data = {"forget": Encoded(processor, forget[:2]), "retain": Encoded(processor, retain)}
    pad = processor.tokenizer.pad_token_id
    ask = asking(tiny, processor)
    trainer = AlignTrainer(
        model=tiny,
        args=align_run.arguments(setting, tmp_path),
        terms=terms_of(setting),
        references=references_for(terms_of(setting), data, ask, Keys(tmp_path, "start"), setting),
        ids={role: [query.id for query in part.queries] for role, part in data.items()},
    )
    batch = collate_roles([{role: part[i] for role, part in data.items()} for i in range(2)], pad)
    with torch.no_grad():
        loss = trainer.compute_loss(tiny, batch)
        retained = -answer_log_probs(tiny, batch["retain"]).reduce("mean").mean()
    # equal policy and reference: -(2/0.4) log(1/2) for each forget sample
    assert loss.item() == pytest.approx(0.5 * 5 * 0.693147 + 3.0 * retained.item(), rel=1e-4)


# --- whole runs -------------------------------------------------------------------------------


class Snapshots(TrainerCallback):  # type: ignore[misc]
    """Keeps one named parameter after each step."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.kept: list[Tensor] = []

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.kept.append(dict(model.named_parameters())[self.name].detach().clone())


class StopAt(TrainerCallback):  # type: ignore[misc]
    """Interrupts as Ctrl-C does, in the callback after a step that was saved."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step >= self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("method", "train"), [("rmu", "layers"), ("npo", "decoder")])
def test_learning_goes_on_in_later_epochs_where_retain_is_shorter(
    tiny_folder: Path, forget: list[Query], retain: list[Query], tmp_path: Path, method: str, train: str
) -> None:
    watch = Snapshots("model.language_model.layers.2.mlp.down_proj.weight")
    setting = config(method, steps=6, batch_size=2, train=train, lr=1e-3)  # three rows: two steps an epoch
    align(tiny_folder, [*forget, retain[0]], setting, tmp_path / "out", callbacks=[watch])
    moves = [(b - a).abs().max().item() for a, b in zip(watch.kept, watch.kept[1:], strict=False)]
    assert len(moves) == 5
    assert all(move > 1e-6 for move in moves)


@pytest.mark.parametrize(("method", "train"), [("npo", "decoder"), ("rmu", "layers"), ("mixed-sft", "all")])
def test_an_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one(
    tiny_folder: Path, forget: list[Query], retain: list[Query], tmp_path: Path, method: str, train: str
) -> None:
    queries = [*forget, *retain]
    setting = config(method, steps=5, save_steps=1, lr=1e-3, train=train, weight_decay=0.01, warmup=0.2)
    whole = align(tiny_folder, queries, setting, tmp_path / "whole")
    cut = tmp_path / "cut"
    for step in (1, 3):  # in the middle of one epoch, and at the end of another
        with pytest.raises(KeyboardInterrupt):
            align(tiny_folder, queries, setting, cut, callbacks=[StopAt(step)])
        assert (cut / "training" / f"checkpoint-{step}").is_dir()
        assert not (cut / "training.json").exists()
    seen: list[tuple[int, int]] = []
    align(tiny_folder, queries, setting, cut, callbacks=[on_step(lambda done, total: seen.append((done, total)))])
    assert seen == [(3, 5), (4, 5), (5, 5)]
    one, other = weights(whole), weights(cut)
    worst = max((one[name] - other[name]).abs().max().item() for name in one)
    assert worst < 1e-6
    assert changed(weights(tiny_folder), other)
    assert not (cut / "training").exists()
    assert revision(whole) == revision(cut), "how often it was interrupted is no part of a model's identity"


def test_a_step_that_was_cut_off_while_it_was_saved_does_not_count(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path) is None
    for step in (9, 10, 11):
        (tmp_path / f"checkpoint-{step}").mkdir()
    (tmp_path / "checkpoint-9" / "trainer_state.json").write_text("{}")
    (tmp_path / "checkpoint-10" / "trainer_state.json").write_text("{}")
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")


def test_the_result_loads_with_the_auto_classes_and_says_how_it_was_made(
    tiny_folder: Path, forget: list[Query], retain: list[Query], tmp_path: Path
) -> None:
    out = align(tiny_folder, forget, config("npo"), tmp_path / "out", general=retain)
    model = AutoModelForImageTextToText.from_pretrained(out)
    loaded = dict(model.named_parameters())["model.language_model.layers.0.mlp.down_proj.weight"]
    assert any(torch.equal(loaded, value) for value in weights(out).values())
    processor = AutoProcessor.from_pretrained(out)
    assert processor.chat_template == AutoProcessor.from_pretrained(tiny_folder).chat_template
    assert encode(processor, forget[0])["input_ids"].tolist()
    said = json.loads((out / "training.json").read_text())
    assert said["schema"] == 1
    assert said["config"]["method"] == "npo"
    assert said["history"][-1]["step"] == 1
    assert not list(out.rglob("*.bin"))
    assert not list(out.rglob("*.pt"))


def test_a_run_that_is_done_is_left_as_it_is(
    tiny_folder: Path, retain: list[Query], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = align(tiny_folder, retain, config("mixed-sft"), tmp_path / "out")
    stamp = (out / "model.safetensors").stat().st_mtime_ns
    monkeypatch.setattr(align_run, "_train", lambda *_: pytest.fail("trained again"))
    assert align(tiny_folder, retain, config("mixed-sft"), out) == out
    assert (out / "model.safetensors").stat().st_mtime_ns == stamp


def test_another_configuration_or_other_data_in_the_same_folder_are_refused(
    tiny_folder: Path, retain: list[Query], tmp_path: Path
) -> None:
    out = align(tiny_folder, retain, config("mixed-sft"), tmp_path / "out")
    with pytest.raises(UserError, match=r"lr is 0\.01 there and 0\.02 here"):
        align(tiny_folder, retain, config("mixed-sft", lr=0.02), out)
    with pytest.raises(UserError, match=r"inputs\.data"):
        align(tiny_folder, retain[:1], config("mixed-sft"), out)
    with pytest.raises(UserError, match=r"inputs\.model"):
        align(out, retain, config("mixed-sft"), out)


def test_sft_trains_on_everything_and_unlearning_splits_by_harm(forget: list[Query], retain: list[Query]) -> None:
    general = [retain[1]]
    queries = [forget[0], retain[0], forget[1]]

    def ids(method: str) -> dict[str, list[str]]:
        return {
            role: [q.id for q in rows]
            for role, rows in rows_of(config(method), queries, general, [], lambda _rows: []).items()
        }

    assert ids("mixed-sft") == {"learn": ["f0", "r0", "f1", "r1"]}
    assert ids("npo") == ids("rmu") == {"forget": ["f0", "f1"], "retain": ["r0", "r1"]}


def refusal_of(model: Path, queries: Sequence[Query], setting: AlignConfig, out: Path) -> str:
    with pytest.raises(UserError) as caught:
        align(model, queries, setting, out)
    return str(caught.value)


def test_what_cannot_be_trained_is_said_in_a_sentence(
    tiny_folder: Path, forget: list[Query], retain: list[Query], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert "forget set is empty" in refusal_of(tiny_folder, retain, config("npo"), out)
    assert "retain set is empty" in refusal_of(tiny_folder, forget, config("rmu"), out)
    assert "learn set is empty" in refusal_of(tiny_folder, [], config("mixed-sft"), out)
    silent = retain[0].model_copy(update={"reference": None})
    assert "'r0' has no answer" in refusal_of(tiny_folder, [*forget, silent], config("npo"), out)
    lost = retain[0].model_copy(update={"image": tmp_path / "lost.png"})
    assert "lost.png" in refusal_of(tiny_folder, [*forget, lost], config("npo"), out)
    message = refusal_of(tiny_folder, [*forget, *retain], config("rmu", layer=6), out)
    assert "layer 6 does not exist" in message
    assert "layers 0 to 5" in message
    assert not out.exists(), "all of that is known before anything is written"


def test_a_folder_that_is_no_checkpoint_is_refused(tiny_folder: Path, retain: list[Query], tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(tiny_folder, bare)
    (bare / "processor_config.json").unlink()
    message = refusal_of(bare, retain, config("mixed-sft"), tmp_path / "out")
    assert "processor_config.json" in message
    assert str(bare) in message
    assert "nowhere does not exist" in refusal_of(tmp_path / "nowhere", retain, config("mixed-sft"), tmp_path / "out2")


@pytest.mark.parametrize(
    "wrong",
    [{"method": "none"}, {"lr": 0}, {"steps": 0}, {"warmup": 1}, {"beta": 0}, {"layer": -1}, {"learning_rate": 1e-3}],
)
def test_a_setting_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises((ValueError, UserError), match=next(iter(wrong))):
        AlignConfig(**{"method": "mixed-sft", **wrong})
