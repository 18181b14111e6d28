"""What no peer should send, to a whole box: the socket is closed with a reason, and the box goes on as if nothing were.

Each case is a connection of its own; where it needs a stream that has begun, a call is made for it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import WSMsgType, web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twilio.request_validator import RequestValidator

from appliance.cli.box import HOST, Box, free_port
from tests.bench import lines
from tests.carriers.at_twilio import PUBLIC, SID, TOKEN
from tests.carriers.malformed import AUDIOSOCKET_CALL, CORPUS, START, STARTS, Case, Raw
from tests.signalling.fake_box import running
from tests.waiting import LIMIT_S

pytestmark = [pytest.mark.peer, pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]
KEY = Ed25519PrivateKey.generate()
CLOSE_CODES = (1007, 1008, 1009)
"""Not UTF-8, against the protocol, too large: the reasons of WebSocket itself. The second has words with it."""


class Peers:
    """A box with a trunk of each kind, and what its carriers' APIs are told."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self.http = http
        self.box: Box
        self.audiosocket_port = free_port()
        self.streams: dict[str, asyncio.Future[str]] = {}

    async def api(self, request: web.Request) -> web.Response:
        """Telnyx's takes the answer to a call; nothing else is there."""
        *_, call_id, _, action = request.path.split("/") if "/actions/" in request.path else ("", "", "")
        if action != "answer":
            return web.json_response({"errors": [{"title": "gone"}]}, status=404)
        self.streams[call_id].set_result((await request.json())["stream_url"])
        return web.json_response({"data": {"result": "ok"}})

    def trunks(self, api_url: str) -> dict[str, object]:
        public = base64.b64encode(KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()
        allow = [f"{HOST}/32"]
        where = {"public_url": PUBLIC, "api_url": api_url}
        return {
            "twilio": {"kind": "twilio", "account_sid": SID, "auth_token": TOKEN, **where},
            "telnyx": {"kind": "telnyx", "api_key": "k", "public_key": public, **where},
            "pbx": {"kind": "pbx", "allow": allow, "called": lines.LISTENER},
            "asterisk": {"kind": "audiosocket", "allow": allow, "called": lines.LISTENER},
            "phone": {"kind": "browser", "allow": allow},
        }

    async def begin(self, kind: str) -> tuple[str, str]:
        """A call, where the kind needs one: the path of its stream, and the message that begins it."""
        make: Callable[[], Any] | None = getattr(self, f"_{kind}", None)
        return ("", STARTS[kind]) if make is None else await make()

    async def post(self, path: str, data: bytes, headers: dict[str, str]) -> str:
        async with self.http.post(f"http://{HOST}:{self.box.http_port}{path}", data=data, headers=headers) as told:
            assert told.status == 200, await told.text()
            return await told.text()

    async def _twilio(self) -> tuple[str, str]:
        form = {
            "AccountSid": SID, "CallSid": f"CA{uuid.uuid4().hex}", "CallStatus": "ringing", "Direction": "inbound",
            "From": "+4917012345", "To": lines.LISTENER, "ApiVersion": "2010-04-01",
        }  # fmt: skip
        signature = RequestValidator(TOKEN).compute_signature(f"{PUBLIC}/twilio/voice", form)
        body = aiohttp.FormData(form)()
        assert isinstance(body, aiohttp.BytesPayload)
        headers = {"X-Twilio-Signature": signature, "Content-Type": "application/x-www-form-urlencoded"}
        twiml = await self.post("/twilio/voice", body._value, headers)
        found = re.search(r'<Parameter name="token" value="([^"]+)"', twiml)
        assert found is not None, twiml
        return "", STARTS["twilio"].replace('"s3cret"', f'"{found[1]}"')

    async def _telnyx(self) -> tuple[str, str]:
        call_id = f"v3-{uuid.uuid4().hex}"
        payload = {"call_control_id": call_id, "direction": "incoming", "from": "+4917012345", "to": lines.LISTENER}
        body = json.dumps({"data": {"event_type": "call.initiated", "payload": payload}}).encode()
        stamp = str(int(time.time()))
        signature = base64.b64encode(KEY.sign(stamp.encode() + b"|" + body)).decode()
        self.streams[call_id] = asyncio.get_running_loop().create_future()
        await self.post("/telnyx/webhook", body, {"telnyx-timestamp": stamp, "telnyx-signature-ed25519": signature})
        url = await asyncio.wait_for(self.streams[call_id], LIMIT_S)
        return url.rpartition("/media")[2], STARTS["telnyx"]

    async def _browser(self) -> tuple[str, str]:
        body = json.dumps({"called": lines.LISTENER}).encode()
        headers = {"Content-Type": "application/json", "Origin": f"http://{HOST}:{self.box.http_port}"}
        told = json.loads(await self.post("/browser/calls", body, headers))
        return "", STARTS["browser"].replace('"s3cret"', json.dumps(told["token"]))

    def url(self, kind: str, path: str) -> str:
        return f"ws://{HOST}:{self.box.settings['listen.media.port']}/{kind}/media{path}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def peers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Peers]:
    """One box for the cases of all kinds; nothing that they do is an error of its own."""
    folder = tmp_path_factory.mktemp("malformed")
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as http:
        made = Peers(http)
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", made.api)
        async with running(app) as port:
            settings = {
                **lines.settings(folder), "trunks": made.trunks(f"http://{HOST}:{port}"), "limits.max_cps": 300,
                "listen.streams": [{"kind": "audiosocket", "host": HOST, "port": made.audiosocket_port}],
            }  # fmt: skip
            made.box = Box(folder / "box", settings)
            await asyncio.to_thread(made.box.start)
            yield made
            assert await asyncio.to_thread(made.box.stop) == 0, made.box.log_tail()
    log = made.box.log.read_text()
    assert [line for line in log.splitlines() if "ERROR" in line or "Traceback" in line] == []


async def over_websocket(peers: Peers, kind: str, case: Case) -> str:
    """What became of a case, "" where it is as it should be."""
    path, start = await peers.begin(kind) if START in case.messages else ("/none" if kind == "telnyx" else "", "")
    async with peers.http.ws_connect(peers.url(kind, path), max_msg_size=0) as socket:
        with contextlib.suppress(ConnectionError):
            for one in case.messages:
                if isinstance(one, Raw):
                    await socket._writer.send_frame(one.payload, WSMsgType.TEXT)
                elif isinstance(one, bytes):
                    await socket.send_bytes(one)
                else:
                    await socket.send_str(start if one == START else one)
        if not case.refused:
            await socket.close()
            return "" if socket.close_code not in CLOSE_CODES else f"closed with {socket.close_code}"
        reason: object = None
        async with asyncio.timeout(LIMIT_S):
            while (message := await socket.receive()).type in (WSMsgType.TEXT, WSMsgType.BINARY):
                pass
            if message.type is WSMsgType.CLOSE:
                reason = message.extra
        if socket.close_code not in CLOSE_CODES or (socket.close_code == 1008 and not reason):
            return f"closed with {socket.close_code} {reason!r}"
        return ""


async def over_tcp(peers: Peers, case: Case) -> str:
    reader, writer = await asyncio.open_connection(HOST, peers.audiosocket_port)
    try:
        with contextlib.suppress(ConnectionError):
            for one in case.messages:
                assert isinstance(one, bytes)
                writer.write(one)
                await writer.drain()
        if case.refused:
            async with asyncio.timeout(LIMIT_S):
                with contextlib.suppress(ConnectionError):
                    while await reader.read(4096):
                        pass
        return ""
    except TimeoutError:
        return "not closed"
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def is_answered(peers: Peers, kind: str) -> None:
    """A good call hears something."""
    async with asyncio.timeout(LIMIT_S):
        if kind == "audiosocket":
            reader, writer = await asyncio.open_connection(HOST, peers.audiosocket_port)
            writer.write(AUDIOSOCKET_CALL)
            assert (await reader.readexactly(3))[0] == 0x10
            writer.close()
            await writer.wait_closed()
            return
        path, start = await peers.begin(kind)
        async with peers.http.ws_connect(peers.url(kind, path)) as socket:
            await socket.send_str(start)
            told = await socket.receive()
            assert told.type is WSMsgType.BINARY or '"media"' in str(told.data), told


@pytest.mark.parametrize("kind", sorted(CORPUS))
async def test_what_no_peer_should_send(peers: Peers, kind: str) -> None:
    wrong = {}
    for case in CORPUS[kind]:
        found = await (over_tcp(peers, case) if kind == "audiosocket" else over_websocket(peers, kind, case))
        if found:
            wrong[case.name] = found
    assert wrong == {}
    await is_answered(peers, kind)
