"""Answers that people have labelled: CSV or JSON lines, with columns that the user names or that are known."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unmirage.errors import UserError
from unmirage.schema import Label
from unmirage.tables import whole_rows

VALUES: dict[str, Label] = {
    "refusal": Label.REFUSAL,
    "partial": Label.PARTIAL,
    "compliance": Label.COMPLIANCE,
    "irrelevant": Label.IRRELEVANT,
    # The final_label column of XSTest's completions (Röttger et al., NAACL 2024).
    "1_full_compliance": Label.COMPLIANCE,
    "2_full_refusal": Label.REFUSAL,
    "3_partial_refusal": Label.PARTIAL,
}
ANSWER_COLUMNS = ("answer", "completion", "response", "text")
LABEL_COLUMNS = ("label", "final_label")
LABELS = ("refusal", "partial", "compliance", "irrelevant")
QUESTION_COLUMNS = ("question", "prompt")
WEIGHT_COLUMN = "weight"
LEAST_WEIGHT, MOST_WEIGHT = 1e-9, 1e9
"""Between these, sums of squared weights are numbers."""
HARM_COLUMN = "harm"
HARMS = {"yes": True, "no": False, "true": True, "false": False, "1": True, "0": False, "": None}
"""What people say of harm; empty where they leave it open."""


@dataclass(frozen=True)
class Labelled:
    """One answer with the label that people gave it; `row` counts from 1, without the heading.

    `weight` says how many answers it stands for, where answers were drawn with unequal chances. `harm`: whether people
    see harm in it; None where they were not asked or leave it open.
    """

    row: int
    text: str
    label: Label
    question: str = ""
    weight: float = 1.0
    harm: bool | None = None


@dataclass(frozen=True)
class Columns:
    """Names of the columns; None: the first known name that the file has. `harm` need not be there unless named."""

    answer: str | None = None
    label: str | None = None
    question: str | None = None
    harm: str | None = None


KNOWN = Columns()


def read_values(pairs: list[str]) -> dict[str, Label]:
    """`VALUES` and what the user adds as VALUE=LABEL, such as "no=refusal"; UserError for anything else."""
    values = dict(VALUES)
    for pair in pairs:
        value, _, label = pair.rpartition("=")
        if not value or label not in LABELS:
            raise UserError(f"{pair!r} is no VALUE=LABEL; LABEL is {', '.join(LABELS[:-1])} or {LABELS[-1]}.")
        values[value.strip()] = Label(label)
    return values


def read_labels(path: Path, columns: Columns = KNOWN, values: Mapping[str, Label] = VALUES) -> list[Labelled]:
    """All labelled answers of a .csv or .jsonl file.

    Raises UserError naming file, row and column where the file cannot be read, a column is missing or a label is
    unknown: a calibration over a part of the labels would be another calibration.
    """
    rows = list(_rows(path))
    if not rows:
        raise UserError(f"{path} holds no rows; give a file of answers with labels.")
    answer = _column(path, rows[0], columns.answer, ANSWER_COLUMNS, "--answer-column")
    label = _column(path, rows[0], columns.label, LABEL_COLUMNS, "--label-column")
    harm = _column(path, rows[0], columns.harm, (), "--harm-column") if columns.harm else HARM_COLUMN
    question = columns.question or next((name for name in QUESTION_COLUMNS if name in rows[0]), None)
    return [
        Labelled(
            number,
            _cell(path, number, row, answer),
            _label(path, number, row, label, values),
            str(row.get(question) or "") if question else "",
            _weight(path, number, row),
            _harm(path, number, row, harm),
        )
        for number, row in enumerate(rows, start=1)
    ]


def _rows(path: Path) -> Iterable[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give a .csv or .jsonl file of labels.") from error
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text; save the labels as UTF-8.") from None
    if path.suffix == ".csv":
        return whole_rows(path, text)
    if path.suffix == ".jsonl":
        return _json_rows(path, text)
    raise UserError(f"{path} ends neither with .csv nor with .jsonl; give the labels in one of these formats.")


def _json_rows(path: Path, text: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, line {number}: not JSON ({error}); write one object a line.") from None
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: not an object; write one object a line.")
        yield row


def _column(path: Path, row: Mapping[str, Any], wanted: str | None, known: tuple[str, ...], option: str) -> str:
    found = next((name for name in ((wanted,) if wanted else known) if name in row), None)
    if found is None:
        looked = repr(wanted) if wanted else " or ".join(map(repr, known))
        there = ", ".join(map(repr, row)) or "none"
        raise UserError(f"{path} has no column {looked} but {there}; name the column with {option}.")
    return found


def _cell(path: Path, number: int, row: Mapping[str, Any], column: str) -> str:
    value = row.get(column)
    if not isinstance(value, str):
        raise UserError(f"{path}, row {number}, column {column!r}: there is no text; give every row an answer.")
    return value


def _weight(path: Path, number: int, row: Mapping[str, Any]) -> float:
    value = row.get(WEIGHT_COLUMN, 1.0)
    try:
        weight = float(value)
    except (TypeError, ValueError, OverflowError):
        weight = math.nan
    if not LEAST_WEIGHT <= weight <= MOST_WEIGHT:
        raise UserError(
            f"{path}, row {number}, column {WEIGHT_COLUMN!r}: {value!r} is no number from 1e-9 to 1e9; say how many "
            "answers the row stands for, or leave the column out."
        )
    return weight


def _harm(path: Path, number: int, row: Mapping[str, Any], column: str) -> bool | None:
    value = row.get(column)
    said = "" if value is None else str(value).strip().lower()
    if said not in HARMS:
        raise UserError(
            f"{path}, row {number}, column {column!r}: {value!r} does not say whether the answer is harmful; write "
            "yes, no or nothing there, or name the column of harm with --harm-column."
        )
    return HARMS[said]


def _label(path: Path, number: int, row: Mapping[str, Any], column: str, values: Mapping[str, Label]) -> Label:
    value = str(row.get(column, "")).strip()
    if value not in values:
        raise UserError(
            f"{path}, row {number}, column {column!r}: the label {value!r} is unknown; say what it means with "
            f"--value {value or 'VALUE'}=refusal (or {', '.join(LABELS[1:])})."
        )
    return values[value]
