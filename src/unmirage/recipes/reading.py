"""Reads a recipe: a YAML file, single values set on the command line, errors that name key and line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from unmirage.errors import UserError
from unmirage.recipes.config import Recipe
from unmirage.recipes.grid import Expanded, expand
from unmirage.yaml_text import read_yaml

Key = tuple[str | int, ...]
MOST_VALUES = 100_000
"""Most values of a recipe with all anchors written out: a few lines of anchors could else stand for billions."""


def shipped() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    folder = Path(str(files("unmirage.recipes") / "shipped"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def read_recipe(given: str | Path, settings: Sequence[str] = ()) -> Recipe:
    """The recipe in a file, or the shipped one of that name, with `a.b=value` settings put in.

    Raises UserError naming file, line and key of the first thing that is wrong.
    """
    path = find(given)
    document = _parse(path)
    values = document.values
    for setting in settings:
        _put(values, setting)
    try:
        expanded = expand(values)
    except ValueError as error:
        raise _wrong((), str(error), document, settings) from error
    return _checked(expanded.values, replace(document, expanded=expanded), settings)


def find(given: str | Path) -> Path:
    """The file of a recipe, or of the shipped one of that name; UserError where there is none."""
    if Path(given).is_file():
        return Path(given)
    if found := shipped().get(str(given)):
        return found
    raise UserError(f"there is no recipe {given}; give a YAML file, or one of {', '.join(shipped())}.")


@dataclass(frozen=True)
class _Document:
    """The content of a YAML file, and the line at which each key stands, counting from 1."""

    path: Path
    values: dict[str, Any]
    lines: Mapping[Key, int] = field(default_factory=dict)
    expanded: Expanded | None = None

    def line(self, key: Key) -> int | None:
        """The line of a key, or of the nearest one above it that stands in the file."""
        key = self.expanded.origin(key) if self.expanded else key
        while key and key not in self.lines:
            key = key[:-1]
        return self.lines.get(key)


def _parse(path: Path) -> _Document:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: the recipe cannot be read ({error}).") from error
    try:
        # Anchors are written out: a setting at one of two places that share a value must not change the other.
        values = _written_out(read_yaml(text), _Budget())
        lines = dict(_lines(yaml.compose(text, yaml.SafeLoader), (), path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}; correct it.") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: a recipe is written as `name: value`, one a line.")
    return _Document(path, values, lines)


@dataclass
class _Budget:
    """How many values may still be written out."""

    left: int = MOST_VALUES

    def take(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise ValueError(f"it has more than {MOST_VALUES:,} values, with its anchors written out")


def _written_out(value: Any, budget: _Budget) -> Any:
    """The same values, none of them shared; ValueError where they are too many or hold themselves."""
    budget.take()
    if isinstance(value, dict):
        return {key: _written_out(below, budget) for key, below in value.items()}
    if isinstance(value, list):
        return [_written_out(below, budget) for below in value]
    return value


def _lines(node: Any, key: Key, path: Path) -> Iterator[tuple[Key, int]]:
    """Keys and their lines; UserError for a key that stands twice, as the first one would be lost."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for name, value in node.value:
            line = name.start_mark.line + 1
            if name.value in seen:
                raise UserError(f"{path}, line {line}: {name.value!r} stands there twice; leave one of them out.")
            seen.add(name.value)
            yield (*key, name.value), line
            yield from _lines(value, (*key, name.value), path)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield (*key, number), value.start_mark.line + 1
            yield from _lines(value, (*key, number), path)


def _put(values: dict[str, Any], setting: str) -> None:
    """Sets one value, given as `a.b.c=value` with the value in YAML."""
    name, sign, text = setting.partition("=")
    if not sign or not name.strip("."):
        raise UserError(f"--set {setting!r} is not a setting; write it as --set models.npo.settings.steps=100.")
    try:
        value = read_yaml(text)
    except ValueError as error:
        raise UserError(f"--set {setting!r}: the value is not YAML ({error}); correct it.") from error
    at: Any = values
    rest = name.split(".")
    step, rest = _first(at, rest)
    while rest:
        at = _below(at, step, setting)
        step, rest = _first(at, rest)
    last = step
    if isinstance(at, list):
        at[_index(at, last, setting)] = value
    else:
        at[last] = value


def _first(at: Any, rest: list[str]) -> tuple[str, list[str]]:
    """The next key and what follows it; a key that is there may have points in it, and goes before one that has not."""
    for count in range(len(rest), 1, -1):
        if isinstance(at, dict) and ".".join(rest[:count]) in at:
            return ".".join(rest[:count]), rest[count:]
    return rest[0], rest[1:]


def _below(at: Any, step: str, setting: str) -> Any:
    if isinstance(at, list):
        return at[_index(at, step, setting)]
    if at.get(step) is None:  # a key without a value is one that nothing stands below yet
        at[step] = {}
    below = at[step]
    if not isinstance(below, dict | list):
        raise UserError(f"--set {setting!r}: {step!r} is a value, and nothing lies below it.")
    return below


def _index(at: list[Any], step: str, setting: str) -> int:
    if not step.isdigit() or int(step) >= len(at):
        raise UserError(f"--set {setting!r}: {step!r} is no place in a list of {len(at)}; count from 0.")
    return int(step)


def _key(name: str, document: _Document) -> Key:
    """The key that is written like this, or the nearest one above it; of what a grid made, the key in the file."""
    keys = [*document.lines, *(document.expanded.origins if document.expanded else ())]
    found = ((len(key), key) for key in keys if f"{name}.".startswith(".".join(map(str, key)) + "."))
    return max(found, default=(0, ()), key=lambda one: one[0])[1]


def _checked(values: dict[str, Any], document: _Document, settings: Sequence[str]) -> Recipe:
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = tuple(part for part in first["loc"] if part != "[key]")
        why = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            why = "there is no such key"
        elif first["type"] == "missing":
            why = "this key is missing"
        raise _wrong(key, why, document, settings) from error


def _wrong(key: Key, why: str, document: _Document, settings: Sequence[str]) -> UserError:
    """The sentence on a key that is wrong, with the line or the setting where it stands."""
    name = ".".join(map(str, key))
    # What a recipe's parts say of one another begins with the key that is meant.
    meant = name or why.split(" ")[0]
    at = key or _key(meant, document)
    written = ".".join(map(str, document.expanded.origin(at) if document.expanded else at))
    ways = (f"{meant}.", f"{written}.")
    given = [one for one in settings if any(way.startswith(one.partition("=")[0] + ".") for way in ways)]
    line = document.line(at)
    where = f"--set {given[-1]}" if given else f"{document.path}" + (f", line {line}" if line else "")
    return UserError(f"{where}: {name + ': ' if name else ''}{why}; correct it.")
