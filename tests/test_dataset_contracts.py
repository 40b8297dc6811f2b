"""The sets as their authors distribute them: UNMIRAGE_DATA names a folder with a subfolder for each; else skipped.

These are the training and utility sets; the others' contracts stand beside their own tests.
"""

from __future__ import annotations

import os
from pathlib import Path

import dataset_fixtures_c as made
import pytest

from unmirage.datasets import about, load
from unmirage.datasets.checking import Options, check, recognise

REAL = Path(os.environ.get("UNMIRAGE_DATA", "/nonexistent"))


@pytest.mark.parametrize("name", made.SETS)
def test_the_invented_copy_is_recognised_as_its_set_and_reads_without_a_problem(name: str, tmp_path: Path) -> None:
    parts = recognise(made.SETS[name](tmp_path / "set"))
    assert parts
    for part in parts:
        known = about(part.format)
        assert known is not None
        assert known.name == name
        options = {"split": part.split, "images": part.images, "strict": True, "verify_images": True}
        assert load(part.path, format=part.format, **options).queries  # type: ignore[arg-type]


@pytest.mark.parametrize("name", made.SETS)
def test_the_real_set_is_as_it_is_described(name: str) -> None:
    folder = REAL / name
    if not folder.is_dir():
        pytest.skip(f"UNMIRAGE_DATA names no folder with a subfolder {name}")
    parts = recognise(folder)
    assert parts, f"nothing of {name} was recognised"
    report = check(folder, parts, Options())
    for part in report.parts:
        assert part.error is None
        assert part.rows == part.expected or part.expected is None
        assert not [warning for warning in part.warnings if "not known" in warning]
        assert part.harmful + part.harmless > 0
