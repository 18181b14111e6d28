"""The tools of MCP servers (``plugins.mcp``), as a plugin of the plugin host.

A server is connected to when the host starts, and again whenever it is gone. Only the tools that the operator lists are
offered; what they are called, do and take is the server's to say, and what they answer is data to the model.
"""

from __future__ import annotations

import asyncio
import contextvars
import importlib.util
import logging
import re
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
from pydantic import Field, field_validator

from appliance.api import Call, OngoingCall, Tool, ToolError, hookimpl
from appliance.config.mcp import McpServer
from appliance.hookspecs import ProviderOptions
from appliance.tool_types import LEAVE

if TYPE_CHECKING:
    import mcp
    from mcp import types

logger = logging.getLogger(__name__)

API: Final = 1
SUMMARY: Final = "Tools of MCP servers, as `plugins.mcp` lists them."

_CONNECT_S: Final = 10.0
_FIRST_WAIT_S: Final = 5.0
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0
_ALIVE_EVERY_S: Final = 15.0
_MAX_PAGES: Final = 20
_AT_ONCE: Final = 16
_MAX_TEXT: Final = 3000
_MAX_DESCRIPTION: Final = 1000
_MAX_SCHEMA: Final = 8000
_UNSAFE: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")

T = TypeVar("T")


class Values(ProviderOptions):
    """What lines may set of it.

    Attributes:
        servers: made of `plugins.mcp`.
        only: names of the servers whose tools a line has; without it, of all.
    """

    servers: dict[str, McpServer] = Field(default={})
    only: tuple[str, ...] | None = None

    @field_validator("servers")
    @classmethod
    def _package(cls, servers: dict[str, McpServer]) -> dict[str, McpServer]:
        if servers and importlib.util.find_spec("mcp") is None:
            raise ValueError("needs the Python package mcp; pip install 'appliance[mcp]'")
        return servers

    def chosen(self) -> dict[str, McpServer]:
        """The servers of the line."""
        return {name: one for name, one in self.servers.items() if self.only is None or name in self.only}


@dataclass(frozen=True)
class _Known:
    """A tool as its server describes it."""

    name: str
    description: str
    parameters: dict[str, Any]


