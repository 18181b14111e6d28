"""One leg of an audio clock whose audio is a stream, in time that the test makes, and its carrier's buffer."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from appliance.api import Audio, Message, Started, StreamProtocol
from appliance.api.streams import audio_of
from appliance.audio import g711
from appliance.carriers.twilio import TwilioStream
from appliance.ipc.messages import AnyMessage
from appliance.ipc.rings import FRAME_SAMPLES, AudioRings
from appliance.media import ahead, tick
from appliance.media.leg import MediaLeg
from appliance.media.playout import Playout
from appliance.media.stream_leg import StreamEnd
from appliance.media.tick import AudioClock

GENERATION = 11


class Time:
    """Stands in for the module of that name."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class StreamBench:
    """The leg, and at its other end a buffer that plays and answers marks without any delay."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, protocol: StreamProtocol | None = None, codec: str = "pcmu",
                 rate_hz: int = 8000, clock: AudioClock | None = None, slot: int = 2) -> None:  # fmt: skip
        self.slot = slot
        if clock is None:
            self.time = Time()
            monkeypatch.setattr(ahead, "time", self.time)
            monkeypatch.setattr(tick, "time", self.time)
            self.messages: list[AnyMessage] = []
            self.rings = AudioRings.create(4)
            music = np.arange(1, 321, dtype=np.int16) * 10
            self.clock = AudioClock(self.rings, None, self.messages.append, 30.0, music)
        else:
            self.clock, self.rings = clock, clock.rings
        self.rings.open(slot, GENERATION)
        self.leg = MediaLeg(slot, GENERATION, None, Playout(self.rings.tts[slot]), 7)
        self.clock.legs[slot] = self.leg
        self.sent: list[Message] = []
        self.unsent = 0
        self.answers_marks = True
        self.buffer: deque[np.ndarray | str] = deque()
        self.heard: list[np.ndarray] = []
        self.connect(protocol, codec, rate_hz)

    def connect(self, protocol: StreamProtocol | None = None, codec: str = "pcmu", rate_hz: int = 8000) -> None:
        """A stream begins, the first or the next."""
        self.protocol = protocol or TwilioStream()
        if protocol is None:
            self.protocol.receive(json.dumps(_START))
        started = Started("MZ1", "CA1", codec, rate_hz)
        self.stream = StreamEnd(self.protocol, started, self._posted, lambda: self.unsent)
        self.leg.connect_stream(self.stream, self.clock_time())
        self.clock.begin_stream(self.leg)

    def clock_time(self) -> float:
        return tick.time.monotonic()

    def _posted(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self.sent.append(message)
            if isinstance(message, bytes):
                header = 3 if self.protocol.name == "audiosocket" else 0
                self.buffer.append(np.frombuffer(message[header:], "<i2"))
                continue
            told = json.loads(message)
            if told["event"] == "media":
                payload = np.frombuffer(audio_of(told["media"]["payload"]), np.uint8)
                self.buffer.append(g711.decode(payload.reshape(1, -1), np.array([False]))[0])
            elif told["event"] == "mark":
                self.buffer.append(told["mark"]["name"] if "mark" in told else told["name"])
            elif told["event"] == "clear":
                self.buffer.clear()

    def tick(self, count: int = 1) -> None:
        """20 ms pass: the carrier plays, then the box ticks."""
        for _ in range(count):
            self.time.now += 0.02
            self.play()
            self.clock.run(1, 0.0)

    def play(self) -> None:
        """The carrier plays a frame; silence where it has none."""
        self._return_marks()
        self.heard.append(self.buffer.popleft() if self.buffer else np.zeros(FRAME_SAMPLES, np.int16))
        self._return_marks()

    def _return_marks(self) -> None:
        while self.buffer and isinstance(self.buffer[0], str):
            name = str(self.buffer.popleft())
            if self.answers_marks:
                self.stream.marked(name, self.time.now)

    @property
    def lead(self) -> int:
        """Frames in the carrier's buffer."""
        return sum(1 for item in self.buffer if not isinstance(item, str))

    def say(self, number: int, samples: np.ndarray) -> None:
        """The caller's 20 ms come."""
        self.clock.incoming.hear(self.leg, Audio(number, g711.encode(samples, False).tobytes()))

    def synthesise(self, samples: int, level: int = 5000) -> None:
        """Fill the synthesis ring from its beginning."""
        self.rings.tts[self.slot, :samples] = level

    def heard_of_caller(self) -> np.ndarray:
        """What the box has heard, [frames, 160]."""
        return self.rings.read_rx(self.slot, GENERATION, 0, 1_000_000).reshape(-1, FRAME_SAMPLES)

    def of_type(self, kind: type) -> list[Any]:
        return [message for message in self.messages if isinstance(message, kind)]

    def close(self) -> None:
        self.clock.receiver.close()
        os.close(self.rings.fd)


_START = {
    "event": "start",
    "start": {
        "streamSid": "MZ1",
        "callSid": "CA1",
        "customParameters": {},
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
    },
}
