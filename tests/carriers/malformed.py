"""What no peer should send, by protocol: for the protocols themselves, and for the sockets of a whole box.

A case is messages in their order; ``refused`` says whether the last of them is one too many. :data:`START` stands for
the good beginning of a stream. A :class:`Raw` is a text message that is not UTF-8.
"""

from __future__ import annotations

import base64
import json
import uuid
from dataclasses import dataclass
from typing import Any, Final

from appliance.carriers.audiosocket import message

START: Final = "START"
AUDIO: Final = base64.b64encode(bytes(160)).decode()
CALL: Final = uuid.UUID("40325ec2-5efd-4bd3-805f-53576e581d13")
TOKEN: Final = "s3cret"


@dataclass(frozen=True)
class Raw:
    """The payload of a text message."""

    payload: bytes


@dataclass(frozen=True)
class Case:
    name: str
    messages: tuple[str | bytes | Raw, ...]
    refused: bool = True


def refused(name: str, *messages: str | bytes | Raw) -> Case:
    return Case(name, messages)


def taken(name: str, *messages: str | bytes | Raw) -> Case:
    """Nothing is wrong enough for the stream to end."""
    return Case(name, messages, refused=False)


def _json(event: str, **parts: Any) -> str:
    return json.dumps({"event": event, "streamSid": "MZ18", "stream_id": "MZ18", **parts})


def _media(**media: Any) -> str:
    return _json("media", media={"track": "inbound", "chunk": "2", "timestamp": "5", "payload": AUDIO, **media})


