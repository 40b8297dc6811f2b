"""Data sets of the Hub that are text: JSON lines, JSON lists, CSV, and the table of a folder of pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dataset_fixtures_a as a
import pytest

from unmirage import cli
from unmirage.datasets import hf, load
from unmirage.datasets.marks import marked
from unmirage.errors import UserError


def call(*arguments: object) -> int:
    words = [str(one) for one in arguments]
    return cli.run(lambda: cli.app(words, prog_name="unmirage", standalone_mode=False))


ROWS: list[dict[str, Any]] = [
    {"prompt": "Where is it?", "response": "There.", "image": "one.png", "label": "safe"},
    {"prompt": "Glorp it, how?", "response": "", "image": "", "label": "harmful"},
]


def lines(file: Path, rows: list[Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\ufeff" + "\n\n".join(one if isinstance(one, str) else json.dumps(one) for one in rows) + "\n")
    return file


def written(kind: str, folder: Path) -> Path:
    if kind == "csv":
        return a.write_csv(folder / "train.csv", list(ROWS[0]), [list(row.values()) for row in ROWS], bom=True)
    if kind == "json":
        return a.write_json(folder / "train.json", ROWS, bom=True)
    return lines(folder / f"train.{kind}", ROWS)


@pytest.mark.parametrize("kind", ["jsonl", "ndjson", "json", "csv"])
def test_each_kind_of_text_is_read_alone_and_as_a_folder(kind, tmp_path):
    file = written(kind, tmp_path / "d")
    a.picture(tmp_path / "d" / "images" / "one.png")
    for path in (file, tmp_path / "d"):
        loaded = load(path, format="hf", strict=True, verify_images=True)
        first, second = loaded.queries
        assert (first.id, first.question, first.reference, first.harmful) == (
            "train/0",
            "Where is it?",
            "There.",
            False,
        )
        assert first.image == tmp_path / "d" / "images" / "one.png"
        assert (second.id, second.harmful, second.image, second.reference) == ("train/1", True, None, None)


def test_rows_that_are_none_are_reported_by_their_number_and_the_others_read(tmp_path, capsys):
    bad = lines(tmp_path / "train.jsonl", [ROWS[1], '{"prompt": ', '"text"', {"response": "x"}, ROWS[1]])
    loaded = load(bad, format="hf")
    assert [query.id for query in loaded.queries] == ["train/0", "train/4"]
    assert [(one.row, one.field, one.kind) for one in loaded.problems] == [
        (1, "row", "bad-row"),
        (2, "row", "bad-row"),
        (3, "prompt", "bad-row"),
    ]
    assert "it is a string, not an object" in str(loaded.problems[0])
    table = tmp_path / "t.csv"
    table.write_text("prompt,label\nWhat?,safe\nWhat,now,safe\n")
    assert [(one.row, one.kind) for one in load(table, format="hf").problems] == [(1, "ragged-row")]
    assert call("data", "check", bad, "--format", "hf", "--strict") == 1
    assert "row 1 (counting from 0)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", b'prompt\n"open', "is not CSV"),
        ("a.csv", b"prompt,label,label\nWhat?,safe,unsafe\n", "two columns 'label'"),
        ("a.csv", b"prompt\n\xff\xfe", "is not text in UTF-8"),
        ("a.json", b'[{"prompt": "a"},', "is not JSON"),
        ("a.jsonl", b"", "has no column of questions"),
    ],
)
def test_a_broken_file_is_named(name, content, says, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}.*{says}"):
        load(tmp_path / name, format="hf")


def test_text_is_recognised_only_where_the_readme_lists_it(tmp_path):
    lines(tmp_path / "data" / "train.jsonl", [ROWS[1]])
    lines(tmp_path / "answers.jsonl", [ROWS[1]])
    assert hf.find(tmp_path) == []
    header = "---\nconfigs:\n- config_name: default\n  data_files: [{split: train, path: data/train.jsonl}]\n---\n"
    (tmp_path / "README.md").write_text(header)
    (part,) = hf.find(tmp_path)
    assert (part.split, part.path) == ("train", tmp_path / "data" / "train.jsonl")
    assert [query.id for query in load(tmp_path, format="hf", split="train").queries] == ["train/0"]


def test_a_folder_of_pictures_has_the_parts_of_its_folders(tmp_path):
    for part in ("train", "test"):
        lines(tmp_path / part / "metadata.jsonl", [{"file_name": "one.png", "question": f"Which {part}?"}])
        a.picture(tmp_path / part / "one.png")
    loaded = load(tmp_path, format="hf", split="test", verify_images=True)
    assert [(query.id, query.question) for query in loaded.queries] == [("test/metadata/0", "Which test?")]
    assert loaded.queries[0].image == tmp_path / "test" / "one.png"
    with pytest.raises(UserError, match="several parts: test, train"):
        load(tmp_path, format="hf")


def test_what_was_converted_to_json_lines_is_read_again_and_keeps_its_mark(tmp_path):
    root = a.mossbench(tmp_path / "in")
    assert call("data", "convert", root, "--split", "contrast", "--to", "jsonl", "--out", tmp_path / "out") == 0
    file = tmp_path / "out" / "data.jsonl"
    before = load(root / "data_contrast" / "images_information" / "information.json", format="mossbench-contrast")
    after = load(file, format="hf", strict=True, verify_images=True)
    assert [(q.id, q.question, q.harmful) for q in after.queries] == [
        (q.id, q.question, q.harmful) for q in before.queries
    ]
    assert marked(file) == (file, 0)
    table = tmp_path / "t.csv"
    table.write_text("prompt,training\nWhat?,\nHow?,False\n")
    assert marked(table) == (table, 1)
