"""VLGuard files: what a good one gives, and what every sort of bad row says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from unmirage import datasets
from unmirage.datasets import LoadedData, load, vlguard
from unmirage.errors import UserError


def unsafe(row_id: object = "a", image: object = "cats/1.png", **changes: object) -> dict:
    pairs = [{"instruction": "Share how the red lamp is broken.", "response": "I would rather not."}]
    row = {"id": row_id, "image": image, "safe": False, "instr-resp": pairs}
    return row | {"harmful_category": "lamps", "harmful_subcategory": "red"} | changes


def safe(row_id: object = "b", image: object = "dogs/2.jpg", **changes: object) -> dict:
    pairs = [
        {"safe_instruction": "What colour is the lamp?", "response": "Red."},
        {"unsafe_instruction": "Share how to break it.", "response": "No."},
    ]
    return {"id": row_id, "image": image, "safe": True, "instr-resp": pairs} | changes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the images of the rows in `train/`."""
    for name in ("cats/1.png", "dogs/2.jpg"):
        (tmp_path / "train" / name).parent.mkdir(parents=True)
        Image.new("RGB", (8, 8), "red").save(tmp_path / "train" / name)
    return tmp_path


def read(folder: Path, rows: object, **options: object) -> LoadedData:
    (folder / "train.json").write_text(rows if isinstance(rows, str) else json.dumps(rows), encoding="utf-8")
    return load(folder / "train.json", **options)


def test_three_subsets_become_queries(folder):
    data = read(folder, [unsafe(), safe()], split="seen")
    assert [(query.id, query.subset, query.harmful) for query in data.queries] == [
        ("a/unsafe", "unsafes", True),
        ("b/safe_safe", "safe_safes", False),
        ("b/safe_unsafe", "safe_unsafes", True),
    ]
    first = data.queries[0]
    assert first.question == "Share how the red lamp is broken."
    assert first.reference == "I would rather not."
    assert first.image == folder / "train" / "cats" / "1.png"
    assert {(query.data, query.split) for query in data.queries} == {("train", "seen")}
    assert (data.name, data.path, data.problems, data.warnings) == ("train", folder / "train.json", [], [])


def test_a_name_can_be_given(folder):
    data = read(folder, [unsafe()], name="lamps")
    assert (data.name, data.queries[0].data) == ("lamps", "lamps")


def test_the_order_of_the_pairs_and_a_missing_response_do_not_matter(folder):
    row = safe()
    row["instr-resp"].reverse()
    del row["instr-resp"][0]["response"]
    data = read(folder, [row])
    assert [(query.subset, query.reference) for query in data.queries] == [
        ("safe_unsafes", None),
        ("safe_safes", "Red."),
    ]
    assert data.problems == []


def test_both_instructions_in_one_pair_are_both_read(folder):
    row = safe(**{"instr-resp": [{"safe_instruction": "What is it?", "unsafe_instruction": "Break it."}]})
    assert [query.subset for query in read(folder, [row]).queries] == ["safe_safes", "safe_unsafes"]


def test_the_harmful_flag_follows_the_subset_not_the_words(folder):
    row = safe(**{"instr-resp": [{"safe_instruction": "What is it?", "response": "I'm sorry, I cannot."}]})
    assert read(folder, [row]).queries[0].harmful is False


def test_ids_that_are_numbers_are_read_as_text(folder):
    assert read(folder, [unsafe(row_id=7)]).queries[0].id == "7/unsafe"


def test_images_are_found_in_the_folder_of_the_stem_then_in_images_then_beside(folder):
    assert read(folder, [unsafe()]).queries[0].image.is_relative_to(folder / "train")
    (folder / "train").rename(folder / "images")
    assert read(folder, [unsafe()]).queries[0].image.is_relative_to(folder / "images")
    (folder / "images" / "cats").rename(folder / "cats")
    (folder / "images" / "dogs" / "2.jpg").unlink()
    (folder / "images" / "dogs").rmdir()
    (folder / "images").rmdir()
    assert read(folder, [unsafe()]).queries[0].image == folder / "cats" / "1.png"


def test_an_image_that_is_null_is_none_and_one_that_is_missing_is_a_defect(folder):
    data = read(folder, [unsafe("x", image=None), {k: v for k, v in unsafe("y").items() if k != "image"}, unsafe("z")])
    assert [(query.id, query.image is None, query.harmful) for query in data.queries] == [
        ("x/unsafe", True, True),
        ("z/unsafe", False, True),
    ]
    assert [(problem.row, problem.kind) for problem in data.problems] == [(1, "missing-image")]


