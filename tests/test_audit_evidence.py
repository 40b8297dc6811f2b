"""The audit's statistics against scipy, statsmodels and scikit-learn, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unmirage.audit import evidence
from unmirage.audit.score import FOLDS, opening_rates, word_log_odds
from unmirage.audit.strata import within_strata
from unmirage.audit.tally import Presence
from unmirage.audit.words import Tokens
from unmirage.stats import wilson

TOTAL_N, TOTAL_K = 5000, 1700


@pytest.fixture(scope="module")
def counts():
    """Possible counts of all sizes, the smallest and largest among them."""
    rng = np.random.default_rng(0)
    n = np.concatenate([rng.integers(1, TOTAL_N, 300), rng.integers(1, 30, 300), [1, 1, TOTAL_N - 1]])
    low, high = np.maximum(0, n + TOTAL_K - TOTAL_N), np.minimum(n, TOTAL_K)
    return np.array([rng.integers(a, b + 1) for a, b in zip(low, high, strict=True)]), n


def close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


def test_competency_z_by_hand():
    # 8 of 10 refused where half of all are: (0.8 - 0.5) / sqrt(0.25 / 10)
    assert evidence.competency_z(np.array([8]), np.array([10]), 0.5)[0] == pytest.approx(0.3 / math.sqrt(0.025))


@pytest.mark.parametrize("rate", [0, 1])
def test_competency_z_needs_both_labels(rate):
    with pytest.raises(ValueError, match="between 0 and 1"):
        evidence.competency_z(np.array([1]), np.array([2]), rate)


def test_competency_z_is_the_proportions_test_of_statsmodels(counts):
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    k, n = counts
    theirs = [proportion.proportions_ztest(a, b, 0.34, prop_var=0.34)[0] for a, b in zip(k, n, strict=True)]
    close(evidence.competency_z(k, n, 0.34), theirs)


def test_wilson_is_that_of_statsmodels_and_ours(counts):
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    k, n = counts
    low, high = evidence.wilson_many(k, n)
    theirs = proportion.proportion_confint(k, n, method="wilson")
    close(low, theirs[0])
    close(high, theirs[1])
    one = wilson(int(k[5]), int(n[5]))
    assert (low[5], high[5]) == pytest.approx((one.low, one.high), abs=1e-12)


def test_exact_p_is_that_of_scipy(counts):
    hypergeom = pytest.importorskip("scipy.stats").hypergeom
    k, n = counts
    lower = hypergeom.cdf(k, TOTAL_N, TOTAL_K, n)
    upper = hypergeom.sf(k - 1, TOTAL_N, TOTAL_K, n)
    close(evidence.hypergeometric_p(k, n, TOTAL_K, TOTAL_N), np.minimum(1, 2 * np.minimum(lower, upper)))


def test_exact_p_keeps_its_relative_precision_far_out():
    hypergeom = pytest.importorskip("scipy.stats").hypergeom
    ours = evidence.hypergeometric_p(np.array([400]), np.array([400]), TOTAL_K, TOTAL_N)[0]
    assert ours == pytest.approx(2 * hypergeom.sf(399, TOTAL_N, TOTAL_K, 400), rel=1e-9)
    assert 0 < ours < 1e-150


def test_normal_p_is_that_of_scipy():
    norm = pytest.importorskip("scipy.stats").norm
    z = np.array([-8.0, -1.96, 0.0, 0.5, 3.0])
    close(evidence.normal_p(z), 2 * norm.sf(np.abs(z)))


def test_mutual_information_is_that_of_scikit_learn(counts):
    metrics = pytest.importorskip("sklearn.metrics")
    k, n = counts
    for a, b, ours in zip(k, n, evidence.mutual_information(k, n, TOTAL_K, TOTAL_N), strict=True):
        table = np.array([[TOTAL_N - b - (TOTAL_K - a), TOTAL_K - a], [b - a, a]])
        close(ours, metrics.mutual_info_score(None, None, contingency=table) / math.log(2))


def test_mutual_information_of_a_perfect_cue_is_the_entropy():
    assert evidence.mutual_information(np.array([5]), np.array([5]), 5, 10)[0] == pytest.approx(1.0)


def test_given_content_is_the_mantel_haenszel_test_of_statsmodels():
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    rng = np.random.default_rng(1)
    strata, labels = rng.integers(0, 8, 400), rng.random(400) < 0.4
    cue = rng.random(400) < np.where(labels, 0.5, 0.3)
    rows = np.flatnonzero(cue)
    ours = within_strata(rows, np.zeros(len(rows), dtype=np.int64), 1, strata, labels)[0]
    each = [
        [[np.sum(here & cue & labels), np.sum(here & cue & ~labels)],
         [np.sum(here & ~cue & labels), np.sum(here & ~cue & ~labels)]]
        for here in (strata == s for s in range(8))
    ]  # fmt: skip
    theirs = tables.StratifiedTable([np.array(table, dtype=float) for table in each]).test_null_odds()
    close(ours**2, theirs.statistic)
    close(evidence.normal_p(np.array([ours]))[0], theirs.pvalue)


def test_given_content_by_hand():
    # One stratum: 4 rows, 2 refused, and the cue is on just these: E = 2*2/4 = 1, V = 2*2*2*2/(16*3) = 1/3.
    z = within_strata(
        np.array([0, 1]), np.array([0, 0]), 1, np.zeros(4, dtype=np.int64), np.array([True, True, False, False])
    )
    assert z[0] == pytest.approx((2 - 1) / math.sqrt(1 / 3))


def test_a_cue_that_all_of_its_stratum_has_says_nothing():
    labels = np.array([True, True, False, False])
    z = within_strata(np.array([0, 1]), np.array([0, 0]), 1, np.array([0, 0, 1, 1]), labels)
    assert z[0] == 0


def test_auc_is_that_of_scikit_learn_with_ties_and_weights():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(2)
    scores, labels, weights = rng.integers(0, 9, 300) / 3, rng.random(300) < 0.3, rng.random(300)
    close(evidence.auc(scores, labels), metrics.roc_auc_score(labels, scores))
    close(evidence.auc(scores, labels, weights), metrics.roc_auc_score(labels, scores, sample_weight=weights))


def test_auc_of_one_class_is_none():
    assert evidence.auc(np.array([1.0, 2.0]), np.array([True, True])) is None


def test_clustered_interval_is_the_robust_one_of_statsmodels():
    api = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(3)
    clusters = np.unique(rng.integers(0, 60, 300), return_inverse=True)[1]
    correct = rng.random(300) < 0.7
    fit = api.OLS(correct.astype(float), np.ones(300)).fit()
    robust = fit.get_robustcov_results(
        "cluster", groups=clusters, use_correction=False, df_correction=False, use_t=False
    )
    count = clusters.max() + 1
    half = 1.959963984540054 * robust.bse[0] * math.sqrt(count / (count - 1))
    rate, low, high = evidence.clustered_interval(correct, clusters)
    close([rate, low, high], [correct.mean(), correct.mean() - half, correct.mean() + half])


def test_clustered_interval_has_a_width_where_all_rows_agree():
    rate, low, high = evidence.clustered_interval(np.ones(10, dtype=bool), np.arange(10))
    assert rate == high == 1
    assert low == pytest.approx(wilson(10, 10).low)


def test_opening_rates_are_the_target_encoding_of_scikit_learn():
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    rng = np.random.default_rng(4)
    words, labels, folds = rng.integers(0, 12, 500), rng.random(500) < 0.4, rng.integers(0, FOLDS, 500)
    ours = opening_rates([words], labels, folds)
    for fold in range(FOLDS):
        own = folds == fold
        encoder = preprocessing.TargetEncoder(smooth=10.0, target_type="continuous")
        encoder.fit(words[~own, None], labels[~own].astype(float))
        close(ours[own], encoder.transform(words[own, None])[:, 0])


def test_a_longer_opening_falls_back_to_the_shorter_one():
    folds = np.array([0, 1, 1])
    first, both = np.array([0, 0, 0]), np.array([5, 6, 6])
    rates = opening_rates([first, both], np.array([False, True, True]), folds)
    # Row 0 learns from rows 1 and 2: base 1, first word (2 + 10) / 12 = 1, and its second word was never seen there.
    assert rates[0] == pytest.approx(1.0)
    # Rows 1 and 2 learn from row 0 alone: base 0.
    assert rates[1:].tolist() == [0.0, 0.0]


def test_word_log_odds_are_the_naive_bayes_of_scikit_learn():
    bayes = pytest.importorskip("sklearn.naive_bayes")
    rng = np.random.default_rng(5)
    lengths = rng.integers(0, 9, 400)
    tokens = Tokens(rng.integers(0, 30, lengths.sum()).astype(np.uint32), np.concatenate([[0], np.cumsum(lengths)]))
    labels, folds = rng.random(400) < 0.4, rng.integers(0, FOLDS, 400)
    words = Presence.of(tokens, np.zeros(len(tokens.codes), dtype=bool))
    ours = word_log_odds(words, np.ones(len(words.rows), dtype=bool), labels, folds)
    matrix = np.zeros((400, 30))
    matrix[words.rows, words.codes] = 1
    for fold in range(FOLDS):
        own = folds == fold
        fit = bayes.MultinomialNB(alpha=1.0).fit(matrix[~own], labels[~own])
        assert (matrix[~own].sum(axis=0) > 0).all()
        joint = fit.predict_joint_log_proba(matrix[own])
        close(ours[own], joint[:, 1] - joint[:, 0])


def test_benjamini_hochberg_is_that_of_statsmodels(counts):
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    from unmirage.stats import benjamini_hochberg

    p = evidence.hypergeometric_p(*counts, TOTAL_K, TOTAL_N)
    close(benjamini_hochberg(p.tolist()), multitest.multipletests(p, method="fdr_bh")[1])