def _apart(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Run it as a task of the host and not of a call: connections outlive calls, and anyio wants tasks of its kind."""
    return contextvars.Context().run(asyncio.get_running_loop().create_task, work)


class Connection:
    """One server, for as long as the host runs.

    Args:
        name: what the operator calls it.
        server: how to reach it.
    """

    def __init__(self, name: str, server: McpServer) -> None:
        self._name = name
        self._server = server
        self._session: mcp.ClientSession | None = None
        self._broken = asyncio.Event()
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self.ready = asyncio.Event()
        self.tools: dict[str, _Known] = {}
        self._task = _apart(self._run())

    async def close(self) -> None:
        """Leave the server."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def offered(self) -> list[Tool]:
        """Its tools that may be used, while it is there."""
        if self._session is None:
            return []
        return [self._tool(self.tools[name]) for name in self._server.tools if name in self.tools]

    def _tool(self, known: _Known) -> Tool:
        async def run(arguments: Any, call: OngoingCall) -> Any:
            return await self.use(known.name, dict(arguments), call.idempotency_key)

        return Tool(
            name=offered_name(self._name, known.name),
            description=known.description,
            parameters=known.parameters,
            run=run,
            side_effects=known.name not in self._server.read_only,
            timeout_s=self._server.timeout_s,
            confirm=LEAVE if known.name in self._server.confirm else "",
        )

    async def use(self, tool: str, arguments: dict[str, Any], key: str) -> Any:
        """Have the server do it.

        Raises:
            ToolError: it is not there, does not answer in time, or says that it failed.
        """
        session = self._session
        if session is None:
            raise ToolError("the server of this tool is not there just now")
        async with self._at_once:
            meta: Any = {"appliance/idempotency-key": key}
            work = session.call_tool(tool, arguments, self._server.timeout_s, meta=meta)
            task = _apart(work)
            try:
                result = await task
            except asyncio.CancelledError:
                task.cancel()
                raise
            except Exception as error:
                logger.warning("MCP server %s: %s failed: %s: %s", self._name, tool, type(error).__name__, error)
                self._broken.set()
                raise ToolError("the server of this tool does not answer as it should") from error
        told = result_of(result)
        if result.is_error:
            raise ToolError(f"it failed: {told}"[:_MAX_TEXT])
        return told

    async def _run(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                async with _connected(self._server) as session:
                    async with asyncio.timeout(_CONNECT_S):
                        self.tools = await _listed(session, self._server)
                    missing = [name for name in self._server.tools if name not in self.tools]
                    if missing:
                        logger.error("MCP server %s has no tool %s; it is left out", self._name, ", ".join(missing))
                    logger.info("MCP server %s is there, with %d of its tools", self._name, len(self.tools))
                    self._broken.clear()
                    self._session = session
                    self.ready.set()
                    pause_s = _FIRST_PAUSE_S
                    await self._until_gone(session)
            except Exception as error:
                logger.warning("MCP server %s is not there: %s", self._name, _words(error))
            finally:
                self._session = None
            self.ready.set()
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _until_gone(self, session: mcp.ClientSession) -> None:
        while True:
            try:
                async with asyncio.timeout(_ALIVE_EVERY_S):
                    await self._broken.wait()
            except TimeoutError:
                pass
            self._broken.clear()
            async with asyncio.timeout(_CONNECT_S):
                self.tools = await _listed(session, self._server)


@asynccontextmanager
async def _connected(server: McpServer) -> AsyncIterator[mcp.ClientSession]:
    import httpx2
    from mcp import ClientSession, StdioServerParameters, stdio_client
    from mcp.client.streamable_http import streamable_http_client

    async with AsyncExitStack() as stack:
        if server.url is None:
            environment = {name: value.get_secret_value() for name, value in server.environment.items()}
            started = StdioServerParameters(command=server.command[0], args=list(server.command[1:]), env=environment)
            streams = await stack.enter_async_context(stdio_client(started, errlog=sys.__stderr__ or sys.stderr))
        else:
            headers = {name: value.get_secret_value() for name, value in server.headers.items()}
            asking = await stack.enter_async_context(
                httpx2.AsyncClient(headers=headers, timeout=server.timeout_s, trust_env=False)
            )
            streams = await stack.enter_async_context(streamable_http_client(server.url, http_client=asking))
        session = await stack.enter_async_context(ClientSession(streams[0], streams[1]))
        async with asyncio.timeout(_CONNECT_S):
            await session.initialize()
        yield session


async def _listed(session: mcp.ClientSession, server: McpServer) -> dict[str, _Known]:
    """Those of the server's tools that may be used."""
    from mcp import types

    found: dict[str, _Known] = {}
    cursor: str | None = None
    for _ in range(_MAX_PAGES):
        page = await session.list_tools(params=types.PaginatedRequestParams(cursor=cursor) if cursor else None)
        for tool in page.tools:
            if tool.name in server.tools and (known := _known(tool)) is not None:
                found[tool.name] = known
        cursor = page.next_cursor
        if not cursor:
            break
    return found


def _known(tool: types.Tool) -> _Known | None:
    schema = dict(tool.input_schema)
    if schema.get("type") != "object" or len(msgspec.json.encode(schema)) > _MAX_SCHEMA:
        logger.error("MCP tool %s is left out: its schema is no object, or longer than %d", tool.name, _MAX_SCHEMA)
        return None
    description = _UNSAFE.sub(" ", tool.description or tool.title or tool.name)[:_MAX_DESCRIPTION]
    return _Known(tool.name, description, schema)


def result_of(result: types.CallToolResult) -> Any:
    """What the model is told: what the server gives as data, else its text."""
    if result.structured_content is not None and len(msgspec.json.encode(result.structured_content)) <= _MAX_TEXT:
        return result.structured_content
    parts = [
        block.text if block.type == "text" else f"({block.type}, which cannot be told)" for block in result.content
    ]
    text = _UNSAFE.sub(" ", "\n".join(parts))
    return {"text": text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + " ..."}


def offered_name(server: str, tool: str) -> str:
    """What the model, and a line's ``tools``, call a tool: ``SERVER_TOOL``."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", f"{server}_{tool}")[:64]


def _words(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"[:300]


_connections: dict[str, tuple[McpServer, Connection]] = {}


@hookimpl
async def appliance_configure(values: Values) -> None:
    for name, server in values.servers.items():
        before = _connections.get(name)
        if before is not None and before[0] == server:
            continue
        if before is not None:
            await before[1].close()
        _connections[name] = (server, Connection(name, server))
    waiting = [_apart(one.ready.wait()) for _, one in _connections.values()]
    if waiting:
        await asyncio.wait(waiting, timeout=_FIRST_WAIT_S)
    for task in waiting:
        task.cancel()


@hookimpl
async def appliance_tools(call: Call) -> list[Tool]:
    chosen = call.values.chosen()
    if not _connections:
        return [_unasked(name, tool) for name, server in chosen.items() for tool in server.tools]
    return [tool for name in chosen if name in _connections for tool in _connections[name][1].offered()]


@hookimpl
async def appliance_stopping() -> None:
    for _, connection in list(_connections.values()):
        await connection.close()
    _connections.clear()


def _unasked(server: str, tool: str) -> Tool:
    """Stands for a tool where no server is asked: its name is known, and nothing else."""

    async def run(arguments: Any, call: OngoingCall) -> Any:
        raise ToolError("the server of this tool is not there just now")

    return Tool(name=offered_name(server, tool), description=tool, parameters={"type": "object"}, run=run)
