"""Every loss against its formula worked by hand, with answers of unequal length; and what no loss may depend on."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, log, log1p

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from unmirage.align.objectives import OBJECTIVES, objective
from unmirage.align.objectives.ce import CEConfig, ce
from unmirage.align.objectives.hidden import HiddenConfig, hidden
from unmirage.align.objectives.npo import NPOConfig, npo
from unmirage.align.objectives.rmu import RMUConfig, control_vector, rmu
from unmirage.align.signals import Activations, AnswerLogProbs, answer_log_probs

Rows = list[list[float]]
Points = list[list[list[float]]]


def log_probs(rows: Rows, padding: int = 0) -> AnswerLogProbs:
    """One list of log-probabilities for each sample; a prompt position before, padding behind."""
    length = 1 + max(map(len, rows)) + padding
    values, mask = torch.zeros(len(rows), length), torch.zeros(len(rows), length, dtype=torch.bool)
    for at, row in enumerate(rows):
        values[at, 1 : 1 + len(row)] = torch.tensor(row)
        mask[at, 1 : 1 + len(row)] = True
    return AnswerLogProbs(values, mask)


def activations(rows: Points, padding: int = 0, junk: float = 99.0) -> Activations:
    """One list of vectors for each sample; positions that do not count hold `junk`."""
    length, width = max(map(len, rows)) + padding, len(rows[0][0])
    values, mask = torch.full((len(rows), length, width), junk), torch.zeros(len(rows), length, dtype=torch.bool)
    for at, row in enumerate(rows):
        values[at, : len(row)] = torch.tensor(row)
        mask[at, : len(row)] = True
    return Activations(values, mask)


class TableModel(nn.Module):
    """Answers every position with the same given logits, so that log p(y) can be worked out by hand."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: Tensor) -> object:
        kept = self.logits.expand(*input_ids.shape, -1)[logits_to_keep]
        return type("Output", (), {"logits": kept})()


# --- the formulas -----------------------------------------------------------------------------


def test_ce_is_the_mean_over_each_samples_own_tokens() -> None:
    # -(-1 - 2 - 3)/3 = 2 and -(-0.5)/1 = 0.5
    loss = ce(log_probs([[-1.0, -2.0, -3.0], [-0.5]]), None, CEConfig())
    assert loss.tolist() == pytest.approx([2.0, 0.5])


def test_npo_sum_is_the_formula() -> None:
    policy = log_probs([[-1.0, -2.0], [-0.5]])  # sums -3 and -0.5
    reference = log_probs([[-1.5, -1.0], [-1.0]])  # sums -2.5 and -1
    # log ratios -0.5 and +0.5; beta 0.1: -20 log sigmoid(+0.05) and -20 log sigmoid(-0.05)
    expected = [20 * log1p(exp(-0.05)), 20 * log1p(exp(+0.05))]
    assert npo(policy, reference, NPOConfig(beta=0.1)).tolist() == pytest.approx(expected)


def test_npo_mean_divides_by_each_samples_own_length() -> None:
    policy, reference = log_probs([[-1.0, -2.0], [-0.5]]), log_probs([[-1.5, -1.0], [-1.0]])
    # means -1.5 against -1.25 and -0.5 against -1: log ratios -0.25 and +0.5; beta 2: -1 log sigmoid(+0.5), (-1)
    expected = [log1p(exp(-0.5)), log1p(exp(+1.0))]
    assert npo(policy, reference, NPOConfig(beta=2.0, reduction="mean")).tolist() == pytest.approx(expected)


def test_npo_batch_mean_is_the_released_codes_formula() -> None:
    policy, reference = log_probs([[-1.0, -2.0], [-0.5]]), log_probs([[-1.5, -1.0], [-1.0]])
    # over all three tokens of the batch: -3.5/3 against -3.5/3, so log ratio 0 for both: 20 log 2
    config = NPOConfig(beta=0.1, reduction="batch_mean")
    loss = npo(policy, reference, config)
    assert loss.tolist() == pytest.approx([20 * log(2)] * 2)
    assert loss.tolist() != pytest.approx(npo(policy, reference, NPOConfig(beta=0.1)).tolist(), rel=1e-3)
    assert loss.tolist() != pytest.approx(
        npo(policy, reference, NPOConfig(beta=0.1, reduction="mean")).tolist(), rel=1e-3
    )


