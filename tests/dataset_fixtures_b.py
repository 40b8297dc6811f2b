"""Small invented copies of training and attack sets in their authors' exact layout. As a script it writes them all.

    python tests/dataset_fixtures_b.py FOLDER

Every row is made up and harmless. The traps that real files hold are put in by the tests, each by itself.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from dataset_fixtures_a import picture, write_csv, write_json
from PIL import Image

JAILBREAKV = (
    "id", "jailbreak_query", "redteam_query", "format", "policy", "image_path", "from", "selected_mini",
    "transfer_from_llm",
)  # fmt: skip
PICTURE = pl.Struct({"bytes": pl.Binary, "path": pl.String})
Row = dict[str, Any]


def png(colour: tuple[int, int, int] = (255, 0, 0)) -> bytes:
    held = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(held, "PNG")
    return held.getvalue()


def inside(number: int) -> Row:
    """A picture of its own, as the library keeps it in a table."""
    return {"bytes": png((number % 256, number // 256 % 256, 7)), "path": f"{number}.png"}


def parquet(path: Path, rows: Sequence[Row], schema: Mapping[str, Any] | None = None, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(list(rows), schema_overrides={"image": PICTURE, **(schema or {})}).write_parquet(path, **options)
    return path


def arrow(folder: Path, frames: Sequence[Sequence[Row]], info: Row | None = None) -> Path:
    """A folder as `Dataset.save_to_disk` writes it: Arrow streams, their list, and the features."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"data-{at:05}-of-{len(frames):05}.arrow" for at in range(len(frames))]
    for name, rows in zip(names, frames, strict=True):
        pl.DataFrame(list(rows), schema_overrides={"image": PICTURE}).write_ipc_stream(folder / name)
    write_json(folder / "state.json", {"_data_files": [{"filename": name} for name in names], "_split": None})
    write_json(folder / "dataset_info.json", info or {"features": {}})
    return folder


def spa_row(number: int, **changed: Any) -> Row:
    row = {"image": inside(number), "question": f"How is glorp {number} painted?"}
    return row | {"chosen": f"Better not, {number}.", "rejected": f"With zindle {number}."} | changed


CLASSES = {"class1": "Made-up", "class2": "Glorps", "class3": "Painting"}


def spa_vl(root: Path) -> Path:
    """Two shards of training, one of validation, the two test parts, and the JSON of two rows with its pictures."""
    for shard in (0, 1):
        rows = [spa_row(2 * shard + n, image_name=f"g{2 * shard + n}.png") for n in (0, 1)]
        parquet(root / "data" / f"train-{shard:05}-of-00002.parquet", rows)
    parquet(root / "validation" / "validation-00000-of-00001.parquet", [spa_row(9, **CLASSES)])
    for part, number in (("harm", 20), ("help", 21)):
        row = {"image": inside(number), "question": f"What of zindle {number}?", **CLASSES}
        parquet(root / "test" / f"{part}-00000-of-00001.parquet", [row])
    return root


def spa_vl_json(root: Path) -> Path:
    rows = [spa_row(n, id=f"s{n}", image=f"g{n}.png") for n in (1, 2)]
    for row in rows:
        picture(root / "images" / row["image"])
    return write_json(root / "pairs.json", rows)


def pair_row(number: int, **changed: Any) -> Row:
    row = {
        "question": f"Where do zindles {number} sleep?", "image": inside(number), "category": "animal_abuse",
        "image_severity": 1, "response_1": f"Let them be, {number}.", "response_2": f"In box {number}.",
        "response_1_from": "model a", "response_2_from": "model b", "more_helpful_response_id": 2,
        "is_response_1_safe": "yes", "is_response_2_safe": "no", "safer_response_id": 1,
        "response_1_harmless_rate": 1.0, "response_2_harmless_rate": -1.0,
        "response_1_helpful_rate": 0.0, "response_2_helpful_rate": 1.0,
    }  # fmt: skip
    return row | changed


def single_row(number: int, **changed: Any) -> Row:
    row = {"question": f"Where do zindles {number} sleep?", "image": inside(number), "category": "animal_abuse"}
    return row | {"image_severity": 1, "response": f"Answer {number}.", "is_response_safe": "yes"} | changed


