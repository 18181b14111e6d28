"""Calls by Telnyx: its webhooks and commands, over real sockets to a server that takes what Telnyx takes."""

from __future__ import annotations

import ast
import asyncio
import base64
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from appliance import carriers, signalling
from appliance.api import CallRequest, StreamAddress, web_calls
from appliance.api import web as api_web
from appliance.errors import CarrierApiError, DialError
from appliance.ipc.logs import BROKEN_BODIES
from appliance.signalling.telnyx import REPLAY_S, TelnyxCall, TelnyxCarrier, TelnyxOptions
from tests.signalling.fake_box import FakeBoxCall
from tests.signalling.telnyx_edge import API_KEY, NOW, Edge, edge
from tests.waiting import eventually

AUDIO = {
    "stream_track": "inbound_track", "stream_codec": "PCMU", "stream_bidirectional_mode": "rtp",
    "stream_bidirectional_codec": "PCMU",
}  # fmt: skip
KEY = base64.b64encode(bytes(32)).decode()


STATE = base64.b64encode(b"lead-7").decode()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The API is asked again without a wait."""
    monkeypatch.setattr(api_web, "_BACK_OFF_S", 0.0)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left of a call is ended without waiting for it to end by itself."""
    monkeypatch.setattr(TelnyxCarrier, "again_s", 0.0)


def address(found: Edge, token: str = "s3cret") -> StreamAddress:
    return StreamAddress(found.carrier.stream_url(token), token)


def request(found: Edge, key: str = "lead-7") -> CallRequest:
    box_call = FakeBoxCall(key, found.carrier)
    return CallRequest("+4930123", "+15550002", 31.6, address(found), key, box_call)


async def test_a_call_that_comes_is_answered_and_ends() -> None:
    async with edge() as found:
        found.box.decide = lambda call: call.answer(address(found))
        await found.incoming(**{"from": "sip:+15550001@sip.telnyx.com", "caller_id_name": "Ann"})
        (command,) = await found.asked_for(1)
        url = "wss://voice.example.com/telnyx/media/s3cret"
        assert command == ("answer", "v3:one", {"stream_url": url, **AUDIO})
        (one,) = found.box.admitted
        assert (one.incoming.called, one.incoming.calling) == ("+15550002", "+15550001")
        assert (one.incoming.call_id, one.incoming.calling_name) == ("v3:one", "Ann")
        await asyncio.gather(*found.box.tasks)
        for event in ("call.answered", "streaming.started", "call.dtmf.received", "call.cost", "streaming.stopped"):
            await found.tell(event, digit="1")
        assert one.box_call.overs == []
        await found.tell("call.hangup", hangup_cause="normal_clearing", sip_hangup_cause="200", hangup_source="caller")
        assert one.box_call.overs == [(200, "normal_clearing")]
        await found.incoming()
        assert len(found.box.admitted) == 1, "what comes late, or again, is no new call"
        assert len(found.asked) == 1


async def test_what_the_box_asks_of_a_call() -> None:
    async with edge() as found:
        await found.incoming()
        call = found.box.admitted[0].call
        assert call.can_transfer
        assert call.sends_digits
        await call.ring()
        await call.answer(address(found))
        await call.send_digits("12#")
        await call.hangup()
        assert [command for command, _, _ in found.asked] == ["answer", "send_dtmf", "hangup"]
        assert found.asked[1][2] == {"digits": "12#"}
        assert found.keys == ["box-0.1", "box-0.2", "box-0.3"]
        await found.tell("call.hangup", hangup_cause="normal_clearing")
        assert found.box.admitted[0].box_call.overs == [], "it was the box that hung up"


@pytest.mark.parametrize(
    ("status", "cause"),
    [(486, "USER_BUSY"), (404, "NOT_FOUND"), (503, "TEMPORARILY_UNAVAILABLE"), (603, "CALL_REJECTED")],
)
async def test_a_refusal(status: int, cause: str) -> None:
    async with edge() as found:
        await found.incoming()
        await found.box.admitted[0].call.reject(status, "no")
        assert found.asked == [("reject", "v3:one", {"cause": cause})]


async def test_a_call_that_has_ended_can_be_hung_up() -> None:
    async with edge() as found:
        await found.incoming()
        found.answers.append((422, {"errors": [{"code": "90018", "title": "Call has already ended"}]}))
        await found.box.admitted[0].call.hangup()


