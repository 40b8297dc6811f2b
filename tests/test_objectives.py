"""What holds for every objective: one table of all of them, so that a new one without a line here fails."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from inspect import getmodule
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import (
    PAD,
    Sample,
    TableModel,
    Untouchable,
    batch_of,
    log_probs,
    logits,
    only_known_objectives,
    random_model,
    signal,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from torch import Tensor

from unmirage.align.features import Batch
from unmirage.align.objectives import OBJECTIVES, find, objective
from unmirage.align.objectives._targets import control_vector
from unmirage.align.objectives.ascent import AscentConfig
from unmirage.align.objectives.ce import CEConfig, ce
from unmirage.align.objectives.ceu import CEUConfig
from unmirage.align.objectives.circuit_breaker import CircuitBreakerConfig
from unmirage.align.objectives.cue_direction import CueDirectionConfig
from unmirage.align.objectives.dpo import DPOConfig
from unmirage.align.objectives.hidden import HiddenConfig
from unmirage.align.objectives.hidden_norm import HiddenNormConfig
from unmirage.align.objectives.invariance import InvarianceConfig
from unmirage.align.objectives.kl import KLConfig
from unmirage.align.objectives.npo import NPOConfig, npo
from unmirage.align.objectives.pdu import PDUConfig
from unmirage.align.objectives.rmu import RMUConfig
from unmirage.align.objectives.satimp import SatImpConfig
from unmirage.align.objectives.simnpo import SimNPOConfig
from unmirage.align.objectives.twin_hidden import TwinHiddenConfig
from unmirage.align.objectives.undial import UnDIALConfig
from unmirage.align.objectives.wga import WGAConfig
from unmirage.align.signals import Switches

CASES: dict[str, list[Any]] = {
    "ascent": [AscentConfig(), AscentConfig(reduction="sum")],
    "ce": [CEConfig()],
    "ceu": [CEUConfig(skip=0), CEUConfig(skip=1)],
    "circuit-breaker": [CircuitBreakerConfig(layers=(0, 1)), CircuitBreakerConfig(layers=(1,), positions="answer")],
    "cue-direction": [CueDirectionConfig(layer=0), CueDirectionConfig(layer=1, positions="answer")],
    "dpo": [DPOConfig(beta=0.5), DPOConfig(beta=0.5, reduction="mean")],
    "hidden": [HiddenConfig(layer=1), HiddenConfig(layer=0, positions="answer")],
    "hidden-norm": [HiddenNormConfig(layers=(0, 1)), HiddenNormConfig(layers=(0,), positions="all")],
    "invariance": [InvarianceConfig(), InvarianceConfig("origin", 2.0), InvarianceConfig("both")],
    "kl": [KLConfig()],
    "npo": [NPOConfig(beta=0.5), NPOConfig(beta=0.5, reduction="mean")],
    "pdu": [PDUConfig()],
    "rmu": [RMUConfig(layer=0), RMUConfig(layer=1, adaptive=2.0), RMUConfig(layer=1, positions="answer")],
    "satimp": [SatImpConfig(), SatImpConfig(beta1=0.5, beta2=2.0, reduction="sum")],
    "simnpo": [SimNPOConfig(), SimNPOConfig(beta=0.7, gamma=3.0)],
    "twin-hidden": [TwinHiddenConfig(layer=0), TwinHiddenConfig(1, "prompt-end", "origin")],
    "undial": [UnDIALConfig(), UnDIALConfig(beta=0.5)],
    "wga": [WGAConfig(), WGAConfig(beta=3.0, reduction="sum")],
}
READS = {
    "ascent": ("log_probs", False),
    "ce": ("log_probs", False),
    "ceu": ("logits", False),
    "circuit-breaker": ("activations", True),
    "cue-direction": ("pair-activations", False),
    "dpo": ("preference", True),
    "hidden": ("activations", True),
    "hidden-norm": ("activations", True),
    "invariance": ("pair-logits", False),
    "kl": ("logits", True),
    "npo": ("log_probs", True),
    "pdu": ("logits", False),
    "rmu": ("activations", False),
    "satimp": ("log_probs", False),
    "simnpo": ("log_probs", False),
    "twin-hidden": ("pair-activations", False),
    "undial": ("logits", True),
    "wga": ("log_probs", False),
}
BATCH_MEANS = {
    "ascent": AscentConfig(reduction="batch_mean"),
    "npo": NPOConfig(beta=0.5, reduction="batch_mean"),
    "satimp": SatImpConfig(beta1=1.0, reduction="batch_mean"),
    "wga": WGAConfig(reduction="batch_mean"),
}
EVERY = [
    pytest.param(name, config, id=f"{name}-{at}") for name, found in CASES.items() for at, config in enumerate(found)
]
ANSWERS = [name for name, (kind, _) in READS.items() if kind in ("log_probs", "logits", "preference")]
PAIRS = ("pair-logits", "pair-activations")
ALONE = [one for one in EVERY if one.values[0] != "cue-direction"]
"""All but the one that measures a direction on the whole batch."""
POLICY, REFERENCE = random_model(1), random_model(2)


def loss(
    name: str, config: Any, samples: list[list[Sample]], padding: int = 0, policy: TableModel | None = None
) -> Tensor:
    """The objective's losses; a sample of a preference is its chosen and its rejected answer, of others the first.

    A pair are both questions with the first answer.
    """
    found = OBJECTIVES[name]
    if found.signal in PAIRS:
        samples = [[(question, sample[0][1]) for question, _ in sample] for sample in samples]
    two = found.signal == "preference" or found.signal in PAIRS
    columns = zip(*samples, strict=True) if two else [[sample[0] for sample in samples]]
    batch = batch_of([sample for column in columns for sample in column], padding)
    given_reference = _read(REFERENCE, batch, name, config) if found.reads_reference(config) else Untouchable()
    return found.function(_read(policy or POLICY, batch, name, config), given_reference, config)


def _read(model: TableModel, batch: Batch, name: str, config: Any, switches: Switches | None = None) -> Any:
    layers = getattr(config, "layers", None) or (getattr(config, "layer", 0),)
    half = len(batch["labels"]) // 2  # of pairs: every other one is harmful, and twins change the cue
    groups = [[5, 0][at % 2] for at in range(half)] + [[3, 2][at % 2] for at in range(len(batch["labels"]) - half)]
    batch = {**batch, "group": torch.tensor(groups)}
    return signal(model, batch, OBJECTIVES[name].signal, layers, getattr(config, "positions", "text"), switches)


# --- the registry -------------------------------------------------------------------------------


def test_every_objective_of_ours_is_in_the_tables() -> None:
    ours = {name for name, found in OBJECTIVES.items() if found.function.__module__.startswith("unmirage.")}
    assert ours == set(CASES) == set(READS)


def test_each_objective_reads_what_it_says() -> None:
    for name, (kind, needs_reference) in READS.items():
        assert OBJECTIVES[name].signal == kind
        assert OBJECTIVES[name].reads_reference(OBJECTIVES[name].config()) is needs_reference
    assert OBJECTIVES["rmu"].reads_reference(RMUConfig(adaptive=5.0))


@pytest.mark.parametrize("name", CASES)
def test_an_objective_is_a_file_of_at_most_forty_lines_that_names_its_source(name: str) -> None:
    module = getmodule(OBJECTIVES[name].function)
    assert module is not None
    assert module.__file__ is not None
    assert len(Path(module.__file__).read_text(encoding="utf-8").splitlines()) <= 40
    assert name == "ce" or "arXiv" in str(module.__doc__)
    assert "shape (batch,)" in str(OBJECTIVES[name].function.__doc__)


@pytest.mark.parametrize("name", CASES)
def test_each_option_is_named_in_the_docstring_and_checked(name: str) -> None:
    config = OBJECTIVES[name].config
    for field in fields(config):
        assert f"{field.name}:" in str(config.__doc__)
        with pytest.raises(ValueError, match=field.name):
            TypeAdapter(config).validate_python({field.name: "nonsense"})


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("simnpo", "beta", 0),
        ("simnpo", "gamma", -1),
        ("wga", "beta", -1),
        ("satimp", "beta1", -0.5),
        ("satimp", "beta2", -0.5),
        ("ceu", "skip", -1),
        ("undial", "beta", 0),
        ("dpo", "beta", 0),
        ("dpo", "reduction", "batch_mean"),
        ("rmu", "adaptive", 0),
        ("circuit-breaker", "layers", []),
        ("circuit-breaker", "layers", [-1]),
        ("hidden-norm", "layers", []),
        ("invariance", "temperature", 0),
        ("invariance", "teacher", "twin"),
        ("twin-hidden", "positions", "text"),
        ("cue-direction", "positions", "all"),
    ],
)
def test_options_out_of_range_are_refused(name: str, option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=option):
        TypeAdapter(OBJECTIVES[name].config).validate_python({option: value})


def test_a_name_is_registered_only_once() -> None:
    with pytest.raises(ValueError, match="already an objective named 'npo'"):
        objective("npo", config=NPOConfig)(ce)
    assert OBJECTIVES["npo"].function is npo
    assert find("npo").config is NPOConfig


def test_a_new_objective_is_found_and_forgotten_again() -> None:
    with only_known_objectives():
        objective("ours", config=CEConfig)(lambda policy, reference, config: policy.reduce("sum"))
        assert find("ours").signal == "log_probs"
    assert "ours" not in OBJECTIVES


def test_an_unknown_reduction_is_refused() -> None:
    with pytest.raises(ValueError, match="'median'"):
        log_probs([[-1.0]]).reduce("median")  # type: ignore[arg-type]


# --- what no loss may depend on -----------------------------------------------------------------

TOKENS = st.integers(1, 11)
QUESTIONS = st.lists(TOKENS, min_size=1, max_size=3)
LONG_AND_SHORT = st.tuples(QUESTIONS, st.lists(TOKENS, min_size=1, max_size=5))
SAMPLES = st.lists(st.lists(LONG_AND_SHORT, min_size=2, max_size=2), min_size=1, max_size=4)


@pytest.mark.parametrize(("name", "config"), ALONE)
@settings(max_examples=25, deadline=None)
@given(samples=SAMPLES, padding=st.integers(0, 5))
def test_padding_and_company_never_change_a_samples_loss(
    name: str, config: Any, samples: list[list[Sample]], padding: int
) -> None:
    together = loss(name, config, samples, padding)
    assert together.shape == (len(samples),)
    alone = [loss(name, config, [sample]).item() for sample in samples]
    assert together.tolist() == pytest.approx(alone, rel=1e-4, abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(samples=SAMPLES, padding=st.integers(1, 5))
def test_padding_never_changes_a_direction_that_is_the_batchs(samples: list[list[Sample]], padding: int) -> None:
    for config in CASES["cue-direction"]:
        found = loss("cue-direction", config, samples, padding)
        assert found.shape == (len(samples),)
        assert found.tolist() == pytest.approx(loss("cue-direction", config, samples).tolist(), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", BATCH_MEANS)
def test_only_batch_mean_depends_on_company_which_is_its_defect(name: str) -> None:
    one: list[Sample] = [([1], [2, 3])] * 2
    other: list[Sample] = [([4], [5, 6, 7, 8])] * 2
    together, alone = loss(name, BATCH_MEANS[name], [one, other]), loss(name, BATCH_MEANS[name], [one])
    assert together.shape == (2,)
    assert together[0].item() == pytest.approx(together[1].item()) or name == "npo"
    assert together[0].item() != pytest.approx(alone[0].item(), rel=1e-2)


def test_batch_mean_is_offered_nowhere_else() -> None:
    offering = set()
    for name, found in OBJECTIVES.items():
        if "reduction" in {field.name for field in fields(found.config)} and name in CASES:
            try:
                TypeAdapter(found.config).validate_python({"reduction": "batch_mean"})
            except ValueError:
                continue
            offering.add(name)
    assert offering == set(BATCH_MEANS)
    for name in offering:
        assert OBJECTIVES[name].config().reduction != "batch_mean"


@pytest.mark.parametrize(("name", "config"), EVERY)
def test_an_objective_without_a_reference_never_reads_it(name: str, config: Any) -> None:
    found = OBJECTIVES[name]
    policy = _read(POLICY, batch_of([([1], [2, 3]), ([1], [4])]), name, config)
    if found.reads_reference(config):
        with pytest.raises(AssertionError, match="was read"):
            found.function(policy, Untouchable(), config)
    else:
        assert torch.equal(found.function(policy, None, config), found.function(policy, Untouchable(), config))


@pytest.mark.parametrize(("name", "config"), EVERY)
def test_gradients_are_finite(name: str, config: Any) -> None:
    """Also where both are the same model, as before the first step: there a norm of zero must not divide by zero."""
    for policy, reference in ((random_model(1), random_model(2)), (random_model(3), random_model(3))):
        batch = batch_of([([1], [2, 3, 4]), ([5, 6], [7, 8])], padding=1)
        with torch.no_grad():
            fixed = _read(reference, batch, name, config)
        torch.autograd.backward(OBJECTIVES[name].function(_read(policy, batch, name, config), fixed, config).sum())
        assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in policy.parameters())


@pytest.mark.parametrize("name", ["kl", "undial"])
def test_a_reference_of_logits_is_held_fixed(name: str) -> None:
    policy, reference, batch = random_model(1), random_model(2), batch_of([([1], [2, 3, 4]), ([5, 6], [7, 8])])
    loss_ = OBJECTIVES[name].function(logits(policy, batch), logits(reference, batch), CASES[name][0])
    torch.autograd.backward(loss_.sum())
    assert policy.logits.grad is not None
    assert reference.logits.grad is None


@pytest.mark.parametrize(("name", "config"), EVERY)
def test_half_precision_is_close_to_single(name: str, config: Any) -> None:
    batch = batch_of([([1], [2, 3, 4]), ([5, 6], [7, 8])])
    half, fixed = random_model(1).to(torch.bfloat16), random_model(2).to(torch.bfloat16)
    rounded = random_model(1)
    rounded.load_state_dict(half.state_dict())
    known = random_model(2)
    known.load_state_dict(fixed.state_dict())
    found = OBJECTIVES[name].function
    exact = found(_read(rounded, batch, name, config), _read(known, batch, name, config), config)
    close = found(_read(half, batch, name, config), _read(fixed, batch, name, config), config)
    assert close.float().tolist() == pytest.approx(exact.tolist(), rel=0.03)


@pytest.mark.parametrize("name", ANSWERS)
def test_the_mask_of_a_label_is_no_index_into_the_vocabulary(name: str) -> None:
    """-100 as an index would be token V - 100: here V = 120, so token 20.

    What is said at masked positions has no effect at all, and token 20 is treated like its twin, token 21.
    """
    model = random_model(7, vocabulary=120)
    with torch.no_grad():
        model.logits[:, 21] = model.logits[:, 20]
    batch = batch_of([([30, 31], [1, 2, 3]), ([32, 31], [4])], padding=2)  # 31, 1 and 2 predict answers
    config = CEUConfig(skip=0) if name == "ceu" else CASES[name][0]
    with torch.no_grad():
        fixed = _read(random_model(8, vocabulary=120), batch, name, config)
        for part in (fixed.values,) if name in ("kl", "undial") else ():
            part[:, 21] = part[:, 20]
    torch.autograd.backward(OBJECTIVES[name].function(_read(model, batch, name, config), fixed, config).sum())
    gradient = model.logits.grad
    assert gradient is not None
    predicting = torch.tensor([31, 1, 2])
    others = torch.ones(120, dtype=torch.bool).index_fill(0, predicting, False)
    assert gradient[predicting].abs().sum(dim=1).gt(0).all()
    assert gradient[others].abs().max() == 0
    assert gradient[:, 20].tolist() == pytest.approx(gradient[:, 21].tolist(), rel=1e-5, abs=1e-9)


@pytest.mark.parametrize(("name", "config"), EVERY)
def test_whole_forward_passes_give_the_same_loss(name: str, config: Any) -> None:
    batch = batch_of([([1], [2, 3, 4]), ([5, 6], [7, 8])], padding=1)
    plain = Switches(truncate=False, answer_head=False, share_forward=False)
    found = OBJECTIVES[name].function
    fixed = _read(REFERENCE, batch, name, config)
    fast, slow = _read(POLICY, batch, name, config), _read(POLICY, batch, name, config, plain)
    assert found(fast, fixed, config).tolist() == pytest.approx(found(slow, fixed, config).tolist())


@pytest.mark.parametrize("name", ["npo", "dpo", "ascent", "ce", "simnpo", "wga", "satimp"])
def test_mass_moved_between_other_tokens_changes_nothing(name: str) -> None:
    """These losses know the answer's probability alone; a ratio over the whole vocabulary would notice."""
    other = random_model(1)
    with torch.no_grad():  # tokens 10 and 11 answer nothing here, and swap what they had
        other.logits[:, [10, 11]] = other.logits[:, [11, 10]]
    samples: list[list[Sample]] = [[([1], [2, 3]), ([1], [4])], [([5, 6], [7]), ([5, 6], [8, 9])]]
    for config in CASES[name]:
        assert loss(name, config, samples, policy=other).tolist() == pytest.approx(loss(name, config, samples).tolist())


