"""Losses of activations against their formulas worked by hand: unequal lengths, padding, several layers."""

from __future__ import annotations

from math import sqrt

import pytest
import torch
from builders import TableModel, activations, batch_of, layered, signal

from unmirage.align.objectives._targets import control_vector
from unmirage.align.objectives.circuit_breaker import CircuitBreakerConfig, circuit_breaker
from unmirage.align.objectives.hidden import HiddenConfig, hidden
from unmirage.align.objectives.hidden_norm import HiddenNormConfig, hidden_norm
from unmirage.align.objectives.rmu import RMUConfig, rmu
from unmirage.align.signals import Activations


def test_rmu_is_the_mean_over_counted_positions_and_features() -> None:
    u = control_vector(2, seed=3).tolist()
    a, b = 2 * u[0], 2 * u[1]
    policy = activations([[[1.0, 0.0], [0.0, 1.0]], [[3.0, 4.0]]])
    # position by position ((h1 - a)^2 + (h2 - b)^2) / 2, then the mean over two positions, and over one
    first = (((1 - a) ** 2 + b**2) / 2 + (a**2 + (1 - b) ** 2) / 2) / 2
    second = ((3 - a) ** 2 + (4 - b) ** 2) / 2
    found = rmu(policy, None, RMUConfig(coefficient=2.0, seed=3))
    assert found.shape == (2,), "lengths of shape (batch, 1) against losses of shape (batch,) would give (batch, batch)"
    assert found.tolist() == pytest.approx([first, second])


def test_adaptive_rmu_takes_each_samples_own_norm_in_the_reference() -> None:
    u = control_vector(2, seed=3).tolist()
    policy = activations([[[1.0, 0.0], [0.0, 1.0]], [[3.0, 4.0]]])
    reference = activations([[[3.0, 4.0], [0.0, 0.0]], [[6.0, 8.0]]], junk=1e4)
    # mean norms (5 + 0)/2 and 10: with scale 2 the target's length is 5 for the first sample, 20 for the second
    first = (((1 - 5 * u[0]) ** 2 + (5 * u[1]) ** 2) / 2 + ((5 * u[0]) ** 2 + (1 - 5 * u[1]) ** 2) / 2) / 2
    second = ((3 - 20 * u[0]) ** 2 + (4 - 20 * u[1]) ** 2) / 2
    found = rmu(policy, reference, RMUConfig(coefficient=1e6, adaptive=2.0, seed=3))
    assert found.shape == (2,)
    assert found.tolist() == pytest.approx([first, second])


def test_hidden_is_the_mean_squared_distance_to_the_reference() -> None:
    policy = activations([[[1.0, 2.0], [0.0, 0.0]], [[5.0, 1.0]]])
    reference = activations([[[0.0, 0.0], [0.0, 2.0]], [[2.0, 1.0]]], junk=-7.0)
    # (1 + 4)/2 and (0 + 4)/2, mean 2.25; (9 + 0)/2 = 4.5
    assert hidden(policy, reference, HiddenConfig()).tolist() == pytest.approx([2.25, 4.5])


def test_hidden_norm_is_the_mean_distance_to_the_reference() -> None:
    lower = activations([[[3.0, 4.0], [0.0, 0.0]], [[5.0, 12.0]]])
    upper = activations([[[0.0, 2.0], [1.0, 0.0]], [[8.0, 0.0]]])
    origin = activations([[[0.0, 0.0]] * 2, [[0.0, 0.0]]], junk=-7.0)
    # distances 5, 0 and 2, 1 in the two layers: mean 2; 13 and 8: mean 10.5
    found = hidden_norm(layered(lower, upper), layered(origin, origin), HiddenNormConfig())
    assert found.tolist() == pytest.approx([2.0, 10.5])


def test_circuit_breaker_is_the_mean_cosine_of_what_still_points_the_same_way() -> None:
    lower = activations([[[2.0, 0.0], [0.0, 5.0]], [[1.0, 1.0]]])
    upper = activations([[[-3.0, 0.0], [4.0, 4.0]], [[0.0, -1.0]]])
    reference = activations([[[7.0, 0.0], [3.0, 0.0]], [[2.0, 0.0]]], junk=-7.0)
    # cosines 1, 0 and -1 (counts as 0), 1/sqrt 2: mean (1 + 1/sqrt 2)/4; then 1/sqrt 2 and 0
    found = circuit_breaker(layered(lower, upper), layered(reference, reference), CircuitBreakerConfig())
    assert found.tolist() == pytest.approx([(1 + 1 / sqrt(2)) / 4, 1 / sqrt(2) / 2])