async def test_busy_servers_are_asked_again_with_the_same_key() -> None:
    async with edge() as found:
        await found.incoming()
        found.answers += [(429, {}), (503, {})]
        await found.box.admitted[0].call.answer(address(found))
        assert found.keys == ["box-0.1"] * 3


async def test_what_telnyx_refuses_is_said_with_a_hint() -> None:
    async with edge(api_key="wrong") as found:
        await found.incoming()
        with pytest.raises(CarrierApiError, match=r"Authentication failed.*is api_key right") as refused:
            await found.box.admitted[0].call.answer(address(found))
        assert refused.value.status == 401
        assert "wrong" not in str(refused.value)


async def test_a_call_is_placed_and_the_stream_begins_with_the_answer() -> None:
    async with edge() as found:
        asked = request(found)
        call = await found.carrier.place(asked)
        state = base64.b64encode(b"lead-7").decode()
        body = {
            "connection_id": "7267", "to": "+4930123", "from": "+15550002", "timeout_secs": 32, "client_state": state,
        }  # fmt: skip
        assert found.asked == [("dial", "", body)]
        assert found.keys == ["lead-7"]
        assert call.call_id == "v3:placed"
        await found.tell("call.initiated", "v3:placed", direction="outgoing", client_state=state)
        assert len(found.asked) == 1
        await found.tell("call.answered", "v3:placed", client_state=state)
        await found.tell("call.answered", "v3:placed", client_state=state)
        await found.asked_for(2)
        assert found.asked[1] == ("streaming_start", "v3:placed", {"stream_url": asked.stream.url, **AUDIO})
        await found.tell("call.hangup", "v3:placed", client_state=state, hangup_cause="normal_clearing")
        assert isinstance(asked.box_call, FakeBoxCall)
        assert asked.box_call.overs == [(200, "normal_clearing")]
        assert len(found.asked) == 2, "told twice, answered once"


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({"hangup_cause": "user_busy"}, 486),
        ({"hangup_cause": "call_rejected"}, 603),
        ({"hangup_cause": "timeout"}, 480),
        ({"hangup_cause": "no_answer", "sip_hangup_cause": "408"}, 408),
        ({"hangup_cause": "unspecified", "sip_hangup_cause": "unspecified"}, 480),
        ({"sip_hangup_cause": "999"}, 480),
        ({}, 480),
    ],
)
async def test_a_placed_call_that_comes_to_nothing(said: dict[str, str], status: int) -> None:
    async with edge() as found:
        asked = request(found)
        await found.carrier.place(asked)
        await found.tell("call.hangup", "v3:placed", client_state=base64.b64encode(b"lead-7").decode(), **said)
        assert isinstance(asked.box_call, FakeBoxCall)
        assert [status for status, _ in asked.box_call.overs] == [status]


async def test_a_call_that_was_given_up_while_it_was_placed_is_hung_up() -> None:
    async with edge() as found:
        asked = request(found)
        await found.carrier.place(asked)
        asked.box_call.over(487, "given up")
        await found.tell("call.answered", "v3:placed", client_state=base64.b64encode(b"lead-7").decode())
        assert (await found.asked_for(2))[1][:2] == ("hangup", "v3:placed")


@pytest.mark.parametrize(
    ("answers", "words", "status", "cause"),
    [
        ([(422, {"errors": [{"detail": "the number is invalid"}]})], "the number is invalid", 404, "malformed"),
        ([(403, {"errors": [{"detail": "Dialed number is not included"}]})], "not included", 403, "forbidden"),
        ([(401, {})], "is api_key right", 503, "auth"),
        ([(429, {})] * 4, "HTTP 429", 503, "rate"),
        ([(200, {"data": {}})], "has no name", 503, "unsure"),
        ([(200, [1])], "not a JSON object", 503, "unsure"),
        ([(500, {})] * 4, "HTTP 500", 503, "unsure"),
        ([(0, {})] * 4, "no answer", 503, "unsure"),
        ([(500, {}), (403, {})], "HTTP 403", 503, "unsure"),
        ([(503, {}), (429, {}), (429, {}), (429, {})], "HTTP 429", 503, "unsure"),
    ],
)
async def test_a_call_that_cannot_be_placed(
    answers: list[tuple[int, Any]], words: str, status: int, cause: str
) -> None:
    """Where somebody may be rung now nobody else is tried; should there be a call after all, it is ended."""
    async with edge() as found:
        found.answers += answers
        with pytest.raises(DialError, match=words) as refused:
            await found.carrier.place(request(found))
        assert (refused.value.status, refused.value.cause) == (status, cause)
        assert API_KEY not in str(refused.value)
        assert found.answers == []
        tries = len(found.asked)
        await found.tell("call.initiated", "v3:placed", direction="outgoing", client_state=STATE)
        if cause == "unsure":
            assert (await found.asked_for(tries + 1))[tries][:2] == ("hangup", "v3:placed")
        await found.tell("call.hangup", "v3:placed", client_state=STATE)
        assert (found.carrier.calls, found.carrier.placed) == ({}, {})
        assert len(found.asked) == tries + (cause == "unsure")


