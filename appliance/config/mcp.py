"""``plugins.mcp``: servers of the Model Context Protocol whose tools lines may use."""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from appliance.config.fields import Seconds, Secret
from appliance.config.validation import Section, fault

MCP_PLUGIN: Final = "mcp"
"""Under this name lines switch the tools of MCP servers off."""


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
        right = parts.scheme in ("http", "https") and parts.hostname and parts.username is None
    except ValueError:
        right = False
    if not right:
        raise fault(f"{value!r} is not the address of an MCP server", "write it as https://tools.example.com/mcp")
    return value


class McpServer(Section):
    """An MCP server, run as a program on this machine or asked by HTTP. Its tools run in the plugin host."""

    command: Annotated[tuple[str, ...], Field(max_length=100)] = Field(
        default=(), description="Program and arguments that speak MCP on standard input and output."
    )
    environment: dict[str, Secret] = Field(
        default={}, max_length=100, description="Environment variables of the program; it gets no others but PATH."
    )
    url: Annotated[str, AfterValidator(_url)] | None = Field(
        default=None, description="Address of a server that speaks MCP by HTTP; instead of `command`."
    )
    headers: dict[str, Secret] = Field(default={}, max_length=50, description="Headers for it, such as Authorization.")
    tools: Annotated[tuple[Annotated[str, StringConstraints(min_length=1, max_length=64)], ...], Field()] = Field(
        min_length=1, max_length=64, description="Which of its tools may be used; no others are offered."
    )
    confirm: tuple[str, ...] = Field(
        default=(), max_length=64, description="Those of `tools` that the caller is asked about first."
    )
    read_only: tuple[str, ...] = Field(
        default=(),
        max_length=64,
        description="Those of `tools` that change nothing: they may be run before the caller has finished.",
    )
    timeout_s: Seconds = Field(default=10.0, description="A use of a tool has failed after so long.")

    @model_validator(mode="after")
    def _one_way(self) -> McpServer:
        if bool(self.command) == (self.url is not None):
            raise fault("needs either command or url", "write command: [program, argument] or url: https://...")
        for key in ("confirm", "read_only"):
            for name in getattr(self, key):
                if name not in self.tools:
                    raise fault(f"{key} names {name!r}, which is not among tools", "add it to tools, or remove it")
        return self
