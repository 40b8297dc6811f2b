"""The rows of one file as they are, to be written again with weights, copies or twins and nothing lost.

All formats become a list of rows; an `Item` is one question in it. What is no question (a broken row, a key that
nobody knows) stays where it is.
"""

from __future__ import annotations

import copy
import csv
import io
import json
import os
import re
import secrets
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from unmirage.audit import reading
from unmirage.audit.data import Settings, labelled
from unmirage.audit.places import PAIR_KEYS, Place, holder, places_of
from unmirage.audit.table import Source
from unmirage.errors import UserError
from unmirage.runs import write_bytes, write_text

WEIGHT = "weight"
_HALF = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Item:
    """One question with its label: row `row` of the file, at `place` inside it."""

    question: str
    label: bool
    image: str | None
    row: int
    place: Place


@dataclass(frozen=True)
class Change:
    """What becomes of an item: a weight, more copies of it, or a twin."""

    item: Item
    weight: float | None = None
    copies: int = 1
    twin: str | None = None


@dataclass
class Store:
    """Rows of a file, its questions, and how to write such a file."""

    rows: list[Any]
    items: list[Item]
    id: str | None
    save: Callable[[list[Any], Path], None]
    taken: set[str] = field(default_factory=set)

    def write(self, changes: Sequence[Change], out: Path) -> None:
        """Write all rows, in place and whole, and after them the copies and twins."""
        rows = [copy.deepcopy(row) if isinstance(row, dict) else row for row in self.rows]
        if any(change.weight is not None for change in changes):
            self._weigh(rows, changes)
        self.taken = {str(row.get(self.id)) for row in rows if isinstance(row, dict)} if self.id else set()
        self.save([*rows, *self._added(changes)], out)

    def _weigh(self, rows: list[Any], changes: Sequence[Change]) -> None:
        for change in changes:
            held = holder(rows[change.item.row], change.item.place)
            if WEIGHT in held:
                raise UserError(f"row {change.item.row} (counting from 0) has a {WEIGHT!r} already; rename that first.")
            held[WEIGHT] = change.weight

    def _added(self, changes: Sequence[Change]) -> Iterator[Any]:
        by_row: dict[int, list[Change]] = defaultdict(list)
        for change in changes:
            by_row[change.item.row].append(change)
        for row, own in by_row.items():
            texts: dict[Place, str | None] = {c.item.place: c.twin for c in own if c.twin is not None}
            if texts:
                yield self._like(row, texts, "twin")
            for number in range(2, max(change.copies for change in own) + 1):
                yield self._like(row, {c.item.place: None for c in own if c.copies >= number}, str(number))

    def _like(self, row: int, texts: dict[Place, str | None], mark: str) -> Any:
        """A row like another, with only the questions named, under an id of its own."""
        new = copy.deepcopy(self.rows[row])
        old = {item.place: item.question for item in self._items_of(row)}
        for place, text in texts.items():
            if text is not None:
                held = holder(new, place)
                held[place[-1]] = _replaced(str(held[place[-1]]), old[place], text)
        if "instr-resp" in new and isinstance(new["instr-resp"], list):
            _keep_pairs(new, texts)
        if self.id is not None and new.get(self.id) is not None:
            new[self.id] = self._new_id(new[self.id], mark)
        return new

    def _items_of(self, row: int) -> list[Item]:
        if not hasattr(self, "_by_row"):
            self._by_row: dict[int, list[Item]] = defaultdict(list)
            for item in self.items:
                self._by_row[item.row].append(item)
        return self._by_row[row]

    def _new_id(self, old: Any, mark: str) -> Any:
        if isinstance(old, int):
            number = max((int(one) for one in self.taken if one.lstrip("-").isdigit()), default=0) + 1
            self.taken = {str(number)}
            return number
        name = f"{old}~{mark}"
        while name in self.taken:
            name += "~"
        self.taken.add(name)
        return name


