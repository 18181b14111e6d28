"""The JSON Schema of a file of ``dialplans``: one line, or ``lines`` beside ``bases`` and ``defaults``."""

from __future__ import annotations

import copy
from typing import Any

from appliance.config.json_schema import json_schema
from appliance.dialplan.schema import Line
from appliance.dialplan.steps import NAME_PATTERN

_LINE_KEYS = ("type", "properties", "required", "additionalProperties", "description")
_NULL = {"type": "null"}
_HEIR = {"if": {"required": ["extends"]}, "then": {"$ref": "#/$defs/LinePart"}, "else": {"$ref": "#/$defs/Line"}}


def dialplan_schema() -> dict[str, Any]:
    """The schema of one file. A line that inherits says as much as it likes, and ``null`` to be without a key."""
    made = json_schema(Line, "A file of dialplans")
    whole: dict[str, Any] = {**made["$defs"], "Line": {key: made.pop(key) for key in _LINE_KEYS}}
    parts = {f"{name}Part": _part(model) for name, model in whole.items()}
    parts["Base"] = {**copy.deepcopy(parts["LinePart"]), "type": "object"}
    parts["LinePart"] = {**parts["LinePart"], "type": "object", "required": ["name"]}
    made["$defs"] = {**whole, **parts}
    for name in ("Closed", "ClosedPart"):
        keys = made["$defs"][name]["properties"]
        keys["instead"] = {"$ref": "#/$defs/Base", "description": keys["instead"]["description"]}
    items = {"if": {"required": ["defaults"]}, "then": _lines({"$ref": "#/$defs/LinePart"}), "else": _lines(_HEIR)}
    several = {
        "type": "object",
        "properties": {
            "lines": {"type": "array", "minItems": 1, "description": "Lines, tried from top to bottom."},
            "bases": {
                "type": "object",
                "patternProperties": {NAME_PATTERN: {"$ref": "#/$defs/Base"}},
                "additionalProperties": False,
                "description": "What lines of any file can extend, by name.",
            },
            "defaults": {"$ref": "#/$defs/Base", "description": "What holds for all lines of this file."},
        },
        "additionalProperties": False,
        **items,
    }
    one_of_many = {"anyOf": [{"required": [key]} for key in ("lines", "bases", "defaults")]}
    return {**made, "type": "object", "if": one_of_many, "then": several, "else": _HEIR}


def _lines(item: dict[str, Any]) -> dict[str, Any]:
    return {"properties": {"lines": {"items": item}}}


def _part(model: dict[str, Any]) -> dict[str, Any]:
    """The schema of what inherits the rest: nothing is required, and any key, or all of it, may be taken away."""
    part = {key: _renamed(value) for key, value in model.items() if key != "required"}
    if "properties" in part:
        part["properties"] = {key: _or_null(value) for key, value in part["properties"].items()}
    return _or_null(part)


def _renamed(node: Any) -> Any:
    """A copy that refers to the parts of models in place of the whole."""
    if isinstance(node, list):
        return [_renamed(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {key: f"{value}Part" if key == "$ref" else _renamed(value) for key, value in node.items()}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    made = dict(schema)
    if "enum" in made:
        made["enum"] = [*made["enum"], None]
    if "const" in made:
        made["enum"] = [made.pop("const"), None]
    if "type" in made:
        kinds = made["type"] if isinstance(made["type"], list) else [made["type"]]
        return {**made, "type": list(dict.fromkeys((*kinds, "null")))}
    if "anyOf" in made and _NULL not in made["anyOf"]:
        made["anyOf"] = [*made["anyOf"], _NULL]
    return made
