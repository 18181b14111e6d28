"""What the model is told of a server's answer: picked, cut and cleaned, never the answer as it is. PURE."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from appliance.errors import ToolError
from appliance.plugins.declarative.schema import Response

MAX_BODY: Final = 256 * 1024
_MAX_KEYS: Final = 100
_MAX_DEPTH: Final = 12
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
_MISSING: Final = object()


def place_problem(place: str) -> str:
    """What is wrong with a place of ``tell``; "" if nothing."""
    if not all(_steps(place)) and place != "/":
        return f"{place!r} has an empty part"
    return f"{place!r} has more than {_MAX_DEPTH} parts" if len(_steps(place)) > _MAX_DEPTH else ""


def told(response: Response, body: bytes, charset: str = "utf-8") -> Any:
    """What the model is told of a body that came with success.

    Raises:
        ToolError: it is not what ``response`` says it would be.
    """
    if not body.strip():
        return {"status": "done"}
    if response.format == "text":
        try:
            text = body.decode(charset, "replace")
        except LookupError:
            text = body.decode("utf-8", "replace")
        return {"text": _cut(text, response)}
    try:
        found = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ToolError("the server's answer is not what was expected") from error
    if not response.tell:
        return _trimmed(found, response)
    picked = {name: _pick(found, _steps(place), response) for name, place in response.tell.items()}
    known = {name: _trimmed(value, response) for name, value in picked.items() if value is not _MISSING}
    if not known:
        raise ToolError("the server's answer holds nothing of what was asked for")
    return known


def _steps(place: str) -> list[str]:
    if place.startswith("/"):
        return [step.replace("~1", "/").replace("~0", "~") for step in place[1:].split("/")]
    return place.split(".")


def _pick(node: Any, steps: list[str], response: Response) -> Any:
    for index, step in enumerate(steps):
        if step == "*" and isinstance(node, list):
            inner = (_pick(item, steps[index + 1 :], response) for item in node[: response.max_items])
            return [item for item in inner if item is not _MISSING]
        if isinstance(node, Mapping) and step in node:
            node = node[step]
        elif isinstance(node, list) and step.isdecimal() and len(step) < 10 and int(step) < len(node):
            node = node[int(step)]
        else:
            return _MISSING
    return node


def _trimmed(node: Any, response: Response, depth: int = 0) -> Any:
    if isinstance(node, str):
        return _cut(node, response)
    if isinstance(node, list | dict) and depth >= _MAX_DEPTH:
        return "..."
    if isinstance(node, list):
        return [_trimmed(item, response, depth + 1) for item in node[: response.max_items]]
    if isinstance(node, dict):
        kept = list(node.items())[:_MAX_KEYS]
        return {_cut(str(key), response): _trimmed(item, response, depth + 1) for key, item in kept}
    return node


def _cut(text: str, response: Response) -> str:
    clean = _CONTROL.sub(" ", text)
    return clean if len(clean) <= response.max_characters else clean[: response.max_characters] + " ..."