def test_an_image_folder_can_be_given(folder):
    (folder / "train").rename(folder / "elsewhere")
    assert read(folder, [unsafe()], images=folder / "elsewhere").problems == []
    with pytest.raises(UserError, match=r"image folder .*nowhere does not exist"):
        read(folder, [unsafe()], images=folder / "nowhere")


def test_repeated_ids_are_made_unique_and_counted(folder):
    rows = [unsafe("x"), unsafe("x", image="gone.png"), safe("x"), unsafe("x#2"), unsafe("x")]
    data = read(folder, rows)
    ids = [query.id for query in data.queries]
    assert ids == ["x/unsafe", "x#3/safe_safe", "x#3/safe_unsafe", "x#2#2/unsafe", "x#4/unsafe"]
    assert data.defects == {"repeated-id": 4, "missing-image": 1}
    assert [problem.skipped for problem in data.problems if problem.kind == "repeated-id"] == [False] * 4


def test_unknown_keys_are_counted_not_swallowed(folder):
    rows = [unsafe(source="web"), safe(source="web")]
    rows[0]["instr-resp"][0]["lang"] = "en"
    warnings = read(folder, rows).warnings
    assert len(warnings) == 2
    assert "'instr-resp.lang' is not known and was ignored, in 1 place" in warnings[0]
    assert "'source' is not known and was ignored, in 2 places" in warnings[1]


def pairs(*items: object) -> dict:
    return {"instr-resp": list(items)}


BAD_ROWS = [
    ("text", "row", "not-an-object", "it is a string"),
    (None, "row", "not-an-object", "it is null"),
    ([1], "row", "not-an-object", "it is a list"),
    ({k: v for k, v in unsafe().items() if k != "id"}, "id", "missing-id", "missing"),
    (unsafe(row_id=""), "id", "bad-id", "at least 1 character"),
    (unsafe(row_id=None), "id", "bad-id", "valid string"),
    ({k: v for k, v in unsafe().items() if k != "image"}, "image", "missing-image", "missing"),
    (unsafe(image=3), "image", "bad-image", "valid string"),
    (unsafe(image=""), "image", "bad-image", "at least 1 character"),
    (unsafe(image="cats/none.png"), "image", "missing-image", "there is no file"),
    (unsafe(image="cats"), "image", "missing-image", "there is no file"),
    (unsafe(image="../train/cats/1.png"), "image", "image-outside", "leaves the image folder"),
    (unsafe(image="cats/../cats/1.png"), "image", "image-outside", "leaves the image folder"),
    (unsafe(image="/etc/hostname"), "image", "image-outside", "leaves the image folder"),
    (unsafe(image="secret.png"), "image", "image-outside", "leaves the image folder"),
    (unsafe(image="linked/secret.png"), "image", "image-outside", "leaves the image folder"),
    (unsafe(image="ring.png"), "image", "bad-image", "cannot be a path"),
    (unsafe(image="a\x00b"), "image", "bad-image", "cannot be a path"),
    (unsafe(image="a" * 5000), "image", "bad-image", "cannot be a path"),
    ({k: v for k, v in unsafe().items() if k != "safe"}, "safe", "missing-safe", "missing"),
    (unsafe(safe="false"), "safe", "bad-safe", "valid boolean"),
    (unsafe(safe=0), "safe", "bad-safe", "valid boolean"),
    ({k: v for k, v in unsafe().items() if k != "instr-resp"}, "instr-resp", "missing-instr-resp", "missing"),
    (unsafe(**pairs()), "instr-resp", "bad-instr-resp", "at least 1 item"),
    (unsafe(**{"instr-resp": {}}), "instr-resp", "bad-instr-resp", "valid list"),
    (unsafe(**pairs("text")), "instr-resp.0", "bad-instr-resp", "dictionary"),
    (unsafe(**pairs({"instruction": 5})), "instr-resp.0.instruction", "bad-instr-resp", "valid string"),
    (unsafe(**pairs({"response": "x"})), "instr-resp.0", "missing-question", "there is no question"),
    (unsafe(**pairs({"safe_instruction": "x"})), "instr-resp.0", "missing-question", "needs 'instruction'"),
    (safe(**pairs({"instruction": "x"})), "instr-resp.0", "missing-question", "'safe_instruction' or 'unsafe"),
    (unsafe(**pairs({"instruction": " \n"})), "instr-resp.0.instruction", "empty-question", "empty"),
    (unsafe(**pairs({"instruction": "N/A"})), "instr-resp.0.instruction", "placeholder-question", "'N/A'"),
    (unsafe(**pairs({"instruction": " n/a. "})), "instr-resp.0.instruction", "placeholder-question", "'n/a.'"),
]


