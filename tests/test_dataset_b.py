"""Sets to train on and attack sets: SPA-VL, BeaverTails-V, JailBreakV-28K, the official attacks, the Hub's."""

from __future__ import annotations

import csv
import io
import json
import os
import string
import tracemalloc
from pathlib import Path
from typing import Any

import dataset_fixtures_b as made
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmirage import cli
from unmirage.attacks.official import attack_name, is_official, official, variants
from unmirage.datasets import (
    FORMATS,
    about,
    beavertails_v,
    columnar,
    hf,
    jailbreakv,
    llava,
    load,
    one_word_attack,
    pictures,
    rows,
    spa_vl,
)
from unmirage.datasets.words import harm, truth
from unmirage.errors import UserError

MODULES = {
    "spa-vl": spa_vl, "beavertails-v": beavertails_v, "jailbreakv": jailbreakv, "one-word-attack": one_word_attack,
    "hf": hf,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _no_folder_of_pictures(monkeypatch):
    monkeypatch.delenv(pictures.VARIABLE, raising=False)


def call(*arguments: object) -> int:
    words = [str(one) for one in arguments]
    return cli.run(lambda: cli.app(words, prog_name="unmirage", standalone_mode=False))


def kinds(loaded: Any) -> list[tuple[int, str, str, bool]]:
    return [(problem.row, problem.field, problem.kind, problem.skipped) for problem in loaded.problems]


def ids(loaded: Any) -> list[str]:
    return [query.id for query in loaded.queries]


# --- every set ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODULES)
def test_a_folder_is_recognised_by_its_own_finder_alone_and_reads_without_a_problem(name, tmp_path):
    root = made.SETS[name](tmp_path / "set")
    parts = MODULES[name].find(root)
    assert parts
    for other in MODULES.values():
        assert other is MODULES[name] or other.find(root) == []
    for part in parts:
        loaded = load(part.path, format=part.format, split=part.split, images=part.images, verify_images=True)
        assert loaded.queries
        assert loaded.problems == []
        assert {query.split for query in loaded.queries} == {part.split}
        assert len(set(ids(loaded))) == len(loaded.queries)
        assert all(query.image is None or query.image.is_file() for query in loaded.queries)


@pytest.mark.parametrize("name", MODULES)
def test_nothing_is_found_in_an_empty_or_a_broken_folder(name, tmp_path):
    assert MODULES[name].find(tmp_path / "none") == MODULES[name].find(tmp_path) == []
    for file in ("a.parquet", "a.arrow", "a.json", "README.md", "test_what_3shot.json", "RedTeam_2K.csv"):
        (tmp_path / file).write_bytes(b'{"a": [\xff')
    assert MODULES[name].find(tmp_path) == []


def test_what_is_known_of_a_set_hangs_at_each_of_its_formats():
    for name, module in MODULES.items():
        formats = [key for key, loader in FORMATS.items() if getattr(loader, "__module__", "") == module.__name__]
        assert name in formats
        known = getattr(module, "ABOUT", None)
        assert all(about(key) is known for key in formats)
        assert known is None or (known.name == name and known.page.startswith("https://") and known.licence)


TABLES = {
    "spa-vl": ("data/train-00000-of-00002.parquet", "question"),
    "spa-vl-rejected": ("data/train-00000-of-00002.parquet", "question"),
    "beavertails-v": ("privacy/train-00000-of-00001.parquet", "question"),
    "beavertails-v-rejected": ("privacy/train-00000-of-00001.parquet", "question"),
    "hf": ("data/train-00000-of-00002.parquet", "prompt"),
}


@pytest.fixture(params=TABLES)
def table(request, tmp_path: Path) -> tuple[str, Path, str]:
    """A format, a good Parquet file of it, and its column of questions."""
    place, question = TABLES[request.param]
    return request.param, made.SETS[request.param.removesuffix("-rejected")](tmp_path) / place, question


def change(file: Path, **columns: Any) -> Path:
    """The file with these columns; a function of the row number makes a row's value, None takes a column out."""
    frame = pl.read_parquet(file)
    gone = [name for name, value in columns.items() if value is None]
    series = [pl.Series(k, [v(n) for n in range(frame.height)]) for k, v in columns.items() if v is not None]
    frame.drop(gone).with_columns(series).write_parquet(file)
    return file


def test_a_table_without_a_needed_column_is_refused_by_the_names_of_those_that_it_has(table):
    format, file, question = table
    with pytest.raises(UserError, match=r"(?s)question.*columns.*other"):
        load(change(file, **{question: None}, other=str), format=format)


def test_a_new_column_costs_no_row_and_is_named(table):
    format, file, _ = table
    loaded = load(change(file, novel=str), format=format)
    assert len(loaded.queries) == 2
    assert any("'novel'" in warning for warning in loaded.warnings)


def test_wrong_empty_and_placeholder_questions_are_reported(table):
    format, file, question = table
    values = [" <image> ", "n/a", None, "Good?"]
    pl.concat([pl.read_parquet(file)] * 2).with_columns(pl.Series(question, values)).write_parquet(file)
    loaded = load(file, format=format)
    assert kinds(loaded) == [
        (0, question, "empty-question", True),
        (1, question, "placeholder-question", True),
        (2, question, "bad-row", True),
    ]
    assert [query.question for query in loaded.queries] == ["Good?"]
    with pytest.raises(UserError, match="row 0"):
        load(file, format=format, strict=True)


def test_a_missing_a_broken_and_an_empty_table_end_with_what_to_do(table):
    format, file, _ = table
    pl.read_parquet(file).clear().write_parquet(file)
    with pytest.raises(UserError, match="no usable row; there are no rows"):
        load(file, format=format)
    file.write_bytes(b"PAR1 never ends")
    with pytest.raises(UserError, match="cannot be read as a table"):
        load(file, format=format)
    with pytest.raises(UserError, match="is no table"):
        load(file.with_suffix(".txt") if file.with_suffix(".txt").touch() is None else file, format=format)
    with pytest.raises(UserError, match="does not exist; give"):
        load(file.parent / "none.parquet", format=format)


def test_a_picture_that_does_not_decode_or_is_not_there_is_reported(table):
    format, file, _ = table
    held = [{"bytes": b"no picture", "path": "a.png"}, {"bytes": None, "path": "away.png"}]
    frame = pl.read_parquet(file)
    frame.with_columns(pl.Series("image", held, dtype=made.PICTURE)).write_parquet(file)
    with pytest.raises(UserError, match="no usable row"):
        load(file, format=format, verify_images=True)
    loaded = load(file, format=format, require_images=False)
    assert kinds(loaded) == [(1, "image", "missing-image", False)]
    made.picture(file.parent / "away.png")
    assert [query.image.name for query in load(file, format=format).queries][1] == "away.png"


# --- pictures inside tables --------------------------------------------------------------------------------------


def test_pictures_are_written_once_called_by_their_content_and_found_again(tmp_path, monkeypatch):
    same = made.inside(1)
    file = made.parquet(tmp_path / "a.parquet", [made.hub_row(n, image=same) for n in (0, 1)] + [made.hub_row(2)])
    first = load(file, format="hf")
    folder = tmp_path / pictures.BESIDE
    assert len({query.image for query in first.queries}) == 2
    assert all(
        query.image.read_bytes().startswith(b"\x89PNG") and query.image.suffix == ".png" for query in first.queries
    )
    assert (
        sum(f"2 pictures that lie inside the tables were written to {folder}" in text for text in first.warnings) == 1
    )
    monkeypatch.setattr(pictures.PictureFolder, "put", lambda *_: pytest.fail("the column was read again"))
    again = load(file, format="hf")
    assert again.queries == first.queries
    assert not any("were written" in text for text in again.warnings)


def test_a_picture_that_was_damaged_or_lost_is_written_again(tmp_path):
    file = made.parquet(tmp_path / "a.parquet", [made.hub_row(n) for n in (0, 1)])
    one, two = (query.image for query in load(file, format="hf").queries)
    whole = one.read_bytes()
    one.write_bytes(whole[:9])
    two.unlink()
    load(file, format="hf")
    assert one.read_bytes() == whole
    assert two.is_file()


def test_a_changed_table_is_read_anew(tmp_path):
    file = made.parquet(tmp_path / "a.parquet", [made.hub_row(0)])
    before = load(file, format="hf").queries[0].image
    made.parquet(file, [made.hub_row(0, image=made.inside(99))])
    os.utime(file, ns=(1, 1))
    assert load(file, format="hf").queries[0].image != before


def test_an_interrupted_writing_leaves_no_picture_behind(tmp_path, monkeypatch):
    file = made.parquet(tmp_path / "a.parquet", [made.hub_row(0)])

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pictures.os, "replace", fails)
    with pytest.raises(UserError, match=r"cannot be written.*No space left.*--images.*UNMIRAGE_PICTURES"):
        load(file, format="hf")
    assert [path for path in (tmp_path / pictures.BESIDE).rglob("*") if path.is_file()] == []