def _frames(start: dict[str, Any], encoding: str, rate: str) -> list[Case]:
    """Cases of the message set of Twilio's, which Telnyx has too."""
    form_name = "mediaFormat" if encoding.startswith("audio/") else "media_format"
    form = {"encoding": encoding, rate: 8000, "channels": 1}

    def begin(**changes: Any) -> str:
        return _json("start", start={**start, form_name: form, **changes})

    def begin_as(**changes: Any) -> str:
        return begin(**{form_name: {**form, **changes}})

    parameters = "customParameters" if form_name == "mediaFormat" else "custom_parameters"
    deep = '{"a":' * 15_000 + "1" + "}" * 15_000
    return [
        refused("empty text", ""),
        refused("empty binary", b""),
        refused("words", "hello"),
        refused("half a message", '{"event":"start"'),
        refused("two messages in one", '{"event":"connected"}{"event":"connected"}'),
        refused("a list", "[]"),
        refused("a number", "7"),
        refused("null", "null"),
        refused("nothing in it", "{}"),
        refused("an event that is a number", '{"event":7}'),
        refused("an event that is null", '{"event":null}'),
        refused("an event that is an object", '{"event":{}}'),
        refused("not UTF-8", Raw(b'{"event":"\xff\xfe"}')),
        refused("binary that is not UTF-8", b"\xff\xfe\x00"),
        refused("a null byte", '{"event":"connected"}\x00'),
        refused("a null byte escaped, as an event", '{"event":"\\u0000"}'),
        refused("a lone surrogate before the start", '{"event":"\\ud800"}'),
        refused("deep lists", "[" * 60_000),
        refused("deep objects", '{"event":"media","media":' + '{"a":' * 12_000),
        refused("deep objects, whole", '{"event":"x","y":' + deep + "}"),
        refused("a giant message", "x" * 70_000),
        refused("a giant message of spaces", " " * 70_000 + "{}"),
        refused("a giant event", json.dumps({"event": "x" * 65_000})),
        refused("media before the start", _media()),
        refused("a key before the start", _json("dtmf", dtmf={"digit": "1"})),
        refused("a mark before the start", _json("mark", mark={"name": "a"})),
        refused("stop before the start", _json("stop", stop={})),
        refused("an unknown event before the start", _json("news")),
        refused("start without a start", '{"event":"start"}'),
        refused("start that is null", '{"event":"start","start":null}'),
        refused("start that is a list", '{"event":"start","start":[]}'),
        refused("start that is empty", '{"event":"start","start":{}}'),
        refused("no media format", _json("start", start=start)),
        refused("a format that is text", begin(**{form_name: "mulaw"})),
        refused("a codec that nobody has", begin_as(encoding="opus")),
        refused("an empty codec", begin_as(encoding="")),
        refused("a codec that is a number", begin_as(encoding=0)),
        refused("a codec with a null byte", begin_as(encoding=encoding + "\0")),
        refused("a rate of 0", begin_as(**{rate: 0})),
        refused("a rate below 0", begin_as(**{rate: -8000})),
        refused("a rate that is huge", begin_as(**{rate: 10**30})),
        refused("a rate that is text", begin_as(**{rate: "8000"})),
        refused("a rate that is no number", begin_as(**{rate: float("nan")})),
        refused("a rate that is infinite", begin_as(**{rate: float("inf")})),
        refused("16 kHz mu-law", begin_as(**{rate: 16000})),
        refused("two channels", begin_as(channels=2)),
        refused("no channel", begin_as(channels=0)),
        refused("parameters that are a list", begin(**{parameters: []})),
        refused("parameters that are numbers", begin(**{parameters: {"token": 7}})),
        refused("start twice", START, START),
        refused("media without media", START, '{"event":"media"}'),
        refused("media that is text", START, '{"event":"media","media":"AAAA"}'),
        refused("no payload", START, '{"event":"media","media":{"chunk":"1"}}'),
        refused("a payload that is a number", START, _media(payload=7)),
        refused("an empty payload", START, _media(payload="")),
        refused("a payload that is not base64", START, _media(payload="!!!!")),
        refused("base64 cut off", START, _media(payload="AAA")),
        refused("base64 with a line break", START, _media(payload="AAAA\nAAAA")),
        refused("base64 with more after its end", START, _media(payload="AA==AAAA")),
        refused("base64 of an URL", START, _media(payload="-_-_")),
        refused("a payload beyond ASCII", START, _media(payload="\u00e4\u00e4\u00e4\u00e4")),
        refused("a payload of a lone surrogate", START, _media(payload="\ud800")),
        refused("a giant payload", START, _media(payload="A" * 40_000)),
        refused("a chunk that is words", START, _media(chunk="one")),
        refused("a chunk below 0", START, _media(chunk=-1)),
        refused("a chunk below 0, as text", START, _media(chunk="-1")),
        refused("a chunk that is huge", START, _media(chunk=10**40)),
        refused("a chunk of 100 digits", START, _media(chunk="9" * 100)),
        refused("a chunk that is no number", START, _media(chunk=float("nan"))),
        refused("a chunk with a point", START, _media(chunk=1.5)),
        refused("a chunk in other digits", START, _media(chunk="\u0661\u0662")),
        taken("a chunk that is null", START, _media(chunk=None)),
        refused("a track that is a number", START, _media(track=1)),
        refused("a key without a key", START, '{"event":"dtmf"}'),
        refused("no such key", START, _json("dtmf", dtmf={"digit": "x"})),
        refused("two keys", START, _json("dtmf", dtmf={"digit": "12"})),
        refused("an empty key", START, _json("dtmf", dtmf={"digit": ""})),
        refused("a key that is a number", START, _json("dtmf", dtmf={"digit": 1})),
        refused("a key in other digits", START, _json("dtmf", dtmf={"digit": "\u0661"})),
        refused("a mark without a mark", START, '{"event":"mark"}'),
        refused("a mark without a name", START, _json("mark", mark={})),
        refused("a mark whose name is a number", START, _json("mark", mark={"name": 1})),
        refused("nothing but unknown events", START, *[_json("news")] * 60),
        refused("unknown events of lone surrogates", START, *['{"event":"\\ud800\\n"}'] * 60),
        refused("a good call, then rubbish", START, _media(), _media(chunk="3"), "rubbish"),
        taken("connected again and again", *['{"event":"connected"}'] * 5, START, '{"event":"connected"}'),
        taken("an unknown event", START, _json("news", more={"a": [1, None, True]})),
        taken("a key twice in an object", START, '{"event":"x","event":"media","media":{"payload":"AAAA"}}'),
        taken("audio of the other side", START, _media(track="outbound")),
        taken("no chunk, one byte", START, '{"event":"media","media":{"payload":"AA=="}}'),
        taken("the same chunk again", START, _media(), _media(), _media()),
        taken("chunks backwards", START, *(_media(chunk=number) for number in (9, 8, 7, 1, 0))),
        taken("a chunk far ahead", START, _media(), _media(chunk="9" * 18), _media(chunk=3)),
        taken("marks that nobody made", START, *(_json("mark", mark={"name": n}) for n in ("", "0.", "\0", "9.9e9"))),
        taken("a mark of 9000 digits", START, _json("mark", mark={"name": "0." + "9" * 9000})),
        refused("a mark of a lone surrogate", START, '{"event":"mark","mark":{"name":"\\ud800"}}'),
        taken("things after the end", START, _json("stop", stop={}), "rubbish", b"\xff", _media()),
    ]  # fmt: skip


