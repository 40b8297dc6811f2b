"""Stresses by name: those of `kinds`, and those that installed packages offer in the group `unmirage.stresses`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import ValidationError

from unmirage import plugins
from unmirage.errors import UserError
from unmirage.stress.protocol import Need, Stress, StressConfig

GROUP = "unmirage.stresses"
_STRESSES: dict[str, Stress] = {}
F = TypeVar("F", bound=Callable[..., Any])
Needs = tuple[Need, ...] | Callable[[Any], tuple[Need, ...]]


def stress(
    name: str,
    *,
    about: str,
    config: type[StressConfig],
    needs: Needs = (),
    judged: bool = True,
    trains: bool = False,
) -> Callable[[F], F]:
    """Registers a function as a stress, see `Stress`.

    Raises ValueError where the name is taken, TypeError where function or configuration class are none.
    """

    def _register(function: F) -> F:
        plugins.check_kinds("a stress", name, function, config, StressConfig)
        needing = needs if callable(needs) else lambda _config, found=needs: found
        made = Stress(name, about, config, function, needing, judged, trains)
        plugins.register(_STRESSES, "a stress", name, made)
        return function

    return _register


def stresses() -> dict[str, Stress]:
    """All stresses by name; raises UserError naming an installed one that cannot be imported."""
    _load()
    return dict(sorted(_STRESSES.items()))


def find(name: str) -> Stress:
    """The stress of that name; raises UserError where there is none."""
    return plugins.find(stresses(), name, "stress", "stresses")


@cache
def _load() -> None:
    from unmirage.stress import kinds

    plugins.import_all(kinds)
    plugins.load_installed(GROUP, "stress")


def read_settings(name: str, given: Mapping[str, Any]) -> StressConfig:
    """The settings of a stress from names and values, which may be texts; raises UserError naming the faulty one."""
    config = find(name).config
    known = config.model_fields
    if unknown := [key for key in given if key not in known]:
        raise UserError(f"the stress {name} has no setting {unknown[0]!r}; it has {', '.join(known) or 'none'}.")
    try:
        return config.model_validate({key: _parsed(known[key].annotation, value) for key, value in given.items()})
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "missing":
            raise UserError(f"the stress {name} needs the setting {first['loc'][0]}; give it.") from error
        where = ".".join(map(str, first["loc"]))
        why = first["msg"].removeprefix("Value error, ")
        raise UserError(f"setting {where} of the stress {name}: {why}; given was {first['input']!r}.") from error


def _parsed(annotation: Any, value: Any) -> Any:
    """A text of the command line as what it stands for where pydantic does not read it so itself: "Share,List" as a
    list, "4" as one of the numbers that may be chosen.
    """
    if not isinstance(value, str):
        return value
    if "tuple" in str(annotation):
        return value.split(",")
    choices = get_args(annotation) if get_origin(annotation) is Literal else ()
    return next((one for one in choices if str(one) == value), value)
