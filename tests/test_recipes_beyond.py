"""The study of repairs in miniature: a part of it first, then all, and figures that say what they are of."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from unmirage.recipes.graph import planned
from unmirage.recipes.planning import is_judged, steps_of
from unmirage.recipes.reading import read_recipe
from unmirage.schema import Metrics, Record

pytestmark = pytest.mark.long


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = "import sys; from unmirage.cli import main; sys.argv[0] = 'unmirage'; main()"
    command = [sys.executable, "-c", program, "run", *map(str, arguments)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert found.returncode == 0, found.stderr[-3000:]
    return found


def records(out: Path) -> list[Record]:
    return Metrics.model_validate_json((out / "metrics.json").read_bytes()).records


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, list[Record], str]:
    """The run folder; what a run of two models alone said, its records and its page."""
    out = tmp_path_factory.mktemp("beyond") / "out"
    some = ("--only", "judge/safety/mixed-sft-*", "--only", "judge/safety/base/*")
    told = run("beyond-tiny", "--out", out, *some, "--set", "pages=true")
    return out, told.stdout, records(out), (out / "report-safety.html").read_text()


@pytest.fixture(scope="module")
def whole(part: tuple[Path, str, list[Record], str]) -> tuple[Path, float]:
    """The same folder, gone on with to the end, and when the first part of it was made."""
    out = part[0]
    made = next((out / "steps").glob("align-mixed-sft-1-*/done.json")).stat().st_mtime_ns
    run("beyond-tiny", "--out", out)
    return out, made


def test_a_part_of_it_has_figures_and_says_what_is_missing(part: tuple[Path, str, list[Record], str]) -> None:
    _, told, found, page = part
    assert {one.model for one in found} == {"Base", "Mixed-SFT"}
    assert re.search(r"Missing: \d+ of \d+ evaluations \(.*, \.\.\.\); all figures are of the others", told, re.DOTALL)
    models = len(read_recipe("beyond-tiny").asked("safety"))
    assert f"(incomplete: {models - 2} of {models} evaluations are still to be made)" in page


def test_the_rest_goes_on_from_there_and_nothing_is_missing(whole: tuple[Path, float]) -> None:
    out, made = whole
    assert next((out / "steps").glob("align-mixed-sft-1-*/done.json")).stat().st_mtime_ns == made
    steps = json.loads((out / "steps.json").read_text())
    assert not [name for name, one in steps.items() if "done" in one]
    assert not list(out.glob("*.html")), "pages of an earlier command go"
    assert "0 of" in run("beyond-tiny", "--out", out, "--dry-run").stdout


def test_every_route_every_dose_and_every_stress_has_figures(whole: tuple[Path, float]) -> None:
    recipe = read_recipe("beyond-tiny")
    found = records(whole[0])
    assert {(one.data, one.model) for one in found} == {
        (measure, recipe.label(name, 0)) for measure in recipe.measures for name in recipe.asked(measure)
    }
    assert {"asr_worst_case", "rr_worst_case"} <= {one.metric for one in found if one.data == "safety"}
    assert {one.stress for one in found} == {None, *recipe.stresses}
    assert {one.axes["rho"] for one in found if one.model == "Mixed-SFT"} == {0, 1}
    assert {one.axes.get("retain") for one in found if one.model == "NPO"} == {None, "mended", "confounded"}
    assert {one.axes.get("salience") for one in found if one.data == "dose-plain"} == {"plain"}


def test_what_one_part_of_the_study_measures_is_not_what_another_does(whole: tuple[Path, float]) -> None:
    out, _ = whole
    recipe = read_recipe("beyond-tiny")
    plan = planned(steps_of(recipe), out)
    for name, stress in recipe.stresses.items():
        (folder,) = (
            one.folder for step, one in plan.items() if step.startswith("stress/") and f"+{name}/repair-1/" in step
        )
        assert (folder / "metrics.json").exists() != is_judged(stress)
    assert (out / "stressed" / "lasting+4-bit" / "repair-1" / "seed-0").is_dir()
    assert (out / "evaluations" / "lasting+4-bit" / "repair-1" / "seed-0" / "metrics.json").is_file()
    assert (out / "models" / "salient-base-plain" / "config.json").is_file()


def test_the_study_and_its_miniature_have_the_same_parts() -> None:
    large, small = read_recipe("beyond"), read_recipe("beyond-tiny")
    parts = ("stresses", "attacks", "searches", "grid")
    assert all(list(getattr(large, part)) == list(getattr(small, part)) for part in parts)
    assert {model.method for model in large.models.values()} == {model.method for model in small.models.values()}
    assert large.measures.keys() >= small.measures.keys() >= {"safety", "dose", "lasting", "knowledge"}


SMALL = """\
schema: 1
name: small
worlds: {small: {unsafe_train: 6, safe_train: 6, general: 12, unsafe_test: 3, safe_test: 3}}
data:
  unlearn: {file: unlearn.json, world: small}
  retain: {file: retain.json, world: small, format: llava}
  seen: {file: test_seen.json, world: small, split: seen}
models:
  base: {}
  npo: {method: npo, data: unlearn, general: retain, settings: {steps: 1, batch_size: 4}}
measures:
  safety: {data: [seen], judges: [truth], max_new_tokens: 4}
"""


def test_shares_made_apart_are_put_together_by_copying_their_steps(tmp_path: Path) -> None:
    recipe, out = tmp_path / "small.yaml", tmp_path / "part-1"
    recipe.write_text(SMALL)
    for number, model in ((1, "npo"), (2, "base")):
        part = tmp_path / f"part-{number}"
        run(recipe, "--out", part, "--shard", f"{number}/2")
        assert {one.model for one in records(part)} == {model}
    shutil.copytree(tmp_path / "part-2" / "steps", out / "steps", dirs_exist_ok=True)
    assert "0 of 6 steps to do" in run(recipe, "--out", out, "--dry-run").stdout
    run(recipe, "--out", out)
    assert {one.model for one in records(out)} == {"base", "npo"}
