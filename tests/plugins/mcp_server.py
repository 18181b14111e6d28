"""A real MCP server, made with the protocol's own package: on standard input and output, or by HTTP on a port."""

from __future__ import annotations

import os
import sys
import time

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("kitchen")


@server.tool(description="Adds two numbers.\x07")
def add(a: int, b: int) -> int:
    return a + b


@server.tool()
def secret() -> str:
    """What the environment says."""
    return os.environ.get("KITCHEN_KEY", "none") + " " + os.environ.get("PYTHONPATH", "no path")


@server.tool()
def fail() -> str:
    """Fails."""
    raise ToolError("the oven is off")


@server.tool()
def huge() -> str:
    """Says much."""
    return "x" * 100_000


@server.tool()
def slow() -> str:
    """Takes its time."""
    time.sleep(30)
    return "done"


@server.tool()
def die() -> str:
    """Ends the server."""
    os._exit(1)


@server.tool()
def hidden() -> str:
    """Nobody may use this."""
    return "used"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
    else:
        server.run()