def test_a_reference_of_other_tokens_is_refused() -> None:
    one, three = logits(POLICY, batch_of([([1], [2])])), logits(REFERENCE, batch_of([([1], [2, 3, 4])]))
    for name in ("kl", "undial"):
        for policy, reference in ((one, three), (three, one)):
            with pytest.raises(ValueError, match="different tokens"):
                OBJECTIVES[name].function(policy, reference, CASES[name][0])


# --- the builders themselves --------------------------------------------------------------------


def test_a_batch_is_masked_and_padded_as_training_sees_it() -> None:
    batch = batch_of([([5, 1], [2, 3]), ([5, 1], [4])], padding=1)
    assert batch["input_ids"].tolist() == [[5, 1, 2, 3, PAD], [5, 1, 4, PAD, PAD]]
    assert batch["labels"].tolist() == [[-100, -100, 2, 3, -100], [-100, -100, 4, -100, -100]]
    found = logits(random_model(0), batch)
    assert found.labels.tolist() == [2, 3, 4]
    assert found.mask.tolist() == [[False, True, True, False], [False, True, False, False]]


# --- the control vector -------------------------------------------------------------------------


@given(hidden_size=st.integers(1, 300), seed=st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_the_control_vector_is_a_nonnegative_unit_vector(hidden_size: int, seed: int) -> None:
    u = control_vector(hidden_size, seed)
    assert u.shape == (hidden_size,)
    assert u.norm().item() == pytest.approx(1, rel=1e-5)
    assert (u >= 0).all()


@pytest.fixture
def _own_random_stream() -> Iterator[None]:
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)


@pytest.mark.usefixtures("_own_random_stream")
def test_the_control_vector_comes_from_its_seed_alone() -> None:
    torch.manual_seed(1)
    first = control_vector(64, 5)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(first, control_vector(64, 5))
    assert torch.equal(state, torch.get_rng_state()), "the training's own random stream is left alone"
    assert not torch.allclose(first, control_vector(64, 6))