def test_the_folder_of_pictures_is_the_one_given_or_that_of_the_environment(tmp_path, monkeypatch):
    file = made.parquet(tmp_path / "a.parquet", [made.hub_row(0)])
    monkeypatch.setenv(pictures.VARIABLE, str(tmp_path / "env"))
    assert load(file, format="hf").queries[0].image.is_relative_to(tmp_path / "env")
    assert load(file, format="hf", images=tmp_path / "mine").queries[0].image.is_relative_to(tmp_path / "mine")
    assert not (tmp_path / pictures.BESIDE).exists()


def test_of_several_pictures_the_first_is_used_and_plain_bytes_and_names_are_pictures_too(tmp_path):
    made.picture(tmp_path / "n.png")
    several = [[made.inside(1), made.inside(2)], [made.inside(3)], [], None]
    file = made.parquet(
        tmp_path / "a.parquet", [made.hub_row(n, image=held) for n, held in enumerate(several)],
        {"image": pl.List(made.PICTURE)},
    )  # fmt: skip
    loaded = load(file, format="hf")
    assert [query.image is None for query in loaded.queries] == [False, False, True, True]
    assert kinds(loaded) == [(0, "image", "several-pictures", False)]
    made.parquet(tmp_path / "b.parquet", [made.hub_row(0, image=several[0])], {"image": pl.List(made.PICTURE)})
    for _ in range(2):
        assert load(tmp_path / "b.parquet", format="hf").defects == {"several-pictures": 1}
    made.parquet(file, [made.hub_row(0, image=made.png())], {"image": pl.Binary})
    assert load(file, format="hf", verify_images=True).queries[0].image.suffix == ".png"
    made.parquet(file, [made.hub_row(0, image="n.png")], {"image": pl.String})
    assert load(file, format="hf").queries[0].image == tmp_path / "n.png"
    made.parquet(file, [made.hub_row(0, image="../n.png")], {"image": pl.String})
    with pytest.raises(UserError, match="leaves the image folder"):
        load(file, format="hf")


