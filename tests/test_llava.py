"""LLaVA instruction files: what a good one gives, and what a bad row says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from unmirage.datasets import LoadedData, load
from unmirage.datasets.ids import Ids
from unmirage.errors import UserError


def row(row_id: object = "a", image: object = "1.png", *values: str, **changes: Any) -> dict[str, Any]:
    said = values or ("<image>\nWhat colour is it", "Red.")
    turns = [{"from": "gpt" if at % 2 else "human", "value": value} for at, value in enumerate(said)]
    made = {"id": row_id, "image": image, "conversations": turns} | changes
    return {key: value for key, value in made.items() if value is not None}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "images" / "1.png")
    return tmp_path


def read(folder: Path, rows: list[Any], **options: Any) -> LoadedData:
    (folder / "general.json").write_text(json.dumps(rows))
    return load(folder / "general.json", format="llava", **options)


def test_a_row_becomes_a_harmless_query(folder: Path) -> None:
    data = read(folder, [row(), row(7, None, "Tell me", "No.")], name="general-1", split="seen")
    first, second = data.queries
    assert (first.id, first.question, first.reference) == ("a", "What colour is it", "Red.")
    assert first.image == folder / "images" / "1.png"
    assert (second.id, second.image, second.question) == ("7", None, "Tell me")
    assert {(q.harmful, q.data, q.split) for q in data.queries} == {(False, "general-1", "seen")}
    assert data.problems == []


def test_only_a_row_that_says_so_is_harmful_and_generated_text_is_told_apart(folder: Path) -> None:
    data = read(folder, [row("a"), row("b", harmful=True), row("c", harmful=True, generated="by a model")])
    assert [(query.harmful, query.subset) for query in data.queries] == [
        (False, None),
        (True, None),
        (True, "generated"),
    ]
    assert read(folder, [row("a"), row("b", harmful="perhaps")]).problems[0].field == "harmful"


@pytest.mark.parametrize("said", ["<image>\nWhat", "What\n<image>", "What"])
def test_the_image_mark_is_no_part_of_the_question(folder: Path, said: str) -> None:
    assert read(folder, [row("a", "1.png", said, "Red.")]).queries[0].question == "What"


def test_repeated_ids_are_numbered(folder: Path) -> None:
    assert [query.id for query in read(folder, [row(), row(), row("b"), row()]).queries] == ["a", "a#2", "b", "a#3"]


def test_numbers_of_repeated_ids_are_the_first_that_are_free() -> None:
    ids = Ids()
    given = ["a", "a#2", "a", "b", "a", "a#2", "a#4", "b", "a#2#2", "a", "a#2"]
    assert [ids.add(one) for one in given] == [
        "a", "a#2", "a#3", "b", "a#4", "a#2#2", "a#4#2", "b#2", "a#2#2#2", "a#5", "a#2#3",
    ]  # fmt: skip


def test_an_id_that_comes_very_often_takes_no_longer_each_time() -> None:
    ids = Ids()
    assert [ids.add("a") for _ in range(200_000)][-1] == "a#200000"


def test_ids_stay_unique_where_a_row_is_itself_called_so(folder: Path) -> None:
    ids = [query.id for query in read(folder, [row("a"), row("a"), row("a#2"), row("a")]).queries]
    assert len(set(ids)) == 4


@pytest.mark.parametrize(
    ("bad", "field", "kind"),
    [
        (row("x", "absent.png"), "image", "missing-image"),
        (row("x", "../general.json"), "image", "image-outside"),
        (row("x", "1.png", "<image>", "Red."), "conversations.0.value", "empty-question"),
        (row("x", "1.png", "What"), "conversations", "bad-row"),
        (row("x", "1.png", conversations=[{"from": "cat", "value": "a"}] * 2), "conversations.0.from", "bad-row"),
        (row(""), "id", "bad-row"),
        (row(id=None), "id", "bad-row"),
        ("text", "row", "bad-row"),
        ({**row(), "image": 5}, "image", "bad-row"),
    ],
)
def test_a_bad_row_is_reported_and_the_rest_read(folder: Path, bad: Any, field: str, kind: str) -> None:
    data = read(folder, [row(), bad])
    assert [query.id for query in data.queries] == ["a"]
    (problem,) = data.problems
    assert (problem.row, problem.field, problem.kind) == (1, field, kind)
    assert "general.json, row 1" in str(problem)
    with pytest.raises(UserError, match="row 1"):
        read(folder, [row(), bad], strict=True)


def test_a_turn_that_is_no_object_is_told_by_what_it_is(folder: Path) -> None:
    (problem,) = read(folder, [row(), row("x", conversations=["What?", "That."])]).problems
    assert (problem.field, problem.what) == ("conversations.0", "it is a string, not an object")


def test_who_speaks_matters(folder: Path) -> None:
    turns = [{"from": "gpt", "value": "Red."}, {"from": "human", "value": "What colour is it"}]
    data = read(folder, [row(), row("x", conversations=turns)])
    assert [query.id for query in data.queries] == ["a"]
    assert data.problems[0].field == "conversations"


def test_later_exchanges_are_left_out_and_reported(folder: Path) -> None:
    data = read(folder, [row("a", "1.png", "What", "Red.", "Why", "So.")])
    assert [(q.question, q.reference) for q in data.queries] == [("What", "Red.")]
    assert data.problems == []
    (warning,) = data.warnings
    assert "first exchange of 1 longer" in warning


def test_a_picture_that_cannot_be_decoded_is_found_when_asked_to_look(folder: Path) -> None:
    (folder / "images" / "bad.png").write_bytes(b"no picture")
    assert len(read(folder, [row(), row("b", "bad.png")]).queries) == 2
    looked = read(folder, [row(), row("b", "bad.png")], verify_images=True)
    assert looked.defects == {"undecodable-image": 1}


def test_nothing_usable_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match=r"no usable row.*row 0"):
        read(folder, ["text"])
    with pytest.raises(UserError, match="empty list"):
        read(folder, [])
