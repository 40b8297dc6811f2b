"""Two processes that train together give what one gives with batches twice as large; only the first writes and speaks.

Each launcher is started once for all that is to be seen of it: processes start slowly.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file

from unmirage import cli
from unmirage.sandbox.build import DataPlan, build
from unmirage.sandbox.world import World

pytestmark = pytest.mark.long

RECIPES = Path(__file__).parents[1] / "recipes" / "accelerate"
SPREAD = Path(__file__).with_name("spread.py")
TORCHRUN = ("torch.distributed.run", "--nnodes=1", "--nproc-per-node=2", "--local-addr=127.0.0.1")
TORCHRUN += ("--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0")
FSDP2 = ("accelerate.commands.launch", f"--config_file={RECIPES / 'fsdp2.yaml'}", "--num_processes=2")
COMMON = ("steps=3", "lr=1e-3", "weight_decay=0.01", "warmup=0", "save_steps=2")
METHODS = {
    "npo": ("npo", *COMMON),
    "rmu-lora": ("rmu", *COMMON, "layer=3", "coefficient=5", "tune=lora", "lora_rank=4"),
    # The forget term ends at layer 1, the retain term at the head: each forward pass reaches other parameters.
    "mixed": ("rmu", *COMMON, "layer=1", "coefficient=5", "retain=ce", "accumulation=2", "checkpointing=true"),
}


@dataclass(frozen=True)
class Job:
    """The files of one small job."""

    model: Path
    data: Path

    def arguments(self, method: str, batch_size: int, out: Path) -> list[str]:
        name, *settings = METHODS[method]
        given = [f"--set={setting}" for setting in (*settings, f"batch_size={batch_size}")]
        files = [self.model, self.data / "unlearn.json", "--general", self.data / "retain.json"]
        return ["align", *map(str, files), "--method", name, "--out", str(out), *given]


@pytest.fixture(scope="module")
def world(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    plan = DataPlan(unsafe_train=8, safe_train=8, general=4, unsafe_test=3, safe_test=3)
    return Job(tiny_folder, build(World(), plan, tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="module")
def alone(world: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of one process, with the whole batch."""
    folder = tmp_path_factory.mktemp("alone")
    for method in METHODS:
        arguments = world.arguments(method, 4, folder / method)
        assert cli.run(lambda given=arguments: cli.app(given, prog_name="unmirage", standalone_mode=False)) == 0
    return folder