@pytest.mark.parametrize(
    ("start", "suffix"),
    [(b"\xff\xd8\xff\xe0", ".jpg"), (b"\x89PNG", ".png"), (b"RIFF\0\0\0\0WEBP", ".webp"), (b"?", ".img")],
)  # fmt: skip
def test_the_kind_of_a_picture_follows_from_its_content(start, suffix, tmp_path):
    assert pictures.PictureFolder(tmp_path).put(start).endswith(suffix)


def test_a_table_of_pictures_is_never_whole_in_memory(tmp_path):
    """Of 40 MB of pictures in row groups of 1 MB, Python holds a few at a time."""
    held = [{"image": {"bytes": os.urandom(50_000), "path": None}, "prompt": f"q{n}"} for n in range(800)]
    file = made.parquet(tmp_path / "a.parquet", held, row_group_size=20)
    del held
    tracemalloc.start()
    try:
        assert len(load(file, format="hf").queries) == 800
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 12 << 20


# --- SPA-VL ------------------------------------------------------------------------------------------------------


def test_spa_vl_has_the_chosen_and_the_rejected_answer_under_equal_ids(tmp_path):
    root = made.spa_vl(tmp_path)
    chosen = load(root, format="spa-vl", split="train")
    rejected = load(root, format="spa-vl-rejected", split="train")
    assert ids(chosen) == ids(rejected) == ["train-00000/0", "train-00000/1", "train-00001/0", "train-00001/1"]
    assert [query.reference for query in chosen.queries] == [f"Better not, {n}." for n in range(4)]
    assert [query.reference for query in rejected.queries] == [f"With zindle {n}." for n in range(4)]
    assert {(query.harmful, query.subset, query.split) for query in chosen.queries} == {(True, None, "train")}
    assert [query.question for query in chosen.queries] == [f"How is glorp {n} painted?" for n in range(4)]


def test_a_shard_alone_keeps_its_ids(tmp_path):
    root = made.spa_vl(tmp_path)
    alone = load(root / "data" / "train-00001-of-00002.parquet", format="spa-vl")
    assert ids(alone) == ["train-00001/0", "train-00001/1"]


def test_spa_vl_says_which_part_is_meant_and_what_the_help_part_is(tmp_path):
    root = made.spa_vl(tmp_path)
    with pytest.raises(UserError, match="several parts: train, harm, help, validation; name one with --split"):
        load(root, format="spa-vl")
    helpful = load(root, format="spa-vl", split="help")
    assert [(q.reference, q.subset, q.harmful) for q in helpful.queries] == [(None, "Made-up", True)]
    assert any("how helpful" in text for text in helpful.warnings)
    assert not any("how helpful" in text for text in load(root, format="spa-vl", split="harm").warnings)
    with pytest.raises(UserError, match="no column 'rejected'"):
        load(root, format="spa-vl-rejected", split="harm")


def test_spa_vl_tells_an_empty_answer_and_keeps_the_question(tmp_path):
    file = made.parquet(tmp_path / "train.parquet", [made.spa_row(1, chosen=" "), made.spa_row(2)])
    loaded = load(file, format="spa-vl")
    assert kinds(loaded) == [(0, "chosen", "empty-answer", False)]
    assert [query.reference for query in loaded.queries] == [None, "Better not, 2."]


def test_spa_vl_without_answers_and_classes_is_another_table(tmp_path):
    file = made.parquet(tmp_path / "x.parquet", [{"image": made.inside(1), "question": "Why?"}])
    assert spa_vl.find(tmp_path) == []
    with pytest.raises(UserError, match=r"neither answers.*columns are image, question.*format hf"):
        load(file, format="spa-vl")


def test_spa_vl_reads_the_json_of_rlhf_by_its_ids(tmp_path):
    file = made.spa_vl_json(tmp_path)
    (part,) = spa_vl.find(tmp_path)
    assert (part.path, part.images) == (file, tmp_path / "images")
    chosen, rejected = load(file, format="spa-vl"), load(file, format="spa-vl-rejected")
    assert ids(chosen) == ids(rejected) == ["s1", "s2"]
    assert [query.image for query in chosen.queries] == [tmp_path / "images" / f"g{n}.png" for n in (1, 2)]
    assert [query.reference for query in rejected.queries] == ["With zindle 1.", "With zindle 2."]
    held = json.loads(file.read_text())
    made.write_json(file, [*held, held[0], {**held[0], "id": "s3", "image": "away.png"}, "text", {"id": 4}], bom=True)
    again = load(file, format="spa-vl")
    assert ids(again) == ["s1", "s2", "s1#2"]
    assert [(row, kind) for row, _, kind, _ in kinds(again)] == [
        (2, "repeated-id"), (3, "missing-image"), (4, "bad-row"), (5, "bad-row"),
    ]  # fmt: skip
    with pytest.raises(UserError, match="lacks 'question'"):
        load(made.write_json(file, [{"id": 1}]), format="spa-vl")


def test_preferred_and_rejected_answers_join(tmp_path):
    from unmirage.align.config import AlignConfig
    from unmirage.align.data import better

    root = made.spa_vl(tmp_path)
    chosen, rejected = (load(root, format=f, split="train").queries for f in ("spa-vl", "spa-vl-rejected"))
    rows = better(AlignConfig(method="dpo"), rejected, chosen, None)  # type: ignore[arg-type]
    assert [row.reference for row in rows] == [query.reference for query in chosen]


