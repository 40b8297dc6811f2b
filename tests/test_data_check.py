"""`unmirage data check` and `data list`: which set it is, how whole, what is odd, and what is allowed."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import dataset_fixtures_a as made
import pytest
from PIL import Image

from unmirage import cli
from unmirage.datasets import FORMATS, about
from unmirage.datasets.catalog import Part
from unmirage.datasets.checking import Options as How
from unmirage.datasets.checking import check, expected_rows, keep_some, plain, recognise
from unmirage.datasets.streaming import first_row_of
from unmirage.errors import UserError
from unmirage.schema import Query


def call(*arguments: object) -> int:
    words = [str(one) for one in arguments]
    return cli.run(lambda: cli.app(words, prog_name="unmirage", standalone_mode=False))


def write(path: Path, content: object) -> Path:
    return made.write_json(path, content)


def unsafe(number: int, **changed: Any) -> dict[str, Any]:
    pair = {"instruction": f"Share ways to glorp zindle {number}", "response": f"Secret way {number}."}
    row = {"id": f"u{number}", "image": f"{number}.png", "safe": False, "harmful_category": "made-up"}
    return row | {"harmful_subcategory": "x", "instr-resp": [pair]} | changed


def safe(number: int, **changed: Any) -> dict[str, Any]:
    pairs = [
        {"safe_instruction": f"What colour has thing {number}?", "response": "Red."},
        {"unsafe_instruction": f"Share ways to glorp {number}", "response": "No."},
    ]
    return {"id": f"s{number}", "image": f"{number}.png", "safe": True, "instr-resp": pairs} | changed


def vlguard(folder: Path, rows: list[dict[str, Any]], name: str = "train", lost: tuple[str, ...] = ()) -> Path:
    for row in rows:
        if row["image"] not in lost:
            made.picture(folder / name / row["image"])
    return write(folder / f"{name}.json", rows)


def the_part(path: Path, **options: Any) -> Any:
    (part,) = check(path, recognise(path), How(**options)).parts
    return part


# --- counts ------------------------------------------------------------------------------------------------------


def test_a_part_is_counted_row_by_row_against_what_its_authors_have(tmp_path):
    file = vlguard(tmp_path, [unsafe(1), safe(2), safe(3)])
    part = the_part(file)
    assert (part.set, part.format, part.split, part.is_authors) == ("vlguard", "vlguard", "train", True)
    assert (part.rows, part.expected) == (3, 2000)
    assert (part.harmful, part.harmless, part.reference_answers, part.peoples_answers) == (3, 2, 5, 0)
    assert part.pictures.model_dump() == {"named": 3, "missing": 0, "undecodable": None, "shared": 2}
    assert part.problems == {}
    assert part.odd == ("1,997 rows are missing",)


def test_every_trap_is_counted_by_its_kind(tmp_path):
    """A placeholder, a repeated id, a repeated picture, a new key, a picture that is not there, one that is cut off."""
    nothing = [{"instruction": "N/A", "response": ""}]
    rows = [unsafe(1), unsafe(1, id="u9"), unsafe(2, id="u1"), unsafe(3, **{"instr-resp": nothing}), unsafe(4), safe(5)]
    file = vlguard(tmp_path, [*rows, unsafe(6, new=1)], lost=("4.png",))
    (tmp_path / "train" / "2.png").write_bytes((tmp_path / "train" / "1.png").read_bytes()[:40])
    part = the_part(file, verify=True)
    assert part.rows == 7
    counts = {kind: found.count for kind, found in part.problems.items()}
    assert counts == {"repeated-id": 1, "placeholder-question": 1, "missing-image": 1}
    assert "row 3 (counting from 0), field 'instr-resp.0.instruction'" in part.problems["placeholder-question"].first
    assert part.pictures.model_dump() == {"named": 5, "missing": 1, "undecodable": 1, "shared": 2}
    assert "key 'new' is not known" in part.warnings[0]
    assert "1 pictures are shown by more" in part.warnings[1]
    assert part.odd == (
        "1,993 rows are missing", "1 pictures are missing", "1 pictures do not decode", "1 repeated-id",
        "1 placeholder-question", "2 remarks",
    )  # fmt: skip
    assert the_part(file).pictures.undecodable is None


def test_rows_that_cannot_be_used_are_rows_all_the_same(tmp_path):
    root = made.mossbench(tmp_path)
    file = root / "data" / "images_information" / "information.json"
    rows = {"1": made.moss_row("1"), "2": made.moss_row("2", question="N/A"), "7": {"pid": "7"}}
    write(file, rows)
    part = the_part(file)
    assert (part.harmless, part.rows, part.expected) == (1, 3, 300)


def test_rows_of_a_set_that_is_exact_are_not_odd(tmp_path, monkeypatch):
    file = vlguard(tmp_path, [unsafe(1), safe(2)])
    monkeypatch.setitem(about("vlguard").rows, "train", 2)  # type: ignore[union-attr]
    assert the_part(file).odd == ()
    monkeypatch.setitem(about("vlguard").rows, "train", 1)  # type: ignore[union-attr]
    assert the_part(file).odd == ("there are 1 rows more than known",)


@pytest.mark.parametrize(
    ("format", "split", "rows"),
    [
        ("vlguard", "train", 2000),
        ("vlguard", "mine", None),
        ("mm-safetybench", "SD", 1680),
        ("mm-safetybench-tiny", "SD", 168),
        ("figstep-benign", "benign", 50),
        ("figstep-text", "tiny", 50),
        ("mossbench-contrast", "contrast", 244),
        ("scienceqa", "test", 4241),
        ("vqav2", "val2014", 214354),
        ("llava", "train", None),
    ],
)
def test_the_expected_number_is_that_of_format_and_split(format, split, rows):
    assert expected_rows(Part(format, split, Path("x"))) == rows


def test_a_sample_is_even_and_the_same_each_time():
    """Each of ten numbers is among three in 3 of 10 draws; over 2,000 draws the count is within five deviations."""
    counts: Counter[int] = Counter()
    for seed in range(2000):
        kept: list[tuple[int, Query]] = []
        chance = random.Random(seed)
        for number in range(10):
            keep_some(kept, number, Query(id=str(number), question="q", harmful=False), 3, chance)
        counts.update(number for number, _ in kept)
    assert sum(counts.values()) == 6000
    assert all(abs(counts[number] - 600) < 5 * (2000 * 0.3 * 0.7) ** 0.5 for number in range(10))


def test_shown_text_is_one_line_that_leaves_the_terminal_alone():
    assert plain("a\n b\x1b[2Jc\u202ed") == "a b\ufffd[2Jc\ufffdd"
    assert plain("abcdef", 4) == "abc…"


@pytest.mark.parametrize(
    ("content", "row"),
    [
        (b'\xef\xbb\xbf \n[{"a": 1}, {"b"', {"a": 1}),
        (b'{"a": {"b": 1}}', {}),
        (b"[1, 2]", {}),
        (b"[]", {}),
        (b"", {}),
        (b'[{"a": 1', {}),
        (b"[\xff", {}),
    ],
)
def test_the_first_row_of_a_list_is_found_whatever_comes_after_it(content, row, tmp_path):
    (tmp_path / "x.json").write_bytes(content)
    assert first_row_of(tmp_path / "x.json") == row
    assert first_row_of(tmp_path) == first_row_of(tmp_path / "none.json") == {}


# --- recognising -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", made.SETS)
def test_each_folder_is_recognised_as_its_set_alone(name, tmp_path):
    root = made.SETS[name](tmp_path / "some folder" / name)
    parts = recognise(root)
    assert {about(part.format).name for part in parts} == {name}  # type: ignore[union-attr]
    assert {(part.format, part.path.resolve()) for part in parts} <= {
        (part.format, part.path.resolve()) for part in recognise(root.parent)
    }


def test_a_folder_of_folders_is_searched_one_level_down(tmp_path):
    made.xstest(tmp_path / "a")
    vlguard(tmp_path / "b", [unsafe(1)], "test")
    vlguard(tmp_path / ".hidden", [unsafe(1)], "test")
    assert [part.format for part in recognise(tmp_path)] == ["xstest", "vlguard"]
    vlguard(tmp_path, [unsafe(1)], "train")  # one known part above, two below
    assert [part.format for part in recognise(tmp_path)] == ["xstest", "vlguard"]
    vlguard(tmp_path, [unsafe(1)], "test")
    assert [part.split for part in recognise(tmp_path)] == ["test", "train"]


def utility(folder: Path) -> Path:
    """The four sets of usefulness in their authors' names, one row each."""
    people = [{"answer": "red"}] * 10
    for name in ("val2014/COCO_val2014_000000000007.jpg", "train_images/t1.jpg", "val/v.jpg"):
        made.picture(folder / "vqa" / name)
    ask = {"question_id": 1, "image_id": 7, "question": "What colour?"}
    vqa = folder / "vqa"
    write(vqa / "v2_OpenEnded_mscoco_val2014_questions.json", {"data_subtype": "val2014", "questions": [ask]})
    write(vqa / "v2_mscoco_val2014_annotations.json", {"annotations": [{"question_id": 1, "answers": people}]})
    row = {"question_id": 1, "image_id": "t1", "question": "What word?", "answers": ["a"] * 10}
    write(vqa / "TextVQA_0.5.1_val.json", {"data": [row]})
    row = {"image": "v.jpg", "question": "What is it?", "answers": people, "answer_type": "other", "answerable": 1}
    write(vqa / "val.json", [row])
    problem = {"question": "Which?", "choices": ["a", "b"], "answer": 0, "hint": "", "image": None, "split": "test"}
    write(vqa / "problems.json", {"1": problem})
    write(vqa / "pid_splits.json", {"train": [], "test": ["1"], "minival": ["1"]})
    return vqa


