"""The calls' audio, in memory that every process of the box shares.

One anonymous memory file (memfd) holds, for every slot, three rings of 8 kHz signed 16-bit samples:

* ``rx``    what the caller said, as decoded after the jitter buffer; media writes, recognisers and the recorder read
* ``sent``  what left towards the caller; media writes, the recorder reads
* ``tts``   speech waiting to be played; the synthesis worker writes, media reads

and beside ``rx`` a ring of one byte a frame, ``held``: where on the wire each frame of the caller belongs.

Media advances ``frames`` once per 20 ms for every connected leg; positions count from 0 when the leg is connected.
Nobody locks: each ring has one writer, readers check ``generation`` and ``frames`` before **and** after they copy,
and a reader that lost the race gets :class:`~appliance.errors.StaleSlot` instead of somebody else's audio.
"""

from __future__ import annotations

import mmap
import os
from typing import Final

import numpy as np
from numpy.typing import NDArray

from appliance.errors import StaleSlot

RATE_HZ: Final = 8000
FRAME_SAMPLES: Final = 160
RING_FRAMES: Final = 1600
RING_SAMPLES: Final = RING_FRAMES * FRAME_SAMPLES  # 32 s

_GENERATION: Final = 0
_FRAMES: Final = 1
_TTS_PLAYED: Final = 2
_DELAY: Final = 3
_LAG: Final = 4
_HEARD: Final = 5
_HEADER_FIELDS: Final = 8
_PAGE: Final = 4096

MAX_LAG: Final = 10
"""Frames that a jitter buffer holds back at most (``rtp/jitter.py``): older ones will not move any more."""