# --- BeaverTails-V -----------------------------------------------------------------------------------------------


def test_beavertails_of_pairs_gives_the_safer_and_the_other_answer(tmp_path):
    root = made.beavertails_v(tmp_path)
    safer, other = (load(root, format=f, split="train") for f in ("beavertails-v", "beavertails-v-rejected"))
    assert ids(safer) == ids(other)
    assert ids(safer)[:3] == ["animal_abuse/train-00000/0", "animal_abuse/train-00000/1", "privacy/train-00000/0"]
    assert [query.reference for query in safer.queries][:2] == ["Let them be, 0.", "Let them be, 1."]
    assert [query.reference for query in other.queries][:2] == ["In box 0.", "In box 1."]
    assert [query.subset for query in safer.queries] == ["animal_abuse"] * 2 + ["privacy"] * 2
    assert all(query.harmful for query in safer.queries)
    with pytest.raises(UserError, match="several parts: evaluation, train"):
        load(root, format="beavertails-v")


def test_beavertails_of_single_answers_is_told_by_its_columns(tmp_path):
    rows = [made.single_row(0), made.single_row(1, is_response_safe="no"), made.single_row(2, is_response_safe="maybe")]
    file = made.parquet(tmp_path / "train.parquet", rows)
    good, bad = load(file, format="beavertails-v"), load(file, format="beavertails-v-rejected")
    assert [query.reference for query in good.queries] == ["Answer 0.", None]
    assert [query.reference for query in bad.queries] == [None, "Answer 1."]
    assert kinds(good) == [(2, "is_response_safe", "bad-label", True)]
    assert any("1 rows have only an answer that is not safe" in text for text in good.warnings)
    assert any("1 rows have only an answer that is safe" in text for text in bad.warnings)


def test_beavertails_tells_where_the_safer_answer_is_not_safe_and_where_none_is_named(tmp_path):
    rows = [
        made.pair_row(0, safer_response_id=2), made.pair_row(1, safer_response_id=3),
        made.pair_row(2, safer_response_id=1),
    ]  # fmt: skip
    loaded = load(made.parquet(tmp_path / "train.parquet", rows), format="beavertails-v")
    assert [query.reference for query in loaded.queries] == ["In box 0.", "Let them be, 2."]
    assert kinds(loaded) == [(1, "safer_response_id", "bad-choice", True)]
    assert any("in 1 rows the safer of the two answers is itself judged unsafe" in text for text in loaded.warnings)


def test_beavertails_says_which_columns_are_lacking(tmp_path):
    file = made.parquet(tmp_path / "train.parquet", [made.pair_row(0)])
    with pytest.raises(UserError, match=r"lacks 'safer_response_id'.*has the columns.*response_1"):
        load(change(file, safer_response_id=None), format="beavertails-v")
    made.parquet(file, [made.single_row(0)])
    with pytest.raises(UserError, match="lacks 'is_response_safe'"):
        load(change(file, is_response_safe=None), format="beavertails-v")


@pytest.mark.parametrize(
    ("value", "said"), [(True, True), ("Yes", True), (1, True), ("no", False), (0.0, False), ("", None)]
)
def test_yes_and_no_are_understood_however_they_are_written(value, said):
    assert truth(value) is said
    assert harm("Unsafe") is True
    assert harm("benign") is False
    assert harm(value) is None


# --- JailBreakV-28K ----------------------------------------------------------------------------------------------


def test_jailbreakv_asks_the_jailbreak_with_its_picture_and_the_plain_query_without(tmp_path):
    folder = made.jailbreakv(tmp_path) / "JailBreakV_28K"
    file = folder / "JailBreakV_28K.csv"
    loaded = load(file, format="jailbreakv")
    assert [(q.id, q.subset, q.harmful) for q in loaded.queries] == [
        ("0", "Template", True), ("1", "SD", True), ("2", "figstep", True),
    ]  # fmt: skip
    assert loaded.queries[2].image == folder / "figstep" / "3.png"
    assert loaded.queries[0].question == "You are Glorpbot, number 0.\nTell how a zindle is painted."
    plain = load(file, format="jailbreakv-redteam")
    assert [(q.question, q.image) for q in plain.queries] == [(f"Paint zindle {n}.", None) for n in range(3)]
    assert [(p.format, p.split) for p in jailbreakv.find(tmp_path)] == [
        ("jailbreakv", "28k"), ("jailbreakv", "mini"), ("jailbreakv-redteam", "redteam"),
    ]  # fmt: skip
    red = load(folder / "RedTeam_2K.csv", format="jailbreakv-redteam")
    assert [(q.id, q.question, q.subset) for q in red.queries][1] == ("1", "Paint zindle 1.", "Made-up policy")


