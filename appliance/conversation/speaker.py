"""Saying things on one leg: clauses are synthesised just ahead of playout, and what was really heard is known.

The synthesis worker writes into the leg's ring; this class decides where, tells media what to play, and keeps the
text of every stretch of samples. Nothing is synthesised far ahead: a caller who interrupts makes it waste.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from appliance.conversation.spoken import SpokenForm, pause_after, spoken_form
from appliance.engines.client import Answer, EnginePool
from appliance.ipc.messages import Failed, Spoken, Synthesise
from appliance.ipc.rings import RATE_HZ, RING_SAMPLES, AudioRings

logger = logging.getLogger(__name__)

_SAMPLES_PER_CHARACTER: Final = 900
"""Upper bound of what a character takes (0.11 s: slow speech), to reserve room before synthesis."""
_ROOM_MARGIN: Final = RATE_HZ
_POLL_ROOM_S: Final = 0.1
_SYNTHESIS_TIMEOUT_S: Final = 10.0
_FLUSH_TIMEOUT_S: Final = 1.0
_ATTEMPTS: Final = 3


class Playback(Protocol):
    """What the speaker needs of a media leg."""

    @property
    def slot(self) -> int: ...
    @property
    def generation(self) -> int: ...
    def play(self, utterance: int, tts_start: int, tts_end: int, last: bool) -> None: ...
    def flush(self) -> None: ...


@dataclass(frozen=True)
class Voice:
    """How a line speaks. ``rate`` 1.0 is the voice's normal speed; ``lexicon`` is word to respelling."""

    language: str = "en"
    name: str = ""
    rate: float = 1.0
    lexicon: Mapping[str, str] = field(default_factory=dict)

    def spoken_form(self, text: str) -> SpokenForm:
        """What this voice is given to say for ``text``."""
        return spoken_form(text, self.language, self.lexicon)


@dataclass
class _Clause:
    """``form`` is said in the samples [``speech``, ``end``); silence stands from ``start`` to there."""

    text: str
    form: SpokenForm
    pause_s: float
    start: int
    end: int

    @property
    def speech(self) -> int:
        return self.start + round(self.pause_s * RATE_HZ)


@dataclass
class Utterance:
    """One reply. Times are CLOCK_MONOTONIC seconds, None until it happened."""

    number: int
    interruptible: bool = True
    clauses: list[_Clause] = field(default_factory=list)
    complete: bool = False
    asked_at: float | None = None
    first_audio_at: float | None = None
    started_at: float | None = None
    started_frame: int | None = None
    played: int = 0
    over: bool = False
    failed: str = ""
    pause_s: float = 0.0
    """Silence that is due before the next clause."""

    @property
    def text(self) -> str:
        return " ".join(clause.text for clause in self.clauses)

    @property
    def heard(self) -> str:
        """The words that left before playout stopped: whole clauses, and of the last one its share of the words."""
        words: list[str] = []
        for clause in self.clauses:
            length = clause.end - clause.speech
            spoken = min(max(self.played - (clause.speech - self.clauses[0].start), 0), length)
            if length > 0 and spoken > 0:
                words.append(clause.form.heard(spoken / length))
        return " ".join(word for word in words if word)


