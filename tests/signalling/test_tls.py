"""Whom a certificate is for, and certificates that change on disk."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.errors import ApplianceError
from appliance.signalling import tls
from appliance.signalling.tls import (
    TlsClient,
    TlsContexts,
    TlsServer,
    _stamp,
    certificate_domains,
    certificate_is_for,
)
from tests.waiting import LIMIT_S

from ..certificates import Authority


@pytest.mark.parametrize(
    ("names", "domain", "good"),
    [
        ([("DNS", "sip.example.net")], "SIP.example.net.", True),
        ([("DNS", "sip.example.net")], "example.net", False),
        ([("DNS", "*.example.net")], "sip.example.net", True),
        ([("DNS", "*.example.net")], "a.sip.example.net", False),
        ([("DNS", "*.net")], "example.net", False),
        ([("DNS", "*")], "example.net", False),
        ([("URI", "sip:example.net"), ("DNS", "other.net")], "example.net", True),
        ([("URI", "sip:example.net"), ("DNS", "other.net")], "other.net", False),
        ([("URI", "sip:user@example.net"), ("DNS", "other.net")], "example.net", False),
        ([("URI", "sips:example.net")], "example.net", False),
        ([("IP Address", "10.0.0.1")], "10.0.0.1", True),
        ([("IP Address", "2001:DB8:0:0:0:0:0:1")], "[2001:db8::1]", True),
        ([("DNS", "10.0.0.1")], "10.0.0.2", False),
        ([], "common.example", True),
        ([("DNS", "other.net")], "common.example", False),
        ([("IP Address", "10.0.0.1")], "common.example", False),
    ],
)
def test_whom_a_certificate_is_for(names: list[tuple[str, str]], domain: str, good: bool) -> None:
    certificate = {"subject": ((("commonName", "common.example"),),), "subjectAltName": tuple(names)}
    assert certificate_is_for(certificate, domain) is good


def test_a_certificate_of_nobody() -> None:
    assert certificate_domains({}) == ()
    assert not certificate_is_for({}, "example.net")


async def shown(port: int, ca: Path) -> dict[str, Any]:
    """The certificate that a listener shows now."""
    context = ssl.create_default_context(cafile=ca)
    context.check_hostname = False
    async with asyncio.timeout(LIMIT_S):
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        certificate: dict[str, Any] = writer.get_extra_info("peercert")
        writer.close()
        await writer.wait_closed()
    return certificate


async def test_a_replaced_certificate_is_shown_to_new_connections_and_old_ones_stay_up(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    first = authority.issue("first.example", "127.0.0.1")
    contexts = TlsContexts()
    context = contexts.server(TlsServer(first.cert, first.key))
    echoed: list[asyncio.StreamWriter] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        echoed.append(writer)
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    client = ssl.create_default_context(cafile=authority.ca)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
    assert not await contexts.changed()
    authority.issue("second.example", "127.0.0.1")
    assert await contexts.changed()
    contexts.reload()
    assert not await contexts.changed()
    assert ("DNS", "second.example") in (await shown(port, authority.ca))["subjectAltName"]
    writer.write(b"still here\n")
    async with asyncio.timeout(LIMIT_S):
        assert await reader.readline() == b"still here\n"
    writer.close()
    await writer.wait_closed()
    server.close()
    for one in echoed:
        one.close()
    await server.wait_closed()


async def test_files_can_be_added_while_the_others_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    contexts = TlsContexts()
    contexts.server(TlsServer(authority.issue("a.example", file="one").both))
    looking, go_on = threading.Event(), threading.Event()

    def slow(path: Path) -> tuple[int, int] | None:
        if threading.current_thread() is not threading.main_thread():
            looking.set()
            go_on.wait(5.0)
        return _stamp(path)

    monkeypatch.setattr(tls, "_stamp", slow)
    look = asyncio.create_task(contexts.changed())
    await asyncio.to_thread(looking.wait, 5.0)
    contexts.client(TlsClient(ca=authority.ca))
    go_on.set()
    assert not await look


@pytest.mark.parametrize(
    "spoil", [lambda cert: cert.unlink(), lambda cert: cert.write_text("nothing")], ids=["gone", "broken"]
)
async def test_a_broken_replacement_is_not_used(
    tmp_path: Path, spoil: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    pair = Authority(tmp_path).issue("first.example")
    contexts = TlsContexts()
    context = contexts.server(TlsServer(pair.both))
    spoil(pair.both)
    assert await contexts.changed()
    contexts.reload()
    assert "the certificate in use is kept" in caplog.text
    assert contexts.server(TlsServer(pair.both)) is context


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    one, other = authority.issue("a.example", file="one"), authority.issue("b.example", file="other")
    with pytest.raises(ApplianceError, match=r"one-cert\.pem and .*other-key\.pem: the key is not the certificate's"):
        TlsContexts().server(TlsServer(one.cert, other.key))
    with pytest.raises(ApplianceError, match=r"missing\.pem: No such file"):
        TlsContexts().client(TlsClient(ca=tmp_path / "missing.pem"))
    with pytest.raises(ApplianceError, match=r"give a PEM file as tls\.ca"):
        TlsContexts().client(TlsClient(ca=one.key))
