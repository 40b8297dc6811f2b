"""Statistics against values worked by hand, published examples, scipy as oracle, and properties."""

import math
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from scipy import stats as oracle
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from unmirage.stats import (
    Change,
    Interval,
    Standing,
    benjamini_hochberg,
    bounds,
    cluster_bootstrap,
    clustered_difference,
    clustered_mean,
    clustered_rate,
    holm,
    mcnemar_exact,
    mean_over_seeds,
    non_inferiority,
    paired_change,
    paired_difference,
    sign_flip,
    tango,
    wilson,
)
from unmirage.stats.changes import differences_of
from unmirage.stats.clusters import p_at_most

counts = st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
pairs = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)
p_values = st.lists(st.floats(0, 1), max_size=30)
tables = st.tuples(*[st.integers(0, 40)] * 4).filter(any)
scores = st.lists(
    st.tuples(st.sampled_from([0, 0.3, 0.6, 0.9, 1]), st.sampled_from([0, 0.3, 0.6, 0.9, 1]), st.integers(0, 9)),
    min_size=2,
    max_size=40,
)


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


# --- Tango's score interval -------------------------------------------------------------------


def score_by_search(gained: int, lost: int, n: int, difference: float) -> float:
    """Tango's z with the likeliest share of losses under the difference found by search, not by formula."""

    def unlikely(share: float) -> float:
        gains, rest = share + difference, 1 - 2 * share - difference
        parts = ((gained, gains), (lost, share), (n - gained - lost, rest))
        return -sum(count * math.log(max(one, 1e-300)) for count, one in parts if count)

    low, high = max(0.0, -difference), (1 - difference) / 2
    share = optimize.minimize_scalar(unlikely, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    return (gained - lost - n * difference) / math.sqrt(n * (2 * share + difference - difference**2))


@settings(max_examples=60, deadline=None)
@given(tables)
def test_tango_ends_where_the_score_test_does(table):
    _, gained, lost, _ = table
    n = sum(table)
    interval = tango(gained, lost, n)
    assert interval.value == pytest.approx((gained - lost) / n)
    for end, level in ((interval.low, 1.959964), (interval.high, -1.959964)):
        if abs(end) < 0.999:
            assert score_by_search(gained, lost, n, end) == pytest.approx(level, abs=1e-3)


@given(tables)
def test_tango_mirrors_and_holds_its_value(table):
    _, gained, lost, _ = table
    there, back = tango(gained, lost, sum(table)), tango(lost, gained, sum(table))
    assert -1 <= there.low <= there.value <= there.high <= 1
    assert there.low < there.high
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-9)


def test_tango_without_flips_by_hand():
    # z(D) = -n D / sqrt(n (|D| - D^2)), so z(D)^2 = n |D| / (1 - |D|): the ends are -+ z^2 / (n + z^2).
    interval = tango(0, 0, 100)
    end = 3.841459 / 103.841459
    assert (interval.value, interval.low, interval.high) == (0, pytest.approx(-end), pytest.approx(end))


def test_tango_at_the_edges():
    assert tango(5, 0, 5).high == 1
    assert tango(0, 5, 5).low == -1
    with pytest.raises(ValueError, match="count"):
        tango(3, 3, 5)


# --- paired changes ---------------------------------------------------------------------------


def test_a_change_of_single_outcomes_is_newcombe_and_mcnemar():
    before, after = from_table(both=3, gained=12, lost=2, neither=8)
    change, interval = paired_change(before, after), paired_difference(before, after)
    assert change == Change(interval.value, interval.low, interval.high, 25, mcnemar_exact(12, 2), 12, 2)
    assert paired_change(before, after, clusters=range(25)) == change, "every item is its own unit"


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 10))
def test_mcnemar_agrees_with_statsmodels(gained, lost, both):
    expected = mcnemar([[both, lost], [gained, 1]], exact=True).pvalue
    assert paired_change(*from_table(both, gained, lost, 1)).p == pytest.approx(min(1, expected))


def test_a_change_of_clusters_by_hand():
    # Two pictures: one gains on both of its questions, the other loses half a point on one.
    change = paired_change([0, 0, 1, 1], [1, 1, 0.5, 1], clusters=["a", "a", "b", "b"])
    assert (change.value, change.n, change.gained, change.lost) == (0.375, 4, 2, 1)
    # Two units say too little of how alike their rows are: worth two outcomes of mean (1 + 0.375) / 2.
    assert (change.low, change.high) == pytest.approx([2 * end - 1 for end in wilson_ends(0.6875, 2)])
    # Sums 2 and -0.5: |+-2 +-0.5| is 1.5 or 2.5, all at least the 1.5 seen.
    assert change.p == 1


