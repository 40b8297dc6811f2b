"""Tables and pictures in documents: filled from result files, checked, refused where a cell is in doubt."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from unmirage.cli import app, run
from unmirage.errors import UserError
from unmirage.runs import Run
from unmirage.schema import Record
from unmirage.stats import wilson
from unmirage.stats.rates import wilson_of
from unmirage.studies import commands, svg, wording
from unmirage.studies.blocks import read_document
from unmirage.studies.fill import fill
from unmirage.studies.results import read_results
from unmirage.studies.seeds import estimate, unit_of
from unmirage.studies.specs import Measured

WHAT = "first-word:what"
ROOT = Path(__file__).parents[1]


def record(model: str = "NPO", value: float | None = 0.2, **more: Any) -> Record:
    """A rate over 100 questions with Wilson's interval."""
    n = more.get("n", 100)
    found = wilson(round((value or 0) * n), n) if value is not None and 0 <= value <= 1 else None
    known = {
        "model": model, "method": model.lower(), "seed": 0, "data": "safety", "metric": "asr", "value": value,
        "low": found and found.low, "high": found and found.high, "n": n, "judge": "truth-1", "attack": WHAT,
    }  # fmt: skip
    return Record.model_validate(known | more)


def write(folder: Path, records: list[Record], name: str = "results.json") -> Path:
    path = folder / name
    rows = [one.model_dump(exclude_defaults=True) for one in records]
    path.write_text(json.dumps({"schema": 1, "run": "x", "records": rows}))
    return path


def document(folder: Path, *blocks: str, results: str = "results.json") -> Path:
    path = folder / "doc.md"
    parts = [f"<!-- {block} -->\nold\n<!-- end -->" for block in blocks]
    path.write_text("\n\n".join([f"# Title\n\n<!-- records: {results} -->", *parts, "The end.\n"]))
    return path


def filled(folder: Path, records: list[Record], *blocks: str) -> str:
    write(folder, records)
    return fill([document(folder, *blocks)])[0].text


def cells(text: str, row: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"| {row} |"))
    return [part.strip() for part in line.strip("|").split("|")][1:]


# Means and intervals over seeds


def test_three_seeds_have_students_interval_cut_to_the_range() -> None:
    found = estimate(
        [record(value=value, seed=seed) for seed, value in enumerate((0.1, 0.2, 0.3))], Measured(metric="asr")
    )
    assert found.value == pytest.approx(0.2)
    # t with two degrees of freedom is 4.3027; s = 0.1; 0.2 - 4.3027 * 0.1 / sqrt(3) is below zero
    assert found.low == 0
    assert found.high == pytest.approx(0.2 + 4.302653 * 0.1 / 3**0.5, abs=1e-5)
    assert found.seeds == (0, 1, 2)
    assert found.worst("low") == 0.3
    assert found.worst("high") == 0.1


def test_seeds_that_agree_have_the_interval_of_one_because_they_were_asked_the_same() -> None:
    found = estimate([record(value=0.0, seed=seed) for seed in range(3)], Measured(metric="asr"))
    assert (found.low, found.high) == pytest.approx((0, wilson(0, 100).high))


def test_more_seeds_on_the_same_questions_do_not_make_the_interval_too_narrow() -> None:
    """Where the question alone decides, five seeds are worth no more questions than one: coverage, counted exactly."""
    covered = 0.0
    for failed in range(101):
        found = estimate([record(value=failed / 100, seed=seed) for seed in range(5)], Measured(metric="asr"))
        assert found.low is not None
        assert found.high is not None
        if found.low <= 0.3 <= found.high:
            covered += math.comb(100, failed) * 0.3**failed * 0.7 ** (100 - failed)
    assert covered > 0.93, "95 % are meant; of all rows together it would be 67 %"


def test_an_interval_wider_than_its_rows_counts_for_fewer_of_them() -> None:
    """Rows of one picture are not independent: the seeds' own intervals tell how many they are worth."""
    wide = wilson(5, 25)
    several = [record(value=0.2, seed=seed, low=wide.low, high=wide.high) for seed in range(4)]
    found = estimate(several, Measured(metric="asr"))
    assert (found.low, found.high) == pytest.approx((wide.low, wide.high))


