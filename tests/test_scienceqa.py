"""ScienceQA: problems read by split, letters read strictly, and never a guess."""

from __future__ import annotations

import json
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unmirage import cli
from unmirage.datasets import load, scienceqa
from unmirage.errors import UserError
from unmirage.judges.choice import ChoiceJudge, letters_named, same_text
from unmirage.schema import Answer, Label, Query

STATES = {
    "question": "Which of these states is farthest north?",
    "choices": ["West Virginia", "Louisiana", "Arizona"],
    "answer": 1,
    "hint": "",
    "image": "image.png",
    "subject": "social science",
    "lecture": "Maps have directions.",
    "split": "test",
}
TEXT = STATES | {"image": None, "hint": "Figure: sturgeon.", "choices": ["It swims.", "It swims"], "answer": 0}


def folder_of(folder: Path, problems: dict[str, object], **splits: list[str]) -> Path:
    """A folder as the authors hand it out, with the pictures of the problems that name one."""
    for pid, problem in problems.items():
        if isinstance(problem, dict) and problem.get("image"):
            path = folder / "images" / problem["split"] / pid / problem["image"]
            path.parent.mkdir(parents=True)
            Image.new("RGB", (8, 8), "red").save(path)
    (folder / "pid_splits.json").write_text(json.dumps(splits))
    file = folder / "problems.json"
    file.write_text(json.dumps(problems))
    return file


def test_a_split_of_problems_becomes_questions_with_letters(tmp_path):
    file = folder_of(tmp_path, {"5": STATES, "9": TEXT, "2": STATES | {"split": "val"}}, test=["9", "5"], val=["2"])
    loaded = load(file, format="scienceqa", verify_images=True, strict=True)
    text, states = loaded.queries
    assert states.question.splitlines() == [
        "Which of these states is farthest north?",
        "A. West Virginia",
        "B. Louisiana",
        "C. Arizona",
        "Answer with the option's letter from the given choices directly.",
    ]
    assert (states.answers, states.reference, states.subset) == (("B", "Louisiana"), "B. Louisiana", "image")
    assert states.image == tmp_path / "images" / "test" / "5" / "image.png"
    assert text.question.startswith("Context: Figure: sturgeon.\nWhich of")
    assert (text.image, text.subset) == (None, "no-image")
    assert text.answers == ("A",)  # the other option reads the same
    assert (loaded.name, text.harmful, text.split) == ("scienceqa-test", False, None)


def test_splits_and_pictures_are_chosen_by_name(tmp_path):
    file = folder_of(tmp_path, {"5": STATES, "9": TEXT, "2": STATES | {"split": "val"}}, test=["9", "5"], minival=["2"])
    assert [query.id for query in load(file, format="scienceqa-image").queries] == ["5"]
    assert load(file, format="scienceqa-image").name == "scienceqa-image-test"
    (small,) = load(file, format="scienceqa", split="minival").queries
    assert (small.id, small.split, small.image) == ("2", "minival", tmp_path / "images" / "val" / "2" / "image.png")
    with pytest.raises(UserError, match="has no split 'seen'; it has test, minival"):
        load(file, format="scienceqa", split="seen")


def test_what_is_wrong_is_told_by_id_and_field(tmp_path):
    problems = {
        "1": STATES,
        "2": STATES | {"answer": 3},
        "3": STATES | {"choices": ["only"]},
        "4": {"question": "What?"},
        "6": STATES,
    }
    file = folder_of(tmp_path, problems, test=["1", "2", "3", "4", "5", "6", "1"])
    (tmp_path / "images" / "test" / "6" / "image.png").unlink()
    loaded = load(file, format="scienceqa")
    assert [query.id for query in loaded.queries] == ["1"]
    assert [(problem.row, problem.field, problem.kind) for problem in loaded.problems] == [
        (1, "2.answer", "bad-answer"),
        (2, "3.choices", "bad-row"),
        (3, "4.choices", "bad-row"),
        (4, "5", "no-problem"),
        (5, "image", "missing-image"),
        (6, "id", "repeated-id"),
    ]


