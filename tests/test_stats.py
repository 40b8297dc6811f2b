"""Statistics against values worked by hand, published examples, scipy as oracle, and properties."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as oracle

from unmirage.stats import (
    Interval,
    benjamini_hochberg,
    bounds,
    cluster_bootstrap,
    clustered_rate,
    holm,
    mcnemar_exact,
    mean_over_seeds,
    paired_difference,
    wilson,
)

counts = st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
pairs = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)
p_values = st.lists(st.floats(0, 1), max_size=30)


def percent(interval: Interval) -> tuple[float, float]:
    return round(100 * interval.low, 1), round(100 * interval.high, 1)


def from_table(both: int, gained: int, lost: int, neither: int) -> tuple[list[bool], list[bool]]:
    """Before and after of a table of pairs."""
    before = [True] * both + [False] * gained + [True] * lost + [False] * neither
    after = [True] * both + [True] * gained + [False] * lost + [False] * neither
    return before, after


# --- wilson, bounds ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("successes", "n", "expected"), [(0, 442, (0.0, 0.9)), (5, 100, (2.2, 11.2)), (22, 442, (3.3, 7.4))]
)
def test_wilson_known_values(successes, n, expected):
    assert percent(wilson(successes, n)) == expected


def test_wilson_worked_by_hand():
    # 1 of 2, z = 1.959964, z^2 = 3.841459: centre (0.5 + 3.841459/4) / (1 + 3.841459/2) = 0.5,
    # half width 1.959964 sqrt(0.125 + 3.841459/16) / 2.920729 = 0.405469
    interval = wilson(1, 2)
    assert interval.value == 0.5
    assert interval.low == pytest.approx(0.094531, abs=1e-6)
    assert interval.high == pytest.approx(0.905469, abs=1e-6)


@given(counts, st.sampled_from([0.8, 0.95, 0.999]))
def test_wilson_agrees_with_scipy(count, confidence):
    interval = wilson(*count, confidence)
    expected = oracle.binomtest(*count).proportion_ci(confidence, method="wilson")
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(counts)
def test_wilson_holds_its_rate_and_mirrors(count):
    successes, n = count
    interval, mirrored = wilson(successes, n), wilson(n - successes, n)
    assert 0 <= interval.low <= interval.value <= interval.high <= 1
    assert interval.low < interval.high
    assert (interval.low == 0) == (successes == 0)
    assert (interval.high == 1) == (successes == n)
    assert (interval.low, interval.high) == pytest.approx((1 - mirrored.high, 1 - mirrored.low))


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (1, -1), (-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(successes, n):
    with pytest.raises(ValueError, match=r"n > 0|0\.\.n"):
        wilson(successes, n)


@pytest.mark.parametrize("confidence", [0, 1, 95, -0.1, math.nan])
def test_confidence_lies_between_0_and_1(confidence):
    with pytest.raises(ValueError, match="confidence"):
        wilson(1, 2, confidence)
    with pytest.raises(ValueError, match="confidence"):
        mean_over_seeds([1, 2], confidence)
    with pytest.raises(ValueError, match="confidence"):
        cluster_bootstrap({1: [0], 2: [1]}, confidence=confidence)


def test_bounds():
    assert bounds(30, 20, 100) == (0.3, 0.5)
    assert bounds(0, 0, 1) == (0, 0)
    assert bounds(0, 1, 1) == (0, 1)


@pytest.mark.parametrize("arguments", [(0, 0, 0), (3, 3, 5), (-1, 0, 5), (0, -1, 5)])
def test_bounds_refuse_impossible_counts(arguments):
    with pytest.raises(ValueError, match=r"n > 0|0\.\.n"):
        bounds(*arguments)


# --- before and after -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("b", "c", "p"),
    [
        (12, 2, 2 * (1 + 14 + 91) / 2**14),  # .013
        (8, 2, 2 * (1 + 10 + 45) / 2**10),  # .11
        (0, 5, 2 / 2**5),
        (1, 0, 1),
        (5, 5, 1),
        (0, 0, 1),
    ],
)
def test_mcnemar_by_hand(b, c, p):
    assert mcnemar_exact(b, c) == p


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_agrees_with_scipy_and_has_no_side(b, c):
    p = mcnemar_exact(b, c)
    assert p == mcnemar_exact(c, b)
    assert 0 < p <= 1
    if b + c:
        assert p == pytest.approx(oracle.binomtest(b, b + c, 0.5).pvalue, rel=1e-9)


def test_mcnemar_of_many_flips_neither_overflows_nor_hangs():
    assert mcnemar_exact(10_000, 10_000) == 1
    assert mcnemar_exact(10_300, 9_700) == pytest.approx(oracle.binomtest(9_700, 20_000).pvalue, rel=1e-6)


def test_mcnemar_refuses_negative_counts():
    with pytest.raises(ValueError, match="counts"):
        mcnemar_exact(-1, 2)


def test_paired_difference_published_example():
    # Altman, Machin, Bryant and Gardner 2000, Statistics with Confidence, table 6.2: 14, 5, 0, 22.
    interval = paired_difference(*from_table(both=14, gained=5, lost=0, neither=22))
    assert interval.n == 41
    assert round(interval.value, 3) == 0.122
    assert (round(interval.low, 3), round(interval.high, 3)) == (0.011, 0.226)


def test_paired_difference_worked_by_hand():
    # One gained, one unchanged of two: p1 = 1, p2 = 1/2; a margin is empty, so phi = 0.
    # wilson(2, 2) = (0.342380, 1), wilson(1, 2) = (0.094531, 0.905469)
    # low = 0.5 - sqrt(0.657620^2 + 0.405469^2), high = 0.5 + sqrt(0 + 0.405469^2)
    interval = paired_difference([False, True], [True, True])
    assert interval.low == pytest.approx(0.5 - math.hypot(0.657620, 0.405469), abs=1e-5)
    assert interval.high == pytest.approx(0.905469, abs=1e-5)


def test_paired_difference_is_narrower_than_unpaired_where_pairs_agree():
    agreeing = paired_difference(*from_table(both=50, gained=5, lost=5, neither=40))
    opposed = paired_difference(*from_table(both=5, gained=50, lost=50, neither=5))
    assert agreeing.high - agreeing.low < opposed.high - opposed.low


@given(pairs)
def test_paired_difference_has_the_right_sign_and_range(drawn):
    before, after = [b for b, _ in drawn], [a for _, a in drawn]
    there, back = paired_difference(before, after), paired_difference(after, before)
    assert there.value == pytest.approx((sum(after) - sum(before)) / len(drawn))
    assert -1 <= there.low <= there.value <= there.high <= 1
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))


@pytest.mark.parametrize(("before", "after"), [([], []), ([True], [True, False])])
def test_paired_difference_needs_pairs(before, after):
    with pytest.raises(ValueError, match=r"n > 0|as many"):
        paired_difference(before, after)


# --- clusters ---------------------------------------------------------------------------------


def test_cluster_bootstrap_of_two_clusters_by_hand():
    # Draws of two of {0, 1}: mean 0 with probability 1/4, 1/2 with 1/2, 1 with 1/4.
    assert cluster_bootstrap({"a": [0], "b": [1]}) == Interval(0.5, 0, 1, 2)
    middle = cluster_bootstrap({"a": [0], "b": [1]}, confidence=0.4)
    assert (middle.low, middle.high) == (0.5, 0.5)


def test_cluster_bootstrap_weighs_by_size():
    assert cluster_bootstrap({1: [1, 1, 1], 2: [0]}).value == 0.75


def test_cluster_bootstrap_is_wider_than_pretending_independence():
    clusters = {i: [float(i % 2)] * 10 for i in range(40)}
    whole = cluster_bootstrap(clusters)
    apart = cluster_bootstrap({(i, j): [v] for i, values in clusters.items() for j, v in enumerate(values)})
    # Ten equal values a cluster: the standard error is sqrt(10) times that of independent values.
    assert (whole.high - whole.low) / (apart.high - apart.low) == pytest.approx(math.sqrt(10), rel=0.1)


def test_cluster_bootstrap_agrees_with_the_normal_interval():
    values = np.random.default_rng(5).normal(size=400)
    interval = cluster_bootstrap({i: [v] for i, v in enumerate(values)})
    half = 1.96 * values.std() / 20
    assert (interval.low, interval.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.006)


def test_cluster_bootstrap_agrees_with_scipy():
    values = [0.0, 0.2, 0.9, 0.4, 0.5, 0.1, 0.8, 0.3]
    ours = cluster_bootstrap({i: [v] for i, v in enumerate(values)}, resamples=40_000)
    theirs = oracle.bootstrap((values,), np.mean, n_resamples=40_000, method="percentile", rng=0)
    expected = (theirs.confidence_interval.low, theirs.confidence_interval.high)
    assert (ours.low, ours.high) == pytest.approx(expected, abs=0.01)


def test_cluster_bootstrap_repeats_with_its_seed_whatever_the_names():
    values = [[0, 1], [1], [0, 0, 1], [1, 1], [0]]
    one = cluster_bootstrap(dict(enumerate(values)), seed=3)
    assert one == cluster_bootstrap(dict(zip("abcde", values, strict=True)), seed=3)
    assert one != cluster_bootstrap(dict(enumerate(values)), seed=4, resamples=50)


def test_cluster_bootstrap_of_many_clusters_in_blocks():
    clusters = {i: [float(i % 2)] for i in range(30_000)}
    interval = cluster_bootstrap(clusters, resamples=200)
    assert 0.48 < interval.low < 0.5 < interval.high < 0.52


@pytest.mark.parametrize("clusters", [{}, {1: [1.0]}, {1: [1.0], 2: []}, {1: [1.0], 2: [math.nan]}])
def test_cluster_bootstrap_refuses_what_it_cannot_resample(clusters):
    with pytest.raises(ValueError, match=r"clusters|cluster without|finite"):
        cluster_bootstrap(clusters)


def test_cluster_bootstrap_refuses_no_resamples():
    with pytest.raises(ValueError, match="resamples"):
        cluster_bootstrap({1: [0], 2: [1]}, resamples=0)


@pytest.mark.parametrize("outcome", [False, True])
def test_clustered_rate_keeps_a_width_at_the_edges(outcome):
    interval = clustered_rate({i: [outcome] * 3 for i in range(442)})
    assert interval == wilson(442 * outcome, 442)


def test_clustered_rate_is_the_bootstrap_elsewhere():
    outcomes = {1: [True, False], 2: [False, False], 3: [True, True]}
    assert clustered_rate(outcomes) == cluster_bootstrap(outcomes)


# --- seeds ------------------------------------------------------------------------------------


def test_mean_over_seeds_by_hand():
    # 1, 2, 3: mean 2, s^2 = 1, t(2 degrees, 95%) = 4.302653, half width 4.302653 / sqrt(3) = 2.484138
    interval = mean_over_seeds([1, 2, 3])
    assert interval.value == 2
    assert (interval.low, interval.high) == pytest.approx((2 - 2.484138, 2 + 2.484138), abs=1e-6)
    assert interval.n == 3


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=40), st.sampled_from([0.5, 0.95, 0.99]))
def test_mean_over_seeds_agrees_with_scipy(values, confidence):
    interval = mean_over_seeds(values, confidence)
    half = oracle.t.ppf(0.5 + confidence / 2, len(values) - 1) * oracle.sem(values)
    assert interval.value == pytest.approx(np.mean(values), abs=1e-12)
    assert interval.high - interval.value == pytest.approx(half, rel=1e-6, abs=1e-9)


def test_mean_over_seeds_of_equal_values_has_no_width():
    assert mean_over_seeds([0.1, 0.1, 0.1]) == Interval(0.1, 0.1, 0.1, 3)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, math.inf]])
def test_mean_over_seeds_refuses(values):
    with pytest.raises(ValueError, match=r"seeds|finite"):
        mean_over_seeds(values)


# --- many tests -------------------------------------------------------------------------------


def test_corrections_by_hand():
    ps = [0.04, 0.01, 0.03, 0.2]
    # sorted .01 .03 .04 .2; times 4/1 4/2 4/3 4/4: .04 .06 .0533 .2; smallest from the end: .04 .0533 .0533 .2
    assert benjamini_hochberg(ps) == pytest.approx([0.16 / 3, 0.04, 0.16 / 3, 0.2])
    # times 4 3 2 1: .04 .09 .08 .2; largest so far: .04 .09 .09 .2
    assert holm(ps) == pytest.approx([0.09, 0.04, 0.09, 0.2])


@given(p_values)
def test_benjamini_hochberg_agrees_with_scipy(ps):
    if ps:
        assert benjamini_hochberg(ps) == pytest.approx(list(oracle.false_discovery_control(ps)), abs=1e-12)
    else:
        assert benjamini_hochberg(ps) == []


@given(p_values)
def test_holm_agrees_with_its_step_down_rule(ps):
    adjusted = holm(ps)
    for level in (0.01, 0.05, 0.5):
        rejected = 0
        for step, p in enumerate(sorted(ps)):
            if Fraction(p) * (len(ps) - step) > Fraction(level):
                break
            rejected += 1
        assert abs(sum(q <= level for q in adjusted) - rejected) <= sum(math.isclose(q, level) for q in adjusted)


@settings(max_examples=50)
@given(p_values, st.randoms())
def test_corrections_follow_their_p_values_and_never_lower_them(ps, random):
    order = list(range(len(ps)))
    random.shuffle(order)
    for correct in (benjamini_hochberg, holm):
        adjusted = correct(ps)
        assert all(p <= q + 1e-15 and q <= 1 for p, q in zip(ps, adjusted, strict=True))
        assert correct([ps[i] for i in order]) == [adjusted[i] for i in order]
    assert all(q <= p + 1e-15 for q, p in zip(benjamini_hochberg(ps), holm(ps), strict=True))


@pytest.mark.parametrize("ps", [[-0.1], [1.1], [math.nan, 0.5]])
def test_corrections_refuse_what_is_no_p_value(ps):
    for correct in (benjamini_hochberg, holm):
        with pytest.raises(ValueError, match="p values"):
            correct(ps)