def test_rows_without_a_verdict_are_not_counted_as_looked_at() -> None:
    several = [record(value=0.0, seed=seed, errors=60, low=None, high=None) for seed in range(2)]
    found = estimate(several, Measured(metric="asr"))
    assert found.high == pytest.approx(wilson(0, 40).high)
    assert found.missing == 120


def test_one_seed_keeps_its_own_interval() -> None:
    found = estimate([record(low=0.05, high=0.9)], Measured(metric="asr"))
    assert (found.low, found.high) == (0.05, 0.9)


def test_differences_that_agree_keep_what_their_rows_leave_open() -> None:
    several = [record(value=0.5, seed=seed, metric="asr_effect", low=0.4, high=0.6) for seed in range(4)]
    found = estimate(several, Measured(metric="asr_effect"))
    assert (found.low, found.high) == pytest.approx((0.4, 0.6))


@given(st.lists(st.integers(0, 50), min_size=2, max_size=6))
def test_the_interval_holds_the_mean_and_is_a_rates(counts: list[int]) -> None:
    several = [record(value=count / 50, n=50, seed=seed) for seed, count in enumerate(counts)]
    found = estimate(several, Measured(metric="asr"))
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low <= found.value + 1e-12
    assert found.value - 1e-12 <= found.high <= 1
    of_rows = wilson_of(fmean(counts) / 50, 50, 0.95)
    assert found.high - found.low >= of_rows.high - of_rows.low - 1e-9


def test_a_difference_of_probes_is_counted_in_points() -> None:
    several = [record(value=value, seed=seed, metric="probe_selectivity", low=-0.3, high=0.9)
               for seed, value in enumerate((-0.01, 0.3))]  # fmt: skip
    assert unit_of(Measured(metric="probe_selectivity")) == "points"
    assert estimate(several, Measured(metric="probe_selectivity")).value == pytest.approx(0.145)


@pytest.mark.parametrize(
    ("records", "why"),
    [
        ([record(), record(split="seen")], "differ in split (none, seen)"),
        ([record(), record(value=0.3)], "differ in nothing but their figures"),
        ([record(axes={"rho": 0.5}), record(axes={"rho": 1})], "differ in axes.rho (0.5, 1)"),
        ([record(value=None)], "has no value"),
        ([record(value=3.0)], "say unit: number"),
        ([record(seed=s, metric="asr_change_p") for s in (0, 1)], "p values of several seeds have no mean"),
    ],
)
def test_what_is_no_one_figure_is_refused(records: list[Record], why: str) -> None:
    with pytest.raises(UserError) as error:
        estimate(records, Measured(metric=records[0].metric))
    assert why in str(error.value)


# Tables


TABLE = """table:
rows: model
columns:
  - {metric: asr, attack: "first-word:what", before: true, title: ASR}
  - {metric: utility, title: useful, interval: false}
caption: What the word does
"""


def models(**values: tuple[float, float, float]) -> list[Record]:
    return [
        one
        for model, (before, after, useful) in values.items()
        for one in (
            record(model, before, attack=None),
            record(model, after),
            record(model, useful, metric="utility", attack=None),
        )
    ]


def test_a_table_has_arrows_intervals_and_a_caption(tmp_path: Path) -> None:
    text = filled(tmp_path, models(SFT=(0.0, 0.95, 1.0), NPO=(0.0, 0.02, 0.9)), TABLE)
    assert "| model | ASR | useful |\n| --- | --- | --- |\n| SFT |" in text
    ends = wilson(95, 100)
    assert cells(text, "SFT") == [f"0.0 → 95.0 [{100 * ends.low:.1f}–{100 * ends.high:.1f}]", "100.0"]
    assert "What the word does. Percent. One run each, seed 0. In brackets: the run's own 95 % interval." in text
    assert "`truth-1`; 100 rows behind a figure of one seed." in text
    assert "old" not in text
    assert text.endswith("<!-- end -->\n\nThe end.\n")


def test_seeds_are_told_and_those_that_differ_named(tmp_path: Path) -> None:
    records = [one.model_copy(update={"seed": seed}) for seed in range(3) for one in models(SFT=(0.0, 0.9, 1.0))]
    text = filled(tmp_path, records + models(Base=(1.0, 1.0, 1.0)), TABLE)
    assert "Means of seeds 0 to 2; Base seed 0." in text
    assert "wider of Student's t over the seeds and Wilson's of one seed's rows" in text


