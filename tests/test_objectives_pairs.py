"""Losses of a question and its one-word twin, worked by hand: unequal lengths, teachers, directions."""

from __future__ import annotations

from math import exp, log

import pytest
import torch
from builders import PAD, TableModel, activations, batch_of, signal, table

from unmirage.align.objectives._targets import CueSums
from unmirage.align.objectives.cue_direction import CueDirectionConfig, cue_direction
from unmirage.align.objectives.invariance import InvarianceConfig, invariance
from unmirage.align.objectives.twin_hidden import TwinHiddenConfig, twin_hidden
from unmirage.align.signals import (
    Activations,
    AnswerLogits,
    PairedActivations,
    PairedLogits,
    halves_of_activations,
    halves_of_logits,
    positions_mask,
)


def kl(p: list[float], q: list[float]) -> float:
    return sum(a * log(a / b) for a, b in zip(p, q, strict=True))


def softened(p: list[float], temperature: float) -> list[float]:
    raised = [a ** (1 / temperature) for a in p]
    return [a / sum(raised) for a in raised]


def logits_of(rows: list[list[list[float]]], labels: list[list[int]], before: int) -> AnswerLogits:
    """Each row's distributions, one for each answer token, after `before` positions of a question."""
    mask = torch.zeros(len(rows), before + max(map(len, rows)), dtype=torch.bool)
    for at, row in enumerate(rows):
        mask[at, before : before + len(row)] = True
    values = torch.tensor([p for row in rows for p in row]).log() + 3.0  # a shift of all logits says nothing
    return AnswerLogits(values, torch.tensor([token for row in labels for token in row]), mask)


# Two pairs, of two tokens and of one; answers are token 0. The origin is right in the first, the twin in the second.
P = [[[0.8, 0.2], [0.5, 0.5]], [[0.3, 0.7]]]
Q = [[[0.4, 0.6], [0.25, 0.75]], [[0.9, 0.1]]]
LABELS = [[0, 0], [0]]


def paired() -> PairedLogits:
    """The twins' questions are longer than the origins'."""
    return PairedLogits(logits_of(P, LABELS, 1), logits_of(Q, LABELS, 3))


THERE = [(kl(P[0][0], Q[0][0]) + kl(P[0][1], Q[0][1])) / 2, kl(P[1][0], Q[1][0])]
BACK = [(kl(Q[0][0], P[0][0]) + kl(Q[0][1], P[0][1])) / 2, kl(Q[1][0], P[1][0])]


def test_invariance_pulls_towards_the_side_on_which_the_answer_is_likelier() -> None:
    found = invariance(paired(), None, InvarianceConfig())
    assert found.shape == (2,)
    assert found.tolist() == pytest.approx([THERE[0], BACK[1]])


def test_invariance_with_the_origin_as_teacher_and_with_none() -> None:
    assert invariance(paired(), None, InvarianceConfig("origin")).tolist() == pytest.approx(THERE)
    both = [(there + back) / 2 for there, back in zip(THERE, BACK, strict=True)]
    assert invariance(paired(), None, InvarianceConfig("both")).tolist() == pytest.approx(both)


def test_temperature_softens_both_sides_and_scales_by_its_square() -> None:
    first = [kl(softened(p, 2), softened(q, 2)) for p, q in zip(P[0], Q[0], strict=True)]
    expected = [4 * sum(first) / 2, 4 * kl(softened(P[1][0], 2), softened(Q[1][0], 2))]
    assert invariance(paired(), None, InvarianceConfig("origin", 2.0)).tolist() == pytest.approx(expected)


@pytest.mark.parametrize(("teacher", "held"), [("right", [True, False]), ("origin", [True, True]), ("both", [])])
def test_the_teacher_gets_no_gradient(teacher: str, held: list[bool]) -> None:
    pairs = paired()
    for side in (pairs.origin, pairs.twin):
        side.values.requires_grad_()
    torch.autograd.backward(invariance(pairs, None, InvarianceConfig(teacher)).sum())  # type: ignore[arg-type]
    origin, twin = pairs.origin.values.grad, pairs.twin.values.grad
    assert origin is not None or teacher == "origin"
    assert twin is not None
    moved = [False] * 2 if origin is None else [bool(origin[:2].any()), bool(origin[2:].any())]
    assert moved == [not one for one in held] or (teacher == "both" and all(moved))
    assert [bool(twin[:2].any()), bool(twin[2:].any())] == (held or [True, True])


def test_equal_predictions_cost_nothing() -> None:
    same = PairedLogits(logits_of(P, LABELS, 1), logits_of(P, LABELS, 2))
    for teacher in ("right", "origin", "both"):
        found = invariance(same, None, InvarianceConfig(teacher))  # type: ignore[arg-type]
        assert found.tolist() == pytest.approx([0, 0], abs=1e-6)