def test_rmu_is_the_mean_over_counted_positions_and_features() -> None:
    u = control_vector(2, seed=3).tolist()
    a, b = 2 * u[0], 2 * u[1]
    policy = activations([[[1.0, 0.0], [0.0, 1.0]], [[3.0, 4.0]]])
    # position by position ((h1 - a)^2 + (h2 - b)^2) / 2, then the mean over two positions, and over one
    first = (((1 - a) ** 2 + b**2) / 2 + (a**2 + (1 - b) ** 2) / 2) / 2
    second = ((3 - a) ** 2 + (4 - b) ** 2) / 2
    assert rmu(policy, None, RMUConfig(coefficient=2.0, seed=3)).tolist() == pytest.approx([first, second])


def test_hidden_is_the_mean_squared_distance_to_the_reference() -> None:
    policy = activations([[[1.0, 2.0], [0.0, 0.0]], [[5.0, 1.0]]])
    reference = activations([[[0.0, 0.0], [0.0, 2.0]], [[2.0, 1.0]]], junk=-7.0)
    # (1 + 4)/2 and (0 + 4)/2, mean 2.25; (9 + 0)/2 = 4.5
    assert hidden(policy, reference, HiddenConfig()).tolist() == pytest.approx([2.25, 4.5])


def test_masked_labels_and_the_last_vocabulary_entries_are_never_read() -> None:
    """-100 as an index would be token V - 100: here V = 120, so token 20."""
    ids = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 0]])
    labels = torch.tensor([[-100, -100, 3, 4], [-100, 2, -100, -100]])
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    logits = [0.0] * 120
    logits[3], logits[4], logits[2] = log(2), log(3), log(4)
    total = log(117 + 2 + 3 + 4)  # 117 entries of e^0 and the three
    policy = answer_log_probs(TableModel(logits), batch)
    assert policy.mask.tolist() == [[False, True, True], [True, False, False]]
    flat = [value for row in policy.values.tolist() for value in row]
    assert flat == pytest.approx([0, log(2) - total, log(3) - total, log(4) - total, 0, 0])
    assert ce(policy, None, CEConfig()).tolist() == pytest.approx([total - (log(2) + log(3)) / 2, total - log(4)])


def test_a_batch_with_a_single_answer_token_works() -> None:
    batch = {
        "input_ids": torch.tensor([[1, 2]]),
        "attention_mask": torch.tensor([[1, 1]]),
        "labels": torch.tensor([[-100, 2]]),
    }
    policy = answer_log_probs(TableModel([0.0, 0.0, log(2)]), batch)
    assert policy.values.tolist() == [pytest.approx([log(2) - log(4)])]


# --- signs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["sum", "mean", "batch_mean"])
def test_npo_pushes_the_answer_down_and_stops_pushing_once_it_is_down(reduction: str) -> None:
    config = NPOConfig(beta=1.0, reduction=reduction)  # type: ignore[arg-type]
    reference = log_probs([[-1.0, -1.0], [-1.0]])
    gradients = []
    for policy in (log_probs([[-1.0, -1.0], [-1.0]]), log_probs([[-9.0, -9.0], [-9.0]])):
        policy.values.requires_grad_()
        npo(policy, reference, config).sum().backward()  # type: ignore[no-untyped-call]
        assert policy.values.grad is not None
        gradients.append(policy.values.grad[policy.mask])
    assert (gradients[0] > 0.1).all(), "descent must lower the log-probability"
    assert (gradients[1] < 0.01).all(), "and leave alone what is already unlikely"


def test_a_less_likely_answer_costs_less_in_npo_and_more_in_ce() -> None:
    reference, likely, unlikely = log_probs([[-1.0]]), log_probs([[-0.5]]), log_probs([[-3.0]])
    assert npo(unlikely, reference, NPOConfig()).item() < npo(likely, reference, NPOConfig()).item()
    assert ce(unlikely, None, CEConfig()).item() > ce(likely, None, CEConfig()).item()


def test_as_beta_goes_to_zero_npo_becomes_gradient_ascent() -> None:
    policy, reference = log_probs([[-1.0, -2.0], [-0.5]]), log_probs([[-1.5, -1.0], [-1.0]])
    policy.values.requires_grad_()
    npo(policy, reference, NPOConfig(beta=1e-6)).sum().backward()  # type: ignore[no-untyped-call]
    assert policy.values.grad is not None
    assert policy.values.grad[policy.mask].tolist() == pytest.approx([1.0, 1.0, 1.0], rel=1e-4)


def test_rmu_is_least_at_the_control_vector_and_hidden_at_the_reference() -> None:
    config = RMUConfig(coefficient=5.0, seed=1)
    target = (5.0 * control_vector(3, 1)).tolist()
    there, beyond = activations([[target]]), activations([[[value * 1.1 for value in target]]])
    assert rmu(there, None, config).item() == pytest.approx(0, abs=1e-10)
    assert rmu(beyond, None, config).item() > 0
    assert hidden(there, there, HiddenConfig()).item() == 0
    assert hidden(beyond, there, HiddenConfig()).item() > 0


