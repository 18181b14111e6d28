"""Whether what a hook returned is what the hook may return; and as what it goes back to control."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from appliance.api import Blocked, CallSummary, CampaignEvent, Denied, IdentityClaim, ModelRequest, Tool
from appliance.plugins.hook_table import HookRule, Rule, ToolOffer

MAX_RESULT_BYTES: Final = 128 * 1024
MAX_CONTEXT: Final = 4000
"""Characters of one text for the model."""
MAX_TOOLS: Final = 64

TYPED_ARGUMENTS: Final[Mapping[str, Mapping[str, type]]] = {
    "verify_identity": {"claim": IdentityClaim},
    "before_llm": {"request": ModelRequest},
    "call_ended": {"summary": CallSummary},
    "campaign_event": {"event": CampaignEvent},
}
MUTABLE: Final = frozenset({"before_tool", "after_tool", "before_storing", "record_stored"})
"""Hooks whose arguments a plugin could change in place: each gets a copy of its own."""

ENDS_CHAIN: Final = (Blocked, Denied)


def arguments_of(hook: str, data: bytes) -> dict[str, Any]:
    """What a hook is given, by name.

    Raises:
        msgspec.MsgspecError: it cannot be read.
    """
    given: dict[str, Any] = msgspec.msgpack.decode(data)
    for name, kind in TYPED_ARGUMENTS.get(hook, {}).items():
        given[name] = msgspec.convert(given[name], kind)
    return given


def checked(hook: str, rule: HookRule, result: Any, before: Any) -> Any:
    """What a plugin returned, as the hook's type; None for None. ``before`` is what it was asked to change.

    Raises:
        TypeError: it is something else; says what.
    """
    if result is None or rule.rule is Rule.TOLD:
        return None
    if hook == "tools":
        return [offer(tool) for tool in _items(hook, result)[:MAX_TOOLS]]
    if rule.result is Any:
        made = result
    else:
        try:
            made = msgspec.convert(result, rule.result)
        except msgspec.ValidationError as error:
            raise TypeError(f"returns {_kind(result)}, not {type_words(rule.result)}: {error}") from error
    try:
        size = len(msgspec.msgpack.encode(made))
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise TypeError(f"returns something that is not JSON: {error}") from error
    if size > MAX_RESULT_BYTES:
        raise TypeError(f"returns {size} bytes; at most {MAX_RESULT_BYTES} are taken")
    if hook == "before_llm":
        return [text[:MAX_CONTEXT] for text in made]
    if hook == "before_storing" and len(made) != len(before):
        raise TypeError(f"returns {len(made)} texts for {len(before)}")
    return made


def offer(tool: object) -> ToolOffer:
    """A tool without its function.

    Raises:
        TypeError: it is none, or its parameters are not JSON.
    """
    if not isinstance(tool, Tool):
        raise TypeError(f"returns {_kind(tool)} among its tools, not an appliance.api.Tool")
    try:
        parameters = msgspec.json.encode(dict(tool.parameters)).decode()
        return msgspec.convert(
            {name: getattr(tool, name) for name in ToolOffer.__struct_fields__} | {"parameters": parameters}, ToolOffer
        )
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise TypeError(f"returns a tool {tool.name!r} that cannot be offered: {error}") from error


def type_words(kind: Any) -> str:
    """A type as the manual writes it."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return " or ".join(map(type_words, typing.get_args(kind)))
    arguments = typing.get_args(kind)
    if arguments:
        return f"{typing.get_origin(kind).__name__} of {type_words(arguments[-1])}"
    return "anything" if kind is Any else str(kind.__name__)


def _items(hook: str, result: Any) -> list[Any]:
    if isinstance(result, str | bytes | Mapping):
        raise TypeError(f"returns {_kind(result)}, not a list")
    try:
        return list(result)
    except TypeError as error:
        raise TypeError(f"returns {_kind(result)}, not a list") from error


def _kind(value: object) -> str:
    return f"a value of type {type(value).__name__}"
