"""The jitter buffer of one stream: packets in as they come, one 20 ms frame out per tick.

This one is for codecs of one byte per tick of an 8 kHz RTP clock, which can be cut anywhere: G.711, and G.722 (two
samples a byte, RFC 3551 §4.5.2). ``rtp/packet_buffer.py`` builds on it for codecs whose packets are indivisible.

Time inside is a playout line in samples. ``_cursor`` is the start of the next frame to hand out; it moves by one frame
per tick and is always a multiple of 160. Every packet is placed on the line by its timestamp; its *slack* is how many
samples before its turn it came. The delay of the buffer is the largest slack seen lately (that of the fastest packet),
and everything the buffer adapts is done by moving the cursor:

- a packet comes after its turn, and nothing newer has been played: the cursor goes back to it. The gap has been
  concealed, nothing is lost, the delay has grown (rise at once);
- a packet comes after newer audio has been played: it is dropped as late, and the cursor goes back all the same;
- for ten seconds every packet came with time to spare: the cursor skips most of what was spare, a frame at a time
  and in quiet if there is any (fall slowly);
- the fastest packet has come to have less than the least delay: one frame is repeated. This and the rule before it are
  also what holds the delay against a peer whose clock is off.

A timestamp that fits nowhere near the cursor (a restarted peer, a paused clock, an attack) never moves the cursor: the
packet is put where the present delay wants it, as the start of a new run. So memory is bounded by the largest delay
whatever arrives, and audio already buffered is played out before what follows a jump.
"""

from __future__ import annotations

from typing import Final, Protocol

FRAME: Final = 160
"""Samples, and bytes, of a 20 ms frame at 8 kHz."""

_CLOCK_HZ: Final = 8000.0
_WINDOW_POPS: Final = 500
"""Ten seconds: how long slack is watched before the delay is reduced."""
_PATIENCE_WINDOWS: Final = 4
"""Windows that a correction waits for quiet before it is made in speech; at 200 ppm they add 8 ms of drift."""
_MAX_PAYLOAD: Final = 1600
_MAX_DROPOUT: Final = 3000
"""Sequence numbers a stream may leap ahead and still be the same stream (RFC 3550 §A.1)."""
_MAX_MISORDER: Final = 100
_MAX_MISSING: Final = 256
_QUIET_POPS: Final = 3
_NONE: Final = 1 << 60

_ULAW_QUIET: Final = bytes(code for code in range(256) if code & 0x7F >= 0x60)
_ALAW_QUIET: Final = bytes(code for code in range(256) if (code ^ 0x55) & 0x7F < 0x20)


class Unfinished(Protocol):
    """A frame of which only pieces have come."""

    def filled(self) -> bytes: ...


Cell = bytes | Unfinished
"""What is kept for a frame: its bytes, or what will give them."""