@given(scores)
def test_a_change_has_no_side(drawn):
    before, after, units = zip(*drawn, strict=True)
    there, back = paired_change(before, after, units), paired_change(after, before, units)
    assert (there.value, there.p) == pytest.approx((-back.value, back.p))
    assert (there.gained, there.lost) == (back.lost, back.gained)
    assert -1 <= there.low <= there.value + 1e-12
    assert there.value <= there.high + 1e-12


@pytest.mark.parametrize(
    ("before", "after", "clusters"), [([], [], None), ([1], [1, 0], None), ([1], [2], None), ([1], [0], [1, 2])]
)
def test_a_change_needs_pairs_in_range(before, after, clusters):
    with pytest.raises(ValueError, match=r"n > 0|as many|lie in"):
        paired_change(before, after, clusters)


@given(st.integers(0, 8), st.integers(0, 8), st.integers(0, 5))
def test_sign_flips_of_single_outcomes_are_mcnemar(gained, lost, same):
    differences = {i: [d] for i, d in enumerate([1] * gained + [-1] * lost + [0] * same)}
    assert sign_flip(differences) == pytest.approx(mcnemar_exact(gained, lost))


def test_sign_flips_agree_with_scipy():
    sums = [0.5, 1, -0.25, 0.75, 0.5, -0.1, 1, 0.3]
    theirs = oracle.permutation_test((sums,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip({i: [s] for i, s in enumerate(sums)}) == pytest.approx(theirs.pvalue)


def test_drawn_sign_flips_agree_with_all_of_them():
    few = [0.5, 1, -0.25, 0.75, 0.5, -0.1, 1, 0.3, -0.7, 0.2, 0.4, -0.3, 0.6, 0.1, -0.9, 0.8]
    many = {i: [v] for i, v in enumerate([*few, 0.01])}  # one more than is counted out
    assert sign_flip(many) == pytest.approx(sign_flip({i: [v] for i, v in enumerate(few)}), abs=0.02)
    assert sign_flip(many) == sign_flip(dict(reversed(many.items())))


def test_drawn_sign_flips_are_never_certain():
    assert sign_flip({i: [1.0] for i in range(60)}) == 1 / 20_001


def test_sign_flips_of_nothing():
    assert sign_flip({1: [0.0], 2: [0.5, -0.5]}) == 1
    with pytest.raises(ValueError, match="finite"):
        sign_flip({1: [math.nan]})


# --- non-inferiority --------------------------------------------------------------------------


def test_non_inferiority_of_outcomes_follows_the_score_test():
    # 200 questions, 3 gained, 1 lost: difference 0.01; the bound is the lower end of the 90 % score interval.
    found = non_inferiority(*from_table(150, 3, 1, 46), margin=0.01)
    interval = tango(3, 1, 200, 0.9)
    assert (found.value, found.low, found.high) == (interval.value, interval.low, interval.high)
    assert found.p == pytest.approx(oracle.norm.sf(score_by_search(3, 1, 200, -0.01)), abs=1e-6)
    assert (found.verdict, found.p < 0.05) == (Standing.NON_INFERIOR, True)


@pytest.mark.parametrize(
    ("gained", "lost", "margin", "verdict"),
    [
        (0, 0, 0.05, "non-inferior"),
        (0, 0, 0.01, "inconclusive"),
        (1, 40, 0.05, "inferior"),
        (9, 0, 0.01, "non-inferior"),
    ],
)
def test_what_non_inferiority_says(gained, lost, margin, verdict):
    found = non_inferiority(*from_table(200 - gained - lost, gained, lost, 0), margin)
    assert found.verdict == verdict
    assert (found.low > -margin) == (found.p < 0.05) == (verdict == "non-inferior")


def test_non_inferiority_of_scores_agrees_with_scipy():
    random = np.random.default_rng(3)
    before = random.choice([0, 0.3, 0.6, 0.9, 1], 300)
    after = np.clip(before + random.choice([-0.3, 0, 0, 0, 0.3], 300), 0, 1)
    found = non_inferiority(list(before), list(after), margin=0.05)
    theirs = oracle.ttest_1samp(after - before, -0.05, alternative="greater")
    assert found.p == pytest.approx(theirs.pvalue, abs=1e-9)
    interval = oracle.ttest_1samp(after - before, 0).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_non_inferiority_of_clusters_is_wider_and_its_p_goes_with_the_interval():
    before = [1.0] * 200
    after = [float(i % 40 >= 4) for i in range(200)]
    units = [i % 40 for i in range(200)]
    apart, together = non_inferiority(before, after, 0.2), non_inferiority(before, after, 0.2, units)
    assert together.low < apart.low
    expected = clustered_difference(differences_of(before, after, units), confidence=0.9)
    assert (together.low, together.high) == (expected.low, expected.high)
    # Where the margin is the lower end itself, p is that of the one-sided bound.
    assert non_inferiority(before, after, -together.low, units).p == pytest.approx(0.05)
    assert non_inferiority(before, after, -together.low + 1e-6, units).verdict is Standing.NON_INFERIOR
    assert non_inferiority(before, after, -together.low - 1e-6, units).verdict is Standing.INCONCLUSIVE
    worse = non_inferiority(before, [float(i % 2) for i in range(200)], 0.2, units)
    assert worse.high < -0.2
    assert (worse.verdict, worse.p > 0.99) == (Standing.INFERIOR, True)


@given(st.lists(st.lists(st.sampled_from([-1, -0.5, 0, 0, 0, 1]), min_size=1, max_size=4), min_size=1, max_size=12))
def test_a_p_is_small_where_the_interval_begins_above_the_bound(clusters):
    differences = dict(enumerate(clusters))
    interval = clustered_difference(differences, confidence=0.9)
    for bound in (-0.5, -0.05, 0.3):
        if abs(interval.low - bound) > 1e-9:
            assert (p_at_most(differences, bound, 0.9) < 0.05) == (interval.low > bound)


def test_non_inferiority_where_all_scores_change_alike_is_not_certain():
    still = non_inferiority([0.3] * 20, [0.3] * 20, 0.01)
    assert still.low < tango(0, 0, 20, 0.9).low
    assert (still.value, still.verdict) == (0, Standing.INCONCLUSIVE)
    down = non_inferiority([0.6] * 20, [0.3] * 20, 0.01)
    assert down.low < down.value < down.high
    assert down.p > 0.5
    assert (down.high < -0.01) == (down.verdict is Standing.INFERIOR)


@pytest.mark.parametrize("margin", [0, 1, -0.1, math.nan])
def test_a_margin_lies_between_0_and_1(margin):
    with pytest.raises(ValueError, match="margin"):
        non_inferiority([1, 0], [1, 1], margin)


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


Z = oracle.norm.ppf(0.975)


def wilson_ends(p: float, number: float) -> tuple[float, float]:
    """(p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)."""
    centre, half = p + Z * Z / (2 * number), Z * math.sqrt(p * (1 - p) / number + Z * Z / (4 * number**2))
    return (centre - half) / (1 + Z * Z / number), (centre + half) / (1 + Z * Z / number)


def wilson_at_one_half(number: float) -> tuple[float, float]:
    """The ends (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n) come down to this where p is 1/2."""
    half = Z / (2 * math.sqrt(number + Z * Z))
    return 0.5 - half, 0.5 + half


def test_outcomes_that_hang_together_loosely_count_for_less_by_hand():
    found = clustered_rate({(i, *pair): pair for i in range(10) for pair in product([True, False], repeat=2)})
    # Forty clusters of two, N = 80, p = 1/2, w = 1/2, M = 2. Ten clusters sum to 1 more than 2p, ten to 1 less:
    # sum r^2 = 20 = N p (1 - p), so D = (20 + 2a) / (20 + a) with a = z^2 / 2, as if nothing but the prior were known.
    a = Z * Z / 2
    number = 80 / ((20 + 2 * a) / (20 + a)) * (Z / oracle.t.ppf(0.975, 39)) ** 2
    assert (found.low, found.high) == pytest.approx(wilson_at_one_half(number))
    assert (found.value, found.n) == (0.5, 40)
    assert number == pytest.approx(69.06, abs=0.01)


def test_outcomes_that_repel_one_another_are_worth_no_more_than_single_ones():
    found = clustered_rate({i: [True, False] for i in range(30)})
    number = 60 * (Z / oracle.t.ppf(0.975, 29)) ** 2  # D is at least 1
    assert (found.low, found.high) == pytest.approx(wilson_at_one_half(number))


def test_scores_are_worth_more_than_outcomes_as_they_vary_less():
    found = clustered_mean({i: [0.25 + 0.5 * (i % 2)] for i in range(20)})
    # N = 20, sum (x - p)^2 = 20 / 16 where outcomes have N p (1 - p) = 5; the prior adds a / 2 to both.
    a = Z * Z / 2
    number = 20 * (5 + a / 2) / (20 / 16 + a / 2) * (Z / oracle.t.ppf(0.975, 19)) ** 2
    assert (found.low, found.high) == pytest.approx(wilson_at_one_half(number))


def test_a_mean_without_spread_keeps_a_width():
    assert clustered_mean({1: [0.3, 0.3], 2: [0.3]}).value == pytest.approx(0.3)
    found = clustered_mean({i: [0.3] for i in range(10)})
    a, w = Z * Z / 2, 0.3**2 + 0.7**2
    number = 10 * (2.1 + a * w) / (a * w) * (Z / oracle.t.ppf(0.975, 9)) ** 2
    assert (found.low, found.high) == pytest.approx(wilson_ends(0.3, number))


def test_clusters_of_equal_outcomes_are_wilson_of_one_outcome_each():
    found = clustered_rate({i: [i < 13] * 4 for i in range(50)})
    assert (found.low, found.high) == pytest.approx((wilson(13, 50).low, wilson(13, 50).high))


def test_a_large_cluster_weighs_as_much_as_it_holds():
    # Sizes 3 and 1, 1, 1: N^2 / sum m^2 = 36 / 12 = 3 outcomes at least, and of so few clusters no more.
    found = clustered_rate({0: [False] * 3, 1: [False], 2: [False], 3: [False]})
    assert (found.low, found.high, found.n) == (wilson(0, 3).low, wilson(0, 3).high, 4)


@given(st.lists(st.booleans(), min_size=1, max_size=200), st.floats(0.5, 0.99))
def test_a_rate_of_clusters_of_one_outcome_is_wilson(outcomes, confidence):
    found = clustered_rate({i: [one] for i, one in enumerate(outcomes)}, confidence=confidence)
    assert found == wilson(sum(outcomes), len(outcomes), confidence)


def hits_in(clusters: int, size: int, spread: bool) -> Iterator[Interval]:
    """Rates with ever more hits: one to a cluster before there is a second in any, or one cluster filled at a time."""
    for hits in range(clusters * size + 1):
        each, left = divmod(hits, clusters if spread else size)
        counts = [each + (i < left) for i in range(clusters)] if spread else [size] * each + [left]
        counts += [0] * (clusters - len(counts))
        yield clustered_rate({i: [k < count for k in range(size)] for i, count in enumerate(counts[:clusters])})


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 25), st.integers(1, 12), st.booleans())
def test_more_hits_never_lower_an_end(clusters, size, spread):
    found = list(hits_in(clusters, size, spread))
    for fewer, more in pairwise(found):
        assert fewer.low <= more.low + 1e-12
        assert fewer.high <= more.high + 1e-12


