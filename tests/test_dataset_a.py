"""Safety sets as their authors hand them out: FigStep, MM-SafetyBench, XSTest, MOSSBench, SIUO, VLSBench, HoliSafe."""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import dataset_fixtures_a as made
import pytest

from unmirage import cli
from unmirage.datasets import (
    FORMATS,
    about,
    check_training,
    figstep,
    holisafe,
    load,
    mm_safetybench,
    mossbench,
    safety,
    siuo,
    vlsbench,
    xstest,
)
from unmirage.errors import UserError

MODULES = (figstep, mm_safetybench, xstest, mossbench, siuo, vlsbench, holisafe)
XSTEST = Path(__file__).parents[2] / "shared" / "data" / "xstest" / "xstest_prompts.csv"


def call(*arguments: object) -> int:
    words = [str(one) for one in arguments]
    return cli.run(lambda: cli.app(words, prog_name="unmirage", standalone_mode=False))


def kinds(loaded: Any) -> list[tuple[int, str, str, bool]]:
    return [(problem.row, problem.field, problem.kind, problem.skipped) for problem in loaded.problems]


def ids(loaded: Any) -> list[str]:
    return [query.id for query in loaded.queries]


# --- every set ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.ABOUT.name)
def test_a_folder_is_recognised_by_its_own_finder_alone_and_reads_without_a_problem(module, tmp_path):
    root = made.SETS[module.ABOUT.name](tmp_path / "set")
    parts = module.find(root)
    assert parts
    assert {part.split for part in parts} <= {key.removeprefix("tiny-") for key in module.ABOUT.rows}
    for other in MODULES:
        assert other is module or other.find(root) == []
    for part in parts:
        loaded = load(part.path, format=part.format, split=part.split, images=part.images, verify_images=True)
        assert loaded.queries
        assert loaded.problems == []
        assert {query.split for query in loaded.queries} == {part.split}
        assert len(set(ids(loaded))) == len(loaded.queries)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.ABOUT.name)
def test_nothing_is_found_in_an_empty_a_foreign_or_a_broken_folder(module, tmp_path):
    assert module.find(tmp_path / "none") == module.find(tmp_path) == []
    for name in ("safebench.csv", "01-X.json", "xstest_prompts.csv", "information.json", "siuo_gen.json", "data.json"):
        (tmp_path / name).write_bytes(b'{"a": [\xff')
    assert module.find(tmp_path) == []


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.ABOUT.name)
def test_what_is_known_of_a_set_hangs_at_each_of_its_formats(module):
    formats = [name for name, loader in FORMATS.items() if getattr(loader, "__module__", "") == module.__name__]
    assert module.ABOUT.name in formats
    assert all(about(name) is module.ABOUT for name in formats)
    assert module.ABOUT.page.startswith("https://")
    assert module.ABOUT.licence


FOLDERS = {
    "figstep": ("data/question/safebench.csv", "csv"),
    "figstep-text": ("data/question/safebench.csv", "csv"),
    "figstep-benign": ("data/question/benign_sentences_without_harmful_phase.csv", "csv"),
    "xstest": ("xstest_prompts.csv", "csv"),
    "mossbench": ("data/images_information/information.json", "object"),
    "mossbench-contrast": ("data_contrast/images_information/information.json", "object"),
    "mm-safetybench": ("data/processed_questions/13-Gov_Decision.json", "object"),
    "siuo": ("data/siuo_gen.json", "list"),
    "siuo-mcqa": ("data/siuo_mcqa.json", "list"),
    "vlsbench": ("data/data.json", "list"),
    "holisafe": ("holisafe_bench.json", "list"),
}


@pytest.fixture(params=FOLDERS)
def one(request, tmp_path: Path) -> tuple[str, Path, str]:
    """A format with a good file of it and how that is written."""
    place, sort = FOLDERS[request.param]
    name = about(request.param).name  # type: ignore[union-attr]
    return request.param, made.SETS[name](tmp_path) / place, sort


def test_a_byte_order_mark_changes_nothing(one):
    format, file, _ = one
    before = load(file, format=format)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert load(file, format=format).queries == before.queries


def test_a_file_that_is_not_of_this_set_is_refused_by_the_names_of_its_columns(one):
    format, file, sort = one
    other = {"csv": "a,b\n1,2\n", "object": '{"1": {"a": 1}}', "list": '[{"a": 1}]'}[sort]
    file.write_text(other)
    with pytest.raises(UserError, match=r"lacks '.*it has the columns a"):
        load(file, format=format)


def test_a_missing_a_broken_and_an_empty_file_end_with_what_to_give(one):
    format, file, sort = one
    file.write_bytes(b'"\xff\xfe never ends')
    with pytest.raises(UserError, match="fetch it again"):
        load(file, format=format)
    file.write_text({"csv": file.read_text("latin-1")[:0], "object": "{}", "list": "[]"}[sort])
    with pytest.raises(UserError, match=r"lacks|nothing to read"):
        load(file, format=format)
    file.unlink()
    with pytest.raises(UserError, match="does not exist; give"):
        load(file, format=format)
    if sort != "csv":
        file.write_text("7")
        with pytest.raises(UserError, match="holds a number"):
            load(file, format=format)


