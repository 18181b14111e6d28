"""The tools of YAML plugins: what a model may ask a server for, or look up in a table."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from appliance.api.tools import Arguments, OngoingCall, Tool, ToolError
from appliance.plugins.declarative import checks, response, templates
from appliance.plugins.declarative.http_client import HttpAnswer, HttpClient, HttpFailure
from appliance.plugins.declarative.loader import DeclarativePlugin
from appliance.plugins.declarative.schema import HttpTool, Table
from appliance.plugins.declarative.tables import Rows
from appliance.plugins.declarative.templates import OMITTED, Scope, parse
from appliance.tool_types import LEAVE

logger = logging.getLogger(__name__)

_PASSING: Final = frozenset((429, 502, 503, 504))
_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 2.0


def tools_of(
    plugin: DeclarativePlugin, values: Mapping[str, Any], client: HttpClient, lead: Mapping[str, str] | None = None
) -> list[Tool]:
    """The tools of a plugin for one line.

    Args:
        plugin: of which file.
        values: what the line sets, checked and with the defaults filled in.
        client: how it connects.
        lead: what is known of the one called, on a call that the box has placed.
    """
    scope = Scope(values=values, secrets=plugin.file.secrets, call={"lead": dict(lead or {})})
    made = [_http_tool(plugin.name, name, tool, scope, client) for name, tool in plugin.file.tools.items()]
    for name, table in plugin.file.tables.items():
        made.append(_table_tool(checks.tool_of_table(name, table.tool), table, plugin.rows[name]))
    return made


def _http_tool(plugin: str, name: str, tool: HttpTool, scope: Scope, client: HttpClient) -> Tool:
    async def run(arguments: Arguments, call: OngoingCall) -> Any:
        return await _Request(f"{plugin}.{name}", tool, client).run(arguments, call, scope)

    return Tool(
        name=name,
        description=tool.description,
        parameters=tool.parameters,
        run=run,
        side_effects=tool.changes,
        timeout_s=tool.timeout_s,
        filler=templates.render_text(tool.filler, scope),
        confirm=_question(tool),
    )


def _question(tool: HttpTool) -> str:
    if isinstance(tool.confirm, bool):
        return LEAVE if tool.confirm else ""
    parts = parse(tool.confirm).parts
    return "".join(part if isinstance(part, str) else "{" + ".".join(part.path) + "}" for part in parts)


class _Request:
    """One use of an HTTP tool, with all its attempts."""

    def __init__(self, name: str, tool: HttpTool, client: HttpClient) -> None:
        self._name = name
        self._tool = tool
        self._client = client

    async def run(self, arguments: Arguments, call: OngoingCall, operator: Scope) -> Any:
        tool = self._tool
        about = {"id": call.call_id, "line": call.line, "caller": call.caller, "called": call.called}
        whole = {name: text.encode("utf-8", "replace").decode() for name, text in about.items()}
        scope = Scope(arguments, operator.values, operator.secrets, {**whole, **operator.call})
        try:
            url = templates.render_url(tool.url, tool.query, scope)
            headers = self._headers(scope, call)
        except ValueError as error:
            logger.error("call %s: tool %s: %s", call.call_id, self._name, error)
            raise ToolError("this is not set up on this line") from error
        body = self._body(scope)
        if body is not None:
            headers["Content-Type"] = (
                "application/json" if tool.body_as == "json" else "application/x-www-form-urlencoded"
            )
        answer = await self._attempts(url, headers, body, call.call_id)
        if 200 <= answer.status <= 299:
            return response.told(tool.response, answer.body, answer.charset)
        logger.info("call %s: tool %s: the server answered %d", call.call_id, self._name, answer.status)
        known = tool.response.errors.get(str(answer.status))
        raise ToolError(templates.render_text(known, scope) if known else f"the server answered {answer.status}")

    def _headers(self, scope: Scope, call: OngoingCall) -> dict[str, str]:
        headers = {"Accept": "application/json" if self._tool.response.format == "json" else "*/*"}
        for name, value in self._tool.headers.items():
            text = value if isinstance(value, str) else value.get_secret_value()
            headers[name] = templates.render_text(text, scope) if isinstance(value, str) else text.strip()
        if self._tool.method != "GET":
            headers["Idempotency-Key"] = call.idempotency_key
        if any(char in value for value in headers.values() for char in "\r\n\0"):
            raise ValueError("a header has more than one line")
        return headers

    def _body(self, scope: Scope) -> bytes | None:
        if self._tool.body is None:
            return None
        filled = templates.render_json(self._tool.body, scope)
        if filled is OMITTED:
            return None
        if self._tool.body_as == "form":
            pairs = [
                (key, templates.text_of(item))
                for key, value in filled.items()
                for item in (value if isinstance(value, list) else [value])
            ]
            return urlencode(pairs).encode()
        return msgspec.json.encode(filled)

    async def _attempts(self, url: str, headers: dict[str, str], body: bytes | None, call_id: str) -> HttpAnswer:
        """Ask until there is an answer that another attempt would not change."""
        tool = self._tool
        loop = asyncio.get_running_loop()
        until = loop.time() + tool.timeout_s
        pause_s = _FIRST_PAUSE_S
        for attempt in range(1, tool.attempts + 1):
            left_s = until - loop.time()
            last = attempt == tool.attempts
            wait_s = pause_s
            try:
                answer = await self._client.ask(
                    tool.method, url, headers=headers, body=body, timeout_s=min(tool.attempt_s or left_s, left_s)
                )
            except HttpFailure as error:
                logger.warning("call %s: tool %s, attempt %d: %s", call_id, self._name, attempt, error)
                if last or not error.passing:
                    raise ToolError("the server cannot be reached just now") from error
            else:
                if last or answer.status not in _PASSING:
                    return answer
                logger.warning("call %s: tool %s, attempt %d: %d", call_id, self._name, attempt, answer.status)
                wait_s = max(pause_s, answer.retry_after_s or 0.0)
                if loop.time() + wait_s >= until:
                    return answer
            if loop.time() + wait_s >= until:
                raise ToolError("the server cannot be reached just now")
            await asyncio.sleep(wait_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
        raise AssertionError("unreachable")


def _table_tool(name: str, table: Table, rows: Rows) -> Tool:
    async def run(arguments: Arguments, call: OngoingCall) -> Any:
        return rows.look_up(table, str(arguments["key"]))

    about = {"type": "string", "minLength": 1, "maxLength": 200, "description": f"The {table.key} to look up."}
    return Tool(
        name=name,
        description=table.description,
        parameters={"type": "object", "properties": {"key": about}, "required": ["key"], "additionalProperties": False},
        run=run,
        side_effects=False,
    )
