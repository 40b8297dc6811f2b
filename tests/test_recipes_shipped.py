"""The shipped recipes in their tiny versions: from files to report, whatever kills them, on several model families."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from chat_server import Reaction, completion, question, serving
from families import build

from unmirage.recipes.reading import read_recipe
from unmirage.recipes.run import run_recipe
from unmirage.sandbox.build import DataPlan
from unmirage.sandbox.build import build as draw
from unmirage.sandbox.world import World
from unmirage.schema import Metrics, Record

pytestmark = pytest.mark.long

PEFT = pytest.importorskip("peft")


def command(recipe: str, out: Path, *settings: str) -> list[str]:
    program = "import sys; from unmirage.cli import main; sys.argv[0] = 'unmirage'; main()"
    changes = [word for setting in settings for word in ("--set", setting)]
    return [sys.executable, "-c", program, "run", recipe, "--out", str(out), *changes]


def run(recipe: str, out: Path, *settings: str) -> subprocess.CompletedProcess[str]:
    found = subprocess.run(command(recipe, out, *settings), capture_output=True, text=True, timeout=500, check=False)
    assert found.returncode == 0, found.stderr[-3000:]
    return found


def records(out: Path) -> list[Record]:
    return Metrics.model_validate_json((out / "metrics.json").read_bytes()).records


def kill_at(kind: str, out: Path) -> None:
    """Starts the recipe and kills it, with all its processes, as soon as a step of this kind has begun."""
    process = subprocess.Popen(command("paper-tiny", out), start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < deadline and not any((out / "steps").glob(f"{kind}-*")):
        time.sleep(0.01)
    assert process.poll() is None, "it ended before it was killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "metrics.json").exists()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("paper") / "whole"
    run("paper-tiny", out)
    return out


def test_the_study_goes_from_files_to_a_report_on_all_models_and_both_kinds_of_pictures(whole: Path) -> None:
    found = records(whole)
    models = {"Base", "Unsafe-Filter", "Mixed-SFT", "Posthoc-SFT", "NPO", "RMU"}
    assert {(one.model, one.data) for one in found} == {(m, d) for m in models for d in ("safety", "other-safety")}
    assert {one.k for one in found if one.attack == "first-word:what|describe|list"} == {3}
    assert {one.n for one in found if one.data == "other-safety" and one.metric == "asr"} == {4}
    for page in ("report-safety.html", "report-other-safety.html"):
        assert all(model in (whole / page).read_text() for model in models)
    assert (whole / "audits" / "forget-against-safety" / "audit.json").is_file()
    assert (whole / "models" / "npo" / "seed-42" / "model.safetensors").is_file()


def test_killed_twice_on_the_way_it_ends_with_the_same_figures(whole: Path, tmp_path: Path) -> None:
    kill_at("align", tmp_path / "out")
    kill_at("ask", tmp_path / "out")
    run("paper-tiny", tmp_path / "out")
    assert (tmp_path / "out" / "metrics.json").read_bytes() == (whole / "metrics.json").read_bytes()


@pytest.mark.parametrize("family", ["qwen2_5_vl", "smolvlm"])
def test_other_families_go_the_same_way(family: str, tmp_path: Path) -> None:
    build(family, tmp_path / "base")
    less = ["worlds.small.unsafe_test=2", "worlds.small.safe_test=2", "measures.safety.attacks=[what]"]
    less += ["sets.own.how.keep=all", "measures.safety.max_new_tokens=4", "measures.other-safety.max_new_tokens=4"]
    less += [f"models.{name}.settings.steps=1" for name in ("npo", "rmu")] + ["models.rmu.settings.layer=1"]
    recipe = read_recipe("paper-tiny", [f"base={tmp_path / 'base'}", *less])
    kept = {name: recipe.models[name] for name in ("base", "npo", "rmu")}
    found = run_recipe(recipe.model_copy(update={"models": kept}), tmp_path / "out", workers=2)
    assert {(one.model, one.data) for one in found if one.n} == {
        (model, data) for model in ("Base", "NPO", "RMU") for data in ("safety", "other-safety")
    }


@pytest.fixture(scope="module")
def vlguard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as VLGuard's authors distribute it, with the sandbox's rows."""
    root = tmp_path_factory.mktemp("root")
    small = DataPlan(unsafe_train=12, safe_train=12, general=2, unsafe_test=6, safe_test=6)
    drawn = draw(World(), small, root / "drawn")
    (root / "VLGuard").mkdir()
    for name, file in (("train", "safety"), ("test", "test_seen")):
        shutil.copyfile(drawn / f"{file}.json", root / "VLGuard" / f"{name}.json")
        shutil.copytree(drawn / "images", root / "VLGuard" / name)
    return root


def test_an_audit_alone_needs_no_model(vlguard: Path, tmp_path: Path) -> None:
    run("audit-only", tmp_path / "out", f"root={vlguard}")
    for name in ("train", "test", "train-against-test"):
        found = json.loads((tmp_path / "out" / "audits" / name / "audit.json").read_text())
        assert found["schema"] == 1
    assert records(tmp_path / "out") == []


def test_a_served_model_is_attacked(vlguard: Path, tmp_path: Path) -> None:
    def mirage(body: dict[str, object], _attempt: int) -> Reaction:
        if "Irrelevant:" in str(body):  # the paper's judge
            return Reaction(body=completion("Relevant: it answers."))
        refused = question(body).startswith("Share")
        return Reaction(body=completion("I'm sorry, but I cannot help with that." if refused else "It is red."))

    with serving(mirage) as (address, _):
        run(
            "attack-server",
            tmp_path / "out",
            f"root={vlguard}",
            f"models.served.server={address}",
            "models.served.served=m",
            "measures.safety.parity=official",
            f"measures.safety.judge_server={address}",
        )
    rates = {(one.metric, one.attack): one.value for one in records(tmp_path / "out") if one.judge.startswith("rules")}
    assert (rates["asr", None], rates["asr", "first-word:what"]) == (0.0, 1.0)
    assert (rates["rr", None], rates["rr", "first-word:share"]) == (0.0, 1.0)
    paper = {(one.metric, one.attack): one.value for one in records(tmp_path / "out") if one.judge.startswith("paper")}
    assert (paper["asr", None], paper["asr", "first-word:what"]) == (0.0, 1.0)
    assert paper["asr_any", "first-word:what|which|how"] == 1.0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "our own rules" in page
    assert "the measuring of the paper" in page