# --- parting a batch ----------------------------------------------------------------------------


def test_logits_are_parted_by_answer_token_whatever_the_questions_length() -> None:
    """Token 4 is followed by probabilities 1/4, 3/4, token 5 by 1/2, 1/2; the answer 5, 1 stands at other places."""
    model = TableModel(table({4: [-9.0, log(1.0), 0, 0, 0, log(3.0)], 5: [-9.0, 0, 0, 0, 0, 0]}, 6))
    batch = batch_of([([3, 4], [5, 1]), ([4], [5]), ([2, 3, 3, 4], [5, 1]), ([3, 3, 4], [5])], padding=2)
    pairs = signal(model, batch, "pair-logits")
    assert isinstance(pairs, PairedLogits)
    assert pairs.origin.labels.tolist() == pairs.twin.labels.tolist() == [5, 1, 5]
    assert torch.equal(pairs.origin.values, pairs.twin.values)
    assert pairs.origin.mask.sum(dim=1).tolist() == pairs.twin.mask.sum(dim=1).tolist() == [2, 1]


def test_an_answer_that_is_cut_shorter_is_compared_as_far_as_it_goes() -> None:
    both = AnswerLogits(
        torch.arange(14.0).view(7, 2),
        torch.tensor([1, 2, 3, 4, 1, 2, 4]),
        torch.tensor([[0, 1, 1, 1], [1, 0, 0, 0], [0, 0, 1, 1], [0, 1, 0, 0]], dtype=torch.bool),
    )
    pairs = halves_of_logits(both)
    assert pairs.origin.labels.tolist() == pairs.twin.labels.tolist() == [1, 2, 4]
    assert pairs.origin.values[:, 0].tolist() == [0, 2, 6]
    assert pairs.twin.values[:, 0].tolist() == [8, 10, 12]
    assert pairs.origin.mask.tolist() == [[False, True, True, False], [True, False, False, False]]


def test_activations_are_parted_by_position_among_those_that_count() -> None:
    values = torch.arange(4 * 5, dtype=torch.float).view(4, 1, 5, 1)
    mask = torch.tensor([[0, 1, 1, 0, 0], [1, 0, 0, 0, 0], [0, 0, 1, 1, 1], [0, 0, 0, 1, 0]], dtype=torch.bool)
    pairs = halves_of_activations(Activations(values, mask), torch.tensor([5, 0, 3, 2]))
    assert pairs.origin.values[0, 0, :, 0].tolist() == [1, 2]
    assert pairs.twin.values[0, 0, :, 0].tolist() == [12, 13], "the third position has no counterpart"
    assert (pairs.origin.values[1, 0, 0, 0].item(), pairs.twin.values[1, 0, 0, 0].item()) == (5, 18)
    assert pairs.origin.mask.tolist() == pairs.twin.mask.tolist() == [[True, True], [True, False]]
    assert pairs.groups is not None
    assert [part.tolist() for part in pairs.groups] == [[5, 0], [3, 2]]


def test_the_end_of_the_prompt_is_the_position_before_the_answer() -> None:
    batch = batch_of([([3, 4, 5], [1, 2]), ([3], [1])], padding=1)
    assert positions_mask(batch, "prompt-end").tolist() == [
        [False, False, True, False, False, False],
        [True, False, False, False, False, False],
    ]
    assert batch["input_ids"][1, 2] == PAD


# --- activations --------------------------------------------------------------------------------


def test_twin_hidden_is_the_mean_squared_distance_between_the_two() -> None:
    origin = activations([[[1.0, 2.0], [0.0, 0.0]], [[5.0, 1.0]]])
    twin = activations([[[0.0, 0.0], [0.0, 2.0]], [[2.0, 1.0]]], junk=-7.0)
    # (1 + 4)/2 and (0 + 4)/2, mean 2.25; (9 + 0)/2
    assert twin_hidden(PairedActivations(origin, twin), None, TwinHiddenConfig()).tolist() == pytest.approx([2.25, 4.5])


@pytest.mark.parametrize(("teacher", "moves"), [("origin", False), ("both", True)])
def test_the_origin_is_held_fixed_as_a_teacher(teacher: str, moves: bool) -> None:
    origin, twin = activations([[[1.0, 2.0]]]), activations([[[0.0, 0.0]]])
    origin.values.requires_grad_()
    twin.values.requires_grad_()
    found = twin_hidden(PairedActivations(origin, twin), None, TwinHiddenConfig(teacher=teacher))  # type: ignore[arg-type]
    torch.autograd.backward(found.sum())
    assert twin.values.grad is not None
    assert (origin.values.grad is not None) == moves