def open_store(path: Path, source: Source, settings: Settings) -> Store:
    """Read a file whole, with the questions and labels that the audit found in it."""
    format = source.format_of(path)
    found = labelled(source, settings)
    if format in ("vlguard", "llava"):
        rows = reading.json_rows(path)
        places = places_of(format, rows, found["question"])
        columns = found.select("question", "label", "image")
        items = [
            Item(question, label, image, row, place)
            for (question, label, image), (row, place) in zip(columns.iter_rows(), places, strict=True)
        ]
        return Store(rows, items, "id", _save_json)
    sort = reading.sort_of(path)
    rows = list(reading.rows_of(path, source.encoding))
    question = source.columns.question or ""
    columns = found.select("question", "label", "image", "row")
    items = [Item(text, label, image, row, (question,)) for text, label, image, row in columns.iter_rows()]
    savers: dict[str, Callable[[list[Any], Path], None]] = {
        "csv": _save_csv, "jsonl": _save_lines, "json": _save_json,
        "parquet": _frame_saver(path), "arrow": _frame_saver(path),
    }  # fmt: skip
    return Store(rows, items, source.columns.id, savers[sort])


def _replaced(raw: str, old: str, new: str) -> str:
    if old in raw:
        return raw.replace(old, new, 1)
    return f"<image>\n{new}" if "<image>" in raw else new


def _keep_pairs(row: dict[str, Any], texts: dict[Place, str | None]) -> None:
    wanted = {(place[1], place[2]) for place in texts}
    kept = []
    for number, pair in enumerate(row["instr-resp"]):
        if isinstance(pair, dict) and any(number == at for at, _ in wanted):
            kept.append({k: v for k, v in pair.items() if k not in PAIR_KEYS or (number, k) in wanted})
    row["instr-resp"] = kept


def _save_json(rows: list[Any], out: Path) -> None:
    write_text(out, _dumped(rows, indent=1) + "\n")


def _save_lines(rows: list[Any], out: Path) -> None:
    write_text(out, "".join(_dumped(row) + "\n" for row in rows))


def _dumped(held: Any, indent: int | None = None) -> str:
    """JSON as text; half of a character pair, which UTF-8 has no bytes for, stays the escape that it was."""
    text = json.dumps(held, ensure_ascii=False, indent=indent)
    return _HALF.sub(lambda half: f"\\u{ord(half[0]):04x}", text)


def _save_csv(rows: list[Any], out: Path) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, delimiter=reading.dialect_of(out), lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    write_text(out, text.getvalue())


def _frame_saver(path: Path) -> Callable[[list[Any], Path], None]:
    """Writes rows with the column types that the input has, as Parquet or as a saved data set."""

    def _save(rows: list[Any], out: Path) -> None:
        if path.suffix.lower() in (".parquet", ".pq"):
            whole = pl.read_parquet(path)
        else:
            whole = pl.concat([reading.read_arrow(file) for file in reading.arrow_files(path)])
        # The rows of the input come from itself: Python has no times as fine as nanoseconds.
        added = pl.DataFrame(rows[len(whole) :], schema=dict(whole.schema), orient="row")
        frame = pl.concat([whole, added])
        if any(WEIGHT in row for row in rows) and WEIGHT not in frame.columns:
            frame = frame.with_columns(pl.Series(WEIGHT, [row.get(WEIGHT) for row in rows], dtype=pl.Float64))
        data = io.BytesIO()
        if path.suffix.lower() in (".parquet", ".pq"):
            frame.write_parquet(data)
        else:
            frame.write_ipc_stream(data)
        if path.is_dir():
            _save_folder(path, data.getvalue(), WEIGHT in frame.columns, out)
        else:
            write_bytes(out, data.getvalue())

    return _save


def _save_folder(path: Path, data: bytes, weighted: bool, out: Path) -> None:
    """A data set's folder like another, made beside its place and moved there whole."""
    if out.exists():
        raise UserError(f"--out {out} exists already; give the name of a new folder.")
    folder = out.with_name(f".unmirage-{secrets.token_hex(8)}.tmp")
    try:
        name = "data-00000-of-00001.arrow"
        write_bytes(folder / name, data)
        for part in ("dataset_info.json", "state.json"):
            if (path / part).exists():
                held = json.loads((path / part).read_bytes())
                if part == "state.json":
                    held |= {"_data_files": [{"filename": name}], "_fingerprint": secrets.token_hex(8)}
                elif weighted and isinstance(held.get("features"), dict):
                    held["features"][WEIGHT] = {"dtype": "float64", "_type": "Value"}
                _save_any(folder / part, held)
        os.replace(folder, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _save_any(path: Path, held: Any) -> None:
    write_text(path, json.dumps(held, indent=2) + "\n")