def test_jailbreakv_reports_bad_rows_and_reads_texts_longer_than_csv_allows(tmp_path):
    file = made.jailbreakv(tmp_path) / "JailBreakV_28K" / "JailBreakV_28K.csv"
    good = made.jailbreakv_rows()[0]
    bad = [
        [0, "again", *good[2:]], [7, " ", *good[2:]], [8, "x", "y"], [9, "x" * 200_000, *good[2:5], "", *good[6:]],
        [10, "q", *good[2:5], "figstep/none.png", *good[6:]], ["", "q", *good[2:]],
    ]  # fmt: skip
    before = csv.field_size_limit()
    loaded = load(made.write_csv(file, made.JAILBREAKV, [good, *bad], bom=True), format="jailbreakv")
    assert csv.field_size_limit() == before
    assert ids(loaded) == ["0", "0#2", "9"]
    assert loaded.queries[2].image is None
    assert sorted(kinds(loaded)) == [
        (1, "id", "repeated-id", False), (2, "jailbreak_query", "empty-question", True), (3, "row", "ragged-row", True),
        (5, "image_path", "missing-image", True), (6, "id", "bad-row", True),
    ]  # fmt: skip


def test_jailbreakv_names_new_and_missing_columns(tmp_path):
    file = made.jailbreakv(tmp_path) / "JailBreakV_28K" / "JailBreakV_28K.csv"
    head, *rest = csv.reader(io.StringIO(file.read_text(), newline=""))
    loaded = load(made.write_csv(file, [*head, "novel"], [[*row, "x"] for row in rest]), format="jailbreakv")
    assert loaded.warnings == [f"{file}: the column 'novel' is not known and was ignored, in 3 rows."]
    made.write_csv(file, ["id", "policy"], [["1", "x"]])
    with pytest.raises(UserError, match="lacks 'jailbreak_query', 'image_path'"):
        load(file, format="jailbreakv")
    with pytest.raises(UserError, match="lacks 'redteam_query'"):
        load(file, format="jailbreakv-redteam")
    with pytest.raises(UserError, match="is no CSV file"):
        load(made.write_json(tmp_path / "x.json", [{}]), format="jailbreakv")


# --- the official attacks ----------------------------------------------------------------------------------------


@pytest.fixture
def attack(tmp_path: Path) -> Path:
    return made.one_word_attack(tmp_path) / "eval" / "safety_data" / "test_what_3shot.json"


def test_each_wording_is_a_query_and_its_id_tells_cluster_and_shot(attack):
    loaded = load(attack, format="one-word-attack", strict=True)
    assert ids(loaded) == ["u1/unsafe", "u1#2/unsafe", "u1#3/unsafe", "u2/unsafe", "u2#2/unsafe", "u2#3/unsafe"]
    assert (loaded.problems, loaded.warnings, loaded.rows) == ([], [], 6)
    assert all(query.harmful for query in loaded.queries)


def test_an_id_that_comes_again_later_and_uneven_shots_are_told(attack):
    held = json.loads(attack.read_text())
    loaded = load(made.write_json(attack, [*held, held[0]]), format="one-word-attack")
    assert ids(loaded)[-1] == "u1#4/unsafe"
    assert kinds(loaded) == [(6, "id", "repeated-id", False)]
    assert "1 of 2 questions do not have" in loaded.warnings[0]


def test_the_wordings_are_variants_of_the_questions_that_they_reword(attack, tmp_path):
    queries = load(made.vlguard_test(tmp_path)).queries
    found = variants(attack, queries)
    assert [(v.origin.id, v.shot, v.word) for v in found] == [
        (f"u{n}/unsafe", shot, "What") for n in (1, 2) for shot in (0, 1, 2)
    ]
    assert {(v.attack, v.edit, v.control_of) for v in found} == {("official:what-3shot", "paraphrase", None)}
    assert found[0].origin is queries[0]


def test_what_is_lacking_is_told_with_the_denominator(attack, tmp_path):
    queries = load(made.vlguard_test(tmp_path)).queries
    share = official(attack.with_name("test_share_1shot.json"), queries)
    assert [v.origin.id for v in share.variants] == ["s2/safe_safe"]
    assert share.told == "1 official:share-1shot of 1 of 2 questions; 1 have none: s1/safe_safe"
    held = json.loads(attack.read_text())
    held[0]["instr-resp"][0]["instruction"] = " "
    held[1]["instr-resp"][0]["instruction"] = queries[0].question
    held.append(made.vl_row("x", False, {"instruction": "What?", "response": ""}))
    made.write_json(attack, held)
    rest = official(attack, queries)
    assert [v.shot for v in rest.variants] == [1, 2, 0, 1, 2]
    assert rest.told == (
        "5 official:what-3shot of 2 of 2 questions; 1 question is repeated by some of the rewrites; "
        "1 ids of the file are of no question given; not used: 1 empty"
    )


def test_the_name_of_an_attack_is_that_of_its_file(tmp_path):
    names = {"test_what_3shot.json": "official:what-3shot", "share_1shot.json": "official:share-1shot"}
    assert all(attack_name(Path(file)) == name and is_official(Path(file)) for file, name in names.items())
    assert not is_official(Path("paraphrases.json"))


def test_evaluate_measures_the_official_attack_by_variant_and_by_any_of_k(attack, tiny_folder, tmp_path, capsys):
    data = made.vlguard_test(tmp_path)
    file, out = tmp_path / "official.jsonl", tmp_path / "run"
    assert call("attack", data, "--edit", "paraphrase", "--paraphrases", attack, "--out", file) == 0
    assert f"Variants: {file} (6 official:what-3shot of 2 of 2 questions" in capsys.readouterr().out
    assert call("evaluate", tiny_folder, data, "--attack", file, "--out", out, "--max-new-tokens", 1) == 0
    records = json.loads((out / "metrics.json").read_text())["records"]
    figures = {(r["metric"], r["k"], r["n"]) for r in records if r["attack"] == "official:what-3shot"}
    assert figures >= {("asr", 3, 6), ("asr_any", 3, 2)}