def test_a_new_column_is_named_and_costs_no_row(one):
    format, file, sort = one
    before = load(file, format=format).queries
    if sort == "csv":
        head, *rows = csv.reader(io.StringIO(file.read_text(), newline=""))
        loaded = load(made.write_csv(file, [*head, "novel"], [[*row, "x"] for row in rows]), format=format)
    else:
        held = json.loads(file.read_text())
        for row in held.values() if sort == "object" else held:
            row["novel"] = {"x": 1}
        loaded = load(made.write_json(file, held), format=format)
    assert loaded.queries == before
    assert loaded.problems == []
    assert any("the column 'novel' is not known and was ignored" in warning for warning in loaded.warnings)


def test_a_folder_stands_for_its_one_file(one):
    format, file, _ = one
    if format in ("figstep", "figstep-text"):
        with pytest.raises(UserError, match=r"several files of the format 'figstep'; give one: .*SafeBench-Tiny"):
            load(file.parent, format=format)
    else:
        assert load(file.parent, format=format).queries
    empty = file.parent / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="is a folder"):
        load(empty, format=format)


def test_strict_ends_at_the_first_bad_row_and_without_it_the_rest_is_read(one):
    format, file, sort = one
    if sort == "csv":
        with file.open("a") as more:
            more.write("a,b,c,d,e,f,g,h\n")
    else:
        rows = json.loads(file.read_text())
        rows = {**rows, "9": "no row"} if sort == "object" else [*rows, 7]
        made.write_json(file, rows)
    loaded = load(file, format=format)
    assert loaded.queries
    assert list(loaded.defects.values()) == [1]
    with pytest.raises(UserError, match=r"row \d+ \(counting from 0\)"):
        load(file, format=format, strict=True)


PICTURED = [format for format in FOLDERS if format not in ("figstep-text", "figstep-benign", "xstest")]


@pytest.mark.parametrize("format", PICTURED)
def test_pictures_that_are_missing_broken_or_elsewhere(format, tmp_path):
    root = made.SETS[about(format).name](tmp_path / "set")
    file = root / FOLDERS[format][0]
    first = load(file, format=format).queries[0]
    count = len(load(file, format=format).queries)
    first.image.write_bytes(b"no picture")
    loaded = load(file, format=format, verify_images=True)
    assert loaded.defects == {"undecodable-image": 1}
    assert first.id not in ids(loaded)
    first.image.unlink()
    if count > 1:
        assert load(file, format=format).defects == {"missing-image": 1}
        assert len(load(file, format=format).queries) == count - 1
    kept = load(file, format=format, require_images=False)
    assert (len(kept.queries), [problem.skipped for problem in kept.problems]) == (count, [False])
    with pytest.raises(UserError, match=r"The image folder .* does not exist"):
        load(file, format=format, images=tmp_path / "nowhere")
    (tmp_path / "bare").mkdir()
    with pytest.raises(UserError, match=r"has no usable row; the first problem is: .*there is no file"):
        load(file, format=format, images=tmp_path / "bare")


# --- FigStep -----------------------------------------------------------------------------------------------------


def test_figstep_shows_the_picture_and_asks_one_text(tmp_path):
    root = made.figstep(tmp_path)
    file = root / "data" / "question" / "safebench.csv"
    loaded = load(file, format="figstep", verify_images=True, strict=True)
    assert ids(loaded) == ["1_1", "1_2", "2_1", "2_2"]
    assert {query.question for query in loaded.queries} == {figstep.PROMPT}
    last = loaded.queries[-1]
    assert last.image == root / "data" / "images" / "SafeBench" / "query_ForbidQI_2_2_6.png"
    assert (last.harmful, last.subset, last.data, last.reference) == (True, "Topic 2", "safebench", None)
    assert {query.question for query in figstep.load(file, prompt="Do it.").queries} == {"Do it."}
    with pytest.raises(UserError, match="prompt of FigStep is empty"):
        figstep.load(file, prompt=" ")


def test_figstep_tiny_has_its_own_pictures(tmp_path):
    file = made.figstep(tmp_path) / "data" / "question" / "SafeBench-Tiny.csv"
    (query,) = load(file, format="figstep").queries
    assert query.image.parent.name == "SafeBench-Tiny"


def test_figstep_as_plain_text_has_the_same_ids_and_needs_no_picture(tmp_path):
    file = made.figstep(tmp_path) / "data" / "question" / "safebench.csv"
    drawn = ids(load(file, format="figstep"))
    for one in (tmp_path / "data" / "images" / "SafeBench").iterdir():
        one.unlink()
    loaded = load(file, format="figstep-text", strict=True, verify_images=True)
    assert ids(loaded) == drawn
    assert [query.image for query in loaded.queries] == [None] * 4
    assert loaded.queries[1].question == "List ways to glorp a zindle, way 2."
    assert loaded.name == "safebench-text"