def test_a_model_of_several_seeds_is_one_row(tmp_path: Path) -> None:
    """A recipe calls them "NPO (seed 0)", "NPO (seed 1)"; a name that only looks so stays as it is."""
    records = [record(f"NPO (seed {seed})", seed=seed) for seed in (0, 1)] + [record("RMU (seed 7)")]
    text = filled(tmp_path, records, "table: {rows: model, columns: [asr]}")
    assert len(cells(text, "NPO")) == 1
    assert len(cells(text, "RMU (seed 7)")) == 1


def test_rows_without_a_verdict_are_told(tmp_path: Path) -> None:
    text = filled(tmp_path, [record(errors=3, unparsed=2)], "table: {rows: model, columns: [asr]}")
    assert "5 of 100 rows have no usable verdict" in text


def test_rows_are_grouped_sorted_labelled_and_the_best_is_bold(tmp_path: Path) -> None:
    records = [record("a", 0.5), record("b", 0.1), record("c", 0.3)]
    columns = "columns: [{metric: asr, interval: false, best: true}]"
    text = filled(tmp_path, records, f"table:\n  rows: model\n  {columns}\n  labels: {{a: Alpha}}\n  sort: -asr")
    assert [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")][2:] == ["Alpha", "c", "b"]
    assert cells(text, "b") == ["**10.0**"]
    text = filled(tmp_path, records, f"table:\n  rows: model\n  {columns}\n  groups: {{One: [c], Two: [b, a]}}")
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")][2:]
    assert rows == ["**One**", "c", "**Two**", "b", "a"]


def test_several_values_may_be_called_one(tmp_path: Path) -> None:
    records = [record(f"SFT rho={rho}", axes={"rho": rho}) for rho in (1.0, 0.5)]
    spec = 'table: {rows: model, across: rho, columns: [{metric: asr, interval: false}], labels: {"SFT*": SFT}}'
    text = filled(tmp_path, records, spec)
    assert "| model | 0.5 | 1 |" in text
    assert cells(text, "SFT") == ["20.0", "20.0"]


def test_the_worst_seed_is_shown(tmp_path: Path) -> None:
    records = [record(value=value, seed=seed) for seed, value in enumerate((0.1, 0.4))]
    text = filled(tmp_path, records, "table: {rows: model, columns: [{metric: asr, worst: true, interval: false}]}")
    assert cells(text, "NPO") == ["25.0, worst 40.0"]


def test_method_by_stress(tmp_path: Path) -> None:
    records = [record(model, stress=stress) for model in ("a", "b") for stress in (None, "quantize")][:-1]
    spec = (
        "table:\n  rows: model\n  across: stress\n  columns: [{metric: asr, interval: false}]\n  labels: {none: as is}"
    )
    with pytest.raises(UserError, match="no record for b, 'quantize'"):
        filled(tmp_path, records, spec)
    text = filled(tmp_path, records, f"{spec}\n  missing: allow")
    assert "| model | as is | quantize |" in text
    assert cells(text, "b") == ["20.0", "–"]


def test_names_cannot_break_a_table(tmp_path: Path) -> None:
    text = filled(tmp_path, [record("a|b <i>*")], "table: {rows: model, columns: [asr]}")
    assert r"| a\|b &lt;i&gt;\* |" in text


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("{rows: modle, columns: [asr]}", "'modle' is neither a setting nor a field of the records"),
        ("{rows: model, columns: [{metric: asr, atack: x}]}", "'atack' is neither a setting nor a field"),
        ("{rows: model, columns: [asr], where: {split: sen}}", "no record matches split: sen, metric: asr; of split"),
        ("{rows: model, columns: [ars]}", "of metric there are asr"),
        ("{rows: method, columns: [asr]}", "2 records of seed 0 match one cell; two of them differ in split"),
        (
            "{rows: model, columns: [asr], where: {split: seen}, order: [x]}",
            "names 'x', which is not there; there are NPO",
        ),
        ("{rows: model, columns: [asr], where: {split: seen}, sort: x}", "sort names 'x'; columns are asr"),
        ("{rows: model, columns: [asr], where: {split: seen}, groups: {G: []}}", "'NPO' is in no group"),
        ("{rows: model, columns: []}", "field 'columns'"),
        ("{rows: model}", "field 'columns': Field required"),
        ("{rows: model, columns: [asr], colour: red}", "field 'colour'"),
        ("{rows: model, columns: [{metric: asr, before: true}]}", "needs the attack"),
        ("{rows: model, columns: [{metric: own, best: true}]}", "say good: low or good: high"),
        ("[asr]", "a table is a mapping"),
        ("{rows: [}", "neither YAML nor JSON"),
        ("{rows: 2024-13-45}", "neither YAML nor JSON"),
    ],
)
def test_a_block_in_doubt_is_refused_with_its_line(tmp_path: Path, spec: str, why: str) -> None:
    records = [record(split="seen", method="x"), record(split="unseen", method="x")]
    with pytest.raises(UserError) as error:
        filled(tmp_path, records, f"table: {spec}")
    assert f"{tmp_path / 'doc.md'}, line 5" in str(error.value)
    assert why in str(error.value)


