"""What a block of a document may say: which records a table or a picture shows, and how."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

Scalar = bool | int | float | str | None
Filter = dict[str, Scalar | list[Scalar]]
Unit = Literal["percent", "points", "number"]
Good = Literal["low", "high"]
GOOD: dict[str, Good] = {
    "asr": "low", "asr_any": "low", "ir": "low", "partial": "low", "rr": "low", "rr_any": "low",
    "refusal": "high", "coherent": "high", "utility": "high",
}  # fmt: skip


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Fields = Annotated[tuple[str, ...], BeforeValidator(_several), Field(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Measured(_Part):
    """One metric under some conditions: a column of a table, a row of panels, the content of a heat map.

    Keys that are not settings are conditions on the records' fields, as in `where`: {"metric": "asr", "split": "seen"}.
    """

    metric: str
    title: str = ""
    where: Filter = {}
    before: bool | str = Field(default=False, description="Show the figure without the attack, too; or that metric.")
    unit: Unit | None = None
    digits: int = Field(default=1, ge=0, le=6)
    good: Good | None = None
    interval: bool = True
    worst: bool = False
    best: bool = False

    @model_validator(mode="before")
    @classmethod
    def _conditions(cls, given: Any) -> Any:
        """A name alone is a metric; what is no setting is a condition."""
        if isinstance(given, str):
            return {"metric": given}
        if not isinstance(given, dict):
            return given
        mine = {key: value for key, value in given.items() if key in cls.model_fields}
        rest = {key: value for key, value in given.items() if key not in cls.model_fields}
        return {**mine, "where": {**mine.get("where", {}), **rest}} if rest else mine

    @model_validator(mode="after")
    def _knows_what_is_good(self) -> Self:
        if (self.worst or self.best) and self.good_is is None:
            raise ValueError(f"say good: low or good: high for {self.metric!r}, or worst and best mean nothing")
        if self.before and not self.where.get("attack"):
            raise ValueError("a figure before and after an attack needs the attack, such as attack: 'first-word:what'")
        return self

    @property
    def good_is(self) -> Good | None:
        """Which end of the metric is wanted; None where neither was said nor is known."""
        return self.good or GOOD.get(self.metric)

    @property
    def name(self) -> str:
        """What the column or panel is called."""
        return self.title or self.metric


class _Block(_Part):
    """What all blocks share; `pending` marks one whose results are still to come."""

    name: str = ""
    pending: bool = False
    where: Filter = {}
    without: Filter = {}
    labels: dict[str, str] = Field(default={}, description="Other names for values; several may become one.")
    order: list[str] = Field(default=[], description="These first, in this order; the others after them.")
    missing: Literal["error", "allow"] = "error"
    caption: str = ""


class TableSpec(_Block):
    """A Markdown table: a row for each value of `rows`, the columns once, or once for each value of `across`."""

    rows: Fields
    columns: list[Measured] = Field(min_length=1)
    across: str | None = None
    across_order: list[str] = []
    groups: dict[str, list[str]] = {}
    sort: str | None = Field(default=None, description="Title of a column; with - in front, the highest first.")

    @model_validator(mode="after")
    def _one_order(self) -> Self:
        if self.groups and (self.order or self.sort):
            raise ValueError("groups give the order of the rows; leave order and sort out")
        return self


class _Picture(_Block):
    file: str
    caption: str = Field(min_length=1)

    @field_validator("file")
    @classmethod
    def _beside_the_document(cls, file: str) -> str:
        path = PurePosixPath(file)
        if path.is_absolute() or ".." in path.parts or path.suffix != ".svg":
            raise ValueError("a picture is an .svg file in the document's folder or below, as pictures/dose.svg")
        return file


class LinesSpec(_Picture):
    """Lines over the values of `x`: a panel for each of `y` and, with `panels`, for each value of that field."""

    kind: Literal["lines"] = "lines"
    x: str
    y: list[Measured] = Field(min_length=1)
    lines: str
    panels: str | None = None
    panels_order: list[str] = []
    x_label: str = ""
    x_scale: Literal["linear", "even"] = "linear"
    bands: bool = True
    dots: bool = Field(default=True, description="A dot for each seed.")

    @field_validator("y")
    @classmethod
    def _after_alone(cls, y: list[Measured]) -> list[Measured]:
        if any(one.before for one in y):
            raise ValueError(
                "a line shows one figure; give the one before the attack an entry of its own (attack: null)"
            )
        return y


class HeatSpec(_Picture):
    """A map of numbers, the darker the higher: rows against `columns`, or one `value` for each value of `across`."""

    kind: Literal["heat"]
    rows: str
    columns: list[Measured] = []
    across: str | None = None
    across_order: list[str] = []
    value: Measured | None = None

    @property
    def measured(self) -> list[Measured]:
        """The figures of the map."""
        return [self.value] if self.value else self.columns

    @model_validator(mode="after")
    def _one_figure_in_a_cell(self) -> Self:
        if bool(self.across) != bool(self.value) or bool(self.columns) == bool(self.value):
            raise ValueError("a heat map has columns, or a value and a field that it goes across; one of these")
        if any(one.before for one in self.measured):
            raise ValueError("a heat map shows one figure in a cell; leave before out")
        if len({one.name for one in self.measured}) < len(self.measured):
            raise ValueError("two columns have one title; give each its own")
        return self


Spec = TableSpec | LinesSpec | HeatSpec
