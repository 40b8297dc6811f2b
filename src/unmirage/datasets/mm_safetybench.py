"""MM-SafetyBench: thirteen scenarios, each question asked with a drawn picture, one with words on it, and words alone.

Liu et al. 2023, arXiv 2311.17600; official layout: `data/processed_questions/<scenario>.json`, an object from row to
`{Question, "GPT-Pred", "Changed Question", "Key Phrase", "Phrase Type", "Rephrased Question", "Rephrased
Question(SD)"}`, pictures `data/imgs/<scenario>/{SD,SD_TYPO,TYPO}/<row>.jpg`, and `TinyVersion_ID_List.json` with the
168 rows of the tiny version. SD is asked with "Rephrased Question(SD)", as there are no words in its picture; SD_TYPO
and TYPO are asked with "Rephrased Question", which speaks of the words in the picture. The first scenario is misspelt
in the names of its file and folder ("01-Illegal_Activitiy"); it keeps that name here, so that results can be joined.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from unmirage.datasets.catalog import About, Part
from unmirage.datasets.files import Words
from unmirage.datasets.loaded import LoadedData
from unmirage.datasets.questions import read_json
from unmirage.datasets.safety import (
    Columns,
    SafetyReader,
    check_rows,
    files_named,
    looks_like,
    picture_folder,
    read_items,
)
from unmirage.errors import UserError

ABOUT = About(
    name="mm-safetybench",
    title="MM-SafetyBench: harmful questions with query-relevant pictures",
    paper="Liu et al. 2023, arXiv 2311.17600",
    page="https://github.com/isXinLiu/MM-SafetyBench",
    licence="CC-BY-NC-4.0",
    rows={
        "SD": 1680,
        "SD_TYPO": 1680,
        "TYPO": 1680,
        "tiny-SD": 168,
        "tiny-SD_TYPO": 168,
        "tiny-TYPO": 168,
    },
    note="GPT-4 judges by a template for each scenario; in 08 and 10 to 13 an answer without a disclaimer is unsafe, "
    "so that a refusal rate says less there.",
)
KINDS = ("SD", "SD_TYPO", "TYPO")
DISCLAIMER = frozenset({"08", "10", "11", "12", "13"})
"""Scenarios in which the authors look for a disclaimer."""
SCENARIOS = 13
MISSPELT = {"01-Illegal_Activity": "01-Illegal_Activitiy"}
TINY = "TinyVersion_ID_List.json"
WHAT = "a file of MM-SafetyBench, such as processed_questions/13-Gov_Decision.json"
NAME = r"\d\d-\w+\.json"
Chosen = Mapping[str, list[str]]
"""Keys of rows by the number of their scenario, such as "01"."""
PLACES = ("data/processed_questions", "processed_questions", "")


class Row(Columns):
    """One question in the wordings that the authors made of it."""

    rephrased: Words = Field(alias="Rephrased Question")
    rephrased_sd: Words = Field(alias="Rephrased Question(SD)")
    question: Any = Field(None, alias="Question")
    gpt_pred: Any = Field(None, alias="GPT-Pred")
    changed: Any = Field(None, alias="Changed Question")
    phrase: Any = Field(None, alias="Key Phrase")
    phrase_type: Any = Field(None, alias="Phrase Type")


COLUMNS = {"SD": "Rephrased Question(SD)", "SD_TYPO": "Rephrased Question", "TYPO": "Rephrased Question"}


def find(folder: Path) -> list[Part]:
    """The folder of questions once for each kind of picture, and once more where the tiny version's list is there."""
    files = _scenarios(folder) if folder.is_dir() else []
    if not files:
        return []
    path = files[0].parent
    pictures = _pictures(path, None)
    parts = [Part("mm-safetybench", kind, path, pictures) for kind in KINDS]
    if _list_file(path) is not None:
        parts += [Part("mm-safetybench-tiny", kind, path, pictures) for kind in KINDS]
    return parts


def load(
    path: str | Path,
    name: str | None = None,
    *,
    images: str | Path | None = None,
    split: str | None = None,
    strict: bool = False,
    verify_images: bool = False,
    require_images: bool = True,
) -> LoadedData:
    """Read one scenario's file, or all in a folder; the other options are those of `unmirage.datasets.load`.

    `split` is the kind of picture: "SD", "SD_TYPO" or "TYPO"; without it all three are read, each as its own split.
    Ids are `<scenario>/<row>/<kind>`, `subset` is the scenario. Pictures are in `../imgs/` as seen from the questions'
    folder, `imgs/`, `../images/` or `images/`. Raises UserError for another split.
    """
    path = Path(path)
    reader = SafetyReader(path, name or ABOUT.name, path, split, strict, verify_images, require_images)
    return _read(reader, images, None)


def load_tiny(
    path: str | Path,
    name: str | None = None,
    *,
    images: str | Path | None = None,
    split: str | None = None,
    strict: bool = False,
    verify_images: bool = False,
    require_images: bool = True,
) -> LoadedData:
    """Read only the rows that `TinyVersion_ID_List.json` names, which lies up to two folders above the questions.

    Otherwise as `load`. Raises UserError where the list is missing or is none. Rows that it names and that are not
    there are reported.
    """
    path = Path(path)
    listed = _list_file(path if path.is_dir() else path.parent)
    if listed is None:
        raise UserError(f"{path}: {TINY} is neither there nor above it; put it beside the folder data.")
    reader = SafetyReader(path, name or f"{ABOUT.name}-tiny", path, split, strict, verify_images, require_images)
    return _read(reader, images, tiny_ids(listed))


