"""Rows that were converted from a set that must not be trained on: they say so, and training looks."""

from __future__ import annotations

import json
from pathlib import Path

import dataset_fixtures_a as a
import dataset_fixtures_b as b
import polars as pl
import pytest

from unmirage import cli
from unmirage.datasets import check_training, load
from unmirage.datasets import marks as marks_module
from unmirage.datasets.marks import marked
from unmirage.errors import UserError


def call(*arguments: object) -> int:
    words = [str(one) for one in arguments]
    return cli.run(lambda: cli.app(words, prog_name="unmirage", standalone_mode=False))


def vlguard(file: Path, *marks: object) -> Path:
    """A row for each mark, None being a row without one."""
    rows = []
    for number, mark in enumerate(marks):
        row = b.vl_row(f"u{number}", False, {"instruction": f"Where is {number}?", "response": "No."})
        a.picture(file.parent / "images" / row["image"])
        rows.append(row | ({} if mark is None else {"training": mark}))
    return a.write_json(file, rows)


def llava(file: Path, *marks: object) -> Path:
    turns = [{"from": "human", "value": 'Is the word "training": false?'}, {"from": "gpt", "value": "No."}]
    rows = [{"id": n, "conversations": turns} | ({} if m is None else {"training": m}) for n, m in enumerate(marks)]
    return a.write_json(file, rows)


@pytest.mark.parametrize(
    ("marks", "row"),
    [
        ((None, None), None),
        ((True, None), None),
        ((None, False), 1),
        (("no", None), 0),
        ((None, True, 0), 2),
    ],
)
def test_the_first_marked_row_is_found_in_lists_and_tables(marks, row, tmp_path):
    for make in (vlguard, llava):
        file = make(tmp_path / f"{make.__name__}.json", *marks)
        assert marked(file) == (None if row is None else (file, row))
    values = [None if mark is None else str(mark) for mark in marks]
    table = tmp_path / "t" / "train.parquet"
    table.parent.mkdir()
    pl.DataFrame({"prompt": ["a"] * len(marks), "training": values}).write_parquet(table)
    assert marked(table) == marked(table.parent) == (None if row is None else (table, row))


def test_a_saved_data_set_is_looked_through_shard_by_shard(tmp_path):
    rows = [b.hub_row(0), b.hub_row(1) | {"training": False}]
    b.arrow(tmp_path / "d", [[row | {"training": row.get("training", True)}] for row in rows])
    assert marked(tmp_path / "d") == (tmp_path / "d" / "data-00001-of-00002.arrow", 0)


def test_the_word_is_found_wherever_pieces_of_the_file_end(tmp_path, monkeypatch):
    file = vlguard(tmp_path / "mine.json", None, False)
    for size in (1, 2, 7, 9, 10, 11, 50):
        monkeypatch.setattr(marks_module, "CHUNK", size)
        assert marked(file) == (file, 1)


def test_what_cannot_be_read_has_no_mark_here(tmp_path):
    (tmp_path / "empty.json").write_bytes(b"")
    (tmp_path / "object.json").write_text('{"training": false}')
    (tmp_path / "broken.json").write_text('[{"training": ')
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    for path in (*tmp_path.iterdir(), tmp_path / "none.json"):
        assert marked(path) is None


def test_training_refuses_a_marked_file_by_row_and_says_what_to_do(tmp_path, capsys):
    file = vlguard(tmp_path / "mine.json", None, False)
    with pytest.raises(UserError, match=r"mine.json, row 1 \(counting from 0\), field 'training'.*take the field"):
        check_training("vlguard", None, file)
    check_training("vlguard", vlguard(tmp_path / "good.json", None), None)
    words = ["--out", tmp_path / "o", "--method", "npo"]
    assert call("align", "none", file, *words) == 2
    assert "row 1 (counting from 0), field 'training'" in capsys.readouterr().err
    general = llava(tmp_path / "general.json", False)
    assert call("align", "none", tmp_path / "good.json", "--general", general, *words) == 2
    assert "general.json, row 0" in capsys.readouterr().err
    assert call("sets", file, "--model", "none", "--out", tmp_path / "o") == 2
    assert "mine.json, row 1" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_marked_rows_may_be_evaluated_on_and_the_mark_is_no_unknown_key(tmp_path, capsys):
    file = vlguard(tmp_path / "mine.json", False, None)
    loaded = load(file, strict=True)
    assert len(loaded.queries) == 2
    assert loaded.warnings == []
    assert call("data", "check", file, "--strict") == 0
    assert 'rows say "training": false' in capsys.readouterr().out


def test_the_mark_outlives_every_conversion(tmp_path, capsys):
    root = a.mossbench(tmp_path / "in")
    assert call("data", "convert", root, "--split", "contrast", "--to", "parquet", "--out", tmp_path / "one") == 0
    first = tmp_path / "one" / "data.parquet"
    for to in ("vlguard", "llava"):
        assert call("data", "convert", first, "--to", to, "--format", "hf", "--out", tmp_path / to) == 2
        assert "data.parquet, row 0" in capsys.readouterr().err
    assert call("data", "convert", first, "--to", "jsonl", "--format", "hf", "--out", tmp_path / "two") == 0
    rows = [json.loads(line) for line in (tmp_path / "two" / "data.jsonl").read_text().splitlines()]
    assert [row["training"] for row in rows] == [False, False]
    assert json.loads((tmp_path / "two" / "conversion.json").read_text())["training"] is False
    assert call("align", "none", first, "--format", "hf", "--method", "npo", "--out", tmp_path / "o") == 2
    assert "data.parquet, row 0" in capsys.readouterr().err
