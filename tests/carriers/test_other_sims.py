"""Telnyx, Asterisk and FreeSWITCH, simulated, against tiny peers."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import numpy as np
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from appliance.cli.carrier_caller import CarrierCaller
from appliance.errors import CarrierError
from tests.carriers import audiosocket_sim as audiosocket
from tests.carriers.audiosocket_sim import AudioSocketCaller
from tests.carriers.pbx_sim import AsteriskCaller, FreeSwitchCaller
from tests.carriers.peer import Peer, Socket, mulaw, tone
from tests.carriers.telnyx_caller import Disorder, TelnyxCaller
from tests.carriers.telnyx_sim import Callee, TelnyxSim
from tests.waiting import eventually

OUR, THEIR = "+4930123456", "+491711234567"
STREAM = {"stream_track": "inbound_track", "stream_bidirectional_mode": "rtp", "stream_bidirectional_codec": "PCMU"}


async def until(met: Callable[[], bool]) -> None:
    await eventually(met)


async def first(peer: Peer) -> Socket:
    await until(lambda: bool(peer.sockets))
    return peer.sockets[0]


# --- Telnyx -------------------------------------------------------------------------------------------------------


async def command(sim: TelnyxSim, call_id: str, action: str, **body: object) -> tuple[int, dict[str, object]]:
    headers = {"Authorization": f"Bearer {sim.api_key}"}
    url = f"{sim.api_url}/v2/calls/{call_id}/actions/{action}" if action else f"{sim.api_url}/v2/calls"
    async with sim.http.post(url, json=body, headers=headers) as reply:
        return reply.status, await reply.json()


def events(peer: Peer) -> list[str]:
    return [form["data"]["event_type"] for _, form, _ in peer.posted]  # type: ignore[index]


async def test_telnyx_calls_are_answered_streamed_and_hung_up() -> None:
    async def script(socket: Socket) -> None:
        await socket.until(lambda: "start" in socket.events)
        for at in range(0, 1600, 160):
            await socket.send({"event": "media", "media": {"payload": mulaw(tone(0.2)[at : at + 160])}})
        await socket.send({"event": "mark", "mark": {"name": "end"}})

    async with Peer(script) as peer, TelnyxSim(f"{peer.url}/telnyx") as sim:
        call = await sim.call(OUR, THEIR)
        await until(lambda: bool(peer.posted))
        assert (await command(sim, call.id, "answer", stream_url=f"{peer.media_url}/tok", **STREAM))[0] == 200
        stream = await call.streaming()
        socket = await first(peer)
        await socket.until(lambda: "mark" in socket.events)
        assert socket.request.path == "/media/tok"
        assert stream.report().heard_s == pytest.approx(0.2)
        stream.press("7")
        await socket.until(lambda: "dtmf" in socket.events)
        await call.hang_up()
        assert socket.events[-1] == "stop"
        assert events(peer) == [
            "call.initiated", "call.answered", "streaming.started", "streaming.stopped", "call.hangup"
        ]  # fmt: skip
        assert (await command(sim, call.id, "hangup"))[0] == 422
        sim.check()


async def test_telnyx_webhooks_are_signed() -> None:
    async with TelnyxSim() as sim:
        body = b'{"data": 1}'
        headers = sim.signed(body)
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(sim.public_key))
        signature = base64.b64decode(headers["telnyx-signature-ed25519"])
        key.verify(signature, headers["telnyx-timestamp"].encode() + b"|" + body)
        with pytest.raises(InvalidSignature):
            key.verify(signature, headers["telnyx-timestamp"].encode() + b"|" + body + b" ")


@pytest.mark.parametrize("outcome", ["answered", "busy", "no-answer"])
async def test_telnyx_transfers_come_to_what_the_callee_does(outcome: str) -> None:
    async with Peer() as peer, TelnyxSim(f"{peer.url}/telnyx") as sim:
        sim.callees["+49301"] = Callee(outcome, ring_s=0.01)  # type: ignore[arg-type]
        call = await sim.call(OUR, THEIR)
        await command(sim, call.id, "answer")
        state = base64.b64encode(b"mine").decode()
        await command(sim, call.id, "transfer", to="+49301", timeout_secs=1, target_leg_client_state=state)
        last = "call.bridged" if outcome == "answered" else "call.hangup"
        await until(lambda: last in events(peer))
        told = next(form["data"]["payload"] for _, form, _ in peer.posted if form["data"]["event_type"] == last)  # type: ignore[index]
        if outcome != "answered":
            assert told["client_state"] == state
            assert told["sip_hangup_cause"] in ("486", "487")
        await call.hang_up()
        sim.check()


@pytest.mark.parametrize(("cause", "sip"), [("USER_BUSY", "486"), ("NOT_FOUND", "404"), ("TIRED", "")])
async def test_telnyx_calls_are_rejected_for_known_causes(cause: str, sip: str) -> None:
    async with Peer() as peer, TelnyxSim(f"{peer.url}/telnyx") as sim:
        call = await sim.call(OUR, THEIR)
        status, _ = await command(sim, call.id, "reject", cause=cause)
        assert status == (200 if sip else 422)
        if sip:
            await until(lambda: "call.hangup" in events(peer))
            assert peer.posted[-1][1]["data"]["payload"]["sip_hangup_cause"] == sip  # type: ignore[index]


async def test_telnyx_commands_are_done_once_per_command_id() -> None:
    async with Peer() as peer, TelnyxSim(f"{peer.url}/telnyx") as sim:
        body = {"connection_id": sim.connection_id, "to": THEIR, "from": OUR, "command_id": "k"}
        one = await command(sim, "", "", **body)
        two = await command(sim, "", "", **body)
        assert one[1]["data"]["call_control_id"] == two[1]["data"]["call_control_id"]  # type: ignore[index]
        assert len(sim.calls) == 1
        call = next(iter(sim.calls.values()))
        await call.until(lambda: call.answered, "answer")
        for _ in range(2):
            await command(sim, call.id, "send_dtmf", digits="1", command_id="d")
        assert call.digits == ["1"]


async def test_telnyx_audio_comes_late_twice_and_not_at_all() -> None:
    async with Peer() as peer:
        caller = await TelnyxCaller.open(peer.media_url, disorder=Disorder(0.2, 0.2, 0.2))
        socket = await first(peer)
        await socket.until(lambda: len(socket.of("media")) >= 50)
        chunks = [int(message["media"]["chunk"]) for message in socket.of("media")]
        assert chunks != sorted(chunks)
        assert len(set(chunks)) < len(chunks)
        assert set(range(1, max(chunks))) - set(chunks)
        await caller.hang_up()


@pytest.mark.parametrize(
    "message",
    [
        {"event": "media", "media": {"payload": base64.b64encode(b"\xff" * 80).decode()}},
        {"event": "media", "media": {"payload": "//8=", "track": "inbound"}},
        {"event": "start"},
        {"event": "clear", "stream_id": "another"},
    ],
)
def test_what_breaks_telnyx_s_schema_is_told(message: dict[str, object]) -> None:
    with pytest.raises(CarrierError):
        TelnyxCaller().take(json.dumps(message), 1.0)


# --- AudioSocket --------------------------------------------------------------------------------------------------

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def tcp(serve: Serve) -> AsyncIterator[int]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


async def read(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readexactly(3)
    return head[0], await reader.readexactly(int.from_bytes(head[1:], "big"))


@pytest.mark.parametrize("rate_hz", [8000, 16_000, 48_000])
async def test_audiosocket_begins_with_the_uuid_and_speaks_at_its_rate(rate_hz: int) -> None:
    got: list[tuple[int, bytes]] = []
    sound = tone(0.2, rate_hz=rate_hz)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(audiosocket.message(audiosocket.KINDS[rate_hz], sound.tobytes()))
        while not got or got[-1][0] != audiosocket.HANGUP:
            got.append(await read(reader))

    async with tcp(serve) as port:
        caller = await AudioSocketCaller.open("127.0.0.1", port, rate_hz=rate_hz)
        await caller.wait_heard(after=0.0)
        caller.press("3")
        await caller.wait_quiet(0.05)
        heard = caller.heard()
        await caller.hang_up()
        await until(lambda: bool(got) and got[-1][0] == audiosocket.HANGUP)
    assert got[0][0] == audiosocket.UUID
    assert (audiosocket.DTMF, b"3") in got
    sizes = {len(payload) for kind, payload in got if kind == audiosocket.KINDS[rate_hz]}
    assert sizes == {rate_hz // 50 * 2}
    assert np.abs(heard).max() > 8000
    assert caller.violations == []


async def test_audiosocket_tells_a_hang_up_and_what_is_wrong() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read(reader)
        writer.write(audiosocket.message(0x16, bytes(2)))
        writer.write(audiosocket.message(0x10, bytes(3)))
        writer.write(audiosocket.message(audiosocket.HANGUP))
        await writer.drain()

    async with tcp(serve) as port:
        caller = await AudioSocketCaller.open("127.0.0.1", port)
        assert await caller.wait_ended() == "them"
        assert caller.hung_up
        assert len(caller.violations) == 2
        await caller.hang_up()


# --- PBXs over a WebSocket ----------------------------------------------------------------------------------------


def event_names(socket: Socket) -> list[str]:
    texts = [message for message in socket.got if not isinstance(message, bytes)]
    return [message["event"] if isinstance(message, dict) else message.split()[0] for message in texts]


@pytest.mark.parametrize("as_json", [True, False])
async def test_asterisk_answers_marks_when_played_and_loses_them_in_a_flush(as_json: bool) -> None:
    def write(name: str, argument: str = "") -> str:
        if as_json:
            return json.dumps({"command": name} | ({"correlation_id": argument} if argument else {}))
        return f"{name} {argument}".rstrip()

    async def script(socket: Socket) -> None:
        await socket.until(lambda: bool(socket.got))
        await socket.socket.send_bytes(bytes(160 * 5))
        await socket.socket.send_str(write("MARK_MEDIA", "one"))
        await socket.until(lambda: "MEDIA_MARK_PROCESSED" in event_names(socket))
        await socket.socket.send_bytes(bytes(160 * 500))
        await socket.socket.send_str(write("MARK_MEDIA", "two"))
        await socket.socket.send_str(write("FLUSH_MEDIA"))
        await socket.until(lambda: "DTMF_END" in event_names(socket))
        await socket.socket.send_str(write("HANGUP"))

    async with Peer(script) as peer:
        caller = await AsteriskCaller.open(peer.media_url, as_json=as_json)
        socket = await first(peer)
        await until(lambda: "FLUSH_MEDIA" in caller.commands)
        caller.press("9")
        assert await caller.wait_ended() == "them"
        await caller.hang_up()
        assert event_names(socket)[0] == "MEDIA_START"
        assert event_names(socket).count("MEDIA_MARK_PROCESSED") == 1
        assert [name for _, name in caller.marks_answered] == ["one"]
        told = next(message for message in socket.got if "MEDIA_MARK_PROCESSED" in str(message))
        assert (told["correlation_id"] == "one") if as_json else (told == "MEDIA_MARK_PROCESSED one")
        assert any(isinstance(message, bytes) and len(message) == 160 for message in socket.got)
        assert caller.violations == []


async def test_asterisk_says_when_its_queue_is_nearly_full() -> None:
    async def script(socket: Socket) -> None:
        await socket.until(lambda: bool(socket.got))
        await socket.socket.send_bytes(bytes(160 * 950))

    async with Peer(script) as peer:
        caller = await AsteriskCaller.open(peer.media_url)
        socket = await first(peer)
        await socket.until(lambda: "MEDIA_XOFF" in event_names(socket))
        await caller.hang_up()


@pytest.mark.parametrize(
    ("as_json", "message"),
    [
        (True, "FLUSH_MEDIA"),
        (True, '{"command": "FLUSH_MEDIA", "now": 1}'),
        (True, '{"command": "DANCE"}'),
        (False, '{"command": "FLUSH_MEDIA"}'),
        (False, "FLUSH_MEDIA now"),
        (False, "MARK_MEDIA " + "x" * 130),
        (True, bytes(161)),
        (True, b""),
    ],
)
async def test_what_asterisk_does_not_take_is_told(as_json: bool, message: str | bytes) -> None:
    with pytest.raises(CarrierError):
        AsteriskCaller(as_json=as_json).take(message, 1.0)


async def test_freeswitch_speaks_l16_and_plays_binary() -> None:
    async def script(socket: Socket) -> None:
        await socket.until(lambda: len(socket.got) > 2)
        await socket.socket.send_bytes(tone(0.1, rate_hz=16_000).tobytes())
        await socket.socket.send_str("{}")

    async with Peer(script) as peer:
        caller = await FreeSwitchCaller.open(peer.media_url, rate_hz=16_000, metadata='{"line": "100"}')
        await caller.wait_heard(after=0.0)
        socket = await first(peer)
        await until(lambda: bool(caller.violations))
        await caller.wait_quiet(0.05)
        await caller.hang_up()
        assert socket.got[0] == {"line": "100"}
        assert {len(message) for message in socket.got[1:]} == {640}
        assert caller.report().heard_s == pytest.approx(0.1)


async def test_a_wait_for_nothing_ends() -> None:
    async with Peer() as peer, aiohttp.ClientSession() as session:
        caller: CarrierCaller = await FreeSwitchCaller.open(peer.media_url, session=session)
        with pytest.raises(CarrierError, match="nothing was heard in time"):
            await caller.wait_heard(timeout_s=0.1)
        await caller.hang_up()