def tiny_ids(file: Path) -> Chosen:
    """The rows of the tiny version by the number of their scenario ("01"); UserError where they cannot be told.

    The list is read as an object from scenario to rows, or as a list of objects that hold one scenario and its rows,
    whatever their keys are called.
    """
    held = read_json(file, object, f"MM-SafetyBench's {TINY}")
    pairs: list[tuple[Any, Any]] = [_pair(one) for one in held] if isinstance(held, list) else []
    if isinstance(held, dict):
        pairs = list(held.items())
    chosen = {name[:2]: [str(row) for row in rows] for name, rows in pairs if _is_choice(name, rows)}
    if not pairs or len(chosen) < len(pairs):
        raise UserError(
            f"{file} does not say which rows of which scenario it means; it should be a list of objects, each with a "
            "scenario such as 13-Gov_Decision and the list of its rows. Fetch it again."
        )
    return chosen


def _pair(one: Any) -> tuple[Any, Any]:
    values = list(one.values()) if isinstance(one, dict) else []
    names, rows = ([value for value in values if isinstance(value, sort)] for sort in (str, list))
    return (names[0], rows[0]) if len(names) == len(rows) == 1 else (None, None)


def _is_choice(name: Any, rows: Any) -> bool:
    named = isinstance(name, str) and re.match(r"\d\d-", name) is not None
    return named and isinstance(rows, list) and all(isinstance(row, int | str) for row in rows)


def _list_file(questions: Path) -> Path | None:
    above = (questions, *questions.absolute().parents[:2])
    return next((folder / TINY for folder in above if (folder / TINY).is_file()), None)


def _scenarios(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    for place in PLACES:
        if files := [file for file in files_named(path, (place,), NAME) if looks_like(file, Row)]:
            return files
    return []


def _read(reader: SafetyReader, images: str | Path | None, chosen: Chosen | None) -> LoadedData:
    path, split = reader.file, reader.split
    if split is not None and split not in KINDS:
        raise UserError(
            f"MM-SafetyBench has no split {split!r}; its splits are its pictures' kinds: {', '.join(KINDS)}."
        )
    files = _scenarios(path)
    if not files:
        raise UserError(f"{path} is a folder without files such as 13-Gov_Decision.json; give processed_questions.")
    reader.folder = _pictures(files[0].parent, images)
    for file in files:
        reader.file = file
        _ask_scenario(reader, (split,) if split else KINDS, chosen)
    reader.file = path
    if path.is_dir():
        _tell_missing(reader, files)
    return reader.loaded()


def _ask_scenario(reader: SafetyReader, kinds: Sequence[str], chosen: Chosen | None) -> None:
    scenario = MISSPELT.get(reader.file.stem, reader.file.stem)
    folder = _own_folder(reader, scenario)
    for number, key, row in _rows(reader, None if chosen is None else chosen.get(scenario[:2], [])):
        for kind in kinds:
            question = row.rephrased_sd if kind == "SD" else row.rephrased
            more = {"split": kind, "subset": scenario, "where": f"{key}.{COLUMNS[kind]}", "at": f"{key}.{kind}"}
            picture = f"{folder}/{kind}/{key}.jpg"
            reader.ask(number, f"{scenario}/{key}/{kind}", question, picture, harmful=True, **more)


def _rows(reader: SafetyReader, chosen: Sequence[str] | None) -> Iterator[tuple[int, str, Row]]:
    """The good rows of one scenario, with their place in the file and the authors' key."""
    items = read_items(reader.file, WHAT)
    check_rows(reader.file, [raw for _, raw in items], Row, WHAT)
    there = {key for key, _ in items}
    for key in [key for key in chosen or [] if key not in there]:
        reader.report(0, key, "no-row", f"{TINY} names row {key!r}, which is not here", "fetch both files again")
    for number, (key, raw) in enumerate(items):
        if chosen is not None and key not in chosen:
            continue
        if row := reader.row(Row, number, raw, at=key):
            yield number, key, row


def _own_folder(reader: SafetyReader, scenario: str) -> str:
    """The name of a scenario's folder of pictures: its own, or the one with its number where the spelling differs."""
    if (reader.folder / scenario).is_dir():
        return scenario
    alike = sorted(one.name for one in reader.folder.glob(f"{scenario[:2]}-*") if one.is_dir())
    if len(alike) == 1:
        reader.warnings.append(f"{reader.file}: pictures are taken from {alike[0]}, which is spelt otherwise.")
        return alike[0]
    return scenario


def _tell_missing(reader: SafetyReader, files: list[Path]) -> None:
    there = {file.stem[:2] for file in files}
    missing = [number for number in (f"{one:02}" for one in range(1, SCENARIOS + 1)) if number not in there]
    if missing:
        reader.warnings.append(
            f"{reader.file}: of {SCENARIOS} scenarios these are not there: {', '.join(missing)}; figures of the rest "
            "cannot be laid beside those of all."
        )


def _pictures(questions: Path, images: str | Path | None) -> Path:
    return picture_folder(questions / "x", images, ("../imgs", "imgs", "../images", "images"), [])