class Speaker:
    """Everything one leg says, one utterance after the other.

    Args:
        playback: the media leg.
        rings: to know how far media has read the synthesis ring.
        tts: the synthesis workers.
        voice: how to speak.
        now: CLOCK_MONOTONIC.
        on_over: called when an utterance has been played to its end (not when it was stopped).
    """

    def __init__(
        self,
        playback: Playback,
        rings: AudioRings,
        tts: EnginePool,
        voice: Voice,
        now: Callable[[], float],
        on_over: Callable[[Utterance], None],
    ) -> None:
        self._playback = playback
        self._rings = rings
        self._tts = tts
        self._voice = voice
        self._now = now
        self._on_over = on_over
        self._position = 0
        self._numbers = 0
        self._queue: deque[tuple[Utterance, str]] = deque()
        self._wake = asyncio.Event()
        self._live: dict[int, Utterance] = {}
        self._flushed: asyncio.Future[None] | None = None
        self._running_request: int | None = None
        self._task: asyncio.Task[None] | None = asyncio.create_task(self._run())

    @property
    def speaking(self) -> bool:
        """Something is being said, or about to be."""
        return bool(self._live)

    @property
    def interruptible(self) -> bool:
        return all(utterance.interruptible for utterance in self._live.values())

    def begin(self, *, interruptible: bool = True) -> Utterance:
        """A new utterance whose clauses come one by one: :meth:`add` them, then :meth:`finish`."""
        self._numbers += 1
        utterance = Utterance(self._numbers, interruptible, asked_at=self._now())
        self._live[utterance.number] = utterance
        return utterance

    def add(self, utterance: Utterance, clause: str) -> None:
        """Say ``clause`` next; ignored where the utterance has been stopped."""
        if utterance.number in self._live and clause:
            self._queue.append((utterance, clause))
            self._wake.set()

    def finish(self, utterance: Utterance) -> None:
        """No clause follows."""
        utterance.complete = True
        self._queue.append((utterance, ""))
        self._wake.set()

    def say(self, clauses: list[str], *, interruptible: bool = True) -> Utterance:
        """Say all of it."""
        utterance = self.begin(interruptible=interruptible)
        for clause in clauses:
            self.add(utterance, clause)
        self.finish(utterance)
        return utterance

    async def stop(self) -> None:
        """Be silent now. Utterances that were not over know afterwards how much of them was heard."""
        self._queue.clear()
        await self._end_synthesis()
        if self._live:
            self._flushed = asyncio.get_running_loop().create_future()
            self._playback.flush()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FLUSH_TIMEOUT_S):
                    await self._flushed
            self._flushed = None
        for utterance in self._live.values():
            utterance.over = True
        self._live.clear()
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """The call is over."""
        self._queue.clear()
        await self._end_synthesis()

    async def _end_synthesis(self) -> None:
        """Stop asking for speech. The task is dropped: its CancelledError holds the frames of :meth:`_run`, which hold
        this speaker, and such a ring is freed only when the collector comes by."""
        if self._running_request is not None:
            self._tts.cancel(self._running_request)
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    # --- what media says ------------------------------------------------------------------------------------------

    def on_playout_started(self, number: int, frame: int, at: float) -> None:
        utterance = self._live.get(number)
        if utterance is not None and utterance.started_at is None:
            utterance.started_at = at
            utterance.started_frame = frame

    def on_playout_done(self, number: int, played: int) -> None:
        utterance = self._live.pop(number, None)
        if utterance is not None:
            utterance.played = played
            utterance.over = True
            self._on_over(utterance)

    def on_flushed(self, number: int, played: int) -> None:
        utterance = self._live.get(number)
        if utterance is not None:
            utterance.played = played
        if self._flushed is not None and not self._flushed.done():
            self._flushed.set_result(None)

    # --- synthesis ------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            while not self._queue:
                self._wake.clear()
                await self._wake.wait()
            utterance, text = self._queue.popleft()
            if text:
                await self._synthesise(utterance, text)
            else:
                self._playback.play(utterance.number, self._position, self._position, True)

    async def _synthesise(self, utterance: Utterance, text: str) -> None:
        """Put one clause into the ring and queue it for playout as it comes."""
        form = self._voice.spoken_form(text)
        room = min(_ROOM_MARGIN + len(form.text) * _SAMPLES_PER_CHARACTER, RING_SAMPLES - _ROOM_MARGIN)
        while self._free() < room:  # noqa: ASYNC110 - another process reads the ring
            await asyncio.sleep(_POLL_ROOM_S)
        pause_s = utterance.pause_s
        clause = _Clause(text.strip(), form, pause_s, self._position, self._position)
        utterance.clauses.append(clause)
        utterance.pause_s = pause_after(text)
        for attempt in range(1, _ATTEMPTS + 1):
            problem = await self._attempt(utterance, clause, room)
            if problem is None:
                return
            logger.warning("synthesis of %r failed (attempt %d): %s", text[:40], attempt, problem.reason)
            if not problem.retryable:
                break
        utterance.failed = problem.reason if problem is not None else ""

    async def _attempt(self, utterance: Utterance, clause: _Clause, room: int) -> Failed | None:
        """One request. A repeated one writes the same samples again, so playout goes on where it stopped."""
        answers: asyncio.Queue[Answer] = asyncio.Queue()
        number = self._running_request = self._tts.number()
        request = Synthesise(
            number,
            self._playback.slot,
            self._playback.generation,
            clause.form.text,
            self._voice.language,
            self._voice.name,
            self._voice.rate,
            clause.start,
            room,
            clause.pause_s,
            urgent=utterance.first_audio_at is None,
        )
        self._tts.ask(request, answers.put_nowait)
        try:
            while True:
                async with asyncio.timeout(_SYNTHESIS_TIMEOUT_S):
                    answer = await answers.get()
                if isinstance(answer, Failed):
                    return answer
                assert isinstance(answer, Spoken)
                if answer.tts_end > clause.end:
                    if utterance.first_audio_at is None:
                        utterance.first_audio_at = self._now()
                    self._playback.play(utterance.number, clause.end, answer.tts_end, False)
                    self._position = clause.end = answer.tts_end
                if answer.last:
                    return None
        except TimeoutError:
            return Failed(number, f"no speech within {_SYNTHESIS_TIMEOUT_S:.0f} s", True)
        finally:
            self._tts.cancel(number)
            self._running_request = None

    def _free(self) -> int:
        return RING_SAMPLES - (self._position - int(self._rings.tts_played[self._playback.slot]))
