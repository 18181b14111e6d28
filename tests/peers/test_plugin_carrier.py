"""The carrier of docs/carriers.md as an operator's plugin: a whole box takes a call of it over real sockets."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from appliance.cli.box import HOST, Box
from appliance.cli.carrier_caller import CarrierCaller, Message
from appliance.cli.playout import Codec
from appliance.cli.stream_caller import connect
from appliance.errors import CarrierError
from tests.bench import lines, records
from tests.carriers import acme
from tests.signalling.fake_box import running

pytestmark = pytest.mark.peer

KEY, CALLER = "k3y", "+491701234567"


class AcmeCaller(CarrierCaller):
    """The stream of a caller, as Acme opens it."""

    name = "acme"

    def __init__(self) -> None:
        super().__init__(Codec("pcmu", 8000))

    def hello(self) -> list[Message]:
        return [json.dumps({"type": "begin", "call": "c1"})]

    def audio(self, payload: bytes, number: int) -> list[Message]:
        return [payload]

    def key(self, digit: str) -> list[Message]:
        return [json.dumps({"type": "key", "key": digit})]

    def marked(self, name: str) -> list[Message]:
        return [json.dumps({"type": "played", "name": name})]

    def goodbye(self) -> list[Message]:
        return [json.dumps({"type": "end"})]

    def take(self, message: Message, now: float) -> None:
        if isinstance(message, bytes):
            self.heard_audio(message, now)
        elif (told := json.loads(message))["type"] == "mark":
            self.heard_mark(told["name"], now)
        elif told == {"type": "clear"}:
            self.heard_clear(now)
        else:
            raise CarrierError(f"{message!r} is none of Acme's messages")


class Account:
    """Acme's API: what the box has asked of the call."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[tuple[str, dict[str, str]]] = asyncio.Queue()

    async def api(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == f"Bearer {KEY}"
        self.asked.put_nowait((request.path, await request.json()))
        return web.json_response({})

    async def next(self) -> tuple[str, dict[str, str]]:
        return await asyncio.wait_for(self.asked.get(), 20.0)


async def tell(box: Box, event: str, **said: str) -> int:
    """A webhook of Acme's, signed; the status that it gets."""
    body = json.dumps({"event": event, "call": "c1", **said}).encode()
    headers = {"X-Acme-Hmac": hmac.new(KEY.encode(), body, hashlib.sha256).hexdigest()}
    async with aiohttp.ClientSession() as http:
        url = f"http://{HOST}:{box.http_port}/acme/events"
        async with http.post(url, data=body, headers=headers, timeout=aiohttp.ClientTimeout(10)) as answer:
            return answer.status


@pytest.fixture
async def account() -> AsyncIterator[tuple[Account, int]]:
    made = Account()
    app = web.Application()
    app.router.add_post("/{path:.*}", made.api)
    async with running(app) as port:
        yield made, port


async def test_a_call_of_a_plugins_carrier_is_answered_keyed_and_ended(
    account: tuple[Account, int], start_box: Callable[..., Box], tmp_path: Path
) -> None:
    acme_side, port = account
    (tmp_path / "plugins").mkdir()
    shutil.copy(Path(acme.__file__), tmp_path / "plugins" / "acme.py")
    trunk = {
        "kind": "acme",
        "api_key": KEY,
        "public_url": f"http://{HOST}:1",
        "api_url": f"http://{HOST}:{port}",
    }
    settings = {
        **lines.settings(tmp_path),
        "plugins.paths": [str(tmp_path / "plugins")],
        "plugins.enabled": ["acme"],
        "plugins.media": ["acme"],
        "trunks": {"acme": trunk},
    }
    box = await asyncio.to_thread(start_box, settings)
    assert await tell(box, "incoming", to=lines.KEYS, **{"from": CALLER}) == 200
    path, body = await acme_side.next()
    assert path == "/calls/c1/answer"
    caller = AcmeCaller()
    caller.begin(await connect(body["stream"]))
    await caller.wait_heard()
    caller.press("2")
    assert await acme_side.next() == ("/calls/c1/hangup", {})
    (record,) = await asyncio.to_thread(records.wait_settled, box.database, 1)
    await caller.hang_up()
    assert (record["disposition"], record["hangup_by"], record["protocol"]) == ("completed", "agent", "acme")
    assert (record["calling"], record["called"], record["trunk"]) == (CALLER, lines.KEYS, "acme")
    assert "pressed two" in record["turns"][-1]["agent_text"]
    assert not caller.violations
