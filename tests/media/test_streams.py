"""The media process's sockets for streams: who is let in, whose audio a connection is, and how it is ended."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from multidict import CIMultiDict

from appliance.carriers.audiosocket import message
from appliance.cli.box import free_port
from appliance.config import Settings
from appliance.ipc.messages import AnyMessage, ConnectStream, StreamEnded, StreamOffered, StreamStarted
from appliance.ipc.rings import AudioRings
from appliance.media import streams
from appliance.media.leg import MediaLeg
from appliance.media.playout import Playout
from appliance.media.streams import StreamServer
from appliance.media.tick import AudioClock
from appliance.plugins.streams import stream_kinds
from tests.waiting import LIMIT_S, eventually

GENERATION = 5


class Media:
    """The server over a clock that nothing drives."""

    def __init__(self, **settings: Any) -> None:
        self.port, self.tcp_port = free_port(), free_port()
        given = {
            "listen": {
                "media": {"port": self.port},
                "streams": [{"kind": "audiosocket", "host": "127.0.0.1", "port": self.tcp_port}],
                **settings.pop("listen", {}),
            },
            "trunks": {
                "twilio": {"kind": "twilio"},
                "telnyx": {"kind": "telnyx"},
                "phone": {"kind": "browser"},
                "pbx": {"kind": "pbx", "allow": ["127.0.0.0/8"]},
                "asterisk": {"kind": "audiosocket", "allow": ["127.0.0.1/32"]},
            },
            **settings,
        }
        self.messages: list[AnyMessage] = []
        self.rings = AudioRings.create(8)
        self.clock = AudioClock(self.rings, None, self.messages.append, 30.0)
        self.server = StreamServer(Settings.model_validate(given), stream_kinds(), self.clock, self.messages.append)
        self.http = aiohttp.ClientSession()

    def leg(self, slot: int = 1) -> MediaLeg:
        self.rings.open(slot, GENERATION)
        leg = MediaLeg(slot, GENERATION, None, Playout(self.rings.tts[slot]), 7)
        self.clock.legs[slot] = leg
        return leg

    def expect(self, leg: MediaLeg, token: str, kind: str = "twilio", timeout_s: float = 10.0) -> None:
        self.server.connect(leg, ConnectStream(leg.slot, GENERATION, kind, token, timeout_s))

    async def dial(self, path: str = "/twilio/media", **how: Any) -> aiohttp.ClientWebSocketResponse:
        return await self.http.ws_connect(f"http://127.0.0.1:{self.port}{path}", **how)

    async def refused(self, path: str = "/twilio/media", **how: Any) -> int:
        """The status with which a connection is refused."""
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            await self.dial(path, **how)
        return refusal.value.status

    async def until(self, met: Callable[[], object]) -> None:
        await eventually(met)

    def told(self, kind: type) -> list[Any]:
        return [message for message in self.messages if isinstance(message, kind)]

    async def close(self) -> None:
        await self.http.close()
        await self.server.close()
        self.clock.receiver.close()
        os.close(self.rings.fd)


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., Any]]:
    made: list[Media] = []

    async def start(**settings: Any) -> Media:
        made.append(Media(**settings))
        await made[-1].server.start()
        return made[-1]

    yield start
    for one in made:
        await one.close()


@pytest.fixture
async def media(make: Callable[..., Any]) -> Media:
    found: Media = await make()
    return found


def start(token: str, **changed: Any) -> str:
    fields = {
        "streamSid": "MZ1", "callSid": "CA1", "customParameters": {"token": token},
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}, **changed,
    }  # fmt: skip
    return json.dumps({"event": "start", "start": fields, "streamSid": "MZ1"})


async def closed(socket: aiohttp.ClientWebSocketResponse) -> tuple[int | None, str]:
    """How the box closed it."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            message = await socket.receive()
            if message.type is aiohttp.WSMsgType.CLOSE:
                return message.data, str(message.extra)
            if message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING):
                return socket.close_code, ""


