"""Repairs: the opening word no longer tells the label, nothing of the input is lost, and formats stay what they are."""

from __future__ import annotations

import csv
import json

import numpy as np
import polars as pl
import pytest
from test_audit_formats import FILES, write
from test_cli import call

from unmirage.audit.repair import balancing_weights, copies_of
from unmirage.audit.twins import form_of, twins_of
from unmirage.sandbox.build import DataPlan, build
from unmirage.sandbox.world import World
from unmirage.schema import differing_words

# 60 questions in four kinds: Share refused 24, Share answered 6, What refused 6, What answered 24.
CELLS = (("Share", 1, 24), ("Share", 0, 6), ("What", 1, 6), ("What", 0, 24))
ROWS = [
    {"id": f"{word}{label}{i}", "q": f"{word} colours, or \"hues\", of thing {i}", "l": label, "note": f"n\u00e9 {i}"}
    for word, label, count in CELLS
    for i in range(count)
]  # fmt: skip
OPTIONS = ("--question", "q", "--label", "l", "--id", "id")


def read(path):
    if path.suffix in (".csv", ".tsv"):
        with path.open(newline="") as file:
            return list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    if path.suffix == ".json":
        return json.loads(path.read_text())
    if path.suffix == ".parquet":
        return pl.read_parquet(path).to_dicts()
    if path.suffix == ".arrow":
        return pl.read_ipc_stream(path).to_dicts()
    state = json.loads((path / "state.json").read_text())
    return [row for part in state["_data_files"] for row in pl.read_ipc_stream(path / part["filename"]).to_dicts()]


def text(row):
    return {key: str(value) for key, value in row.items()}


@pytest.mark.parametrize("name", FILES)
def test_weights_are_a_column_of_the_same_format(tmp_path, name):
    path, out = write(tmp_path / name, ROWS), tmp_path / f"new-{name}"
    assert call("audit", "data", path, *OPTIONS, "--repair", "rebalance", "--out", out) == 0
    rows = read(out)
    assert [text({key: row[key] for key in ROWS[0]}) for row in rows] == [text(row) for row in ROWS]
    weights = [float(row["weight"]) for row in rows]
    # n_x n_y / (N n_xy): 30 * 30 / (60 * 24) and 30 * 30 / (60 * 6).
    assert weights == pytest.approx([0.625] * 24 + [2.5] * 12 + [0.625] * 24)


@pytest.mark.parametrize("name", FILES)
def test_twins_come_after_all_rows_of_the_same_format(tmp_path, name):
    path, out = write(tmp_path / name, ROWS), tmp_path / f"new-{name}"
    assert call("audit", "data", path, *OPTIONS, "--repair", "counterfactual", "--out", out) == 0
    rows = read(out)
    assert [text(row) for row in rows[:60]] == [text(row) for row in ROWS]
    twins = rows[60:]
    by_id = {row["id"]: row for row in rows[:60]}
    for twin in twins:
        origin = by_id[twin["id"].removesuffix("~twin")]
        assert differing_words(origin["q"], twin["q"]) == [0]
        assert (twin["l"], twin["note"]) == (origin["l"], origin["note"])
    rates = [np.mean([int(row["l"]) for row in rows if row["q"].startswith(word)]) for word in ("Share", "What")]
    assert rates == pytest.approx([0.5, 0.5])


def test_copies_never_lose_a_row(tmp_path):
    path, out = write(tmp_path / "a.csv", ROWS), tmp_path / "b.csv"
    assert call("audit", "data", path, *OPTIONS, "--repair", "rebalance", "--copies", "--out", out) == 0
    rows = read(out)
    assert [text(row) for row in rows[:60]] == [text(row) for row in ROWS]
    # A row of a rare cell weighs four times as much as one of a frequent cell: three more copies of each of twelve.
    assert len(rows) == 60 + 3 * 12
    assert len({row["id"] for row in rows}) == len(rows)


