"""Losses of answers against their formulas worked by hand, through real labels: two answers of unequal length, masked
questions, padding. Then which way they push.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp, log, log1p

import pytest
import torch
from builders import JUNK, TableModel, batch_of, log_probs, logits, preference, signal, table

from unmirage.align.objectives.ascent import AscentConfig, ascent
from unmirage.align.objectives.ce import CEConfig, ce
from unmirage.align.objectives.ceu import CEUConfig, ceu
from unmirage.align.objectives.dpo import DPOConfig, dpo
from unmirage.align.objectives.kl import KLConfig, kl
from unmirage.align.objectives.npo import NPOConfig, npo
from unmirage.align.objectives.pdu import PDUConfig, pdu
from unmirage.align.objectives.satimp import SatImpConfig, satimp
from unmirage.align.objectives.simnpo import SimNPOConfig, simnpo
from unmirage.align.objectives.undial import UnDIALConfig, undial
from unmirage.align.objectives.wga import WGAConfig, wga
from unmirage.align.signals import AnswerLogits, AnswerLogProbs, answer_log_probs

# The question is tokens 5 and 1. The first answer is 2, 3, the second 4. After 1 and after 2 the models say this; what
# they say after the other tokens must not count. Probabilities of the tokens 0 to 5, in tenths:
#                     after 1             after 2
POLICY = {1: (1, 1, 2, 1, 4, 1), 2: (1, 1, 1, 5, 1, 1)}
REFERENCE = {1: (1, 1, 3, 1, 3, 1), 2: (1, 1, 1, 2, 4, 1)}
# So the first answer has p = 0.2, 0.5 (reference 0.3, 0.2), the second p = 0.4 (reference 0.3).
BATCH = batch_of([([5, 1], [2, 3]), ([5, 1], [4])], padding=1)
PAIRS = batch_of([([5, 1], [2, 3]), ([5, 1], [4]), ([5, 1], [4]), ([5, 1], [2, 3])])  # two chosen, then two rejected


def _model(tenths: Mapping[int, Sequence[int]]) -> TableModel:
    return TableModel(table({token: [log(weight) for weight in row] for token, row in tenths.items()}, 6))


def _logits() -> tuple[AnswerLogits, AnswerLogits]:
    return logits(_model(POLICY), BATCH), logits(_model(REFERENCE), BATCH)


def _log_probs() -> tuple[AnswerLogProbs, AnswerLogProbs]:
    return answer_log_probs(_model(POLICY), BATCH), answer_log_probs(_model(REFERENCE), BATCH)


def test_the_batch_is_what_the_comment_says() -> None:
    policy, reference = _log_probs()
    assert policy.values[policy.mask].exp().tolist() == pytest.approx([0.2, 0.5, 0.4])
    assert reference.values[reference.mask].exp().tolist() == pytest.approx([0.3, 0.2, 0.3])
    assert policy.mask.sum(dim=1).tolist() == [2, 1]
    assert BATCH["labels"].tolist() == [[-100, -100, 2, 3, -100], [-100, -100, 4, -100, -100]]
    assert _model(POLICY).logits[5].max() == JUNK


# --- the formulas -----------------------------------------------------------------------------


def test_ce_is_the_mean_over_each_samples_own_tokens() -> None:
    expected = [-(log(0.2) + log(0.5)) / 2, -log(0.4)]
    assert ce(_log_probs()[0], None, CEConfig()).tolist() == pytest.approx(expected)


def test_ascent_is_its_negative_and_batch_mean_that_of_all_tokens() -> None:
    policy = _log_probs()[0]
    assert ascent(policy, None, AscentConfig()).tolist() == pytest.approx([(log(0.2) + log(0.5)) / 2, log(0.4)])
    assert ascent(policy, None, AscentConfig("sum")).tolist() == pytest.approx([log(0.1), log(0.4)])
    assert ascent(policy, None, AscentConfig("batch_mean")).tolist() == pytest.approx([log(0.04) / 3] * 2)


def test_npo_of_answers_of_unequal_length() -> None:
    # pi/pi_ref is 0.2 * 0.5 / (0.3 * 0.2) = 5/3 and 4/3; beta 1: -2 log sigmoid(-log r) = 2 log(1 + r)
    expected = [2 * log(8 / 3), 2 * log(7 / 3)]
    assert npo(*_log_probs(), NPOConfig(beta=1.0)).tolist() == pytest.approx(expected)


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


def test_simnpo_is_the_formula_with_the_papers_gamma() -> None:
    # beta 2: -log sigmoid(-2 mean - gamma) = log(1 + e^gamma p^(2/n)); p = 0.1, n = 2 and p = 0.4, n = 1
    expected = [log1p(exp(0.5) * 0.1), log1p(exp(0.5) * 0.16)]
    assert simnpo(_log_probs()[0], None, SimNPOConfig(beta=2.0, gamma=0.5)).tolist() == pytest.approx(expected)


def test_simnpos_margin_is_beta_times_that_of_the_other_form() -> None:
    beta, d = 2.0, 0.25  # the other form: -(2/beta) log sigmoid(beta (CE - d))
    policy = _log_probs()[0]
    other = [2 / beta * log1p(exp(-beta * (cross - d))) for cross in ce(policy, None, CEConfig()).tolist()]
    assert simnpo(policy, None, SimNPOConfig(beta, gamma=beta * d)).tolist() == pytest.approx(other)


def test_wga_weighs_each_token_by_its_probability() -> None:
    policy = _log_probs()[0]
    first = [(0.2 * log(0.2) + 0.5 * log(0.5)) / 2, 0.4 * log(0.4)]
    squared = [0.04 * log(0.2) + 0.25 * log(0.5), 0.16 * log(0.4)]
    assert wga(policy, None, WGAConfig()).tolist() == pytest.approx(first)
    assert wga(policy, None, WGAConfig(beta=2.0, reduction="sum")).tolist() == pytest.approx(squared)
    all_three = (0.2 * log(0.2) + 0.5 * log(0.5) + 0.4 * log(0.4)) / 3
    assert wga(policy, None, WGAConfig(reduction="batch_mean")).tolist() == pytest.approx([all_three] * 2)


def test_satimp_weighs_by_what_is_known_but_not_certain() -> None:
    policy = _log_probs()[0]
    # beta1 2, beta2 1: p^2 (1 - p) = 0.032, 0.125 and 0.096
    expected = [(0.032 * log(0.2) + 0.125 * log(0.5)) / 2, 0.096 * log(0.4)]
    assert satimp(policy, None, SatImpConfig(beta1=2.0, beta2=1.0)).tolist() == pytest.approx(expected)
    all_three = (0.032 * log(0.2) + 0.125 * log(0.5) + 0.096 * log(0.4)) / 3
    config = SatImpConfig(beta1=2.0, reduction="batch_mean")
    assert satimp(policy, None, config).tolist() == pytest.approx([all_three] * 2)


def test_wga_and_satimp_without_weights_are_ascent() -> None:
    policy = _log_probs()[0]
    plain = ascent(policy, None, AscentConfig()).tolist()
    assert wga(policy, None, WGAConfig(beta=0.0)).tolist() == pytest.approx(plain)
    assert satimp(policy, None, SatImpConfig(beta1=0.0, beta2=0.0)).tolist() == pytest.approx(plain)
    weighted = wga(policy, None, WGAConfig(beta=3.0)).tolist()
    assert satimp(policy, None, SatImpConfig(beta1=3.0, beta2=0.0)).tolist() == pytest.approx(weighted)


def test_ceu_aims_at_the_own_distribution_without_the_token() -> None:
    policy = _logits()[0]
    # q, in eighths: 1 1 0 1 4 1; then in fifths: 1 1 1 0 1 1; and for the second answer in sixths: 1 1 2 1 0 1
    after_1 = -(4 * log(0.1) + 4 * log(0.4)) / 8
    after_2 = -log(0.1)
    second = -(4 * log(0.1) + 2 * log(0.2)) / 6
    assert ceu(policy, None, CEUConfig(skip=0)).tolist() == pytest.approx([(after_1 + after_2) / 2, second])
    assert ceu(policy, None, CEUConfig(skip=1)).tolist() == pytest.approx([after_2, 0.0])
    assert ceu(policy, None, CEUConfig()).tolist() == pytest.approx([after_2, 0.0]), "the paper leaves out the first"


def test_undial_distils_the_reference_with_the_token_lowered() -> None:
    # beta log 3 divides the token's weight by 3. After 1, for token 2, in eighths: 1 1 1 1 3 1; after 2, for token 3,
    # 3 3 3 2 12 3 of 26; after 1, for token 4, in eighths: 1 1 3 1 1 1
    after_1 = -(4 * log(0.1) + log(0.2) + 3 * log(0.4)) / 8
    after_2 = -(24 * log(0.1) + 2 * log(0.5)) / 26
    second = -(4 * log(0.1) + 3 * log(0.2) + log(0.4)) / 8
    found = undial(*_logits(), UnDIALConfig(beta=log(3)))
    assert found.tolist() == pytest.approx([(after_1 + after_2) / 2, second])


def test_pdu_is_the_squared_gap_between_largest_and_mean_logit() -> None:
    # logits are log 1, 1, 2, 1, 4, 1: log 4 - log(8)/6 = 1.5 log 2; then log 5 - log(5)/6
    after_1, after_2 = (1.5 * log(2)) ** 2, (5 / 6 * log(5)) ** 2
    assert pdu(_logits()[0], None, PDUConfig()).tolist() == pytest.approx([(after_1 + after_2) / 2, after_1])


def test_kl_is_from_the_reference_to_the_policy() -> None:
    after_1 = 0.3 * log(0.3 / 0.2) + 0.3 * log(0.3 / 0.4)
    after_2 = 0.2 * log(0.2 / 0.5) + 0.4 * log(0.4 / 0.1)
    assert kl(*_logits(), KLConfig()).tolist() == pytest.approx([(after_1 + after_2) / 2, after_1], abs=1e-6)


def test_dpo_is_the_papers_formula_without_two_over_beta() -> None:
    # ratios 5/3 and 4/3: beta 1: log(1 + rejected/chosen) = log(1 + 4/5) and log(1 + 5/4)
    policy, reference = signal(_model(POLICY), PAIRS, "preference"), signal(_model(REFERENCE), PAIRS, "preference")
    assert dpo(policy, reference, DPOConfig(beta=1.0)).tolist() == pytest.approx([log(1.8), log(2.25)])  # type: ignore[arg-type]
    # per token: sqrt(5/3) against 4/3
    per_token = (4 / 3) / (5 / 3) ** 0.5
    found = dpo(policy, reference, DPOConfig(beta=1.0, reduction="mean"))  # type: ignore[arg-type]
    assert found.tolist() == pytest.approx([log1p(per_token), log1p(1 / per_token)])


def test_dpos_beta_scales_the_log_ratio() -> None:
    policy, reference = preference([[-1.0, -2.0]], [[-4.0]]), preference([[-2.0, -2.0]], [[-3.0]])
    # +1 for the chosen, -1 for the rejected: beta 0.1: -log sigmoid(0.2)
    assert dpo(policy, reference, DPOConfig()).tolist() == pytest.approx([log1p(exp(-0.2))])


def test_masked_labels_and_the_last_vocabulary_entries_are_never_read() -> None:
    """-100 as an index would be token V - 100: here V = 120, so token 20."""
    scores = [0.0] * 120
    scores[3], scores[4], scores[2] = log(2), log(3), log(4)
    model = TableModel(torch.tensor(scores).expand(120, 120))
    total = log(117 + 2 + 3 + 4)  # 117 entries of e^0 and the three
    policy = answer_log_probs(model, batch_of([([1, 2], [3, 4]), ([1], [2])]))
    assert policy.mask.tolist() == [[False, True, True], [True, False, False]]
    flat = [value for row in policy.values.tolist() for value in row]
    assert flat == pytest.approx([0, log(2) - total, log(3) - total, log(4) - total, 0, 0])
    assert ce(policy, None, CEConfig()).tolist() == pytest.approx([total - (log(2) + log(3)) / 2, total - log(4)])


def test_a_batch_with_a_single_answer_token_works() -> None:
    policy = answer_log_probs(TableModel(torch.tensor([0.0, 0.0, log(2)]).expand(3, 3)), batch_of([([1], [2])]))
    assert policy.values.tolist() == [pytest.approx([log(2) - log(4)])]


# --- which way they push ------------------------------------------------------------------------


def _pushed(name: str) -> dict[int, list[float]]:
    """The gradient on the logits after 1 and after 2, of the first answer alone."""
    model = _model(POLICY)
    batch = batch_of([([5, 1], [2, 3])])
    found, known = logits(model, batch), logits(_model(REFERENCE), batch)
    known = AnswerLogits(known.values.detach(), known.labels, known.mask)
    loss = {
        "ascent": lambda: ascent(found.log_probs(), None, AscentConfig()),
        "npo": lambda: npo(found.log_probs(), known.log_probs(), NPOConfig()),
        "simnpo": lambda: simnpo(found.log_probs(), None, SimNPOConfig()),
        "wga": lambda: wga(found.log_probs(), None, WGAConfig()),
        "satimp": lambda: satimp(found.log_probs(), None, SatImpConfig(beta1=1.0)),
        "ceu": lambda: ceu(found, None, CEUConfig(skip=0)),
        "undial": lambda: undial(found, known, UnDIALConfig()),
        "ce": lambda: ce(found.log_probs(), None, CEConfig()),
        "kl": lambda: kl(found, known, KLConfig()),
        "pdu": lambda: pdu(found, None, PDUConfig()),
    }[name]()
    torch.autograd.backward(loss.sum())
    assert model.logits.grad is not None
    assert model.logits.grad[[0, 3, 4, 5]].abs().max() == 0
    return {token: model.logits.grad[token].tolist() for token in (1, 2)}


@pytest.mark.parametrize("name", ["ascent", "npo", "simnpo", "wga", "satimp", "ceu", "undial"])
def test_forget_losses_push_the_tokens_of_the_answer_down(name: str) -> None:
    after = _pushed(name)
    assert after[1][2] > 0, "descent lowers the logit of the first token"
    assert after[2][3] > 0, "and of the second"


def test_retain_losses_push_towards_answer_and_reference() -> None:
    after = _pushed("ce")
    assert after[1][2] < 0
    assert after[2][3] < 0
    after = _pushed("kl")  # p - p_ref: the policy has 0.2 against 0.3, then 0.5 against 0.2; mean over two tokens
    assert after[1] == pytest.approx([0, 0, -0.05, 0, 0.05, 0], abs=1e-6)
    assert after[2] == pytest.approx([0, 0, 0, 0.15, -0.15, 0], abs=1e-6)


def test_pdu_pushes_the_largest_logit_down_and_the_others_up() -> None:
    after = _pushed("pdu")
    assert after[1][4] > 0
    assert max(after[1][:4]) < 0
    assert sum(after[1]) == pytest.approx(0, abs=1e-6)


def test_ceus_gradient_is_the_distribution_minus_that_without_the_token() -> None:
    after = _pushed("ceu")  # p - q, halved: tenths against eighths
    expected = [(a / 10 - b / 8) / 2 for a, b in zip(POLICY[1], (1, 1, 0, 1, 4, 1), strict=True)]
    assert after[1] == pytest.approx(expected, abs=1e-6)


def test_weights_are_held_fixed() -> None:
    """The gradient of wga on log p is p, and not p (1 + log p), which would change its sign at p = 1/e."""
    policy = log_probs([[log(0.2), log(0.5)]])
    policy.values.requires_grad_()
    torch.autograd.backward(wga(policy, None, WGAConfig(reduction="sum")).sum())
    assert policy.values.grad is not None
    assert policy.values.grad[policy.mask].tolist() == pytest.approx([0.2, 0.5])
    policy = log_probs([[log(0.2), log(0.5)]])
    policy.values.requires_grad_()
    torch.autograd.backward(satimp(policy, None, SatImpConfig(2.0, 1.0, "sum")).sum())
    assert policy.values.grad is not None
    assert policy.values.grad[policy.mask].tolist() == pytest.approx([0.032, 0.125])


def test_undial_is_at_rest_on_its_target() -> None:
    batch = batch_of([([5, 1], [4])])
    known = logits(_model(REFERENCE), batch)
    lowered = _model({1: (1, 1, 3, 1, 1, 1)})  # the reference with the weight of token 4 divided by 3
    torch.autograd.backward(undial(logits(lowered, batch), known, UnDIALConfig(beta=log(3))).sum())
    assert lowered.logits.grad is not None
    assert lowered.logits.grad.abs().max().item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("reduction", ["sum", "mean", "batch_mean"])
def test_npo_pushes_the_answer_down_and_stops_pushing_once_it_is_down(reduction: str) -> None:
    config = NPOConfig(beta=1.0, reduction=reduction)  # type: ignore[arg-type]
    reference = log_probs([[-1.0, -1.0], [-1.0]])
    gradients = []
    for policy in (log_probs([[-1.0, -1.0], [-1.0]]), log_probs([[-9.0, -9.0], [-9.0]])):
        policy.values.requires_grad_()
        torch.autograd.backward(npo(policy, reference, config).sum())
        assert policy.values.grad is not None
        gradients.append(policy.values.grad[policy.mask])
    assert (gradients[0] > 0.1).all(), "descent must lower the log-probability"
    assert (gradients[1] < 0.01).all(), "and leave alone what is already unlikely"


def test_simnpos_margin_keeps_pushing() -> None:
    gradients = []
    for gamma in (0.0, 3.0):
        policy = log_probs([[-1.0, -1.0]])
        policy.values.requires_grad_()
        torch.autograd.backward(simnpo(policy, None, SimNPOConfig(beta=1.0, gamma=gamma)).sum())
        assert policy.values.grad is not None
        gradients.append(policy.values.grad[policy.mask])
    # 2 sigmoid(log p / n + gamma) / n for each token: n = 2, log p / n = -1
    assert gradients[0].tolist() == pytest.approx([1 / (1 + exp(1))] * 2)
    assert gradients[1].tolist() == pytest.approx([1 / (1 + exp(-2))] * 2)


def test_a_less_likely_answer_costs_less_in_npo_and_more_in_ce() -> None:
    reference, likely, unlikely = log_probs([[-1.0]]), log_probs([[-0.5]]), log_probs([[-3.0]])
    assert npo(unlikely, reference, NPOConfig()).item() < npo(likely, reference, NPOConfig()).item()
    assert ce(unlikely, None, CEConfig()).item() > ce(likely, None, CEConfig()).item()


def test_as_beta_goes_to_zero_npo_becomes_gradient_ascent() -> None:
    policy, reference = log_probs([[-1.0, -2.0], [-0.5]]), log_probs([[-1.5, -1.0], [-1.0]])
    policy.values.requires_grad_()
    torch.autograd.backward(npo(policy, reference, NPOConfig(beta=1e-6)).sum())
    assert policy.values.grad is not None
    assert policy.values.grad[policy.mask].tolist() == pytest.approx([1.0, 1.0, 1.0], rel=1e-4)


def test_dpo_raises_the_chosen_lowers_the_rejected_and_depends_on_both() -> None:
    policy, reference = preference([[-1.0, -2.0], [-0.5]], [[-1.0], [-2.0, -3.0]]), preference([[-1.0] * 2, [-1.0]], [
        [-1.0], [-1.0] * 2
    ])  # fmt: skip
    for part in (policy.chosen, policy.rejected):
        part.values.requires_grad_()
    torch.autograd.backward(dpo(policy, reference, DPOConfig(beta=0.5)).sum())
    chosen, rejected = policy.chosen.values.grad, policy.rejected.values.grad
    assert chosen is not None
    assert rejected is not None
    # -beta sigmoid(-beta margin), margins -3 + 2 - 0 = -1 and 0.5 + 3 = 3.5; the opposite for the rejected
    pull = [0.5 / (1 + exp(-0.5)), 0.5 / (1 + exp(1.75))]
    assert chosen[policy.chosen.mask].tolist() == pytest.approx([-pull[0], -pull[0], -pull[1]])
    assert rejected[policy.rejected.mask].tolist() == pytest.approx([pull[0], pull[1], pull[1]])


def test_dpos_pull_on_each_answer_depends_on_the_other() -> None:
    """A loss that ends as cross-entropy on the better answer alone would pull as hard whatever the other is."""
    pulls = []
    for other in (-0.1, -9.0):
        policy = preference([[-1.0]], [[other]])
        policy.chosen.values.requires_grad_()
        torch.autograd.backward(dpo(policy, preference([[-1.0]], [[-1.0]]), DPOConfig(beta=1.0)).sum())
        assert policy.chosen.values.grad is not None
        pulls.append(policy.chosen.values.grad.min().item())
    assert pulls[0] < pulls[1] - 0.5
