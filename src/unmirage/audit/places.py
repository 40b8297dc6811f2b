"""Where the questions of VLGuard's and LLaVA's JSON stand, to find again in the rows what the loader accepted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from unmirage.errors import UserError

PAIR_KEYS = ("safe_instruction", "unsafe_instruction", "instruction")
Place = tuple[str | int, ...]
"""Keys and numbers that lead from a row to its question."""


def places_of(format: str, rows: list[Any], questions: Iterable[str]) -> list[tuple[int, Place]]:
    """Row and place of each question that the loader accepted: both come in the order of the file.

    Raises UserError where one cannot be found.
    """
    places = _vlguard_places(rows) if format == "vlguard" else _llava_places(rows)
    found: list[tuple[int, Place]] = []
    for question in questions:
        here = next(((row, place) for row, place, text in places if _asked(text) == question), None)
        if here is None:
            raise UserError("the questions of the file cannot be found again in it; repair its bad rows first.")
        found.append(here)
    return found


def holder(row: Any, place: Place) -> Any:
    """The object in which the question stands."""
    for step in place[:-1]:
        row = row[step]
    return row


def _asked(text: str) -> str:
    return text.replace("<image>", "").strip()


def _vlguard_places(rows: list[Any]) -> Iterator[tuple[int, Place, str]]:
    for number, row in enumerate(rows):
        pairs = row.get("instr-resp") if isinstance(row, dict) else None
        for place, pair in enumerate(pairs if isinstance(pairs, list) else []):
            for key in PAIR_KEYS:
                if isinstance(pair, dict) and isinstance(pair.get(key), str):
                    yield number, ("instr-resp", place, key), pair[key]


def _llava_places(rows: list[Any]) -> Iterator[tuple[int, Place, str]]:
    for number, row in enumerate(rows):
        turns = row.get("conversations") if isinstance(row, dict) else None
        if isinstance(turns, list) and turns and isinstance(turns[0], dict) and isinstance(turns[0].get("value"), str):
            yield number, ("conversations", 0, "value"), turns[0]["value"]
