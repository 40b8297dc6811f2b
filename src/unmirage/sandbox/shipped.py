"""What of the sandbox comes with the package: the weights of its base model."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def base_weights() -> Path:
    """The folder of the shipped base model."""
    return Path(str(files("unmirage.sandbox") / "base"))