# --- data sets of the Hub ----------------------------------------------------------------------------------------


def test_a_saved_data_set_is_read_in_its_own_order_by_its_parts(tmp_path):
    for part, frames in (("train", [[made.hub_row(1)], [made.hub_row(0)]]), ("test", [[made.hub_row(2)]])):
        made.arrow(tmp_path / part, frames)
    made.write_json(tmp_path / "dataset_dict.json", {"splits": ["train", "test"]})
    to = tmp_path / "pictures"
    train = load(tmp_path, format="hf", split="train", images=to, verify_images=True)
    assert ids(train) == ["train/00000/0", "train/00001/0"]
    assert [query.question for query in train.queries] == [f"Which colour has glorp {n}?" for n in (1, 0)]
    assert [query.harmful for query in train.queries] == [True, False]
    assert load(tmp_path / "train", format="hf", images=to).queries == [
        q.model_copy(update={"split": None, "data": "train"}) for q in train.queries
    ]
    assert [part.split for part in hf.find(tmp_path)] == ["train", "test"]
    with pytest.raises(UserError, match="several parts: train, test"):
        load(tmp_path, format="hf")
    (tmp_path / "test" / "data-00000-of-00001.arrow").unlink()
    with pytest.raises(UserError, match=r"has no file 'data-00000-of-00001\.arrow', which its state.json names"):
        load(tmp_path / "test", format="hf")


def test_what_a_saved_data_set_lists_stays_in_its_folder(tmp_path):
    folder = made.arrow(tmp_path / "a", [[made.hub_row(0)]])
    made.write_json(folder / "state.json", {"_data_files": [{"filename": "../b.arrow"}]})
    with pytest.raises(UserError, match=r"has no file '\.\./b\.arrow'"):
        load(folder, format="hf")
    made.write_json(folder / "state.json", {"_data_files": [1]})
    with pytest.raises(UserError, match="does not list the data files"):
        load(folder, format="hf")


def test_the_parts_that_the_readme_lists_win_over_names(tmp_path):
    for name in ("one", "two", "three"):
        made.parquet(tmp_path / f"{name}.parquet", [made.hub_row(ord(name[0]))])
    header = """---
configs:
- config_name: default
  data_files:
  - split: learn
    path: [one.parquet, 'tw*.parquet']
  - split: check
    path: three.parquet
  - split: away
    path: ../*.parquet
---
# A data set
"""
    (tmp_path / "README.md").write_text(header)
    assert ids(load(tmp_path, format="hf", split="learn")) == ["one/0", "two/0"]
    assert [part.split for part in hf.find(tmp_path)] == ["learn", "check"]
    with pytest.raises(UserError, match="several parts: learn, check"):
        load(tmp_path, format="hf")
    (tmp_path / "README.md").write_text("---\n: [broken\n---\n")
    assert [part.split for part in hf.find(tmp_path)] == ["one", "three", "two"]


@pytest.mark.parametrize(
    ("column", "values", "harmful"),
    [
        ("harmful", [True, False], [True, False]),
        ("safe", [True, False], [False, True]),
        ("is_safe", ["yes", "no"], [False, True]),
        ("unsafe", [1, 0], [True, False]),
        ("label", ["unsafe", "Safe"], [True, False]),
        ("Label", ["harmless", "harmful"], [False, True]),
    ],
)
def test_what_is_harmful_follows_from_the_label_column(column, values, harmful, tmp_path):
    held = [{"instruction": f"Why {n}?", "output": "So.", column: value} for n, value in enumerate(values)]
    loaded = load(made.parquet(tmp_path / "a.parquet", held, {"image": made.PICTURE}), format="hf")
    assert [query.harmful for query in loaded.queries] == harmful
    assert [query.reference for query in loaded.queries] == ["So.", "So."]


def test_numbers_of_a_label_are_what_the_features_say_and_nothing_else(tmp_path):
    held = [[{"query": f"Why {n}?", "label": n} for n in (0, 1)]]
    folder = made.arrow(
        tmp_path / "a", held, {"features": {"label": {"names": ["unsafe", "safe"], "_type": "ClassLabel"}}}
    )
    assert [query.harmful for query in load(folder, format="hf").queries] == [True, False]
    info = {"info": {"features": {"label": {"names": ["benign", "harmful"], "_type": "ClassLabel"}}}}
    file = tmp_path / "b.parquet"
    pl.DataFrame(held[0]).write_parquet(file, metadata={"huggingface": json.dumps(info)})
    assert [query.harmful for query in load(file, format="hf").queries] == [False, True]
    pl.DataFrame(held[0]).write_parquet(file)
    with pytest.raises(UserError, match=r"row 0 .*field 'label': 0 does not say harmful or safe"):
        load(file, format="hf")


def test_an_empty_label_is_reported_and_without_one_all_are_harmless_which_is_told(tmp_path):
    file = made.parquet(tmp_path / "a.parquet", [made.hub_row(0), made.hub_row(1, label=None)])
    assert kinds(load(file, format="hf")) == [(1, "label", "no-label", True)]
    loaded = load(change(file, label=None), format="hf")
    assert not any(query.harmful for query in loaded.queries)
    assert any("no column of 'a' says what is harmful" in text for text in loaded.warnings)


