"""One leg of an audio clock over real loopback sockets, and the peer at its other end, in time that the test makes."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from appliance.audio.codec import new_codec
from appliance.ipc.messages import AnyMessage
from appliance.ipc.rings import FRAME_SAMPLES, AudioRings
from appliance.media.leg import MediaLeg
from appliance.media.playout import Playout
from appliance.media.ports import PortPool
from appliance.media.tick import AudioClock
from appliance.rtp.packet import RtpPacket, build, parse
from appliance.rtp.srtp import SUITES
from appliance.rtp_params import RtpParams

GENERATION: Final = 11
PAYLOAD_TYPES: Final = {"pcmu": 0, "pcma": 8, "g722": 9, "opus": 96}


def tone(level: int = 8000, samples: int = FRAME_SAMPLES) -> np.ndarray:
    return level * np.sin(np.arange(samples) / 8000 * 2 * np.pi * 400)


class Bench:
    """One leg of an audio clock, and the peer at its other end."""

    def __init__(
        self,
        *,
        codec: str = "pcmu",
        rtp_timeout_s: float = 30.0,
        slot: int = 2,
        host: str = "127.0.0.1",
        clock: AudioClock | None = None,
        **agreed: Any,
    ) -> None:
        self.slot = slot
        if clock is None:
            self.messages: list[AnyMessage] = []
            self.rings = AudioRings.create(4)
            clip = np.arange(1, 321, dtype=np.int16) * 10
            self.clock = AudioClock(self.rings, None, self.messages.append, rtp_timeout_s, clip)
        else:
            self.clock, self.rings = clock, clock.rings
        self.pair = PortPool(host, 26000, 26200).bind()
        self.ours = self.pair.rtp
        self.peer, self.peer_rtcp = PortPool(host, 26200, 26400).bind()
        self.rings.open(slot, GENERATION)
        self.leg = MediaLeg(slot, GENERATION, self.pair, Playout(self.rings.tts[slot]), 0xCAFE)
        self.clock.legs[slot] = self.leg
        self.clock.receiver.add(self.ours, slot)
        self.clock.receiver.add(self.pair.rtcp, ~slot)
        self.alaw = codec == "pcma"
        self.codec = new_codec(codec)
        self.agreed: dict[str, Any] = {"codec": codec, "payload_type": PAYLOAD_TYPES[codec], **agreed}
        self.leg.connect(self.params(), time.monotonic())
        self.clock.begin(self.leg, 65535, 0xFFFFFFF0)
        self.sequence = 0

    def params(self, **changed: Any) -> RtpParams:
        host, port = self.peer.getsockname()[:2]
        fields = {"remote_host": host, "remote_port": port, "dtmf_payload_type": 101, **self.agreed, **changed}
        return RtpParams(**fields)

    def connect_anew(self, **changed: Any) -> None:
        """What a re-negotiation does."""
        self.leg.connect(self.params(**changed), time.monotonic())
        self.clock.changed(self.leg)

    def tick(self, count: int = 1) -> None:
        for _ in range(count):
            self.clock.run(1, 0.0)

    def say(self, samples: np.ndarray, payload_type: int | None = None) -> None:
        """The peer sends one packet of these samples."""
        payload = self.codec.encode(samples.astype(np.int16))
        self.send(self.leg.payload_type_in if payload_type is None else payload_type, payload)

    def send(self, payload_type: int, payload: bytes, timestamp: int | None = None, marker: bool = False) -> None:
        stamp = self.sequence * FRAME_SAMPLES * (self.codec.rtp_clock_hz // 8000) if timestamp is None else timestamp
        self.send_raw(build(payload_type, self.sequence & 0xFFFF, stamp, 7, payload, marker))
        self.sequence += 1

    def send_raw(self, data: bytes) -> None:
        self.peer.sendto(data, self.ours.getsockname())

    def heard_by_peer(self) -> list[RtpPacket]:
        return [parse(data) for data in self.raw_by_peer()]

    def raw_by_peer(self, *, rtcp: bool = False) -> list[bytes]:
        """Every datagram that has come to the peer."""
        found = []
        while True:
            try:
                found.append((self.peer_rtcp if rtcp else self.peer).recv(2048))
            except BlockingIOError:
                return found

    def heard(self) -> np.ndarray:
        """What the box has heard of the caller, [frames, 160]."""
        return self.rings.read_rx(self.slot, GENERATION, 0, 1_000_000).reshape(-1, FRAME_SAMPLES)

    def of_type(self, kind: type) -> list[AnyMessage]:
        return [message for message in self.messages if isinstance(message, kind)]

    def close(self) -> None:
        self.clock.receiver.close()
        for sock in (*self.pair, self.peer, self.peer_rtcp):
            sock.close()
        os.close(self.rings.fd)

    def close_second(self) -> None:
        """For a bench that shares the clock of another."""
        for sock in (*self.pair, self.peer, self.peer_rtcp):
            sock.close()


Made = Callable[..., Bench]


def keying(suite: str = "AES_CM_128_HMAC_SHA1_80", fill: int = 1) -> str:
    return f"{suite} {base64.b64encode(bytes([fill]) * SUITES[suite][1]).decode()}"


def speak(bench: Bench, pcm: np.ndarray) -> None:
    bench.rings.write_tts(bench.slot, GENERATION, 0, pcm.astype(np.int16))
    bench.leg.playout.add(1, 0, len(pcm), True)


def loud(frames: np.ndarray) -> int:
    return int(sum(np.abs(frame).max() > 3000 for frame in frames))
