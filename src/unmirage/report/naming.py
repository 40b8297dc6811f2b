"""What tables call a model whose figures are of several points of a study, or made under a stress."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from unmirage.schema import Record

Axes = Mapping[str, float | str]


def axes_text(axes: Axes) -> str:
    """Settings of a study, such as "rho 0.9, size 800"."""
    return ", ".join(
        f"{name} {value if isinstance(value, str) else format(value, 'g')}" for name, value in axes.items()
    )


def named(model: str, axes: Axes, stress: str | None = None) -> str:
    """A model with the settings and the stress that its figures are of."""
    parts = [model, *([axes_text(axes)] if axes else []), *([f"under {stress}"] if stress else [])]
    return " · ".join(parts)


def told_apart(records: Sequence[Record]) -> list[Record]:
    """The records with names of models that tell apart what tables must not take for one: points and stresses.

    Of the axes only those are named in which the records of one name differ.
    """
    differing = _differing(records)

    def name(record: Record) -> str:
        axes = {key: value for key, value in record.axes.items() if key in differing[record.model]}
        return named(record.model, axes, record.stress)

    return [record.model_copy(update={"model": name(record)}) for record in records]


def _differing(records: Iterable[Record]) -> dict[str, set[str]]:
    """The axes in which the records of each model differ; one that only some have is one too."""
    points: dict[str, list[Axes]] = defaultdict(list)
    for record in records:
        if record.axes not in points[record.model]:
            points[record.model].append(record.axes)
    return {
        model: {key for point in found for key in point if any(other.get(key) != point[key] for other in found)}
        for model, found in points.items()
    }