TWILIO_START: Final = {"accountSid": "AC1", "streamSid": "MZ18", "callSid": "CA1", "customParameters": {"token": TOKEN}}
TELNYX_START: Final = {"call_control_id": "v3:one", "call_session_id": "s1", "from": "+1", "to": "+2", "user_id": "u"}
TWILIO_FORM: Final = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
TELNYX_FORM: Final = {"encoding": "PCMU", "sample_rate": 8000, "channels": 1}


def twilio_start(token: str = TOKEN) -> str:
    return _json("start", start={**TWILIO_START, "mediaFormat": TWILIO_FORM, "customParameters": {"token": token}})


def telnyx_start() -> str:
    return _json("start", start={**TELNYX_START, "media_format": TELNYX_FORM})


_UUID: Final = message(0x01, CALL.bytes)
_SOUND: Final = message(0x10, bytes(320))
AUDIOSOCKET_CALL: Final = _UUID + _SOUND
"""A good one."""
AUDIOSOCKET: Final = [
    refused("another protocol", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    refused("text", b"hello, hello, hello"),
    refused("zeros", bytes(64)),
    refused("ones", b"\xff" * 64),
    refused("an UUID of no bytes", message(0x01)),
    refused("an UUID of 15 bytes", message(0x01, bytes(15))),
    refused("an UUID of 17 bytes", message(0x01, bytes(17))),
    refused("an UUID as text", message(0x01, str(CALL).encode())),
    refused("an UUID of the most bytes", b"\x01\xff\xff"),
    refused("audio before the UUID", _SOUND),
    refused("a key before the UUID", message(0x03, b"1")),
    refused("a hang-up before the UUID", message(0x00)),
    refused("an error before the UUID", message(0xFF, b"\x01")),
    refused("silence before the UUID", message(0x02)),
    refused("the UUID twice", _UUID + _UUID),
    refused("another UUID", _UUID + _SOUND + message(0x01, bytes(16))),
    refused("audio of 65535 bytes", _UUID + b"\x10\xff\xff"),
    refused("audio of 16001 bytes", _UUID + b"\x10\x3e\x81"),
    refused("half a sample", _UUID + message(0x10, b"\0")),
    refused("161 bytes", _UUID + message(0x10, bytes(161))),
    refused("another rate", _UUID + _SOUND + message(0x12, bytes(640))),
    refused("another rate, without audio", _UUID + _SOUND + message(0x16)),
    refused("a key of no bytes", _UUID + message(0x03)),
    refused("a key of two bytes", _UUID + message(0x03, b"12")),
    refused("a key that is none", _UUID + message(0x03, b"x")),
    refused("a key that is a null byte", _UUID + message(0x03, b"\0")),
    refused("a key beyond ASCII", _UUID + message(0x03, b"\xe9")),
    refused("a key of a kilobyte", _UUID + message(0x03, b"1" * 1000)),
    *(refused(f"kind 0x{kind:02x}", _UUID + message(kind)) for kind in (0x02, 0x04, 0x0F, 0x17, 0x20, 0x80, 0xFE)),
    refused("an unknown kind with much", _UUID + message(0x55, bytes(16_000))),
    refused("a good call, then rubbish", _UUID + _SOUND * 3 + b"\x99\x00\x01\x00"),
    refused("byte by byte, then rubbish", *(bytes((byte,)) for byte in _UUID + _SOUND + b"\x99\0\0")),
    taken("no audio in an audio message", _UUID + message(0x10) + _SOUND + message(0x10)),
    taken("one sample", _UUID + message(0x10, bytes(2))),
    taken("8000 samples", _UUID + message(0x10, bytes(16_000))),
    taken("each byte by itself", *(bytes((byte,)) for byte in _UUID + _SOUND)),
    taken("nothing at all", b"", _UUID, b"", _SOUND, b""),
    taken("half a message, and no more", _UUID + _SOUND[:100]),
    taken("an UUID of zeros", message(0x01, bytes(16)) + _SOUND),
    taken("small letters", _UUID + _SOUND + b"".join(message(0x03, bytes((key,))) for key in b"abcd*#")),
    taken("an error without a code", _UUID + _SOUND + message(0xFF)),
    taken("an error of many bytes", _UUID + _SOUND + message(0xFF, bytes(range(256)))),
    taken("a hang-up with words", _UUID + _SOUND + message(0x00, b"bye")),
    taken("things after the end", _UUID + _SOUND + message(0x00) + b"\x99" * 100, b"\xff" * 100),
]  # fmt: skip

_MEDIA_START: Final = "MEDIA_START connection_id:c channel:WebSocket/c/0x5 channel_id:17612.1 format:ulaw"
_ULAW: Final = bytes(160)
_TYPES: Final = {"a": [1], "b": None, "": {}, "c": 1.5}
_MANY: Final = {f"v{number}": "x" * 20 for number in range(1000)}


def _event(event: str, **parts: Any) -> str:
    return json.dumps({"event": event, **parts})


PBX: Final = [
    refused("a format that is not had", "MEDIA_START channel_id:1 format:opus"),
    refused("an empty format", "MEDIA_START channel_id:1 format:"),
    refused("a format with a null byte", "MEDIA_START channel_id:1 format:ulaw\0"),
    refused("a format of a kilobyte", "MEDIA_START channel_id:1 format:" + "u" * 1000),
    refused("a format that is a number", _event("MEDIA_START", format=8000)),
    refused("a format that is null", _event("MEDIA_START", format=None)),
    refused("a format that is a list", _event("MEDIA_START", format=["ulaw"])),
    refused("a format that is an object", _event("MEDIA_START", format={"ulaw": 1})),
    refused("MEDIA_START twice", _MEDIA_START, _MEDIA_START),
    refused("MEDIA_START twice, in both manners", _MEDIA_START, _event("MEDIA_START", format="ulaw")),
    refused("MEDIA_START in the midst of audio", *[bytes(320)] * 11, _MEDIA_START),
    refused("a key before MEDIA_START", "DTMF_END digit:1"),
    refused("a key before MEDIA_START, in JSON", _event("DTMF_END", digit="1")),
    refused("a mark before MEDIA_START", "MEDIA_MARK_PROCESSED id:1"),
    refused("an unknown event before MEDIA_START", _event("NEWS")),
    refused("an event that is null", _event("x") .replace('"x"', "null")),
    refused("an event that is a number", '{"event":1}'),
    refused("an event that is a list", '{"event":["MEDIA_START"]}'),
    taken("a number that is huge", '{"event":1e400}', bytes(320)),
    refused("a key without a key", START, "DTMF_END"),
    refused("an empty key", START, "DTMF_END digit:"),
    refused("two keys", START, "DTMF_END digit:12"),
    refused("a key that is none", START, "DTMF_END digit:x"),
    refused("a key that is null", START, _event("DTMF_END", digit=None)),
    refused("a key that is a list", START, _event("DTMF_END", digit=["1"])),
    refused("a key in other digits", START, _event("DTMF_END", digit="\u0661")),
    refused("nothing but unknown events", START, *["NEWS"] * 60),
    refused("nothing but unknown events, in JSON", START, *[_event("NEWS", a=1)] * 60),
    refused("nothing but words", START, *["some words"] * 60),
    refused("nothing but empty text", START, *[""] * 60),
    refused("nothing but broken JSON", START, *['{"event":'] * 60),
    refused("nothing but lone surrogates", START, *['{"event":"\\ud800"}'] * 60),
    refused("a giant text", "x" * 70_000),
    refused("a giant text later", START, "MEDIA_XON " + "x" * 70_000),
    refused("giant audio", START, bytes(100_000)),
    refused("giant audio at once", bytes(100_000)),
    refused("text that is not UTF-8", Raw(b"MEDIA_START format:\xff\xfe")),
    refused("text that is not UTF-8, later", START, Raw(b"\xc3\x28")),
    taken("empty text first", "", bytes(320)),
    taken("words first", "any words, \u0000 and a null byte", bytes(320)),
    taken("a list first", "[1,2]", bytes(320)),
    taken("broken JSON first", '{"a":', bytes(320)),
    taken("deep JSON first", '{"a":' * 10_000, bytes(320)),
    taken("JSON of FreeSWITCH", '{"a":null,"b":[1,{"c":2}],"d":1e999}'.replace("1e999", "12"), bytes(320)),
    taken("JSON with a name that is ours", '{"json":7,"text":"x"}', bytes(320)),
    taken("a lone surrogate first", '{"a":"\\ud800"}', bytes(320)),
    taken("empty audio first", b"", bytes(320)),
    taken("half a sample", b"\0", bytes(321), bytes(319)),
    taken("much audio", START, bytes(16_000)),
    taken("audio before MEDIA_START", _ULAW, _ULAW, _MEDIA_START, _ULAW),
    taken("an unknown event", START, "NEWS a:b c", _event("NEWS", a=[None])),
    taken("more colons", START, "STATUS a:b:c :d e: : ::"),
    taken("a mark that nobody made", START, "MEDIA_MARK_PROCESSED", "MEDIA_MARK_PROCESSED id:\u0661.\u0661"),
    taken("a mark that is a number", START, _event("MEDIA_MARK_PROCESSED", id=7)),
    taken("a mark of 9000 digits", START, "MEDIA_MARK_PROCESSED id:0." + "9" * 9000),
    taken("variables that are text", _event("MEDIA_START", format="ulaw", channel_variables="none"), _ULAW),
    taken("variables of all types", _event("MEDIA_START", format="alaw", channel_variables=_TYPES), _ULAW),
    taken("a thousand variables", _event("MEDIA_START", format="slin", channel_variables=_MANY), bytes(320)),
    taken("a channel that is an object", _event("MEDIA_START", format="ulaw", channel_id={"a": 1}), _ULAW),
    taken("Asterisk's own noise", START, "MEDIA_XOFF", "MEDIA_XON", "QUEUE_DRAINED", "STATUS queue_length:3"),
]  # fmt: skip

BROWSER_START: Final = json.dumps({"event": "start", "token": TOKEN, "rate": 48_000})


def _begin(**changes: Any) -> str:
    return json.dumps({"event": "start", "token": TOKEN, "rate": 48_000, **changes})


BROWSER: Final = [
    refused("empty text", ""),
    refused("words", "hello"),
    refused("a list", "[]"),
    refused("null", "null"),
    refused("nothing in it", "{}"),
    refused("half a message", '{"event":"start"'),
    refused("an event that is a number", '{"event":7}'),
    refused("an event that is null", '{"event":null}'),
    refused("not UTF-8", Raw(b'{"event":"\xff"}')),
    refused("deep lists", "[" * 1000),
    refused("deep objects", '{"event":' * 110),
    refused("a giant message", "x" * 70_000),
    refused("a message of more than a kilobyte", _begin(more="x" * 1100)),
    refused("a lone surrogate", '{"event":"\\ud800"}'),
    refused("a null byte", '{"event":"\\u0000"}'),
    refused("audio before the start", bytes(1920)),
    refused("empty audio before the start", b""),
    refused("a key before the start", _event("dtmf", digit="1")),
    refused("a mark before the start", _event("mark", name="a")),
    refused("stop before the start", _event("stop")),
    refused("no token", _begin(token="")),
    refused("a token that is a number", _begin(token=7)),
    refused("a token that is null", _begin(token=None)),
    refused("a long token", _begin(token="x" * 200)),
    refused("no rate", '{"event":"start","token":"t"}'),
    refused("a rate of 0", _begin(rate=0)),
    refused("a rate below 0", _begin(rate=-48_000)),
    refused("a rate that nobody has", _begin(rate=11_025)),
    refused("a rate that is huge", _begin(rate=10**30)),
    refused("a rate that is text", _begin(rate="48000")),
    refused("a rate that is no number", _begin(rate=float("nan"))),
    refused("a rate with a point", _begin(rate=48_000.5)),
    refused("start twice", START, START),
    refused("empty audio", START, b""),
    refused("half a sample", START, bytes(321)),
    refused("giant audio", START, bytes(60_000)),
    refused("an empty key", START, _event("dtmf")),
    refused("two keys", START, _event("dtmf", digit="12")),
    refused("no such key", START, _event("dtmf", digit="x")),
    refused("a key that is a number", START, _event("dtmf", digit=1)),
    refused("a mark without a name", START, _event("mark")),
    refused("a mark with a long name", START, _event("mark", name="x" * 300)),
    refused("a mark whose name is a number", START, _event("mark", name=1)),
    refused("an unknown event", START, _event("news")),
    refused("what the box says", START, _event("clear")),
    taken("marks that nobody made", START, *(_event("mark", name=name) for name in ("0.", "\0", "9.9", "9" * 200))),
    taken("one sample", START, bytes(2)),
    taken("half a second", START, bytes(48_000)),
    taken("things after the end", START, _event("stop"), "rubbish", b"\xff", b""),
]  # fmt: skip

CORPUS: Final[dict[str, list[Case]]] = {
    "twilio": _frames(TWILIO_START, "audio/x-mulaw", "sampleRate"),
    "telnyx": _frames(TELNYX_START, "PCMU", "sample_rate"),
    "audiosocket": AUDIOSOCKET,
    "pbx": PBX,
    "browser": BROWSER,
}
STARTS: Final = {
    "twilio": twilio_start(), "telnyx": telnyx_start(), "pbx": _MEDIA_START, "browser": BROWSER_START,
}  # fmt: skip
