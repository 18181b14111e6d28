"""Samples as they are, as a codec: what has been brought to 8 kHz already. PURE."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from appliance.errors import RtpError


class LinearCodec:
    """Payloads are int16 at 8 kHz, little-endian; stateless."""

    name: Final = "l16"
    rtp_clock_hz: Final = 8000

    def encode(self, samples: NDArray[np.int16]) -> bytes:
        return samples.astype("<i2").tobytes()

    def decode(self, payload: bytes) -> NDArray[np.int16]:
        if len(payload) % 2:
            raise RtpError(f"{len(payload)} bytes are no whole samples")
        return np.frombuffer(payload, "<i2").astype(np.int16)

    def plc(self, samples: int, following: bytes = b"") -> NDArray[np.int16] | None:
        return None

    def samples_in(self, payload: bytes) -> int:
        return len(payload) // 2
