"""What a carrier does with the audio it is sent: a buffer that is played by the carrier's own clock.

Nothing runs per frame. A piece of audio is given its time when it arrives: behind what is still to be played, or at
once where the buffer is dry. What was heard, the gaps in it and when a mark is due all follow from these times, which
are of ``time.monotonic``, in seconds.
"""

from __future__ import annotations

from array import array
from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np
import soxr
from numpy.typing import NDArray

from appliance.audio import g711

Pcm = NDArray[np.int16]

RATE_HZ: Final = 8000
GAP_S: Final = 1.0
"""Audio that comes back later than this was not interrupted: something new is being said."""
LEAST_GAP_S: Final = 0.001
LOUD: Final = 256
"""Samples below this are silence: about -42 dB of full scale."""
MAX_MARKS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Codec:
    """How samples are coded: ``pcmu``, ``pcma`` or ``l16`` (little-endian), at ``rate_hz``."""

    name: str
    rate_hz: int = RATE_HZ

    @property
    def sample_bytes(self) -> int:
        return 2 if self.name == "l16" else 1

    def encode(self, pcm: Pcm) -> bytes:
        """int16 at 8 kHz as this codec has it."""
        if self.rate_hz != RATE_HZ:
            pcm = resampled(pcm, RATE_HZ, self.rate_hz)
        if self.name == "l16":
            return pcm.astype("<i2").tobytes()
        return g711.encode(pcm, self.name == "pcma").tobytes()

    def decode(self, payload: bytes) -> Pcm:
        """int16 at ``rate_hz``."""
        if self.name == "l16":
            return np.frombuffer(payload[: len(payload) // 2 * 2], "<i2").astype(np.int16)
        return g711.decode(np.frombuffer(payload, np.uint8), self.name == "pcma")

    def silence(self, samples: int) -> bytes:
        """So much of nothing."""
        return {"l16": b"\0\0", "pcmu": b"\xff", "pcma": b"\xd5"}[self.name] * samples

    def loud(self, payload: bytes) -> bool:
        """Whether there is anything to be heard in it."""
        if self.name == "l16":
            return bool(np.abs(self.decode(payload).astype(np.int32)).max(initial=0) >= LOUD)
        return bool(payload.translate(None, _QUIET[self.name]))


def _quiet(alaw: bool) -> bytes:
    codes = np.arange(256, dtype=np.uint8)
    return codes[np.abs(g711.decode(codes, alaw).astype(np.int32)) < LOUD].tobytes()


_QUIET: Final = {"pcmu": _quiet(False), "pcma": _quiet(True)}


def resampled(pcm: Pcm, from_hz: int, to_hz: int) -> Pcm:
    """The same at another rate."""
    if from_hz == to_hz or not len(pcm):
        return pcm.astype(np.int16)
    found = soxr.resample(pcm.astype(np.float32), from_hz, to_hz)
    return np.asarray(np.clip(np.rint(found), -32768, 32767), np.int16)


@dataclass(frozen=True, slots=True)
class Run:
    """Audio without a break, from ``start`` to ``end``."""

    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Gap:
    """A break in what was being said: the buffer was dry from ``at``, for ``seconds``."""

    at: float
    seconds: float


@dataclass(slots=True)
class Piece:
    """One message's audio and when it is played; ``payload`` is cut short where a clear came into it."""

    start: float
    payload: bytes
    loud: bool


class Playout:
    """The buffer of one call.

    A *gap* (an underrun) is counted where the buffer runs dry and audio comes again within :data:`GAP_S`, while the
    caller neither spoke nor pressed a key after it ran dry and no clear emptied it: the listener hears an utterance
    break off and go on. It says nothing of whose fault that is: a sentence that was not ready in time is a gap too.

    Attributes:
        pieces: all that was or will be played, in order.
        gaps: as above.
        arrivals: when each message of audio arrived.
        leads: seconds in the buffer right after each of them.
        lengths: seconds of audio in each of them.
        clears: when the buffer was emptied, and seconds of audio that were thrown away.
        turns: (end of the caller's speech, first sound that was played after it began to be quiet) of each answer.
    """

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.pieces: list[Piece] = []
        self.gaps: list[Gap] = []
        self.arrivals: array[float] = array("d")
        self.leads: array[float] = array("d")
        self.lengths: array[float] = array("d")
        self.clears: list[tuple[float, float]] = []
        self.turns: list[tuple[float, float]] = []
        self.marks_due: deque[tuple[float, str]] = deque()
        self._bytes_per_s = codec.rate_hz * codec.sample_bytes
        self._end = 0.0
        self._caller_at = 0.0
        self._cleared = True
        self._asked_at: float | None = None
        self._new_run = False

    @property
    def end(self) -> float:
        """When the last of what has come is played; in the past where the buffer is dry."""
        return self._end

    def caller_active(self, now: float) -> None:
        """The caller makes a sound, or presses a key: what comes next may be an answer to it."""
        self._caller_at = now

    def caller_finished(self, now: float) -> None:
        """The caller has said something; the time to the answer runs."""
        self._caller_at = self._asked_at = now
        self._new_run = False

    def receive(self, payload: bytes, now: float) -> Piece:
        """Audio has arrived."""
        dry_s = now - self._end
        if dry_s >= 0.0:
            if LEAST_GAP_S < dry_s <= GAP_S and not self._cleared and self._caller_at <= self._end:
                self.gaps.append(Gap(self._end, dry_s))
            if dry_s > LEAST_GAP_S or self._cleared:
                self._new_run = True
            self._end = now
        self._cleared = False
        piece = Piece(self._end, payload, self.codec.loud(payload))
        self.pieces.append(piece)
        length = len(payload) / self._bytes_per_s
        self._end += length
        self.arrivals.append(now)
        self.lengths.append(length)
        self.leads.append(self._end - now)
        if piece.loud and self._asked_at is not None and self._new_run:
            self.turns.append((self._asked_at, piece.start))
            self._asked_at = None
        return piece

    def mark(self, name: str, now: float) -> float:
        """Give a mark its place; says when it is due, ``now`` where nothing is left to be played before it."""
        due = max(now, self._end)
        if len(self.marks_due) < MAX_MARKS:
            self.marks_due.append((due, name))
        return due

    def passed(self, now: float) -> list[str]:
        """Marks that are due; each is given once."""
        names = []
        while self.marks_due and self.marks_due[0][0] <= now:
            names.append(self.marks_due.popleft()[1])
        return names

    def clear(self, now: float) -> list[str]:
        """Throw away what has not been played; gives the marks that were in it."""
        thrown = max(0.0, self._end - now)
        self.clears.append((now, thrown))
        while self.pieces and self.pieces[-1].start >= now:
            self.pieces.pop()
        if self.pieces and thrown:
            last = self.pieces[-1]
            samples = round((now - last.start) * self.codec.rate_hz)
            last.payload = last.payload[: samples * self.codec.sample_bytes]
        self._end = min(self._end, now)
        self._cleared = True
        names = [name for _, name in self.marks_due]
        self.marks_due.clear()
        return names

    def duration(self, piece: Piece) -> float:
        """Seconds of a piece."""
        return len(piece.payload) / self._bytes_per_s

    def runs(self, loud: bool = False) -> list[Run]:
        """What was played without a break; with ``loud`` only of pieces in which there is something to be heard."""
        found: list[Run] = []
        for piece in self.pieces:
            if loud and not piece.loud:
                continue
            end = piece.start + self.duration(piece)
            if found and piece.start - found[-1].end <= LEAST_GAP_S:
                found[-1] = Run(found[-1].start, end)
            else:
                found.append(Run(piece.start, end))
        return found

    def played_s(self, now: float) -> float:
        """Seconds of audio that have been played."""
        return sum(max(0.0, min(self.duration(piece), now - piece.start)) for piece in self.pieces)

    def heard(self, since: float, until: float) -> Pcm:
        """What came out between two times, silence where nothing was played; int16 at 8 kHz."""
        rate = self.codec.rate_hz
        out = np.zeros(max(0, round((until - since) * rate)), np.int16)
        at: int | None = None
        last_end = -1.0
        for piece in self.pieces:
            # Within a run the samples follow each other exactly, whatever rounding its times would suggest.
            if at is None or piece.start - last_end > LEAST_GAP_S:
                at = round((piece.start - since) * rate)
            samples = self.codec.decode(piece.payload)
            last_end = piece.start + self.duration(piece)
            first, stop = max(0, at), min(len(out), at + len(samples))
            if stop > first:
                out[first:stop] = samples[first - at : stop - at]
            at += len(samples)
        return resampled(out, rate, RATE_HZ)