def launch(launcher: tuple[str, ...], *script: object) -> subprocess.CompletedProcess[str]:
    """Starts two processes that meet on this machine alone."""
    settings = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ACCELERATE", "FSDP"))}
    command = [sys.executable, "-m", *launcher, *map(str, script)]
    done = subprocess.run(command, env=environment | settings, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done


def run(folder: Path, launcher: tuple[str, ...], runs: list[dict[str, Any]], *options: str) -> None:
    for one in runs:
        one["name"] = str(folder / one["name"])
    jobs = folder / "jobs.json"
    jobs.write_text(json.dumps(runs))
    launch(launcher, SPREAD, jobs, *options)


def said(folder: Path, name: str) -> list[dict[str, Any]]:
    """What each of the two processes said."""
    return [json.loads((folder / f"{name}.{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def ddp(world: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ddp")
    whole = [{"name": method, "arguments": world.arguments(method, 2, folder / method)} for method in METHODS]
    cut = world.arguments("npo", 2, folder / "cut")
    other = [
        {"name": "stopped", "arguments": cut, "stop": 2},
        {"name": "resumed", "arguments": cut},
        {"name": "done", "arguments": cut},
        {"name": "refused", "arguments": [*cut, "--set=seed=7"]},
        {"name": "poisoned", "arguments": world.arguments("npo", 2, folder / "poison"), "poison": 1},
    ]
    run(folder, TORCHRUN, [*whole, *other])
    return folder


@pytest.fixture(scope="module")
def fsdp2(world: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fsdp2")
    runs: list[dict[str, Any]] = []
    for method in ("npo", "rmu-lora"):
        arguments = world.arguments(method, 2, folder / method)
        runs += [
            {"name": f"{method}-stopped", "arguments": arguments, "stop": 2},
            {"name": method, "arguments": arguments},
        ]
    runs.append({"name": "mixed", "arguments": world.arguments("mixed", 2, folder / "mixed")})
    run(folder, FSDP2, runs, "fsdp2")
    return folder


def compare(one: Path, two: Path, start: Path) -> None:
    """Same weights up to the order of sums, which Adam's first steps magnify; same losses where both logged all."""
    before, single, double = (load_file(folder / "model.safetensors") for folder in (start, one, two))
    assert single.keys() == double.keys() == before.keys()
    moved = max((single[name] - before[name]).abs().max().item() for name in single)
    apart = max((single[name] - double[name]).abs().max().item() for name in single)
    assert moved > 1e-3
    assert apart < 1e-5
    assert {value.dtype for value in double.values()} == {torch.float32}


def losses(folder: Path) -> dict[str, float]:
    last = json.loads((folder / "training.json").read_text())["history"][-1]
    return {name: value for name, value in last.items() if "/" in name or name == "train_loss"}


@pytest.mark.parametrize("method", METHODS)
def test_ddp_with_two_processes_equals_one(alone: Path, ddp: Path, world: Job, method: str) -> None:
    compare(alone / method, ddp / method, world.model)
    assert losses(ddp / method) == pytest.approx(losses(alone / method), rel=1e-5)
    assert len(losses(ddp / method)) == 3


@pytest.mark.parametrize("method", METHODS)
def test_fsdp2_with_two_processes_equals_one(alone: Path, fsdp2: Path, world: Job, method: str) -> None:
    compare(alone / method, fsdp2 / method, world.model)
    assert said(fsdp2, method)[0]["kinds"] == said(fsdp2, method)[1]["kinds"] == ["DTensor"], "nothing was sharded"
    if method == "mixed":
        assert losses(fsdp2 / method) == pytest.approx(losses(alone / method), rel=1e-5)
    else:
        assert [one["code"] for one in said(fsdp2, f"{method}-stopped")] == [130, 130]


def test_ddp_goes_on_after_an_interruption(ddp: Path, world: Job) -> None:
    assert [one["code"] for one in said(ddp, "stopped")] == [130, 130]
    assert [one["code"] for one in said(ddp, "resumed")] == [0, 0]
    compare(ddp / "npo", ddp / "cut", world.model)
    first, _ = said(ddp, "done")
    assert first["kinds"] == [], "a run that is done is not trained again"


def test_only_the_first_process_speaks(ddp: Path, fsdp2: Path) -> None:
    for folder, name in ((ddp, "npo"), (fsdp2, "npo"), (ddp, "done")):
        first, second = said(folder, name)
        assert first["out"].startswith("Checkpoint: ")
        assert second["out"] == second["err"] == ""
        assert first["code"] == second["code"] == 0


def test_how_many_processes_there_were_is_part_of_the_run(alone: Path, ddp: Path) -> None:
    inputs = [json.loads((folder / "npo" / "run.json").read_text())["inputs"] for folder in (alone, ddp)]
    assert inputs[1] == {**inputs[0], "processes": "2"}


def test_a_refusal_of_the_first_process_ends_all(ddp: Path) -> None:
    first, second = said(ddp, "refused")
    assert first["code"] == second["code"] == 2
    assert "seed is 0 there and 7 here" in first["err"]
    assert second["err"].startswith("process 1: error: "), "said only where the first has not ended it"


def test_a_loss_that_is_no_number_in_one_process_ends_all_with_its_rows(ddp: Path) -> None:
    first, second = said(ddp, "poisoned")
    assert first["code"] == second["code"] == 2
    assert "step 1: the loss is not a finite number" in first["err"]
    assert "Rows forget: " in first["err"]
    assert first["err"].splitlines()[-1] in second["err"], "the rows are those of the other process"


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        (*TORCHRUN, "-m"),
        ("accelerate.commands.launch", f"--config_file={RECIPES / 'ddp.yaml'}", "-m"),
    ],
)
def test_the_program_starts_unchanged_under_each_launcher(
    world: Job, alone: Path, tmp_path: Path, launcher: tuple[str, ...]
) -> None:
    done = launch(launcher, "unmirage", *world.arguments("npo", 2, tmp_path / "out"))
    assert done.stdout == f"Checkpoint: {tmp_path / 'out'}\n"
    compare(alone / "npo", tmp_path / "out", world.model)


# --- accelerate's files -----------------------------------------------------------------------


def kinds() -> dict[str, str]:
    return {"ddp": "MULTI_GPU", "fsdp2": "FSDP", "multi_node": "MULTI_GPU"} | {
        f"deepspeed_zero{stage}": "DEEPSPEED" for stage in (2, 3)
    }


@pytest.mark.parametrize("name", kinds())
def test_each_recipe_is_read_by_accelerate(name: str) -> None:
    path = RECIPES / f"{name}.yaml"
    found = load_config_from_file(str(path))
    assert found.distributed_type == kinds()[name]
    assert found.num_processes == (16 if name == "multi_node" else 2)
    assert found.num_machines == (2 if name == "multi_node" else 1)
    assert found.mixed_precision == "no"
    written = yaml.safe_load(path.read_text())
    assert set(written) <= set(vars(found)), "accelerate knows every key"
    assert f"recipes/accelerate/{name}.yaml" in path.read_text(), "a recipe says how it is started"


@pytest.mark.parametrize("name", kinds())
def test_each_recipe_gives_the_launcher_its_settings(name: str) -> None:
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    config = f"--config_file={RECIPES / f'{name}.yaml'}"
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args([config, "-m", "unmirage"]))
    assert (arguments.use_fsdp, arguments.use_deepspeed) == (name == "fsdp2", name.startswith("deepspeed"))
    if name == "fsdp2":
        assert (arguments.fsdp_version, arguments.fsdp_auto_wrap_policy) == (2, "TRANSFORMER_BASED_WRAP")
        assert arguments.fsdp_cpu_ram_efficient_loading is False
    if arguments.use_deepspeed:
        assert arguments.zero_stage == int(name[-1])
        assert arguments.gradient_accumulation_steps == "auto"


def test_every_recipe_is_tested_and_documented() -> None:
    names = {path.stem for path in RECIPES.glob("*.yaml")}
    assert names == set(kinds())
    guide = (RECIPES.parents[1] / "docs" / "training.md").read_text()
    assert all(f"{name}.yaml" in guide for name in names)


def test_the_first_version_of_fsdp_is_refused(
    world: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "1")
    arguments = world.arguments("npo", 2, tmp_path / "out")
    assert cli.run(lambda: cli.app(arguments, prog_name="unmirage", standalone_mode=False)) == 2
    assert "fsdp_version: 2" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# --- how a process ends -----------------------------------------------------------------------

ENDING = """
import atexit, torch
torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
network = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 2))
network(torch.ones(1, 2)).sum().backward()


class Closing:
    def __del__(self):
        print("closed by the interpreter")


kept = Closing()  # nothing but the closing interpreter lets go of it
atexit.register(print, "registered")
print("said", end=" ")
import unmirage.align.processes, unmirage.cli
unmirage.cli.run = lambda command: CODE
unmirage.cli.main()
"""


@pytest.mark.parametrize("code", [0, 2, 130])
@pytest.mark.parametrize("joined", [True, False])
def test_a_process_that_had_joined_others_ends_before_the_interpreter_closes(code: int, joined: bool) -> None:
    script = ENDING.replace("CODE", str(code))
    if not joined:
        script = re.sub(r"^(torch\.dist|network).*$", "", script, flags=re.M)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code
    assert done.stdout == "said registered\n" + ("" if joined else "closed by the interpreter\n")