class AudioRings:
    """The rings of ``capacity`` slots, mapped into this process.

    The supervisor calls :meth:`create`; every other process :meth:`attach` with the inherited descriptor. Memory is
    only taken up by pages that were touched.
    """

    def __init__(self, fd: int, capacity: int) -> None:
        self.fd = fd
        self.capacity = capacity
        self._map = mmap.mmap(fd, _size(capacity))
        header_bytes = _header_bytes(capacity)
        ring_bytes = capacity * RING_SAMPLES * 2
        self.header: NDArray[np.int64] = np.frombuffer(
            self._map, np.int64, capacity * _HEADER_FIELDS, offset=0
        ).reshape(capacity, _HEADER_FIELDS)
        """[slot, field]: generation, frames written, tts samples played, delay; the newest frame's lag (see ``held``)
        and the place after the newest that was heard."""
        shape = (capacity, RING_FRAMES, FRAME_SAMPLES)
        count = capacity * RING_SAMPLES
        self.rx: NDArray[np.int16] = np.frombuffer(self._map, np.int16, count, header_bytes).reshape(shape)
        """[slot, frame % RING_FRAMES, sample]"""
        self.sent: NDArray[np.int16] = np.frombuffer(self._map, np.int16, count, header_bytes + ring_bytes).reshape(
            shape
        )
        """[slot, frame % RING_FRAMES, sample]"""
        self.tts: NDArray[np.int16] = np.frombuffer(self._map, np.int16, count, header_bytes + 2 * ring_bytes).reshape(
            capacity, RING_SAMPLES
        )
        """[slot, position % RING_SAMPLES]"""
        self.held: NDArray[np.int8] = np.frombuffer(
            self._map, np.int8, capacity * RING_FRAMES, header_bytes + 3 * ring_bytes
        ).reshape(capacity, RING_FRAMES)
        """[slot, frame % RING_FRAMES]: how many frames later than it came the caller's frame stands in ``rx``; -1
        where nothing of the caller belongs to that frame of the wire."""

    @classmethod
    def create(cls, capacity: int) -> AudioRings:
        """New, zeroed rings for ``capacity`` slots; ``fd`` can be inherited."""
        fd = os.memfd_create("appliance-rings", 0)
        os.ftruncate(fd, _size(capacity))
        return cls(fd, capacity)

    @classmethod
    def attach(cls, fd: int, capacity: int) -> AudioRings:
        """The rings behind an inherited descriptor.

        Raises:
            ValueError: the descriptor's size is not that of ``capacity`` slots.
        """
        if os.fstat(fd).st_size != _size(capacity):
            raise ValueError(f"the audio memory is not that of {capacity} slots; restart the whole appliance")
        return cls(fd, capacity)

    # --- media, the only writer of the header ---------------------------------------------------------------------

    def open(self, slot: int, generation: int) -> None:
        """Give the slot a new owner; its frame count and played position start at 0."""
        row = self.header[slot]
        row[_GENERATION] = -1
        row[_FRAMES] = 0
        row[_TTS_PLAYED] = 0
        row[_DELAY] = row[_LAG] = row[_HEARD] = 0
        row[_GENERATION] = generation

    def record(
        self,
        rows: NDArray[np.int64],
        caller: NDArray[np.int16],
        sent: NDArray[np.int16],
        delay: NDArray[np.int64],
        quiet: NDArray[np.bool_],
    ) -> None:
        """Write the newest frame of both directions, and where on the wire the caller's belongs.

        A frame that was heard is never laid on another that was: where the delay is found to be longer, it moves only
        over places whose frames were missing. Where it is found to be shorter, a gap is left, and in quiet.

        Args:
            rows: slots, each once.
            caller: int16 [rows, 160], what was heard.
            sent: int16 [rows, 160], what has left.
            delay: [rows] frames that the caller's was held back, or -1 where it is made up or silence.
            quiet: [rows] whether the caller is not speaking.
        """
        header = self.header
        frames, lag, after = header[rows, _FRAMES], header[rows, _LAG], header[rows, _HEARD]
        at = frames % RING_FRAMES
        self.rx[rows, at] = caller
        self.sent[rows, at] = sent
        heard = delay >= 0
        longest = np.minimum(np.minimum(delay, MAX_LAG), frames - after)
        lag = np.where(heard & ((delay > lag) | quiet), longest, lag)
        place = frames - lag
        self.held[rows, at] = -1
        self.held[rows, place % RING_FRAMES] = lag
        header[rows, _LAG] = lag
        header[rows, _DELAY] = np.where(heard, delay, header[rows, _DELAY])
        header[rows, _HEARD] = np.where(heard, place + 1, after)
        header[rows, _FRAMES] = frames + 1

    def pass_by(self, rows: NDArray[np.int64], frames: int) -> None:
        """Write so many frames in which nothing was heard or said; of more than the ring holds, only the last."""
        if frames > RING_FRAMES:
            self.frames[rows] += frames - RING_FRAMES
        silence = np.zeros((len(rows), FRAME_SAMPLES), np.int16)
        unheard = np.full(len(rows), -1, np.int64)
        for _ in range(min(frames, RING_FRAMES)):
            self.record(rows, silence, silence, unheard, unheard < 0)

    @property
    def frames(self) -> NDArray[np.int64]:
        """[slot] frames written so far: of both directions, before it is added to."""
        return self.header[:, _FRAMES]

    @property
    def tts_played(self) -> NDArray[np.int64]:
        """[slot] position in the synthesis ring up to which media has read."""
        return self.header[:, _TTS_PLAYED]

    @property
    def delay(self) -> NDArray[np.int64]:
        """[slot] how many frames the jitter buffer holds back what the caller says."""
        return self.header[:, _DELAY]

    # --- readers and the synthesis writer -------------------------------------------------------------------------

    def generation(self, slot: int) -> int:
        return int(self.header[slot, _GENERATION])

    def frame_count(self, slot: int, generation: int) -> int:
        """Frames of this call that :meth:`read_frames` can give so far; the last ones may still change, see
        :meth:`settled_count`.

        Raises:
            StaleSlot: the slot belongs to another call.
        """
        count = max(0, int(self.header[slot, _FRAMES] - self.header[slot, _LAG]))
        self._check(slot, generation)
        return count

    def settled_count(self, slot: int, generation: int) -> int:
        """Frames of this call in which nothing will change: what is missing behind them may still come late.

        Raises:
            StaleSlot: the slot belongs to another call.
        """
        count = max(int(self.header[slot, _HEARD]), int(self.header[slot, _FRAMES]) - MAX_LAG)
        self._check(slot, generation)
        return count

    def read_rx(self, slot: int, generation: int, start: int, end: int) -> NDArray[np.int16]:
        """A copy of the caller's samples [start, end), int16 at 8 kHz; ``end`` is cut to what there is.

        Raises:
            StaleSlot: the slot belongs to another call, or the ring has wrapped past ``start``.
        """
        self._check(slot, generation)
        end = min(end, int(self.header[slot, _FRAMES]) * FRAME_SAMPLES)
        start = max(start, 0)
        if start >= end:
            return np.zeros(0, np.int16)
        copy = _copy_ring(self.rx[slot].reshape(-1), start, end)
        self._check(slot, generation)
        if start < int(self.header[slot, _FRAMES] + 1) * FRAME_SAMPLES - RING_SAMPLES:
            raise StaleSlot(f"slot {slot}: sample {start} is more than {RING_SAMPLES // RATE_HZ} s old")
        return copy

    def read_frames(
        self, slot: int, generation: int, start: int, end: int
    ) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
        """Copies of frames [start, end) of both directions: (caller, agent), each int16 [samples] at 8 kHz.

        Both are aligned to the wire: what the caller's jitter buffer held back stands beside what the agent said when
        it came, each frame by the delay of its own.

        Raises:
            StaleSlot: the slot belongs to another call, or the ring has wrapped past ``start``.
        """
        self._check(slot, generation)
        places = np.arange(start, end)
        held = self.held[slot, places % RING_FRAMES]
        caller = self.rx[slot, (places + held) % RING_FRAMES]
        caller[held < 0] = 0
        agent = _copy_ring(self.sent[slot].reshape(-1), start * FRAME_SAMPLES, end * FRAME_SAMPLES)
        self._check(slot, generation)
        if start < int(self.header[slot, _FRAMES]) + 1 - RING_FRAMES:
            raise StaleSlot(f"slot {slot}: frame {start} is more than {RING_SAMPLES // RATE_HZ} s old")
        return caller.reshape(-1), agent

    def write_tts(self, slot: int, generation: int, position: int, pcm: NDArray[np.int16]) -> None:
        """Put ``pcm`` (int16, 8 kHz) at ``position`` of the slot's synthesis ring.

        Raises:
            StaleSlot: the slot belongs to another call, or unplayed speech would be overwritten.
        """
        self._check(slot, generation)
        if position + len(pcm) > int(self.header[slot, _TTS_PLAYED]) + RING_SAMPLES:
            raise StaleSlot(f"slot {slot}: no room in the synthesis ring at {position} for {len(pcm)} samples")
        ring = self.tts[slot]
        at = position % RING_SAMPLES
        head = min(len(pcm), RING_SAMPLES - at)
        ring[at : at + head] = pcm[:head]
        ring[: len(pcm) - head] = pcm[head:]

    def _check(self, slot: int, generation: int) -> None:
        if int(self.header[slot, _GENERATION]) != generation:
            raise StaleSlot(f"slot {slot}: call {generation} is over")


def _copy_ring(ring: NDArray[np.int16], start: int, end: int) -> NDArray[np.int16]:
    at = start % RING_SAMPLES
    count = min(end - start, RING_SAMPLES)
    if at + count <= RING_SAMPLES:
        return ring[at : at + count].copy()
    return np.concatenate([ring[at:], ring[: at + count - RING_SAMPLES]])


def _header_bytes(capacity: int) -> int:
    return -(-capacity * _HEADER_FIELDS * 8 // _PAGE) * _PAGE


def _size(capacity: int) -> int:
    return _header_bytes(capacity) + 3 * capacity * RING_SAMPLES * 2 + capacity * RING_FRAMES
