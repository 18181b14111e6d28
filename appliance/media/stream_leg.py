"""A leg whose audio is a stream over a connection: frames in to its jitter buffer, frames out ahead of their time.

What RTP sends as it is to be heard, a stream sends a little ahead; what its peer has played is then known by
:class:`~appliance.carriers.playback.Playback`: that, not what was sent, is what recordings and the conversation get.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from appliance.api.streams import Audio, Message, Started, StreamProtocol
from appliance.audio import g711
from appliance.audio.live_resample import LiveResampler
from appliance.carriers.playback import FRAME, Heard, Playback
from appliance.errors import CarrierError
from appliance.ipc.rings import RATE_HZ
from appliance.rtp.jitter import JitterBuffer

CODECS: Final = ("pcmu", "pcma", "l16")
_SLACK: Final = 2
"""Frames of silence before audio that comes in real time, from another call: what either network may stutter."""
_QUIET: Final = 300
_MAX_UNSENT_S: Final = 0.25
"""So much that the network has not taken means that it stands still; only asked where the peer tells nothing."""
_MAX_JUMP: Final = 50
"""Messages that may be missing in a row; a larger step in their numbers is a new beginning."""


class StreamEnd:
    """Our end of one stream, from its start to its end.

    Args:
        protocol: reads and writes its messages.
        started: what it said of itself.
        post: sends messages; returns at once.
        unsent: bytes that the network has not taken yet.

    Attributes:
        codec: "pcmu", "pcma" or "l16".

    Raises:
        CarrierError: its rate is none that we can bring to 8 kHz.
    """

    __slots__ = (
        "_ahead",
        "_carried",
        "_from_peer",
        "_next",
        "_pieces",
        "_playback",
        "_post",
        "_protocol",
        "_shown",
        "_size",
        "_stamp",
        "_to_peer",
        "_unsent",
        "_unsent_bytes",
        "codec",
        "rate_hz",
    )

    def __init__(
        self,
        protocol: StreamProtocol,
        started: Started,
        post: Callable[[Sequence[Message]], None],
        unsent: Callable[[], int],
    ) -> None:
        self.codec, self.rate_hz = started.codec, started.rate_hz
        if self.codec not in CODECS or (self.codec != "l16" and self.rate_hz != RATE_HZ):
            raise CarrierError(f"{self.codec} at {self.rate_hz} Hz is not taken")
        self._protocol = protocol
        self._post = post
        self._unsent = unsent
        self._playback = Playback(protocol.marks, protocol.clears)
        try:
            self._from_peer = LiveResampler(self.rate_hz, RATE_HZ)
            self._to_peer = LiveResampler(RATE_HZ, self.rate_hz)
        except ValueError as error:
            raise CarrierError(str(error)) from None
        self._unsent_bytes = round(_MAX_UNSENT_S * self.rate_hz * (2 if self.codec == "l16" else 1))
        self._ahead: deque[NDArray[np.int16]] = deque()
        """Frames that were sent and, by what we know, not yet played."""
        self._shown = 0
        """Up to where frames have been handed out as played."""
        self._carried = Heard(-1, 0)
        self._next = -1
        """The number of the message that is to come."""
        self._stamp = self._size = 0
        self._pieces = 0

    # --- from the peer ------------------------------------------------------------------------------------------------

    def hear(self, audio: Audio, jitter: JitterBuffer, now: float) -> None:
        """Put what has come into the leg's jitter buffer."""
        if self.codec == "l16":
            self._hear_linear(audio, jitter, now)
            return
        size = len(audio.payload)
        ahead = audio.number - self._next
        if self._next < 0 or abs(ahead) > _MAX_JUMP:
            ahead = 0
        stamp = self._stamp + ahead * (self._size or size)
        if ahead >= 0:
            self._next, self._stamp, self._size = audio.number + 1, stamp + size, size
        jitter.push(audio.number & 0xFFFF, stamp & 0xFFFFFFFF, audio.payload, now, False)

    def _hear_linear(self, audio: Audio, jitter: JitterBuffer, now: float) -> None:
        """Samples are brought to 8 kHz in the order in which they come."""
        if 0 <= self._next - audio.number - 1 <= _MAX_JUMP:
            jitter.duplicate += 1
            return
        self._next = audio.number + 1
        samples = np.frombuffer(audio.payload[: len(audio.payload) // 2 * 2], "<i2").astype(np.int16)
        line = self._from_peer.push(samples)
        for start in range(0, len(line), FRAME):
            piece = line[start : start + FRAME]
            jitter.push(self._pieces & 0xFFFF, self._stamp & 0xFFFFFFFF, piece.astype("<i2").tobytes(), now, False)
            self._pieces += 1
            self._stamp += len(piece)

    # --- to the peer --------------------------------------------------------------------------------------------------

    def room(self, now: float) -> int:
        """Frames that may be sent now."""
        if not self._protocol.marks and self._unsent() > self._unsent_bytes:
            return 0
        return self._playback.room(now)

    def dry(self, now: float) -> bool:
        """Whether the peer has nothing left to play."""
        return self._playback.dry(now)

    def send(
        self, frame: NDArray[np.int16], now: float, utterance: int = -1, samples: int = 0, ends: bool = False
    ) -> None:
        """Send 20 ms, int16 [160]; the rest as for :meth:`Playback.send`."""
        marks = self._playback.send(utterance, samples, ends, now)
        self._ahead.append(frame.copy())
        if self.codec == "l16":
            payload = self._to_peer.push(frame).astype("<i2").tobytes()
        else:
            payload = g711.encode(frame, self.codec == "pcma").tobytes()
        messages = [self._protocol.media(payload)]
        for name in marks:
            messages += self._protocol.mark(name)
        self._post(messages)

    def send_live(self, frame: NDArray[np.int16], now: float) -> None:
        """Send 20 ms of what is just being said elsewhere; dropped where the peer stands still.

        What is ahead beyond the slack (of what was sent before, of a clock that runs fast) is taken back in silence.
        """
        if self._playback.dry(now):
            for _ in range(_SLACK):
                self.send(np.zeros(FRAME, np.int16), now)
        elif self._playback.ahead(now) > (_SLACK + 2) * FRAME and int(np.abs(frame).max()) < _QUIET:
            return
        if self.room(now):
            self.send(frame, now)

    def end(self, utterance: int) -> None:
        """The utterance has ended with what was sent before."""
        for name in self._playback.end(utterance):
            self._post(self._protocol.mark(name))

    def marked(self, name: str, now: float) -> None:
        """A mark has come back."""
        self._playback.mark(name, now)

    def finished(self, now: float) -> list[Heard]:
        """Utterances that have been heard to their end since the last call."""
        return [self._with_carried(heard) for heard in self._playback.finished(now)]

    def over_by(self, now: float) -> list[Heard]:
        """Utterances that will have been heard to their end when a clear arrives."""
        return [self._with_carried(heard) for heard in self._playback.over_by(now)]

    def deaf_s(self, now: float) -> float:
        """For how long the peer has played nothing of what it was sent."""
        return self._playback.held_s(now)

    def clear(self, now: float) -> Heard:
        """Have the peer forget what it has not played: what it was playing, and how much of that was heard."""
        heard = self._playback.clear(now)
        if self._protocol.clears:
            self._ahead.clear()
            self._shown = self._playback.sent
            self._post(self._protocol.clear())
        return self._with_carried(heard)

    def show(self, out: NDArray[np.int16], now: float) -> None:
        """Fill ``out`` (int16 [160], zeroed) with the frame that the peer plays now; to be called once a tick."""
        played = self._playback.played(now)
        # Half a frame either way is the jitter of the ticks.
        if not self._ahead or played - self._shown < FRAME // 2:
            return
        out[:] = self._ahead.popleft()
        self._shown += FRAME
        while self._ahead and played - self._shown > 2 * FRAME:
            self._ahead.popleft()
            self._shown += FRAME

    # --- from one stream to the next ------------------------------------------------------------------------------

    def leave(self, now: float) -> tuple[list[Heard], Heard]:
        """The stream is gone: utterances that were over but for being heard, and what was sent of the one under way."""
        over = [self._with_carried(heard) for heard in self._playback.finished(now)]
        ended, open_ = self._playback.abandon()
        return over + [self._with_carried(heard) for heard in ended], self._with_carried(open_)

    def carry(self, heard: Heard) -> None:
        """So much of this utterance went over the stream before this one."""
        self._carried = heard

    def _with_carried(self, heard: Heard) -> Heard:
        if heard.utterance < 0 or heard.utterance != self._carried.utterance:
            return heard
        return Heard(heard.utterance, heard.samples + self._carried.samples)
