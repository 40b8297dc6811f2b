"""HoliSafe: pictures and texts in all combinations of safe and unsafe. Its rows are not known here, so none are read.

Lee et al. 2025, arXiv 2506.04704. How many pairs it has is known, what its columns are called is not; a loader that
guessed which column says what is harmful could turn every figure round. The set is recognised by its name, and reading
it ends with what to do instead.
"""

from __future__ import annotations

from pathlib import Path

from unmirage.datasets.catalog import About, Part
from unmirage.datasets.loaded import LoadedData
from unmirage.datasets.safety import files_named, first_row
from unmirage.errors import UserError

ABOUT = About(
    name="holisafe",
    title="HoliSafe: holistic safety benchmark",
    paper="Lee et al. 2025, arXiv 2506.04704",
    page="https://youngwanlee.github.io/holisafe",
    licence="unknown",
    rows={"bench": 4163},
    note="1,779 pictures. Its columns are not known, so that it is recognised and not read.",
)
NEEDED = {
    "id": "a text of its own for every row",
    "image": "the picture's path in the image folder",
    "safe": "true where the picture and its question may be answered",
    "instr-resp": 'a list with one object: {"instruction": ...} where safe is false, {"safe_instruction": ...} where '
    "it is true",
}
"""The keys of VLGuard's format, which can say of any pair whether it is harmful."""


def find(folder: Path) -> list[Part]:
    """Data files whose own name, or that of the folder, says HoliSafe."""
    data = r"\.(json|jsonl|csv|parquet)"
    own = r".*" if "holisafe" in folder.absolute().name.lower() else r".*holisafe.*"
    return [Part("holisafe", "bench", file) for file in files_named(folder, ("", "data"), own + data)]


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
    """Raise UserError that names the columns of the file, where they can be seen, and those that are needed."""
    file = Path(path)
    if not file.exists():
        raise UserError(f"{file} does not exist; give a data file of HoliSafe.")
    seen = ", ".join(first_row(file)) if file.suffix.lower() in (".json", ".csv") else ""
    has = f"it has the columns {seen}, and " if seen else ""
    needed = "; ".join(f"{key!r}: {meaning}" for key, meaning in NEEDED.items())
    raise UserError(
        f"{file}: the columns of HoliSafe are not known to this program: {has}which of them says what is harmful must "
        f"not be guessed. Write its rows as a JSON list in VLGuard's format and read that (format vlguard): {needed}."
    )
