"""A caller on a carrier's media stream: speaks in real time, plays what it is sent, and keeps what it found.

One :class:`Metronome` beats for all callers of a process. A :class:`CarrierCaller` says what it is given to say and
keeps what it hears in a :class:`Playout`; how its carrier writes things is a subclass (``stream_caller.py`` has
Twilio's). Every message that comes is held to the carrier's published schema; what breaks it is kept in
``violations`` and the stream goes on, as it does at the carrier.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

import numpy as np

from appliance.cli.playout import Codec, Pcm, Playout
from appliance.errors import CarrierError

Message = str | bytes

FRAME_S: Final = 0.02
FRAME_SAMPLES: Final = 160
PHASES: Final = 10
"""Callers speak in turns, 2 ms apart, as independent ones would."""
MAX_VIOLATIONS: Final = 1000
STALL_S: Final = 0.01
"""A clock that is later than this has stood still: everybody is called at once."""
LATE_S: Final = 0.005
"""A clock that is later than this has its lateness noted."""
MAX_STALLS: Final = 10_000
MAX_BUFFER_S: Final = 600.0
"""Twilio throws away what is sent beyond ten minutes (warning 31931)."""
_CATCH_UP: Final = 100
_SPEECH_RANGE: Final = 10 ** (-30 / 20)
"""Speech is what is within 30 dB of the loudest of it."""
_LEAST_SPEECH: Final = 10.0


# --- the clock ----------------------------------------------------------------------------------------------------


class Ticking(Protocol):
    """Whatever wants to be called every 20 ms."""

    def tick(self, now: float) -> None: ...


class Metronome:
    """One task for all callers of an event loop: each is called every 20 ms of an absolute clock."""

    _of_loops: ClassVar[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Metronome]] = weakref.WeakKeyDictionary()

    def __init__(self) -> None:
        self._phases: list[list[Ticking]] = [[] for _ in range(PHASES)]
        self._task: asyncio.Task[None] | None = None
        self.worst_s = 0.0
        """How late a tick has been at worst: what is measured by these callers is no more exact than this."""
        self.stalls: deque[tuple[float, float]] = deque(maxlen=MAX_STALLS)
        """From when to when this process did not run: what came meanwhile was seen late."""

    @classmethod
    def of_loop(cls) -> Metronome:
        """The one of the running event loop."""
        return cls._of_loops.setdefault(asyncio.get_running_loop(), cls())

    def join(self, caller: Ticking) -> None:
        """Call ``caller.tick`` every 20 ms from now on."""
        min(self._phases, key=len).append(caller)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="metronome")

    def leave(self, caller: Ticking) -> None:
        """No longer. Twice does no harm."""
        for phase in self._phases:
            if caller in phase:
                phase.remove(caller)
        if self._task is not None and not any(self._phases):
            self._task.cancel()
            self._task = None

    async def _run(self) -> None:
        began, number, step = time.monotonic(), 0, FRAME_S / PHASES
        while True:
            due = began + number * step
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            now = time.monotonic()
            self.worst_s = max(self.worst_s, now - due)
            if now - due > LATE_S:
                self.stalls.append((due, now))
            if now - due > STALL_S:
                # Everybody at once: one by one, what was late would stay so.
                number += int((now - due) / step)
                waiting = [caller for phase in self._phases for caller in phase]
            else:
                waiting = list(self._phases[number % PHASES])
            for caller in waiting:
                caller.tick(now)
            number += 1
            while not self._phases[number % PHASES] and any(self._phases):
                number += 1


# --- the caller -------------------------------------------------------------------------------------------------------


class Wire(Protocol):
    """A connection that takes messages without waiting."""

    close_code: int | None

    def send(self, message: Message) -> None:
        """Send, or keep it until the peer reads again."""
        ...

    def messages(self) -> AsyncIterator[Message]:
        """What comes, until the peer closes."""
        ...

    async def close(self) -> None:
        """In the orderly way."""
        ...

    def sever(self, within: bytes = b"") -> None:
        """Break the connection without a word, after these bytes of an unfinished message."""
        ...


@dataclass(frozen=True)
class Speech:
    """Something to say, coded once for however many callers.

    ``frames`` are of 20 ms; ``last`` is the index of the last one with speech in it, -1 where there is none. An answer
    is timed from the moment at which that one is sent.
    """

    frames: Sequence[bytes]
    last: int
    loud: Sequence[bool]

    @classmethod
    def of(cls, pcm: Pcm, codec: Codec) -> Speech:
        """From int16 at 8 kHz; the end is filled with silence to whole frames."""
        padded = np.concatenate((pcm.astype(np.int16), np.zeros(-len(pcm) % FRAME_SAMPLES, np.int16)))
        size = codec.rate_hz // 50 * codec.sample_bytes
        coded = codec.encode(padded)
        levels = np.sqrt(np.mean(np.square(padded.reshape(-1, FRAME_SAMPLES).astype(np.float64)), axis=1))
        least = max(levels.max(initial=0.0) * _SPEECH_RANGE, _LEAST_SPEECH)
        loud = (levels >= least).tolist()
        frames = [coded[at : at + size] for at in range(0, len(coded) // size * size, size)]
        last = max((number for number, is_loud in enumerate(loud[: len(frames)]) if is_loud), default=-1)
        return cls(frames, last, loud)


@dataclass
class _Saying:
    speech: Speech
    said: asyncio.Future[float]
    at: int = 0


@dataclass(frozen=True)
class Report:
    """What a caller has found, for benchmarks. Times in seconds."""

    heard_s: float
    gaps: int
    turns_s: tuple[float, ...]
    leads_s: tuple[float, ...]
    violations: tuple[str, ...]

    @property
    def lead_p99_s(self) -> float:
        return float(np.percentile(self.leads_s, 99)) if self.leads_s else 0.0


class CarrierCaller(ABC):
    """A caller on one media stream. Times are of ``time.monotonic``; ``epoch`` added to them gives ``time.time``.

    Attributes:
        playout: what has been heard, and how.
        violations: what the box sent against the protocol, in words; at most 1000.
        frames: messages of audio that were sent.
        ended: set when the stream is over.
        ended_by: "us", "them" (an orderly close by the box) or "lost".
        close_code: of the WebSocket.
    """

    name: str = "carrier"

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.playout = Playout(codec)
        self.violations: list[str] = []
        self.frames = 0
        self.opened_at = 0.0
        self.epoch = time.time() - time.monotonic()
        self.ended = asyncio.Event()
        self.ended_by = ""
        self.close_code: int | None = None
        self.speech_ends: list[float] = []
        self.said: list[tuple[float, float]] = []
        self._silence = codec.silence(codec.rate_hz // 50)
        self._saying: deque[_Saying] = deque()
        self._wire: Wire | None = None
        self._reader: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._mark_timer: asyncio.TimerHandle | None = None
        self._muted = False
        self._unfrozen = asyncio.Event()
        self._unfrozen.set()
        self._held: list[Message] = []
        self._said_from = 0.0
        self._clock: float | None = None

    # What a subclass knows.

    @abstractmethod
    def hello(self) -> list[Message]:
        """What is sent when the connection is there."""

    @abstractmethod
    def audio(self, payload: bytes, number: int) -> list[Message]:
        """20 ms of what the caller says; ``number`` counts from 1."""

    @abstractmethod
    def take(self, message: Message, now: float) -> None:
        """A message of the box. Raises CarrierError where it breaks the schema; that becomes a violation."""

    @abstractmethod
    def key(self, digit: str) -> list[Message]:
        """The caller pressed a key."""

    def marked(self, name: str) -> list[Message]:
        """All before the mark has been played, or was thrown away."""
        return []

    def goodbye(self) -> list[Message]:
        """What is sent before the connection is closed."""
        return []

    # The life of a stream.

    def begin(self, wire: Wire) -> None:
        """The connection is there: speak, and listen."""
        self._wire = wire
        self.opened_at = time.monotonic()
        for message in self.hello():
            self._send(message)
        self._reader = asyncio.create_task(self._read(wire), name=f"{self.name}-caller")
        Metronome.of_loop().join(self)

    def tick(self, now: float) -> None:
        """Send the frames that are due."""
        if self._clock is None:
            self._clock = now - FRAME_S / 2  # so that a tick that is a little early or late finds one frame due
        due = int((now - self._clock) / FRAME_S) + 1
        if due - self.frames > _CATCH_UP:
            # This process was stopped: what it would have said is lost, as on a telephone.
            self.frames = due - 1
        while self.frames < due:
            self._frame(now)

    def _frame(self, now: float) -> None:
        payload = self._silence
        if self._saying and not self._muted:
            saying = self._saying[0]
            if saying.at < len(saying.speech.frames):
                payload = saying.speech.frames[saying.at]
                if saying.at == 0:
                    self._said_from = now
                if saying.speech.loud[saying.at]:
                    self.playout.caller_active(now)
                if saying.at == saying.speech.last:
                    self.speech_ends.append(now)
                    self.playout.caller_finished(now)
                saying.at += 1
            if saying.at >= len(saying.speech.frames):
                self._saying.popleft()
                self.said.append((self._said_from, now))
                if not saying.said.done():
                    saying.said.set_result(now)
        self.frames += 1
        for message in self.audio(payload, self.frames):
            self._send(message)

    async def _read(self, wire: Wire) -> None:
        async for message in wire.messages():
            if not self._unfrozen.is_set():
                await self._unfrozen.wait()
            try:
                self.take(message, time.monotonic())
            except CarrierError as error:
                self.violation(str(error))
            self._news.set()
        self.close_code = wire.close_code
        self._over("lost" if wire.close_code in (None, 1006) else "them")

    def violation(self, what: str) -> None:
        """The box broke the protocol."""
        if len(self.violations) < MAX_VIOLATIONS:
            self.violations.append(what)

    def _send(self, message: Message) -> None:
        if self._wire is None or self.ended.is_set():
            return
        if not self._unfrozen.is_set():
            self._held.append(message)
            return
        self._wire.send(message)

    def _over(self, by: str) -> None:
        if self.ended.is_set():
            return
        self.ended_by = by
        Metronome.of_loop().leave(self)
        self.playout.clear(time.monotonic())
        if self._mark_timer is not None:
            self._mark_timer.cancel()
        for saying in self._saying:
            saying.said.cancel()
        self._saying.clear()
        self.ended.set()
        self._news.set()

    # What the subclasses' `take` does with what came.

    def heard_audio(self, payload: bytes, now: float) -> None:
        """Audio to be played."""
        if len(payload) % self.codec.sample_bytes:
            raise CarrierError(f"{len(payload)} bytes of audio are no whole samples")
        if self.playout.end - now > MAX_BUFFER_S:
            raise CarrierError("more than ten minutes of audio are waiting to be played")
        self.playout.receive(payload, now)

    def heard_mark(self, name: str, now: float) -> None:
        """To be answered when everything before it has been played."""
        if self.playout.mark(name, now) <= now:
            self._answer_marks()
        elif self._mark_timer is None:
            self._set_mark_timer()

    def heard_clear(self, now: float) -> None:
        """Throw everything away, and answer what marks there are."""
        for name in self.playout.clear(now):
            for message in self.marked(name):
                self._send(message)
        if self._mark_timer is not None:
            self._mark_timer.cancel()
            self._mark_timer = None

    def _set_mark_timer(self) -> None:
        due = self.playout.marks_due[0][0]
        wait_s = max(0.0, due - time.monotonic()) + 0.0005
        self._mark_timer = asyncio.get_running_loop().call_later(wait_s, self._answer_marks)

    def _answer_marks(self) -> None:
        if self._mark_timer is not None:
            self._mark_timer.cancel()
        self._mark_timer = None
        for name in self.playout.passed(time.monotonic()):
            for message in self.marked(name):
                self._send(message)
        if self.playout.marks_due:
            self._set_mark_timer()

    # What a test or a benchmark asks for.

    def say(self, what: Pcm | Speech) -> asyncio.Future[float]:
        """Say something, behind what is being said; the future gives the time at which all of it has been sent."""
        speech = what if isinstance(what, Speech) else Speech.of(what, self.codec)
        said: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        if self.ended.is_set():
            said.cancel()
        else:
            self._saying.append(_Saying(speech, said))
        return said

    def hush(self) -> None:
        """Break off."""
        for saying in self._saying:
            saying.said.cancel()
        self._saying.clear()

    def press(self, digits: str) -> None:
        """Press keys, one after the other."""
        for digit in digits:
            self.playout.caller_active(time.monotonic())
            for message in self.key(digit):
                self._send(message)

    async def wait_heard(self, after: float | None = None, timeout_s: float = 10.0) -> float:
        """Wait until a sound is played that starts after ``after`` (default: now); gives when it did.

        Raises:
            CarrierError: nothing was, in time, or the stream ended.
        """
        since = time.monotonic() if after is None else after
        deadline = time.monotonic() + timeout_s
        while True:
            first = None
            for piece in reversed(self.playout.pieces):
                if piece.start < since:
                    break
                first = piece.start if piece.loud else first
            if first is None:
                await self._wait_news(deadline, "nothing was heard")
            elif first <= time.monotonic():
                return first
            else:  # a clear may come before it is played
                await asyncio.sleep(min(first, deadline) - time.monotonic())
                if first > deadline:
                    raise CarrierError(f"{self.name}: nothing was heard in time")

    async def wait_quiet(self, quiet_s: float = 0.6, timeout_s: float = 30.0) -> float:
        """Wait until nothing has been played for ``quiet_s``; gives when the last of it was played.

        Raises:
            CarrierError: it goes on.
        """
        began = time.monotonic()
        deadline = began + timeout_s
        while True:
            end = max(self.playout.end, began)
            left = end + quiet_s - time.monotonic()
            if left <= 0 or self.ended.is_set():
                return end
            if time.monotonic() > deadline:
                raise CarrierError(f"{self.name}: still being spoken to after {timeout_s:.0f} s")
            await asyncio.sleep(min(left, 0.1))

    async def wait_ended(self, timeout_s: float = 10.0) -> str:
        """Wait until the stream is over; says by whom.

        Raises:
            CarrierError: it is not.
        """
        try:
            await asyncio.wait_for(self.ended.wait(), timeout_s)
        except TimeoutError:
            raise CarrierError(f"{self.name}: the stream goes on after {timeout_s:.0f} s") from None
        return self.ended_by

    async def _wait_news(self, deadline: float, what: str) -> None:
        if self.ended.is_set():
            raise CarrierError(f"{self.name}: {what} before the stream ended")
        left = deadline - time.monotonic()
        self._news.clear()
        try:
            await asyncio.wait_for(self._news.wait(), max(0.0, left))
        except TimeoutError:
            raise CarrierError(f"{self.name}: {what} in time") from None

    async def freeze(self, seconds: float) -> None:
        """Neither read nor write for so long, then go on with what was not sent: a network that stands still."""
        self._unfrozen.clear()
        await asyncio.sleep(seconds)
        self._unfrozen.set()
        held, self._held = self._held, []
        for message in held:
            self._send(message)

    def sever(self, within: bytes = b"") -> None:
        """Break the connection without a goodbye; with ``within``, in the middle of a frame that begins so."""
        if self._wire is not None:
            self._wire.sever(within)

    async def hang_up(self) -> None:
        """Say goodbye, close, and let go of everything. Twice does no harm; to be called in any case."""
        self._unfrozen.set()
        if not self.ended.is_set():
            for message in self.goodbye():
                self._send(message)
        self._over("us")
        if self._wire is not None:
            await self._wire.close()
            if self.close_code is None:
                self.close_code = self._wire.close_code
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader
            self._reader = None

    def heard(self, since: float | None = None, until: float | None = None) -> Pcm:
        """What came out of the earpiece, since the stream was opened; int16 at 8 kHz, silence where nothing did."""
        return self.playout.heard(
            self.opened_at if since is None else since, time.monotonic() if until is None else until
        )

    def report(self) -> Report:
        """The figures so far."""
        return Report(
            heard_s=self.playout.played_s(time.monotonic()),
            gaps=len(self.playout.gaps),
            turns_s=tuple(first - end for end, first in self.playout.turns),
            leads_s=tuple(self.playout.leads),
            violations=tuple(self.violations),
        )
