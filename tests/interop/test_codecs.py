"""baresip talks to the box in every codec, packet length and SRTP mode: each hears the other, and a key counts once.

What the box heard is in its recording (left), what baresip heard in the file that it keeps of its decoder; both are
laid beside what was said.
"""

from __future__ import annotations

import struct
import time
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from appliance.audio import g711
from appliance.audio.codec import new_codec
from appliance.audio.level import rms_dbfs_one
from appliance.audio.tones import sine
from appliance.cli.box import HOST, Box
from appliance.cli.softphone import read_wav
from tests.bench import lines, records
from tests.interop import sipp
from tests.interop.claims import proves
from tests.interop.conftest import quick_settings
from tests.peers.baresip import Baresip, missing
from tests.peers.capture import RtpCapture, may_capture
from tests.peers.phone import PeerError
from tests.waiting import LIMIT_S

pytestmark = [pytest.mark.peer, pytest.mark.skipif(bool(missing()), reason=missing())]

Audio = NDArray[np.int16]
CODECS = {"pcmu": "PCMU/8000/1", "pcma": "PCMA/8000/1", "g722": "G722/16000/1", "opus": "opus/48000/2"}
LINE = "1010"
KEY = "9"
TALK_S = 6.0
KEY_S = 1.0
"""From a key to the end of the call, with which it comes on record."""
LIKE, LIKE_OPUS = 0.9, 0.8
"""How like it must at least be; Opus keeps less of the waveform than of what is heard."""
_WINDOW = 4000
_SEARCH = 400


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("codecs")


def settings(folder: Path, **trunk: object) -> dict[str, object]:
    """A box that greets at length, listens on whatever it hears, and has these settings for its trunk."""
    patient = {
        "name": "patient",
        "match": {"called": LINE},
        "greeting": "Good morning. This is the line that listens patiently to whatever anybody would like to say.",
        "record": True,
        "barge_in": False,
        "no_input": {"after_s": 600},
        "no_match": {"prompts": ["Please go on."], "retries": 10},
        "flow": {"wait": {"ask": "Please speak.", "keys": {KEY: "nine"}, "next": "wait"}},
    }
    chosen = {**quick_settings(folder), **lines.dialplan(folder, [patient]), "engines.tts": {"provider": "espeak"}}
    return chosen | {f"trunks.local.{name}": value for name, value in trunk.items()}


@pytest.fixture(scope="module")
def codec_box(folder: Path) -> Iterator[Box]:
    with Box(folder / "box", settings(folder / "plain", codecs=list(CODECS))) as box:
        yield box


@dataclass(frozen=True)
class Heard:
    """How like what was said each end found what it heard: medians over half-second pieces, 1 for the same."""

    by_box: float
    by_peer: float
    least: float
    record: records.Row

    def faults(self) -> list[str]:
        """What is wrong, in words."""
        said = {"the box": self.by_box, "baresip": self.by_peer}
        unlike = [f"{who} heard {score:.2f} of it" for who, score in said.items() if score < self.least]
        keys = keys_of(self.record)
        return unlike if keys == [KEY] else [*unlike, f"the keys on record are {keys}"]


def keys_of(record: records.Row) -> list[str]:
    return [turn["caller_text"] for turn in record["turns"] if turn["by"] == "key"]


def call(box: Box, folder: Path, speech: Path, **phone: object) -> Heard:
    before = len(records.calls(box.database))
    peer = Baresip(folder / "phone", speech=speech, **phone)  # type: ignore[arg-type]
    try:
        peer.dial(box.uri(LINE))
        time.sleep(TALK_S)
        peer.press(KEY)
        time.sleep(KEY_S)
        peer.hang_up()
    finally:
        peer.close()
    record = records.wait_settled(box.database, before + 1)[-1]
    both = recording(box, record)
    caller, agent = np.ascontiguousarray(both[:, 0]), np.ascontiguousarray(both[:, 1])
    least = LIKE_OPUS if "opus" in str(phone.get("codec")) else LIKE
    return Heard(likeness(read_wav(speech), caller), likeness(agent, peer.heard()), least, record)


def recording(box: Box, record: records.Row) -> Audio:
    """A call's recording, int16 [samples, 2] at 8 kHz: the caller and the agent."""
    with wave.open(str(box.recordings / record["recording_path"])) as file:
        return np.frombuffer(file.readframes(file.getnframes()), np.int16).reshape(-1, 2)


