"""A caller who can be scripted: dials, listens, waits for its turn, speaks, presses keys, hangs up.

``appliance call`` and ``appliance demo`` put one on the command line, the tests and benchmarks drive many. It knows
SIP only as a :class:`Dialler`, and times everything by what left and arrived at its own RTP socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import wave
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import soxr
from numpy.typing import NDArray

from appliance.cli.rtp_stream import RATE_HZ, SPEECH_DBFS, Arrival, Codecs, Pcm, RtpStream, Ticker, speech_segments
from appliance.errors import ApplianceError

T = TypeVar("T")

DIAL_TIMEOUT_S = 15.0
QUIET_S = 0.6


class CallFailed(ApplianceError):
    """The call was refused or not answered.

    ``status`` is the final SIP response, 408 when there was none, 0 when the call could not even be tried.
    """

    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        super().__init__(f"the call was not answered: {status} {reason}" if status else reason)


class CallOver(ApplianceError):
    """The other side hung up while the script still had something to do."""


class NothingHeard(ApplianceError):
    """What was waited for did not happen in time."""


@dataclass(frozen=True)
class Answered:
    """What the answer said: where the audio goes, and in what."""

    remote: tuple[str, int]
    codecs: Codecs


class OutgoingCall(Protocol):
    """A call that has been answered."""

    answer: Answered
    ended: asyncio.Future[str]
    """Done when the call is over; says who ended it: ``"them"``, ``"us"`` or what went wrong."""

    async def hangup(self) -> None:
        """Send BYE and wait until it has been answered."""


class Dialler(Protocol):
    """Whoever can place a call for the softphone."""

    async def dial(self, uri: str, rtp: tuple[str, int], timeout_s: float) -> OutgoingCall:
        """Call ``uri``, offering PCMU, PCMA and telephone-event at ``rtp``.

        Raises:
            CallFailed: refused, or not answered within ``timeout_s``.
        """


@dataclass(frozen=True)
class Turn:
    """One exchange. Times are CLOCK_REALTIME; ``latency_s`` runs from speech end to the reply's first packet."""

    speech_end: float
    reply_at: float

    @property
    def latency_s(self) -> float:
        return self.reply_at - self.speech_end