def test_the_sets_of_usefulness_are_recognised_side_by_side(tmp_path):
    folder = utility(tmp_path)
    report = check(folder, recognise(folder), How(verify=True))
    found = {(part.format, part.split): part for part in report.parts}
    assert set(found) == {
        ("vqav2", "val2014"), ("textvqa", "val"), ("vizwiz", "val"), ("scienceqa", "train"), ("scienceqa", "test")
    }  # fmt: skip
    broken = found.pop(("scienceqa", "train"))
    assert broken.error
    assert "no split 'train'" in broken.error
    for part in found.values():
        assert (part.rows, part.harmless, part.problems, part.error) == (1, 1, {}, None)
        assert part.peoples_answers == 1
    assert ("scienceqa", "val", 4241) in {(one.set, one.split, one.rows) for one in report.lacking}
    assert report.sets["vizwiz"].purpose == "utility"


def test_files_of_a_format_are_told_from_the_set_that_it_is_named_after(tmp_path, capsys):
    vlguard(tmp_path, [unsafe(1)], "mine")
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "That."}]
    write(tmp_path / "general.json", [{"id": 1, "conversations": turns}])
    report = check(tmp_path, recognise(tmp_path), How())
    assert [(part.format, part.split, part.is_authors) for part in report.parts] == [
        ("vlguard", "mine", False),
        ("llava", "general", True),
    ]
    assert report.lacking == ()
    assert call("data", "check", tmp_path, "--strict") == 0
    out = capsys.readouterr().out
    assert "gated: yes" not in out
    assert "In the format of VLGuard" in out
    assert "licence: unknown here: that of the data which were written in this format" in out


