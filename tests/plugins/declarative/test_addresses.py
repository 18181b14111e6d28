"""Where a YAML plugin may connect to, over real sockets: the address counts, not what it was called."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from appliance.errors import ToolError
from appliance.plugins.declarative.source import Declarative
from tests.plugins.declarative.server import FakeCall, HttpServer, plugin_of, tool_of

TEXT = """
values: {host: {}}
tools:
  look:
    description: Looks.
    url: http://${values.host}:PORT/x
    retries: 0
"""


class Names(AbstractResolver):
    """A name server of the test's own; answers each question with the next of ``answers``."""

    answers: Iterator[list[str]]
    asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        type(self).asked += 1
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in next(self.answers)
        ]

    async def close(self) -> None: ...


async def ask(folder: Path, server: HttpServer, host: str, **how: object) -> bool:
    """Whether the tool gets through."""
    before = len(server.asked)
    source = Declarative({"shop": plugin_of(folder, TEXT.replace("PORT", str(server.port)))}, **how)  # type: ignore[arg-type]
    try:
        await tool_of(source, host=host).run({}, FakeCall())
    except ToolError:
        assert len(server.asked) == before
        return False
    finally:
        await source.close()
    return len(server.asked) == before + 1


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "localhost.",
    ],
)
async def test_this_machine_is_refused_however_it_is_written(tmp_path: Path, host: str) -> None:
    async with HttpServer() as server:
        assert not await ask(tmp_path, server, host)


@pytest.mark.parametrize("host", ["127.0.0.1@evil.example", "user:word@127.0.0.1", "a b", "127.0.0.1/x?", "a#b", ""])
async def test_what_is_no_host_is_refused_even_from_an_operators_value(tmp_path: Path, host: str) -> None:
    async with HttpServer() as server:
        assert not await ask(tmp_path, server, host, allow_hosts=("127.0.0.1",))


@pytest.mark.parametrize(
    ("listed", "host"), [("127.0.0.1", "127.0.0.1"), ("127.0.0.0/8", "localhost"), ("localhost", "localhost")]
)
async def test_what_is_listed_is_allowed(tmp_path: Path, listed: str, host: str) -> None:
    async with HttpServer() as server:
        assert await ask(tmp_path, server, host, allow_hosts=(listed,))


async def test_a_name_that_means_something_else_the_second_time_is_refused_then(tmp_path: Path) -> None:
    class Rebinding(Names):
        answers = iter([["93.184.215.14"], ["127.0.0.1"]])

    plugin = plugin_of(tmp_path, TEXT.replace("PORT", "9") + "    timeout_s: 0.2\n")
    async with HttpServer() as server:
        source = Declarative({"shop": plugin}, resolver=Rebinding)
        client = source.client("shop")
        for problem in ("", "not public"):
            with pytest.raises(Exception, match=problem or "."):
                await client.ask("GET", f"http://shop.example:{server.port}/", headers={}, timeout_s=0.2)
            await client.close()
        assert Rebinding.asked == 2
        assert server.asked == []


async def test_one_private_address_among_public_ones_is_not_connected_to(tmp_path: Path) -> None:
    class Mixed(Names):
        answers = iter([["127.0.0.1", "::1", "::ffff:127.0.0.1"]])

    async with HttpServer() as server:
        assert not await ask(tmp_path, server, "shop.example", resolver=Mixed)


async def test_a_listed_name_may_be_private_but_never_metadata(tmp_path: Path) -> None:
    class Private(Names):
        answers = iter([["127.0.0.1"], ["169.254.169.254"]])

    async with HttpServer() as server:
        assert await ask(tmp_path, server, "shop.internal", resolver=Private, allow_hosts=("shop.internal",))
        assert not await ask(tmp_path, server, "shop.internal", resolver=Private, allow_hosts=("shop.internal",))


async def test_nothing_leaves_with_an_empty_egress(tmp_path: Path) -> None:
    class Public(Names):
        answers = iter([["127.0.0.1"]] * 3)

    async with HttpServer() as server:
        listed = ("127.0.0.1",)
        assert not await ask(tmp_path, server, "shop.example", resolver=Public, allow_hosts=listed, egress=())
        assert not await ask(
            tmp_path, server, "shop.example", resolver=Public, allow_hosts=listed, egress=("a.example",)
        )
        assert await ask(tmp_path, server, "shop.example", resolver=Public, allow_hosts=listed, egress=("*.example",))


async def test_a_name_in_other_letters_is_the_one_that_is_listed(tmp_path: Path) -> None:
    class Private(Names):
        answers = iter([["127.0.0.1"]])

    async with HttpServer() as server:
        assert await ask(
            tmp_path, server, "xn--mnchen-3ya.example", resolver=Private, allow_hosts=("xn--mnchen-3ya.example",)
        )