async def test_an_api_that_cannot_be_reached() -> None:
    async with edge(api_url="http://127.0.0.1:1") as found:
        with pytest.raises(DialError, match="no answer") as refused:
            await found.carrier.place(request(found))
        assert (refused.value.status, refused.value.cause) == (503, "unreachable")
        assert found.carrier.placed == {}


async def test_a_webhook_that_is_faster_than_the_api() -> None:
    async with edge() as found:
        found.held, found.answers = asyncio.Event(), [(500, {})] * 4
        placing = asyncio.ensure_future(found.carrier.place(request(found)))
        await found.asked_for(1)
        await found.tell("call.initiated", "v3:placed", direction="outgoing", client_state=STATE)
        found.held.set()
        assert (await placing).call_id == "v3:placed"


async def test_placing_is_given_up() -> None:
    async with edge() as found:
        found.held = asyncio.Event()
        for _ in range(2):
            placing = asyncio.ensure_future(found.carrier.place(request(found)))
            await found.asked_for(1)
            placing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await placing
        found.held.set()
        found.carrier.sweep(0.0)
        found.carrier.sweep(web_calls.KEEP_S)
        assert len(found.carrier.placed) == 1
        found.carrier.sweep(web_calls.KEEP_S + 1)
        assert found.carrier.placed == {}


async def test_a_call_that_was_placed_twice_rings_one_phone() -> None:
    async with edge() as found:
        await found.carrier.place(request(found))
        await found.tell("call.initiated", "v3:other", direction="outgoing", client_state=STATE)
        assert [asked[:2] for asked in await found.asked_for(2)] == [("dial", ""), ("hangup", "v3:other")]


async def test_ringing_and_an_answer_without_a_stream() -> None:
    """Nobody else is rung once somebody has answered, also where nothing can be heard of them."""
    async with edge() as found:
        asked = request(found)
        await found.carrier.place(asked)
        assert isinstance(asked.box_call, FakeBoxCall)
        await found.tell("call.ringing", "v3:placed", client_state=STATE)
        assert asked.box_call.rang == 1
        found.answers += [(400, {})]
        await found.tell("call.answered", "v3:placed", client_state=STATE)
        assert asked.box_call.rang == 2
        commands = [asked[:2] for asked in await found.asked_for(3)]
        assert commands[1:] == [("streaming_start", "v3:placed"), ("hangup", "v3:placed")]
        assert asked.box_call.overs == [(503, "no stream could be opened")]


async def test_without_a_connection_no_call_is_placed() -> None:
    async with edge(connection_id="") as found:
        with pytest.raises(DialError, match="give it a connection_id"):
            await found.carrier.place(request(found))


@pytest.mark.usefixtures("at_once")
async def test_a_stream_that_cannot_be_opened_is_asked_for_again(caplog: pytest.LogCaptureFixture) -> None:
    async with edge() as found:
        await found.incoming()
        call = found.box.admitted[0].call
        await call.answer(address(found))
        for count in (2, 3, 4):
            await found.tell("streaming.failed", failure_reason="connection_failed")
            await found.asked_for(count)
        await found.tell("streaming.stopped", stream_url=found.carrier.stream_url("again-2"))
        await found.tell("streaming.stopped", stream_url=found.carrier.stream_url("again-3"))
        await found.asked_for(5)
        await found.tell("streaming.failed", failure_reason="connection_failed")
        assert [body.get("stream_url", "")[-7:] for _, _, body in found.asked[1:]] == [
            f"again-{n}" for n in range(1, 5)
        ]
        assert "can it reach wss://voice.example.com/telnyx/media/TOKEN?" in caplog.text


