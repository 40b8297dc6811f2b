"""Blocks of a Markdown document: where they are, what they ask for, and the document with other content in them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from unmirage.errors import UserError
from unmirage.studies.specs import HeatSpec, LinesSpec, Spec, TableSpec
from unmirage.yaml_text import read_yaml

_MARK = re.compile(r"<!--[ \t]*(?:(table|figure|records):(.*?)|(end)[ \t]*|(table) \S+[ \t]*)-->", re.DOTALL)
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})[^\n]*$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One block; `start` and `stop` enclose what is generated, `line` counts from 1."""

    document: Path
    line: int
    spec: Spec
    start: int
    stop: int

    @property
    def where(self) -> str:
        """Document, line and name, for messages."""
        kind = "table" if isinstance(self.spec, TableSpec) else "figure"
        return f"{self.document}, line {self.line}, {kind}{f' {self.spec.name!r}' if self.spec.name else ''}"


@dataclass(frozen=True)
class Document:
    """A document with its blocks, and the result files that it names for all of them."""

    path: Path
    text: str
    blocks: tuple[Block, ...]
    results: tuple[Path, ...]

    def filled(self, contents: Sequence[str]) -> str:
        """The text with this content in its blocks, one after the other, in the document's own line ends."""
        end = "\r\n" if "\r\n" in self.text else "\n"
        pieces, at = [], 0
        for block, content in zip(self.blocks, contents, strict=True):
            pieces += [self.text[at : block.start], f"\n\n{content}\n\n".replace("\n", end)]
            at = block.stop
        return "".join([*pieces, self.text[at:]])


def read_document(path: Path) -> Document:
    """The document and its blocks.

    Raises UserError, with document and line, where it cannot be read, a block does not end, or asks for what there is
    not. What stands in fenced code is no block.
    """
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give a Markdown document.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no UTF-8 text (byte {error.start}); give a Markdown document.") from None
    blocks: list[Block] = []
    results: list[Path] = []
    marks = _marks(text)
    for mark in marks:
        line = text.count("\n", 0, mark.start()) + 1
        if mark[1] == "records":
            results += [path.parent / name for name in _names(mark[2], f"{path}, line {line}")]
        elif mark[4]:  # of a benchmark, which fills its tables itself, up to their own end
            next(marks, None)
        elif mark[3]:
            raise UserError(f"{path}, line {line}: this <!-- end --> ends no block; take it out.")
        else:
            end = next(marks, None)
            if end is None or not end[3]:
                raise UserError(f"{path}, line {line}: this {mark[1]} block has no <!-- end --> of its own.")
            spec = _spec(mark[1], mark[2], f"{path}, line {line}")
            blocks.append(Block(path, line, spec, mark.end(), end.start()))
    return Document(path, text, tuple(blocks), tuple(results))


def _marks(text: str) -> Iterator[re.Match[str]]:
    fenced = list(_fenced(text))
    return (mark for mark in _MARK.finditer(text) if not any(start <= mark.start() < stop for start, stop in fenced))


def _fenced(text: str) -> Iterator[tuple[int, int]]:
    """Where code is: from a fence to the next one of the same sort that is as long, or to the end."""
    opened: re.Match[str] | None = None
    for fence in _FENCE.finditer(text):
        if opened is None:
            opened = fence
        elif fence[1].startswith(opened[1]) and fence[0].strip() == fence[1]:
            yield opened.start(), fence.end()
            opened = None
    if opened is not None:
        yield opened.start(), len(text)


def _names(text: str, where: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise UserError(f"{where}: records names no file; write <!-- records: results/NAME.json -->.")
    return names


def _spec(kind: str, text: str, where: str) -> Spec:
    try:
        given = read_yaml(text)
    except ValueError as error:
        raise UserError(f"{where}: the {kind} is neither YAML nor JSON ({error}); correct it.") from None
    if not isinstance(given, dict):
        raise UserError(f"{where}: a {kind} is a mapping of settings, such as rows: model.")
    try:
        return _model(kind, given).model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        why = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{where}, {f'field {field!r}: ' if field else ''}{why}.") from None


def _model(kind: str, given: Mapping[str, Any]) -> type[Spec]:
    if kind == "table":
        return TableSpec
    return HeatSpec if given.get("kind") == "heat" else LinesSpec
