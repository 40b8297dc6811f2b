"""Which packages are there, in which version, against what this package asks for."""

from __future__ import annotations

import importlib
import platform
import re
import sys
from dataclasses import dataclass
from importlib import metadata

from unmirage.doctor.finding import Section

_FOR = {
    "torch": "models",
    "transformers": "models",
    "accelerate": "training",
    "httpx": "servers",
    "peft": "LoRA adapters; unmirage[lora]",
    "bitsandbytes": "training in 4 bits; unmirage[qlora]",
    "vllm": "the backend vllm; unmirage[vllm]",
}
"""What each is for; those with an extra are optional."""
_PYTHON = (3, 11)
_VISION_HINT = "install the build that belongs to your torch, or uninstall it"


@dataclass(frozen=True)
class Package:
    """A package that is asked for. `floor`: the lowest version that will do; `version`: what is there, if anything."""

    name: str
    what_for: str
    floor: str
    version: str | None

    @property
    def is_optional(self) -> bool:
        """Whether it belongs to an extra."""
        return "unmirage[" in self.what_for

    @property
    def is_old(self) -> bool:
        """Whether what is there is below the floor."""
        return self.version is not None and numbers(self.version) < numbers(self.floor)


def packages() -> list[Package]:
    """The packages that matter for models and servers; floors from the installed package's own requirements."""
    floors = _floors(metadata.requires("unmirage") or [])
    return [Package(name, what_for, floors.get(name, "0"), version_of(name)) for name, what_for in _FOR.items()]


def _floors(requirements: list[str]) -> dict[str, str]:
    """Names with the version after `>=`; the first counts, so an extra does not lower what everybody needs."""
    found: dict[str, str] = {}
    for requirement in requirements:
        if match := re.match(r"([\w.-]+)(?:\[[^]]*\])?\s*>=\s*([\w.]+)", requirement):
            found.setdefault(match[1].lower(), match[2])
    return found


def numbers(version: str) -> tuple[int, ...]:
    """The release number of a version: 2.13.0 of 2.13.0+cpu or of 2.13.0.dev1; zeros at its end do not count."""
    match = re.match(r"v?(\d+(?:\.\d+)*)", version)
    parts = [int(part) for part in match[1].split(".")] if match else []
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def version_of(name: str) -> str | None:
    """The installed version; None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def check_packages() -> Section:
    """Python, packages, and torchvision, whose wrong build breaks what works without it."""
    section = Section("Packages")
    section.ok(f"python {platform.python_version()} on {platform.system()} {platform.machine()}")
    if sys.version_info < _PYTHON:
        section.problem("python 3.11 or newer is needed")
    for package in packages():
        _add(section, package)
    _add_torchvision(section)
    return section


def _add(section: Section, package: Package) -> None:
    if package.version is None:
        said = f"{package.name} is not installed: {package.what_for}"
        (section.note if package.is_optional else section.problem)(said)
    elif package.is_old:
        section.problem(
            f"{package.name} {package.version} is too old: {package.floor} or newer is needed ({package.what_for})"
        )
    else:
        least = f"at least {package.floor}; " if package.floor != "0" else ""
        section.ok(f"{package.name} {package.version} ({least}{package.what_for})")


def _add_torchvision(section: Section) -> None:
    version = version_of("torchvision")
    if version is None:
        section.note(
            "torchvision is not installed: processors of some model families need it (Qwen-VL, LLaVA-OneVision, "
            "InternVL);\nif yours does, install the build that belongs to your torch"
        )
        return
    try:
        importlib.import_module("torchvision")
    except Exception as error:  # of a build for another torch: RuntimeError, OSError or ImportError
        reason = str(error).strip().split("\n")[0]
        section.problem(f"torchvision {version} cannot be imported ({reason});\n{_VISION_HINT}")
        return
    section.ok(f"torchvision {version} can be imported (processors of some model families)")