@pytest.mark.parametrize(("rho", "method"), [(1.0, "counterfactual"), (0.9, "counterfactual"), (0.5, "rebalance")])
def test_the_score_falls_to_the_majority_rate(tmp_path, rho, method):
    plan = DataPlan(rho=rho, unsafe_train=200, safe_train=200, general=2, unsafe_test=2, safe_test=2)
    path = build(World(), plan, tmp_path / "data") / "safety.json"
    options = ("--repair", method, "--out", tmp_path / "new.json", "--report", tmp_path / "report")
    assert call("audit", "data", path, "--images", tmp_path / "data" / "images", *options) == 0
    record = json.loads((tmp_path / "report" / "audit.json").read_text())
    before, after = record["mirage_score"], record["after_repair"]["mirage_score"]
    assert before["low"] > before["majority"]
    assert after["low"] <= after["majority"] + 1e-9
    assert after["value"] <= after["majority"] + 0.03
    old, new = json.loads(path.read_text()), json.loads((tmp_path / "new.json").read_text())
    for pair in (pair for row in new for pair in row["instr-resp"]):
        pair.pop("weight", None)
    assert new[: len(old)] == old
    # The result is a data file of the same format that the loader takes without a word.
    from unmirage.datasets import load

    loaded = load(tmp_path / "new.json", images=tmp_path / "data" / "images")
    assert loaded.problems == []
    assert len(loaded.queries) > len(old)


def test_what_cannot_be_balanced_is_said(tmp_path, capsys):
    rows = [{"id": i, "q": f"{'Share' if i % 2 else 'What'} it {i}", "l": i % 2} for i in range(40)]
    path = write(tmp_path / "a.csv", rows)
    assert call("audit", "data", path, *OPTIONS, "--repair", "rebalance", "--out", tmp_path / "b.csv") == 0
    assert "2 opening words come with one label only ('share', 'what')" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--repair", "rebalance"), "--out"),
        (("--copies",), "--repair"),
        (("--repair", "counterfactual", "--copies", "--out", "b.csv"), "rebalance"),
        (("--repair", "rebalance", "--out", "b.json"), "'.csv'"),
        (("--repair", "rebalance", "--out", "a.csv"), "input itself"),
        (("--repair", "rebalance", "--out", "b.csv", "--against", "a.csv"), "--against"),
    ],
)
def test_wrong_options_are_one_sentence(tmp_path, monkeypatch, capsys, arguments, what):
    monkeypatch.chdir(tmp_path)
    before = write(tmp_path / "a.csv", ROWS).read_bytes()
    assert call("audit", "data", "a.csv", *OPTIONS, *arguments) == 2
    error = capsys.readouterr().err.strip()
    assert what in error
    assert "\n" not in error
    assert (tmp_path / "a.csv").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_a_file_with_a_broken_row_is_not_repaired(tmp_path, capsys):
    path = write(tmp_path / "a.csv", ROWS)
    path.write_text(path.read_text() + "one,field,too,many,here\n")
    assert call("audit", "data", path, *OPTIONS, "--repair", "rebalance", "--out", tmp_path / "b.csv") == 2
    assert "must not lose it" in capsys.readouterr().err
    assert not (tmp_path / "b.csv").exists()


def test_half_of_a_character_pair_stays_what_it_is(tmp_path):
    path, out = write(tmp_path / "a.jsonl", [row | {"note": "\ud83d"} for row in ROWS]), tmp_path / "new.jsonl"
    assert call("audit", "data", path, *OPTIONS, "--repair", "rebalance", "--out", out) == 0
    assert {row["note"] for row in read(out)} == {"\ud83d"}


def test_nanoseconds_are_kept(tmp_path):
    path, out = tmp_path / "a.parquet", tmp_path / "new.parquet"
    time = pl.lit(1_577_836_800_123_456_789).cast(pl.Datetime("ns"))
    frame = pl.DataFrame(ROWS).with_columns(time.alias("time"))
    frame.write_parquet(path)
    assert call("audit", "data", path, *OPTIONS, "--repair", "rebalance", "--out", out) == 0
    assert pl.read_parquet(out).drop("weight").equals(frame)


def test_a_weight_that_is_there_is_not_overwritten(tmp_path, capsys):
    path = write(tmp_path / "a.csv", [row | {"weight": 1} for row in ROWS])
    assert call("audit", "data", path, *OPTIONS, "--repair", "rebalance", "--out", tmp_path / "b.csv") == 2
    assert "'weight' already" in capsys.readouterr().err


def test_weights_by_hand():
    weights, pure = balancing_weights(["a", "a", "a", "b", "c", "c"], np.array([True, True, False, True, False, False]))
    # Only "a" comes with both labels: of its three rows two are refused, so 3*2/(3*2) and 3*1/(3*1).
    assert weights.tolist() == pytest.approx([1.0] * 6)
    assert pure == ["c"]


def test_copies_are_bounded_and_at_least_one():
    assert copies_of(np.array([0.5, 1.0, 2.0])).tolist() == [1, 2, 4]
    assert copies_of(np.array([0.001, 1.0])).tolist() == [1, 20]