# Documents


def test_blocks_must_end_and_code_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "doc.md"
    path.write_text("```html\n<!-- table: {} -->\n```\n\n~~~\n<!-- end -->\n~~~\ntext\n")
    assert read_document(path).blocks == ()
    for text in ("<!-- table: {rows: a, columns: [b]} -->\n", "x\n<!-- end -->", "<!-- records: a,, b -->"):
        path.write_text(f"one\n{text}")
        with pytest.raises(UserError, match=r"doc\.md, line [23]"):
            read_document(path)


def test_line_ends_are_kept(tmp_path: Path) -> None:
    write(tmp_path, [record()])
    path = tmp_path / "doc.md"
    path.write_bytes(b"<!-- table: {rows: model, columns: [asr]} -->\r\n<!-- end -->\r\n")
    fill([path], [tmp_path / "results.json"])[0].write()
    assert path.read_bytes().count(b"\n") == path.read_bytes().count(b"\r\n") > 5
    assert fill([path], [tmp_path / "results.json"])[0].current


def test_pending_blocks_need_no_results(tmp_path: Path) -> None:
    path = document(tmp_path, "table: {rows: model, columns: [asr], pending: true}", results="nowhere.json")
    one = fill([path])[0]
    assert "-->\n\n*Not measured yet.*\n\n<!-- end -->" in one.text
    assert not one.current
    one.write()
    assert fill([path])[0].current


def test_results_are_a_documents_or_those_given(tmp_path: Path) -> None:
    write(tmp_path, [record()])
    path = document(tmp_path, "table: {rows: model, columns: [{metric: asr, interval: false}]}")
    other = write(tmp_path, [record(value=0.4)], "other.json")
    assert cells(fill([path])[0].text, "NPO") == ["20.0"]
    assert cells(fill([path], [other])[0].text, "NPO") == ["40.0"]
    path.write_text(path.read_text().replace("<!-- records: results.json -->", ""))
    with pytest.raises(UserError, match="names no results"):
        fill([path])


def test_nothing_is_written_where_one_block_is_wrong(tmp_path: Path) -> None:
    write(tmp_path, [record()])
    path = document(tmp_path, "table: {rows: model, columns: [asr]}", "table: {rows: model, columns: [rr]}")
    was = path.read_bytes()
    assert run(lambda: app(["fill", str(path)], standalone_mode=False)) == 2
    assert path.read_bytes() == was


# Pictures


DOSE = """figure:
x: rho
y: [{metric: asr, title: ASR}, {metric: rr, title: RR}]
lines: model
panels: split
file: pictures/dose.svg
caption: The mirage by bias
"""


def study(seeds: int = 2) -> list[Record]:
    return [
        record(model, value, seed=seed, metric=metric, split=split, axes={"rho": rho})
        for model in ("SFT", "<NPO> & more")
        for seed in range(seeds)
        for rho, value in ((1.0, 0.9), (0.0, 0.1), (0.5, 0.5 + 0.1 * seed))
        for metric in ("asr", "rr")
        for split in ("seen", "unseen")
    ]


def drawn(folder: Path, records: list[Record], *blocks: str) -> ET.Element:
    write(folder, records)
    (picture,) = fill([document(folder, *blocks)])[0].pictures.values()
    return ET.fromstring(picture)


def texts(picture: ET.Element) -> list[str]:
    return [one.text or "" for one in picture.iter("{http://www.w3.org/2000/svg}text")]


