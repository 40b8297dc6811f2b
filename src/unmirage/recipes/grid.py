"""Grids: an entry whose name has the name of an axis in braces stands for one entry for each of the axis' values.

    grid: {rho: [0, 0.5, 1]}
    worlds:
      biased-{rho}: {rho: "{rho}"}       # biased-0, biased-0.5, biased-1; the whole text "{rho}" is the number itself

In an entry without the axis in its name, an element of a list that has it becomes one for each value, in its place.
`over: {rho: [0, 1]}` in an entry leaves out the other values, in its name and in its lists.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

Path = tuple[str | int, ...]
Value = float | str
Point = Mapping[str, Value]
"""A value of each of some axes."""

SECTIONS = ("worlds", "sets", "data", "models", "attacks", "searches", "stresses", "measures")
"""Parts of a recipe that have entries with names."""
LISTS = ("audit",)
WITH_AXES = ("models", "measures")
"""Parts whose entries say of which values they were made, as their figures are told apart by these."""
OVER = "over"
MOST_VALUES = 100_000
_PLACE = re.compile(r"\{([A-Za-z0-9_-]+)\}")
_WORD = re.compile(r"[A-Za-z0-9_.-]+")
_AXIS = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Expanded:
    """A recipe's values without places for axes.

    `origins` leads from what was made to where it was written: ("models", "sft-0.5") to ("models", "sft-{rho}").
    """

    values: dict[str, Any]
    origins: dict[Path, Path] = field(default_factory=dict)

    def origin(self, path: Path) -> Path:
        """Where in the file a value was written."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.origins:
                return (*self.origins[path[:length]], *path[length:])
        return path


def expand(values: Mapping[str, Any]) -> Expanded:
    """The values with every entry written out; as they are where there is no grid.

    Raises ValueError, which begins with the key that is meant, for an axis without values or with one that is neither
    number nor word, a place of an axis that there is not or that nothing fills, and two entries of one name.
    """
    if values.get("grid") is None:
        return Expanded(dict(values))
    return _Expander(_axes(values["grid"])).expanded(values)


def text_of(value: Value) -> str:
    """A value as names have it: 1 for 1.0, 0.25."""
    if isinstance(value, str):
        return value
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def axes_in(value: Any) -> set[str]:
    """Names in braces, anywhere in the texts of a value."""
    if isinstance(value, str):
        return set(_PLACE.findall(value))
    if isinstance(value, Mapping):
        return set().union(*map(axes_in, value.values()))
    if isinstance(value, list):
        return set().union(*map(axes_in, value))
    return set()


def _axes(grid: Any) -> dict[str, list[Value]]:
    if not isinstance(grid, Mapping):
        raise ValueError("grid is written as `axis: [value, ...]`, one a line")
    return {_axis_name(name): _values(f"grid.{name}", several) for name, several in grid.items()}


def _axis_name(name: Any) -> str:
    if not isinstance(name, str) or not _AXIS.fullmatch(name):
        raise ValueError(f"grid.{name} is no name of an axis; use A-Z a-z 0-9 _ -, beginning with a letter")
    return name


def _values(key: str, several: Any) -> list[Value]:
    """The values of an axis, or those that are wanted of it."""
    if not isinstance(several, list | tuple) or not several:
        raise ValueError(f"{key} is a list of at least one number or word")
    for value in several:
        _check_value(key, value)
    names = [text_of(value) for value in several]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"{key} has {twice} twice; leave one out")
    return list(several)


