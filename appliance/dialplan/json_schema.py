"""The JSON Schema of a file of ``dialplans``: one line, or several below ``lines``."""

from __future__ import annotations

from typing import Any

from appliance.config.json_schema import json_schema
from appliance.dialplan.schema import Line


def dialplan_schema() -> dict[str, Any]:
    """The schema of one file."""
    made = json_schema(Line, "A file of dialplans")
    line = {key: made.pop(key) for key in ("type", "properties", "required", "additionalProperties", "description")}
    several = {
        "type": "object",
        "properties": {
            "lines": {
                "type": "array",
                "items": {"$ref": "#/$defs/Line"},
                "minItems": 1,
                "description": "Lines, tried from top to bottom.",
            }
        },
        "required": ["lines"],
        "additionalProperties": False,
    }
    made["$defs"]["Line"] = line
    return {**made, "type": "object", "if": {"required": ["lines"]}, "then": several, "else": {"$ref": "#/$defs/Line"}}