def test_lines_are_drawn_from_left_to_right_in_every_panel(tmp_path: Path) -> None:
    picture = drawn(tmp_path, study(), DOSE)
    assert picture.get("aria-label") == "The mirage by bias."
    assert {"ASR, seen", "ASR, unseen", "RR, seen", "RR, unseen", "<NPO> & more", "SFT"} <= set(texts(picture))
    paths = [one for one in picture.iter() if one.get("class") == "line"]
    assert len(paths) == 2 * 4
    xs = [float(point.split()[0]) for point in (paths[0].get("d") or "")[1:].split("L")]
    assert xs == sorted(xs)
    assert len(xs) == 3
    ys = [float(point.split()[1]) for point in (paths[0].get("d") or "")[1:].split("L")]
    assert ys == sorted(ys, reverse=True)  # up the picture as the rate rises
    assert sum(one.get("class") == "band" for one in picture.iter()) == 8
    assert sum((one.get("d") or "").count("h0") for one in picture.iter() if one.get("class") == "dot") == 8 * 3 * 2


def test_a_picture_is_the_same_each_time_and_current_once_written(tmp_path: Path) -> None:
    write(tmp_path, study())
    path = document(tmp_path, DOSE)
    one = fill([path])[0]
    assert not one.current
    one.write()
    again = fill([path])[0]
    assert again.current
    assert again.pictures == one.pictures
    assert (
        "![The mirage by bias](pictures/dose.svg)\n\nThe mirage by bias. Percent. Means of seeds 0, 1. Bands:"
        in one.text
    )
    (tmp_path / "pictures" / "dose.svg").write_text("<svg/>")
    assert not fill([path])[0].current


def test_a_heat_map_has_a_number_in_each_cell(tmp_path: Path) -> None:
    records = [
        record(model, value, stress=stress)
        for model, values in {"SFT": (0.0, 0.95), "NPO": (0.004, 1.0)}.items()
        for stress, value in zip((None, "quantized to four bits"), values, strict=True)
    ]
    spec = "figure: {kind: heat, rows: model, across: stress, value: asr, file: h.svg, caption: Stress}"
    found = texts(drawn(tmp_path, records, spec))
    assert found == ["none", "quantized to four bits", "SFT", "0", "95", "NPO", "0.4", "100"]


def test_a_heat_map_of_listed_columns(tmp_path: Path) -> None:
    """Stresses have attacks of their own, so their columns have conditions of their own."""
    records = [record("SFT", 0.1), record("SFT", 0.3, stress="gcg", attack="gcg"), record("SFT", 1.0, metric="rr")]
    columns = "columns: [{title: word, metric: asr, stress: null}, {title: suffix, metric: asr, attack: gcg}]"
    spec = f"figure: {{kind: heat, rows: model, {columns}, file: h.svg, caption: c}}"
    assert texts(drawn(tmp_path, records, spec)) == ["word", "suffix", "SFT", "10", "30"]
    for wrong, why in (("gcg}]", "gcg}], value: asr"), ("columns", "across: stress, columns")):
        with pytest.raises(UserError, match="one of these"):
            drawn(tmp_path, records, spec.replace(wrong, why))
    with pytest.raises(UserError, match="two columns have one title"):
        drawn(tmp_path, records, spec.replace("suffix", "word"))
    with pytest.raises(UserError, match="counted in number and percent"):
        drawn(tmp_path, records, spec.replace("attack: gcg", "attack: gcg, unit: number"))


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("{x: rho, y: [asr], lines: model, file: ../a.svg, caption: c}", "in the document's folder or below"),
        ("{x: rho, y: [asr], lines: model, file: /a.svg, caption: c}", "in the document's folder or below"),
        ("{x: rho, y: [asr], lines: model, file: a.png, caption: c}", "in the document's folder or below"),
        ("{x: rho, y: [asr], lines: model, file: a.svg}", "field 'caption'"),
        ("{x: rho, y: [asr], lines: model, file: a.svg, caption: c}", "differ in split"),
        ("{x: tau, y: [asr], lines: model, file: a.svg, caption: c}", "axes here are rho"),
        ("{x: rho, y: [{metric: asr, attack: a, before: true}], lines: model, file: a.svg, caption: c}", "one figure"),
    ],
)
def test_a_picture_in_doubt_is_refused(tmp_path: Path, spec: str, why: str) -> None:
    with pytest.raises(UserError) as error:
        filled(tmp_path, study(), f"figure: {spec}")
    assert why in str(error.value)
    assert "line 5" in str(error.value)


