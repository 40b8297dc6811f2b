"""Data sets as they lie on disk: one small file per real format and the registry that finds it.

Adding a format is one module with a function `load` and one line in `FORMATS`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Protocol

from unmirage.datasets import (
    beavertails_v,
    figstep,
    hf,
    holisafe,
    jailbreakv,
    llava,
    mm_safetybench,
    mossbench,
    one_word_attack,
    scienceqa,
    siuo,
    spa_vl,
    textvqa,
    vizwiz,
    vlguard,
    vlsbench,
    vqa,
    xstest,
)
from unmirage.datasets.catalog import About
from unmirage.datasets.loaded import LoadedData, Problem
from unmirage.datasets.marks import MARK, marked
from unmirage.errors import UserError

__all__ = ["FORMATS", "LoadedData", "Loader", "Problem", "about", "check_training", "load"]


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
    "figstep": figstep.load,
    "figstep-text": figstep.load_text,
    "figstep-benign": figstep.load_benign,
    "mm-safetybench": mm_safetybench.load,
    "mm-safetybench-tiny": mm_safetybench.load_tiny,
    "xstest": xstest.load,
    "mossbench": mossbench.load,
    "mossbench-contrast": mossbench.load_contrast,
    "siuo": siuo.load,
    "siuo-mcqa": siuo.load_choice,
    "vlsbench": vlsbench.load,
    "holisafe": holisafe.load,
    "spa-vl": spa_vl.load,
    "spa-vl-rejected": spa_vl.load_rejected,
    "beavertails-v": beavertails_v.load,
    "beavertails-v-rejected": beavertails_v.load_rejected,
    "jailbreakv": jailbreakv.load,
    "jailbreakv-redteam": jailbreakv.load_plain,
    "one-word-attack": one_word_attack.load,
    "hf": hf.load,
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


def about(format: str) -> About | None:
    """What is known of the data set that a format belongs to; None for a format that is no one's set ("llava")."""
    loader = FORMATS.get(format)
    module = sys.modules.get(getattr(loader, "__module__", ""))
    found = getattr(module, "ABOUT", None)
    return found if isinstance(found, About) else None


def check_training(format: str, *paths: Path | None) -> None:
    """Raise UserError where the authors of a format's data set forbid to train on it, or rows at a path are so marked.

    The mark is what `unmirage data convert` gives to every row of such a set, see `unmirage.datasets.marks`.
    """
    known = about(format)
    if known is not None and not known.training:
        raise UserError(
            f"{known.title.partition(':')[0]} (format {format}) must not be trained on, say its authors "
            f"({known.page}); evaluate on it, and give other training data."
        )
    for found in map(marked, filter(None, paths)):
        if found is not None:
            file, row = found
            raise UserError(
                f"{file}, row {row} (counting from 0), field {MARK!r}: it is false, as the authors of the set that the "
                "file was converted from forbid to train on it; evaluate on it, and give other training data. With "
                f"their leave, take the field {MARK!r} out of the rows."
            )