def test_one_hit_does_not_say_less_than_none():
    highs = [clustered_rate({i: [i < hits, False, False] for i in range(442)}).high for hits in range(4)]
    assert highs[0] == wilson(0, 442).high
    assert highs == pytest.approx([0.00862, 0.00925, 0.00995, 0.01071], abs=5e-6)


@pytest.mark.parametrize(
    ("clusters", "size", "rate", "alike"),
    [
        (442, 3, 0.0025, 0),
        (442, 3, 0.3, 0.6),
        (100, 3, 0.02, 0),
        (60, 3, 0.97, 0.6),
        (4, 10, 0.3, 0.2),
        (3, 20, 0.5, 0.6),
    ],
)
def test_the_interval_of_clusters_holds_the_rate_as_often_as_it_says(clusters, size, rate, alike):
    random = np.random.default_rng(11)
    covered = 0
    for _ in range(300):  # beta-binomial: two outcomes of a cluster have the correlation `alike`
        chance = random.beta(rate * (1 / alike - 1), (1 - rate) * (1 / alike - 1), clusters) if alike else rate
        hits = random.binomial(size, chance, clusters)
        found = clustered_rate({i: [k < count for k in range(size)] for i, count in enumerate(hits)})
        covered += found.low <= rate <= found.high
    assert covered / 300 >= 0.94


