"""Voice activity detection for every call in one batch.

Silero's model wants 256 samples at 8 kHz (32 ms), the clock delivers 160 (20 ms). :class:`VadFramer` turns one into
the other with array arithmetic over all calls, staggered so that in every tick five of eight slots complete a frame;
:class:`~appliance.media.silero.SileroBatch` runs the model over the frames that are complete; :class:`BatchVad` is
the two together, one call per tick.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from appliance.media.silero import FRAME_SAMPLES, SileroBatch

TICK_SAMPLES: Final = 160

_BLOCK: Final = 32  # the greatest common divisor of 160 and 256: every position is a multiple of it
_TICK_BLOCKS: Final = TICK_SAMPLES // _BLOCK
_FRAME_BLOCKS: Final = FRAME_SAMPLES // _BLOCK
_RING_BLOCKS: Final = 2 * _FRAME_BLOCKS


class VadFramer:
    """Cuts 20 ms ticks into 32 ms frames, for ``capacity`` slots.

    Every slot owns a ring of two frames. In the steady state it completes five frames in eight ticks; :meth:`reset`
    starts a slot with as much silence as puts it into phase ``slot % 8``, so that each tick has 5/8 of the slots to
    run, whenever their calls began.
    """

    def __init__(self, capacity: int) -> None:
        self._ring = np.zeros((capacity, _RING_BLOCKS, _BLOCK), np.float32)
        self._frames = self._ring.reshape(capacity, 2, FRAME_SAMPLES)
        self._written = np.zeros(capacity, np.int64)  # blocks, modulo the ring
        self._tick = 0
        self._ahead = np.arange(_TICK_BLOCKS)
        for slot in range(capacity):
            self.reset(slot)

    def push(
        self, slots: NDArray[np.integer], frames: NDArray[np.int16], gain: NDArray[np.float32] | None = None
    ) -> tuple[NDArray[np.integer], NDArray[np.float32]]:
        """Take one tick's audio; return what became complete.

        Args:
            slots: [n] slot numbers, no two the same.
            frames: [n, 160] samples at 8 kHz.
            gain: [n] what to multiply them with.

        Returns:
            The slots that completed a frame [m], and those frames [m, 256] in -1..1.
        """
        self._tick += 1
        written = self._written[slots]
        scale = np.float32(1 / 32768) if gain is None else gain[:, None] * np.float32(1 / 32768)
        samples = np.multiply(frames, scale, dtype=np.float32)
        if gain is not None:
            np.clip(samples, -1.0, 1.0, out=samples)
        blocks = samples.reshape(-1, _TICK_BLOCKS, _BLOCK)
        self._ring[slots[:, None], (written[:, None] + self._ahead) % _RING_BLOCKS] = blocks
        after = written + _TICK_BLOCKS
        self._written[slots] = after % _RING_BLOCKS
        half = written // _FRAME_BLOCKS
        complete = after // _FRAME_BLOCKS > half
        ready = slots[complete]
        return ready, self._frames[ready, half[complete]]

    def reset(self, slot: int) -> None:
        """Forget what ``slot`` has heard and put it into its phase."""
        self._ring[slot] = 0.0
        self._written[slot] = (slot + self._tick * _TICK_BLOCKS) % _FRAME_BLOCKS


class BatchVad:
    """Speech probabilities of all calls, updated once per 20 ms tick.

    ``speech`` [capacity] holds each slot's newest probability; a tick renews it for the slots that completed a 32 ms
    frame, so a value is at most 32 ms old.
    """

    def __init__(self, model: bytes, capacity: int) -> None:
        self.speech = np.zeros(capacity, np.float32)
        self._framer = VadFramer(capacity)
        self._silero = SileroBatch(model, capacity)

    def tick(
        self, slots: NDArray[np.integer], frames: NDArray[np.int16], gain: NDArray[np.float32] | None = None
    ) -> None:
        """Take the 20 ms [n, 160] at 8 kHz that ``slots`` [n], all different, have just received.

        Their samples are multiplied with ``gain`` [n].
        """
        ready, complete = self._framer.push(slots, frames, gain)
        if len(ready):
            self.speech[ready] = self._silero.step(ready, complete)

    def reset(self, slot: int) -> None:
        """A new call takes ``slot`` over."""
        self._framer.reset(slot)
        self._silero.reset(slot)
        self.speech[slot] = 0.0

    def warm_up(self) -> None:
        """Run the model over all slots at once, so that no call pays for the first use of its memory."""
        capacity = len(self.speech)
        self._silero.step(np.arange(capacity), np.zeros((capacity, FRAME_SAMPLES), np.float32))
        for slot in range(capacity):
            self._silero.reset(slot)
