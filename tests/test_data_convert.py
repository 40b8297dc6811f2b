"""`unmirage data convert`: round trips, losses that are named, and a folder that is whole or not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import dataset_fixtures_a as made
import polars
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from PIL import Image

from unmirage import cli
from unmirage.datasets import check_training, converting, load, writing
from unmirage.datasets.catalog import Part
from unmirage.datasets.converting import Wish, convert
from unmirage.datasets.writing import Pictures, Place, stream_jsonl, stream_llava, stream_parquet, stream_vlguard
from unmirage.errors import UserError
from unmirage.schema import Query


def call(*arguments: object) -> int:
    words = [str(one) for one in arguments]
    return cli.run(lambda: cli.app(words, prog_name="unmirage", standalone_mode=False))


def picture(path: Path, shade: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (shade, 0, 0)).save(path)
    return path


def vlguard(folder: Path) -> Path:
    """An unsafe row, a safe one with two questions, a safe one with its unsafe question alone, and a second unsafe."""
    for number in range(4):
        picture(folder / "train" / "sub" / f"{number}.png", number)
    asked = [
        [{"instruction": "Share ways to glorp", "response": "Secret."}],
        [
            {"safe_instruction": "What?", "response": "It."},
            {"unsafe_instruction": "Share glorps", "response": ""},
        ],
        [{"unsafe_instruction": "How to glorp?"}],
        [{"instruction": "Tell of “glorps” \u2014 or \U0001f642"}],
    ]
    rows = [
        {"id": f"r{n}", "image": f"sub/{n}.png", "safe": n in (1, 2), "instr-resp": pairs}
        for n, pairs in enumerate(asked)
    ]
    return made.write_json(folder / "train.json", rows)


def llava(folder: Path, rows: int = 3) -> Path:
    held = []
    for number in range(rows):
        turns = [{"from": "human", "value": f"<image>\nWhat is {number}?"}, {"from": "gpt", "value": f"A {number}."}]
        held.append({"id": f"g{number}", "image": f"{number % 3}.png", "conversations": turns})
    for number in range(3):
        picture(folder / "images" / f"{number}.png", 100 + number)
    held[-1].pop("image")
    return made.write_json(folder / "mix.json", held)


def content(queries: list[Query], *fields: str) -> list[tuple[Any, ...]]:
    """Queries as fields and the bytes of their pictures."""
    return [
        (*(getattr(query, name) for name in fields), query.image.read_bytes() if query.image else None)
        for query in queries
    ]


LABEL = "label that it is harmful (it is in the file, for this program alone)"
ALL = ("id", "question", "harmful", "reference", "subset")


def done(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "conversion.json").read_text())


# --- round trips -------------------------------------------------------------------------------------------------


def test_vlguard_to_vlguard_is_the_same_rows_again(tmp_path):
    file = vlguard(tmp_path / "in")
    assert call("data", "convert", file, "--to", "vlguard", "--out", tmp_path / "out") == 0
    again = load(tmp_path / "out" / "data.json", strict=True, verify_images=True)
    assert content(again.queries, *ALL) == content(load(file).queries, *ALL)
    assert [again.rows, len(again.queries)] == [4, 5]
    record = done(tmp_path / "out")
    assert [record[key] for key in ("questions", "rows", "pictures", "left_out", "dropped")] == [5, 4, 4, {}, {}]


def test_llava_to_llava_is_the_same_rows_again_text_only_ones_too(tmp_path):
    file = llava(tmp_path / "in")
    assert call("data", "convert", file, "--to", "llava", "--out", tmp_path / "out") == 0
    again = load(tmp_path / "out" / "data.json", format="llava", strict=True)
    assert content(again.queries, *ALL) == content(load(file, format="llava").queries, *ALL)
    assert [query.image is None for query in again.queries] == [False, False, True]


@pytest.mark.parametrize("how", ["--image-bytes", "--image-paths"])
def test_parquet_holds_everything_and_is_read_again(how, tmp_path):
    file = vlguard(tmp_path / "in")
    assert call("data", "convert", file, "--to", "parquet", "--out", tmp_path / "out", how) == 0
    before = load(file).queries
    table = polars.read_parquet(tmp_path / "out" / "data.parquet")
    assert table.columns == ["id", "question", "answer", "harmful", "image", "split", "subset", "answers"]
    rows = table.to_dicts()
    got = [(row["id"], row["question"], row["harmful"], row["answer"], row["subset"]) for row in rows]
    assert got == [tuple(getattr(query, name) for name in ALL) for query in before]
    assert {row["split"] for row in rows} == {"train"}
    places = [row["image"] for row in rows]
    if how == "--image-bytes":
        assert [place["bytes"] for place in places] == [query.image.read_bytes() for query in before if query.image]
        assert not (tmp_path / "out" / "images").exists()
    else:
        assert {place["bytes"] for place in places} == {None}
        held = [(tmp_path / "out" / place["path"]).read_bytes() for place in places]
        assert held == [query.image.read_bytes() for query in before if query.image]
    back = tmp_path / "back"
    beside = ("--images", tmp_path / "out") if how == "--image-paths" else ()
    assert call("data", "convert", tmp_path / "out", *beside, "--to", "vlguard", "--out", back) == 0
    again = load(back / "data.json", strict=True).queries
    assert content(again, "question", "harmful") == content(before, "question", "harmful")
    assert [query.reference for query in again] == [query.reference or None for query in before]


def test_the_parquet_names_its_features_for_the_library_that_shows_it(tmp_path):
    pytest.importorskip("pyarrow")
    import pyarrow.parquet

    file = vlguard(tmp_path / "in")
    call("data", "convert", file, "--to", "parquet", "--out", tmp_path / "out")
    schema = pyarrow.parquet.read_schema(tmp_path / "out" / "data.parquet")
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert list(features) == schema.names
    assert features["image"] == {"_type": "Image"}
    assert features["harmful"] == {"dtype": "bool", "_type": "Value"}
    assert [field.name for field in schema.field("image").type] == ["bytes", "path"]


def test_json_lines_hold_everything_with_pictures_beside_them(tmp_path):
    file = vlguard(tmp_path / "in")
    assert call("data", "convert", file, "--to", "jsonl", "--out", tmp_path / "out") == 0
    rows = [json.loads(line) for line in (tmp_path / "out" / "data.jsonl").read_text().splitlines()]
    before = load(file).queries
    assert [(row["id"], row["question"], row["harmful"], row["answer"], row["subset"]) for row in rows] == [
        tuple(getattr(query, name) for name in ALL) for query in before
    ]
    assert [(tmp_path / "out" / row["image"]).read_bytes() for row in rows] == [
        query.image.read_bytes() for query in before if query.image
    ]


TEXT = some.text(some.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: text.strip())
QUERIES = some.lists(
    some.builds(
        Query,
        id=TEXT,
        question=TEXT,
        harmful=some.booleans(),
        reference=some.none() | TEXT,
        subset=some.none() | TEXT,
        split=some.none() | TEXT,
        answers=some.lists(TEXT, max_size=2).map(tuple),
    ),
    min_size=1,
    unique_by=lambda query: query.id,
)


@settings(max_examples=40, deadline=None)
@given(QUERIES)
def test_no_text_is_changed_in_any_column(tmp_path_factory, queries):
    folder = tmp_path_factory.mktemp("out")
    lines = stream_jsonl(queries, Place(folder / "data.jsonl", Pictures(folder / "images")))
    table = stream_parquet(queries, Place(folder / "data.parquet", Pictures(folder / "images"), {"training": False}))
    wanted = [
        {
            "id": query.id,
            "question": query.question,
            "answer": query.reference,
            "harmful": query.harmful,
            "image": None,
            "split": query.split,
            "subset": query.subset,
            "answers": list(query.answers),
        }
        for query in queries
    ]
    assert [json.loads(line) for line in (folder / "data.jsonl").read_text("utf-8").split("\n")[:-1]] == wanted
    rows = polars.read_parquet(folder / "data.parquet").to_dicts()
    assert rows == [row | {"training": False} for row in wanted]
    assert (lines.questions, table.rows, lines.left_out, table.dropped) == (len(queries), len(queries), {}, {})


# --- what a target cannot hold -----------------------------------------------------------------------------------


def query(number: int, **changed: Any) -> Query:
    return Query(**({"id": f"q{number}", "question": f"What is {number}?", "harmful": False} | changed))


def test_what_vlguards_format_cannot_hold_is_counted(tmp_path):
    shown = picture(tmp_path / "a.png", 1)
    queries = [
        query(0),
        query(1, image=shown, answers=("x", "y"), subset="other", split="seen"),
        query(2, image=shown, harmful=True, subset="drugs", split="whole"),
        query(3, image=shown, harmful=True, subset="safe_unsafes"),
    ]
    place = Place(tmp_path / "out" / "data.json", Pictures(tmp_path / "out" / "images"), split="whole")
    place.file.parent.mkdir()
    found = stream_vlguard(queries, place)
    assert (found.questions, found.rows, found.left_out) == (3, 3, {"without a picture": 1})
    assert found.dropped == {
        "answers of several people": 1,
        "subset": 1,
        "split": 1,
        "subset (it is in the file as harmful_category)": 1,
    }
    again = load(place.file, strict=True).queries
    assert [(one.id, one.harmful, one.subset) for one in again] == [
        ("q1/safe_safe", False, "safe_safes"),
        ("q2/unsafe", True, "unsafes"),
        ("q3/safe_unsafe", True, "safe_unsafes"),
    ]
    assert json.loads(place.file.read_text())[1]["harmful_category"] == "drugs"


def test_rows_of_vlguards_format_never_share_an_id(tmp_path):
    """ "x" and "x/unsafe" would both be row "x"; what is asked about another picture is no part of a row, either."""
    one, two = picture(tmp_path / "1.png", 1), picture(tmp_path / "2.png", 2)
    queries = [
        query(0, id="x", image=one, harmful=True),
        query(1, id="x/unsafe", image=one, harmful=True),
        query(2, id="y/safe_safe", image=one),
        query(3, id="y/safe_unsafe", image=two, harmful=True, subset="safe_unsafes"),
    ]
    place = Place(tmp_path / "data.json", Pictures(tmp_path / "images"))
    found = stream_vlguard(queries, place)
    assert found.dropped == {"id, which another row has (a number was added)": 2}
    again = load(place.file, strict=True).queries
    assert [one.id for one in again] == ["x/unsafe", "x#2/unsafe", "y/safe_safe", "y#2/safe_unsafe"]
    assert content(again, "question", "harmful") == content(queries, "question", "harmful")


def test_what_llavas_format_cannot_hold_is_counted_and_harm_is_marked(tmp_path):
    queries = [
        query(0),
        query(1, reference="Yes.", answers=("yes",), subset="s", split="seen"),
        query(2, reference="Way.", harmful=True),
    ]
    found = stream_llava(queries, Place(tmp_path / "data.json", Pictures(tmp_path / "images")))
    assert found.left_out == {"without an answer": 1}
    assert found.dropped == {"answers of several people": 1, "split": 1, "subset": 1, LABEL: 1}
    marked = [row.get("harmful") for row in json.loads((tmp_path / "data.json").read_text())]
    assert marked == [None, True]
    assert [one.id for one in load(tmp_path / "data.json", format="llava", strict=True).queries] == ["q1", "q2"]


def test_losses_are_told_and_kept_in_the_folder(tmp_path, capsys):
    file = vlguard(tmp_path / "in")
    assert call("data", "convert", file, "--to", "llava", "--out", tmp_path / "out") == 0
    error = capsys.readouterr().err
    assert "cannot hold, left out: 2 without an answer" in error
    assert f"questions that are written: 2 {LABEL}" in error
    record = done(tmp_path / "out")
    assert record["left_out"] == {"without an answer": 2}
    assert (record["read"], record["questions"], record["split"]) == (5, 3, "train")
    assert record["dropped"] == {LABEL: 2, "subset": 3}


def test_bad_rows_of_the_source_are_counted(tmp_path, capsys):
    file = vlguard(tmp_path / "in")
    (tmp_path / "in" / "train" / "sub" / "0.png").unlink()
    assert call("data", "convert", file, "--to", "jsonl", "--out", tmp_path / "out") == 0
    assert "bad rows of the source, left out: 1 missing-image" in capsys.readouterr().err
    assert done(tmp_path / "out")["skipped"] == {"missing-image": 1}
    assert call("data", "convert", file, "--to", "jsonl", "--out", tmp_path / "strict", "--strict") == 2
    assert "there is no file" in capsys.readouterr().err
    assert not (tmp_path / "strict").exists()


# --- which rows --------------------------------------------------------------------------------------------------


def test_a_limit_draws_with_a_seed_and_keeps_the_order(tmp_path):
    file = llava(tmp_path / "in", 200)

    def drawn(name: str, *more: object) -> list[int]:
        assert call("data", "convert", file, "--to", "llava", "--out", tmp_path / name, "--limit", 20, *more) == 0
        rows = json.loads((tmp_path / name / "data.json").read_text())
        return [int(row["id"][1:]) for row in rows]

    first, again, other = drawn("a"), drawn("b", "--seed", 0), drawn("c", "--seed", 1)
    assert first == again == sorted(set(first))
    assert len(first) == 20
    assert other != first
    assert {path.name for path in (tmp_path / "a" / "images").iterdir()} <= {"0.png", "1.png", "2.png"}


def test_a_folder_with_several_parts_wants_to_be_told_which(tmp_path, capsys):
    root = made.figstep(tmp_path / "f")
    assert call("data", "convert", root, "--to", "jsonl", "--out", tmp_path / "out") == 2
    assert "3 parts; convert one at a time" in capsys.readouterr().err
    assert call("data", "convert", root, "--split", "benign", "--to", "jsonl", "--out", tmp_path / "out") == 0
    assert done(tmp_path / "out")["format"] == "figstep-benign"


@pytest.mark.parametrize("name", ["figstep", "mm-safetybench", "siuo", "vlsbench"])
def test_any_set_becomes_vlguards_with_its_pictures(name, tmp_path):
    """Pictures of MM-SafetyBench have the same names in every folder."""
    root = made.SETS[name](tmp_path / "in")
    for shade, path in enumerate(sorted(root.rglob("*.png")) + sorted(root.rglob("*.jpg"))):
        picture(path, shade)
    split = {"figstep": "safebench", "mm-safetybench": "SD", "siuo": "gen"}.get(name, "data")
    where = (root, "--format", name, "--split", split)
    assert call("data", "convert", *where, "--to", "vlguard", "--out", tmp_path / "out") == 0
    path = root / "data" / "question" / "safebench.csv" if name == "figstep" else root
    before = load(path, format=name, split=split).queries
    again = load(tmp_path / "out" / "data.json", strict=True).queries
    assert content(again, "question", "harmful", "reference") == content(before, "question", "harmful", "reference")
    assert [one.id for one in again] == [f"{one.id}/unsafe" for one in before]


def test_what_was_converted_is_known_by_its_columns_whatever_its_folder_is_called(tmp_path, capsys):
    root = made.holisafe(tmp_path / "in")
    out = tmp_path / "holisafe-vlguard"
    assert call("data", "convert", root, "--to", "vlguard", "--out", out) == 0
    for name in ("data.json", "holisafe.json"):
        file = next(out.glob("d*.json")).rename(out / name)
        capsys.readouterr()
        assert call("data", "check", file, "--strict") == 0
        assert "(format vlguard)" in capsys.readouterr().out


# --- what must not be trained on ---------------------------------------------------------------------------------


@pytest.mark.parametrize("to", ["vlguard", "llava"])
def test_a_set_that_must_not_be_trained_on_is_not_written_as_training_data(to, tmp_path, capsys):
    root = made.mossbench(tmp_path / "in")
    assert call("data", "convert", root, "--split", "benign", "--to", to, "--out", tmp_path / "out") == 2
    assert "MOSSBench (format mossbench) must not be trained on" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("to", ["parquet", "jsonl"])
def test_elsewhere_each_of_its_rows_says_so(to, tmp_path, capsys):
    root = made.mossbench(tmp_path / "in")
    assert call("data", "convert", root, "--split", "contrast", "--to", to, "--out", tmp_path / "out") == 0
    assert "forbid to train on it" in capsys.readouterr().err
    read = polars.read_parquet if to == "parquet" else polars.read_ndjson
    assert read(tmp_path / "out" / f"data.{to}")["training"].to_list() == [False, False]
    assert done(tmp_path / "out")["training"] is False
    assert "forbid to train" in (tmp_path / "out" / "README.md").read_text()


def test_sets_refuses_it_before_anything_is_read(tmp_path, capsys):
    with pytest.raises(UserError, match="must not be trained on"):
        check_training("mossbench")
    assert call("sets", "none.json", "--model", "none", "--out", tmp_path / "o", "--format", "mossbench") == 2
    assert "must not be trained on" in capsys.readouterr().err


# --- whole or not at all -----------------------------------------------------------------------------------------


def test_what_is_there_stays(tmp_path, capsys):
    file = vlguard(tmp_path / "in")
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    assert call("data", "convert", file, "--to", "jsonl", "--out", out) == 2
    assert "is not empty, and what is there stays" in capsys.readouterr().err
    assert [one.name for one in out.iterdir()] == ["mine.txt"]
    assert call("data", "convert", file, "--to", "jsonl", "--out", out / "mine.txt") == 2
    assert "is a file; give a new folder" in capsys.readouterr().err
    (out / "mine.txt").unlink()
    assert call("data", "convert", file, "--to", "jsonl", "--out", out) == 0
    assert done(out)["questions"] == 5


@pytest.mark.parametrize("to", sorted(writing.STREAMS))
def test_a_failure_half_way_leaves_nothing(to, tmp_path, monkeypatch):
    """Here the file is broken behind its two hundredth row, of which some thousand bytes were written by then."""
    file = llava(tmp_path / "in", 200)
    file.write_text(file.read_text()[:-1] + ", {")
    with pytest.raises(UserError, match="is not JSON"):
        convert(Part("llava", "", file), Wish(to, tmp_path / "new" / "out"))
    assert list((tmp_path / "new").iterdir()) == []


def test_a_disk_that_refuses_leaves_nothing(tmp_path, monkeypatch, capsys):
    file = vlguard(tmp_path / "in")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(converting, "write_text", full)
    assert call("data", "convert", file, "--to", "parquet", "--out", tmp_path / "out") == 2
    assert "No space left on device" in capsys.readouterr().err
    assert [one.name for one in tmp_path.iterdir()] == ["in"]


def test_nothing_to_write_is_an_error(tmp_path, capsys):
    root = made.xstest(tmp_path / "in")
    assert call("data", "convert", root, "--to", "vlguard", "--out", tmp_path / "out") == 2
    assert "nothing can be written as vlguard: 3 without a picture" in capsys.readouterr().err
    assert [one.name for one in tmp_path.iterdir()] == ["in"]


def test_pictures_are_links_where_they_can_be_and_copies_elsewhere(tmp_path, monkeypatch):
    source = picture(tmp_path / "a" / "x.png", 1)
    other = picture(tmp_path / "b" / "x.png", 2)
    third = picture(tmp_path / "c" / "x-2.png", 3)
    pictures = Pictures(tmp_path / "out")
    names = [pictures.name(one) for one in (source, source, other, third)]
    assert names == ["x.png", "x.png", "x-2.png", "x-2-2.png"]
    assert (tmp_path / "out" / "x.png").samefile(source)

    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    copies = Pictures(tmp_path / "copies")
    copies.name(other)
    assert (tmp_path / "copies" / "x.png").read_bytes() == other.read_bytes()
    assert not (tmp_path / "copies" / "x.png").samefile(other)


# --- memory ------------------------------------------------------------------------------------------------------


MEASURE = """
import re, sys
from pathlib import Path
from unmirage.datasets.catalog import Part
from unmirage.datasets.converting import Wish, convert
convert(Part("llava", "", Path(sys.argv[1])), Wish(sys.argv[2], Path(sys.argv[3])))
print(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the most memory is read from /proc")
@pytest.mark.parametrize("to", ["jsonl", "parquet"])
def test_memory_does_not_grow_with_the_rows(to, tmp_path):
    """Ten times the rows, 44 MB of text more: the memory for ids, and what the allocator keeps, is far less."""
    peaks = []
    for rows in (4_000, 40_000):
        turns = [{"from": "human", "value": "word " * 120}, {"from": "gpt", "value": "word " * 120}]
        file = made.write_json(
            tmp_path / f"{rows}.json", [{"id": f"row-{number}", "conversations": turns} for number in range(rows)]
        )
        run = [sys.executable, "-c", MEASURE, str(file), to, str(tmp_path / f"out{rows}")]
        found = subprocess.run(run, capture_output=True, text=True, check=True)
        peaks.append(int(found.stdout))
    assert peaks[1] - peaks[0] < 22_000  # KiB