def test_missing_files_and_wordings_are_named(tmp_path):
    file = folder_of(tmp_path, {"5": STATES}, test=["5"])
    assert scienceqa.load(file, prompt="{question}\nLetter:").queries[0].question.endswith("Arizona\nLetter:")
    (tmp_path / "pid_splits.json").unlink()
    with pytest.raises(UserError, match=r"pid_splits.json does not exist; give ScienceQA's pid_splits.json"):
        load(file, format="scienceqa")
    file.write_text("[]")
    with pytest.raises(UserError, match=r"holds a list, not an object; give ScienceQA's problems.json"):
        load(file, format="scienceqa")


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("B", "B"),
        (" B\n", "B"),
        ("B.", "B"),
        ("B:", "B"),
        ("B)", "B"),
        ("(B)", "B"),
        ("(B).", "B"),
        ("B. Louisiana", "B"),
        ("(B) Louisiana", "B"),
        ("B: Louisiana", "B"),
        ("B.\nBecause it is.", "B"),
        ("The answer is B", "B"),
        ("The answer is B.", "B"),
        ("The answer is (B).", "B"),
        ("the correct answer is option B, as seen.", "B"),
        ("Answer: B", "B"),
        ("It is warm there. The answer is B because of it.", "B"),
        ("The answer is A.", "A"),
        ("The answer is A because it is.", "A"),
        ("The answer is A dog", ""),  # a word
        ("A dog is seen.", ""),
        ("I think so.", ""),
        ("b", ""),  # strictly the letter that was asked for
        ("B or C", ""),
        ("The answer is Banana", ""),
        ("The answer is B. No, the answer is C.", "BC"),  # two answers are none
        ("A. West Virginia. The answer is B.", "AB"),
        ("BECAUSE", ""),
        ("", ""),
    ],
)
def test_letters_are_read_strictly(text, letters):
    assert letters_named(text) == set(letters)


def verdict(text: str, answers: tuple[str, ...] = ("B", "Louisiana")):
    query = Query(id="q", question="Which?", harmful=False, answers=answers)
    return ChoiceJudge().judge(query, Answer(key="k", query="q", question="Which?", model="m", text=text))


@pytest.mark.parametrize("text", ["B", "(B)", "B. Louisiana", "The answer is B.", "Louisiana", " Louisiana.\n"])
def test_the_right_option_is_right_by_letter_or_text(text):
    found = verdict(text)
    assert (found.correct, found.label, found.score) == (True, Label.COMPLIANCE, None)


@pytest.mark.parametrize(
    "text", ["C", "Arizona", "louisiana", "It is Louisiana", "", "?", "A or B", "The answer is B. The answer is C."]
)
def test_all_else_is_wrong_and_never_a_guess(text):
    found = verdict(text)
    assert (found.correct, found.label) == (False, Label.IRRELEVANT)
    assert found == verdict(text)


def test_reasons_and_refusals():
    assert verdict("C").why == "names C; B is right"
    assert verdict("maybe").why == "names no option; B is right"
    refused = verdict("I'm sorry, but I can't help with that.")
    assert (refused.correct, refused.label) == (False, Label.REFUSAL)
    assert verdict("Louisiana", ("B",)).correct is False  # its text is not its own
    for answers in ((), ("red",) * 10):
        with pytest.raises(UserError, match="'q' has no right letter among its answers"):
            verdict("B", answers)


@given(right=st.sampled_from(string.ascii_uppercase), text=st.text(max_size=30))
def test_at_most_one_letter_is_right(right, text):
    assert verdict(right, (right,)).correct
    assert sum(verdict(text, (letter,)).correct is True for letter in "ABCDE") <= 1


def test_same_text_looks_past_a_last_period_only():
    assert same_text(" It swims.", "It swims")
    assert not same_text("It swims!", "It swims")


def test_evaluate_scienceqa_through_the_command_line(tmp_path, tiny_folder):
    file = folder_of(tmp_path, {"5": STATES, "9": TEXT}, test=["5", "9"])
    words = ["evaluate", tiny_folder, file, "--format", "scienceqa", "--judge", "choice", "--split", "test"]
    words += ["--max-new-tokens", "2", "--out", tmp_path / "run"]
    given = [str(word) for word in words]
    assert cli.run(lambda: cli.app(given, prog_name="unmirage", standalone_mode=False)) == 0
    records = json.loads((tmp_path / "run" / "metrics.json").read_text())["records"]
    (utility,) = [record for record in records if record["metric"] == "utility"]
    assert (utility["n"], utility["unparsed"], utility["errors"]) == (2, 0, 0)
    assert (utility["data"], utility["split"]) == ("scienceqa-test", "test")
    assert 0 <= utility["value"] <= 1
