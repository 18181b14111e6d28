"""The carrier that docs/carriers.md writes: it is the one that runs here, text for text."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from appliance.api import Audio, CarrierError, Key, Marked, Started, Stopped, StreamAddress, StreamRequest
from appliance.signalling.builtin_carriers import carrier_registry
from tests.carriers import acme
from tests.signalling.fake_box import FakeBox, running, serving

DOC = Path(__file__).parents[2] / "docs" / "carriers.md"
KEY = "k3y"


def test_the_page_shows_this_code() -> None:
    shown = "\n".join(part.partition("```")[0] for part in DOC.read_text().split("```python\n")[1:])
    source = Path(acme.__file__).read_text()
    parts = [part.strip() for part in source.split("\n# --- ")]
    assert len(parts) == 4
    for part in parts:
        assert part.partition("\n")[2].strip() in shown, part.partition("\n")[0]


def test_it_is_a_kind_of_trunk() -> None:
    registry = carrier_registry([("acme", acme)])
    assert "acme" in registry.kinds
    assert registry.problems == []
    assert registry.mistakes("acme", {"api_key": KEY, "public_url": "https://voice.example.com"}) == []
    assert registry.mistakes("acme", {"api_key": KEY})


def test_its_frames() -> None:
    stream = acme.open_stream(StreamRequest("s3cret"))
    assert stream.receive('{"type":"begin","call":"c1"}') == [Started("c1", "c1", "pcmu", 8000, token="s3cret")]
    assert stream.receive(bytes(160)) == [Audio(1, bytes(160))]
    assert stream.receive('{"type":"key","key":"5"}') == [Key("5")]
    assert stream.receive('{"type":"played","name":"0.800"}') == [Marked("0.800")]
    assert stream.receive('{"type":"news"}') == []
    assert stream.media(b"abc") == b"abc"
    assert [*stream.mark("a"), *stream.clear(), *stream.goodbye()] == ['{"type":"mark","name":"a"}', '{"type":"clear"}']
    assert stream.receive('{"type":"end"}') == [Stopped()]


BEGIN = '{"type":"begin","call":"c"}'


@pytest.mark.parametrize(
    "messages",
    [
        [""], ["x"], ["{}"], ["[" * 10_000], ["x" * 70_000], [b""], [bytes(160)], ['{"type":"key","key":"1"}'],
        [BEGIN, BEGIN], [BEGIN, b""], [BEGIN, bytes(20_000)], [BEGIN, '{"type":"key","key":"12"}'],
        [BEGIN, '{"type":7}'], [BEGIN, '{"type":"\\ud800"}'], [BEGIN, *['{"type":"news"}'] * 60],
    ],
)  # fmt: skip
def test_what_it_refuses(messages: list[str | bytes]) -> None:
    stream = acme.open_stream(StreamRequest("t"))
    with pytest.raises(CarrierError):
        for message in messages:
            stream.receive(message)


@asynccontextmanager
async def trunk() -> AsyncIterator[tuple[FakeBox, str, list[tuple[str, Any]]]]:
    asked: list[tuple[str, Any]] = []

    async def api(request: web.Request) -> web.Response:
        asked.append((request.path, await request.json()))
        return web.json_response({})

    app = web.Application()
    app.router.add_post("/{path:.*}", api)
    async with running(app) as port:
        options = acme.AcmeOptions.model_validate(
            {"api_key": KEY, "public_url": "https://voice.example.com", "api_url": f"http://127.0.0.1:{port}"}
        )
        async with serving(lambda box: acme.AcmeCarrier(options, box), "/acme") as (box, _, url):
            yield box, url, asked


async def tell(box: FakeBox, url: str, event: str, key: str = KEY, **said: str) -> int:
    body = json.dumps({"event": event, "call": "c1", **said}).encode()
    headers = {"X-Acme-Hmac": hmac.new(key.encode(), body, hashlib.sha256).hexdigest()}
    async with box.http.post(url + "/events", data=body, headers=headers) as response:
        return response.status


async def test_its_calls() -> None:
    async with trunk() as (box, url, asked):
        assert box.carrier is not None
        stream = StreamAddress(box.carrier.stream_url("s3cret"), "s3cret")
        box.decide = lambda call: call.answer(stream)
        assert await tell(box, url, "incoming", key="wrong", to="100") == 403
        assert await tell(box, url, "incoming", to="100", **{"from": "200"}) == 200
        assert await tell(box, url, "incoming", to="100") == 200
        (one,) = box.admitted
        assert (one.incoming.called, one.incoming.calling) == ("100", "200")
        await asyncio.gather(*box.tasks)
        assert asked == [("/calls/c1/answer", {"stream": "wss://voice.example.com/acme/media/s3cret"})]
        assert await tell(box, url, "ended") == 200
        assert one.box_call.overs == [(200, "hung up")]
        await one.call.hangup()
        assert len(asked) == 1, "it has ended there"