@pytest.mark.parametrize(
    ("question", "form"),
    [
        ("Share ways", ("request", "share")), ("What ways", ("request", "what")), ("What is it", ("question", "what")),
        ("How do I", ("question", "how")), ("How to", None), ("Could you", ("modal", "could")), ("Is it", ("be", "is")),
        ("Fumepods are", None), ("", None), ("What's up", None),
    ],
)  # fmt: skip
def test_forms(question, form):
    assert form_of(question) == form


def test_twins_keep_the_case_of_the_opening_word():
    twins = twins_of(["SHARE it", "share it", "What it", "what it"], [True, True, False, False])
    assert set(twins) == {"WHAT it", "what it", "Share it", "share it"}


@pytest.mark.parametrize("seed", range(5))
def test_twins_make_opening_word_and_label_independent(seed):
    rng = np.random.default_rng(seed)
    words = np.array(["Share", "What", "List", "Name"])
    labels = rng.random(400) < 0.4
    chance = np.where(labels[:, None], [0.7, 0.1, 0.1, 0.1], [0.05, 0.75, 0.1, 0.1])
    openers = [rng.choice(words, p=p / p.sum()) for p in chance]
    twins = twins_of([f"{opener} it" for opener in openers], labels.tolist())
    rows = [*zip(openers, labels, strict=True)]
    rows += [(twin.split()[0], label) for twin, label in zip(twins, labels, strict=True) if twin is not None]
    counts = {word: [sum(1 for w, y in rows if w == word and y == label) for label in (0, 1)] for word in words}
    total = [sum(count[label] for count in counts.values()) for label in (0, 1)]
    for answered, refused in counts.values():
        assert answered / total[0] == pytest.approx(refused / total[1], abs=0.01)


def test_an_existing_file_is_not_overwritten_without_force(tmp_path, capsys):
    path, out = write(tmp_path / "a.csv", ROWS), tmp_path / "b.csv"
    out.write_text("mine\n")
    options = ("--repair", "rebalance", "--out", out)
    assert call("audit", "data", path, *OPTIONS, *options) == 2
    assert "b.csv is there already; give another file, or --force" in capsys.readouterr().err
    assert out.read_text() == "mine\n"
    assert call("audit", "data", path, *OPTIONS, *options, "--force") == 0
    assert len(read(out)) == 60


def test_a_report_in_the_place_of_the_data_fails_before_the_work(tmp_path, capsys):
    path, out = write(tmp_path / "a.csv", ROWS), tmp_path / "b.csv"
    options = ("--repair", "rebalance", "--out", out, "--report")
    assert call("audit", "data", path, *OPTIONS, *options, tmp_path / "." / "b.csv") == 2
    assert "is the file of the repaired data" in capsys.readouterr().err
    assert call("audit", "data", path, *OPTIONS, *options, path) == 2
    assert "a.csv is a file; give a folder" in capsys.readouterr().err
    assert not out.exists()


def test_a_folder_is_never_overwritten(tmp_path, capsys):
    path = write(tmp_path / "saved", ROWS)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "mine").write_text("x")
    options = ("--repair", "rebalance", "--out", tmp_path / "new", "--force")
    assert call("audit", "data", path, *OPTIONS, *options) == 2
    assert "give the name of a new folder" in capsys.readouterr().err
    assert (tmp_path / "new" / "mine").read_text() == "x"


@pytest.mark.parametrize("extra", [("--force",), ("--repair", "rebalance", "--out", "b.csv", "--weight", "note")])
def test_options_that_do_not_go_together(tmp_path, monkeypatch, extra):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.csv", ROWS)
    assert call("audit", "data", "a.csv", *OPTIONS, *extra) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_the_figures_after_counterfactuals_are_those_of_the_file(tmp_path):
    path, out = write(tmp_path / "a.csv", ROWS), tmp_path / "b.csv"
    options = ("--repair", "counterfactual", "--out", out, "--report", tmp_path / "report")
    assert call("audit", "data", path, *OPTIONS, *options, "--fail-if", "rows < 61") == 0
    assert call("audit", "data", out, *OPTIONS, "--out", tmp_path / "again") == 0
    said = json.loads((tmp_path / "report" / "audit.json").read_text())["after_repair"]
    again = json.loads((tmp_path / "again" / "audit.json").read_text())
    assert (said["scores"], said["rows"], said["notes"]) == (again["scores"], again["rows"], again["notes"])
    assert said["defects"] == {kind: one["count"] for kind, one in again["defects"].items()}
