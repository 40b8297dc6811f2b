"""Objectives of installed packages: found, combined, and named where they are broken. And the documented example."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from builders import batch_of, log_probs, only_known_objectives, random_model
from typer.testing import CliRunner

from unmirage.align.config import AlignConfig, parse_settings
from unmirage.align.objectives import OBJECTIVES, find, load_installed
from unmirage.align.objectives.npo import npo
from unmirage.align.signals import answer_log_probs
from unmirage.errors import UserError
from unmirage.recipes.config import Recipe
from unmirage.recipes.planning import steps_of

DOCUMENT = Path(__file__).parents[1] / "docs" / "new-objective.md"

SUM_OF_LOGS = """
from dataclasses import dataclass

from unmirage.align.objectives import objective


@dataclass(frozen=True)
class Config:
    scale: float = 1.0


@objective({name!r}, config=Config)
def loss(policy, reference, config):
    return config.scale * policy.reduce("sum")
"""

Install = Callable[[str, str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a package of one module, as pip would: (name of the package, entry point, source of the module)."""
    modules: list[str] = []

    def add(package: str, point: str, source: str) -> None:
        module = package.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(source, encoding="utf-8")
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[unmirage.objectives]\n{point} = {module}\n", encoding="utf-8")
        modules.append(module)
        importlib.invalidate_caches()

    monkeypatch.syspath_prepend(tmp_path)
    with only_known_objectives():
        yield add
    for module in modules:
        sys.modules.pop(module, None)


def test_an_objective_of_an_installed_package_is_found(install: Install) -> None:
    assert "likely" not in OBJECTIVES
    install("acme-likely", "likely", SUM_OF_LOGS.format(name="likely"))
    found = find("likely")
    config = found.config(scale=2.0)
    assert found.signal == "log_probs"
    assert not found.reads_reference(config)
    assert found.function(log_probs([[-1.0, -2.0], [-0.5]]), None, config).tolist() == [-6.0, -1.0]


def test_it_combines_with_ours_and_its_options_are_settings(install: Install) -> None:
    install("acme-likely", "likely", SUM_OF_LOGS.format(name="likely"))
    config = AlignConfig.model_validate({"forget": "likely", "retain": ["ce"], "scale": 3, "likely.weight": 0.5})
    assert [(term.objective, term.weight, term.options) for term in config.terms] == [
        ("likely", 0.5, {"scale": 3.0}),
        ("ce", 1.0, {}),
    ]


def test_it_is_listed_with_ours(install: Install) -> None:
    install("acme-likely", "likely", SUM_OF_LOGS.format(name="likely"))
    from unmirage.cli import app

    shown = CliRunner().invoke(app, ["methods"])
    assert shown.exit_code == 0
    assert "likely" in shown.stdout.rpartition("Objectives")[2]


def test_its_version_decides_what_a_recipe_trains_anew(install: Install) -> None:
    install("acme-likely", "likely", SUM_OF_LOGS.format(name="likely"))
    model = {"method": "npo", "data": "d", "settings": {"forget": "likely"}}
    data = {"d": {"file": "unlearn.json", "world": "w"}}
    recipe = Recipe.model_validate(
        {"schema": 1, "name": "x", "worlds": {"w": {}}, "data": data, "models": {"m": model}}
    )
    (trained,) = (step for step in steps_of(recipe) if step.kind == "align")
    assert trained.config["versions"] == {"likely": "acme-likely 1.0"}


def test_one_module_is_imported_once(install: Install) -> None:
    install("acme-likely", "likely", SUM_OF_LOGS.format(name="likely"))
    first = find("likely")
    load_installed()
    assert find("likely") is first


def test_an_unknown_name_lists_those_of_packages_too(install: Install) -> None:
    install("acme-likely", "likely", SUM_OF_LOGS.format(name="likely"))
    with pytest.raises(UserError, match=r"there is no objective 'likly'.*likely.*npo"):
        find("likly")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import a_module_that_nobody_has", "ModuleNotFoundError: No module named 'a_module_that_nobody_has'"),
        ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
        ("this is no Python", "SyntaxError"),
    ],
)
def test_a_package_that_cannot_be_imported_is_named(install: Install, source: str, reason: str) -> None:
    install("acme-broken", "fancy", source)
    for _ in range(2):  # nothing is remembered of the failure
        with pytest.raises(UserError, match="'fancy' of acme-broken cannot be loaded") as caught:
            find("fancy")
        assert reason in str(caught.value)
        assert "uninstall that package" in str(caught.value)


