"""What Telnyx is to the control process, small: it signs webhooks as Telnyx does, and takes commands as its API does.

Which fields a command must have and may have, and which values, is as in Telnyx's published OpenAPI description.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from appliance.signalling.telnyx import TelnyxCarrier, TelnyxOptions
from tests.signalling.fake_box import FakeBox, running, serving
from tests.waiting import LIMIT_S

NOW = 1_790_000_000
API_KEY = "KEY0123_secret"
_STREAM = {
    "stream_url": str, "stream_track": {"inbound_track", "outbound_track", "both_tracks"},
    "stream_codec": {"PCMU", "PCMA", "G722", "OPUS", "AMR-WB", "L16", "default"},
    "stream_bidirectional_mode": {"mp3", "rtp"},
    "stream_bidirectional_codec": {"PCMU", "PCMA", "G722", "OPUS", "AMR-WB", "L16"},
}  # fmt: skip
COMMANDS: dict[str, tuple[set[str], dict[str, Any]]] = {
    "answer": (set(), _STREAM),
    "streaming_start": ({"stream_url"}, _STREAM),
    "streaming_stop": (set(), {}),
    "hangup": (set(), {}),
    "reject": ({"cause"}, {"cause": {"CALL_REJECTED", "NOT_FOUND", "TEMPORARILY_UNAVAILABLE", "USER_BUSY"}}),
    "transfer": ({"to"}, {"to": str, "timeout_secs": int, "target_leg_client_state": str}),
    "bridge": ({"call_control_id"}, {"call_control_id": str}),
    "send_dtmf": ({"digits"}, {"digits": str}),
    "dial": (
        {"connection_id", "to", "from"},
        {"connection_id": str, "to": str, "from": str, "timeout_secs": int, "client_state": str},
    ),
}


def wrong(command: str, body: dict[str, Any]) -> str:
    """What Telnyx would find wrong with a command, "" for nothing."""
    if command not in COMMANDS:
        return f"no such command: {command}"
    needed, known = COMMANDS[command]
    if missing := needed - set(body):
        return f"missing: {missing}"
    for name, value in body.items():
        form = known.get(name, str if name == "command_id" else None)
        if form is None or (isinstance(value, str) and value not in form if isinstance(form, set) else False):
            return f"{name}={value!r}"
        if not isinstance(form, set) and type(value) is not form:
            return f"{name} is {type(value).__name__}"
    for name in ("client_state", "target_leg_client_state"):
        base64.b64decode(body.get(name, ""), validate=True)
    return ""


@dataclass
class Edge:
    """A running trunk, and Telnyx on both sides of it. ``answers``: (status, body) of the API to the next commands.

    A status of 0 breaks the connection off. Nothing is answered while ``held`` is set.
    """

    box: FakeBox
    carrier: TelnyxCarrier
    url: str
    key: Ed25519PrivateKey
    asked: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    answers: list[tuple[int, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    held: asyncio.Event | None = None

    def signed(self, body: bytes, at: float = NOW) -> dict[str, str]:
        stamp = str(int(at))
        signature = base64.b64encode(self.key.sign(stamp.encode() + b"|" + body)).decode()
        return {"telnyx-timestamp": stamp, "telnyx-signature-ed25519": signature, "Content-Type": "application/json"}

    async def raw(self, body: bytes, headers: dict[str, str]) -> tuple[int, str]:
        async with self.box.http.post(self.url + "/webhook", data=body, headers=headers) as response:
            return response.status, await response.text()

    async def tell(self, event: str, call_id: str = "v3:one", **payload: Any) -> None:
        """A webhook as Telnyx sends it."""
        body = json.dumps(
            {
                "data": {
                    "record_type": "event", "event_type": event, "id": "0ccc", "occurred_at": "2026-11-21T12:00:00Z",
                    "payload": {"call_control_id": call_id, "connection_id": "7267", "client_state": None, **payload},
                },
                "meta": {"attempt": 1, "delivered_to": self.url},
            }
        ).encode()  # fmt: skip
        assert await self.raw(body, self.signed(body)) == (200, "")

    async def incoming(self, call_id: str = "v3:one", **payload: Any) -> None:
        said = {"direction": "incoming", "from": "+15550001", "to": "+15550002", "state": "parked", **payload}
        await self.tell("call.initiated", call_id, **said)

    async def api(self, request: web.Request) -> web.Response:
        body = await request.json()
        parts = request.path.split("/")
        call_id, command = (parts[3], parts[5]) if len(parts) == 6 else ("", "dial")
        self.keys.append(body["command_id"])
        self.asked.append((command, call_id, {k: v for k, v in body.items() if k != "command_id"}))
        self.news.set()
        self.news.clear()
        if self.held is not None:
            await self.held.wait()
        if self.answers:
            status, answer = self.answers.pop(0)
            if not status:
                assert request.transport is not None
                request.transport.abort()
            return web.json_response(answer, status=status)
        if request.headers.get("Authorization") != f"Bearer {API_KEY}":
            return web.json_response({"errors": [{"code": "10009", "title": "Authentication failed"}]}, status=401)
        if problem := wrong(command, body):
            return web.json_response({"errors": [{"code": "10015", "title": problem}]}, status=422)
        if command == "dial":
            return web.json_response({"data": {"call_control_id": "v3:placed", "record_type": "call"}})
        return web.json_response({"data": {"result": "ok"}})

    async def asked_for(self, count: int) -> list[tuple[str, str, dict[str, Any]]]:
        """The commands, once there are so many."""
        async with asyncio.timeout(LIMIT_S):
            while len(self.asked) < count:
                await self.news.wait()
        return self.asked


@asynccontextmanager
async def edge(**options: Any) -> AsyncIterator[Edge]:
    """A trunk at ``/telnyx``, and an API."""
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    edges: list[Edge] = []
    api = web.Application()

    async def to_api(request: web.Request) -> web.Response:
        return await edges[0].api(request)

    api.router.add_post("/v2/calls{path:.*}", to_api)
    async with running(api) as port:
        given = {
            "api_key": API_KEY, "public_key": base64.b64encode(public).decode(), "connection_id": "7267",
            "public_url": "https://voice.example.com", "api_url": f"http://127.0.0.1:{port}", **options,
        }  # fmt: skip
        made = TelnyxOptions.model_validate(given)
        async with serving(lambda box: TelnyxCarrier(made, box, now=lambda: float(NOW)), "/telnyx") as (
            box,
            carrier,
            url,
        ):
            assert isinstance(carrier, TelnyxCarrier)
            edges.append(Edge(box, carrier, url, key))
            yield edges[0]
