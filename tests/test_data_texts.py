"""Texts with half a character, which JSON can name and nothing can write: a defect with a place, in every format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dataset_fixtures_a as a
import dataset_fixtures_b as b
import pytest

from unmirage import cli
from unmirage.datasets import load
from unmirage.errors import UserError

HALF = "\ud800"
"""A lone surrogate; `json.dumps` writes it as an escape, as other writers do."""


def call(*arguments: object) -> int:
    words = [str(one) for one in arguments]
    return cli.run(lambda: cli.app(words, prog_name="unmirage", standalone_mode=False))


def changed(file: Path, change: Callable[[Any], Any]) -> Path:
    content = json.loads(file.read_text())
    return a.write_json(file, change(content) or content)


def in_list(field: str) -> Callable[[Any], Any]:
    return lambda rows: rows[1].update({field: f"x{HALF}"})


def in_object(field: str) -> Callable[[Any], Any]:
    return lambda rows: list(rows.values())[1].update({field: f"x{HALF}"})


def vlguard(folder: Path) -> Path:
    rows = [b.vl_row(f"u{n}", False, {"instruction": f"Where is {n}?", "response": "No."}) for n in (0, 1)]
    for row in rows:
        a.picture(folder / "images" / row["image"])
    return a.write_json(folder / "mine.json", rows)


def in_pair(key: str) -> Callable[[Any], Any]:
    return lambda rows: rows[1]["instr-resp"][0].update({key: HALF})


def llava(folder: Path) -> Path:
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "That."}]
    return a.write_json(folder / "l.json", [{"id": n, "conversations": [*map(dict, turns)]} for n in (0, 1)])


def in_turn(at: int) -> Callable[[Any], Any]:
    return lambda rows: rows[1]["conversations"][at].update(value=HALF)


def textvqa(folder: Path) -> Path:
    for n in (0, 1):
        a.picture(folder / "train_images" / f"p{n}.jpg")
    rows = [{"question_id": n, "image_id": f"p{n}", "question": f"What is {n}?", "answers": ["a"] * 10} for n in (0, 1)]
    return a.write_json(folder / "TextVQA_0.5.1_val.json", {"data": rows})


def in_data(field: str, value: Any) -> Callable[[Any], Any]:
    return lambda whole: whole["data"][1].update({field: value})


MOSS = "data/images_information/information.json"
MM = "data/processed_questions/13-Gov_Decision.json"
CASES: dict[str, tuple[str, Callable[[Path], Path], Callable[[Any], Any], str]] = {
    "vlguard question": ("vlguard", vlguard, in_pair("instruction"), "instr-resp.0.instruction"),
    "vlguard answer": ("vlguard", vlguard, in_pair("response"), "instr-resp.0.response"),
    "vlguard id": ("vlguard", vlguard, in_list("id"), "id"),
    "vlguard picture": ("vlguard", vlguard, in_list("image"), "image"),
    "vlguard key": ("vlguard", vlguard, in_list(HALF), "row"),
    "llava question": ("llava", llava, in_turn(0), "conversations.0.value"),
    "llava answer": ("llava", llava, in_turn(1), "conversations.1.value"),
    "llava picture": ("llava", llava, in_list("image"), "image"),
    "vlsbench question": ("vlsbench", lambda f: a.vlsbench(f) / "data" / "data.json", in_list("instruction"), ""),
    "vlsbench category": ("vlsbench", lambda f: a.vlsbench(f) / "data" / "data.json", in_list("category"), ""),
    "siuo question": ("siuo", lambda f: a.siuo(f) / "data" / "siuo_gen.json", in_list("question"), ""),
    "siuo answer": ("siuo", lambda f: a.siuo(f) / "data" / "siuo_gen.json", in_list("reference_answer"), ""),
    "holisafe question": ("holisafe", lambda f: a.holisafe(f) / "holisafe_bench.json", in_list("query"), ""),
    "mossbench question": ("mossbench", lambda f: a.mossbench(f) / MOSS, in_object("question"), "2.question"),
    "mossbench key": ("mossbench", lambda f: a.mossbench(f) / MOSS, in_object("pid"), "2.pid"),
    "mm-safetybench": (
        "mm-safetybench", lambda f: a.mm_safetybench(f) / MM, in_object("Rephrased Question"), "1.Rephrased Question"
    ),
    "spa-vl question": ("spa-vl", b.spa_vl_json, in_list("question"), ""),
    "spa-vl answer": ("spa-vl-rejected", b.spa_vl_json, in_list("rejected"), ""),
    "textvqa question": ("textvqa", textvqa, in_data("question", HALF), ""),
    "textvqa answer": ("textvqa", textvqa, in_data("answers", ["a"] * 9 + [HALF]), "answers.9"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_half_a_character_is_a_defect_with_row_and_field_and_the_other_row_is_read(case, tmp_path):
    format, make, change, field = CASES[case]
    file = make(tmp_path)
    whole = load(file, format=format)
    loaded = load(changed(file, change), format=format)
    assert whole.problems == []
    assert 0 < len(loaded.queries) < len(whole.queries)
    assert {(problem.row, problem.kind) for problem in loaded.problems} == {(1, "broken-text")}
    assert all(problem.field == (field or problem.field) and str(problem).isprintable() for problem in loaded.problems)
    for query in loaded.queries:
        query.model_dump_json()
    with pytest.raises(UserError, match="row 1"):
        load(file, format=format, strict=True)


def test_a_row_whose_own_key_is_broken_is_told(tmp_path):
    file = a.mm_safetybench(tmp_path) / MM
    loaded = load(changed(file, lambda rows: {**rows, HALF: rows["0"]}), format="mm-safetybench", split="SD")
    assert [(problem.row, problem.field, problem.kind) for problem in loaded.problems] == [(2, "id", "broken-text")]
    assert len(loaded.queries) == 2


@pytest.mark.parametrize("case", ["vlguard question", "llava answer", "mossbench question", "spa-vl question"])
def test_check_and_convert_tell_of_it_and_go_on(case, tmp_path, capsys):
    format, make, change, _ = CASES[case]
    file = changed(make(tmp_path / "set"), change)
    assert call("data", "check", file, "--format", format) == 0
    page = capsys.readouterr().out
    assert "1 broken-text" in page
    assert f"{file}, row 1 (counting from 0)" in page
    for to in ("jsonl", "parquet"):
        assert call("data", "convert", file, "--format", format, "--to", to, "--out", tmp_path / to) == 0
    assert "1 broken-text" in capsys.readouterr().err


def test_a_table_of_csv_tells_the_row_too(tmp_path, capsys):
    file = a.xstest(tmp_path) / "xstest_prompts.csv"
    file.write_bytes(file.read_bytes().replace(b"a zindle", b"a zin\xed\xa0\x80dle"))
    assert call("data", "check", file) == 0
    assert (
        f"{file}, row 1 (counting from 0), field 'prompt': the text holds half a character" in capsys.readouterr().out
    )
    file.write_bytes(file.read_bytes().replace(b"\xed\xa0\x80", b"\xff"))
    assert call("data", "check", file, "--format", "xstest") == 1
    assert "is not text in UTF-8" in capsys.readouterr().out


def test_parquet_cannot_hold_it_and_the_file_is_named(tmp_path, capsys):
    rows = [b.hub_row(0), b.hub_row(1, prompt="Which zindlezz?")]
    file = b.parquet(tmp_path / "train-00000-of-00001.parquet", rows, compression="uncompressed", statistics=False)
    file.write_bytes(file.read_bytes().replace(b"zindlezz", b"zindl\xed\xa0\x80"))
    assert call("data", "check", file, "--format", "hf") == 1
    page = capsys.readouterr().out
    assert "CANNOT BE READ" in page
    assert f"{file} cannot be read as a table" in page