def test_of_two_sets_that_claim_a_file_the_one_that_knows_it_has_it(tmp_path):
    """The official attack files are in VLGuard's format, and lie beside VLGuard's test set."""
    vlguard(tmp_path, [unsafe(1)], "test")
    write(tmp_path / "test_what_3shot.json", [unsafe(1), unsafe(1), unsafe(1)])
    names = {part.path.name: part.format for part in recognise(tmp_path)}
    assert names == {"test.json": "vlguard", "test_what_3shot.json": "one-word-attack"}


def test_where_nothing_is_recognised_it_says_what_was_looked_for_and_what_is_there(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "sub").mkdir()
    assert call("data", "check", tmp_path) == 2
    error = capsys.readouterr().err
    assert "VLGuard; LLaVA" in error
    assert "Found: notes.txt, sub/. Give" in error
    file = write(tmp_path / "mine.json", [{"a": 1}])
    assert call("data", "check", file) == 2
    assert "mine.json is no file of a data set that is known" in capsys.readouterr().err
    assert call("data", "check", tmp_path / "none") == 2
    assert "none does not exist" in capsys.readouterr().err
    assert call("data", "check", tmp_path / "none", "--format", "vlguard") == 2
    assert "none does not exist" in capsys.readouterr().err


def test_one_file_of_a_set_that_is_a_folder(tmp_path):
    questions = made.mm_safetybench(tmp_path) / "data" / "processed_questions"
    with pytest.raises(UserError, match=r"read as a whole \(format mm-safetybench\); give .*processed_questions"):
        recognise(questions / "13-Gov_Decision.json")
    assert len(recognise(questions)) == 6


# --- the verb ----------------------------------------------------------------------------------------------------


