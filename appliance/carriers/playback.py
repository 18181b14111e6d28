"""How much of what was sent ahead a peer has played. PURE.

RTP leaves as it is to be heard. A carrier's stream instead fills a buffer at the carrier, which plays it by its own
clock and throws it away when told to. :class:`Playback` says how much may be sent now and how much of it has been
heard, from two sources: the time since the buffer was last empty, and the marks that come back. Positions are samples
at 8 kHz since the stream began.

A message takes a while to the carrier and a mark as long to come back, but for what is heard when a ``clear`` arrives
neither matters: audio and clear travel the same way. It is the time since the first message of the run, less what the
carrier has stood still. That it stood still shows in marks that come back later than the earliest did.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

FRAME: Final = 160
"""Samples of 20 ms at 8 kHz."""

LEAD: Final = 8 * FRAME
"""How far ahead of the peer's playing we send: what the network may stutter without a gap being heard."""

SHORT_LEAD: Final = 2 * FRAME
"""The same where the peer cannot be told to forget it: so much is heard after an interruption, and what Asterisk gets
over AudioSocket it sends on at once, in a burst."""

_RATE_HZ: Final = 8000.0
_MARK_EVERY: Final = 5 * FRAME
_HOLD_S: Final = 0.25
"""A mark overdue by this much means that the peer, or the way to it, stands still: nothing more is sent meanwhile."""
_FIRST_MARK_S: Final = 2.0
_MAX_PIECES: Final = 64
_MAX_DIGITS: Final = 18


@dataclass(slots=True)
class _Piece:
    """The part of the stream that is one utterance; ``end`` -1 while it goes on."""

    utterance: int
    start: int
    end: int = -1
    others: int = 0
    """Samples sent meanwhile that are not its own: keys, music."""

    def until(self, position: int) -> int:
        """Samples of it that lie before a position."""
        return max(0, position - self.start - self.others)


@dataclass(frozen=True, slots=True)
class Heard:
    """An utterance and how many of its samples have been heard; ``utterance`` -1 for none."""

    utterance: int
    samples: int


