"""A jitter buffer for codecs whose packets are indivisible and whose RTP clock may not be 8 kHz (Opus).

The playout line, the delay and everything adaptive are those of :class:`~appliance.rtp.jitter.JitterBuffer`, in
samples at 8 kHz. A frame of the line does not hold audio but the packets that begin in it; they are decoded when it is
their turn, in order, and what a packet holds beyond its frame is kept for the frames after it.
"""

from __future__ import annotations

from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from appliance.errors import RtpError
from appliance.rtp.jitter import FRAME, Cell, JitterBuffer

FADE_FRAMES: Final = 5
"""After so many missing frames in a row the codec is not asked to make up more."""

_LINE_HZ: Final = 8000
_LONGEST: Final = 960
"""Samples of 120 ms, the longest packet of Opus (RFC 6716 §3.2.5)."""
_MAX_DECODED: Final = 2 * _LONGEST
"""Samples decoded for one frame at most: the packets that begin in it, and those of frames skipped before it."""
_MAX_STARTS: Final = 8
"""Packets of 2.5 ms, the shortest there are, in a frame."""
_NOTHING: Final = np.zeros(0, np.int16)


class Decoder(Protocol):
    """The part of a codec that this buffer needs; see ``audio/codec.py``."""

    @property
    def rtp_clock_hz(self) -> int: ...

    def decode(self, payload: bytes) -> NDArray[np.int16]: ...

    def plc(self, samples: int, following: bytes = b"") -> NDArray[np.int16] | None: ...

    def samples_in(self, payload: bytes) -> int: ...


