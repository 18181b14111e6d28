"""G.722 at 64 kbit/s for one leg, taken and given at 8 kHz.

G.722 codes two bands, 0 to 4 and 4 to 8 kHz. As the box is 8 kHz inside, only the lower band is coded (the upper one is
sent as silence) and decoded (the upper one is left out): that is full G.722 on the wire, saves both filter banks and
adds no delay.
"""

from __future__ import annotations

from typing import Final

import G722
import numpy as np
from numpy.typing import NDArray

_BIT_RATE: Final = 64_000
_RATE_HZ: Final = 8000


class G722Codec:
    """The ``Codec`` protocol of ``audio/codec.py``. One octet holds one sample at 8 kHz; any octets are decodable."""

    name: Final = "g722"
    rtp_clock_hz: Final = 8000

    def __init__(self) -> None:
        self._encoder = G722.G722(_RATE_HZ, _BIT_RATE)
        self._decoder = G722.G722(_RATE_HZ, _BIT_RATE)

    def encode(self, samples: NDArray[np.int16]) -> bytes:
        payload: bytes = self._encoder.encode(np.ascontiguousarray(samples, np.int16))
        return payload

    def decode(self, payload: bytes) -> NDArray[np.int16]:
        return np.frombuffer(self._decoder.decode(payload), np.int16)

    def plc(self, samples: int, following: bytes = b"") -> None:
        return None

    def samples_in(self, payload: bytes) -> int:
        return len(payload)
