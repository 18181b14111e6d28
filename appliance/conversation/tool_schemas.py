"""JSON schemas of tools, and holding what a model wrote against them in bounded time. PURE.

The schema is a plugin's and the text the model's, who may have it from the caller: a regular expression of the one
could keep the box busy for minutes with the other. So expressions run in an engine whose time is linear in the text;
what it does not know (looking ahead or behind, references back) is left to the tool to check.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec
import re2
from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import ValidationError
from jsonschema.protocols import Validator
from referencing import Registry
from referencing.exceptions import Unresolvable

from appliance.errors import ToolError

logger = logging.getLogger(__name__)

_MAX_MISTAKES: Final = 5
_MAX_MISTAKE: Final = 200
_MAX_PATTERN_MEMORY: Final = 1 << 20


@lru_cache(maxsize=1024)
def validator_of(schema: bytes) -> Validator:
    """What holds arguments against ``schema``, JSON text. Kept for the calls to come: to check a schema takes a
    millisecond, and every call has the same ones.

    Raises:
        jsonschema.exceptions.SchemaError: it is no schema.
    """
    parameters = msgspec.json.decode(schema)
    Draft202012Validator.check_schema(parameters)
    # A registry of its own: a $ref to elsewhere is a mistake and not a reason to ask the network.
    return _Bounded(parameters, registry=Registry())  # type: ignore[no-any-return]


def check(validator: Validator, arguments: Any) -> None:
    """Find out whether ``arguments`` fit.

    Raises:
        ToolError: they do not; says what would.
    """
    try:
        mistakes = sorted(validator.iter_errors(arguments), key=lambda one: str(one.json_path))
    except Unresolvable as error:
        raise ToolError("the tool's schema refers to something that is not in it") from error
    except RecursionError as error:
        raise ToolError("the arguments, or the tool's schema, are nested too deeply") from error
    if mistakes:
        told = "; ".join(_told(mistake) for mistake in mistakes[:_MAX_MISTAKES])
        raise ToolError(f"the arguments do not fit the tool: {told}")


def _told(mistake: ValidationError) -> str:
    where = ".".join(str(part) for part in mistake.absolute_path)
    what = mistake.message[:_MAX_MISTAKE]
    return f"{where}: {what}" if where else what


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> Any:
    """``pattern`` ready to be searched for; None where that would not be bounded in time."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MAX_PATTERN_MEMORY
    try:
        return re2.compile(pattern, options)
    except re2.error:
        logger.warning(
            "the pattern %.100r of a tool's schema cannot be checked in bounded time; the tool has to", pattern
        )
        return None


def _found(pattern: str, text: str) -> bool | None:
    compiled = _compiled(pattern)
    return None if compiled is None else compiled.search(text) is not None


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and _found(pattern, instance) is False:
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(
    validator: Any, patterns: Mapping[str, Any], instance: Any, schema: Any
) -> Iterator[ValidationError]:
    if isinstance(instance, dict):
        for pattern, wanted in patterns.items():
            for key, value in instance.items():
                if _found(pattern, key):
                    yield from validator.descend(value, wanted, path=key, schema_path=pattern)


def _additional_properties(
    validator: Any, wanted: Any, instance: Any, schema: Mapping[str, Any]
) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for key in instance:
        if key in known or any(_found(pattern, key) is not False for pattern in patterns):
            continue
        if wanted is False:
            yield ValidationError(f"Additional properties are not allowed ({key!r} was unexpected)")
        elif isinstance(wanted, dict):
            yield from validator.descend(instance[key], wanted, path=key)


def _unchecked(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """What the library would check with expressions of its own."""
    return iter(())


_Bounded: Final = validators.extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
        "unevaluatedProperties": _unchecked,
    },
)
