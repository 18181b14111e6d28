"""From frames to packets, for the legs that are not plain G.711 at 20 ms (those are written as one array).

A packet may hold 10 to 60 ms, so frames wait here until one is full; 10 ms means that two leave in one tick. Where
comfort noise was agreed, silence is a small packet now and then instead of a full one every time: the one case in
which not every tick sends something.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from appliance.audio import comfort_noise
from appliance.audio.codec import Codec
from appliance.ipc.rings import FRAME_SAMPLES
from appliance.rtp.packet import build

NOISE_LEVEL_DB: Final = 65
"""How quiet the noise is that we ask the peer to play while nothing is said, below overload."""

_NOISE_EVERY_SAMPLES: Final = 1600
"""Often enough for the shortest time after which a NAT or a peer gives a silent stream up."""
_SAMPLES_PER_MS: Final = 8
_LARGEST: Final = 480
_OPUS_MS: Final = (10, 20, 40, 60)


def packet_ms(codec: str, wanted_ms: int) -> int:
    """The length of packet to send to a peer that wants ``wanted_ms``: 10 to 60, whole tens, and whole Opus frames."""
    length = min(max(wanted_ms // 10 * 10, 10), 60)
    if codec == "opus":
        return max(possible for possible in _OPUS_MS if possible <= length)
    return length


class Packetiser:
    """One leg's frames as packets.

    Args:
        codec: encodes; its state is this leg's.
        ptime_ms: as :func:`packet_ms` gives it.
        payload_type: of the voice.
        noise_payload_type: of comfort noise, -1 to send silence as voice.
        ssrc: of the stream.
        sequence: the number of the packet before the first.

    Attributes:
        sequence: the number of the newest packet.
    """

    __slots__ = (
        "_before",
        "_codec",
        "_held",
        "_marked",
        "_noise",
        "_pcm",
        "_quiet",
        "_scale",
        "_size",
        "_ssrc",
        "_type",
        "sequence",
    )

    def __init__(
        self, codec: Codec, ptime_ms: int, payload_type: int, noise_payload_type: int, ssrc: int, sequence: int
    ) -> None:
        self._codec = codec
        self._size = ptime_ms * _SAMPLES_PER_MS
        self._type = payload_type
        self._noise = noise_payload_type
        self._ssrc = ssrc
        self._scale = codec.rtp_clock_hz // 8000
        self._pcm = np.zeros(_LARGEST + FRAME_SAMPLES, np.int16)
        self._held = 0
        self._quiet = -1
        self._marked = False
        self._before: tuple[NDArray[np.int16], int, int, int, bool] | None = None
        self.sequence = sequence

    def sends(self, codec: Codec, ptime_ms: int, payload_type: int, noise_payload_type: int) -> bool:
        """Whether it was made for these; a leg that is connected anew without a change of them keeps it."""
        settings = (self._codec.name, self._size, self._type, self._noise)
        same_state = self._codec is codec or codec.name in ("pcmu", "pcma")
        return same_state and settings == (codec.name, ptime_ms * _SAMPLES_PER_MS, payload_type, noise_payload_type)

    def push(self, frame: NDArray[np.int16], timestamp: int, mark: bool) -> list[bytes]:
        """Take a frame, int16 [160]; give the packets that are full now.

        Args:
            timestamp: of its first sample, in samples at 8 kHz; it may run past 32 bits.
            mark: this is the start of a talkspurt, whatever was before.
        """
        pcm, size = self._pcm, self._size
        mark = mark or self._marked
        self._before = (pcm[: self._held].copy(), self._quiet, self.sequence, timestamp, mark)
        start = timestamp - self._held
        pcm[self._held : self._held + FRAME_SAMPLES] = frame
        end = self._held + FRAME_SAMPLES
        packets: list[bytes] = []
        at = 0
        while end - at >= size:
            packet = self._packet(pcm[at : at + size], (start + at) * self._scale, mark)
            if packet is not None:
                packets.append(packet)
                mark = False
            at += size
        self._marked = mark
        self._held = end - at
        if at and self._held:
            pcm[: self._held] = pcm[at:end].copy()
        return packets

    def silence(self) -> list[bytes] | None:
        """Take the newest frame back, because its packets have not left: silence in its place.

        None where it has not been given a frame yet, so that what waits to leave is not its own.
        """
        if self._before is None:
            return None
        held, self._quiet, self.sequence, timestamp, mark = self._before
        self._held = len(held)
        self._pcm[: self._held] = held
        return self.push(np.zeros(FRAME_SAMPLES, np.int16), timestamp, mark)

    def clear(self) -> None:
        """Forget what waits for its packet to fill: an event or a codec takes over."""
        self._held = 0
        self._quiet = -1

    def _packet(self, samples: NDArray[np.int16], timestamp: int, mark: bool) -> bytes | None:
        if self._noise >= 0 and not samples.any():
            before = self._quiet
            self._quiet = before + self._size if before >= 0 else 0
            if before >= 0 and self._quiet < _NOISE_EVERY_SAMPLES:
                return None
            self._quiet = 0
            payload = comfort_noise.payload_of(NOISE_LEVEL_DB)
            return self._numbered(self._noise, timestamp, payload, mark=False)
        mark = mark or self._quiet >= 0
        self._quiet = -1
        return self._numbered(self._type, timestamp, self._codec.encode(samples), mark)

    def _numbered(self, payload_type: int, timestamp: int, payload: bytes, mark: bool) -> bytes:
        self.sequence = (self.sequence + 1) & 0xFFFF
        return build(payload_type, self.sequence, timestamp & 0xFFFFFFFF, self._ssrc, payload, mark)