def test_a_hole_in_a_line_is_refused_or_left_out(tmp_path: Path) -> None:
    records = [one for one in study() if (one.model, one.axes["rho"]) != ("SFT", 0.5)]
    with pytest.raises(UserError, match=r"no record for SFT, rho 0\.5, 'ASR, seen'"):
        drawn(tmp_path, records, DOSE)
    paths = [
        one.get("d") or ""
        for one in drawn(tmp_path, records, f"{DOSE}missing: allow").iter()
        if one.get("class") == "line"
    ]
    assert sorted(path.count("L") for path in paths) == [1, 1, 1, 1, 2, 2, 2, 2]


def test_two_blocks_do_not_write_one_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"another block writes pictures/dose\.svg"):
        filled(tmp_path, study(), DOSE, DOSE)


@given(st.lists(st.floats(0, 190), min_size=1, max_size=9))
def test_labels_do_not_overlap_and_keep_their_order(wanted: list[float]) -> None:
    places = svg.spread_out(wanted, 14, 0, 190)
    by_place = sorted(places)
    assert all(b - a >= 14 - 1e-6 for a, b in pairwise(by_place))
    assert by_place[0] >= -1e-6
    assert by_place[-1] <= 190 + 1e-6
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    assert [places[i] for i in order] == by_place


def test_numbers_are_written_in_their_unit() -> None:
    assert wording.number(-0.0001, "points", 1) == "0.0"
    assert wording.number(-0.123, "points", 1) == "−12.3"
    assert wording.number(0.123, "points", 0) == "+12"
    assert wording.number(0.5, "percent", 1) == "50.0"
    assert wording.number(12.5, "number", 2) == "12.50"


# Packs and the command line


def test_the_mirage_score_of_a_recipes_data_is_a_record(tmp_path: Path) -> None:
    write(tmp_path, [record()], "metrics.json")
    worlds = {"w": {"rho": 0.75, "seed": 3, "salience": "badge", "general": 10}}
    data = {"safety": {"file": "safety.json", "world": "w"}, "own": {"file": "own.json", "world": None}}
    (tmp_path / "recipe.json").write_text(json.dumps({"name": "r", "worlds": worlds, "data": data}))
    for name in ("safety", "own", "safety-against-own"):
        (tmp_path / "audits" / name).mkdir(parents=True)
        score = None if "against" in name else {"value": 0.8, "low": 0.7, "high": 0.9, "majority": 0.5}
        (tmp_path / "audits" / name / "audit.json").write_text(json.dumps({"mirage_score": score, "rows": 40}))
    own, safety = [one for one in read_results([tmp_path]) if one.metric == "mirage_score"]
    assert (safety.data, safety.seed, safety.axes) == ("safety", 3, {"rho": 0.75, "salience": "badge"})
    assert (safety.value, safety.low, safety.high, safety.n) == (0.8, 0.7, 0.9, 40)
    assert (own.data, own.seed, own.axes) == ("own", 0, {})
    (tmp_path / "audits" / "own" / "audit.json").write_text("{}")
    with pytest.raises(UserError, match=r"audit\.json, field 'mirage_score'"):
        read_results([tmp_path])


def test_tables_of_benchmarks_are_left_to_them(tmp_path: Path) -> None:
    path = tmp_path / "doc.md"
    path.write_text("<!-- table align -->\n| a |\n<!-- end -->\n<!-- results:begin -->\n")
    assert read_document(path).blocks == ()


def invoke(*args: object) -> Any:
    return CliRunner().invoke(app, [str(arg) for arg in args])


def test_a_pack_keeps_what_the_documents_show_and_where_it_is_from(tmp_path: Path) -> None:
    with Run.open(tmp_path / "run", command="evaluate", config={"model": "x"}, inputs={}) as made:
        shown = [record("SFT (seed 1)", 1 / 3, seed=1), record("SFT (seed 1)", 0.0, seed=1, attack=None)]
        rows = [one.model_dump() for one in [*shown, record(metric="rr"), record(attack="first-word:share")]]
        made.write_json("metrics.json", {"schema": 1, "run": made.manifest.id, "records": rows})
    path = document(
        tmp_path,
        f"table: {{rows: model, columns: [{{metric: asr, attack: '{WHAT}', before: true}}]}}",
        results="p.json",
    )
    result = invoke("fill", "--pack", tmp_path / "run", "--out", tmp_path / "p.json", "--for", path)
    assert result.exit_code == 0, result.output
    assert "p.json: 2 records" in result.output
    there = json.loads((tmp_path / "p.json").read_text())
    assert [one["value"] for one in there["records"]] == [0.333333, 0.0]
    assert "stress" not in there["records"][0]
    assert there["run"] == there["runs"][0]["run"] == made.manifest.id
    assert "python" in there["runs"][0]["versions"]
    assert fill([path])[0].text == fill([path], [tmp_path / "run"])[0].text
    assert [one.model for one in read_results([tmp_path / "p.json"])] == ["SFT", "SFT"]
    both = read_results([tmp_path / "run", tmp_path / "p.json"])
    assert [(one.model, one.metric) for one in both][:2] == [("SFT", "asr"), ("SFT", "asr")]
    assert len(both) == 4, "what the pack rounded is no second record"