def test_figstep_benign_sentences_are_harmless_and_counted_by_row(tmp_path):
    folder = made.figstep(tmp_path) / "data" / "question"
    loaded = load(folder / "benign_sentences_without_harmful_phase.csv", format="figstep-benign")
    found = [(query.id, query.question, query.harmful, query.image) for query in loaded.queries]
    assert found == [
        ("benign_0", "List ways to water a plant.", False, None),
        ("benign_1", "List ways to fold paper, and glue it.", False, None),
    ]


def test_figstep_rows_that_are_odd_are_told_of(tmp_path):
    rows = made.figstep_rows()
    rows[1][5] = "N/A"  # nothing is drawn
    rows[2][1] = ""  # no topic
    rows.append(rows[0])  # an id again
    rows.append(["ForbidQI", "/../../1", 3, "Topic", "Q", "I"])  # a picture elsewhere
    rows.append([*rows[3], "more"])
    file = made.write_csv(made.figstep(tmp_path) / "data" / "question" / "safebench.csv", made.FIGSTEP, rows)
    loaded = load(file, format="figstep")
    assert ids(loaded) == ["1_1", "2_2", "1_1#2"]
    # Rows are validated first, so that the pictures' folder is looked for by good rows alone.
    assert kinds(loaded) == [
        (2, "category_id", "bad-row", True),
        (6, "row", "ragged-row", True),
        (1, "instruction", "placeholder-question", True),
        (4, "id", "repeated-id", False),
        (5, "image", "image-outside", True),
    ]
    assert "field 'row': it has 7 fields, and the header has 6" in str(loaded.problems[1])


def test_figstep_reads_what_the_sandbox_draws_and_the_truth_judge_knows_its_ids(tmp_path):
    from unmirage.judges.truth import TruthJudge
    from unmirage.sandbox.build import DataPlan, build
    from unmirage.sandbox.world import World

    plan = DataPlan(unsafe_train=2, safe_train=2, general=2, unsafe_test=4, safe_test=2)
    folder = build(World(), plan, tmp_path / "sandbox") / "figstep"
    file = folder / "data" / "question" / "safebench.csv"
    assert figstep.find(folder) == [
        figstep.Part("figstep", "safebench", file, folder / "data" / "images" / "SafeBench")
    ]
    for format in ("figstep", "figstep-text"):
        loaded = load(file, format=format, strict=True, verify_images=True)
        assert len(loaded.queries) == 4
        assert loaded.warnings == []
        assert set(ids(loaded)) == set(TruthJudge.beside(file).truth.answers)


def test_two_columns_of_one_name_and_a_header_alone_are_refused(tmp_path):
    head = ",".join(made.XSTEST)
    file = tmp_path / "xstest_prompts.csv"
    for text, why in ((f"{head},note\n1,2,3,safe,5,6,7\n", "two columns 'note'"), (f"{head}\n", "a header and no row")):
        file.write_text(text)
        with pytest.raises(UserError, match=why):
            load(file, format="xstest")


# --- MM-SafetyBench ----------------------------------------------------------------------------------------------


def test_mm_safetybench_asks_each_kind_of_picture_in_its_own_words(tmp_path):
    root = made.mm_safetybench(tmp_path)
    folder = root / "data" / "processed_questions"
    loaded = load(folder, format="mm-safetybench", verify_images=True)
    assert Counter(query.split for query in loaded.queries) == {"SD": 6, "SD_TYPO": 6, "TYPO": 6}
    by_id = {query.id: query for query in loaded.queries}
    drawn, both, typed = (by_id[f"01-Illegal_Activitiy/1/{kind}"] for kind in ("SD", "SD_TYPO", "TYPO"))
    assert drawn.question == "The picture shows a product. How is it made, number 1?"
    assert both.question == typed.question == "The picture shows the phrase of a product. How is it made, number 1?"
    assert both.image == root / "data" / "imgs" / "01-Illegal_Activitiy" / "SD_TYPO" / "1.jpg"
    assert {(query.harmful, query.data) for query in loaded.queries} == {(True, "mm-safetybench")}
    assert [warning.partition(": ")[2][:60] for warning in loaded.warnings] == [
        "of 13 scenarios these are not there: 02, 03, 04, 05, 06, 07,"
    ]


@pytest.mark.parametrize("kind", ["SD", "SD_TYPO", "TYPO"])
def test_mm_safetybench_one_split_is_one_kind_of_picture(kind, tmp_path):
    file = made.mm_safetybench(tmp_path) / "data" / "processed_questions" / "13-Gov_Decision.json"
    loaded = load(file, format="mm-safetybench", split=kind, strict=True)
    assert ids(loaded) == [f"13-Gov_Decision/{row}/{kind}" for row in (0, 1)]
    assert (loaded.queries[0].split, loaded.queries[0].image.parent.name) == (kind, kind)
    assert loaded.warnings == []
    with pytest.raises(UserError, match="no split 'seen'; its splits are its pictures' kinds: SD, SD_TYPO, TYPO"):
        load(file, format="mm-safetybench", split="seen")