def _check_value(key: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{key} has {value!r}; the values of an axis are numbers or words")
    if isinstance(value, str) and not _WORD.fullmatch(value):
        raise ValueError(f"{key} has {value!r}, which becomes a part of names; use A-Z a-z 0-9 _ . -")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{key} has {value!r}; the numbers of an axis are finite")


@dataclass
class _Expander:
    """Writes out one recipe."""

    axes: Mapping[str, Sequence[Value]]
    origins: dict[Path, Path] = field(default_factory=dict)
    made: int = 0

    def expanded(self, values: Mapping[str, Any]) -> Expanded:
        """The recipe with every entry that has a placeholder written out over the grid."""
        found = dict(values)
        for section in SECTIONS:
            if isinstance(values.get(section), Mapping):
                found[section] = self._section(section, values[section])
        for name in LISTS:
            if isinstance(values.get(name), list):
                found[name] = self._list(values[name], (name,), (name,), {}, self.axes)
        return Expanded(found, self.origins)

    def _section(self, section: str, entries: Mapping[Any, Any]) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for key, entry in entries.items():
            entry, axes = _limited(f"{section}.{key}", entry, self.axes)
            for point in self._points(key, axes, f"{section}.{key}"):
                name = _filled(key, point)
                if name in found:
                    raise ValueError(f"{section}.{key} makes {name!r}, which is there already; rename one of them")
                self._note((section, name), (section, key))
                made = self._written(entry, (section, name), (section, key), point, axes)
                found[name] = _with_axes(made, point) if section in WITH_AXES else made
        return found

    def _points(self, within: Any, axes: Mapping[str, Sequence[Value]], where: str) -> Iterator[dict[str, Value]]:
        """Every combination of the axes that stand in a value; the axis that the grid has first changes last."""
        places = axes_in(within)
        if isinstance(within, str) and (unknown := sorted(places - axes.keys())):
            raise ValueError(f"{where} has {{{unknown[0]}}}, which is no axis of the grid; add it to grid")
        names = [name for name in axes if name in places]
        for values in product(*(axes[name] for name in names)):
            yield dict(zip(names, values, strict=True))

    def _written(self, value: Any, path: Path, origin: Path, point: Point, axes: Mapping[str, Sequence[Value]]) -> Any:
        """A value with the point's values in their places, and its lists written out over the other axes."""
        self.made += 1
        if self.made > MOST_VALUES:
            raise ValueError(f"grid makes more than {MOST_VALUES:,} values; leave some out")
        if isinstance(value, str):
            if left := sorted((axes_in(value) & self.axes.keys()) - point.keys()):
                where = ".".join(map(str, origin))
                raise ValueError(f"{where} has {{{left[0]}}}, which the entry's name has not; put it there")
            return _filled(value, point)
        if isinstance(value, Mapping):
            return {key: self._written(one, (*path, key), (*origin, key), point, axes) for key, one in value.items()}
        return self._list(value, path, origin, point, axes) if isinstance(value, list) else value

    def _list(
        self, value: list[Any], path: Path, origin: Path, point: Point, axes: Mapping[str, Sequence[Value]]
    ) -> list[Any]:
        found: list[Any] = []
        for number, one in enumerate(value):
            where = ".".join(map(str, (*origin, number)))
            one, left = _limited(where, one, axes)
            free = {name: values for name, values in left.items() if name not in point}
            for more in self._points([one], free, where):
                here = (*path, len(found))
                self._note(here, (*origin, number))
                found.append(self._written(one, here, (*origin, number), {**point, **more}, left))
        return found

    def _note(self, path: Path, origin: Path) -> None:
        if path != origin:
            self.origins[path] = origin


def _limited(where: str, entry: Any, axes: Mapping[str, Sequence[Value]]) -> tuple[Any, Mapping[str, Sequence[Value]]]:
    """An entry without its `over`, and the axes with the values that it leaves, in the order of the grid."""
    if not isinstance(entry, Mapping) or OVER not in entry:
        return entry, axes
    over = entry[OVER]
    if not isinstance(over, Mapping):
        raise ValueError(f"{where}.over is written as `axis: [value, ...]`")
    left = dict(axes)
    for name, several in over.items():
        if name not in left:
            raise ValueError(f"{where}.over.{name} is no axis of the grid; it has {', '.join(left) or 'none'}")
        wanted = _values(f"{where}.over.{name}", several)
        if lost := [value for value in wanted if value not in left[name]]:
            raise ValueError(f"{where}.over.{name} has {lost[0]!r}, which grid.{name} has not; add it there")
        left[name] = [value for value in left[name] if value in wanted]
    return {key: value for key, value in entry.items() if key != OVER}, left


def _filled(value: Any, point: Point) -> Any:
    """A text with values in the places of axes; the value itself where the text is nothing but one place."""
    if not isinstance(value, str):
        return value
    whole = _PLACE.fullmatch(value)
    if whole and whole[1] in point:
        return point[whole[1]]
    return _PLACE.sub(lambda place: text_of(point[place[1]]) if place[1] in point else place[0], value)


def _with_axes(entry: Any, point: Point) -> Any:
    """The entry with the values that it was made of; what it says itself goes before."""
    if not point or not isinstance(entry, Mapping | None):
        return entry
    given = (entry or {}).get("axes") or {}
    return {**(entry or {}), "axes": {**point, **given} if isinstance(given, Mapping) else given}