def test_positions_decide_what_counts() -> None:
    """Question 1, 2 with a picture's placeholder 3 between them, answer 4; after it padding, whose norm is 1e4."""
    states = torch.zeros(1, 5, 2)
    states[0, :, 0] = torch.tensor([1e4, 1.0, 2.0, 60.0, 7.0])
    batch = batch_of([([1, 3, 2], [4])], padding=2)
    batch["image_mask"] = batch["input_ids"] == 3
    for positions, expected in (("answer", 7.0), ("text", 10 / 3), ("all", 17.5)):
        policy = signal(TableModel(torch.zeros(5, 5), states), batch, "activations", (0,), positions)  # type: ignore[arg-type]
        origin = signal(TableModel(torch.zeros(5, 5), 0 * states), batch, "activations", (0,), positions)  # type: ignore[arg-type]
        assert isinstance(policy, Activations)
        assert isinstance(origin, Activations)
        assert hidden_norm(policy, origin, HiddenNormConfig(layers=(0,))).tolist() == pytest.approx([expected])


def test_the_layers_read_are_those_named_in_their_order() -> None:
    states = torch.tensor([[[0.0], [1.0], [1.0]], [[0.0], [10.0], [10.0]], [[0.0], [100.0], [100.0]]])
    batch = batch_of([([1], [2])])
    policy = signal(TableModel(torch.zeros(3, 3), states), batch, "activations", (2, 0))
    origin = signal(TableModel(torch.zeros(3, 3), 0 * states), batch, "activations", (2, 0))
    assert isinstance(policy, Activations)
    assert isinstance(origin, Activations)
    assert policy.values[0, :, 0, 0].tolist() == [100.0, 1.0]
    assert hidden_norm(policy, origin, HiddenNormConfig(layers=(2, 0))).tolist() == pytest.approx([50.5])


# --- which way they push ------------------------------------------------------------------------


def test_rmu_is_least_at_the_control_vector_and_hidden_at_the_reference() -> None:
    config = RMUConfig(coefficient=5.0, seed=1)
    target = (5.0 * control_vector(3, 1)).tolist()
    there, beyond = activations([[target]]), activations([[[value * 1.1 for value in target]]])
    assert rmu(there, None, config).item() == pytest.approx(0, abs=1e-10)
    assert rmu(beyond, None, config).item() > 0
    assert hidden(there, there, HiddenConfig()).item() == 0
    assert hidden(beyond, there, HiddenConfig()).item() > 0
    assert hidden_norm(there, there, HiddenNormConfig()).item() == 0
    assert hidden_norm(beyond, there, HiddenNormConfig()).item() == pytest.approx(0.5, rel=1e-5)


def test_a_circuit_breaker_turns_away_and_lets_go_at_right_angles() -> None:
    gradients = []
    for now in ([1.0, 1.0], [0.0, 1.0], [-1.0, 0.1]):
        policy = activations([[now]])
        policy.values.requires_grad_()
        loss = circuit_breaker(policy, activations([[[1.0, 0.0]]]), CircuitBreakerConfig())
        torch.autograd.backward(loss.sum())
        assert policy.values.grad is not None
        gradients.append(policy.values.grad[0, 0, 0].tolist())
    assert gradients[0][0] > 0, "descent takes away what points along the reference"
    assert gradients[0][1] < 0
    assert gradients[1:] == [[0.0, 0.0], [0.0, 0.0]]


def test_a_distance_pulls_as_hard_from_afar_as_from_near() -> None:
    pulls = []
    for distance in (0.5, 50.0):
        policy = activations([[[distance, 0.0]]])
        policy.values.requires_grad_()
        torch.autograd.backward(hidden_norm(policy, activations([[[0.0, 0.0]]]), HiddenNormConfig()).sum())
        assert policy.values.grad is not None
        pulls.append(policy.values.grad[0, 0, 0].tolist())
    assert pulls == [pytest.approx([1.0, 0.0])] * 2