def direction(pairs: PairedActivations) -> torch.Tensor:
    return CueSums.of(pairs).direction()


def four() -> PairedActivations:
    """Harm is along the first axis. A refusal word adds 2 along the second, and 1 along the first besides.

    Harmful rows go from a refusal word to another word, from one to a compliance word; harmless ones to a refusal word.
    """
    origin = activations([[[5.0, 2.0, 0.0]], [[5.0, 2.0, 1.0]], [[0.0, 0.0, 0.0]], [[0.0, 0.0, 1.0]]])
    twin = activations([[[4.0, 0.0, 0.0]], [[4.0, 0.0, 1.0]], [[1.0, 2.0, 0.0]], [[1.0, 2.0, 1.0]]])
    return PairedActivations(origin, twin, (torch.tensor([5, 5, 0, 0]), torch.tensor([4, 3, 2, 2])))


def test_the_direction_of_a_cue_leaves_out_that_of_harm() -> None:
    assert direction(four()).tolist() == [pytest.approx([0, 1, 0], abs=1e-6)]


def test_cue_direction_counts_what_lies_along_the_direction_alone() -> None:
    assert cue_direction(four(), None, CueDirectionConfig()).tolist() == pytest.approx([4, 4, 4, 4])
    other = four()
    other.twin.values[0, 0, 0, 2] += 7.0  # these two cancel each other in all means
    other.twin.values[1, 0, 0, 2] -= 7.0
    other.twin.values[3, 0, 0, 1] += 1.0
    found = cue_direction(other, None, CueDirectionConfig()).tolist()
    d = direction(other)[0].tolist()
    changes = [[-1, -2, 7], [-1, -2, -7], [1, 2, 0], [1, 3, 0]]
    assert found == pytest.approx([sum(a * b for a, b in zip(d, one, strict=True)) ** 2 for one in changes])
    assert d[2] == pytest.approx(0, abs=1e-6)
    assert d[1] > 0.99


def test_without_harmless_rows_nothing_is_left_out_of_the_direction() -> None:
    pairs = four()
    assert pairs.groups is not None
    origin, twin = (Activations(part.values[:2], part.mask[:2]) for part in (pairs.origin, pairs.twin))
    found = direction(PairedActivations(origin, twin, (pairs.groups[0][:2], pairs.groups[1][:2])))
    assert found.tolist() == [pytest.approx([1 / 5**0.5, 2 / 5**0.5, 0])]


def test_a_pair_whose_cue_does_not_change_has_no_say_and_none_gives_no_direction() -> None:
    pairs = four()
    assert pairs.groups is not None
    pairs.twin.values[0] = 1e3
    same = (pairs.groups[0], torch.tensor([5, 3, 2, 2]))
    others = PairedActivations(pairs.origin, pairs.twin, same)
    assert direction(others)[0, 1].item() > 0.1
    none = PairedActivations(pairs.origin, pairs.twin, (pairs.groups[0], pairs.groups[0]))
    assert direction(none).tolist() == [[0, 0, 0]]
    assert cue_direction(none, None, CueDirectionConfig()).tolist() == [0, 0, 0, 0]


def test_the_direction_is_held_fixed_and_the_batch_must_tell_groups() -> None:
    pairs = four()
    pairs.twin.values.requires_grad_()
    torch.autograd.backward(cue_direction(pairs, None, CueDirectionConfig()).sum())
    assert pairs.twin.values.grad is not None
    assert pairs.twin.values.grad[0, 0, 0].tolist() == pytest.approx([0, -4, 0], abs=1e-5), "2 d.(t - o) d, d fixed"
    with pytest.raises(ValueError, match="without groups"):
        cue_direction(PairedActivations(pairs.origin, pairs.twin), None, CueDirectionConfig())


def test_kl_by_hand_is_what_it_should_be() -> None:
    assert kl([0.5, 0.5], [0.25, 0.75]) == pytest.approx(0.5 * log(2) + 0.5 * log(2 / 3))
    assert softened([exp(2.0) / (1 + exp(2.0)), 1 / (1 + exp(2.0))], 2)[0] == pytest.approx(exp(1) / (1 + exp(1)))


def test_sums_of_several_batches_are_those_of_all_together() -> None:
    pairs = four()
    assert pairs.groups is not None
    parts = []
    for rows in ([0], [1, 2], [3]):
        sides = [Activations(part.values[rows], part.mask[rows]) for part in (pairs.origin, pairs.twin)]
        parts.append(CueSums.of(PairedActivations(*sides, (pairs.groups[0][rows], pairs.groups[1][rows]))))
    whole = parts[0] + parts[1] + parts[2]
    assert whole.pairs == CueSums.of(pairs).pairs == (2, 2)
    assert torch.allclose(whole.direction(), direction(pairs))