def test_a_stream_of_a_table_is_what_load_gives(tmp_path):
    held = [made.hub_row(0), made.hub_row(1, prompt=" "), made.hub_row(2, label=None), made.hub_row(3)]
    file = made.parquet(tmp_path / "a.parquet", held)
    opened = hf.load.stream(file)
    items, loaded = list(opened.items), load(file, format="hf")
    assert [item for item in items if item in loaded.queries] == loaded.queries
    assert [item for item in items if item in loaded.problems] == loaded.problems
    assert len(items) == 4
    assert [text for text in opened.warnings if "were written" not in text] == loaded.warnings


def test_ids_of_the_table_are_used_and_repeated_ones_told(tmp_path):
    file = made.parquet(tmp_path / "a.parquet", [made.hub_row(n, id=7) for n in (0, 1)])
    loaded = load(file, format="hf")
    assert ids(loaded) == ["7", "7#2"]
    assert kinds(loaded) == [(1, "id", "repeated-id", False)]


def test_shards_of_one_name_in_several_folders_have_ids_of_their_own(tmp_path):
    for name in ("a", "b"):
        made.parquet(tmp_path / name / "train-00000-of-00001.parquet", [made.hub_row(ord(name))])
    assert ids(load(tmp_path, format="hf")) == ["a/train-00000/0", "b/train-00000/0"]
    assert [shard.part for shard in columnar.shards_in(tmp_path)] == ["train", "train"]


# --- rows of a JSON list, one after the other --------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(alphabet=string.printable + 'é€😀"\\[]{},:'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    held=st.lists(JSON, min_size=1, max_size=6),
    chunk=st.integers(1, 9),
    indent=st.none() | st.just(1),
    ascii=st.booleans(),
)
def test_rows_are_those_of_the_whole_file_wherever_the_chunks_end(held, chunk, indent, ascii, tmp_path_factory):
    file = tmp_path_factory.mktemp("rows") / "a.json"
    file.write_text(json.dumps(held, indent=indent, ensure_ascii=ascii), encoding="utf-8-sig" if chunk % 2 else "utf-8")
    before, rows.CHUNK = rows.CHUNK, chunk
    try:
        assert list(rows.json_rows(file)) == list(enumerate(held))
    finally:
        rows.CHUNK = before


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is empty"),
        ("  ", "not JSON|is empty"),
        ("{}", "holds an object, not a list"),
        ('"a"', "holds a string, not a list"),
        ("17", "holds a number"),
        ("[]", "empty list"),
        ("[\n1,\n 2", "line 3, column 3: the list does not end"),
        ("[1,\n2,\n]", "line 3, column 1: Expecting value"),
        ("[1 2]", r"line 1, column 4: Expecting ',' or '\]'"),
        ('[{"a": 1,\n "b": }]', "line 2, column 7: Expecting value"),
        ("[1] x", "line 1, column 5: Extra data"),
        ("nonsense", "line 1, column 1: Expecting value"),
    ],
)
def test_a_broken_list_is_told_by_line_and_column(text, why, tmp_path):
    file = tmp_path / "a.json"
    file.write_text(text)
    with pytest.raises(UserError, match=why):
        list(rows.json_rows(file))


def test_bytes_that_are_no_text_too_deep_a_row_and_an_endless_one_are_told(tmp_path, monkeypatch):
    file = tmp_path / "a.json"
    file.write_bytes(b'["\xff"]')
    with pytest.raises(UserError, match="UTF-8"):
        list(rows.json_rows(file))
    file.write_text("[" * 100_000)
    with pytest.raises(UserError, match="cannot be read"):
        list(rows.json_rows(file))
    file.write_text('[1,\n {"a": ' + "7" * 5000 + "}]")
    with pytest.raises(UserError, match=r"a\.json cannot be read: line 2, column 2: .* a number of too many digits"):
        list(rows.json_rows(file))
    monkeypatch.setattr(rows, "LONGEST", 1000)
    monkeypatch.setattr(rows, "CHUNK", 100)
    file.write_text('["' + "x" * 100_000)
    with pytest.raises(UserError, match="line 1, column 2: Unterminated string"):
        list(rows.json_rows(file))
    with pytest.raises(UserError, match="does not exist"):
        list(rows.json_rows(tmp_path / "none.json"))


# --- LLaVA at its real size --------------------------------------------------------------------------------------


def conversation(number: int, image: str | None) -> dict[str, Any]:
    said = [{"from": "human", "value": f"<image>\nWhat is {number}?"}, {"from": "gpt", "value": f"It is {number}."}]
    row = {"id": f"{number:06}", "conversations": said * 3}
    return row if image is None else row | {"image": image}


def test_a_llava_file_is_never_whole_in_memory(tmp_path):
    """Of 24 MB of conversations only the first exchanges stay, 1 kB a row at most."""
    text = "so it is " * 400
    rows_ = [conversation(n, None) for n in range(2000)]
    for row in rows_:
        row["conversations"][5] = {"from": "gpt", "value": text * 3}
    file = made.write_json(tmp_path / "a.json", rows_)
    del rows_
    tracemalloc.start()
    try:
        loaded = load(file, format="llava")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(loaded.queries) == 2000
    assert file.stat().st_size > 20 << 20
    assert peak < 10 << 20
    assert loaded.queries[0].model_fields_set is loaded.queries[1].model_fields_set