@pytest.mark.parametrize("where", ["questions", "pictures"])
def test_mm_safetybench_scenario_that_is_spelt_right_is_the_same_scenario(where, tmp_path):
    root = made.mm_safetybench(tmp_path)
    before = ids(load(root, format="mm-safetybench"))
    place = root / "data" / ("processed_questions" if where == "questions" else "imgs")
    suffix = ".json" if where == "questions" else ""
    (place / f"01-Illegal_Activitiy{suffix}").rename(place / f"01-Illegal_Activity{suffix}")
    loaded = load(root, format="mm-safetybench")
    assert ids(loaded) == before
    assert loaded.problems == []
    told = [warning for warning in loaded.warnings if "spelt otherwise" in warning]
    assert len(told) == (where == "pictures")


def test_mm_safetybench_tiny_is_what_its_list_names_however_that_is_written(tmp_path):
    root = made.mm_safetybench(tmp_path)
    listed = root / mm_safetybench.TINY
    folder = root / "data" / "processed_questions"
    expected = [f"{scenario}/1/TYPO" for scenario in made.SCENARIOS]
    shapes = (
        json.loads(listed.read_text()),
        {scenario: ["1"] for scenario in made.SCENARIOS},
        [{"a": [1], "b": scenario} for scenario in made.SCENARIOS],
    )
    for held in shapes:
        made.write_json(listed, held)
        for path in (root, folder):
            assert ids(load(path, format="mm-safetybench-tiny", split="TYPO")) == expected
    assert ids(load(folder / "13-Gov_Decision.json", format="mm-safetybench-tiny", split="SD")) == [
        "13-Gov_Decision/1/SD"
    ]


@pytest.mark.parametrize("held", [[1, 2], [], {}, 7, [{"a": "01-X", "b": 1}], {"01-X": 3}, {"X": [1]}, [{"a": [1]}]])
def test_mm_safetybench_list_that_says_nothing_is_refused(held, tmp_path):
    root = made.mm_safetybench(tmp_path)
    made.write_json(root / mm_safetybench.TINY, held)
    with pytest.raises(UserError, match="does not say which rows of which scenario"):
        load(root, format="mm-safetybench-tiny")


def test_mm_safetybench_tiny_without_a_list_and_with_rows_that_are_not_there(tmp_path):
    root = made.mm_safetybench(tmp_path)
    made.write_json(root / mm_safetybench.TINY, {"13-Gov_Decision": [1, 77]})
    loaded = load(root, format="mm-safetybench-tiny", split="SD")
    assert ids(loaded) == ["13-Gov_Decision/1/SD"]
    assert [(problem.file.name, problem.field, problem.kind) for problem in loaded.problems] == [
        ("13-Gov_Decision.json", "77", "no-row")
    ]
    (root / mm_safetybench.TINY).unlink()
    with pytest.raises(UserError, match="is neither there nor above it"):
        load(root, format="mm-safetybench-tiny")
    assert {part.format for part in mm_safetybench.find(root)} == {"mm-safetybench"}


def test_mm_safetybench_wording_that_is_missing_costs_only_the_pictures_that_need_it(tmp_path):
    root = made.mm_safetybench(tmp_path)
    rows = {"0": made.mm_row(0) | {"Rephrased Question(SD)": "N/A"}, "1": made.mm_row(1) | {"Rephrased Question": 5}}
    file = made.write_json(root / "data" / "processed_questions" / "13-Gov_Decision.json", rows)
    loaded = load(file, format="mm-safetybench")
    assert ids(loaded) == ["13-Gov_Decision/0/SD_TYPO", "13-Gov_Decision/0/TYPO"]
    assert kinds(loaded) == [
        (0, "0.Rephrased Question(SD)", "placeholder-question", True),
        (1, "1.Rephrased Question", "bad-row", True),
    ]


def test_a_key_that_a_json_object_has_twice_is_read_twice(tmp_path):
    root = made.mm_safetybench(tmp_path)
    file = root / "data" / "processed_questions" / "13-Gov_Decision.json"
    row = json.dumps(made.mm_row(0))
    file.write_text(f'{{"0": {row}, "0": {row}}}')
    loaded = load(file, format="mm-safetybench", split="SD")
    assert ids(loaded) == ["13-Gov_Decision/0/SD", "13-Gov_Decision/0/SD#2"]
    assert loaded.defects == {"repeated-id": 1}


# --- XSTest ------------------------------------------------------------------------------------------------------


def test_xstest_harm_is_its_label(tmp_path):
    loaded = load(made.xstest(tmp_path) / "xstest_prompts.csv", format="xstest", strict=True)
    found = [(query.id, query.harmful, query.subset, query.image) for query in loaded.queries]
    assert found == [
        ("1", False, "homonyms", None),
        ("2", True, "contrast_homonyms", None),
        ("3", False, "definitions", None),
    ]
    assert loaded.queries[2].question == 'What does "shoot", the word, mean?'


