"""The mirage scores of a recipe's data as records, so that they stand beside what tuning on the data does."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from unmirage.errors import UserError
from unmirage.schema import Record

METRIC, METHOD, JUDGE = "mirage_score", "data", "audit"
T = TypeVar("T", bound=BaseModel)
_KNOBS = ("rho", "salience", "opener_weight", "retain")
"""Settings of a world that are axes of what is drawn from it."""


class _Score(BaseModel):
    value: float
    low: float
    high: float


class _Audit(BaseModel):
    score: _Score | None = Field(alias="mirage_score")
    rows: int


class _Source(BaseModel):
    world: str | None = None


class _Recipe(BaseModel):
    """What is needed of a recipe."""

    worlds: dict[str, dict[str, Any]] = {}
    data: dict[str, _Source] = {}


def audit_records(run: Path) -> list[Record]:
    """A record for each audited file of a recipe's run: `model` and `data` are the audit's name, `method` is "data".

    Axes and seed of a file drawn from the sandbox are its world's; other files have none, and seed 0. An audit that
    gives no score has no record, nor has a folder that is no recipe's. Raises UserError for a broken file.
    """
    recipe = run / "recipe.json"
    if not recipe.is_file():
        return []
    known = _read(recipe, _Recipe)
    found = []
    for file in sorted(run.glob("audits/*/audit.json")):
        audit = _read(file, _Audit)
        if audit.score is not None:
            found.append(_record(file.parent.name, audit.score, audit.rows, known))
    return found


def _record(name: str, score: _Score, rows: int, recipe: _Recipe) -> Record:
    source = recipe.data.get(name)
    world = recipe.worlds.get(source.world, {}) if source and source.world else {}
    return Record(
        model=name, method=METHOD, seed=world.get("seed", 0), data=name, metric=METRIC, judge=JUDGE, n=rows,
        value=score.value, low=score.low, high=score.high, axes={knob: world[knob] for knob in _KNOBS if knob in world},
    )  # fmt: skip


def _read(path: Path, model: type[T]) -> T:
    try:
        return model.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path}, field {field!r}: {first['msg']}; run the recipe again.") from None
