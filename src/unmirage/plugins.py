"""Parts by name that installed packages may add to, through entry points: how they are registered, loaded and refused.

An entry point names a module, which registers its parts when it is imported. What is wrong with one is told in one
sentence with the package that it is of.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from types import ModuleType
from typing import Any, TypeVar

from unmirage.errors import UserError

Part = TypeVar("Part")


def register(parts: dict[str, Part], what: str, name: str, part: Part) -> None:
    """Adds a part under a name; raises ValueError where the name is taken. `what` is a noun with its article."""
    if name in parts:
        raise ValueError(f"there is already {what} named {name!r}")
    parts[name] = part


def check_kinds(what: str, name: str, function: Any, config: Any, base: type[Any] = object) -> None:
    """Raises TypeError where the function of a part cannot be called, or its configuration is no class of `base`."""
    if not callable(function):
        raise TypeError(f"{what} is a function, and {name!r} is {type(function).__name__}")
    if not (isinstance(config, type) and issubclass(config, base)):
        kind = "a class" if base is object else f"a class derived from {base.__name__}"
        raise TypeError(f"the configuration of {what} is {kind}, and that of {name!r} is {config!r}")


def import_all(package: ModuleType) -> None:
    """Imports every module of one of our own packages; each registers itself."""
    for module in iter_modules(package.__path__):
        import_module(f"{package.__name__}.{module.name}")


def load_installed(group: str, noun: str) -> None:
    """Imports what installed packages offer in an entry-point group; raises UserError naming one that cannot be.

    A caller remembers success alone, so that the fault is told again the next time.
    """
    for point in entry_points(group=group):
        try:
            point.load()
        except Exception as error:
            owner = point.dist.name if point.dist else "a package"
            raise UserError(
                f"the {noun} {point.name!r} of {owner} cannot be loaded ({type(error).__name__}: {error}); "
                "repair or uninstall that package."
            ) from error


def version_of(group: str, function: Any) -> str | None:
    """Name and version of the package that offers a part in an entry-point group; None for parts of our own."""
    package = getattr(function, "__module__", "").partition(".")[0]
    owners = (point.dist for point in entry_points(group=group) if point.module.partition(".")[0] == package)
    return next((f"{owner.name} {owner.version}" for owner in owners if owner), None)


def find(parts: Mapping[str, Part], name: str, noun: str, plural: str) -> Part:
    """The part of that name; raises UserError, which lists all names, where there is none."""
    if name not in parts:
        raise UserError(f"there is no {noun} {name!r}; the {plural} are {', '.join(sorted(parts))}.")
    return parts[name]