def test_xstest_labels_are_read_strictly_and_types_that_do_not_fit_are_told_of(tmp_path):
    rows = made.xstest_rows()
    rows[0][3] = "unsafe"
    rows += [[4, "Who?", "homonyms", "I cannot label this.", "", ""], [5, "n/a", "homonyms", "safe", "", ""]]
    rows += [[2, "How?", "contrast_homonyms", "safe", "", ""], ["", "Who?", "homonyms", "safe", "", ""]]
    loaded = load(made.write_csv(tmp_path / "xstest_prompts.csv", made.XSTEST, rows), format="xstest")
    assert [(query.id, query.harmful) for query in loaded.queries] == [
        ("1", True),
        ("2", True),
        ("3", False),
        ("2#2", False),
    ]
    assert kinds(loaded) == [
        (0, "type", "odd-type", False),
        (3, "label", "bad-row", True),
        (4, "prompt", "placeholder-question", True),
        (5, "type", "odd-type", False),
        (5, "id", "repeated-id", False),
        (6, "id", "bad-row", True),
    ]


@pytest.mark.skipif(not XSTEST.is_file(), reason="the real prompts are not on this machine")
def test_xstest_as_its_authors_wrote_it():
    loaded = load(XSTEST, format="xstest", strict=True)
    assert Counter(query.harmful for query in loaded.queries) == {False: 250, True: 200}
    assert ids(loaded) == [str(number) for number in range(1, 451)]
    assert loaded.warnings == []
    assert [part.split for part in xstest.find(XSTEST.parent)] == ["prompts"]


# --- MOSSBench ---------------------------------------------------------------------------------------------------


def test_mossbench_is_harmless_and_its_contrast_harmful(tmp_path):
    root = made.mossbench(tmp_path)
    benign = load(root / FOLDERS["mossbench"][0], format="mossbench", strict=True)
    contrast = load(root / FOLDERS["mossbench-contrast"][0], format="mossbench-contrast", strict=True)
    found = [(query.id, query.harmful, query.subset) for query in benign.queries + contrast.queries]
    assert found == [
        ("1", False, "type one"),
        ("2", False, "type one"),
        ("contrast_1", True, "type one"),
        ("contrast_3", True, "type one"),
    ]
    assert benign.queries[0].image == root / "data" / "images" / "1.png"
    assert contrast.queries[0].image == root / "data_contrast" / "images" / "1.png"


def test_mossbench_sets_are_not_taken_for_one_another(tmp_path):
    root = made.mossbench(tmp_path)
    with pytest.raises(UserError, match="its questions are harmful; read it in the format mossbench-contrast"):
        load(root / FOLDERS["mossbench-contrast"][0], format="mossbench")
    with pytest.raises(UserError, match="harmless questions; read it in the format mossbench"):
        load(root / FOLDERS["mossbench"][0], format="mossbench-contrast")


def test_mossbench_answers_of_models_are_javascript_and_no_questions(tmp_path):
    file = tmp_path / "data.js"
    file.write_text("cache['X'] = {}")
    with pytest.raises(UserError, match="is JavaScript with answers of models"):
        load(file, format="mossbench")


def test_mossbench_asks_a_row_whose_metadata_is_null(tmp_path):
    root = made.mossbench(tmp_path)
    rows = {"1": made.moss_row("1", metadata=None), "2": made.moss_row("2")}
    loaded = load(made.write_json(root / FOLDERS["mossbench"][0], rows), format="mossbench", strict=True)
    assert [(query.id, query.subset) for query in loaded.queries] == [("1", None), ("2", "type one")]


def test_mossbench_rows_that_are_odd_are_told_of(tmp_path):
    root = made.mossbench(tmp_path)
    rows = {
        "1": made.moss_row("1", description=None, metadata={"over": 3, "novel": 1}),
        "2": made.moss_row("7", image="2.png"),
        "3": made.moss_row("1"),
        "4": made.moss_row("4", metadata="none"),
        "5": made.moss_row("5", image="images/../../out.png"),
    }
    loaded = load(made.write_json(root / FOLDERS["mossbench"][0], rows), format="mossbench")
    assert [(query.id, query.subset) for query in loaded.queries] == [
        ("1", None),
        ("7", "type one"),
        ("1#2", "type one"),
    ]
    assert kinds(loaded) == [
        (3, "4.metadata", "bad-row", True),
        (1, "2.pid", "odd-id", False),
        (2, "3.pid", "odd-id", False),
        (2, "id", "repeated-id", False),
        (4, "image", "image-outside", True),
    ]
    told = [warning.partition(": ")[2] for warning in loaded.warnings]
    assert told == [
        "the column 'metadata.novel' is not known and was ignored, in 1 rows.",
        "1 pictures are asked about by more than one row, such as '1.png'; rows are told apart by their ids.",
    ]


@pytest.mark.parametrize("prefix", ["images/", "", "data/images/"])
def test_pictures_are_found_wherever_their_names_start(prefix, tmp_path):
    root = made.mossbench(tmp_path)
    rows = {"1": made.moss_row("1", image=f"{prefix}1.png")}
    file = made.write_json(root / FOLDERS["mossbench"][0], rows)
    options = {"images": root} if prefix.startswith("data") else {}
    assert load(file, format="mossbench", strict=True, **options).queries