async def test_a_stream_with_its_token_is_the_audio_of_its_leg(media: Media) -> None:
    leg = media.leg()
    media.expect(leg, "secret")
    socket = await media.dial()
    await socket.send_str(start("secret"))
    await media.until(lambda: media.told(StreamStarted))
    assert leg.connected
    (started,) = media.told(StreamStarted)
    assert (started.slot, started.codec, started.rate_hz, started.call_id) == (1, "pcmu", 8000, "CA1")
    await socket.send_str(json.dumps({"event": "stop", "streamSid": "MZ1", "stop": {}}))
    await media.until(lambda: media.told(StreamEnded))
    assert media.told(StreamEnded)[0].orderly
    assert not leg.connected
    assert (await closed(socket))[0] == 1000


async def test_a_token_is_good_once(media: Media) -> None:
    """Whoever has read it on the way cannot open the stream again, while the call is on or afterwards."""
    leg = media.leg()
    media.expect(leg, "secret")
    first, second = await media.dial(), await media.dial()
    await first.send_str(start("secret"))
    await media.until(lambda: leg.connected)
    await second.send_str(start("secret"))
    code, reason = await closed(second)
    assert (code, "token" in reason) == (1008, True)
    assert leg.connected
    await first.close()
    await media.until(lambda: not leg.connected)
    third = await media.dial()
    await third.send_str(start("secret"))
    assert (await closed(third))[0] == 1008


@pytest.mark.parametrize("token", ["", "wrong", "secret "])
async def test_without_its_token_a_stream_is_nobodys(media: Media, token: str) -> None:
    media.expect(media.leg(), "secret")
    socket = await media.dial()
    await socket.send_str(start(token))
    assert (await closed(socket))[0] == 1008
    assert media.told(StreamStarted) == []


async def test_a_token_of_another_kind_of_trunk_opens_nothing(media: Media) -> None:
    leg = media.leg()
    media.expect(leg, "secret", kind="telnyx")
    socket = await media.dial()
    await socket.send_str(start("secret"))
    assert (await closed(socket))[0] == 1008
    other = await media.dial("/telnyx/media/secret")
    form = {"encoding": "PCMU", "sample_rate": 8000, "channels": 1}
    await other.send_str(json.dumps({"event": "start", "start": {"call_control_id": "v3:1", "media_format": form}}))
    await media.until(lambda: leg.connected)


async def test_a_new_token_makes_the_one_before_void(media: Media) -> None:
    leg = media.leg()
    media.expect(leg, "old")
    media.expect(leg, "new")
    late = await media.dial()
    await late.send_str(start("old"))
    assert (await closed(late))[0] == 1008
    socket = await media.dial()
    await socket.send_str(start("new"))
    await media.until(lambda: leg.connected)


async def test_no_stream_in_time_is_told(media: Media) -> None:
    media.expect(media.leg(), "secret", timeout_s=0.0)
    await asyncio.sleep(0.01)
    media.server.sweep()
    (ended,) = media.told(StreamEnded)
    assert (ended.orderly, ended.reason) == (False, "no stream has come")
    late = await media.dial()
    await late.send_str(start("secret"))
    assert (await closed(late))[0] == 1008


async def test_a_connection_that_says_nothing_is_closed(media: Media, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "START_S", 0.0)
    socket = await media.dial()
    await asyncio.sleep(0.01)
    media.server.sweep()
    code, reason = await closed(socket)
    assert code == 1008
    assert "nothing was said" in reason


async def test_a_connection_that_breaks_is_told_as_broken(media: Media) -> None:
    leg = media.leg()
    media.expect(leg, "secret")
    socket = await media.dial()
    await socket.send_str(start("secret"))
    await media.until(lambda: leg.connected)
    transport = socket._response.connection.transport  # type: ignore[union-attr]
    transport.abort()
    await media.until(lambda: media.told(StreamEnded))
    assert not media.told(StreamEnded)[0].orderly


