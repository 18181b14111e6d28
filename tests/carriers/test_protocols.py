"""The messages of each protocol as its documents show them, and what is refused."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from appliance.api.streams import Audio, Key, Marked, Started, Stopped, text_of
from appliance.carriers import audiosocket
from appliance.carriers.audiosocket import AudioSocketStream, message
from appliance.carriers.pbx import PbxStream
from appliance.carriers.telnyx import TelnyxStream
from appliance.carriers.twilio import TwilioStream
from appliance.errors import CarrierError

FRAME = bytes(range(160))
CALL = uuid.UUID("40325ec2-5efd-4bd3-805f-53576e581d13")


def twilio(event: str, **parts: Any) -> str:
    return json.dumps({"event": event, "sequenceNumber": "2", "streamSid": "MZ18", **parts})


TWILIO_START = twilio(
    "start",
    start={
        "accountSid": "AC1", "streamSid": "MZ18", "callSid": "CA1", "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"token": "s3cret", "campaign": "spring"},
    },
)  # fmt: skip
TELNYX_START = json.dumps(
    {
        "event": "start", "sequence_number": "1", "stream_id": "32DE",
        "start": {
            "user_id": "u", "call_control_id": "v2:T02", "call_session_id": "ff55", "from": "+15550001",
            "to": "+15550002", "client_state": "aGk=", "custom_parameters": {"campaign": "spring"},
            "media_format": {"encoding": "PCMU", "sample_rate": 8000, "channels": 1},
        },
    }
)  # fmt: skip


def test_twilio() -> None:
    stream = TwilioStream()
    assert stream.receive('{"event":"connected","protocol":"Call","version":"1.0.0"}') == []
    (started,) = stream.receive(TWILIO_START)
    assert started == Started("MZ18", "CA1", "pcmu", 8000, "s3cret", parameters={"campaign": "spring"})
    assert "s3cret" not in repr(started)
    assert stream.frame_bytes == 160
    media = {"track": "inbound", "chunk": "7", "timestamp": "125", "payload": text_of(FRAME)}
    assert stream.receive(twilio("media", media=media)) == [Audio(7, FRAME)]
    assert stream.receive(twilio("media", media=media | {"track": "outbound"})) == []
    assert stream.receive(twilio("dtmf", dtmf={"track": "inbound_track", "digit": "#"})) == [Key("#")]
    assert stream.receive(twilio("mark", mark={"name": "0.800"})) == [Marked("0.800")]
    assert json.loads(stream.media(FRAME)) == {
        "event": "media", "streamSid": "MZ18", "media": {"payload": text_of(FRAME)},
    }  # fmt: skip
    assert [json.loads(text) for text in [*stream.mark("a"), *stream.clear()]] == [
        {"event": "mark", "streamSid": "MZ18", "mark": {"name": "a"}},
        {"event": "clear", "streamSid": "MZ18"},
    ]
    assert stream.receive(twilio("stop", stop={"accountSid": "AC1", "callSid": "CA1"})) == [Stopped()]
    assert stream.receive(b"anything") == [], "it is over"


def test_telnyx() -> None:
    stream = TelnyxStream("s3cret")
    assert stream.receive('{"event":"connected","version":"1.0.0"}') == []
    (started,) = stream.receive(TELNYX_START)
    parties = ("+15550002", "+15550001")
    assert started == Started("ff55", "v2:T02", "pcmu", 8000, "s3cret", *parties, {"campaign": "spring"})
    media = {"track": "inbound", "chunk": "2", "timestamp": "5", "payload": text_of(FRAME)}
    frame = json.dumps({"event": "media", "sequence_number": "4", "media": media, "stream_id": "32DE"})
    assert stream.receive(frame) == [Audio(2, FRAME)]
    assert json.loads(stream.media(FRAME)) == {"event": "media", "media": {"payload": text_of(FRAME)}}
    assert [json.loads(text) for text in stream.clear()] == [{"event": "clear"}]


@pytest.mark.parametrize(("start", "make"), [(TWILIO_START, TwilioStream), (TELNYX_START, TelnyxStream)])
def test_audio_without_a_number_is_the_next(start: str, make: type[TwilioStream | TelnyxStream]) -> None:
    stream = make()
    stream.receive(start)

    def media(**more: object) -> str:
        return json.dumps({"event": "media", "media": {"payload": text_of(FRAME), **more}})

    told = [media(), media(), media(chunk="7"), media(), media(chunk=None)]
    assert [event for text in told for event in stream.receive(text)] == [Audio(n, FRAME) for n in (0, 1, 7, 8, 9)]


@pytest.mark.parametrize(("start", "make"), [(TWILIO_START, TwilioStream), (TELNYX_START, TelnyxStream)])
@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["hello"], "is not of"),
        (["[1]"], "is not of"),
        (['{"event":7}'], "is not of"),
        (["{}"], "is not of"),
        ([b"\xff\xfe"], "is not of"),
        (["[" * 60_000], "is not of"),
        (['{"event":"media","media":' + '{":' * 20_000], "is not of"),
        (["x" * 70_000], "70000 bytes"),
        (['{"event":"media","media":{"payload":"AAAA"}}'], "comes before start"),
        (['{"event":"start"}'], "has no 'start' in it"),
        (['{"event":"start","start":{}}'], "is not of"),
        (["START", "START"], "start comes twice"),
        (["START", '{"event":"media"}'], "has no 'media' in it"),
        (["START", '{"event":"media","media":{"payload":"!!!!","chunk":"1"}}'], "not base64"),
        (["START", '{"event":"media","media":{"payload":"AAA"}}'], "not base64"),
        (["START", '{"event":"media","media":{"payload":""}}'], "0 bytes"),
        (["START", '{"event":"media","media":{"payload":"' + "A" * 40_000 + '"}}'], "30000 bytes"),
        (["START", '{"event":"media","media":{"payload":"AAAA","chunk":"x"}}'], "chunk is 'x'"),
        (["START", '{"event":"media","media":{"payload":"AAAA","chunk":-1}}'], "out of range"),
        (["START", '{"event":"media","media":{"payload":7}}'], "is not of"),
        (["START", '{"event":"dtmf","dtmf":{"digit":"99"}}'], "not a key"),
        (["START", '{"event":"mark","mark":{}}'], "is not of"),
        (["START", *['{"event":"news"}'] * 51], "too many unknown events"),
    ],
)  # fmt: skip
def test_what_is_refused(start: str, make: Any, texts: list[str | bytes], words: str) -> None:
    stream = make()
    with pytest.raises(CarrierError, match=words) as refused:
        for text in texts:
            stream.receive(start if text == "START" else text)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    ("form", "found"),
    [
        ({"encoding": "audio/x-alaw", "sampleRate": 8000}, "pcma"),
        ({"encoding": "audio/x-mulaw", "sampleRate": 16000}, None),
        ({"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 2}, None),
        ({"encoding": "opus", "sampleRate": 48000}, None),
    ],
)
def test_the_codec_of_a_start(form: dict[str, Any], found: str | None) -> None:
    start = twilio("start", start={"streamSid": "MZ", "callSid": "CA", "mediaFormat": form})
    if found is None:
        with pytest.raises(CarrierError, match="have the carrier send"):
            TwilioStream().receive(start)
    else:
        (started,) = TwilioStream().receive(start)
        assert isinstance(started, Started)
        assert started.codec == found


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize(("kind", "rate_hz"), sorted(audiosocket.RATES.items()))
def test_audiosocket_in_pieces_of_any_size(size: int, kind: int, rate_hz: int) -> None:
    stream = AudioSocketStream()
    sound = bytes(rate_hz // 50 * 2)
    data = message(0x01, CALL.bytes) + message(kind, sound) + message(0x03, b"5") + message(kind, sound)
    data += message(0x00) + b"late"
    events = [event for at in range(0, len(data), size) for event in stream.receive(data[at : at + size])]
    started = Started(str(CALL), str(CALL), "l16", rate_hz, token=str(CALL))
    assert events == [started, Audio(1, sound), Key("5"), Audio(2, sound), Stopped()]
    assert stream.media(sound) == message(kind, sound)
    assert stream.goodbye() == [b"\x00\x00\x00"]
    assert not stream.clears
    assert stream.clear() == []


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"GET / HTTP/1.1\r\n", "not a UUID"),
        (message(0x01, b"short"), "not a UUID"),
        (message(0x10, bytes(320)), "not a UUID"),
        (message(0x01, CALL.bytes) * 2, "comes twice"),
        (message(0x01, CALL.bytes) + b"\x10\xff\xff", "65535 bytes"),
        (message(0x01, CALL.bytes) + message(0x10, bytes(3)), "no whole samples"),
        (message(0x01, CALL.bytes) + message(0x10, bytes(2)) + message(0x12, bytes(2)), "rate changes"),
        (message(0x01, CALL.bytes) + message(0x03, b"no"), "a key of 2 bytes"),
        (message(0x01, CALL.bytes) + message(0x03, b"\xe9"), "not a key"),
        (message(0x01, CALL.bytes) + message(0x77), "unknown kind 0x77"),
    ],
)
def test_what_audiosocket_refuses(data: bytes, words: str) -> None:
    with pytest.raises(CarrierError, match=words):
        AudioSocketStream().receive(data)


def test_an_error_of_audiosocket_ends_it() -> None:
    stream = AudioSocketStream()
    assert stream.receive(message(0x01, CALL.bytes) + message(0xFF, b"\x01")) == [Stopped("the caller hung up")]


@pytest.mark.parametrize("as_json", [False, True])
def test_asterisk_over_a_websocket(as_json: bool) -> None:
    stream = PbxStream()
    if as_json:
        words = {
            "event": "MEDIA_START", "connection_id": "media_connection1", "channel_id": "17612.1", "format": "ulaw",
            "optimal_frame_size": 160, "ptime": 20, "channel_variables": {"CALLER": "+15550001"},
        }  # fmt: skip
        start, key, mark = (
            json.dumps(words),
            '{"event":"DTMF_END","digit":"4"}',
            '{"event":"MEDIA_MARK_PROCESSED","channel_id":"7","correlation_id":"a"}',
        )
    else:
        start = "MEDIA_START connection_id:media_connection1 channel:WebSocket/m/0x5 channel_id:17612.1 format:ulaw"
        key, mark = "DTMF_END digit:4", "MEDIA_MARK_PROCESSED a"
    (started,) = stream.receive(start)
    assert isinstance(started, Started)
    assert (started.call_id, started.codec, started.rate_hz) == ("17612.1", "pcmu", 8000)
    assert started.parameters["connection_id"] == "media_connection1"
    assert started.parameters.get("CALLER") == ("+15550001" if as_json else None)
    assert stream.marks == as_json
    assert stream.clears
    assert stream.receive(FRAME) == [Audio(1, FRAME)]
    assert stream.receive(key) == [Key("4")]
    assert stream.receive(mark) == [Marked("a")]
    assert stream.receive("MEDIA_XOFF") == []
    assert stream.media(FRAME) == FRAME
    sent = [*stream.mark("a"), *stream.clear(), *stream.goodbye()]
    if as_json:
        assert [json.loads(text) for text in sent] == [
            {"command": "MARK_MEDIA", "correlation_id": "a"}, {"command": "FLUSH_MEDIA"}, {"command": "HANGUP"},
        ]  # fmt: skip
    else:
        assert sent == ["FLUSH_MEDIA", "HANGUP"]
    assert stream.closed() == [Stopped()]


@pytest.mark.parametrize("first", ['{"caller":"1000"}', "any words", None])
def test_freeswitch(first: str | None) -> None:
    stream = PbxStream(16_000, "call-1")
    sound = bytes(640)
    events = stream.receive(first) if first is not None else []
    events += stream.receive(sound)
    assert isinstance(events[0], Started)
    assert (events[0].call_id, events[0].codec, events[0].rate_hz) == ("call-1", "l16", 16_000)
    assert events[1:] == [Audio(1, sound)]
    assert not stream.marks
    assert not stream.clears
    assert stream.mark("a") == stream.clear() == stream.goodbye() == []
    if first == '{"caller":"1000"}':
        assert events[0].parameters == {"caller": "1000"}


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        (["MEDIA_START format:opus"], "dial with"),
        (["MEDIA_START format:ulaw", "MEDIA_START format:ulaw"], "comes twice"),
        (["DTMF_END digit:4"], "comes before MEDIA_START"),
        (["MEDIA_START format:ulaw", "DTMF_END digit:44"], "not a key"),
        (["MEDIA_START format:ulaw", *["NEWS"] * 51], "too many unknown events"),
        (["x" * 70_000], "70000 bytes"),
        ([bytes(100_000)], "100000 bytes"),
    ],
)
def test_what_a_pbx_may_not_say(messages: list[str | bytes], words: str) -> None:
    stream = PbxStream()
    with pytest.raises(CarrierError, match=words):
        for one in messages:
            stream.receive(one)


def test_asterisk_whose_audio_comes_before_its_start() -> None:
    stream = PbxStream()
    assert [stream.receive(FRAME) for _ in range(10)] == [[]] * 10
    (started,) = stream.receive("MEDIA_START channel_id:1.2 format:alaw")
    assert isinstance(started, Started)
    assert started.codec == "pcma"


def test_freeswitch_whose_address_tells_no_rate() -> None:
    stream = PbxStream()
    events = [event for _ in range(11) for event in stream.receive(bytes(320))]
    assert events == [Started("", "", "l16", 8000), Audio(1, bytes(320))]


def test_a_rate_that_is_none() -> None:
    with pytest.raises(CarrierError, match="is not among 8000"):
        PbxStream(11_025)