@pytest.mark.parametrize("format", ["mossbench", "mossbench-contrast"])
def test_mossbench_is_refused_as_training_data(format, tmp_path, capsys):
    with pytest.raises(UserError, match=rf"MOSSBench \(format {format}\) must not be trained on"):
        check_training(format)
    file = made.mossbench(tmp_path) / FOLDERS[format][0]
    assert call("align", tmp_path, file, "--out", tmp_path / "out", "--method", "npo", "--format", format) == 2
    assert "must not be trained on, say its authors" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_all_other_sets_may_be_trained_on():
    refused = set()
    for format in FORMATS:
        try:
            check_training(format)
        except UserError:
            refused.add(format)
    assert refused == {"mossbench", "mossbench-contrast"}
    assert about("llava") is None or about("llava").training
    assert about("nothing") is None


def test_a_recipe_that_trains_on_mossbench_is_refused_before_anything_is_done(tmp_path, capsys):
    made.mossbench(tmp_path / "m")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "schema: 1\nname: tiny\nseeds: [0]\n"
        "data:\n  moss: {file: m/data/images_information/information.json, format: mossbench}\n"
        "models:\n  base: {checkpoint: base}\n  npo: {method: npo, data: moss, general: moss}\n"
    )
    assert call("run", recipe, "--set", f"root={tmp_path}", "--out", tmp_path / "out") == 2
    assert "must not be trained on" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# --- SIUO --------------------------------------------------------------------------------------------------------


def test_siuo_open_questions_have_the_reference_answer(tmp_path):
    root = made.siuo(tmp_path)
    loaded = load(root / "data" / "siuo_gen.json", format="siuo", strict=True, verify_images=True)
    first = loaded.queries[0]
    assert ids(loaded) == ["1", "2"]
    assert (first.harmful, first.subset, first.reference) == (True, "pets", "Better not.")
    assert first.image == root / "images" / "S-01.png"


def test_siuo_multiple_choice_knows_the_right_letter(tmp_path):
    from unmirage.judges.choice import ChoiceJudge
    from unmirage.schema import Answer

    file = made.siuo(tmp_path) / "data" / "siuo_mcqa.json"
    first, second = load(file, format="siuo-mcqa", strict=True).queries
    assert first.question.splitlines()[1:3] == ["A. Yes.", "B. No."]
    assert (first.answers, first.harmful, first.reference) == (("B", "No."), False, "B. No.")
    assert (second.answers, second.question.splitlines()[1]) == (("C", "Both"), "A. Only glorp")
    said = Answer(key="k", query=second.id, question=second.question, model="m", text="The answer is C.")
    assert ChoiceJudge().judge(second, said).correct is True
    assert siuo.load_choice(file, prompt="Q: {question}").queries[0].question.startswith("Q: May I feed")


@pytest.mark.parametrize(
    ("options", "right", "answers"),
    [
        (["x", "y"], "(b)", ("B", "y")),
        (["(A) x", "(B) y"], "(A) x", ("A", "x")),
        (["A: x", "y"], "A: x", ("A", "A: x")),
        ({"B": "y", "A": "x"}, "B", ("B", "y")),
        ({"A": "x", "B": "y"}, "x", ("A", "x")),
        (["x", "x", "y"], "A", ("A",)),
        (["x", "x"], "x", None),
        (["x", "y"], "C", None),
        (["x", "y"], "", None),
        (["x", "y"], 1, None),
        (["x"], "A", None),
        ("x", "A", None),
    ],
)
def test_siuo_right_option_is_a_letter_or_a_text_and_never_a_guess(options, right, answers, tmp_path):
    root = made.siuo(tmp_path)
    rows = [
        made.siuo_row(1, options=options, correct_option=right),
        made.siuo_row(2, options=["p", "q"], correct_option="A"),
    ]
    loaded = load(made.write_json(root / "data" / "siuo_mcqa.json", rows), format="siuo-mcqa")
    if answers is None:
        assert ids(loaded) == ["2"]
        assert len(loaded.problems) == 1
    else:
        assert loaded.queries[0].answers == answers


def test_siuo_rows_that_are_odd_are_told_of(tmp_path):
    root = made.siuo(tmp_path)
    warned = {"safety_warning": None, "reference_answer": None}
    rows = [
        made.siuo_row(1, **warned),
        made.siuo_row(1, **warned),
        made.siuo_row(2, **warned, question=" N/A. "),
        made.siuo_row(2, **warned, question=["a"]),
        {key: value for key, value in made.siuo_row(2, **warned).items() if key != "image"},
    ]
    loaded = load(made.write_json(root / "data" / "siuo_gen.json", rows), format="siuo")
    assert [(query.id, query.reference) for query in loaded.queries] == [("1", None), ("1#2", None)]
    assert kinds(loaded) == [
        (3, "question", "bad-row", True),
        (4, "image", "bad-row", True),
        (1, "id", "repeated-id", False),
        (2, "question", "placeholder-question", True),
    ]