async def test_the_end_of_a_leg_ends_its_stream(media: Media) -> None:
    leg = media.leg()
    media.expect(leg, "secret")
    socket = await media.dial()
    await socket.send_str(start("secret"))
    await media.until(lambda: leg.connected)
    media.server.forget(leg)
    assert (await closed(socket))[0] == 1000
    assert media.told(StreamEnded) == []
    await media.until(lambda: media.server.closed == 1)


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ("not json", "not of twilio"),
        (json.dumps({"event": "media", "media": {"payload": "AAAA"}}), "before start"),
        (start("secret", mediaFormat={"encoding": "opus", "sampleRate": 48000, "channels": 2}), "mu-law"),
    ],
)
async def test_what_breaks_the_protocol_is_answered_in_words(media: Media, sent: str, words: str) -> None:
    media.expect(media.leg(), "secret")
    socket = await media.dial()
    await socket.send_str(sent)
    code, reason = await closed(socket)
    assert code == 1008
    assert words in reason


async def test_a_message_that_is_too_long_is_not_read(media: Media) -> None:
    socket = await media.dial()
    await socket.send_str("x" * 70_000)
    assert (await closed(socket))[0] == 1009


async def test_too_many_messages_end_a_stream(media: Media, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MESSAGE_BURST", 50.0)
    leg = media.leg()
    media.expect(leg, "secret")
    socket = await media.dial()
    await socket.send_str(start("secret"))
    for number in range(200):
        await socket.send_str(json.dumps({"event": "media", "media": {"chunk": str(number), "payload": "AAAA"}}))
    code, reason = await closed(socket)
    assert (code, "messages a second" in reason) == (1008, True)
    assert not leg.connected


async def test_streams_of_one_address_are_limited(make: Callable[..., Any]) -> None:
    media = await make(limits={"streams_per_address": 2})
    kept = [await media.dial(), await media.dial()]
    assert await media.refused() == 429
    await kept.pop().close()
    await media.until(lambda: media.server.closed == 1)
    await (await media.dial()).close()


async def test_those_that_have_not_begun_are_limited(media: Media, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_STARTING", 2)
    leg = media.leg()
    media.expect(leg, "secret")
    begun = await media.dial()
    await begun.send_str(start("secret"))
    await media.until(lambda: leg.connected)
    held = [await media.dial(), await media.dial()]
    assert await media.refused() == 429
    assert len(held) == 2


async def test_there_is_room_for_so_many_streams(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_SPARE_SOCKETS", 0)
    media = await make(limits={"max_calls": 1})
    held = []
    for slot in (1, 2):
        leg = media.leg(slot)
        media.expect(leg, f"secret{slot}")
        held.append(await media.dial())
        await held[-1].send_str(start(f"secret{slot}"))
        await media.until(lambda leg=leg: leg.connected)
    assert await media.refused() == 503


async def test_those_that_have_not_begun_take_no_room_of_calls(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "MAX_SILENT", 2)
    media = await make()
    held = [await media.dial(), await media.dial()]
    assert await media.refused() == 503
    await held.pop().close()
    await media.until(lambda: media.server.closed == 1)
    held.append(await media.dial())


async def test_a_socket_that_asks_for_nothing_is_cut_off(media: Media, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", media.port)
    media.server.sweep()
    monkeypatch.setattr(streams, "START_S", 0.0)
    await asyncio.sleep(0.01)
    media.server.sweep()
    with contextlib.suppress(ConnectionError):
        assert await asyncio.wait_for(reader.read(), LIMIT_S) == b""
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def test_what_is_no_websocket_is_told_so_and_let_go(media: Media, caplog: pytest.LogCaptureFixture) -> None:
    async with media.http.get(f"http://127.0.0.1:{media.port}/twilio/media") as reply:
        assert (reply.status, reply.headers["Connection"]) == (426, "close")
    reader, writer = await asyncio.open_connection("127.0.0.1", media.port)
    writer.write(b"\x16\x03\x01 not HTTP\r\n\r\n")
    await asyncio.wait_for(reader.read(), LIMIT_S)
    writer.close()
    await writer.wait_closed()
    assert not [record for record in caplog.records if record.exc_info], "anybody could fill the log with tracebacks"


@pytest.mark.parametrize("upgrade", [True, False])
async def test_a_request_with_a_body_is_refused_before_the_body_is_read(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, upgrade: bool
) -> None:
    monkeypatch.setattr(streams, "LINGER_S", 0.05)
    media = await make()
    reader, writer = await asyncio.open_connection("127.0.0.1", media.port)
    asked = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" * upgrade
    key = f"Sec-WebSocket-Key: {'A' * 22}==\r\n" * upgrade
    head = f"GET /twilio/media HTTP/1.1\r\nHost: x\r\n{asked}{key}Content-Length: 1000000000\r\n\r\n"
    writer.write(head.encode() + b"a" * 100_000)
    async with asyncio.timeout(LIMIT_S):
        assert (await reader.readline()).split()[1] == b"413"
        with contextlib.suppress(ConnectionError):
            await reader.read()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def test_the_reason_reaches_a_peer_that_goes_on_talking(media: Media) -> None:
    """A connection that is cut off with something unread takes the reason with it."""
    for number in range(10):
        leg = media.leg()
        media.expect(leg, f"secret{number}")
        socket = await media.dial()
        await socket.send_str(start(f"secret{number}"))
        await media.until(lambda leg=leg: leg.connected)
        audio = json.dumps({"event": "media", "media": {"chunk": "1", "payload": "AAAA" * 50}})
        for _ in range(20):
            await socket.send_str(audio)
        media.server.forget(leg)
        for _ in range(5):
            await socket.send_str(audio)
            await asyncio.sleep(0.002)
        assert (await closed(socket))[0] == 1000


async def test_more_audio_than_anybody_can_say_ends_a_stream(media: Media) -> None:
    leg = media.leg()
    media.expect(leg, "secret")
    socket = await media.dial()
    await socket.send_str(start("secret"))
    second = base64.b64encode(bytes(8000)).decode()
    for number in range(10):
        await socket.send_str(json.dumps({"event": "media", "media": {"chunk": str(number), "payload": second}}))
    code, reason = await closed(socket)
    assert (code, "more audio" in reason) == (1008, True)


async def test_a_peer_that_does_not_read_is_cut_off_between_two_ticks(media: Media) -> None:
    """Messages are posted in the middle of a tick over all calls: none of them may go meanwhile."""
    leg = media.leg()
    media.expect(leg, "secret")
    socket = await media.dial()
    await socket.send_str(start("secret"))
    await media.until(lambda: leg.connected)
    assert leg.stream is not None
    for _ in range(1200):
        leg.stream._post(["x"])
    assert leg.connected
    await media.until(lambda: not leg.connected)
    assert "does not read" in media.told(StreamEnded)[0].reason


async def test_a_page_in_a_browser_is_no_pbx(media: Media) -> None:
    """Anybody's page could call from the machine of whoever looks at it, which is in the trunk's allow."""
    page = {"Origin": "https://evil.example", "User-Agent": "Mozilla/5.0 (X11; Linux x86_64)"}
    assert await media.refused("/pbx/media?called=100", headers=page) == 403
    assert await media.refused("/pbx/media?called=100", headers={"Sec-Fetch-Site": "cross-site"}) == 403
    await (await media.dial("/pbx/media?called=100", headers={"Origin": "http://127.0.0.1"})).close()


async def test_an_offered_stream_that_has_gone_is_told_at_once(media: Media) -> None:
    media.expect(media.leg(), "gone", kind="pbx")
    assert media.told(StreamEnded)[0].orderly


async def test_a_proxys_word_on_who_asks_is_taken_where_it_is_named(make: Callable[..., Any]) -> None:
    media = await make(listen={"proxies": ["127.0.0.1/32"]}, limits={"streams_per_address": 1})
    held = [await media.dial(headers={"X-Forwarded-For": f"203.0.113.{number}"}) for number in range(3)]
    assert await media.refused(headers={"X-Forwarded-For": "198.51.100.7, 203.0.113.1"}) == 429
    two = [("X-Forwarded-For", "127.0.0.2"), ("X-Forwarded-For", "203.0.113.1")]
    assert await media.refused(headers=CIMultiDict(two)) == 429, "a line of the caller's own, before the proxy's"
    assert await media.refused("/pbx/media", headers={"X-Forwarded-For": "203.0.113.9"}) == 403
    assert len(held) == 3


async def test_nobody_else_can_say_whom_they_are(make: Callable[..., Any]) -> None:
    media = await make(limits={"streams_per_address": 1})
    held = await media.dial(headers={"X-Forwarded-For": "203.0.113.1"})
    assert await media.refused(headers={"X-Forwarded-For": "203.0.113.2"}) == 429
    assert not held.closed


async def test_kinds_without_a_trunk_are_not_there(make: Callable[..., Any]) -> None:
    media = await make(trunks={"phone": {"kind": "browser"}}, listen={"streams": []})
    assert await media.refused() == 404
    assert await media.refused("/sip/media") == 404


async def test_a_pbxs_stream_is_offered_and_waits(media: Media) -> None:
    socket = await media.dial("/pbx/media?called=100&calling=200&rate=16000")
    await socket.send_bytes(bytes(640))
    await media.until(lambda: media.told(StreamOffered))
    (offer,) = media.told(StreamOffered)
    assert (offer.trunk, offer.called, offer.calling) == ("pbx", "100", "200")
    leg = media.leg()
    media.expect(leg, offer.token, kind="pbx")
    assert leg.connected
    assert media.told(StreamStarted)[0].rate_hz == 16_000
    await socket.close()
    await media.until(lambda: media.told(StreamEnded))
    assert media.told(StreamEnded)[0].orderly


async def test_an_offered_stream_that_is_refused_is_closed_with_the_reason(media: Media) -> None:
    socket = await media.dial("/pbx/media?called=100&rate=8000")
    await socket.send_bytes(bytes(320))
    await media.until(lambda: media.told(StreamOffered))
    media.server.refuse(media.told(StreamOffered)[0].token, "no line answers 100")
    assert (await closed(socket))[1] == "no line answers 100"


async def test_an_offer_that_nobody_decides_on_is_closed(media: Media, monkeypatch: pytest.MonkeyPatch) -> None:
    socket = await media.dial("/pbx/media?called=100&rate=8000")
    await socket.send_bytes(bytes(320))
    await media.until(lambda: media.told(StreamOffered))
    monkeypatch.setattr(streams, "START_S", 0.0)
    monkeypatch.setattr(streams, "OFFER_S", 0.0)
    media.server.sweep()
    assert "did not decide" in (await closed(socket))[1]


async def test_audiosocket_is_offered_answered_and_hung_up_in_its_own_words(media: Media) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", media.tcp_port)
    call_id = bytes(range(16))
    writer.write(message(0x01, call_id) + message(0x12, bytes(640)))
    await media.until(lambda: media.told(StreamOffered))
    (offer,) = media.told(StreamOffered)
    assert (offer.trunk, offer.call_id) == ("asterisk", "00010203-0405-0607-0809-0a0b0c0d0e0f")
    leg = media.leg()
    media.expect(leg, offer.token, kind="audiosocket")
    assert leg.connected
    media.server.forget(leg)
    assert await asyncio.wait_for(reader.read(), LIMIT_S) == message(0x00)
    writer.close()
    await writer.wait_closed()
    await media.until(lambda: media.server.closed == 1)


async def test_audiosocket_from_elsewhere_is_not_let_in(media: Media) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", media.tcp_port, local_addr=("127.0.0.2", 0))
    assert await asyncio.wait_for(reader.read(), LIMIT_S) == b""
    writer.close()
    await writer.wait_closed()
    assert media.told(StreamOffered) == []


async def test_what_is_not_audiosocket_is_closed(media: Media) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", media.tcp_port)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    assert await asyncio.wait_for(reader.read(), LIMIT_S) == b""
    writer.close()
    await writer.wait_closed()
    await media.until(lambda: media.server.closed == 1)