def likeness(said: Audio, heard: Audio) -> float:
    """The median, over the half seconds of ``heard`` with speech in them, of the correlation with what was said."""
    offset = _offset(said, heard)
    scores: list[float] = []
    loudest = max(float(np.abs(heard.astype(np.int32)).max()), 1.0)
    for start in range(0, len(heard) - _WINDOW, _WINDOW):
        piece = heard[start : start + _WINDOW].astype(np.float64)
        at = start + offset - _SEARCH
        if np.abs(piece).max() < loudest / 8 or at < 0 or at + _WINDOW + 2 * _SEARCH > len(said):
            continue
        around = said[at : at + _WINDOW + 2 * _SEARCH].astype(np.float64)
        energies = np.convolve(around**2, np.ones(_WINDOW), "valid")
        products = np.correlate(around, piece, "valid")
        scores.append(float(np.max(products / np.sqrt(energies * float(piece @ piece) + 1.0))))
    return float(np.median(scores)) if scores else 0.0


def _offset(said: Audio, heard: Audio) -> int:
    """Where in ``said`` the beginning of ``heard`` lies, in samples."""
    size = 1 << (len(said) + len(heard)).bit_length()
    both = np.fft.rfft(said.astype(np.float64), size) * np.conj(np.fft.rfft(heard.astype(np.float64), size))
    at = int(np.argmax(np.fft.irfft(both, size)))
    return at if at < size // 2 else at - size


@proves("Media: PCMU", "Media: PCMA", "Media: G.722", "Media: Opus")
@pytest.mark.parametrize("codec", CODECS)
def test_each_hears_the_other_in_every_codec(codec_box: Box, tmp_path: Path, speech: Path, codec: str) -> None:
    heard = call(codec_box, tmp_path, speech, codec=CODECS[codec])
    assert heard.record["disposition"] == "completed"
    assert heard.faults() == []


@proves("Media: ptime: 10 to 60 ms")
@pytest.mark.parametrize(
    ("codec", "ptime_ms"),
    [("pcmu", 10), ("pcmu", 30), ("pcmu", 60), ("g722", 40), ("opus", 10), ("opus", 60)],
)
def test_packets_of_every_length(codec_box: Box, tmp_path: Path, speech: Path, codec: str, ptime_ms: int) -> None:
    heard = call(codec_box, tmp_path, speech, codec=CODECS[codec], ptime_ms=ptime_ms)
    assert heard.faults() == []


@proves("Media: SRTP by SDES: calls to the box", "Media: SRTP by SDES: plain RTP refused where SRTP is required")
def test_srtp_required(start_box: Callable[..., Box], tmp_path: Path, speech: Path) -> None:
    box = start_box(settings(tmp_path, srtp="required"))
    for mode in ("srtp", "srtp-mand"):
        heard = call(box, tmp_path / mode, speech, account=f"mediaenc={mode}")
        assert heard.faults() == [], mode
    with pytest.raises(PeerError, match="488"):
        call(box, tmp_path / "plain", speech)


def test_srtp_optional_and_off(start_box: Callable[..., Box], codec_box: Box, tmp_path: Path, speech: Path) -> None:
    box = start_box(settings(tmp_path / "optional", srtp="optional"))
    for number, mode in enumerate(("", "mediaenc=srtp", "mediaenc=srtp-mand")):
        heard = call(box, tmp_path / str(number), speech, account=mode)
        assert heard.faults() == [], mode
    with pytest.raises(PeerError, match="488"):
        call(codec_box, tmp_path / "off", speech, account="mediaenc=srtp-mand")


@pytest.mark.skipif(not may_capture(), reason="looking at the loopback interface needs root (CAP_NET_RAW)")
@proves("Media: SRTP by SDES: calls from the box")
@pytest.mark.parametrize("codec", ["pcma", "opus"])
def test_a_caller_put_through_to_srtp(start_box: Callable[..., Box], tmp_path: Path, speech: Path, codec: str) -> None:
    """One baresip calls in by plain G.722 and is put through to another that takes SRTP and another codec only."""
    called = Baresip(
        tmp_path / "called", codec=CODECS[codec], account="mediaenc=srtp-mand;answermode=auto", speech=speech
    )
    on = {
        "name": "on",
        "match": {"called": LINE},
        "record": False,
        "greeting": "One moment.",
        "flow": {"on": {"transfer": {"to": "tester", "timeout_s": 10}}},
    }
    box = start_box(
        {
            **quick_settings(tmp_path),
            **lines.dialplan(tmp_path, [on]),
            "trunks.local.codecs": ["g722"],
            "trunks.local.transfer": "bridge",
            "trunks.far": {
                "kind": "sip",
                "proxy": f"sip:{HOST}:{called.sip_port}",
                "allow_prefixes": ["tester"],
                "codecs": [codec],
                "srtp": "required",
            },
            "routes": [{"trunks": ["far"]}],
        }
    )
    caller = Baresip(tmp_path / "caller", codec=CODECS["g722"], speech=speech)
    with RtpCapture(str(box.settings["listen.rtp_ports"]), (9,)) as capture:
        try:
            caller.dial(box.uri(LINE))
            called.wait_answered(15.0)
            time.sleep(TALK_S)
            caller.hang_up()
            called.wait_closed(LIMIT_S)
        finally:
            caller.close()
            called.close()
        sent = capture.payloads(9)
    least = LIKE_OPUS if codec == "opus" else LIKE
    assert likeness(read_wav(speech), called.heard()) > least
    # baresip keeps no file of what it hears after a re-INVITE (hold): what the caller was sent is read on the wire.
    decoder = new_codec("g722")
    heard = np.concatenate([decoder.decode(payload) for payload in sent])
    assert likeness(read_wav(speech), heard[-int(8000 * (TALK_S - 1)) :]) > least