def test_a_single_cluster_counts_as_one_outcome():
    alone, whole = clustered_mean({"a": [1, 0, 1]}), clustered_mean({"a": [1, 1]})
    assert (alone.value, alone.n) == (pytest.approx(2 / 3), 1)
    assert alone.high - alone.low > 0.8
    assert whole == wilson(1, 1)


@given(st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=4), min_size=1, max_size=12))
def test_a_mean_of_scores_lies_in_its_interval(clusters):
    found = clustered_mean(dict(enumerate(clusters)))
    assert -1e-12 <= found.low <= found.high <= 1 + 1e-12
    assert found.value == pytest.approx(np.mean([v for values in clusters for v in values]), abs=1e-12)


def test_a_mean_refuses_what_is_no_score():
    for clusters in ({}, {1: []}, {1: [1], 2: []}, {1: [1.5]}, {1: [math.nan]}):
        with pytest.raises(ValueError, match=r"n > 0|cluster|scores"):
            clustered_mean(clusters)


def test_differences_that_are_all_nought_keep_a_width_by_hand():
    found = clustered_difference({i: [0, 0, 0] for i in range(100)})
    # Scores of 1/2, N = 300, M = 3, w = 1/2: D = a M^2 w / (N / 4 + a M w) with a = z^2 / 2.
    a = Z * Z / 2
    number = 300 / (4.5 * a / (75 + 1.5 * a)) * (Z / oracle.t.ppf(0.975, 99)) ** 2
    assert (found.low, found.high) == pytest.approx([2 * end - 1 for end in wilson_at_one_half(number)])
    assert found.value == 0
    assert found.high == pytest.approx(tango(0, 0, 100).high, rel=0.15), "about one unchanged pair a cluster"


