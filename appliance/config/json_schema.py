"""JSON Schemas of what operators write, for editors: made of the pydantic models, so that they say the same.

An editor checks keys, kinds of value and bounds by them. What takes more than one key to see, or a look at another
file, is left to ``appliance check``.
"""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from appliance.config.validation import ITEM, short_forms

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def json_schema(model: type[BaseModel], title: str) -> dict[str, Any]:
    """The schema of ``model`` as an operator writes it: short forms and bare numbers instead of text are welcome."""
    made = model.model_json_schema(schema_generator=_AsWritten, mode="validation")
    return {"$schema": DIALECT, **_tidied(made, made.get("$defs", {})), "title": title}


class _AsWritten(GenerateJsonSchema):
    """Takes what the models take before they make the one form of it that the box works with."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def str_schema(self, schema: core_schema.StringSchema) -> JsonSchemaValue:
        made = super().str_schema(schema)
        return {**made, "type": ["string", "number"]} if made.get("type") == "string" else made

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> JsonSchemaValue:
        inner = self.generate_inner(schema["schema"])
        shorts = [
            inner.get("items", {}) if short == ITEM else dict(short)
            for short in short_forms(schema["function"]["function"])
        ]
        return {"anyOf": [*shorts, inner]} if shorts else inner

    def function_plain_schema(self, schema: core_schema.PlainValidatorFunctionSchema) -> JsonSchemaValue:
        shorts = short_forms(schema["function"]["function"])
        return {"anyOf": [dict(short) for short in shorts if short != ITEM]} if shorts else {}

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        made = super().model_schema(schema)
        return {**made, "additionalProperties": True} if getattr(schema["cls"], "takes_more", False) else made

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> JsonSchemaValue:
        made = super().tagged_union_schema(schema)
        # What it is depends on more than a constant: two of them may fit.
        return {"anyOf": made.pop("oneOf"), **made} if "oneOf" in made else made


def _tidied(node: Any, defs: dict[str, Any]) -> Any:
    """``node`` with bounds of lists at the lists, and choices by ``kind`` as such."""
    if isinstance(node, list):
        return [_tidied(item, defs) for item in node]
    if not isinstance(node, dict):
        return node
    made = {key: _tidied(value, defs) for key, value in node.items()}
    choices = made.get("anyOf")
    if isinstance(choices, list):
        bounds = {"minLength": "minItems", "maxLength": "maxItems"}
        moved = {bounds[key]: made.pop(key) for key in bounds if key in made}
        made["anyOf"] = choices = [{**one, **moved} if one.get("type") == "array" else one for one in choices]
        if (by_kind := _by_kind(choices, defs)) is not None:
            del made["anyOf"]
            made |= by_kind
    return made


def _by_kind(choices: list[Any], defs: dict[str, Any]) -> dict[str, Any] | None:
    """A choice of one model with a ``kind`` of its own and one for all other kinds, as a condition."""
    kinds = [_kind(choice, defs) for choice in choices]
    if len(choices) != 2 or kinds[0] is None or kinds[1] is not None:
        return None
    wanted = {"properties": {"kind": {"const": kinds[0]}}, "required": ["kind"]}
    return {"if": wanted, "then": choices[0], "else": choices[1]}


def _kind(choice: Any, defs: dict[str, Any]) -> Any:
    model = defs.get(str(choice.get("$ref", "")).rpartition("/")[2], {})
    return model.get("properties", {}).get("kind", {}).get("const")
