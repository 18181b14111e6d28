"""Plugins connect to the hosts that ``egress`` lists, and to no others."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from appliance.config import Settings
from appliance.plugins.hook_table import HOOKS
from appliance.plugins.host.outgoing import Outgoing
from appliance.server.plan import plan
from tests.plugins.real_host import QUICK, RealHost, call

REFUSED = "egress does not list {}; add it to egress in appliance.yaml, or use another server"

PLUGIN = '''
"""Connects to what the caller says, in the way that the caller says."""

import asyncio, http.client, smtplib, socket

from appliance.api import hookimpl


def by_socket(host):
    with socket.socket() as one:
        one.setblocking(False)
        one.connect_ex((host, 9))


def by_datagram(host):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.sendto(b"x", (host, 9))


def by_smtp(host):
    smtplib.SMTP(host, 9, timeout=0.1)


def by_http(host):
    http.client.HTTPConnection(host, 9, timeout=0.1).request("GET", "/")


@hookimpl
def appliance_final_transcript(call, text):
    way, host = text.split()
    try:
        globals()["by_" + way](host)
    except PermissionError as error:
        return error.strerror
    except OSError as error:
        return f"tried: {type(error).__name__}"
    return "tried"


@hookimpl
async def appliance_reply_text(call, text):
    try:
        async with asyncio.timeout(0.1):
            await asyncio.open_connection(text, 9)
    except PermissionError as error:
        return error.strerror
    except (OSError, TimeoutError) as error:
        return f"tried: {type(error).__name__}"
    return "tried"
'''


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Budgets that a loaded machine keeps, too, at both ends."""
    monkeypatch.setenv("HOOK_BUDGET_S", "20")
    for hook, rule in HOOKS.items():
        monkeypatch.setitem(HOOKS, hook, replace(rule, budget_s=20.0))


async def test_plugins_connect_to_listed_hosts_alone(tmp_path: Path) -> None:
    real = RealHost(tmp_path, module=QUICK, hang_s=10.0, egress=["192.0.2.0/24"])
    real.write("connects", PLUGIN)
    async with real.running():
        hooks = await real.hooks({"connects": {}})

        async def way(words: str) -> Any:
            return await hooks.chain("final_transcript", call(), words)

        for words in ("socket 198.51.100.7", "smtp 198.51.100.7", "http mail.example.com", "datagram 198.51.100.7"):
            assert await way(words) == REFUSED.format(words.split()[1]), words
        assert await hooks.chain("reply_text", call(), "198.51.100.7") == REFUSED.format("198.51.100.7")
        for words in ("socket 192.0.2.7", "socket 127.0.0.1"):
            assert (await way(words)).startswith("tried"), words
        assert (await hooks.chain("reply_text", call(), "127.0.0.1")).startswith("tried")


def test_a_listed_name_may_be_connected_to_where_it_is() -> None:
    outgoing = Outgoing(["api.example.com", "*.example.org"])

    def resolve(host: str, *_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", 443))]

    with pytest.raises(PermissionError, match="egress does not list"):
        outgoing.check("192.0.2.7")
    looking_up = outgoing.looking_up(resolve)
    looking_up("elsewhere.example.com", 443)
    with pytest.raises(PermissionError, match="egress does not list"):
        outgoing.check("192.0.2.7")
    looking_up("smtp.example.org", 443)
    outgoing.check("192.0.2.7")
    outgoing.audit("socket.getaddrinfo", ("api.example.com", 443, 0, 0, 0))
    with pytest.raises(PermissionError, match=r"egress does not list example\.net"):
        outgoing.audit("socket.getaddrinfo", (b"example.net", 443, 0, 0, 0))


def test_sockets_of_the_machine_itself_pass() -> None:
    outgoing = Outgoing([])
    with socket.socket(socket.AF_UNIX) as local, socket.socket(socket.AF_INET6) as other:
        outgoing.audit("socket.connect", (local, "/run/a.sock"))
        outgoing.audit("socket.connect", (other, ("::1", 25, 0, 0)))
        with pytest.raises(PermissionError):
            outgoing.audit("socket.connect", (other, ("2001:db8::1%eth0", 25, 0, 0)))


@pytest.mark.parametrize("egress", [None, [], ["api.example.com"]])
def test_the_host_is_started_with_the_list(egress: list[str] | None) -> None:
    specs = {spec.name: spec for spec in plan(frozenset({0, 1}), Settings(egress=egress))}
    told = "--egress" in specs["plugins"].arguments
    assert told == (egress is not None)
