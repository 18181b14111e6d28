"""What a noise suppressor is to the appliance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Suppressor(Protocol):
    """The noise suppressor of one caller. It runs beside the audio of all calls: a C call or two a frame."""

    def process(self, frame: NDArray[np.int16]) -> NDArray[np.int16]:
        """The next 20 ms, int16 [160] at 8 kHz, with less noise; as many samples, and later by a constant few ms."""
        ...


@dataclass(frozen=True)
class Suppression:
    """A way to suppress noise.

    Attributes:
        open: a suppressor for a new caller; within a few milliseconds, since the audio waits.
        most_lines: callers who may have it at once, for one that costs much more than 50 us a frame; the others get
            WebRTC's, and under overload all do. None for no limit.
    """

    open: Callable[[], Suppressor]
    most_lines: int | None = None
