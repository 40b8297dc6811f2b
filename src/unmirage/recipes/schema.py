"""The JSON Schema of recipes as they are written: before a grid's entries are written out."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from unmirage.recipes.config import NAME, Recipe
from unmirage.recipes.grid import OVER

PLACE = {"type": "string", "pattern": r"^\{[A-Za-z][A-Za-z0-9_-]*\}$"}
"""The name of an axis in braces, which may stand for any value."""
NAME_WITH_PLACES = r"^[A-Za-z0-9_{][A-Za-z0-9_.{}-]*$"
_OVER = {
    "type": "object",
    "description": "Of axes, the values that this entry is made with; the others are left out.",
    "additionalProperties": {"type": "array", "items": {"anyOf": [{"type": "number"}, {"type": "string"}]}},
}


class _AsWritten(GenerateJsonSchema):
    """Numbers and choices may be places of an axis."""

    def int_schema(self, schema: core_schema.IntSchema) -> JsonSchemaValue:
        return {"anyOf": [super().int_schema(schema), PLACE]}

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        return {"anyOf": [super().float_schema(schema), PLACE]}

    def literal_schema(self, schema: core_schema.LiteralSchema) -> JsonSchemaValue:
        found = super().literal_schema(schema)
        return found if "const" in found else {"anyOf": [found, PLACE]}


def json_schema() -> dict[str, Any]:
    """The schema, for editors and checks."""
    schema = Recipe.model_json_schema(by_alias=True, schema_generator=_AsWritten)
    for name in ("World", "Sets", "Source", "Audit", "Model", "Attack", "Search", "Stress", "Measure"):
        schema["$defs"][name]["properties"][OVER] = _OVER
    for part in schema["properties"].values():
        if NAME in (named := part.get("patternProperties", {})):
            named[NAME_WITH_PLACES] = named.pop(NAME)
    return schema
