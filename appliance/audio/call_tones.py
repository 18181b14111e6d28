"""What a network or a machine says in tones: SIT, busy, reorder, ringback, fax, the beep of a recording. PURE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

RATE_HZ: Final = 8000

ToneKind = Literal["sit", "busy", "reorder", "ringback", "fax"]


@dataclass(frozen=True, slots=True)
class Tone:
    """A signal of the network, or of a fax machine.

    Attributes:
        kind: which.
        at_s: when it was recognised, seconds on the listener's time.
        detail: of a ``sit`` its cause: "intercept", "vacant", "no_circuit", "reorder", or "unknown".
    """

    kind: ToneKind
    at_s: float
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Beep:
    """The single tone after which a machine records.

    Attributes:
        at_s: when it had ended, seconds on the listener's time.
        hz: its frequency.
        length_s: how long it was.
    """

    at_s: float
    hz: float
    length_s: float


class CallTones:
    """Listens to one direction of one call. It is fed samples and knows no clock."""

    def on_audio(self, at_s: float, samples: NDArray[np.int16]) -> list[Tone | Beep]:
        """Take the next samples.

        Args:
            at_s: when the first of them was heard, seconds.
            samples: int16 [n] at 8 kHz, any number of them.

        Returns:
            What has been recognised in them.
        """
        return []