class PacketBuffer(JitterBuffer):
    """``push`` as for the plain buffer, with timestamps of the codec's own clock; ``hear`` instead of ``pop``.

    Args:
        decoder: the leg's codec; its clock must be a multiple of 8 kHz.
        min_delay_frames, max_delay_frames: as for the plain buffer.

    Attributes:
        broken: packets that the decoder refused; concealed like missing ones.
    """

    __slots__ = (
        "_carried",
        "_decodable",
        "_decoder",
        "_left",
        "_line_base",
        "_lost_run",
        "_ratio",
        "_taken",
        "_wire_base",
        "broken",
    )

    def __init__(self, decoder: Decoder, *, min_delay_frames: int = 1, max_delay_frames: int = 10) -> None:
        super().__init__(min_delay_frames=min_delay_frames, max_delay_frames=max_delay_frames)
        self._decoder = decoder
        self._ratio = decoder.rtp_clock_hz // _LINE_HZ
        self._wire_base = self._line_base = 0
        self._left = _NOTHING
        self._carried: list[bytes] = []
        self._taken: _Packets | None = None
        self._decodable = 0
        self._lost_run = FADE_FRAMES
        self.broken = 0

    def push(self, seq: int, timestamp: int, payload: bytes, arrival_s: float, marker: bool, ssrc: int = 0) -> None:
        """Take a packet; ``timestamp`` counts the codec's RTP clock."""
        ahead = ((timestamp - self._wire_base + 0x80000000) & 0xFFFFFFFF) - 0x80000000
        steps = ahead // self._ratio
        # The base moves along by whole steps, so that the 32 bits may wrap on the wire at any point of the line.
        self._wire_base = (self._wire_base + steps * self._ratio) & 0xFFFFFFFF
        self._line_base = (self._line_base + steps) & 0xFFFFFFFF
        self._push_other(seq, self._line_base, payload, arrival_s, marker, ssrc)

    def reset(self) -> None:
        """As for the plain buffer; what was decoded and not yet heard is dropped too."""
        super().reset()
        self._left = _NOTHING
        self._carried.clear()

    def following(self) -> bytes | None:
        """The packet that begins the next frame, if it has come."""
        cell = self._packets(self._cursor)
        return next((payload for _, payload in cell.starts()), None) if cell is not None else None

    def hear(self, quiet: bool = False) -> NDArray[np.int16] | None:
        """The next frame, int16 [160] at 8 kHz, decoded or concealed; None where there is silence.

        ``quiet`` is that of ``pop``. To be called instead of it, once per 20 ms.
        """
        self._taken = None
        if self.pop(quiet) is None or self._taken is None:
            return self._conceal()
        cell: _Packets = self._taken
        self._lost_run = 0
        self._decodable = _MAX_DECODED
        if (only := cell.only()) is not None and not self._carried:
            return self._with_rest(self._decode(only))
        line = self._left
        for payload in (*self._carried, *cell.before):
            line = np.concatenate((line, self._decode(payload)))
        self._carried.clear()
        line = line[max(len(line) - cell.held_over, 0) :]
        for offset, payload in cell.starts():
            if len(line) < offset:
                line = np.concatenate((line, self._made_up(offset - len(line), payload)))
            line = np.concatenate((line, self._decode(payload)))
        return self._with_rest(line)

    def _with_rest(self, line: NDArray[np.int16]) -> NDArray[np.int16]:
        """The first frame of what was decoded, filled up where it is short; the rest is kept."""
        if len(line) < FRAME:
            line = np.concatenate((line, self._made_up(FRAME - len(line), b"")))
        self._left = line[FRAME:]
        return line[:FRAME]

    def _conceal(self) -> NDArray[np.int16] | None:
        # What is left of a packet stays: a frame may be missing only because the delay is being raised.
        self._lost_run += 1
        if self._lost_run > FADE_FRAMES:
            return None
        return self._made_up(FRAME, self.following() or b"")

    def _decode(self, payload: bytes) -> NDArray[np.int16]:
        samples = self._decoder.samples_in(payload)
        self._decodable -= samples
        if self._decodable < 0:
            self.discarded += 1
            return _NOTHING
        try:
            return self._decoder.decode(payload)
        except RtpError:
            self.broken += 1
            return self._made_up(samples, b"")

    def _made_up(self, samples: int, following: bytes) -> NDArray[np.int16]:
        """``samples`` from the codec's concealment, which works in steps of 10 ms."""
        steps = -(-samples // 80) * 80
        made = self._decoder.plc(steps, following) if steps else None
        return np.zeros(samples, np.int16) if made is None else made[:samples]

    # --- what the plain buffer asks -------------------------------------------------------------------------------

    def _samples(self, payload: bytes) -> int:
        return self._decoder.samples_in(payload)

    def _put(self, position: int, payload: bytes) -> None:
        begins = position - position % FRAME
        end = position + self._samples(payload)
        open_from = max(self._cursor, self._played_end)
        keys = range(max(begins, open_from), end, FRAME)
        taken = sum(
            there.overlap(position - key, end - key) for key in keys if (there := self._packets(key)) is not None
        )
        # A peer whose timestamps waver is heard; one that piles up packets costs no more time than one that does not.
        if 2 * taken > end - position:
            self.discarded += 1
            return
        for key in keys:
            cell = self._cells.setdefault(key, _Packets())
            assert isinstance(cell, _Packets)
            if key > position:
                cell.held_over = max(cell.held_over, min(end - key, FRAME * 8))
            if key == begins:
                self.discarded += not cell.begin(position - begins, end - position, payload)
            elif begins < open_from and key == open_from and len(cell.before) < _MAX_STARTS:
                cell.before = (*cell.before, payload)

    def _packets(self, key: int) -> _Packets | None:
        cell = self._cells.get(key)
        return cell if isinstance(cell, _Packets) else None

    def _take(self, cell: Cell) -> bytes:
        self._taken = cell if isinstance(cell, _Packets) else None
        return b""

    def _leave_out(self, cell: Cell | None) -> None:
        # The decoder's state has to go through what is skipped.
        if isinstance(cell, _Packets):
            self._carried += [*cell.before, *(payload for _, payload in cell.starts())]
            del self._carried[:-_MAX_STARTS]


class _Packets:
    """The packets of one frame.

    Attributes:
        before: packets that began before the frame, in a part of the line that is over.
        held_over: samples of earlier packets that the frame begins with (or more, for later frames).
    """

    __slots__ = ("_starts", "before", "held_over")

    def __init__(self) -> None:
        self.before: tuple[bytes, ...] = ()
        self.held_over = 0
        self._starts: dict[int, tuple[bytes, int]] = {}

    def overlap(self, start: int, end: int) -> int:
        """How many of the samples [start, end), counted from the frame's first, other packets have already."""
        taken = max(min(self.held_over, end) - max(start, 0), 0)
        for offset, (_, size) in self._starts.items():
            taken += max(min(offset + size, end) - max(offset, start), 0)
        return taken

    def begin(self, offset: int, size: int, payload: bytes) -> bool:
        """A packet of ``size`` samples whose first is the frame's ``offset``-th; False where there are too many."""
        if len(self._starts) >= _MAX_STARTS or offset in self._starts:
            return False
        self._starts[offset] = (payload, size)
        return True

    def only(self) -> bytes | None:
        """The packet that is all there is to the frame, as nearly always; None where there is more to it."""
        if self.held_over or self.before or len(self._starts) != 1 or 0 not in self._starts:
            return None
        return self._starts[0][0]

    def starts(self) -> list[tuple[int, bytes]]:
        """(offset, packet), in order."""
        return [(offset, self._starts[offset][0]) for offset in sorted(self._starts)]

    def filled(self) -> bytes:
        return b""