class Playback:
    """The peer's buffer, as far as we can know it.

    Args:
        marks: whether the peer tells what it has played; if not, only the time counts.
        clears: whether it can be told to forget what it has not played; if not, all that was sent will be heard.

    Attributes:
        sent: position up to which everything has been sent.
    """

    __slots__ = (
        "_behind_s",
        "_clears",
        "_confirmed",
        "_earliest",
        "_epoch",
        "_lead",
        "_marked",
        "_marks",
        "_pending",
        "_pieces",
        "_run_at",
        "_run_from",
        "sent",
    )

    def __init__(self, marks: bool, clears: bool = True) -> None:
        self._marks = marks
        self._clears = clears
        self._lead = LEAD if clears else SHORT_LEAD
        self.sent = 0
        self._run_at = 0.0
        self._run_from = 0
        self._confirmed = 0
        self._marked = 0
        self._pending: deque[tuple[int, float]] = deque()
        self._earliest: float | None = None
        """The shortest time by which a mark was late: both ways through the network."""
        self._behind_s = 0.0
        """How much later than that the newest mark was: the peer stood still for so long in this run."""
        self._epoch = 0
        self._pieces: deque[_Piece] = deque()

    def played(self, now: float) -> int:
        """Position that is played when something sent now arrives."""
        reached = self._run_from + round((self._held_since(now) - self._run_at - self._behind_s) * _RATE_HZ)
        return min(self.sent, max(reached, self._confirmed))

    def room(self, now: float) -> int:
        """Whole frames that may be sent now."""
        if self._held_since(now) < now:
            return 0
        return max(0, (self.played(now) + self._lead - self.sent) // FRAME)

    def send(self, utterance: int, samples: int, ends: bool, now: float) -> list[str]:
        """A frame of 20 ms is sent; gives the names of the marks to be sent behind it.

        Args:
            utterance: whose it is, -1 for what is nobody's (music, a bridged caller).
            samples: of it that are the utterance's, the rest being silence.
            ends: the utterance ends in it.
        """
        if self.dry(now):
            self._run_at, self._run_from, self._behind_s = now, self.sent, 0.0
        last = self._pieces[-1] if self._pieces else None
        if utterance >= 0 and (last is None or last.utterance != utterance or last.end >= 0):
            last = _Piece(utterance, self.sent)
            self._pieces.append(last)
            if len(self._pieces) > _MAX_PIECES:
                self._pieces.popleft()
        if last is not None and utterance < 0 and last.end < 0:
            last.others += FRAME
        if last is not None and ends:
            last.end = self.sent + samples
        self.sent += FRAME
        if not self._marks or not (ends or self.sent - self._marked >= _MARK_EVERY):
            return []
        return self._mark()

    def end(self, utterance: int) -> list[str]:
        """The utterance has ended with the frame before; gives the marks to be sent."""
        last = self._pieces[-1] if self._pieces else None
        if last is None or last.utterance != utterance or last.end >= 0:
            last = _Piece(utterance, self.sent)
            self._pieces.append(last)
        last.end = self.sent
        return self._mark() if self._marks and self._marked < self.sent else []

    def dry(self, now: float) -> bool:
        """Whether the peer has nothing left to play."""
        return self.played(now) >= self.sent

    def _mark(self) -> list[str]:
        self._marked = self.sent
        self._pending.append((self.sent, self._run_at + (self.sent - self._run_from) / _RATE_HZ))
        return [f"{self._epoch}.{self.sent}"]

    def mark(self, name: str, now: float) -> None:
        """A mark has come back. One that is not ours, or from before the last clear, says nothing."""
        epoch, _, position = name.partition(".")
        if epoch != str(self._epoch) or not position.isdecimal() or len(position) > _MAX_DIGITS:
            return
        while self._pending and self._pending[0][0] <= int(position):
            at, due = self._pending.popleft()
            self._confirmed = max(self._confirmed, at)
            late = now - due
            if self._earliest is None or late < self._earliest:
                self._earliest = late
            self._behind_s = late - self._earliest

    def finished(self, now: float) -> list[Heard]:
        """Utterances that have been played to their end since the last call."""
        reached = self._confirmed if self._marks else self.played(now)
        over = []
        while self._pieces and 0 <= self._pieces[0].end <= reached:
            piece = self._pieces.popleft()
            over.append(Heard(piece.utterance, piece.until(piece.end)))
        return over

    def over_by(self, now: float) -> list[Heard]:
        """Utterances that will have been played to their end when a clear arrives; each once, as by ``finished``."""
        at = self.played(now) if self._clears else self.sent
        over = []
        while self._pieces and 0 <= self._pieces[0].end <= at:
            piece = self._pieces.popleft()
            over.append(Heard(piece.utterance, piece.until(piece.end)))
        return over

    def ahead(self, now: float) -> int:
        """Samples that the peer has and has not played."""
        return self.sent - self.played(now)

    def held_s(self, now: float) -> float:
        """For how long the peer seems to have stood still."""
        return now - self._held_since(now)

    def clear(self, now: float) -> Heard:
        """A clear is sent: what was being played, and how much of it has been heard when that arrives.

        Of a peer that knows no clear: what will have been heard.
        """
        at = self.played(now) if self._clears else self.sent
        heard = Heard(-1, 0)
        for piece in self._pieces:
            if piece.start <= at:
                end = piece.end if piece.end >= 0 else self.sent
                heard = Heard(piece.utterance, piece.until(min(at, end)))
        self._pieces.clear()
        if not self._clears:
            return heard
        self.sent = self._confirmed = self._marked = self._run_from = at
        self._run_at = now
        self._behind_s = 0.0
        self._pending.clear()
        self._epoch += 1
        return heard

    def abandon(self) -> tuple[list[Heard], Heard]:
        """The peer is gone: the utterances that had been sent to their end, and what was sent of the one under way."""
        ended = [Heard(piece.utterance, piece.until(piece.end)) for piece in self._pieces if piece.end >= 0]
        under_way = [Heard(piece.utterance, piece.until(self.sent)) for piece in self._pieces if piece.end < 0]
        self._pieces.clear()
        return ended, under_way[-1] if under_way else Heard(-1, 0)

    def _held_since(self, now: float) -> float:
        """When the peer seems to have stopped playing; ``now`` where it has not."""
        if not self._pending:
            return now
        patience = _FIRST_MARK_S if self._earliest is None else self._earliest + self._behind_s + _HOLD_S
        return min(now, self._pending[0][1] + patience)