@pytest.mark.skipif(bool(sipp.missing()), reason=sipp.missing())
@pytest.mark.skipif(not may_capture(), reason="looking at the loopback interface needs root (CAP_NET_RAW)")
class TestSipp:
    """What needs a peer that says exactly what it is told, and a look at the wire."""

    @proves("Media: payload types mapped per direction", "Media: DTMF by RFC 4733 received")
    def test_each_side_sends_with_the_others_payload_types(self, shared_box: Box, tmp_path: Path) -> None:
        """The box offered 0 and 101 and is answered 97 and 120: it sends with these and hears a key sent as 101."""
        before = len(records.calls(shared_box.database))
        with RtpCapture(str(shared_box.settings["listen.rtp_ports"]), (0, 97)) as capture:
            sipp.call("uac_mapped", tmp_path / "sipp", (HOST, shared_box.sip_port), service=lines.KEYS)
            assert len(capture.payloads(97)) > 50
            assert capture.payloads(0) == []
        record = records.wait_settled(shared_box.database, before + 1)[-1]
        assert [turn["caller_text"] for turn in record["turns"] if turn["by"] == "key"] == ["1"]

    @proves("Media: comfort noise (RFC 3389)")
    def test_comfort_noise_both_ways(self, start_box: Callable[..., Box], tmp_path: Path) -> None:
        """A second of tone, then packets of one octet for noise of -40 dBov; the box falls silent the same way."""
        box = start_box(settings(tmp_path, comfort_noise=True))
        (tmp_path / "sipp").mkdir()
        tone = g711.encode(sine(440, 8000), False).reshape(-1, 160)
        voice = [(0, 20 * number, payload.tobytes()) for number, payload in enumerate(tone)]
        noise = [(13, 1000 + 200 * number, b"\x28") for number in range(15)]
        (tmp_path / "sipp" / "caller.pcap").write_bytes(pcap([*voice, *noise]))
        with RtpCapture(str(box.settings["listen.rtp_ports"]), (0, 13)) as capture:
            sipp.call("uac_comfort_noise", tmp_path / "sipp", (HOST, box.sip_port), service=LINE)
            assert len(capture.payloads(13)) > 0
            assert len(capture.payloads(0)) > 50
        record = records.wait_settled(box.database, 1)[-1]
        caller = recording(box, record)[:, 0]
        loud = np.flatnonzero(np.abs(caller.astype(np.int32)) > 4000)
        heard = caller[loud[-1] + 800 : loud[-1] + 12_000]
        assert rms_dbfs_one(np.ascontiguousarray(heard)) == pytest.approx(-40.0, abs=3.0)


def pcap(packets: list[tuple[int, int, bytes]]) -> bytes:
    """A capture file that SIPp can play: RTP packets of (payload type, ms since the first, payload)."""
    loopback = b"\x7f\0\0\x01"
    out = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    for number, (payload_type, at_ms, payload) in enumerate(packets):
        rtp = struct.pack(">BBHII", 0x80, payload_type, number, at_ms * 8, 7) + payload
        udp = struct.pack(">HHHH", 4000, 4000, 8 + len(rtp), 0) + rtp
        header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), number, 0, 64, 17, 0, loopback, loopback)
        frame = bytes(12) + b"\x08\x00" + header + udp
        seconds, ms = divmod(at_ms, 1000)
        out += struct.pack("<IIII", 1_000_000 + seconds, ms * 1000, len(frame), len(frame)) + frame
    return out
