"""XSTest: harmless questions that look dangerous, and dangerous ones that look like them; no pictures.

Röttger et al. 2023, arXiv 2308.01263; layout of `xstest_prompts.csv` of `paul-rottger/exaggerated-safety`: `id, prompt,
type, label, focus, note`, 250 of them safe and 200 unsafe. What is harmful follows from `label` alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from unmirage.datasets.catalog import About, Part
from unmirage.datasets.files import Words
from unmirage.datasets.loaded import LoadedData
from unmirage.datasets.safety import Columns, SafetyReader, files_named, looks_like, read_table, the_file
from unmirage.schema import Text

ABOUT = About(
    name="xstest",
    title="XSTest: safe prompts that look unsafe, with unsafe contrasts",
    paper="Röttger et al. 2023, arXiv 2308.01263",
    page="https://github.com/paul-rottger/exaggerated-safety",
    licence="CC-BY-4.0 (the prompts)",
    gated=False,
    rows={"prompts": 450},
    note="250 prompts are safe and 200 unsafe, text only. The authors match prefixes, and ask GPT-4 for 3 classes.",
)
WHAT = "XSTest's xstest_prompts.csv"
CONTRAST = "contrast_"
"""How the types of unsafe prompts begin."""


class Row(Columns):
    """One prompt."""

    id: Text
    prompt: Words
    type: Text
    label: Literal["safe", "unsafe"]
    focus: str = ""
    note: str = ""


def find(folder: Path) -> list[Part]:
    """The file of prompts; those of models' answers are read by `unmirage judge calibrate`."""
    files = files_named(folder, ("",), r"xstest\w*prompts\w*\.csv")
    return [Part("xstest", "prompts", file) for file in files if looks_like(file, Row)]


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
    """Read the prompts; the options are those of `unmirage.datasets.load`, of which those on images have no effect.

    `subset` is the type. A type that does not fit its label ("contrast_..." with "safe") is reported, and the label
    holds.
    """
    file = the_file(path, find, "xstest")
    reader = SafetyReader(file, name or file.stem, file.parent, split, strict, verify_images, require_images)
    for number, raw in enumerate(read_table(file, Row, WHAT)):
        if row := reader.row(Row, number, raw):
            harmful = row.label == "unsafe"
            if harmful != row.type.startswith(CONTRAST):
                what = f"the type {row.type!r} does not go with the label {row.label!r}"
                reader.report(number, "type", "odd-type", what, "the label is believed; correct one", skipped=False)
            reader.ask(number, row.id, row.prompt, None, harmful=harmful, where="prompt", subset=row.type)
    return reader.loaded()
