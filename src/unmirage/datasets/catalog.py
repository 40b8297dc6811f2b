"""What is known of each data set apart from its rows: who made it, under which terms, and how its folder looks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class About:
    """A data set as its authors distribute it.

    `page` is where it is to be had, and to be asked for where it is `gated`; nothing is ever downloaded. `licence` is
    what its authors state, "unknown" where they state none. `training` is False where they forbid to train on it.
    `rows` and `images` are the counts of a whole set by its parts, as far as they are known: {"train": 2000}.
    """

    name: str
    title: str
    paper: str
    page: str
    licence: str
    gated: bool | None = None
    training: bool = True
    purpose: str = "safety"
    rows: dict[str, int] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a data set that was found in a folder: its file, and the folder of its pictures."""

    format: str
    split: str
    path: Path
    images: Path | None = None


Finder = Callable[[Path], list[Part]]
"""Finds the parts of one data set in a folder, by the names and the first rows of its files; empty where it is not."""