def test_fill_and_check_from_the_command_line(tmp_path: Path) -> None:
    write(tmp_path, [record(), *study()])
    path = document(
        tmp_path,
        "table: {name: one, rows: model, columns: [asr], where: {split: null}}",
        DOSE + "where: {split: [seen, unseen]}",
    )
    result = invoke("fill", path, "--check")
    assert result.exit_code == 1
    assert f"{path}, line 5, table 'one': not current" in result.output
    assert f"{path}, line 9, figure: not current" in result.output
    assert not (tmp_path / "pictures").exists()
    assert "2 of 2 blocks made anew" in invoke("fill", path).output
    result = invoke("fill", path, "--check")
    assert (result.exit_code, result.output) == (0, "2 blocks are current.\n")
    assert "current" in invoke("fill", path).output
    write(tmp_path, [record(value=0.3), *study()])
    assert invoke("fill", path, "--check").exit_code == 1


def test_a_large_pack_is_told_where_less_can_be_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "LARGEST", 10)
    write(tmp_path, study())
    path = document(tmp_path, "table: {rows: model, columns: [asr]}")
    packed = ("fill", "--pack", tmp_path / "results.json", "--out", tmp_path / "p.json")
    assert "pack what they show alone (--for)" in invoke(*packed).output
    assert "warning" not in invoke(*packed, "--for", path).output


@pytest.mark.parametrize("args", [["--pack"], ["--for", "x"], ["--out", "x"], ["--pack", "--check", "--out", "x"]])
def test_options_that_do_not_belong_together(tmp_path: Path, args: list[str]) -> None:
    path = document(tmp_path)
    assert run(lambda: app(["fill", str(path), *args], standalone_mode=False)) == 2


def test_a_broken_result_file_is_named(tmp_path: Path) -> None:
    path = document(tmp_path, "table: {rows: model, columns: [asr]}")
    with pytest.raises(UserError, match=r"results\.json cannot be read"):
        fill([path])
    (tmp_path / "results.json").write_text('{"schema": 1, "run": "x", "records": [{}]}')
    with pytest.raises(UserError, match=r"results\.json, field 'records\.0\.model'"):
        fill([path])


def test_the_examples_of_the_page_can_be_filled(tmp_path: Path) -> None:
    """What docs/tables.md shows as a block is one."""
    code = (ROOT / "docs" / "tables.md").read_text().split("```markdown\n")[1:]
    text = "\n".join(part.partition("```")[0] for part in code)
    (tmp_path / "doc.md").write_text(text)
    found = read_document(tmp_path / "doc.md")
    assert [block.where.split(", ")[-1] for block in found.blocks] == ["table", "figure", "figure"]
    assert found.results == (tmp_path / "results" / "repair.json",)
    groups = ("Mixed-SFT", "DPO", "Twin SFT")
    shared = {"judge": "sandbox-truth-1", "axes": {"rho": 1.0}}
    under = {"asr": WHAT, "rr": "first-word:share"}
    records = [
        record(model, 0.1, metric=metric, split=split, attack=attack, **shared)
        for model in groups
        for split in ("seen", "unseen")
        for metric, attack in (*((name, None) for name in ("asr", "rr", "utility")), *under.items())
    ]
    write(tmp_path, records)
    done = fill([tmp_path / "doc.md"], [tmp_path / "results.json"])[0]
    assert [path.name for path in done.pictures] == ["dose.svg", "stress.svg"]
    assert "**Repaired**" in done.text


def test_the_documents_of_this_project_are_current() -> None:
    found = fill([ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))])
    assert [block.where for one in found for block in one.stale] == []
