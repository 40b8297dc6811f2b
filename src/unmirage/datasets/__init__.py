"""Data sets as they lie on disk: one small file per real format and the registry that finds it.

Adding a format is one module with a function `load` and one line in `FORMATS`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from unmirage.datasets import llava, scienceqa, textvqa, vizwiz, vlguard, vqa
from unmirage.datasets.loaded import LoadedData, Problem
from unmirage.errors import UserError

__all__ = ["FORMATS", "LoadedData", "Loader", "Problem", "load"]


class Loader(Protocol):
    """Reads one format; the options mean the same everywhere, see `load`."""

    def __call__(
        self,
        path: str | Path,
        name: str | None = None,
        *,
        images: str | Path | None = None,
        split: str | None = None,
        strict: bool = False,
        verify_images: bool = False,
        require_images: bool = True,
    ) -> LoadedData:
        """Read the data set at `path`."""
        ...


FORMATS: dict[str, Loader] = {
    "vlguard": vlguard.load,
    "llava": llava.load,
    "vqav2": vqa.load,
    "textvqa": textvqa.load,
    "textvqa-ocr": textvqa.load_with_ocr,
    "vizwiz": vizwiz.load,
    "scienceqa": scienceqa.load,
    "scienceqa-image": scienceqa.load_pictured,
}


def load(
    path: str | Path,
    name: str | None = None,
    *,
    format: str = "vlguard",
    images: str | Path | None = None,
    split: str | None = None,
    strict: bool = False,
    verify_images: bool = False,
    require_images: bool = True,
) -> LoadedData:
    """Read the data set at `path`, which is written in `format`, one of `FORMATS`.

    `name` is what results call the data; without it the file's stem. `images` is the image folder,
    found beside the file where it is not given. `split` marks all queries as one part ("seen").
    Bad rows are skipped and reported in `problems`; with `strict` the first one raises UserError.
    `verify_images` decodes every image, which takes as long as reading them all. Without `require_images` a row
    whose image is not there is reported but kept, for those who look only at its words.
    Raises UserError for an unknown format, a file that cannot be read and data without one good row.
    """
    if format not in FORMATS:
        raise UserError(f"There is no data format {format!r}; the formats are {', '.join(sorted(FORMATS))}.")
    return FORMATS[format](
        path,
        name,
        images=images,
        split=split,
        strict=strict,
        verify_images=verify_images,
        require_images=require_images,
    )