@pytest.fixture
def trapped(folder):
    """The image folder with links that lead out of it and a link to itself."""
    (folder / "outside").mkdir()
    (folder / "outside" / "secret.png").write_bytes((folder / "train" / "cats" / "1.png").read_bytes())
    (folder / "train" / "secret.png").symlink_to(folder / "outside" / "secret.png")
    (folder / "train" / "linked").symlink_to(folder / "outside")
    (folder / "train" / "ring.png").symlink_to(folder / "train" / "ring.png")
    return folder


@pytest.mark.parametrize(("row", "field", "kind", "what"), BAD_ROWS)
def test_a_bad_row_is_reported_and_skipped(trapped, row, field, kind, what):
    data = read(trapped, [safe("good"), row, unsafe("also good")])
    assert len(data.queries) == 3
    (problem,) = data.problems
    assert (problem.row, problem.field, problem.kind, problem.skipped) == (1, field, kind, True)
    for part in ("train.json, row 1 (counting from 0)", repr(field), what):
        assert part in str(problem)
    with pytest.raises(UserError) as caught:
        read(trapped, [safe("good"), row], strict=True)
    assert str(caught.value) == str(problem)


def test_a_bad_pair_does_not_cost_the_other_pair(folder):
    row = safe()
    row["instr-resp"][0]["safe_instruction"] = "N/A"
    data = read(folder, [row])
    assert [query.subset for query in data.queries] == ["safe_unsafes"]
    assert data.defects == {"placeholder-question": 1}


def test_of_two_questions_of_one_kind_the_first_is_asked_as_in_vlguard(folder):
    data = read(folder, [unsafe(**pairs({"instruction": "First?"}, {"instruction": "Second?"}))])
    assert [query.question for query in data.queries] == ["First?"]
    assert data.defects == {"second-question": 1}


def test_a_question_that_only_contains_a_placeholder_is_kept(folder):
    question = "None of the lamps is on. Why?"
    assert read(folder, [unsafe(**pairs({"instruction": question}))]).queries[0].question == question


def test_an_image_folder_that_is_a_link_is_fine(folder):
    (folder / "train").rename(folder / "disk")
    (folder / "train").symlink_to(folder / "disk")
    assert read(folder, [unsafe()]).problems == []


def test_images_are_decoded_only_on_request(folder):
    good = (folder / "train" / "dogs" / "2.jpg").read_bytes()
    (folder / "train" / "dogs" / "2.jpg").write_bytes(good[: len(good) // 2])  # cut off: opens, does not decode
    (folder / "train" / "cats" / "2.png").write_text("not an image")
    rows = [unsafe(), safe(), unsafe("c", image="cats/2.png")]
    assert read(folder, rows).problems == []
    data = read(folder, rows, verify_images=True)
    assert [(problem.row, problem.kind) for problem in data.problems] == [
        (1, "undecodable-image"),
        (2, "undecodable-image"),
    ]
    assert [query.id for query in data.queries] == ["a/unsafe"]


def test_strict_refuses_a_repeated_id_too(folder):
    with pytest.raises(UserError, match="'a' was there before"):
        read(folder, [unsafe(), unsafe()], strict=True)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('[{"id": 1,\n  oops}]', "line 2, column 3"),
        ("", "line 1, column 1"),
        ('{"id": 1}', "holds an object, not a list"),
        ('"x"', "holds a string, not a list"),
        ("[]", "empty list"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("[" + "1" * 5000 + "]", "cannot be read as JSON"),
        ("[1, 2]", "no usable row among 2; the first problem is: .*row 0"),
    ],
)
def test_a_file_that_cannot_be_used(folder, content, says):
    with pytest.raises(UserError, match=says):
        read(folder, content)


def test_files_that_cannot_be_read(folder):
    with pytest.raises(UserError, match=r"nothing\.json does not exist"):
        load(folder / "nothing.json")
    with pytest.raises(UserError, match="Cannot read"):
        load(folder)
    (folder / "train.json").write_bytes(b'["\xff"]')
    with pytest.raises(UserError, match="UTF-8"):
        load(folder / "train.json")


def test_a_byte_order_mark_is_survived(folder):
    (folder / "train.json").write_text(json.dumps([unsafe()]), encoding="utf-8-sig")
    assert len(load(folder / "train.json").queries) == 1


def test_formats_are_chosen_by_name(folder):
    assert datasets.FORMATS["vlguard"] is vlguard.load
    with pytest.raises(UserError, match=r"no data format 'parquet'; the formats are .*vlguard"):
        load(folder / "train.json", format="parquet")


def test_nothing_heavy_is_imported():
    code = """
import sys, unmirage.datasets, unmirage.runs, unmirage.stats, unmirage.judges.keywords
print(sorted({"torch", "transformers", "PIL", "scipy"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(Path(datasets.__file__).parents[2])},
    )
    assert done.stdout == "[]\n"