# --- VLSBench ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", ["", "data", "data/imgs"])
def test_vlsbench_is_all_harmful_wherever_its_pictures_were_unpacked(inside, tmp_path):
    root = made.vlsbench(tmp_path)
    if inside == "data":
        (root / "imgs").rename(root / "data" / "imgs")
    if inside == "data/imgs":
        (root / "images").mkdir()
        (root / "imgs").rename(root / "images" / "imgs")
    loaded = load(root / "data" / "data.json", format="vlsbench", strict=True, verify_images=True)
    assert [(query.id, query.harmful, query.subset) for query in loaded.queries] == [
        ("0", True, "Made-up"),
        ("1", True, "Made-up"),
    ]
    assert loaded.queries[0].question == "What is the best way to use item 0 shown here?"


def test_vlsbench_pictures_that_are_still_packed_are_told_of_at_once(tmp_path):
    root = made.vlsbench(tmp_path)
    (root / "imgs").rename(root / "elsewhere")
    (root / "imgs.tar").write_bytes(b"packed")
    with pytest.raises(UserError, match=r"still packed in .*imgs\.tar; unpack them"):
        load(root / "data" / "data.json", format="vlsbench")
    assert len(load(root / "data" / "data.json", format="vlsbench", require_images=False).queries) == 2


def test_vlsbench_rows_that_are_odd_are_told_of(tmp_path):
    root = made.vlsbench(tmp_path)
    rows = [
        made.vls_row(0),
        made.vls_row(1, image_path="imgs/0.png"),
        made.vls_row(2, image_path="/etc/x.png"),
        made.vls_row(3, image_path="x\0y"),
        made.vls_row(4, instruction="<image>\n"),
        made.vls_row(5, category=None),
        made.vls_row(6, image_path="n" * 300),
    ]
    loaded = load(made.write_json(root / "data" / "data.json", rows), format="vlsbench")
    assert ids(loaded) == ["0", "1"]
    assert kinds(loaded) == [
        (5, "category", "bad-row", True),
        (2, "image_path", "image-outside", True),
        (3, "image_path", "bad-image", True),
        (4, "instruction", "empty-question", True),
        (6, "image_path", "bad-image", True),
    ]
    assert loaded.warnings == [
        f"{root / 'data' / 'data.json'}: 1 pictures are asked about by more than one row, such as 'imgs/0.png'; "
        "rows are told apart by their ids."
    ]


# --- HoliSafe ----------------------------------------------------------------------------------------------------


def test_holisafe_counts_as_harmful_what_is_unsafe_as_a_whole(tmp_path):
    loaded = load(made.holisafe(tmp_path), format="holisafe", strict=True, verify_images=True)
    harmful = {query.subset: query.harmful for query in loaded.queries}
    assert harmful == {"SSS": False, "SSU": True, "SUU": True, "USU": True, "UUU": True}
    assert ids(loaded) == ["1", "2", "3", "4", "5"]
    assert loaded.queries[0].image == tmp_path / "images" / "toys" / "zindles" / "zindle_1.png"


def test_holisafe_guesses_no_type_and_tells_of_contradictions(tmp_path):
    rows = [
        made.holi_row(1, "SSS"),
        made.holi_row(2, "SU"),
        made.holi_row(3, " usu ", image_safe=False),
        made.holi_row(4, "UUU", image_safe=True),
        made.holi_row(5, "SSS", image_safe=None),
    ]
    for row in rows:
        made.picture(tmp_path / "images" / row["image"])
    loaded = load(made.write_json(tmp_path / "holisafe_bench.json", rows), format="holisafe")
    assert kinds(loaded) == [(1, "type", "bad-type", True), (3, "image_safe", "contradiction", False)]
    assert [(query.id, query.subset) for query in loaded.queries] == [
        ("1", "SSS"),
        ("3", "USU"),
        ("4", "UUU"),
        ("5", "SSS"),
    ]


def test_holisafe_in_another_form_says_what_is_known_of_it(tmp_path):
    table = tmp_path / "t" / "HoliSafe.parquet"
    table.parent.mkdir()
    table.write_bytes(b"PAR1")
    assert [part.path for part in holisafe.find(table.parent)] == [table]
    with pytest.raises(UserError, match="only the JSON list of its authors is known here"):
        load(table, format="holisafe")
    with pytest.raises(UserError, match="does not exist"):
        load(tmp_path / "none.json", format="holisafe")
    other = made.write_json(tmp_path / "holisafe_bench.json", [{"id": 1, "image": "a.png", "question": "How?"}])
    assert [part.path for part in holisafe.find(tmp_path)] == [other]
    with pytest.raises(UserError, match=r"lacks 'query', 'type': it has the columns id, image, question"):
        load(other, format="holisafe")


# --- through the command line ------------------------------------------------------------------------------------


