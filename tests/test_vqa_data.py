"""VQAv2, TextVQA and VizWiz as their authors hand them out: read, told of, asked and scored from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from unmirage import cli
from unmirage.datasets import load, questions, textvqa, vqa
from unmirage.errors import UserError

SHORT = "Answer the question using a single word or phrase."
QUESTIONS = "v2_OpenEnded_mscoco_val2014_questions.json"
ANNOTATIONS = "v2_mscoco_val2014_annotations.json"


def call(*arguments: object) -> int:
    words = [str(one) for one in arguments]
    return cli.run(lambda: cli.app(words, prog_name="unmirage", standalone_mode=False))


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), "red").save(path)


def write(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def said(*answers: str) -> list[dict]:
    return [
        {"answer_id": number, "answer": answer, "answer_confidence": "yes"} for number, answer in enumerate(answers, 1)
    ]


def asked(question_id: int, image_id: int = 7, question: str = "What colour is it?") -> dict:
    return {"question_id": question_id, "image_id": image_id, "question": question}


def answered(question_id: int, *answers: str) -> dict:
    people = said(*(answers or ["red"] * 10))
    most = {"answer_type": "other", "question_type": "what", "multiple_choice_answer": people[0]["answer"]}
    return {"question_id": question_id, "image_id": 7, "answers": people, **most}


def vqav2(folder: Path, rows: list[object], people: list[object], **head: object) -> Path:
    """A folder as VQAv2 has it, with the pictures 7 and 8."""
    for image in (7, 8):
        picture(folder / "val2014" / f"COCO_val2014_{image:012d}.jpg")
    write(folder / ANNOTATIONS, {"data_subtype": "val2014", "annotations": people})
    return write(folder / QUESTIONS, {"data_type": "mscoco", "data_subtype": "val2014", "questions": rows, **head})


def test_vqav2_joins_questions_and_answers_by_id(tmp_path):
    file = vqav2(tmp_path, [asked(70), asked(80, 8, "How many?")], [answered(80, *["2"] * 10), answered(70)])
    loaded = load(file, format="vqav2", verify_images=True, strict=True)
    first, second = loaded.queries
    assert (first.id, first.question) == ("70", f"What colour is it?\n{SHORT}")
    assert first.image == tmp_path / "val2014" / "COCO_val2014_000000000007.jpg"
    assert (first.answers, second.answers) == (("red",) * 10, ("2",) * 10)
    assert (second.reference, second.subset, second.harmful) == ("2", "other", False)
    assert loaded.name == first.data == "v2_OpenEnded_mscoco_val2014_questions"
    assert (loaded.problems, loaded.warnings) == ([], [])


def test_vqav2_answers_are_found_in_the_layout_of_the_authors_repository_too(tmp_path):
    file = vqav2(tmp_path, [asked(70)], [answered(70)])
    for name, folder in ((QUESTIONS, "Questions"), (ANNOTATIONS, "Annotations")):
        (tmp_path / folder).mkdir()
        (tmp_path / name).rename(tmp_path / folder / name)
    (tmp_path / "Images" / "mscoco").mkdir(parents=True)
    (tmp_path / "val2014").rename(tmp_path / "Images" / "mscoco" / "val2014")
    assert len(load(tmp_path / "Questions" / file.name, format="vqav2", strict=True).queries) == 1


def test_vqav2_with_plain_names_and_a_prompt_of_ones_own(tmp_path):
    file = vqav2(tmp_path, [asked(70)], [answered(70)]).rename(tmp_path / "questions.json")
    (tmp_path / ANNOTATIONS).rename(tmp_path / "annotations.json")
    loaded = vqa.load(file, prompt="Q: {question} A:")
    assert loaded.queries[0].question == "Q: What colour is it? A:"
    with pytest.raises(UserError, match=r"the prompt 'Q: ' has no \{question\}"):
        vqa.load(file, prompt="Q: ")
    assert vqa.load(file, annotations=(tmp_path / "annotations.json").rename(tmp_path / "mine.json")).queries


def test_vqav2_tells_what_is_wrong_and_leaves_it_out(tmp_path):
    rows = [
        asked(70),
        asked(71),  # answered by nine
        asked(72),  # not answered
        asked(73, 9),  # no picture
        asked(70, 8, "Again?"),  # its id was there
        {"question_id": 74, "image_id": 7},
        asked(75, 7, " "),
        "a question",
        asked(76),
    ]
    people = [answered(70), answered(70, *["blue"] * 10), answered(71, *["red"] * 9), answered(73), answered(75)]
    people += [{"question_id": 76, "answers": [{"answer": None}] * 10}, answered(99)]
    loaded = load(vqav2(tmp_path, rows, people), format="vqav2", verify_images=True)
    assert [(query.id, query.answers[0]) for query in loaded.queries] == [("70", "red")]
    found = [(problem.file.name, problem.row, problem.field, problem.kind) for problem in loaded.problems]
    assert found == [
        (ANNOTATIONS, 1, "question_id", "repeated-answers"),
        (ANNOTATIONS, 2, "answers", "not-ten-answers"),
        (ANNOTATIONS, 5, "answers.0.answer", "bad-row"),
        (QUESTIONS, 1, "question_id", "no-answers"),
        (QUESTIONS, 2, "question_id", "no-answers"),
        (QUESTIONS, 3, "image", "missing-image"),
        (QUESTIONS, 4, "id", "repeated-id"),
        (QUESTIONS, 5, "question", "bad-row"),
        (QUESTIONS, 6, "question", "bad-row"),
        (QUESTIONS, 7, "row", "bad-row"),
        (QUESTIONS, 8, "question_id", "no-answers"),
    ]
    assert loaded.warnings == [
        f"{tmp_path / ANNOTATIONS}: 2 questions' answers belong to no question that could be read and were left out."
    ]


def test_strict_stops_at_the_first_problem(tmp_path):
    file = vqav2(tmp_path, [asked(70), asked(71)], [answered(70)])
    with pytest.raises(UserError, match=r"row 1 .*, field 'question_id': question 71 has no ten answers; fetch both"):
        load(file, format="vqav2", strict=True)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / ANNOTATIONS).unlink(), f"put {ANNOTATIONS} into the same folder"),
        (lambda f: (f / ANNOTATIONS).write_text("{"), "is not JSON"),
        (lambda f: write(f / ANNOTATIONS, {"questions": []}), "no list of rows under 'annotations'"),
        (lambda f: write(f / QUESTIONS, []), "holds a list, not an object"),
        (lambda f: write(f / QUESTIONS, {"questions": []}), "no list of rows under 'questions'"),
        (lambda f: (f / QUESTIONS).unlink(), "does not exist; give a file of VQAv2 questions"),
    ],
)
def test_files_that_cannot_be_read_are_named(tmp_path, spoil, message):
    file = vqav2(tmp_path, [asked(70)], [answered(70)])
    spoil(tmp_path)
    with pytest.raises(UserError, match=message):
        load(file, format="vqav2")


def test_the_pictures_of_unnamed_splits_are_asked_for(tmp_path):
    file = vqav2(tmp_path, [asked(70)], [answered(70)], data_subtype=None).rename(tmp_path / "questions.json")
    (tmp_path / ANNOTATIONS).rename(tmp_path / "annotations.json")
    with pytest.raises(UserError, match="give it the key 'data_subtype'"):
        load(file, format="vqav2")


def test_missing_pictures_are_kept_for_those_who_look_only_at_words(tmp_path):
    loaded = load(vqav2(tmp_path, [asked(70, 9)], [answered(70)]), format="vqav2", require_images=False)
    assert (len(loaded.queries), loaded.defects) == (1, {"missing-image": 1})


def test_each_picture_is_looked_at_once_and_only_so_many_are_decoded(tmp_path, monkeypatch):
    file = vqav2(tmp_path, [asked(70), asked(71), asked(80, 8)], [answered(70), answered(71), answered(80)])
    second = tmp_path / "val2014" / "COCO_val2014_000000000008.jpg"
    Image.effect_noise((64, 64), 80).save(second)
    second.write_bytes(second.read_bytes()[:-900])  # cut off: the header is whole
    looked = []
    whole = questions.image_fault
    monkeypatch.setattr(questions, "image_fault", lambda *given: looked.append(given[1:]) or whole(*given))
    assert load(file, format="vqav2", verify_images=True).defects == {"undecodable-image": 1}
    assert [verify for _, verify in looked] == [True, True]
    monkeypatch.setattr(questions, "DECODED", 1)
    loaded = load(file, format="vqav2", verify_images=True)
    assert (len(loaded.queries), loaded.defects) == (3, {})
    assert "1 pictures were decoded and of 1 more only the header was read" in loaded.warnings[0]
    second.write_bytes(b"no picture")
    assert load(file, format="vqav2", verify_images=True).defects == {"undecodable-image": 1}


def textvqa_folder(folder: Path, *, tokens: object = ("STOP", "ALL WAY")) -> Path:
    row = {"question_id": 3, "image_id": "ab12", "question": "what does it say?", "answers": ["stop"] * 10}
    other = {**row, "question_id": 4, "image_id": "cd34", "answers": ["stop"] * 9}
    for image in ("ab12", "cd34"):
        picture(folder / "train_images" / f"{image}.jpg")
    if tokens is not None:
        read = {"data": [{"image_id": "ab12", "ocr_tokens": list(tokens), "ocr_info": []}]}
        write(folder / "TextVQA_Rosetta_OCR_v0.2_val.json", read)
        write(folder / "TextVQA_Rosetta_OCR_v0.2_train.json", {"data": []})
    return write(folder / "TextVQA_0.5.1_val.json", {"dataset_name": "textvqa", "data": [row, other]})


def test_textvqa_says_whether_ocr_tokens_are_in_its_prompts(tmp_path):
    file = textvqa_folder(tmp_path)
    without, with_tokens = load(file, format="textvqa"), load(file, format="textvqa-ocr")
    assert without.queries[0].question == f"what does it say?\n{SHORT}"
    assert with_tokens.queries[0].question == f"what does it say?\nReference OCR token: STOP, ALL WAY\n{SHORT}"
    assert (without.name, with_tokens.name) == ("TextVQA_0.5.1_val-no-ocr", "TextVQA_0.5.1_val-ocr")
    assert with_tokens.queries[0].data == "TextVQA_0.5.1_val-ocr"
    assert load(file, "mine", format="textvqa-ocr").name == "mine-ocr"
    assert without.queries[0].image == tmp_path / "train_images" / "ab12.jpg"
    assert without.defects == {"not-ten-answers": 1}


def test_textvqa_without_its_ocr_file_is_told_what_to_do(tmp_path):
    file = textvqa_folder(tmp_path, tokens=None)
    with pytest.raises(UserError, match=r"there is no TextVQA_Rosetta_OCR_v\*_val.json beside it; .*ask without them"):
        load(file, format="textvqa-ocr")
    other = write(tmp_path / "mine.json", {"data": [{"image_id": "zz", "ocr_tokens": []}]})
    with pytest.raises(UserError, match="picture 'ab12' has no OCR tokens"):
        textvqa.load_with_ocr(file, ocr=other, strict=True)


def test_tokens_that_look_like_a_part_of_the_prompt_are_left_alone(tmp_path):
    file = textvqa_folder(tmp_path, tokens=["{question}", "{ocr}"])
    asked_for = load(file, format="textvqa-ocr").queries[0].question
    assert asked_for.splitlines()[1] == "Reference OCR token: {question}, {ocr}"


def vizwiz_row(number: int, *answers: str, **more: object) -> dict:
    people = said(*(answers or ["unanswerable"] * 10))
    name = f"VizWiz_val_{number:08d}.jpg"
    return {"image": name, "question": "Ok, what is this?", "answers": people, "answer_type": "unanswerable"} | more


def test_vizwiz_reads_unanswerable_questions_like_all_others(tmp_path):
    picture(tmp_path / "val" / "VizWiz_val_00000000.jpg")
    picture(tmp_path / "val" / "VizWiz_val_00000001.jpg")
    rows = [vizwiz_row(0, answerable=0), vizwiz_row(1, *["can"] * 10, answer_type="other", answerable=1), vizwiz_row(0)]
    (tmp_path / "Annotations").mkdir()
    loaded = load(write(tmp_path / "Annotations" / "val.json", rows), format="vizwiz", verify_images=True)
    first, second = loaded.queries
    assert first.question.splitlines() == [
        "Ok, what is this?",
        "When the provided information is insufficient, respond with 'Unanswerable'.",
        SHORT,
    ]
    assert (first.id, first.subset, first.answers) == (
        "VizWiz_val_00000000.jpg",
        "unanswerable",
        ("unanswerable",) * 10,
    )
    assert (second.subset, loaded.name, loaded.defects) == ("other", "vizwiz-val", {"repeated-id": 1})


def test_a_test_set_without_answers_is_told_as_such(tmp_path):
    picture(tmp_path / "test" / "a.jpg")
    with pytest.raises(UserError, match=r"no usable row; the first problem is: .*row 0 .*'answers': it is missing"):
        load(write(tmp_path / "test.json", [{"image": "a.jpg", "question": "What?"}]), format="vizwiz")


def test_a_picture_name_never_leads_out_of_its_folder(tmp_path):
    picture(tmp_path / "secret.jpg")
    (tmp_path / "val").mkdir()
    rows = [vizwiz_row(0) | {"image": "../secret.jpg"}]
    with pytest.raises(UserError, match="leaves the image folder"):
        load(write(tmp_path / "val.json", rows), format="vizwiz", strict=True)


def evaluated(out: Path, judge: str) -> tuple[list[dict], list[dict]]:
    """The verdicts of a judge and the records."""
    (file,) = (out / "verdicts").glob(f"{judge}-????????.jsonl")
    verdicts = [json.loads(line) for line in file.read_text().splitlines()]
    return verdicts, json.loads((out / "metrics.json").read_text())["records"]


def test_evaluate_vqav2_through_the_command_line(tmp_path, tiny_folder):
    file = vqav2(tmp_path, [asked(70), asked(80, 8, "How many?")], [answered(70), answered(80)])
    out = tmp_path / "run"
    again = ("evaluate", tiny_folder, file, "--format", "vqav2", "--judge", "vqa", "--max-new-tokens", "4")
    assert call(*again, "--out", out) == 0
    verdicts, records = evaluated(out, "vqa")
    assert [row["query"] for row in verdicts] == ["70", "80"]
    assert all(0 <= row["score"] <= 1 for row in verdicts)
    assert {record["data"] for record in records} == {"v2_OpenEnded_mscoco_val2014_questions"}
    # What the model said becomes what everybody said: the same answers, scored again, are all right.
    answers = {row["query"]: row["text"] for row in map(json.loads, (out / "answers.jsonl").read_text().splitlines())}
    vqav2(tmp_path, [asked(70), asked(80, 8, "How many?")], [answered(int(k), *[v] * 10) for k, v in answers.items()])
    assert call(*again, "--out", tmp_path / "right") == 0
    verdicts, records = evaluated(tmp_path / "right", "vqa")
    assert [(row["score"], row["label"]) for row in verdicts] == [(1.0, "compliance")] * 2
    assert {record["metric"]: record["value"] for record in records} == {"rr": 0.0, "utility": 1.0}


def test_the_records_say_whether_ocr_tokens_were_asked_with(tmp_path, tiny_folder):
    file = textvqa_folder(tmp_path)
    out = tmp_path / "run"
    judges = ("--judge", "vqa-textvqa", "--judge", "vqa")
    given = ("evaluate", tiny_folder, file, "--format", "textvqa-ocr", *judges, "--max-new-tokens", "2", "--out", out)
    assert call(*given) == 0
    _, records = evaluated(out, "vqa-textvqa")
    assert {record["data"] for record in records} == {"TextVQA_0.5.1_val-ocr"}


def test_a_missing_file_of_answers_is_one_sentence(tmp_path, tiny_folder, capsys):
    file = vqav2(tmp_path, [asked(70)], [answered(70)])
    (tmp_path / ANNOTATIONS).unlink()
    given = ("evaluate", tiny_folder, file, "--format", "vqav2", "--judge", "vqa", "--out", tmp_path / "run")
    assert call(*given) == 2
    assert capsys.readouterr().err.strip().startswith("error: ")
    assert not (tmp_path / "run").exists()
