"""Every way to compute less gives the gradients that computing all gives; and it does compute less.

Equality is bit for bit wherever the same sums are formed in the same order. Where they are not, `ORDER` is the
tolerance, relative to the norm of each parameter's gradient: float32 has a relative rounding of 6e-8, and a sum of a
few thousand terms in another order differs by some tens of that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unmirage.align import AlignConfig, references
from unmirage.align import run as align_run
from unmirage.align.batches import Encoded, collate_roles
from unmirage.align.caching import Keys, frozen_place, references_for, use_features
from unmirage.align.features import stored_tower
from unmirage.align.parts import prepare
from unmirage.align.references import AdapterOff, Asking, Reference
from unmirage.align.signals import Switches, Wanted, captured, read
from unmirage.align.terms import Term, terms_of, wanted_by
from unmirage.align.trainer import AlignTrainer
from unmirage.backends.checkpoint import load_checkpoint
from unmirage.schema import Query

Gradients = dict[str, Tensor]
ORDER = 1e-5
CASES: dict[str, dict[str, Any]] = {
    "rmu": {"method": "rmu", "train": "layers"},
    "rmu + ce": {"method": "rmu", "retain": ["hidden", "ce"], "train": "layers"},
    "npo": {"method": "npo"},
    "npo + ce + kl": {"method": "npo", "retain": ["ce", "kl"]},
    "dpo": {"method": "dpo"},
}


class Bench:
    """A fresh copy of the tiny model, its data, and the gradients of one step after it has moved from its start."""

    def __init__(self, folder: Path, queries: Mapping[str, list[Query]], scratch: Path, case: str, **settings: Any):
        given = {"layer": 3} if case.startswith("rmu") else {}
        self.config = AlignConfig(**{"batch_size": 2, **given, **CASES[case], **settings})
        self.model, processor = load_checkpoint(folder)
        self.start, _ = load_checkpoint(folder)
        torch.manual_seed(2)
        self.model = prepare(self.model, self.config)
        self.data = {role: Encoded(processor, queries[role]) for role in self.config.roles()}
        self.terms, self.pad = terms_of(self.config), processor.tokenizer.pad_token_id
        switches = Switches(self.config.truncate, self.config.answer_head, self.config.share_forward)
        self.asking = Asking(self.model, self.pad, 2, switches)
        self.keys, self.scratch = Keys(scratch, "start"), scratch

    def features(self) -> str:
        assert use_features(self.data, self.asking, self.keys) is None
        found = frozen_place(self.model)
        assert found is not None
        return found

    def references(self) -> dict[str, Reference]:
        return references_for(self.terms, self.data, self.asking, self.keys, self.config)

    def second_copy(self) -> dict[str, Reference]:
        """The plain way: another model."""
        needing = {role: [one for one in self.terms if one.role == role and one.needs_reference] for role in self.data}
        return {role: SecondCopy(self.start.eval(), terms) for role, terms in needing.items() if terms}

    def move(self) -> None:
        """As training does: at the start policy and reference agree, and losses that compare them have no gradient."""
        torch.manual_seed(3)
        with torch.no_grad():
            for parameter in self.model.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter), alpha=0.02)

    def batch(self) -> dict[str, Any]:
        def sample(role: str, part: Encoded, row: int) -> Any:
            return [part[row], part[len(part) // 2 + row]] if role == "preference" else part[row]

        samples = [{role: sample(role, part, row) for role, part in self.data.items()} for row in range(2)]
        return collate_roles(samples, self.pad)

    def gradients(self, given: Mapping[str, Reference]) -> Gradients:
        trainer = AlignTrainer(
            model=self.model,
            args=align_run.arguments(self.config, self.scratch),
            terms=self.terms,
            references=given,
            ids={role: [query.id for query in part.queries] for role, part in self.data.items()},
            switches=self.asking.switches,
        )
        self.model.train()
        trainer.compute_loss(self.model, self.batch()).backward()
        found = {name: p.grad.clone() for name, p in self.model.named_parameters() if p.grad is not None}
        return {name: gradient for name, gradient in found.items() if gradient.any()}


class SecondCopy:
    """A reference that is another model, read without any technique."""

    def __init__(self, model: Any, terms: Sequence[Term]) -> None:
        self.model, self.terms = model, terms

    @torch.no_grad()
    def outputs(self, _model: Any, batch: Any) -> Callable[[Term], Any]:
        found = read(self.model, batch, wanted_by(self.terms), Switches(False, False, False))
        return lambda term: term.signal(found)


Make = Callable[..., Bench]


@pytest.fixture
def bench(tiny_folder: Path, forget: list[Query], retain: list[Query], tmp_path: Path) -> Make:
    """`bench(case, **settings)`; all of one test keep what they store in the same place."""
    better = [one.model_copy(update={"reference": "I will not describe that."}) for one in forget]
    queries = {"forget": forget, "retain": retain, "preference": [*better, *forget]}
    return lambda case, **settings: Bench(tiny_folder, queries, tmp_path, case, **settings)


def after_training(one: Bench, given: Mapping[str, Reference] | None = None) -> Gradients:
    given = one.references() if given is None else given
    one.move()
    return one.gradients(given)


def assert_equal(found: Gradients, expected: Gradients, tolerance: float = 0.0) -> None:
    assert found.keys() == expected.keys()
    assert expected
    largest = max(value.norm().item() for value in expected.values())
    assert largest > 1e-3, "gradients of nothing would be equal too"
    for name, value in expected.items():
        if tolerance:
            # A gradient that is zero but for rounding, such as a key bias's, is compared with the others' size.
            assert (found[name] - value).norm().item() <= tolerance * (value.norm().item() + 1e-3 * largest), name
        else:
            assert torch.equal(found[name], value), name


# --- switches ---------------------------------------------------------------------------------


@pytest.mark.parametrize("tune", ["full", "lora"])
@pytest.mark.parametrize(
    ("switch", "case", "tolerance"),
    [
        # The layers above add nothing, not even another order.
        ("truncate", "rmu", 0.0),
        ("truncate", "rmu + ce", 0.0),
        # The head's gradients are sums over fewer rows, formed in other blocks.
        ("answer_head", "rmu + ce", ORDER),
        ("answer_head", "npo", ORDER),
        ("answer_head", "npo + ce + kl", ORDER),
        ("answer_head", "dpo", ORDER),
        # Two terms' gradients are added at an activation, not at each parameter.
        ("share_forward", "rmu + ce", ORDER),
        ("share_forward", "npo + ce + kl", ORDER),
    ],
)
def test_a_switch_changes_no_gradient(bench: Make, case: str, tune: str, switch: str, tolerance: float) -> None:
    with_, without = (after_training(bench(case, tune=tune, **{switch: on})) for on in (True, False))
    assert_equal(with_, without, tolerance)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("tune", ["full", "lora"])
def test_all_techniques_together_equal_the_plain_way(bench: Make, case: str, tune: str) -> None:
    plain = bench(case, tune=tune, truncate=False, answer_head=False, share_forward=False)
    expected = after_training(plain, plain.second_copy())
    fast = bench(case, tune=tune)
    fast.features()
    assert_equal(after_training(fast), expected, ORDER)


@pytest.mark.parametrize("case", ["rmu", "rmu + ce", "npo"])
@pytest.mark.parametrize("tune", ["full", "lora"])
def test_checkpointing_changes_no_gradient_and_asks_for_none_of_the_inputs(bench: Make, case: str, tune: str) -> None:
    recomputed = bench(case, tune=tune, checkpointing=True)
    kept = after_training(bench(case, tune=tune))
    calls = counted(recomputed.model.get_decoder().layers)
    assert_equal(after_training(recomputed), kept)  # the same operations again, so bit for bit
    assert not recomputed.model.get_encoder(modality="image").embeddings.patch_embedding._forward_hooks
    assert not recomputed.model.get_input_embeddings()._forward_hooks
    assert calls["number 0"] > 0


def test_with_checkpointing_layers_below_the_trained_ones_are_not_run_again(bench: Make) -> None:
    one = bench("rmu", checkpointing=True)  # trains 1, 2 and 3
    given = one.references()
    runs: Counter[int] = Counter()
    for number, layer in enumerate(one.model.get_decoder().layers):
        layer.input_layernorm.register_forward_hook(lambda *_args, number=number: runs.update([number]))
    one.move()
    one.gradients(given)
    assert dict(runs) == {0: 2, 1: 4, 2: 4, 3: 4}, "forget and retain once forward; trained layers once more"


# --- image features ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "train", "place"),
    [
        ("rmu", "layers", "projected"),
        ("rmu + ce", "layers", "projected"),
        ("npo", "language", "projected"),
        ("npo", "decoder", "tower"),
        ("dpo", "decoder", "tower"),
    ],
)
def test_stored_image_features_change_no_gradient_and_the_tower_is_not_run(
    bench: Make, case: str, train: str, place: str
) -> None:
    expected = after_training(bench(case, train=train))
    stored = bench(case, train=train)
    assert stored.features() == place
    given = stored.references()
    stored.move()
    calls = counted(stored.model.get_encoder(modality="image").modules())
    # Features are computed one picture at a time, and matrix products of another size sum in other blocks.
    assert_equal(stored.gradients(given), expected, ORDER)
    tower_itself = 1 if place == "tower" else 0  # it is asked, and answers from what is stored
    assert len([name for name, count in calls.items() if count]) == tower_itself


def test_image_features_are_stored_once_for_all_runs_from_the_same_start(bench: Make) -> None:
    bench("npo", train="language").features()
    again = bench("dpo", train="language")
    calls = counted([again.model.get_encoder(modality="image").embeddings])
    again.features()
    probes = 2  # the proof that stored features give the pixels' logits looks at some pictures again, for each role
    assert calls["number 0"] == probes


def test_the_towers_own_forward_comes_back_after_an_exception(bench: Make) -> None:
    one = bench("npo", train="decoder")
    assert one.features() == "tower"
    tower, batch = one.model.get_encoder(modality="image"), one.batch()["forget"]
    own = tower.forward
    with stored_tower(one.model, batch):
        assert tower.forward != own
    assert tower.forward == own
    with breaking(one.model.get_decoder().layers[2]), pytest.raises(RuntimeError, match="broken"):
        read(one.model, batch, Wanted(answers=True))
    assert tower.forward == own
    assert "tower_states" in batch


# --- references -------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", ["stored", "adapter"])
def test_a_reference_without_a_second_copy_gives_the_second_copys_gradients(bench: Make, case: str, kind: str) -> None:
    copied, ours = bench(case, tune="lora"), bench(case, tune="lora", reference=kind)
    expected = after_training(copied, copied.second_copy())
    # Stored signals were computed in batches of other widths; the adapter's are compared with a read of all positions.
    assert_equal(after_training(ours), expected, ORDER)


@pytest.mark.parametrize("case", CASES)
def test_a_stored_reference_gives_the_second_copys_gradients_in_full_training(bench: Make, case: str) -> None:
    copied = bench(case)
    expected = after_training(copied, copied.second_copy())
    assert_equal(after_training(bench(case)), expected, ORDER)


def test_the_adapter_is_on_again_after_an_exception(bench: Make) -> None:
    one = bench("npo", tune="lora", reference="adapter")
    one.move()
    batch = one.batch()["forget"]
    with torch.no_grad():
        before = read(one.model, batch, Wanted(answers=True)).logits
        with breaking(one.model.get_decoder().layers[2]), pytest.raises(RuntimeError, match="broken"):
            AdapterOff(one.terms[:1], Switches()).outputs(one.model, batch)
        after = read(one.model, batch, Wanted(answers=True)).logits
        AdapterOff(one.terms[:1], Switches()).outputs(one.model, batch)
        once_more = read(one.model, batch, Wanted(answers=True)).logits
    assert before is not None
    assert after is not None
    assert once_more is not None
    assert torch.equal(before.values, after.values)
    assert torch.equal(before.values, once_more.values)


def test_stored_references_are_valid_for_another_instance_and_not_computed_again(bench: Make) -> None:
    first = bench("npo + ce + kl")
    given = first.references()
    again = bench("npo + ce + kl")
    again.move()  # whatever its weights are by now
    calls = counted([again.model])
    found = again.references()
    assert calls["number 0"] == 0
    for role, terms in (("forget", first.terms[:1]), ("retain", [t for t in first.terms if t.needs_reference][-1:])):
        batch = first.batch()[role]
        for term in terms:
            one, other = (each[role].outputs(first.model, batch)(term).values for each in (given, found))
            assert torch.equal(one, other)
            assert one.any()


def test_a_killed_computation_of_references_goes_on(
    bench: Make, forget: list[Query], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(references, "FILE_ROWS", 2)
    one = bench("npo")
    with stopping(one.model, after=1), pytest.raises(KeyboardInterrupt):  # two rows are asked; the third is not
        one.references()
    folder = next(one.scratch.glob("reference-*"))
    assert len(list(folder.glob("*.safetensors"))) == 1
    (folder / "000001-2.123.part").write_bytes(b"half")  # what a kill in the middle of writing leaves
    again = bench("npo")
    calls = counted([again.model])
    found = again.references()
    assert calls["number 0"] == 1, "only the last row"
    batch = again.batch()["forget"]
    whole = bench("npo")
    whole.keys = Keys(whole.scratch / "whole", "start")
    for reference in (found, whole.references()):
        values = reference["forget"].outputs(again.model, batch)(again.terms[0]).values
        with torch.no_grad():
            expected = again.terms[0].signal(read(again.start.eval(), batch, Wanted(answers=True)))
        assert torch.allclose(values, expected.values, atol=1e-5)


@pytest.mark.parametrize(
    ("case", "change"),
    [
        ("npo", "data"),
        ("npo", "model"),
        ("npo", "max_length"),
        ("npo", "dtype"),
        ("rmu", "layer"),
        ("rmu", "positions"),
    ],
)
def test_references_of_other_data_model_layer_or_precision_are_computed_anew(
    bench: Make, case: str, change: str, tiny_folder: Path, forget: list[Query], retain: list[Query], tmp_path: Path
) -> None:
    bench(case).references()
    before = {folder.name for folder in tmp_path.glob("reference-*")}
    settings: dict[str, Any] = {"layer": {"layer": 2}, "positions": {"positions": "all"}}.get(change, {})
    settings |= {"max_length": 1000} if change == "max_length" else {}
    other = bench(case, **settings)
    if change == "data":
        changed = [forget[0].model_copy(update={"reference": "Something else."}), *forget[1:]]
        other = Bench(tiny_folder, {"forget": changed, "retain": retain}, tmp_path, case)
    if change == "model":
        other.keys = Keys(tmp_path, "another")
    if change == "dtype":
        other.asking = Asking(other.model, other.pad, 2, Switches(), dtype="bfloat16")
    calls = counted([other.model])
    other.references()
    assert calls["number 0"] > 0
    after = {folder.name for folder in tmp_path.glob("reference-*")}
    assert before < after
    assert len(after) == len(before) + 1


# --- less is computed, and everything is put back -----------------------------------------------


def test_what_a_step_runs(bench: Make) -> None:
    for switches, expected in (
        ({}, {0: 2, 3: 2, 4: 1, 5: 1}),  # retain's two terms share a pass; forget ends after layer 3
        ({"share_forward": False}, {0: 3, 3: 3, 4: 1, 5: 1}),
        ({"share_forward": False, "truncate": False}, {0: 3, 3: 3, 4: 3, 5: 3}),
    ):
        one = bench("rmu + ce", **switches)
        given = one.references()
        calls = counted(one.model.get_decoder().layers)
        one.gradients(given)
        assert {layer: calls[f"number {layer}"] for layer in expected} == expected


@pytest.mark.parametrize("answer_head", [True, False])
def test_only_answer_positions_pass_the_output_head(bench: Make, answer_head: bool) -> None:
    one = bench("npo", answer_head=answer_head)
    given = one.references()
    rows: list[int] = []
    head = one.model.get_output_embeddings()
    head.register_forward_hook(lambda _module, inputs, _output: rows.append(inputs[0].shape[:-1].numel()))
    batch = one.batch()
    one.gradients(given)
    answers = [int((part["labels"][:, 1:] != -100).sum()) for part in batch.values()]
    everything = [part["labels"].numel() for part in batch.values()]
    assert rows == (answers if answer_head else everything)
    assert sum(answers) < sum(everything) / 2


def test_no_cache_of_keys_and_values_is_kept_for_a_continuation_that_never_comes(bench: Make) -> None:
    one = bench("npo")
    seen: list[Any] = []
    one.model.get_decoder().register_forward_hook(lambda _module, _inputs, output: seen.append(output.past_key_values))
    read(one.model, one.batch()["forget"], Wanted(answers=True))
    assert seen == [None]


@pytest.mark.parametrize("wanted", [Wanted(layers=frozenset({1, 3})), Wanted(True, frozenset({1}))])
def test_layers_are_whole_and_hooks_gone_after_a_layer_fails(bench: Make, wanted: Wanted) -> None:
    one = bench("rmu")
    decoder = one.model.get_decoder()
    whole = decoder.layers
    with breaking(whole[1]):
        hooks = {layer: len(layer._forward_hooks) for layer in whole}
        with pytest.raises(RuntimeError, match="broken"):
            read(one.model, one.batch()["retain"], wanted)
        assert {layer: len(layer._forward_hooks) for layer in whole} == hooks
    assert decoder.layers is whole
    assert len(whole) == 6
    with pytest.raises(ValueError, match="layers 0 to 5"), captured(one.model, frozenset({0, 9})):
        pass
    assert not any(layer._forward_hooks for layer in whole)


def counted(modules: Any) -> Counter[str]:
    """Counts the calls of each module, by its number."""
    calls: Counter[str] = Counter()
    for number, module in enumerate(modules):
        module.register_forward_pre_hook(lambda *_args, number=number: calls.update([f"number {number}"]))
    return calls


@contextmanager
def breaking(module: Any) -> Iterator[None]:
    """The module fails when it is called."""

    def fail(*_args: Any) -> None:
        raise RuntimeError("broken")

    hook = module.register_forward_pre_hook(fail)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def stopping(module: Any, after: int) -> Iterator[None]:
    """Ctrl-C at the call after so many."""
    calls = iter(range(after))

    def stop(*_args: Any) -> None:
        if next(calls, None) is None:
            raise KeyboardInterrupt

    hook = module.register_forward_pre_hook(stop)
    try:
        yield
    finally:
        hook.remove()
