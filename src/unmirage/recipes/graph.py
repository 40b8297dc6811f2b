"""Steps that depend on one another, each named by what decides its result.

A step's key is the hash of its kind, its settings, the content of its input files, and the keys of the steps it needs.
So a step whose key has a folder that says "done" need not be done again, and a changed setting changes the keys of
exactly those steps that depend on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from unmirage.runs import digest_file
from unmirage.schema import content_hash

Kind = Literal["draw", "pretrain", "sets", "audit", "align", "attack", "ask", "stress", "search", "judge"]
DONE = "done.json"
PICTURES = frozenset({".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"})
VERSION = 1
"""Part of every key: raised where a step of the same settings would give another result."""


@dataclass(frozen=True, slots=True)
class Step:
    """One piece of work.

    `config` is JSON-able; `files` are inputs that lie outside the run, files or folders; `title` is for people. `about`
    says of which model, measure, stress it is, by the recipe's names; like the title it is no part of the key.
    """

    name: str
    kind: Kind
    config: dict[str, Any]
    needs: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    title: str = ""
    about: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Planned:
    """A step with its key, and the folder that holds what it makes."""

    step: Step
    key: str
    folder: Path

    @property
    def done(self) -> bool:
        """Whether it was done to its end."""
        return (self.folder / DONE).exists()


def planned(steps: Sequence[Step], out: Path) -> dict[str, Planned]:
    """Every step with its key, by name; the steps must come after those they need.

    Raises UserError where an input file cannot be read.
    """
    found: dict[str, Planned] = {}
    prints: dict[Path, str] = {}  # of this plan alone: a file may change before the next one
    for step in steps:
        for path in step.files:
            prints[path] = prints.get(path) or fingerprint(path)
        inputs = [prints[path] for path in step.files]
        key = content_hash(VERSION, step.kind, step.config, inputs, [found[name].key for name in step.needs])[:12]
        found[step.name] = Planned(step, key, out / "steps" / f"{step.name.replace('/', '-')}-{key}")
    return found


def fingerprint(path: Path) -> str:
    """Digest of a file's content; of a checkpoint what decides its answers; of another folder all that is in it.

    A folder may hold a million pictures: of these names and sizes are taken, not their pixels, which the digests of
    the training and asking runs hold. Raises UserError where a file cannot be read.
    """
    if not path.is_dir():
        return digest_file(path)
    if (path / "config.json").is_file() or (path / "adapter_config.json").is_file():
        from unmirage.backends.checkpoint import revision

        return revision(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return content_hash([[file.relative_to(path).as_posix(), _content(file)] for file in files])


def _content(file: Path) -> str | int:
    return file.stat().st_size if file.suffix.lower() in PICTURES else digest_file(file)
