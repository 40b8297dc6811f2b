"""Repairs in two processes (gloo) that train together end as in one: pairs, cues, group weights, rows taken oftener."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from unmirage import cli
from unmirage.sandbox.build import DataPlan, build
from unmirage.sandbox.world import World

pytestmark = pytest.mark.long

SPREAD = Path(__file__).with_name("spread.py")
FSDP2 = Path(__file__).parents[1] / "recipes" / "accelerate" / "fsdp2.yaml"
LAUNCHERS = {
    "ddp": ("torch.distributed.run", "--nnodes=1", "--nproc-per-node=2", "--local-addr=127.0.0.1",
            "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0"),
    "fsdp2": ("accelerate.commands.launch", f"--config_file={FSDP2}", "--num_processes=2"),
}  # fmt: skip
COMMON = ("steps=3", "lr=1e-3", "warmup=0", "save_steps=2", "refusal_words=Share", "compliance_words=What")
RUNS = {
    "pairs": ("twin-sft", "pairs=invariance,twin-hidden", "layer=2", "twin_rows=8"),
    "cue-direction": ("cue-direction", "layer=2"),
    "group-dro": ("group-dro", "ce.rate=0.5", "accumulation=2"),
    "jtt": ("jtt",),
}
NEAR = {"cue-direction": 2e-4}
"""What the order of sums comes to behind Adam's first steps, where gradients are nearly 0; each process with a
direction of its own ends 4e-3 away.
"""
CPUS_ONLY = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    plan = DataPlan(unsafe_train=8, safe_train=8, general=4, unsafe_test=3, safe_test=3)
    return build(World(), plan, tmp_path_factory.mktemp("data")) / "safety.json"


def arguments(model: Path, data: Path, name: str, batch_size: int, out: Path) -> list[str]:
    method, *settings = RUNS[name]
    given = [f"--set={setting}" for setting in (*COMMON, *settings, f"batch_size={batch_size}")]
    return ["align", str(model), str(data), "--method", method, "--out", str(out), *given]


@pytest.fixture(scope="module")
def alone(tiny_folder: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of one process, with the whole batch."""
    folder = tmp_path_factory.mktemp("alone")
    for name in RUNS:
        given = arguments(tiny_folder, data, name, 4, folder / name)
        assert cli.run(lambda given=given: cli.app(given, prog_name="unmirage", standalone_mode=False)) == 0
    return folder


@pytest.fixture(scope="module", params=LAUNCHERS)
def spread(request: Any, tiny_folder: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in two processes with half the batch each; interrupted after its second step and taken up again."""
    folder = tmp_path_factory.mktemp(request.param)
    jobs = []
    for name in RUNS:
        given = arguments(tiny_folder, data, name, 2, folder / name)
        jobs += [{"name": str(folder / f"{name}-cut"), "arguments": given, "stop": 2}]
        jobs += [{"name": str(folder / f"{name}-on"), "arguments": given}]
    (folder / "jobs.json").write_text(json.dumps(jobs))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ACCELERATE", "FSDP"))}
    script = [str(SPREAD), str(folder / "jobs.json"), *(["fsdp2"] if request.param == "fsdp2" else [])]
    command = [sys.executable, "-m", *LAUNCHERS[request.param], *script]
    done = subprocess.run(
        command, env=environment | CPUS_ONLY, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_that_are_interrupted_end_as_one_does(
    spread: Path, alone: Path, tiny_folder: Path, name: str
) -> None:
    codes = [json.loads((spread / f"{name}-{part}.0.json").read_text())["code"] for part in ("cut", "on")]
    assert codes == [130, 0]
    start, one, two = (load_file(folder / "model.safetensors") for folder in (tiny_folder, alone / name, spread / name))
    assert max((one[key] - start[key]).abs().max().item() for key in one) > 1e-3
    assert max((one[key] - two[key]).abs().max().item() for key in one) < NEAR.get(name, 1e-5)
    said = [json.loads((folder / name / "training.json").read_text()) for folder in (alone, spread)]
    assert said[0]["notes"] == said[1]["notes"]
    assert said[0]["twins"] == said[1]["twins"]
    weighed = [{key: value for key, value in one["history"][-1].items() if key.startswith("weight/")} for one in said]
    assert weighed[0] == pytest.approx(weighed[1], rel=1e-4)
    assert bool(weighed[0]) == (name == "group-dro")
