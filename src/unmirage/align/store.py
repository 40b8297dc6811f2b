"""Tensors on disk by name: written once, in small files that appear whole, read back without loading the rest."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import save_file
from torch import Tensor


class RowStore:
    """Named tensors in one folder, a few files of many rows each.

    A file is written beside its place and renamed, so that a killed run leaves none that is half; what is there already
    is never written again.
    """

    def __init__(self, folder: Path) -> None:
        """Finds what is stored already."""
        self.folder = folder
        self._files: dict[str, Any] = {}
        for path in sorted(folder.glob("*.safetensors")):
            self._index(path)

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def __getitem__(self, name: str) -> Tensor:
        value: Tensor = self._files[name].get_tensor(name)
        return value

    def add(self, rows: Mapping[str, Tensor]) -> None:
        """Stores some rows in one file of their own."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{len(list(self.folder.glob('*.safetensors'))):06d}-{next(iter(rows))}.safetensors"
        part = path.with_suffix(f".{os.getpid()}.part")
        try:
            save_file({name: value.detach().cpu().contiguous() for name, value in rows.items()}, part)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        self._index(path)

    def _index(self, path: Path) -> None:
        file: Any = safetensors.safe_open(str(path), framework="pt")
        self._files.update(dict.fromkeys(file.keys(), file))
