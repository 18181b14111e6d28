"""Calls by Telnyx: its webhooks and commands, over real sockets to a server that takes what Telnyx takes."""

from __future__ import annotations

import ast
import asyncio
import base64
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from appliance import carriers, signalling
from appliance.api import CallRequest, CarrierCall, StreamAddress
from appliance.errors import CarrierApiError, DialError
from appliance.signalling import telnyx
from appliance.signalling.telnyx import REPLAY_S, TelnyxCall, TelnyxOptions
from tests.signalling.fake_box import FakeBoxCall
from tests.signalling.telnyx_edge import API_KEY, NOW, Edge, edge

AUDIO = {
    "stream_track": "inbound_track", "stream_codec": "PCMU", "stream_bidirectional_mode": "rtp",
    "stream_bidirectional_codec": "PCMU",
}  # fmt: skip
KEY = base64.b64encode(bytes(32)).decode()


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
    ("answers", "words"),
    [
        ([(422, {"errors": [{"detail": "connection_id is invalid"}]})], "connection_id is invalid"),
        ([(200, {"data": {}})], "has no name"),
        ([(200, [1])], "not a JSON object"),
        ([(500, {})] * 4, "HTTP 500"),
    ],
)
async def test_a_call_that_cannot_be_placed(answers: list[tuple[int, Any]], words: str) -> None:
    async with edge() as found:
        found.answers += answers
        with pytest.raises(DialError, match=words) as refused:
            await found.carrier.place(request(found))
        assert refused.value.status == 503
        assert API_KEY not in str(refused.value)


async def test_without_a_connection_no_call_is_placed() -> None:
    async with edge(connection_id="") as found:
        with pytest.raises(DialError, match="give it a connection_id"):
            await found.carrier.place(request(found))


def transferring(call: CarrierCall, other: CarrierCall | None = None) -> asyncio.Task[int]:
    return asyncio.ensure_future(call.transfer("+4930999", other))


async def test_a_transfer() -> None:
    async with edge() as found:
        await found.incoming()
        call = found.box.admitted[0].call
        task = transferring(call)
        (command, _, body) = (await found.asked_for(1))[0]
        state = body.pop("target_leg_client_state")
        assert (command, body) == ("transfer", {"to": "+4930999", "timeout_secs": 60})
        await found.tell("call.initiated", "v3:two", direction="outgoing", client_state=state)
        await found.tell("call.answered", "v3:two", client_state=state)
        assert not task.done()
        await found.tell("call.bridged", "v3:two", client_state=state)
        assert await task == 200
        assert (await found.asked_for(2))[1][:2] == ("streaming_stop", "v3:one")
        await call.hangup()
        assert len(found.asked) == 2, "the two talk on when we are gone"


async def test_a_transfer_to_one_who_is_busy() -> None:
    async with edge() as found:
        await found.incoming()
        call = found.box.admitted[0].call
        task = transferring(call)
        state = (await found.asked_for(1))[0][2]["target_leg_client_state"]
        await found.tell("call.hangup", "v3:two", client_state=state, hangup_cause="user_busy")
        assert await task == 486
        assert found.box.admitted[0].box_call.overs == [], "the caller is still there"
        await call.hangup()
        assert [command for command, _, _ in found.asked] == ["transfer", "hangup"]


async def test_a_caller_who_hangs_up_during_a_transfer() -> None:
    async with edge() as found:
        await found.incoming()
        task = transferring(found.box.admitted[0].call)
        await found.asked_for(1)
        await found.tell("call.hangup", hangup_cause="normal_clearing")
        assert await task == 487
        assert len(found.box.admitted[0].box_call.overs) == 1


async def test_a_transfer_to_a_call_that_was_placed() -> None:
    async with edge() as found:
        await found.incoming()
        call, other = found.box.admitted[0].call, await found.carrier.place(request(found))
        task = transferring(call, other)
        assert (await found.asked_for(2))[1] == ("bridge", "v3:one", {"call_control_id": "v3:placed"})
        await found.tell("call.bridged", "v3:one")
        assert await task == 200
        stopped = {call_id for command, call_id, _ in await found.asked_for(4) if command == "streaming_stop"}
        assert stopped == {"v3:one", "v3:placed"}


async def test_a_stream_that_cannot_be_opened_is_asked_for_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telnyx, "_AGAIN_S", 0.0)
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
        await found.tell("streaming.stopped", "v3:old")
        await found.tell("streaming.stopped", "v3:old")
        assert [asked[:2] for asked in await found.asked_for(1)] == [("hangup", "v3:old")]
        await found.incoming("v3:ours")
        await found.box.admitted[0].call.hangup()
        placed = await found.carrier.place(request(found))
        await placed.hangup()
        for call_id in ("v3:ours", "v3:placed"):
            await found.tell("streaming.stopped", call_id)
        await found.tell("call.cost", "v3:ours")
        assert [command for command, _, _ in found.asked] == ["hangup", "hangup", "dial", "hangup"]


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
    assert code <= 255
    assert TelnyxCall.can_transfer