async def test_signatures(caplog: pytest.LogCaptureFixture) -> None:
    body = json.dumps({"data": {"event_type": "call.initiated", "payload": {"direction": "incoming"}}}).encode()
    async with edge() as found:
        good = found.signed(body)
        for headers, words in [
            ({}, "not signed"),
            ({**good, "telnyx-timestamp": ""}, "not signed"),
            ({**good, "telnyx-timestamp": "9" * 30}, "not signed"),
            ({**good, "telnyx-timestamp": "soon"}, "not signed"),
            ({**good, "telnyx-timestamp": str(NOW + 1)}, "signature is wrong"),
            ({**good, "telnyx-signature-ed25519": ""}, "signature is wrong"),
            ({**good, "telnyx-signature-ed25519": "!!"}, "signature is wrong"),
            ({**good, "telnyx-signature-ed25519": base64.b64encode(bytes(64)).decode()}, "signature is wrong"),
            ({**good, "telnyx-signature-ed25519": base64.b64encode(b"short").decode()}, "signature is wrong"),
            (found.signed(body, NOW - REPLAY_S - 1), "clock"),
            (found.signed(body, NOW + REPLAY_S + 1), "clock"),
            (found.signed(body + b" "), "signature is wrong"),
        ]:
            caplog.clear()
            status, text = await found.raw(body, headers)
            assert (status, words in text) == (403, True), (headers, text)
            assert [record.levelno for record in caplog.records if "refused" in record.message] == [logging.WARNING]
        assert (await found.raw(body + b" ", good))[0] == 403
        assert (await found.raw(body, found.signed(body, NOW - REPLAY_S)))[0] == 200
        assert found.box.admitted == [], "a call without a name is none"


@pytest.mark.parametrize(
    "body",
    [
        b"", b"x", b"[]", b"{}", b"null", b"\xff\xfe", b'{"data":7}', b'{"data":{"event_type":7,"payload":{}}}',
        b'{"data":{"event_type":"call.initiated"}}', b'{"data":{"event_type":"x","payload":{"to":["a"]}}}',
        b'{"data":{"event_type":"call.hangup","payload":{"call_control_id":{}}}}',
        b'{"data":' * 5000, b"[" * 60_000, b'{"data":{"event_type":"\\ud800","payload":{"from":NaN}}}',
    ],
)  # fmt: skip
async def test_webhooks_that_are_none(body: bytes) -> None:
    async with edge() as found:
        status, text = await found.raw(body, found.signed(body))
        assert status == 400
        assert "not an event of telnyx" in text
        assert len(text) < 400


@pytest.mark.parametrize(
    "event", ["", "call.machine.detection.ended", "call.hangup", "call.bridged", "streaming.failed", "call.answered"]
)
async def test_events_that_are_none_of_ours(event: str) -> None:
    async with edge() as found:
        await found.tell(event, "v3:nobody", client_state="???", digit="5")
        assert found.box.admitted == found.asked == []


async def test_a_call_from_before_a_restart_is_hung_up_when_its_stream_breaks() -> None:
    async with edge() as found:
        url = found.carrier.stream_url("before")
        await found.tell("streaming.stopped", "v3:another's", stream_url="wss://elsewhere.example/telnyx/media/before")
        await found.tell("streaming.stopped", "v3:another's")
        for _ in range(2):
            await found.tell("streaming.stopped", "v3:old", stream_url=url)
        assert [asked[:2] for asked in await found.asked_for(1)] == [("hangup", "v3:old")]
        await found.tell("streaming.failed", "v3:older", stream_params={"stream_url": url})
        assert (await found.asked_for(2))[1][:2] == ("hangup", "v3:older")
        await found.incoming("v3:ours")
        await found.box.admitted[0].call.hangup()
        placed = await found.carrier.place(request(found))
        await placed.hangup()
        for call_id in ("v3:ours", "v3:placed"):
            await found.tell("streaming.stopped", call_id, stream_url=url)
        await found.tell("call.cost", "v3:ours")
        assert [command for command, _, _ in found.asked[2:]] == ["hangup", "dial", "hangup"]


@pytest.mark.usefixtures("at_once")
async def test_a_hang_up_that_fails_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    async with edge() as found:
        await found.incoming()
        call = found.box.admitted[0].call
        found.answers += [(500, {})] * 8
        with pytest.raises(CarrierApiError, match="HTTP 500"):
            await call.hangup()
        assert len(found.asked) == 4
        await found.tell("streaming.stopped")
        await found.asked_for(8)
        await eventually(lambda: not ("could not be hung up, and will be tried again" not in caplog.text))
        found.carrier.sweep(0.0)
        found.carrier.sweep(web_calls.SWEEP_S)
        await found.asked_for(9)
        assert {command for command, _, _ in found.asked} == {"hangup"}
        assert len(set(found.keys)) == 3
        await call.hangup()
        await found.tell("call.cost")
        assert (len(found.asked), found.carrier.calls) == (9, {})


