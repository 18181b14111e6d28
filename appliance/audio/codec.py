"""What every voice codec of the box does, and the table of those there are.

The box is 8 kHz, 16 bit, mono inside. A codec object takes and gives that and holds the state of one leg, both
directions: make one with :func:`new_codec` when the leg is connected, and a new one when the codec changes. The G.711
objects are for what handles one call at a time; the tick codes all G.711 legs with one look-up (``audio/g711.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from appliance.audio import g711
from appliance.audio.g722 import G722Codec
from appliance.audio.opus import OpusCodec


class Codec(Protocol):
    """One leg's codec, stateful in both directions. Not for use by two threads at once."""

    @property
    def name(self) -> str:
        """The name inside the box: a key of :data:`CODECS`."""
        ...

    @property
    def rtp_clock_hz(self) -> int:
        """Units of the RTP timestamp per second: 8000, for G.722 too (RFC 3551 §4.5.2), and 48000 for Opus."""
        ...

    def encode(self, samples: NDArray[np.int16]) -> bytes:
        """The payload of one packet.

        Args:
            samples: int16 at 8 kHz, all that the packet is to hold: 80 (10 ms), 160, 320 or 480.
        """
        ...

    def decode(self, payload: bytes) -> NDArray[np.int16]:
        """The samples of one packet, int16 at 8 kHz; :meth:`samples_in` tells how many there will be.

        Raises:
            RtpError: if the payload is not of this codec; the state is as before.
        """
        ...

    def plc(self, samples: int, following: bytes = b"") -> NDArray[np.int16] | None:
        """Stand in for a packet that did not come: what the codec makes up from its own state, int16 [samples].

        None where the codec has no concealment of its own (use ``audio/conceal.py``). Call it in the packet's turn,
        once per missing packet.

        Args:
            samples: how much is missing, at 8 kHz; a multiple of 80, at most 960.
            following: the packet after the missing one where it is there already; Opus may carry a spare copy in it.
        """
        ...

    def samples_in(self, payload: bytes) -> int:
        """How many samples at 8 kHz the payload holds, without decoding it; 0 where it is not of this codec."""
        ...


class G711Codec:
    """PCMU or PCMA for one leg; stateless."""

    rtp_clock_hz: Final = 8000

    def __init__(self, name: str) -> None:
        self.name = name
        self._alaw = name == "pcma"

    def encode(self, samples: NDArray[np.int16]) -> bytes:
        return g711.encode(samples, self._alaw).tobytes()

    def decode(self, payload: bytes) -> NDArray[np.int16]:
        return g711.decode(np.frombuffer(payload, np.uint8), self._alaw)

    def plc(self, samples: int, following: bytes = b"") -> None:
        return None

    def samples_in(self, payload: bytes) -> int:
        return len(payload)


CODECS: Final[dict[str, Callable[[], Codec]]] = {
    "pcmu": lambda: G711Codec("pcmu"),
    "pcma": lambda: G711Codec("pcma"),
    "g722": G722Codec,
    "opus": OpusCodec,
}
"""The codecs of the box, by name."""


def new_codec(name: str) -> Codec:
    """A codec in its first state.

    Raises:
        ValueError: if there is none of this name.
    """
    if name not in CODECS:
        raise ValueError(f"no codec {name!r}; use one of {', '.join(CODECS)}")
    return CODECS[name]()