# --- what no loss may depend on ---------------------------------------------------------------

VALUES = st.floats(-8, -0.0078125, width=32)
SAMPLES = st.lists(
    st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=4),
    min_size=1,
    max_size=4,
)
Loss = Callable[[list[list[tuple[float, float]]], int], Tensor]


def _npo_loss(reduction: str) -> Loss:
    def loss(samples: list[list[tuple[float, float]]], padding: int) -> Tensor:
        policy = log_probs([[p for p, _ in sample] for sample in samples], padding)
        reference = log_probs([[r for _, r in sample] for sample in samples], padding)
        return npo(policy, reference, NPOConfig(beta=0.5, reduction=reduction))  # type: ignore[arg-type]

    return loss


def _ce_loss(samples: list[list[tuple[float, float]]], padding: int) -> Tensor:
    return ce(log_probs([[p for p, _ in sample] for sample in samples], padding), None, CEConfig())


def _rmu_loss(samples: list[list[tuple[float, float]]], padding: int) -> Tensor:
    return rmu(activations([[list(pair) for pair in s] for s in samples], padding), None, RMUConfig())


def _hidden_loss(samples: list[list[tuple[float, float]]], padding: int) -> Tensor:
    policy = activations([[list(pair) for pair in sample] for sample in samples], padding)
    reference = activations([[[b, a] for a, b in sample] for sample in samples], padding, junk=0.0)
    return hidden(policy, reference, HiddenConfig())


PER_SAMPLE = {
    "ce": _ce_loss,
    "npo-sum": _npo_loss("sum"),
    "npo-mean": _npo_loss("mean"),
    "rmu": _rmu_loss,
    "hidden": _hidden_loss,
}


@pytest.mark.parametrize("name", PER_SAMPLE)
@settings(max_examples=40, deadline=None)
@given(samples=SAMPLES, padding=st.integers(0, 5))
def test_padding_and_company_never_change_a_samples_loss(
    name: str, samples: list[list[tuple[float, float]]], padding: int
) -> None:
    loss = PER_SAMPLE[name]
    together = loss(samples, padding)
    assert together.shape == (len(samples),)
    alone = [loss([sample], 0).item() for sample in samples]
    assert together.tolist() == pytest.approx(alone, rel=1e-4, abs=1e-5)


def test_batch_mean_does_depend_on_company_which_is_its_defect() -> None:
    loss = _npo_loss("batch_mean")
    one, other = [(-1.0, -2.0), (-3.0, -1.0)], [(-6.0, -0.5)]
    together, alone = loss([one, other], 0), loss([one], 0)
    assert together.shape == (2,)
    assert together[0].item() != pytest.approx(alone[0].item(), rel=1e-2)


# --- registry and control vector --------------------------------------------------------------


def test_the_registry_knows_each_objective_and_what_it_reads() -> None:
    known = {name: (found.signal, found.needs_reference) for name, found in OBJECTIVES.items()}
    assert known == {
        "ce": ("log_probs", False),
        "npo": ("log_probs", True),
        "rmu": ("activations", False),
        "hidden": ("activations", True),
    }
    assert OBJECTIVES["npo"].function is npo
    assert OBJECTIVES["npo"].config is NPOConfig


def test_a_name_is_registered_only_once() -> None:
    with pytest.raises(ValueError, match="already an objective named 'npo'"):
        objective("npo", config=NPOConfig)(ce)
    assert OBJECTIVES["npo"].function is npo


def test_an_unknown_reduction_is_refused() -> None:
    with pytest.raises(ValueError, match="'median'"):
        log_probs([[-1.0]]).reduce("median")  # type: ignore[arg-type]


@given(hidden_size=st.integers(1, 300), seed=st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_the_control_vector_is_a_nonnegative_unit_vector(hidden_size: int, seed: int) -> None:
    u = control_vector(hidden_size, seed)
    assert u.shape == (hidden_size,)
    assert u.norm().item() == pytest.approx(1, rel=1e-5)
    assert (u >= 0).all()


def test_the_control_vector_comes_from_its_seed_alone() -> None:
    torch.manual_seed(1)
    first = control_vector(64, 5)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(first, control_vector(64, 5))
    assert torch.equal(state, torch.get_rng_state()), "the training's own random stream is left alone"
    assert not torch.allclose(first, control_vector(64, 6))
