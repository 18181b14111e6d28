"""Bodies of webhooks that break off, are late, too long, or not packed as they say: strangers send them too."""

from __future__ import annotations

import asyncio
import gzip
import logging
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
from aiohttp import web

from appliance.api import web_carrier
from appliance.api.web_carrier import MAX_BODY, read_body
from tests.signalling import telnyx_edge, twilio_edge
from tests.signalling.fake_box import running
from tests.waiting import LIMIT_S

PACKED = gzip.compress(b"CallSid=CA1&" * 50, mtime=0)
FORM = twilio_edge.FORM


@asynccontextmanager
async def trunk(kind: str) -> AsyncIterator[tuple[int, str, dict[str, str]]]:
    """A port, the path of a webhook there, and headers with which its body is read."""
    if kind == "twilio":
        async with twilio_edge.edge() as twilio:
            yield twilio.port, "/twilio/voice", {"X-Twilio-Signature": "x", "Content-Type": FORM}
    else:
        async with telnyx_edge.edge() as telnyx:
            port = int(telnyx.url.partition("://")[2].partition(":")[2].partition("/")[0])
            path = "/" + telnyx.url.split("/", 3)[3] + "/webhook"
            yield port, path, {"telnyx-signature-ed25519": "x", "Content-Type": "application/json"}


async def said(port: int, path: str, headers: dict[str, str], body: bytes) -> tuple[int, str]:
    """Status and text of the answer to a request, written as it is."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode() + body)
        async with asyncio.timeout(LIMIT_S):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = next(line for line in head.lower().splitlines() if line.startswith("content-length:"))
            text = await reader.readexactly(int(length.partition(":")[2]))
        return int(head.split(" ", 2)[1]), text.decode()
    finally:
        writer.close()


@pytest.mark.parametrize("kind", ["twilio", "telnyx"])
@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("gzip", b"this is not packed", 400),
        ("gzip", PACKED[:10] + b"\xff" * 30, 400),
        ("deflate", b"\xff" * 30, 400),
        ("gzip", gzip.compress(b"a" * 10_000_000, mtime=0), 413),
        ("identity", b"a" * (MAX_BODY + 1), 413),
    ],
)
async def test_a_body_that_cannot_be_read_is_the_sender_s_fault(
    kind: str, encoding: str, body: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with trunk(kind) as (port, path, headers):
        sent = {**headers, "Content-Encoding": encoding, "Content-Length": str(len(body))}
        assert (await said(port, path, sent, body))[0] == status
        await asyncio.sleep(0.05)
        assert not [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR]


@pytest.mark.parametrize(
    ("more", "body"),
    [
        ({"Transfer-Encoding": "chunked"}, b"zz\r\nabc\r\n"),
        ({"Content-Encoding": "deflate", "Content-Length": "12"}, zlib.compress(b"a" * 100)[:4] + b"12345678"),
    ],
)
async def test_what_the_server_itself_finds_broken(more: dict[str, str], body: bytes) -> None:
    async with trunk("twilio") as (port, path, headers):
        assert (await said(port, path, {**headers, **more}, body))[0] == 400


async def test_a_body_that_does_not_come_is_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    async def take(request: web.Request) -> web.Response:
        return web.Response(body=await read_body(request, 0.05))

    app = web.Application()
    app.router.add_post("/", take)
    async with running(app) as port:
        status, text = await said(port, "/", {"Content-Length": "10"}, b"abc")
        assert (status, text) == (408, "the body took too long")
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("kind", ["twilio", "telnyx"])
async def test_without_a_signature_nothing_is_read(kind: str) -> None:
    """The body is promised and does not come: the answer does."""
    async with trunk(kind) as (port, path, headers):
        bare = {"Content-Type": headers["Content-Type"], "Content-Length": "1000"}
        assert (await said(port, path, bare, b""))[0] == 403


@pytest.mark.parametrize("kind", ["twilio", "telnyx"])
async def test_a_late_body_is_refused_at_every_carrier(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.signalling.twilio_webhooks.read_body", partial(read_body, limit_s=0.05))
    monkeypatch.setattr(web_carrier, "read_body", partial(read_body, limit_s=0.05))
    async with trunk(kind) as (port, path, headers):
        assert (await said(port, path, {**headers, "Content-Length": "10"}, b"abc"))[0] == 408