@pytest.mark.parametrize("value", [-1, 1])
def test_differences_that_are_all_as_large_as_can_be_are_wilson_of_one_outcome_each(value):
    found = clustered_difference({i: [value] * 3 for i in range(30)})
    ends = sorted([value, value * (2 * wilson(30, 30).low - 1)])
    assert (found.value, found.low, found.high) == pytest.approx((value, *ends))


def test_one_cluster_that_differs_does_not_say_more_than_none():
    ends = [clustered_difference({i: [i < risen, 0, 0] for i in range(100)}) for risen in range(3)]
    widths = [found.high - found.low for found in ends]
    assert widths == sorted(widths)
    assert ends[1].low < 0 < ends[1].high


@given(st.lists(st.lists(st.floats(-1, 1), min_size=1, max_size=4), min_size=1, max_size=12))
def test_differences_have_no_side(clusters):
    there = clustered_difference(dict(enumerate(clusters)))
    back = clustered_difference({i: [-value for value in values] for i, values in enumerate(clusters)})
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low), abs=1e-9)


def test_many_differences_are_as_wide_as_the_bootstrap_says():
    random = np.random.default_rng(7)
    clusters = {i: list(random.choice([-1.0, 0, 0.5, 1], 3) * random.integers(0, 2)) for i in range(2000)}
    ours, drawn = clustered_difference(clusters), cluster_bootstrap(clusters)
    assert ours.value == pytest.approx(drawn.value)
    assert ours.high - ours.low == pytest.approx(drawn.high - drawn.low, rel=0.03)


@pytest.mark.parametrize(
    ("clusters", "size", "risen", "fallen", "alike"),
    [
        (100, 3, 0.02, 0.02, 0.3),
        (30, 10, 0.05, 0, 0.8),
        (30, 3, 0.9, 0.02, 0.8),
        (8, 20, 0.3, 0.1, 0.3),
        (4, 3, 0.3, 0, 0),
    ],
)
def test_the_interval_of_differences_holds_them_as_often_as_it_says(clusters, size, risen, fallen, alike):
    random = np.random.default_rng(5)
    kinds, covered = np.array([risen, fallen, 1 - risen - fallen]), 0
    for _ in range(300):  # Dirichlet-multinomial: rows of a cluster change alike with the correlation `alike`
        alpha = np.maximum(kinds * (1 / alike - 1), 1e-9) if alike else kinds
        chance = random.dirichlet(alpha, clusters) if alike else np.tile(kinds, (clusters, 1))
        drawn = {i: list(random.choice([1.0, -1.0, 0.0], size, p=one)) for i, one in enumerate(chance)}
        found = clustered_difference(drawn)
        covered += found.low <= risen - fallen <= found.high
    assert covered / 300 >= 0.94


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


@pytest.mark.parametrize("n", [1, 2, 7, 30])
def test_corrections_agree_with_statsmodels(n):
    ps = list(np.random.default_rng(n).beta(0.3, 1, n))
    assert holm(ps) == pytest.approx(list(multipletests(ps, method="holm")[1]), abs=1e-12)
    assert benjamini_hochberg(ps) == pytest.approx(list(multipletests(ps, method="fdr_bh")[1]), abs=1e-12)


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
