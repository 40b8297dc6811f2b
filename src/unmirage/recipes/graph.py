"""Steps that depend on one another, each named by what decides its result.

A step's key is the hash of its kind, its settings, the content of its input files, and the keys of the steps it needs.
So a step whose key has a folder that says "done" need not be done again, and a changed setting changes the keys of
exactly those steps that depend on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from unmirage.runs import digest_file
from unmirage.schema import content_hash

Kind = Literal["draw", "sets", "audit", "align", "attack", "ask", "judge"]
DONE = "done.json"
VERSION = 1
"""Part of every key: raised where a step of the same settings would give another result."""


@dataclass(frozen=True, slots=True)
class Step:
    """One piece of work.

    `config` is JSON-able; `files` are inputs that lie outside the run, files or folders; `title` is for people.
    """

    name: str
    kind: Kind
    config: dict[str, Any]
    needs: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    title: str = ""


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
    for step in steps:
        inputs = [fingerprint(path) for path in step.files]
        key = content_hash(VERSION, step.kind, step.config, inputs, [found[name].key for name in step.needs])[:12]
        found[step.name] = Planned(step, key, out / "steps" / f"{step.name.replace('/', '-')}-{key}")
    return found


@cache
def fingerprint(path: Path) -> str:
    """Digest of a file's content; of a checkpoint what decides its answers; of another folder names and sizes.

    A folder of pictures may hold a million: their names and sizes are taken, not their pixels, which the digests of
    the training and asking runs hold.
    """
    if not path.is_dir():
        return digest_file(path)
    if (path / "config.json").is_file() or (path / "adapter_config.json").is_file():
        from unmirage.backends.checkpoint import revision

        return revision(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return content_hash([[file.relative_to(path).as_posix(), file.stat().st_size] for file in files])