class Softphone:
    """One call.

    Args:
        dialler: places the call; may be shared by many softphones.
        host: address that audio is received on.
        ticker: the sending clock, shared by many softphones of one process; its own when None.
        keep_audio: keep what was heard for :meth:`received` and :meth:`save`.
    """

    def __init__(
        self, dialler: Dialler, host: str = "127.0.0.1", *, ticker: Ticker | None = None, keep_audio: bool = True
    ) -> None:
        self._dialler = dialler
        self.rtp = RtpStream(host, ticker=ticker, keep_audio=keep_audio)
        self._call: OutgoingCall | None = None
        self._changed = asyncio.Event()
        self.dialled_at = 0.0
        self.answered_at = 0.0
        self.rtp.on_arrival(self._arrived)

    async def __aenter__(self) -> Softphone:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.hangup()

    async def dial(self, uri: str, timeout_s: float = DIAL_TIMEOUT_S) -> None:
        """Call and wait for the answer.

        Raises:
            CallFailed: refused, or not answered in time.
        """
        self.dialled_at = time.time()
        self._call = await self._dialler.dial(uri, (self.rtp.host, self.rtp.port), timeout_s)
        self.answered_at = time.time()
        self.rtp.start(self._call.answer.remote, self._call.answer.codecs)

    @property
    def ended(self) -> bool:
        return self._call is not None and self._call.ended.done()

    async def play(self, pcm: Pcm, speech_end: int | None = None) -> float:
        """Say ``pcm`` (int16, 8 kHz) in real time; returns when the packet with the end of its speech left.

        ``speech_end`` is that end in samples, where a label knows it; found by level when None.

        Raises:
            CallOver: the other side hung up first.
        """
        return await self._while_up(self.rtp.play(pcm, speech_end))

    def send_digits(self, digits: str) -> None:
        """Press keys, one after the other (RFC 4733)."""
        self.rtp.send_digits(digits)

    async def wait_agent_speech(self, timeout_s: float, since: float | None = None) -> float:
        """Wait until the agent is heard; returns the kernel time of the first packet with sound after ``since``.

        ``since`` (CLOCK_REALTIME) is now when None.

        Raises:
            NothingHeard: not within ``timeout_s``.
            CallOver: the other side hung up first.
        """
        after = time.time() if since is None else since

        async def heard() -> float:
            while True:
                if self.rtp.last_speech_at > after:
                    for arrival in reversed(self.rtp.arrivals):
                        if arrival.at <= after:
                            break
                        if arrival.level_dbfs > SPEECH_DBFS:
                            first = arrival.at
                    return first
                self._changed.clear()
                await self._changed.wait()

        return await self._in_time(heard(), timeout_s, "the agent said nothing")

    async def wait_agent_silent(self, timeout_s: float = 30.0, quiet_s: float = QUIET_S) -> None:
        """Wait until the agent has spoken and then been silent for ``quiet_s``.

        Raises:
            NothingHeard: it never spoke, or never stopped, within ``timeout_s``.
            CallOver: the other side hung up first.
        """

        async def silent() -> None:
            while not self.rtp.last_speech_at or time.time() - self.rtp.last_speech_at < quiet_s:
                self._changed.clear()
                await self._changed.wait()

        await self._in_time(silent(), timeout_s, "the agent did not come to an end")

    async def wait_reply(self, speech_end: float, timeout_s: float = 15.0) -> Turn:
        """Wait for the agent's reply to speech that ended at ``speech_end``.

        Raises:
            NothingHeard: no reply in time.
            CallOver: the other side hung up first.
        """
        return Turn(speech_end, await self.wait_agent_speech(timeout_s, since=speech_end))

    async def wait_hangup(self, timeout_s: float) -> str:
        """Wait until the call is over; says by whom.

        Raises:
            NothingHeard: it is still going on after ``timeout_s``.
        """
        if self._call is None:
            return "never answered"
        try:
            return await asyncio.wait_for(asyncio.shield(self._call.ended), timeout_s)
        except TimeoutError:
            raise NothingHeard(f"the other side did not hang up within {timeout_s:.1f} s") from None

    async def hangup(self) -> None:
        """End the call, if it is not over, and close the audio."""
        try:
            if self._call is not None and not self._call.ended.done():
                await self._call.hangup()
        finally:
            self.rtp.close()

    def received(self) -> Pcm:
        """All that was heard, int16 at 8 kHz, from the first packet on."""
        return self.rtp.received()

    def heard(self) -> list[tuple[float, float]]:
        """(start, end) of each stretch of agent speech, in seconds since the answer."""
        return [(start - self.answered_at, end - self.answered_at) for start, end in speech_segments(self.rtp.arrivals)]

    def save(self, path: Path) -> None:
        """Write what was heard as a mono 8 kHz WAV."""
        write_wav(path, self.received())

    def _arrived(self, _: Arrival) -> None:
        self._changed.set()

    async def _in_time(self, waiting: Awaitable[T], timeout_s: float, otherwise: str) -> T:
        try:
            return await asyncio.wait_for(self._while_up(waiting), timeout_s)
        except TimeoutError:
            raise NothingHeard(f"{otherwise} within {timeout_s:.1f} s") from None

    async def _while_up(self, doing: Awaitable[T]) -> T:
        if self._call is None:
            raise CallOver("the call has not been answered")
        task = asyncio.ensure_future(doing)
        try:
            both: list[asyncio.Future[Any]] = [task, self._call.ended]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise CallOver("the other side hung up")
            return task.result()
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, ApplianceError):
                await task


def read_wav(path: Path) -> Pcm:
    """A WAV of 16-bit samples, any rate and number of channels, as mono int16 at 8 kHz.

    Raises:
        ApplianceError: not such a file.
    """
    try:
        with wave.open(str(path)) as file:
            if file.getsampwidth() != 2:
                raise ApplianceError(f"{path}: has {8 * file.getsampwidth()}-bit samples; convert it to 16 bits")
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, file.getnchannels())
            rate = file.getframerate()
    except (OSError, EOFError, wave.Error) as error:
        raise ApplianceError(f"{path}: is not a WAV file that can be read: {error}") from error
    mono: NDArray[np.float32] = samples.astype(np.float32).mean(axis=1)
    if rate != RATE_HZ:
        mono = soxr.resample(mono, rate, RATE_HZ)
    pcm: Pcm = np.clip(np.round(mono), -32768, 32767).astype(np.int16)
    return pcm


def write_wav(path: Path, pcm: Pcm) -> None:
    """Write mono int16 at 8 kHz."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(pcm.astype("<i2").tobytes())
