"""The JSON schema of recipes, generated from the same models that the loader validates with."""

from __future__ import annotations

from typing import cast

from pydantic import BaseModel, JsonValue

from edgekit.recipe import Data, Recipe, TaskSpec
from edgekit.runtimes.base import Workload
from edgekit.stages import STAGES

__all__ = ["recipe_schema"]

REFERENCE: JsonValue = {"type": "string", "pattern": r"^\$\{[A-Za-z_][A-Za-z0-9_]*\}$"}
Schema = dict[str, JsonValue]


def recipe_schema() -> Schema:
    """JSON schema (2020-12). Unknown keys are refused everywhere; any typed value may be a `${param}` instead."""
    schema = cast("Schema", Recipe.model_json_schema())
    definitions = cast("Schema", schema["$defs"])
    properties = cast("Schema", schema["properties"])
    for name, model in (("task", TaskSpec), ("data", Data), ("workload", Workload)):
        properties[name] = _open(model, definitions)
    step = cast("Schema", definitions["Step"])
    cast("Schema", step["properties"])["stage"] = {"enum": list(STAGES)}
    step["allOf"] = [
        {
            "if": {"properties": {"stage": {"const": name}}},
            "then": {"properties": {"config": _open(stage.config(), definitions)}},
        }
        for name, stage in STAGES.items()
    ]
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "edgekit recipe"
    return schema


def _open(model: type[BaseModel], definitions: Schema) -> Schema:
    """The model's schema with `${param}` allowed for every value."""
    schema = cast("Schema", model.model_json_schema())
    definitions.update(cast("Schema", schema.pop("$defs", {})))
    properties = cast("Schema", schema["properties"])
    schema["properties"] = {name: {"anyOf": [value, REFERENCE]} for name, value in properties.items()}
    return schema