def test_a_broken_package_does_not_keep_ours_from_being_found(install: Install) -> None:
    install("acme-broken", "fancy", "raise RuntimeError('no licence')")
    assert find("npo").function is npo


def test_a_package_that_takes_our_name_is_named_and_ours_stays(install: Install) -> None:
    install("acme-clash", "npo", SUM_OF_LOGS.format(name="npo"))
    with pytest.raises(UserError, match=r"of acme-clash cannot be loaded.*already an objective named 'npo'"):
        load_installed()
    assert OBJECTIVES["npo"].function is npo


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        ("objective('odd', config=Config)(3)", "TypeError: an objective is a function, and 'odd' is int"),
        ("objective('odd', config=None)(len)", "TypeError: the configuration of an objective is a class, and that of"),
    ],
)
def test_an_objective_of_the_wrong_type_is_named(install: Install, made: str, reason: str) -> None:
    install("acme-odd", "odd", SUM_OF_LOGS.format(name="even") + f"\n{made}\n")
    with pytest.raises(UserError, match="'odd' of acme-odd cannot be loaded") as caught:
        find("odd")
    assert reason in str(caught.value)
    assert "odd" not in OBJECTIVES


def test_two_packages_of_one_name_are_told_apart(install: Install) -> None:
    install("acme-one", "twin", SUM_OF_LOGS.format(name="twin"))
    install("acme-two", "twin", SUM_OF_LOGS.format(name="twin"))
    with pytest.raises(UserError, match=r"of acme-(one|two) cannot be loaded.*already an objective named 'twin'"):
        find("twin")


def test_a_package_that_registers_nothing_gives_nothing(install: Install) -> None:
    install("acme-empty", "nothing", "")
    with pytest.raises(UserError, match="there is no objective 'nothing'"):
        find("nothing")


# --- docs/new-objective.md ----------------------------------------------------------------------


def blocks(language: str) -> list[str]:
    """The code blocks of the document in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture
def documented(install: Install) -> str:
    """Installs the package of the document as its pyproject says; gives its test."""
    (source, test), (project,) = blocks("python"), blocks("toml")
    told = tomllib.loads(project)["project"]
    ((point, module),) = told["entry-points"]["unmirage.objectives"].items()
    assert module == told["name"].replace("-", "_")
    install(told["name"], point, source)
    return test


def test_the_documented_objective_is_found_and_short(documented: str) -> None:
    assert "unlikelihood" not in OBJECTIVES
    assert find("unlikelihood").config().floor == 1e-4
    assert len(blocks("python")[0].splitlines()) <= 40


def test_the_documented_test_passes(documented: str) -> None:
    space: dict[str, object] = {}
    exec(compile(documented, str(DOCUMENT), "exec"), space)
    tests = [value for name, value in space.items() if name.startswith("test_") and callable(value)]
    assert len(tests) == 1
    for test in tests:
        test()


def test_the_documented_objective_keeps_what_the_document_asks(documented: str) -> None:
    found = find("unlikelihood")
    samples = [([1], [2, 3]), ([4], [5, 6, 7]), ([1, 1], [8])]
    together = found.function(answer_log_probs(random_model(1), batch_of(samples, padding=3)), None, found.config())
    alone = [
        found.function(answer_log_probs(random_model(1), batch_of([one])), None, found.config()) for one in samples
    ]
    assert together.shape == (3,)
    assert together.tolist() == pytest.approx([one.item() for one in alone], rel=1e-4)


def test_the_documented_command_is_a_combination(documented: str) -> None:
    words = shlex.split(blocks("sh")[0].replace("\\\n", " "))
    given = [value for flag, value in pairwise(words) if flag == "--set"]
    config = parse_settings(given)
    assert [(term.role, term.objective, term.weight) for term in config.terms] == [
        ("forget", "unlikelihood", 1.0),
        ("retain", "ce", 1.0),
        ("retain", "kl", 0.5),
    ]
    assert config.terms[0].options == {"floor": 0.01}


def test_the_table_of_signals_is_complete() -> None:
    from typing import get_args

    from unmirage.align.signals import Kind, Positions

    text = DOCUMENT.read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([\w-]+)`", text, re.MULTILINE)) == set(get_args(Kind))
    assert all(f'"{positions}"' in text for positions in get_args(Positions))