def test_evaluate_asks_figstep_with_its_pictures_and_the_texts_alone(tiny_folder, tmp_path):
    file = made.figstep(tmp_path / "set") / "data" / "question" / "safebench.csv"
    for format, pictured in (("figstep", True), ("figstep-text", False)):
        out = tmp_path / format
        assert call("evaluate", tiny_folder, file, "--out", out, "--format", format, "--max-new-tokens", 2) == 0
        asked = [json.loads(line) for line in (out / "queries.jsonl").read_text().splitlines()]
        assert [row["id"] for row in asked] == ["1_1", "1_2", "2_1", "2_2"]
        assert all((row["image"] is not None) == pictured for row in asked)
        assert len((out / "answers.jsonl").read_text().splitlines()) == 4


def test_evaluate_shows_the_kinds_of_mm_safetybench_apart(tiny_folder, tmp_path):
    folder = made.mm_safetybench(tmp_path / "set") / "data" / "processed_questions"
    out = tmp_path / "out"
    assert call("evaluate", tiny_folder, folder, "--out", out, "--format", "mm-safetybench", "--max-new-tokens", 1) == 0
    records = json.loads((out / "metrics.json").read_text())["records"]
    assert {record["split"] for record in records} >= {"SD", "SD_TYPO", "TYPO"}


def test_audit_reads_xstest(tmp_path, capsys):
    rows = [[n, f"{'How' if n % 2 else 'Why'} is glorp {n} red?", "definitions", "safe", "", ""] for n in range(1, 9)]
    rows += [[n, f"What is zindle {n}?", "contrast_definitions", "unsafe", "", ""] for n in range(9, 17)]
    file = made.write_csv(tmp_path / "xstest_prompts.csv", made.XSTEST, rows)
    out = tmp_path / "audit"
    columns = ("--id", "id", "--question", "prompt", "--label", "label")
    assert call("audit", "data", file, *columns, "--out", out) == 0
    assert "16 rows from xstest_prompts.csv: 8 refusal, 8 compliance" in capsys.readouterr().out
    assert (out / "audit.html").is_file()


# --- the shared parts --------------------------------------------------------------------------------------------


def test_first_row_is_seen_without_reading_a_whole_file(tmp_path):
    row = {"a": 1, "b": {"c": 2}}
    for number, text in enumerate((json.dumps([row]), json.dumps({"1": row}), json.dumps([row])[:-1] + ", [broken")):
        file = tmp_path / f"{number}.json"
        file.write_text(text)
        assert safety.first_row(file) == row
    for number, text in enumerate(("", "[]", "7", "{}", '{"a": 1}', "[1, {", "[" * 9999)):
        file = tmp_path / f"bad{number}.json"
        file.write_text(text)
        assert safety.first_row(file) == {}
    (tmp_path / "t.csv").write_text('"a",b\n1,2')
    assert safety.first_row(tmp_path / "t.csv") == {"a": "", "b": ""}
    (tmp_path / "t.csv").write_text('"a" or,b\n1,2')
    assert safety.first_row(tmp_path / "t.csv") == {}


def test_a_table_with_any_ends_of_lines_and_long_fields_is_read_by_its_folder(tmp_path):
    file = made.xstest(tmp_path) / "xstest_prompts.csv"
    text = file.read_text().replace("a zindle", "a zindle " + "x" * 200_000)
    wanted = [query.question for query in load(made.xstest(tmp_path / "plain"), format="xstest").queries]
    for end in ("\n", "\r", "\r\n"):
        file.write_text(text.replace("\n", end), newline="")
        found = load(tmp_path, format="xstest").queries
        assert [query.question.replace(" " + "x" * 200_000, "") for query in found] == wanted
        assert any(len(query.question) > 200_000 for query in found)


def test_a_folder_above_is_named_without_dots_unless_a_link_would_make_it_another(tmp_path):
    (tmp_path / "real" / "questions").mkdir(parents=True)
    (tmp_path / "real" / "images").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "questions")
    made.picture(tmp_path / "real" / "images" / "a.png")
    plain = safety.picture_folder(tmp_path / "real" / "questions" / "x.json", None, ["../images"], ["a.png"])
    assert plain == tmp_path / "real" / "images"
    through = safety.picture_folder(tmp_path / "link" / "x.json", None, ["../images"], ["a.png"])
    assert (through / "a.png").is_file()


# --- real folders ------------------------------------------------------------------------------------------------

REAL = Path(os.environ.get("UNMIRAGE_DATA", "/nonexistent"))


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.ABOUT.name)
def test_the_real_set_is_as_it_is_described(module):
    folder = REAL / module.ABOUT.name
    if not folder.is_dir():
        pytest.skip(f"UNMIRAGE_DATA names no folder with a subfolder {module.ABOUT.name}")
    parts = module.find(folder)
    assert parts, f"nothing of {module.ABOUT.name} was recognised"
    for part in parts:
        loaded = load(part.path, format=part.format, split=part.split, images=part.images, require_images=False)
        key = f"tiny-{part.split}" if part.format == "mm-safetybench-tiny" else part.split
        skipped = sum(problem.skipped for problem in loaded.problems)
        assert len(loaded.queries) + skipped == module.ABOUT.rows[key]
        assert not [warning for warning in loaded.warnings if "is not known" in warning]
        assert "repeated-id" not in loaded.defects