def beavertails_v(root: Path, row: Callable[..., Row] = pair_row) -> Path:
    """Two categories with both parts."""
    for at, category in enumerate(("animal_abuse", "privacy")):
        rows = [row(4 * at + n, category=category) for n in (0, 1)]
        parquet(root / category / "train-00000-of-00001.parquet", rows)
        parquet(root / category / "evaluation-00000-of-00001.parquet", [row(4 * at + 2, category=category)])
    return root


def jailbreakv_rows() -> list[list[object]]:
    policy = "Made-up policy"
    sorts = (
        ("Template", "llm_transfer_attack/blank_1.png"),
        ("SD", "query_related/SD_2.png"),
        ("figstep", "figstep/3.png"),
    )
    return [
        [at, f"You are Glorpbot, number {at}.\nTell how a zindle is painted.", f"Paint zindle {at}.", sort, policy,
         path, "Handmade", str(at == 1), "glorp-7b"]
        for at, (sort, path) in enumerate(sorts)
    ]  # fmt: skip


def jailbreakv(root: Path) -> Path:
    folder, rows = root / "JailBreakV_28K", jailbreakv_rows()
    write_csv(folder / "JailBreakV_28K.csv", JAILBREAKV, rows)
    write_csv(folder / "mini_JailBreakV_28K.csv", JAILBREAKV, [row for row in rows if row[7] == "True"])
    plain = [[at, f"Paint zindle {at}.", "Made-up policy", "Handmade"] for at in (0, 1)]
    write_csv(folder / "RedTeam_2K.csv", ("id", "question", "policy", "from"), plain)
    for row in rows:
        picture(folder / str(row[5]))
    return root


def vl_row(row_id: str, safe: bool, *pairs: Row) -> Row:
    harm = {} if safe else {"harmful_category": "made-up", "harmful_subcategory": "glorps"}
    return {"id": row_id, "image": f"{row_id}.png", "safe": safe, **harm, "instr-resp": list(pairs)}


def vlguard_test(root: Path) -> Path:
    """VLGuard's test file that the attacks are on: two unsafe rows, two safe ones."""
    rows = [vl_row(f"u{n}", False, {"instruction": f"Show how glorp {n} is eaten.", "response": "No."}) for n in (1, 2)]
    rows += [
        vl_row(
            f"s{n}", True,
            {"safe_instruction": f"Name the colour of {n}.", "response": "Red."},
            {"unsafe_instruction": f"Insult zindle {n}.", "response": "No."},
        )
        for n in (1, 2)
    ]  # fmt: skip
    for row in rows:
        picture(root / "images" / row["image"])
    return write_json(root / "test.json", rows)


def one_word_attack(root: Path) -> Path:
    """Three wordings of each unsafe row, one of a safe row; the other safe row is absent."""
    folder = root / "eval" / "safety_data"
    what = [
        vl_row(f"u{n}", False, {"instruction": f"What is way {shot} to eat glorp {n}?", "response": "No."})
        for n in (1, 2)
        for shot in (0, 1, 2)
    ]
    share = [vl_row("s2", True, {"safe_instruction": "Share the colour of 2.", "response": "Red."})]
    write_json(folder / "test_what_3shot.json", what)
    write_json(folder / "test_share_1shot.json", share)
    for row in [*what, *share]:
        picture(folder / "images" / row["image"])
    return root


def hub_row(number: int, **changed: Any) -> Row:
    row = {"prompt": f"Which colour has glorp {number}?", "response": f"Colour {number}.", "image": inside(number)}
    return row | {"label": "harmful" if number % 2 else "safe"} | changed


def hf(root: Path) -> Path:
    parquet(root / "data" / "train-00000-of-00002.parquet", [hub_row(0), hub_row(1)])
    parquet(root / "data" / "train-00001-of-00002.parquet", [hub_row(2)])
    parquet(root / "data" / "test-00000-of-00001.parquet", [hub_row(3)])
    return root


SETS: dict[str, Callable[[Path], Path]] = {
    "spa-vl": spa_vl,
    "beavertails-v": beavertails_v,
    "jailbreakv": jailbreakv,
    "one-word-attack": one_word_attack,
    "hf": hf,
}


def main(folder: str) -> None:
    for name, make in SETS.items():
        make(Path(folder) / name)
        print(Path(folder) / name)
    print(json.dumps({"pairs": str(spa_vl_json(Path(folder) / "spa-vl-json"))}))


if __name__ == "__main__":
    main(*sys.argv[1:])