async def test_the_box_stops_while_a_hang_up_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_calls, "_LAST_S", 0.05)
    async with edge() as found:
        await found.incoming()
        found.box.admitted[0].box_call.over(200, "the stream ended")
        await found.tell("call.answered")
        assert (await found.asked_for(1))[0][0] == "hangup", "it is waited for"
        found.held = asyncio.Event()
        found.carrier.end("v3:two")
        await found.asked_for(2)
        await found.carrier.close()
        found.held.set()


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("told", [True, False])
async def test_a_call_that_the_box_has_lost_is_hung_up(told: bool) -> None:
    """Its stream has ended in an orderly way, so that the box asks for nothing; but it goes on."""
    async with edge() as found:
        await found.incoming()
        found.box.admitted[0].box_call.over(200, "the stream ended")
        if told:
            await found.tell("streaming.stopped")
        else:
            found.carrier.sweep(0.0)
            assert found.asked == []
            found.carrier.sweep(web_calls.SWEEP_S)
        assert (await found.asked_for(1))[0][:2] == ("hangup", "v3:one")


async def test_there_is_room_for_so_many_calls(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.signalling.telnyx.MAX_CALLS", 1)
    async with edge() as found:
        await found.incoming()
        for _ in range(2):
            await found.incoming("v3:two")
        assert await found.asked_for(1) == [("reject", "v3:two", {"cause": "TEMPORARILY_UNAVAILABLE"})]
        assert len(found.box.admitted) == 1
        assert "a call is refused: 1 are known" in caplog.text


@pytest.fixture
def as_configured() -> Iterator[None]:
    """The log leaves out what a box leaves out."""
    server = logging.getLogger("aiohttp.server")
    server.addFilter(BROKEN_BODIES)
    yield
    server.removeFilter(BROKEN_BODIES)


@pytest.mark.usefixtures("as_configured")
@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Content-Encoding": "deflate"}, b"not deflated", 400),
        ({"Content-Encoding": "gzip"}, b"not packed", 400),
        ({}, b"x" * 70_000, 413),
    ],
)
async def test_bodies_that_cannot_be_read(
    headers: dict[str, str], body: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with edge() as found:
        assert (await found.raw(body, {**found.signed(body), **headers}))[0] == status
        assert (await found.raw(body, headers))[0] == 403, "unsigned: not read"
        assert [record for record in caplog.records if record.exc_info] == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"public_key": "short"}, "not a public key"),
        ({"public_key": "é"}, "not a public key"),
        ({"public_url": "voice.example.com"}, "not an address"),
        ({"public_url": "http://voice.example.com"}, "tests on this machine"),
        ({"public_url": "https://voice.example.com/telnyx"}, "more than an origin"),
        ({"media_url": "https://voice.example.com"}, "not an address"),
        ({"media_url": "wss://[::1"}, "not an address"),
        ({"api_keys": "x"}, "api_keys"),
    ],
)
def test_options_that_are_wrong(given: dict[str, str], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        TelnyxOptions.model_validate({"api_key": "k", "public_key": KEY, "public_url": "https://a.example", **given})


async def test_where_streams_are_opened() -> None:
    async with edge(media_url="wss://media.example.com") as found:
        assert found.carrier.stream_url("t") == "wss://media.example.com/telnyx/media/t"
    async with edge(public_url="http://127.0.0.1:8080") as found:
        assert found.carrier.stream_url("t") == "ws://127.0.0.1:8081/telnyx/media/t"


async def test_a_stream_that_nobody_asked_for_is_refused() -> None:
    from appliance.api import StreamOffer

    async with edge() as found:
        found.carrier.offered(StreamOffer("t", "192.0.2.1:5", "c"))
        assert found.box.refused == ["streams of telnyx come with a token of ours"]


def test_a_carrier_is_small() -> None:
    """All of Telnyx: lines that are neither empty nor prose."""
    code = 0
    for package in (carriers, signalling):
        source = (Path(str(package.__file__)).parent / "telnyx.py").read_text()
        prose: set[int] = set()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                prose |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        lines = enumerate(source.splitlines(), 1)
        code += sum(bool(line.strip()) and number not in prose for number, line in lines)
    assert code <= 250
    assert TelnyxCall.can_transfer
