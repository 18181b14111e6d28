"""SIPp plays RTP that was made for the purpose: lost, late, doubled and restarted packets, and keys in every form.

What the box made of it is in its recording, and in the call's record.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from appliance.audio import g711
from appliance.audio.tones import key_tone, sine
from appliance.cli.box import HOST, Box, free_port
from appliance.cli.softphone import read_wav
from appliance.rtp.dtmf import DtmfSender
from appliance.rtp.packet import build
from tests.audio.heard import level_dbfs
from tests.bench import lines, records
from tests.interop import sipp
from tests.interop.claims import proves
from tests.interop.conftest import quick_settings
from tests.interop.test_codecs import likeness, recording
from tests.peers.capture import RtpCapture, may_capture

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(bool(sipp.missing()), reason=sipp.missing()),
    pytest.mark.skipif(not may_capture(), reason="SIPp plays captures over raw sockets, as root only"),
]

Audio = NDArray[np.int16]
CODE, LISTENING = "1020", "1021"
EVENTS, INFO = "127.0.0.31", "127.0.0.32"
"""Peers that take keys as RFC 4733 events, and by INFO only."""
KEYS = "5577"
_FRAME = 160


@dataclass
class Stream:
    """RTP packets and when each leaves; ``number``, ``timestamp`` and ``ssrc`` are those of the next one."""

    number: int = 65500
    timestamp: int = 2**32 - 4000
    ssrc: int = 7
    at_ms: float = 0.0
    packets: list[tuple[float, bytes]] = field(default_factory=list)

    def say(self, voice: Audio, marker: bool = False) -> None:
        """Samples as PCMU, a packet every 20 ms."""
        for payload in g711.encode(voice[: len(voice) // _FRAME * _FRAME].reshape(-1, _FRAME), False):
            self.add(0, payload.tobytes(), marker)
            marker = False

    def add(self, payload_type: int, payload: bytes, marker: bool = False, age: int = 0) -> None:
        """One packet, 20 ms after the one before; ``age`` is subtracted from its timestamp."""
        stamp = (self.timestamp - age) % 2**32
        self.packets.append((self.at_ms, build(payload_type, self.number, stamp, self.ssrc, payload, marker)))
        self.number = (self.number + 1) % 2**16
        self.timestamp = (self.timestamp + _FRAME) % 2**32
        self.at_ms += 20.0

    def capture(self) -> bytes:
        """A capture file that SIPp can play, the packets in the order in which they leave."""
        out = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
        loopback = b"\x7f\0\0\x01"
        for at_ms, rtp in sorted(self.packets):
            udp = struct.pack(">HHHH", 4000, 4000, 8 + len(rtp), 0) + rtp
            header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, loopback, loopback)
            frame = bytes(12) + b"\x08\x00" + header + udp
            seconds, microseconds = divmod(round(at_ms * 1000), 1_000_000)
            out += struct.pack("<IIII", 1_000_000 + seconds, microseconds, len(frame), len(frame)) + frame
        return out


@pytest.fixture(scope="module")
def rtp_box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    folder = tmp_path_factory.mktemp("rtp")
    with Box(folder / "box", {**quick_settings(folder), **lines.dialplan(folder, _lines())}) as box:
        yield box


def _lines() -> list[dict[str, object]]:
    usual: dict[str, object] = {"record": True, "barge_in": True, "no_match": {"prompts": ["Again?"], "retries": 10}}
    code = {"ask": "Code?", "digits": {"min": 4, "max": 4, "by": "key"}, "slot": "code", "next": "wait"}
    wait = {"ask": "Speak.", "keys": {"9": "nine"}, "next": "wait"}
    return [
        {
            **usual,
            "name": "code",
            "match": {"called": CODE},
            "no_input": {"after_s": 600},
            "flow": {"code": code, "wait": wait},
        },
        {
            **usual,
            "name": "listening",
            "match": {"called": LISTENING},
            "no_input": {"after_s": 600},
            "flow": {"wait": wait},
        },
    ]


def play(
    box: Box, folder: Path, stream: Stream, service: str, *, scenario: str = "uac_play", formats: str = "0 101"
) -> records.Row:
    """One call in which SIPp plays the stream; its record."""
    before = len(records.calls(box.database))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "caller.pcap").write_bytes(stream.capture())
    keys = {"formats": formats, **{f"key{n}": key for n, key in enumerate(KEYS)}}
    lasting = stream.at_ms + 700 if scenario == "uac_play" else 800
    where = (HOST, box.sip_port)
    sipp.call(scenario, folder, where, service=service, keys=keys, options=("-d", str(round(lasting))))
    return records.wait_settled(box.database, before + 1)[-1]


def pressed(record: records.Row) -> str:
    return "".join(turn["caller_text"] for turn in record["turns"] if turn["by"] == "key")


def keyed(*, events: bool, tones: bool) -> Stream:
    """The keys, one every half second from 0.5 s on, as events, as tones, or as tones that events cut short."""
    stream = Stream()
    noise = np.random.default_rng(3).normal(0.0, 30.0, 4000).astype(np.int16)
    stream.say(noise[:4000])
    for key in KEYS:
        lasting = 5 if tones else 0
        if tones:
            stream.say(key_tone(key, 160 * (2 if events else lasting), -15.0))
        sender = DtmfSender(key) if events else DtmfSender()
        count = 25 - (2 if tones and events else lasting)
        for _ in range(count):
            step = sender.next()
            if step is None or step.payload is None:
                stream.say(noise[:_FRAME])
            else:
                stream.add(101, step.payload, step.marker, step.timestamp_age)
    stream.say(noise[:800])
    return stream


@proves("Media: DTMF in band received")
def test_keys_as_tones(rtp_box: Box, tmp_path: Path) -> None:
    record = play(rtp_box, tmp_path, keyed(events=False, tones=True), CODE, formats="0")
    assert pressed(record) == KEYS


@proves("Media: each key counted once, however many ways it comes")
@pytest.mark.parametrize(("events", "formats"), [(True, "0 101"), (False, "0")])
def test_keys_as_tones_events_and_info(rtp_box: Box, tmp_path: Path, events: bool, formats: str) -> None:
    """Twice each of two keys: 5577, where every one is told by INFO 150 ms after it has begun in the RTP."""
    stream = keyed(events=events, tones=True)
    record = play(rtp_box, tmp_path, stream, CODE, scenario="uac_play_info", formats=formats)
    assert pressed(record) == KEYS


@proves("Media: jitter, loss, duplicates and reordering")
def test_a_bad_network(rtp_box: Box, tmp_path: Path) -> None:
    """A voice over a path with 0 to 60 ms of jitter in which 5 % of the packets are lost and 3 % come twice."""
    voice = np.concatenate([read_wav(path) for path in lines.human_speech(tmp_path)[:4]])[: 8000 * 8]
    stream = Stream()
    stream.say(voice)
    chance = random.Random(11)
    sent, stream.packets = stream.packets, []
    for at_ms, rtp in sent:
        for _ in range(chance.choices((0, 1, 2), (5, 92, 3))[0]):
            stream.packets.append((at_ms + chance.uniform(0, 60), rtp))
    record = play(rtp_box, tmp_path / "sipp", stream, LISTENING)
    heard = np.ascontiguousarray(recording(rtp_box, record)[:, 0])
    assert likeness(voice, heard) > 0.9
    assert -2.0 < _sounding_s(heard) - _sounding_s(voice) < 0.3


@proves("Media: SSRC change, timestamp jump, sequence wrap")
def test_a_stream_that_starts_again_and_again(rtp_box: Box, tmp_path: Path) -> None:
    """Four tones of a second: over both wraps, from a new SSRC, and after a leap of the timestamp either way."""
    tones_hz = (350.0, 500.0, 650.0, 800.0)
    stream = Stream()
    for tone_hz, change in zip(tones_hz, ("", "ssrc", "forward", "back"), strict=True):
        if change == "ssrc":
            stream.ssrc, stream.number, stream.timestamp = 99, 31_000, 5
        elif change:
            stream.timestamp = (stream.timestamp + (10**6 if change == "forward" else -3 * 10**6)) % 2**32
        stream.say(sine(tone_hz, 8000, -15.0))
    record = play(rtp_box, tmp_path, stream, LISTENING)
    heard = recording(rtp_box, record)[:, 0]
    frames = [np.ascontiguousarray(heard[n : n + 400]) for n in range(0, len(heard) - 400, 400)]
    loudest = [max(tones_hz, key=lambda hz: level_dbfs(frame, hz)) for frame in frames if np.abs(frame).max() > 3000]
    assert [hz for n, hz in enumerate(loudest) if n == 0 or loudest[n - 1] != hz] == list(tones_hz)
    for tone_hz in tones_hz:
        assert 0.5 <= loudest.count(tone_hz) * 0.05 <= 1.1


@pytest.fixture(scope="module")
def joining(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Box, dict[str, int]]]:
    """A box that hands callers on to whom takes keys as events, or by INFO; and where each of the two listens."""
    folder = tmp_path_factory.mktemp("joining")
    settings = quick_settings(folder)
    hand_on = [
        {"name": name, "match": {"called": name}, "flow": {"on": {"transfer": {"to": number}, "failed": "no"}, **no}}
        for name, number, no in (
            ("events", "+15550001", {"no": {"hang_up": "Sorry."}}),
            ("info", "+15560001", {"no": {"hang_up": "Sorry."}}),
        )
    ]
    lines.dialplan(folder, hand_on)
    ports = {EVENTS: free_port(), INFO: free_port()}
    settings["trunks"] = {
        "caller": {"kind": "sip", "allow": [HOST], "transfer": "bridge"},
        "events": {"kind": "sip", "proxy": f"sip:{EVENTS}:{ports[EVENTS]}", "allow_prefixes": ["+1555"]},
        "info": {"kind": "sip", "proxy": f"sip:{INFO}:{ports[INFO]}", "allow_prefixes": ["+1556"], "dtmf": "info"},
    }
    settings["routes"] = [{"to": "+1555*", "trunks": ["events"]}, {"to": "+1556*", "trunks": ["info"]}]
    with Box(folder / "box", settings) as running:
        yield running, ports


@proves("Media: DTMF by RFC 4733 sent: durations, the end three times")
def test_keys_go_on_as_events(joining: tuple[Box, dict[str, int]], tmp_path: Path) -> None:
    """Two presses that the caller told by INFO leave as two events of 100 ms."""
    box, ports = joining
    with RtpCapture(str(box.settings["listen.rtp_ports"]), (101,)) as capture:
        with sipp.Sipp("uas_call", tmp_path / "called", host=EVENTS, port=ports[EVENTS]) as called:
            called.wait_ready()
            sipp.call("uac_put_through_keys", tmp_path / "caller", (HOST, box.sip_port), service="events")
            called.wait()
        sent = [(payload[0], payload[1] >> 7, int.from_bytes(payload[2:4], "big")) for payload in capture.payloads(101)]
    press = [(4, 0, duration) for duration in (160, 320, 480, 640)] + [(4, 1, 800)] * 3
    assert sent == press + press


@proves("Media: DTMF by INFO sent")
def test_keys_go_on_by_info(joining: tuple[Box, dict[str, int]], tmp_path: Path) -> None:
    box, ports = joining
    with sipp.Sipp("uas_keys", tmp_path / "called", host=INFO, port=ports[INFO]) as called:
        called.wait_ready()
        sipp.call("uac_put_through_keys", tmp_path / "caller", (HOST, box.sip_port), service="info")
        called.wait()


def _sounding_s(voice: Audio) -> float:
    """How long there is anything but silence."""
    frames = np.abs(voice[: len(voice) // _FRAME * _FRAME].astype(np.int32)).reshape(-1, _FRAME).max(axis=1)
    return float(np.count_nonzero(frames > 300)) * 0.02