def test_queries_of_llava_are_such_as_validation_makes(tmp_path):
    from unmirage.schema import Query

    made.picture(tmp_path / "images" / "a.png")
    file = made.write_json(tmp_path / "a.json", [conversation(1, "a.png"), conversation(2, None)])
    for query in load(file, format="llava", split="seen").queries:
        again = Query.model_validate(query.model_dump())
        assert again == query
        assert again.model_dump_json() == query.model_dump_json()
        assert query.model_copy(update={"subset": "x"}).subset == "x"
        assert Query.model_validate_json(query.model_dump_json()) == query


def test_a_stream_of_llava_is_what_load_gives(tmp_path):
    made.picture(tmp_path / "images" / "a.png")
    held = [conversation(1, "a.png"), conversation(1, None), conversation(2, "away.png"), "text"]
    file = made.write_json(tmp_path / "a.json", held)
    loaded, opened = load(file, format="llava"), llava.load.stream(file)
    items = list(opened.items)
    assert [item for item in items if item in loaded.queries] == loaded.queries
    assert [item for item in items if item in loaded.problems] == loaded.problems
    assert len(items) == 4
    assert opened.warnings == loaded.warnings
    assert any("1 rows have an id that was there before" in text for text in loaded.warnings)


def test_a_picture_of_llava_behind_a_link_that_leads_out_is_refused(tmp_path):
    made.picture(tmp_path / "elsewhere" / "a.png")
    made.picture(tmp_path / "images" / "in" / "a.png")
    (tmp_path / "images" / "out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "images" / "link.png").symlink_to(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "images" / "near.png").symlink_to(tmp_path / "images" / "in" / "a.png")
    names = ["in/a.png", "out/a.png", "link.png", "near.png", "in/../../elsewhere/a.png", "/etc/hostname", "in", ""]
    file = made.write_json(tmp_path / "a.json", [conversation(n, name) for n, name in enumerate(names)])
    loaded = load(file, format="llava")
    assert [query.id for query in loaded.queries] == ["000000", "000003"]
    assert [problem.kind for problem in loaded.problems] == [
        "image-outside", "image-outside", "image-outside", "image-outside", "missing-image", "missing-image",
    ]  # fmt: skip


def test_of_many_pictures_of_llava_only_the_first_are_decoded(tmp_path, monkeypatch):
    from unmirage.datasets import questions

    monkeypatch.setattr(questions, "DECODED", 2)
    for n in range(4):
        made.picture(tmp_path / "images" / f"{n}.png")
    cut = tmp_path / "images" / "3.png"
    cut.write_bytes(cut.read_bytes()[:-20])
    file = made.write_json(tmp_path / "a.json", [conversation(n, f"{n}.png") for n in range(4)])
    loaded = load(file, format="llava", verify_images=True)
    assert len(loaded.queries) == 4
    assert any("2 pictures were decoded and of 2 more only the header was read" in text for text in loaded.warnings)
    monkeypatch.setattr(questions, "DECODED", 4)
    assert load(file, format="llava", verify_images=True).defects == {"undecodable-image": 1}


# --- through the command line ------------------------------------------------------------------------------------


def test_evaluate_asks_with_pictures_that_lay_inside_a_table(tiny_folder, tmp_path, capsys):
    root, out = made.spa_vl(tmp_path / "set"), tmp_path / "out"
    words = ("--format", "spa-vl", "--split", "train", "--max-new-tokens", 1)
    assert call("evaluate", tiny_folder, root, "--out", out, *words) == 0
    asked = [json.loads(line) for line in (out / "queries.jsonl").read_text().splitlines()]
    assert [row["id"] for row in asked] == ["train-00000/0", "train-00000/1", "train-00001/0", "train-00001/1"]
    assert all(Path(row["image"]).is_file() for row in asked)
    assert len((out / "answers.jsonl").read_text().splitlines()) == 4
    assert "pictures that lie inside the tables were written to" in capsys.readouterr().err


def test_audit_reads_the_parquet_files_of_spa_vl(tmp_path, capsys):
    held = [made.spa_row(n, question=f"{'How' if n % 2 else 'Why'} is glorp {n} red?") for n in range(16)]
    file = made.parquet(tmp_path / "train.parquet", [row | {"label": str(n % 2)} for n, row in enumerate(held)])
    columns = ("--question", "question", "--label", "label", "--image", "image")
    assert call("audit", "data", file, *columns, "--out", tmp_path / "audit") == 0
    assert "16 rows from train.parquet: 8 refusal, 8 compliance" in capsys.readouterr().out


# --- real folders ------------------------------------------------------------------------------------------------

REAL = Path(os.environ.get("UNMIRAGE_DATA", "/nonexistent"))


@pytest.mark.parametrize("name", MODULES)
def test_the_real_set_is_as_it_is_described(name):
    folder = REAL / name
    if not folder.is_dir():
        pytest.skip(f"UNMIRAGE_DATA names no folder with a subfolder {name}")
    module = MODULES[name]
    parts = module.find(folder)
    assert parts, f"nothing of {name} was recognised"
    counts = module.ABOUT.rows if hasattr(module, "ABOUT") else {}
    for part in parts:
        loaded = load(part.path, format=part.format, split=part.split, images=part.images, require_images=False)
        skipped = sum(problem.skipped for problem in loaded.problems)
        assert len(loaded.queries) + skipped == counts.get(part.split, len(loaded.queries) + skipped)
        assert not [warning for warning in loaded.warnings if "is not known" in warning]
        assert "repeated-id" not in loaded.defects