class JitterBuffer:
    """Adaptive jitter buffer for a stream whose bytes are 125 us each.

    ``push`` each packet as it comes, then ``pop`` exactly once per 20 ms, after the packets of that tick.

    Args:
        min_delay_frames: the delay of a stream without jitter: a packet is played that many ticks after it came.
        max_delay_frames: no packet waits longer than that.

    Attributes:
        received: packets accepted as new, late ones included.
        lost: sequence numbers that never came.
        late: packets that came after newer audio had been played; not heard.
        duplicate: packets that had come before.
        discarded: packets of impossible size, and frames dropped because the buffer was full.
        concealed: ticks without audio while the stream was running; a peer's own pauses are not counted.
        skipped: frames left out to reduce the delay, or because the peer's clock is fast.
        repeated: frames added to raise the delay, or because the peer's clock is slow.
    """

    __slots__ = (
        "_cells",
        "_cursor",
        "_delay",
        "_empty_pops",
        "_fresh",
        "_held",
        "_jitter",
        "_max",
        "_min",
        "_missing",
        "_next_position",
        "_next_seq",
        "_next_timestamp",
        "_overdue",
        "_pending",
        "_played_end",
        "_slack_high",
        "_slack_low",
        "_ssrc",
        "_transit",
        "_window",
        "concealed",
        "discarded",
        "duplicate",
        "late",
        "lost",
        "received",
        "repeated",
        "skipped",
    )

    def __init__(self, *, min_delay_frames: int = 1, max_delay_frames: int = 10) -> None:
        if not 0 <= min_delay_frames <= max_delay_frames or max_delay_frames < 1:
            raise ValueError("min_delay_frames must be from 0 to max_delay_frames, and that at least 1")
        self._min = min_delay_frames * FRAME
        self._max = max_delay_frames * FRAME
        self._cells: dict[int, Cell] = {}
        self._cursor = 0
        self._played_end = 0
        self._delay = self._min
        self._empty_pops = max_delay_frames
        self._fresh = True
        self._ssrc = -1
        self._next_seq = 0
        self._next_timestamp = 0
        self._next_position = 0
        self._missing: set[int] = set()
        self._held: tuple[int, int, bytes, int] | None = None
        self._slack_low = _NONE
        self._slack_high = -_NONE
        self._window = _WINDOW_POPS
        self._pending = 0
        self._overdue = 0
        self._transit = 0.0
        self._jitter = 0.0
        self.received = self.lost = self.late = self.duplicate = self.discarded = 0
        self.concealed = self.skipped = self.repeated = 0

    # --- in -------------------------------------------------------------------------------------------------------

    def push(self, seq: int, timestamp: int, payload: bytes, arrival_s: float, marker: bool, ssrc: int = 0) -> None:
        """Take a packet.

        Args:
            seq: 16-bit sequence number.
            timestamp: 32-bit timestamp of its first sample.
            payload: its samples, any number from 1 to 1600.
            arrival_s: when it came, seconds on a monotonic clock; only ``jitter_s`` is made of it.
            marker: the marker bit: start of a talkspurt.
            ssrc: its stream; a new one starts afresh (see :meth:`reset`).
        """
        if seq == self._next_seq and timestamp == self._next_timestamp and ssrc == self._ssrc and len(payload) == FRAME:
            position = self._next_position
            slack = position - self._cursor
            if 0 <= slack <= self._max and not position % FRAME:
                self._cells[position] = payload
                self._next_position = position + FRAME
                self._next_seq = (seq + 1) & 0xFFFF
                self._next_timestamp = (timestamp + FRAME) & 0xFFFFFFFF
                self.received += 1
                if slack < self._slack_low:  # noqa: PLR1730 - a call of min() costs more than the packet
                    self._slack_low = slack
                if slack > self._slack_high:  # noqa: PLR1730
                    self._slack_high = slack
                transit = arrival_s * _CLOCK_HZ - position
                change = transit - self._transit
                self._transit = transit
                self._jitter += ((change if change > 0.0 else -change) - self._jitter) * 0.0625
                return
        self._push_other(seq, timestamp, payload, arrival_s, marker, ssrc)

    def skip(self, seq: int) -> None:
        """A packet of this stream that is not audio (an event, comfort noise) had this number: it is not a loss."""
        if self._fresh:
            return
        ahead = _signed16(seq - self._next_seq)
        if 0 <= ahead <= _MAX_DROPOUT:
            self._count_gap(ahead)
            self._next_seq = (seq + 1) & 0xFFFF
        elif seq in self._missing:
            self._missing.discard(seq)
            self.lost -= 1

    def reset(self) -> None:
        """The peer has changed its stream (new SSRC, another codec): drop what is buffered, keep delay and counts."""
        self._cells.clear()
        self._missing.clear()
        self._held = None
        self._fresh = True
        self._empty_pops = max(self._empty_pops, self._max // FRAME)

    def _samples(self, payload: bytes) -> int:
        """How many samples, at 8 kHz, a payload holds."""
        return len(payload)

    def _push_other(self, seq: int, timestamp: int, payload: bytes, arrival_s: float, marker: bool, ssrc: int) -> None:
        """Everything but the next 20 ms packet of a stream in order."""
        size = self._samples(payload)
        if not 0 < size <= _MAX_PAYLOAD:
            self.discarded += 1
            return
        if ssrc != self._ssrc:
            if not self._fresh:
                self.reset()
            self._ssrc = ssrc
        if self._fresh:
            self._begin_run(seq, timestamp, payload, arrival_s)
            return
        position = self._next_position + _signed32(timestamp - self._next_timestamp)
        ahead = _signed16(seq - self._next_seq)
        if -_MAX_MISORDER <= ahead < 0 and self._next_position - _MAX_DROPOUT * FRAME <= position < self._next_position:
            if seq not in self._missing:
                self.duplicate += 1
                return
            self._missing.discard(seq)
            self.lost -= 1
            self.received += 1
            if position + size <= self._played_end:
                self.late += 1
                self._rise(self._cursor - position)
                return
            self._place(position, payload)
            return
        slack = position - self._cursor
        idle = not self._cells and self._empty_pops >= self._max // FRAME
        if idle and not 0 <= slack <= self._delay + FRAME:
            self._begin_run(seq, timestamp, payload, arrival_s)
        elif (
            slack > self._max and 2 * FRAME * len(self._cells) < slack  # far ahead of what is buffered
        ) or position < min(self._played_end, self._next_position):
            self._jump(seq, timestamp, payload, arrival_s, marker)
        else:
            if self._held is not None:
                self._held = None
                self.discarded += 1
            self.received += 1
            if 0 <= ahead <= _MAX_DROPOUT:
                self._count_gap(ahead)
            else:
                self._missing.clear()
            self._follow(seq, timestamp, position, size)
            transit = arrival_s * _CLOCK_HZ - position
            self._jitter += (abs(transit - self._transit) - self._jitter) * 0.0625
            self._transit = transit
            self._place(position, payload)

    def _jump(self, seq: int, timestamp: int, payload: bytes, arrival_s: float, marker: bool) -> None:
        """A packet whose timestamp fits nowhere: believed when it starts a talkspurt or the next one confirms it."""
        held = self._held
        if marker:
            self._begin_run(seq, timestamp, payload, arrival_s)
        elif held is not None and seq == (held[0] + 1) & 0xFFFF and timestamp == held[3]:
            self._begin_run(*held[:3], arrival_s)
            self._push_other(seq, timestamp, payload, arrival_s, False, self._ssrc)
        else:
            if held is not None:
                self.discarded += 1
            self._held = (seq, timestamp, payload, (timestamp + self._samples(payload)) & 0xFFFFFFFF)

    def _begin_run(self, seq: int, timestamp: int, payload: bytes, arrival_s: float) -> None:
        """Place a packet that says nothing about time: after the present delay, behind what is buffered."""
        wanted = self._cursor + max(self._delay, self._min) // FRAME * FRAME
        buffered_end = max(self._cells, default=self._cursor - FRAME) + FRAME
        position = max(wanted, buffered_end)
        self._delay = min(position - self._cursor, self._max)
        self._slack_low, self._slack_high = _NONE, -_NONE
        if not self._fresh and 0 <= _signed16(seq - self._next_seq) <= _MAX_MISORDER:
            self._count_gap(_signed16(seq - self._next_seq))
        else:
            self._missing.clear()
        self._fresh = False
        self._held = None
        self.received += 1
        self._follow(seq, timestamp, position, self._samples(payload))
        self._transit = arrival_s * _CLOCK_HZ - position
        self._place(position, payload)

    def _follow(self, seq: int, timestamp: int, position: int, size: int) -> None:
        """Remember what would come next."""
        self._next_seq = (seq + 1) & 0xFFFF
        self._next_timestamp = (timestamp + size) & 0xFFFFFFFF
        self._next_position = position + size

    def _count_gap(self, ahead: int) -> None:
        """``ahead`` sequence numbers are missing before the packet at hand."""
        if ahead == 0:
            return
        self.lost += ahead
        first = self._next_seq
        newest = first + ahead
        self._missing.update(number & 0xFFFF for number in range(max(first, newest - _MAX_MISORDER), newest))
        if len(self._missing) > _MAX_MISSING:
            self._missing = {number for number in self._missing if (newest - number) & 0xFFFF <= _MAX_MISORDER}

    def _place(self, position: int, payload: bytes) -> None:
        """Put samples on the line, moving the cursor if they are too late or too early for it."""
        slack = position - self._cursor
        if slack < 0:
            self._pending = 0
            self._move(-slack)
            slack = position - self._cursor
        elif slack > self._max:
            self._overflow(slack - self._max)
            slack = position - self._cursor
        self._slack_low = min(self._slack_low, slack)
        self._slack_high = max(self._slack_high, slack)
        self._put(position, payload)

    def _put(self, position: int, payload: bytes) -> None:
        """Cut a payload into the frames that it belongs to."""
        if len(payload) == FRAME and not position % FRAME:
            self._cells.setdefault(position, payload)
            return
        open_from = max(self._cursor, self._played_end)
        done = 0
        while done < len(payload):
            start = (position + done) % FRAME
            key = position + done - start
            piece = payload[done : done + FRAME - start]
            done += len(piece)
            if key >= open_from:
                self._place_piece(key, start, piece)

    def _place_piece(self, key: int, start: int, piece: bytes) -> None:
        cell = self._cells.get(key)
        if len(piece) == FRAME:
            self._cells[key] = piece
        elif cell is None:
            self._cells[key] = Partial(start, piece)
        elif isinstance(cell, Partial) and cell.add(start, piece):
            self._cells[key] = bytes(cell.samples)

    # --- out ------------------------------------------------------------------------------------------------------

    def pop(self, quiet: bool = False) -> bytes | None:
        """The next 160 samples, or None where there are none: conceal the gap, or play silence if it goes on.

        ``quiet``: the caller is not speaking just now, so that a frame can be skipped or repeated unheard. Frames
        that are quiet by themselves (below about -40 dBFS) are recognised without it.
        """
        self._window -= 1
        if not self._window:
            self._close_window()
        if self._pending:
            self._correct(quiet)
        cursor = self._cursor
        cell = self._cells.pop(cursor, None)
        self._cursor = cursor = cursor + FRAME
        if cell.__class__ is bytes:
            self._played_end = cursor
            self._empty_pops = 0
            return cell
        if cell is None:
            if self._empty_pops < self._max // FRAME:
                self.concealed += 1
            self._empty_pops += 1
            return None
        self._played_end = cursor
        self._empty_pops = 0
        return self._take(cell)

    def _take(self, cell: Cell) -> bytes:
        """The bytes of a frame that is not simply one whole payload."""
        assert not isinstance(cell, bytes)
        return cell.filled()

    def _leave_out(self, cell: Cell | None) -> None:
        """A frame is skipped."""

    def following(self) -> bytes | None:
        """The 160 samples that the next ``pop`` would give now, if they have come whole: what concealment leads to."""
        cell = self._cells.get(self._cursor)
        return cell if isinstance(cell, bytes) else None

    @property
    def delay_frames(self) -> int:
        """The playout delay now: by how many ticks a sample is handed out after the tick in which it came."""
        return self._delay // FRAME

    @property
    def held_frames(self) -> int:
        """``delay_frames`` where the last ``pop`` gave audio, -1 where there was none."""
        return -1 if self._empty_pops else self._delay // FRAME

    @property
    def depth_frames(self) -> int:
        """Frames that wait to be handed out."""
        return len(self._cells)

    @property
    def jitter_s(self) -> float:
        """Interarrival jitter as RTCP reports it (RFC 3550 §6.4.1), in seconds."""
        return self._jitter / _CLOCK_HZ

    # --- the delay ------------------------------------------------------------------------------------------------

    def _move(self, later: int) -> None:
        """Play everything ``later`` samples (rounded up to frames; negative: sooner) than planned."""
        shift = -(-later // FRAME) * FRAME
        self._cursor -= shift
        self._delay = min(max(self._delay + shift, 0), self._max)
        if self._slack_high >= 0:
            self._slack_low += shift
            self._slack_high += shift

    def _rise(self, late_by: int) -> None:
        """A packet came too late to be heard: play the next of its kind in time."""
        if 0 < late_by <= self._max - self._delay:
            self._pending = 0
            self.repeated += -(-late_by // FRAME)
            self._move(late_by)

    def _overflow(self, excess: int) -> None:
        """More has come at once than may wait: give up the oldest."""
        before = len(self._cells)
        self._move(-excess // FRAME * FRAME)
        self._delay = self._max
        self._cells = {key: cell for key, cell in self._cells.items() if key >= self._cursor}
        self.discarded += before - len(self._cells)

    def _close_window(self) -> None:
        """Decide, from ten seconds of slack, whether the delay should be another."""
        self._window = _WINDOW_POPS
        low, high = self._slack_low, self._slack_high
        self._slack_low, self._slack_high = _NONE, -_NONE
        if high < 0:
            return
        self._delay = min(high, self._max)
        spare = min(low, high - self._min) // FRAME
        short = -(-(self._min - high) // FRAME)
        wanted = -((3 * spare + 3) // 4) if spare > 0 else max(0, short)
        self._overdue = self._overdue + 1 if wanted * self._pending > 0 else 0
        self._pending = wanted

    def _correct(self, quiet: bool) -> None:
        """Skip or repeat one frame of those pending, where it is not heard or cannot wait any longer."""
        cell = self._cells.get(self._cursor)
        if cell is None:
            quiet = quiet or self._pending < 0 or self._empty_pops >= _QUIET_POPS
        elif isinstance(cell, bytes):
            quiet = quiet or not cell.translate(None, _ULAW_QUIET) or not cell.translate(None, _ALAW_QUIET)
        if not quiet and self._overdue < _PATIENCE_WINDOWS:
            return
        self._overdue = 0
        if self._pending > 0:
            self._pending -= 1
            self.repeated += 1
            self._move(FRAME)
        else:
            self._pending += 1
            self.skipped += 1
            self._leave_out(self._cells.pop(self._cursor, None))
            self._move(-FRAME)


class Partial:
    """A frame of which only pieces have come (packets of 10, 30 or 50 ms, or off the 20 ms grid)."""

    __slots__ = ("_have", "samples")

    def __init__(self, start: int, piece: bytes) -> None:
        self.samples = bytearray(FRAME)
        self._have = bytearray(FRAME)
        self.add(start, piece)

    def add(self, start: int, piece: bytes) -> bool:
        """Take a piece; True when the frame has become whole."""
        self.samples[start : start + len(piece)] = piece
        self._have[start : start + len(piece)] = b"\x01" * len(piece)
        return 0 not in self._have

    def filled(self) -> bytes:
        """The frame, each hole filled with the samples beside it played backwards, so that no step is heard."""
        samples, have = self.samples, self._have
        if (first := have.find(1)) > 0:
            self._mirror(0, first, samples[first : have.find(0, first) if 0 in have[first:] else FRAME][::-1])
        while (hole := have.find(0)) >= 0:
            end = have.find(1, hole)
            self._mirror(hole, FRAME if end < 0 else end, samples[:hole][::-1])
        return bytes(samples)

    def _mirror(self, start: int, end: int, source: bytearray) -> None:
        length = end - start
        tiled = source * (length // len(source) + 1)
        self.samples[start:end] = tiled[:length] if start else tiled[len(tiled) - length :]
        self._have[start:end] = b"\x01" * length


def _signed16(number: int) -> int:
    return ((number + 0x8000) & 0xFFFF) - 0x8000


def _signed32(number: int) -> int:
    return ((number + 0x80000000) & 0xFFFFFFFF) - 0x80000000
