"""Weighted audits: figures by hand, whole weights as copies, and repaired files whose audit is what the repair said."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from test_audit_formats import write
from test_audit_repair import CELLS, OPTIONS, ROWS
from test_cli import call

from unmirage.audit import Columns, FrameSource, Source, audit_data
from unmirage.audit.evidence import clustered_interval, kish, weighted_z, wilson_many
from unmirage.audit.strata import within_strata, within_weighted_strata
from unmirage.errors import UserError
from unmirage.sandbox.build import DataPlan, build
from unmirage.sandbox.world import World


def test_effective_sizes_by_hand():
    # (1 + 3)^2 / (1 + 9), and three equal weights are three rows; nothing is nothing.
    assert kish(np.array([4.0, 6.0, 0.0]), np.array([10.0, 12.0, 0.0])).tolist() == pytest.approx([1.6, 3.0, 0.0])


def sums_of(x, y, w):
    return np.array([[(w * x).sum(), (w * x * y).sum(), (w**2 * x).sum(), (w**2 * x * y).sum()]])


def test_the_weighted_statistic_is_the_robust_one_of_statsmodels():
    import statsmodels.api as sm

    rng = np.random.default_rng(0)
    x, y, w = rng.random(300) < 0.3, rng.random(300) < 0.4, rng.gamma(1.0, 1.0, 300)
    ours = weighted_z(sums_of(x, y, w), sums_of(np.ones(300), y, w)[0])[0]
    # The score test of no effect: residuals of the model with the mean alone, its sandwich taken at the centred cue.
    rest = y - np.average(y, weights=w)
    centred = x - np.average(x, weights=w)
    assert ours == pytest.approx((w * centred * rest).sum() / np.sqrt(((w * centred * rest) ** 2).sum()), rel=1e-9)
    fit = sm.WLS(rest, centred, weights=w).fit(cov_type="HC0")
    # Wald's test takes the residuals of the fitted model instead: close where the effect is small.
    assert ours == pytest.approx(fit.tvalues[0], rel=0.05)


def test_the_weighted_statistic_keeps_its_level():
    rng = np.random.default_rng(1)
    found = []
    for _ in range(2000):
        x, y, w = rng.random(200) < 0.3, rng.random(200) < 0.4, rng.gamma(1.0, 1.0, 200)
        found.append(abs(weighted_z(sums_of(x, y, w), sums_of(np.ones(200), y, w)[0])[0]) > 1.96)
    assert np.mean(found) == pytest.approx(0.05, abs=0.02)


def test_in_pairs_of_equal_weight_the_statistic_within_strata_is_mantels_and_haenszels():
    strata = np.repeat(np.arange(40), 2)
    rows = np.arange(0, 80, 2)
    labels = np.random.default_rng(2).random(80) < 0.5
    plain = within_strata(rows, np.zeros(40, dtype=np.int64), 1, strata, labels)
    weighted = within_weighted_strata(rows, np.zeros(40, dtype=np.int64), 1, strata, labels, np.full(80, 3.0))
    assert weighted.tolist() == pytest.approx(plain.tolist(), rel=1e-9)


def test_the_statistic_within_strata_by_hand():
    # One stratum; cue in the first two of four rows, weights 2 1 1 1, refusals 1 0 0 0: y = 2/5, x = 3/5.
    found = within_weighted_strata(
        np.array([0, 1]), np.array([0, 0]), 1, np.zeros(4, dtype=np.int64), np.array([True, False, False, False]),
        np.array([2.0, 1.0, 1.0, 1.0]),
    )  # fmt: skip
    terms = np.array([2 * 0.4 * 0.6, 0.4 * -0.4, -0.6 * -0.4, -0.6 * -0.4])
    assert found[0] == pytest.approx(terms.sum() / np.sqrt(4 / 3 * (terms**2).sum()))


def test_an_interval_has_a_width_where_all_clusters_agree():
    correct, clusters = np.array([True, False] * 30), np.repeat(np.arange(30), 2)
    value, low, high = clustered_interval(correct, clusters)
    expected = wilson_many(np.array([15.0]), np.array([30.0]))
    assert (value, low, high) == pytest.approx((0.5, expected[0][0], expected[1][0]))
    weighted = clustered_interval(correct, clusters, np.repeat(np.arange(1.0, 31.0), 2))
    assert weighted[2] - weighted[1] > high - low  # fewer clusters count when some weigh more than others


QUESTIONS = [f"{word} colours of thing {i % 9} or {i % 4}" for word, _, count in CELLS for i in range(count)]
LABELS = [label == 1 for _, label, count in CELLS for _ in range(count)]
FRAME = pl.DataFrame({"question": QUESTIONS, "label": LABELS})


def test_equal_weights_change_no_figure_but_the_tests():
    plain = audit_data(FrameSource(FRAME))
    weighted = audit_data(FrameSource(FRAME.with_columns(weight=pl.lit(7.0))))
    assert weighted.scores == plain.scores
    assert (weighted.n, weighted.base_rate, weighted.n_effective) == (60, plain.base_rate, pytest.approx(60.0))
    for one, other in zip(plain.cues, weighted.cues, strict=True):
        same = ("cue", "position", "n", "direction", "kind")
        assert [getattr(one, name) for name in same] == [getattr(other, name) for name in same]
        for name in ("rate", "low", "high", "lift", "z", "mutual_information", "n_effective"):
            assert getattr(other, name) == pytest.approx(getattr(one, name), rel=1e-9, abs=1e-12)


def test_whole_weights_are_copies_in_rates_and_scores():
    numbers = [1 + i % 3 for i in range(60)]
    copied = audit_data(FrameSource(pl.concat([FRAME[i] for i, n in enumerate(numbers) for _ in range(n)])))
    weighted = audit_data(FrameSource(FRAME.with_columns(weight=pl.Series(numbers, dtype=pl.Float64))), _low())
    assert weighted.base_rate == pytest.approx(copied.base_rate)
    assert weighted.n == 60
    assert weighted.n_effective == pytest.approx(sum(numbers) ** 2 / sum(n * n for n in numbers))
    rates = {(cue.cue, cue.position): (cue.rate, cue.lift, cue.mutual_information) for cue in copied.cues}
    for cue in weighted.cues:
        if (cue.cue, cue.position) in rates:
            assert (cue.rate, cue.lift, cue.mutual_information) == pytest.approx(rates[cue.cue, cue.position])
    for one, other in zip(weighted.scores, copied.scores, strict=True):
        assert one.majority == pytest.approx(other.majority)


def _low():
    from unmirage.audit.data import Settings

    return Settings(min_n=2)


def test_an_interval_of_weighted_rows_is_wilsons_of_the_effective_size():
    weights = [1.0 + i % 3 for i in range(60)]
    audit = audit_data(FrameSource(FRAME.with_columns(weight=pl.Series(weights))))
    share = next(cue for cue in audit.cues if (cue.cue, cue.position) == ("share", "opening"))
    own, labels = np.array(weights[:30]), np.array(LABELS[:30])
    size, rate = own.sum() ** 2 / (own**2).sum(), (own * labels).sum() / own.sum()
    low, high = wilson_many(np.array([rate * size]), np.array([size]))
    assert share.n == 30
    assert (share.n_effective, share.rate, share.low, share.high) == pytest.approx((size, rate, low[0], high[0]))


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet", "saved"])
def test_a_rebalanced_file_is_audited_again_as_the_repair_said(tmp_path, name):
    path, out = write(tmp_path / name, ROWS), tmp_path / f"new-{name}"
    options = ("--repair", "rebalance", "--out", out, "--report", tmp_path / "report")
    assert call("audit", "data", path, *OPTIONS, *options, "--fail-if", "shortcuts > 0 or base_rate != 50%") == 0
    assert call("audit", "data", out, *OPTIONS, "--weight", "weight", "--out", tmp_path / "again") == 0
    said = json.loads((tmp_path / "report" / "audit.json").read_text())["after_repair"]
    again = json.loads((tmp_path / "again" / "audit.json").read_text())
    for key in ("mirage_score", "scores", "rows", "rows_effective", "base_rate"):
        assert said[key] == again[key]
    assert said["shortcuts"] == []
    openings = {cue["cue"]: cue["rate"] for cue in again["cues"] if cue["position"] == "opening"}
    assert openings == pytest.approx({"share": 0.5, "what": 0.5})
    # Without the weights the file is what it was.
    assert call("audit", "data", out, *OPTIONS, "--out", tmp_path / "plain", "--fail-if", "shortcuts > 0") == 1


def test_weights_of_the_vlguard_format_stand_beside_the_question(tmp_path, capsys):
    plan = DataPlan(rho=0.5, unsafe_train=200, safe_train=200, general=2, unsafe_test=2, safe_test=2)
    path = build(World(), plan, tmp_path / "data") / "safety.json"
    out, images = tmp_path / "new.json", ("--images", tmp_path / "data" / "images")
    repair = ("--repair", "rebalance", "--out", out, "--fail-if", "shortcuts > 0 or mirage_score > majority + 1%")
    assert call("audit", "data", path, *images, *repair) == 0
    assert "After the repair: 600 rows" in capsys.readouterr().out
    again = ("--weight", "weight", "--out", tmp_path / "again", "--fail-if", "shortcuts > 0")
    assert call("audit", "data", out, *images, *again) == 0
    record = json.loads((tmp_path / "again" / "audit.json").read_text())
    assert record["rows"] == 600
    assert record["rows_effective"] < 600
    assert not any("is not known" in note for note in record["notes"])


@pytest.mark.parametrize(("value", "shown"), [("-1", "'-1'"), ("heavy", "'heavy'"), ("nan", "'nan'"), ("inf", "'inf'")])
def test_what_is_no_weight_is_named(tmp_path, value, shown):
    path = write(tmp_path / "a.csv", [row | {"w": value if i == 7 else 1} for i, row in enumerate(ROWS)])
    with pytest.raises(UserError, match=rf"a\.csv, row 7 .*field 'w': {shown} is no weight"):
        audit_data(Source([path], Columns("q", label="l", weight="w")))


def test_rows_of_weight_0_and_without_weight_are_counted_and_left_out(tmp_path):
    weights = {3: 0, 4: "", 5: ""}
    path = write(tmp_path / "a.csv", [row | {"w": weights.get(i, 2)} for i, row in enumerate(ROWS)])
    audit = audit_data(Source([path], Columns("q", label="l", weight="w")))
    assert audit.n == 57
    assert (audit.defects["zero-weight"].count, audit.defects["no-weight"].count) == (1, 2)
    assert audit.defects["zero-weight"].rows[0]["row"] == 3


def test_a_weight_column_that_is_not_there_is_named(tmp_path, capsys):
    path = write(tmp_path / "a.csv", ROWS)
    assert call("audit", "data", path, *OPTIONS, "--weight", "w") == 2
    assert "no column 'w' (--weight)" in capsys.readouterr().err


def test_weights_are_shown_on_terminal_and_page(tmp_path, capsys):
    path = write(tmp_path / "a.csv", [row | {"w": 1 + i % 2} for i, row in enumerate(ROWS)])
    assert call("audit", "data", path, *OPTIONS, "--weight", "w", "--out", tmp_path / "out") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "60 rows from a.csv: 30 refusal, 30 compliance (weighted: 50.0% refusal)" in printed
    assert "the 60 rows weigh as much as 54 of equal weight (Kish)" in printed  # 90^2 / 150
    assert "of the effective sample size (Kish)" in (tmp_path / "out" / "audit.html").read_text()


def test_shuffled_labels_of_weighted_rows_give_no_cues(tmp_path):
    plan = DataPlan(rho=0.9, unsafe_train=300, safe_train=300, general=2, unsafe_test=2, safe_test=2)
    path = build(World(), plan, tmp_path / "data") / "safety.json"
    whole = pl.concat(Source([path]).frames()).drop("weight")
    rng = np.random.default_rng(3)
    found = 0
    for _ in range(20):
        labels = pl.Series("label", rng.permutation(whole["label"].to_numpy()))
        weight = pl.Series("weight", rng.gamma(0.5, 1.0, len(whole)) + 1e-6)
        audit = audit_data(FrameSource(whole.with_columns(labels, weight)))
        found += any(cue.q < 0.05 for cue in audit.cues)
    assert found <= 4  # 5 or more of 20 happen once in 390 times if it is just 5%