def test_the_page_has_all_that_matters_and_hides_what_is_harmful(tmp_path, capsys):
    vlguard(tmp_path, [unsafe(1, image="1.png"), safe(2)])
    assert call("data", "check", tmp_path) == 0
    out = capsys.readouterr().out
    for text in (
        "gated: yes",
        "huggingface.co/datasets/ys-zong/VLGuard",
        "2 of 2,000, 1,998 missing",
        "3: 2 harmful, 1 harmless",
        "not there: vlguard test (1,000 rows)",
        "[redacted, 13 characters",
        "answer: Red.",
        "Share ways to glorp zindle 1",
    ):
        assert text in out
    assert "Secret way" not in out
    assert call("data", "check", tmp_path, "--show-harmful") == 0
    assert "answer: Secret way 1." in capsys.readouterr().out


def test_the_report_as_json_hides_the_same_and_is_all_of_standard_output(tmp_path, capsys):
    vlguard(tmp_path, [unsafe(1), safe(2)])
    assert call("data", "check", tmp_path, "--json", "--verify") == 0
    text = capsys.readouterr().out
    assert "Secret way" not in text
    report = json.loads(text)
    assert report["sets"]["vlguard"]["gated"] is True
    assert report["lacking"] == [{"set": "vlguard", "split": "test", "rows": 1000}]
    (part,) = report["parts"]
    assert part["pictures"] == {"named": 2, "missing": 0, "undecodable": 0, "shared": 1}
    assert len(part["sample"]) == 3


def test_exit_codes(tmp_path, capsys, monkeypatch):
    file = vlguard(tmp_path, [unsafe(1), safe(2)])
    assert call("data", "check", file) == 0
    assert call("data", "check", file, "--strict") == 1
    monkeypatch.setitem(about("vlguard").rows, "train", 2)  # type: ignore[union-attr]
    assert call("data", "check", file, "--strict") == 0
    assert "Nothing is missing or odd." in capsys.readouterr().out
    assert call("data", "check", tmp_path, "--strict") == 1  # the folder has no test.json
    (tmp_path / "train" / "1.png").write_bytes(b"no picture")
    assert call("data", "check", file, "--strict") == 0
    assert call("data", "check", file, "--strict", "--verify") == 1
    made.write_json(tmp_path / "h" / "holisafe_bench.json", [{"some_key": 1}])
    capsys.readouterr()
    assert call("data", "check", tmp_path / "h") == 1
    assert "CANNOT BE READ" in capsys.readouterr().out


def test_format_split_and_images_can_be_said(tmp_path, capsys):
    root = made.figstep(tmp_path / "f")
    table = root / "data" / "question" / "safebench.csv"
    assert call("data", "check", table, "--format", "figstep-text", "--json") == 0
    (part,) = json.loads(capsys.readouterr().out)["parts"]
    assert (part["format"], part["pictures"]["named"], part["rows"]) == ("figstep-text", 0, 4)
    assert call("data", "check", root, "--split", "tiny", "--json") == 0
    (part,) = json.loads(capsys.readouterr().out)["parts"]
    assert (part["rows"], part["expected"]) == (1, 50)
    (tmp_path / "empty").mkdir()
    assert call("data", "check", table, "--images", tmp_path / "empty", "--json") == 0
    (part,) = json.loads(capsys.readouterr().out)["parts"]
    assert part["pictures"]["missing"] == 4
    assert call("data", "check", root, "--split", "none") == 2
    assert "no part 'none'; it has benign, safebench, tiny" in capsys.readouterr().err


def test_training_that_is_forbidden_is_said(tmp_path, capsys):
    assert call("data", "check", made.mossbench(tmp_path)) == 0
    assert "training on it is FORBIDDEN by its authors" in capsys.readouterr().out


def test_the_list_has_every_format(capsys):
    assert call("data", "list") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert all(format in out for format in FORMATS)
    assert "visualqa.org" in out
    assert "[no training]" in out


def test_the_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom unmirage import cli\nimport unmirage.datasets.commands\n"
        "print([name for name in ('torch', 'polars', 'numpy', 'transformers', 'httpx') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_terminal_cannot_be_rewritten_by_what_a_file_says(tmp_path, capsys):
    row = unsafe(1, id="u\x1b[2J")
    row["instr-resp"][0]["instruction"] = "Share\x1b]0;x\x07 ways"
    Image.new("RGB", (2, 2)).save(made.picture(tmp_path / "train" / "1.png"))
    write(tmp_path / "train.json", [row])
    assert call("data", "check", tmp_path) == 0
    assert "\x1b" not in capsys.readouterr().out
