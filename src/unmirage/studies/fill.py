"""Documents filled from result files, or checked against them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unmirage.errors import UserError
from unmirage.runs import write_text
from unmirage.schema import Record
from unmirage.studies import wording
from unmirage.studies.blocks import Block, Document, read_document
from unmirage.studies.heat import draw_heat, read_heat
from unmirage.studies.lines import draw_lines, read_lines
from unmirage.studies.results import read_results
from unmirage.studies.seeds import Estimate
from unmirage.studies.specs import HeatSpec, LinesSpec, Measured, TableSpec
from unmirage.studies.tables import table

PENDING = "*Not measured yet.*"


@dataclass
class Filled:
    """A document as it is to be: its text, its pictures by path, and the blocks that are not so yet."""

    document: Document
    text: str = ""
    pictures: dict[Path, str] = field(default_factory=dict)
    stale: list[Block] = field(default_factory=list)

    @property
    def current(self) -> bool:
        """Text and pictures are as they are to be."""
        return not self.stale

    def write(self) -> None:
        """Write pictures, then the document that shows them, each in one step and only where it changes."""
        for path, drawing in self.pictures.items():
            if _content(path) != drawing:
                write_text(path, drawing)
        if self.text != self.document.text:
            write_text(self.document.path, self.text)


def fill(paths: Sequence[Path], results: Sequence[Path] = ()) -> list[Filled]:
    """The documents with their blocks filled; nothing is written before `Filled.write`.

    Records come from `results`; without them, from the files that a document itself names (`<!-- records: ... -->`).
    Raises UserError with document, line and block where a block names a field or value that there is not, a cell is
    empty without leave, or two records of one seed match a cell.
    """
    read: dict[tuple[Path, ...], list[Record]] = {}
    drawn: dict[Path, str] = {}
    filled = []
    for path in paths:
        document = read_document(path)
        filled.append(_fill(document, _records(document, tuple(results), read)))
        _check_files(filled[-1], drawn)
    return filled


def _records(
    document: Document, given: tuple[Path, ...], read: dict[tuple[Path, ...], list[Record]]
) -> Callable[[], list[Record]]:
    """The records of a document, read where its first block needs them."""

    def records() -> list[Record]:
        """The records, read once for all documents that name the same files."""
        named = given or document.results
        if not named:
            raise UserError(
                f"{document.path} names no results; give --results, or write <!-- records: results/NAME.json --> in it."
            )
        if named not in read:
            read[named] = read_results(named)
        return read[named]

    return records


def _fill(document: Document, records: Callable[[], list[Record]]) -> Filled:
    filled = Filled(document)
    contents = [_content_of(block, filled, records) for block in document.blocks]
    filled.text = document.filled(contents)
    both = zip(document.blocks, contents, strict=True)
    filled.stale = [block for block, content in both if not _is_current(block, filled, content)]
    return filled


def _content_of(block: Block, filled: Filled, records: Callable[[], list[Record]]) -> str:
    if block.spec.pending:
        return PENDING
    there = records()
    try:
        if isinstance(block.spec, TableSpec):
            return table(there, block.spec)
        path = block.document.parent / block.spec.file
        if path in filled.pictures:
            raise UserError(f"another block writes {block.spec.file} already; give it another file")
        filled.pictures[path], text = _picture(there, block.spec)
        return text
    except UserError as error:
        raise UserError(f"{block.where}: {str(error).rstrip('.')}.") from None


def _picture(records: Sequence[Record], spec: LinesSpec | HeatSpec) -> tuple[str, str]:
    """The drawing and the Markdown that shows it."""
    if isinstance(spec, HeatSpec):
        heat = read_heat(records, spec)
        by_row = {row: [one for key, one in heat.cells.items() if key[0] == row] for row in heat.rows}
        return draw_heat(heat), _shown(spec, spec.measured, by_row, heat.found, "")
    lines = read_lines(records, spec)
    by_line = {
        name: [one for panel in lines.panels for key, one in panel.cells.items() if key[0] == name]
        for name in lines.names
    }
    bands = wording.intervals(spec.y, lines.found, "Bands") if spec.bands else ""
    dots = "Dots: single seeds." if spec.dots and any(len(one.each) > 1 for one in lines.found) else ""
    return draw_lines(lines), _shown(spec, spec.y, by_line, lines.found, f"{bands} {dots}".strip())


def _shown(
    spec: LinesSpec | HeatSpec,
    measured: Sequence[Measured],
    by_name: dict[str, list[Estimate]],
    found: Sequence[Estimate],
    more: str,
) -> str:
    named = {wording.escaped(name): several for name, several in by_name.items()}
    parts = [wording.sentence(spec.caption), wording.units(measured), wording.seeds(named), more, wording.basis(found)]
    return f"![{wording.escaped(spec.caption)}]({spec.file})\n\n" + " ".join(part for part in parts if part)


def _is_current(block: Block, filled: Filled, content: str) -> bool:
    there = filled.document.text[block.start : block.stop].replace("\r\n", "\n")
    if there != f"\n\n{content}\n\n":
        return False
    if isinstance(block.spec, TableSpec) or block.spec.pending:
        return True
    path = block.document.parent / block.spec.file
    return _content(path) == filled.pictures[path]


def _content(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _check_files(filled: Filled, drawn: dict[Path, str]) -> None:
    """Raise UserError where two documents draw different pictures into one file."""
    for path, drawing in filled.pictures.items():
        if drawn.setdefault(path.resolve(), drawing) != drawing:
            raise UserError(f"{filled.document.path}: another document writes {path} already; give it another file.")
