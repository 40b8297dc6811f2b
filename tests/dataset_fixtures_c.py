"""Small invented copies of VLGuard, LLaVA's data and the sets of usefulness in their authors' exact layout.

    python tests/dataset_fixtures_c.py FOLDER

Every row is made up and harmless. The traps that real files hold are put in by the tests, each by itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from dataset_fixtures_a import picture, write_json
from dataset_fixtures_b import vl_row

PEOPLE = [{"answer": "red", "answer_confidence": "yes"}] * 10


def vlguard(root: Path) -> Path:
    """Training and test file with an unsafe and a safe row each, pictures in folders of their names."""
    for split in ("train", "test"):
        rows = [
            vl_row(f"{split}_1", False, {"instruction": "Show how glorp 1 is eaten.", "response": "Better not."}),
            vl_row(
                f"{split}_2", True,
                {"safe_instruction": "Name the colour of 2.", "response": "Red."},
                {"unsafe_instruction": "Insult zindle 2.", "response": "Better not."},
            ),
        ]  # fmt: skip
        for row in rows:
            picture(root / split / row["image"])
        write_json(root / f"{split}.json", rows)
    return root


def llava(root: Path) -> Path:
    """A conversation of two exchanges about a picture, and one without."""
    said = [("human", "<image>\nWhich colour?"), ("gpt", "Red."), ("human", "Sure?"), ("gpt", "Yes.")]
    turns = [{"from": who, "value": text} for who, text in said]
    rows = [{"id": "000001", "image": "coco/train2017/1.jpg", "conversations": turns}]
    rows.append({"id": "t2", "conversations": [{"from": "human", "value": "Name a fruit."}, turns[1]]})
    picture(root / "images" / "coco" / "train2017" / "1.jpg")
    write_json(root / "llava_v1_5_mix665k.json", rows)
    return root


def vqav2(root: Path) -> Path:
    """One question of the validation part with its ten answers."""
    asked = [{"question_id": 7000, "image_id": 7, "question": "What colour is it?"}]
    answered = [{"question_id": 7000, "image_id": 7, "answers": PEOPLE, "answer_type": "other"}]
    write_json(root / "v2_OpenEnded_mscoco_val2014_questions.json", {"data_subtype": "val2014", "questions": asked})
    write_json(root / "v2_mscoco_val2014_annotations.json", {"annotations": answered})
    picture(root / "val2014" / "COCO_val2014_000000000007.jpg")
    return root


def textvqa(root: Path) -> Path:
    """One question, and the words that were read in its picture."""
    row = {"question_id": 1, "image_id": "t1", "question": "What word?", "answers": ["stop"] * 10}
    write_json(root / "TextVQA_0.5.1_val.json", {"data": [row]})
    write_json(root / "TextVQA_Rosetta_OCR_v0.2_val.json", {"data": [{"image_id": "t1", "ocr_tokens": ["STOP"]}]})
    picture(root / "train_images" / "t1.jpg")
    return root


def vizwiz(root: Path) -> Path:
    row = {"image": "v.jpg", "question": "What is it?", "answers": PEOPLE, "answer_type": "other", "answerable": 1}
    write_json(root / "val.json", [row])
    picture(root / "val" / "v.jpg")
    return root


def scienceqa(root: Path) -> Path:
    """A problem of each part; that of the test has a picture."""
    splits = {"train": ["1"], "val": ["2"], "test": ["3"]}
    problems = {
        number: {
            "question": f"Which is {number}?", "choices": ["this", "that"], "answer": 0, "hint": "",
            "image": "image.png" if split == "test" else None, "split": split,
        }
        for split, numbers in splits.items()
        for number in numbers
    }  # fmt: skip
    write_json(root / "problems.json", problems)
    write_json(root / "pid_splits.json", splits)
    picture(root / "test" / "3" / "image.png")
    return root


SETS: dict[str, Callable[[Path], Path]] = {
    "vlguard": vlguard,
    "llava": llava,
    "vqav2": vqav2,
    "textvqa": textvqa,
    "vizwiz": vizwiz,
    "scienceqa": scienceqa,
}


if __name__ == "__main__":
    for name, make in SETS.items():
        print(make(Path(sys.argv[1]) / name))
