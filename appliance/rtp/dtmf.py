"""Keys pressed on a phone as RTP events (RFC 4733), in both directions; and each press counted once.

An event is a run of packets that carry the same timestamp: updates every 20 ms with a growing duration, then three
copies of the last with the end bit. Any of them can be lost, so the receiver reports a key on the **first** packet it
sees of an event and never waits for the end: that is also the earliest moment at which a prompt can be interrupted.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from appliance.errors import RtpError

KEYS: Final = "0123456789*#ABCD"
"""Event codes 0 to 15 in order (RFC 4733 §3.2)."""

_END: Final = 0x80
_TICK_MS: Final = 20
_END_COPIES: Final = 3
_REMEMBERED_EVENTS: Final = 8
_SEGMENT_SLACK_MS: Final = 30
_MAX_DURATION: Final = 0xFFFF
_MAX_QUEUED_DIGITS: Final = 256
_REMEMBERED_PRESSES: Final = 64

SAME_PRESS_S: Final = 2.0
"""How far apart reports of one press can be: an INFO may come on release, and late over a path that loses."""


class DtmfReceiver:
    """Turns the telephone-event packets of one stream into keys.

    Attributes:
        clock_hz: the clock that its timestamps and durations count, that of the audio beside it (RFC 4733 §2.1).
    """

    def __init__(self, clock_hz: int = 8000) -> None:
        self.clock_hz = clock_hz
        self._recent: deque[int] = deque(maxlen=_REMEMBERED_EVENTS)
        self._event = -1
        self._timestamp = 0
        self._duration = 0
        self._seq = 0
        self._ended = True

    def push(self, payload: bytes, timestamp: int, marker: bool, seq: int) -> str | None:
        """The key, if this packet is the first seen of an event; otherwise None.

        Events other than the sixteen keys (flash, tones) give None.

        Raises:
            RtpError: if the payload is shorter than the four bytes of an event.
        """
        if len(payload) < 4:
            raise RtpError(f"a telephone-event of {len(payload)} bytes; it takes 4")
        event = payload[0]
        ended = bool(payload[1] & _END)
        duration = int.from_bytes(payload[2:4], "big")
        if event >= len(KEYS):
            return None
        known = timestamp in self._recent
        if known and not self._is_restart(event, timestamp, duration, marker, seq):
            if timestamp == self._timestamp:
                self._update(timestamp, duration, ended, seq)
            return None
        segment = not known and self._is_next_segment(event, timestamp, marker, duration)
        self._recent.append(timestamp)
        self._event = event
        self._ended = False
        self._duration = 0
        self._timestamp = timestamp
        self._seq = seq
        self._update(timestamp, duration, ended, seq)
        return None if segment else KEYS[event]

    def reset(self) -> None:
        """Forget the past, because the peer has restarted its stream (a new SSRC)."""
        self._recent.clear()
        self._event = -1
        self._ended = True

    def _update(self, timestamp: int, duration: int, ended: bool, seq: int) -> None:
        self._timestamp = timestamp
        self._duration = max(self._duration, duration)
        self._ended = self._ended or ended
        if _newer(seq, self._seq):
            self._seq = seq

    def _is_restart(self, event: int, timestamp: int, duration: int, marker: bool, seq: int) -> bool:
        """A peer that never moves its timestamp: a packet that opens an event after that event has ended."""
        return (
            timestamp == self._timestamp
            and self._ended
            and marker
            and _newer(seq, self._seq)
            and (event != self._event or duration < self._duration)
        )

    def _is_next_segment(self, event: int, timestamp: int, marker: bool, duration: int) -> bool:
        """The same key, still down, under a new timestamp.

        That is a key held for more than 65535 samples (RFC 4733 §2.5.1.3) or a peer that moves the timestamp with
        every packet. The new timestamp then joins on to the old duration; two presses are at least 40 ms apart.
        """
        if event != self._event or self._ended or marker:
            return False
        slack = _SEGMENT_SLACK_MS * self.clock_hz // 1000
        gap = (timestamp - self._timestamp - self._duration + 2**31) % 2**32 - 2**31
        moving_start = 0 <= (timestamp - self._timestamp) % 2**32 <= slack and duration >= self._duration
        return moving_start or abs(gap) <= slack


def _newer(seq: int, than: int) -> bool:
    return 0 < (seq - than) % 65536 < 32768


class DtmfStep(NamedTuple):
    """What to send in this tick instead of audio.

    ``payload`` is None in the pause between keys, where silence is sent. ``timestamp_age`` (in units of the sender's
    clock) is subtracted from the timestamp of the audio that the packet replaces: every packet of an event carries
    that of its start, or of its segment's.
    """

    payload: bytes | None
    marker: bool
    timestamp_age: int


_PAUSE: Final = DtmfStep(None, False, 0)


class DtmfSender:
    """Keys as events, one step per 20 ms tick (RFC 4733 §2.5.1): updates, then the end three times.

    ``tone_ms`` is the length of a key and ``gap_ms`` the pause after it, in which the copies of the end are sent;
    both are rounded up to whole ticks, the pause to at least two. ``power_dbm0`` is 0 to -63. ``clock_hz`` is the RTP
    clock of the audio; a key held for more than 65535 of its units goes on in a new segment (§2.5.1.3).

    Raises:
        ValueError: for a character that is not a key, or too many of them.
    """

    def __init__(
        self, digits: str = "", *, tone_ms: int = 100, gap_ms: int = 80, power_dbm0: int = -10, clock_hz: int = 8000
    ) -> None:
        if not -63 <= power_dbm0 <= 0:
            raise ValueError(f"power_dbm0 {power_dbm0} is outside -63 to 0")
        self._digits: deque[int] = deque()
        self._tick = clock_hz * _TICK_MS // 1000
        self._segment = _MAX_DURATION // self._tick * self._tick
        self._tone_ticks = max(1, -(-tone_ms // _TICK_MS))
        self._key_ticks = self._tone_ticks + max(_END_COPIES - 1, -(-gap_ms // _TICK_MS))
        self._volume = -power_dbm0
        self._step = 0
        self.add(digits)

    def add(self, digits: str) -> None:
        """Queue more keys behind those not yet sent."""
        codes = [KEYS.find(digit) for digit in digits.upper()]
        if -1 in codes:
            raise ValueError(f"{digits!r}: only the keys {KEYS} can be sent")
        if len(self._digits) + len(codes) > _MAX_QUEUED_DIGITS:
            raise ValueError(f"more than {_MAX_QUEUED_DIGITS} keys queued")
        self._digits.extend(codes)

    @property
    def done(self) -> bool:
        """Every key and the pause after the last have been sent."""
        return not self._digits

    @property
    def remaining(self) -> str:
        """The keys of which nothing has been sent."""
        return "".join(KEYS[code] for code in list(self._digits)[1 if self._step else 0 :])

    def next(self) -> DtmfStep | None:
        """What to send in this tick; None once every key and the pause after it have been sent."""
        if not self._digits:
            return None
        step = self._step
        event = self._digits[0]
        self._step += 1
        if self._step == self._key_ticks:
            self._step = 0
            self._digits.popleft()
        last = self._tone_ticks - 1
        if step >= last + _END_COPIES:
            return _PAUSE
        held = (min(step, last) + 1) * self._tick
        over = (held - 1) // self._segment * self._segment
        flags = self._volume | (_END if step >= last else 0)
        payload = bytes((event, flags)) + (held - over).to_bytes(2, "big")
        return DtmfStep(payload, step == 0, step * self._tick - over)


class KeyPresses:
    """One call's keys, each counted once however many ways it is reported.

    A phone may send a key as an event, let its tone leak into the audio and have a proxy tell it by INFO as well. Each
    way reports every press at most once, so the presses of a key are as many as the way that reported most. A report
    belongs to the oldest recent press that its way has not reported yet; where there is none it is a new press.
    """

    __slots__ = ("_recent",)

    def __init__(self) -> None:
        self._recent: deque[tuple[float, str, set[str]]] = deque(maxlen=_REMEMBERED_PRESSES)

    def press(self, key: str, way: str, now: float) -> bool:
        """A key was reported.

        Args:
            key: one of ``KEYS``.
            way: how it came: any name, the same for the same way.
            now: seconds on a monotonic clock.

        Returns:
            Whether this is a press that no other way has reported within ``SAME_PRESS_S``.
        """
        while self._recent and now - self._recent[0][0] > SAME_PRESS_S:
            self._recent.popleft()
        for _, pressed, ways in self._recent:
            if pressed == key and way not in ways:
                ways.add(way)
                return False
        self._recent.append((now, key, {way}))
        return True
