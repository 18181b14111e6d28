"""What is about to be said on one leg: pieces of its synthesis ring, in order, and how much of it has left."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from appliance.ipc.rings import FRAME_SAMPLES, RING_SAMPLES

_MAX_PIECES: Final = 1024


@dataclass(slots=True)
class _Piece:
    utterance: int
    at: int
    end: int
    last: bool


@dataclass(frozen=True, slots=True)
class Popped:
    """What one frame was made of.

    ``started`` and ``done`` are utterances that began or ended in it (-1: none), ``done_samples`` the length of the
    latter. ``filled`` is how many of the frame's samples are speech; what follows is silence.
    """

    started: int
    done: int
    done_samples: int
    filled: int


class Playout:
    """The queue of one leg. Not played samples may still be synthesised while the first ones leave."""

    __slots__ = ("_current", "_pieces", "_ring", "played", "position", "underruns")

    def __init__(self, ring: NDArray[np.int16]) -> None:
        self._ring = ring
        self._pieces: deque[_Piece] = deque()
        self._current = -1
        self.played = 0
        """Samples of the current utterance that were popped."""
        self.position = 0
        """Ring position up to which everything was popped."""
        self.underruns = 0

    @property
    def current(self) -> int:
        """The utterance that is being popped; -1 for none."""
        return self._current

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def add(self, utterance: int, start: int, end: int, last: bool) -> bool:
        """Queue a piece; False where far too many wait (a fault in the caller, not a long reply)."""
        if len(self._pieces) >= _MAX_PIECES:
            return False
        tail = self._pieces[-1] if self._pieces else None
        if tail is not None and tail.utterance == utterance and tail.end == start and not tail.last:
            tail.end = end
            tail.last = last
        else:
            self._pieces.append(_Piece(utterance, start, end, last))
        return True

    def flush(self) -> tuple[int, int]:
        """Drop everything. Returns (utterance that was playing or -1, its samples that were popped)."""
        result = (self._current, self.played) if self._current >= 0 else (-1, 0)
        for piece in self._pieces:
            self.position = max(self.position, piece.end)
        self._pieces.clear()
        self._current = -1
        self.played = 0
        return result

    def pop(self, out: NDArray[np.int16]) -> Popped:
        """Fill ``out`` (160 samples, zeroed) with what comes next.

        A frame is only begun when it is whole or the utterance ends in it: a half frame would be a click.
        """
        started = done = -1
        done_samples = 0
        filled = 0
        while self._pieces and filled < FRAME_SAMPLES:
            piece = self._pieces[0]
            available = piece.end - piece.at
            if not piece.last and len(self._pieces) == 1 and available < FRAME_SAMPLES - filled:
                if piece.utterance == self._current:
                    self.underruns += 1
                break
            if piece.utterance != self._current:
                if filled and started >= 0:
                    break
                self._current = started = piece.utterance
                self.played = 0
            count = min(available, FRAME_SAMPLES - filled)
            _copy(self._ring, piece.at, out[filled : filled + count])
            piece.at += count
            filled += count
            self.played += count
            self.position = max(self.position, piece.at)
            if piece.at == piece.end:
                self._pieces.popleft()
                if piece.last:
                    done, done_samples = piece.utterance, self.played
                    self._current = -1
                    self.played = 0
                    break
        return Popped(started, done, done_samples, filled)


def _copy(ring: NDArray[np.int16], position: int, out: NDArray[np.int16]) -> None:
    at = position % RING_SAMPLES
    head = min(len(out), RING_SAMPLES - at)
    out[:head] = ring[at : at + head]
    if head < len(out):
        out[head:] = ring[: len(out) - head]
