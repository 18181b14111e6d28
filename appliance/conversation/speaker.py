"""Saying things on one leg: clauses are synthesised just ahead of playout, and what was really heard is known.

The synthesis worker writes into the leg's ring; this class decides where, tells media what to play, and keeps the
text of every stretch of samples. Nothing is synthesised far ahead: a caller who interrupts makes it waste.

An utterance may be *held*: synthesised before it is certain that it is wanted, then released or dropped. What is being
said may be *paused*: media forgets what it was to play, and is told again from the beginning of a word when the sound
turns out to have been nothing. Media knows every stretch that it plays without a pause as a run of its own number.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from appliance.conversation.spoken import SpokenForm, pause_after, pause_before, spoken_form
from appliance.conversation.utterance import Clause, Utterance, quietest
from appliance.conversation.word_times import text_shares
from appliance.engines.client import Answer, EnginePool
from appliance.ipc.messages import Failed, Spoken, Synthesise
from appliance.ipc.rings import RATE_HZ, RING_SAMPLES, AudioRings

logger = logging.getLogger(__name__)

_SAMPLES_PER_CHARACTER: Final = 900
"""Upper bound of what a character takes (0.11 s: slow speech), to reserve room before synthesis."""
_ROOM_MARGIN: Final = RATE_HZ
_POLL_ROOM_S: Final = 0.1
_FIRST_AUDIO_TIMEOUT_S: Final = 4.0
_SYNTHESIS_TIMEOUT_S: Final = 10.0
_FLUSH_TIMEOUT_S: Final = 1.0
_LAG_S: Final = 1.0
"""Playout is not further behind than this of what the time since it went on would let it have played."""
_ATTEMPTS: Final = 2


class Playback(Protocol):
    """What the speaker needs of a media leg."""

    @property
    def slot(self) -> int: ...
    @property
    def generation(self) -> int: ...
    def play(self, utterance: int, tts_start: int, tts_end: int, last: bool) -> None: ...
    def flush(self) -> None: ...


class Speech(Protocol):
    """What somebody else puts into the synthesis ring; see :class:`~appliance.conversation.conversing.SpokenReply`."""

    @property
    def text(self) -> str: ...
    @property
    def end(self) -> int: ...
    @property
    def over(self) -> bool: ...
    @property
    def changed(self) -> asyncio.Event: ...
    def place(self, utterance: Utterance, clause: Clause) -> None: ...
    def give_room(self, start: int, end: int) -> None: ...
    def stop(self) -> None: ...


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


class Speaker:
    """Everything one leg says, one utterance after the other.

    Args:
        playback: the media leg.
        rings: to know how far media has read the synthesis ring.
        tts: the synthesis workers.
        voice: how to speak.
        now: CLOCK_MONOTONIC.
        on_over: called when an utterance has been played to its end (not when it was stopped).

    Attributes:
        pace: factor on the voice's rate, as the caller wants it.
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
        self.pace = 1.0
        self._position = 0
        self._numbers = 0
        self._queue: deque[tuple[Utterance, str | Speech]] = deque()
        self._wake = asyncio.Event()
        self._live: dict[int, Utterance] = {}
        self._run_numbers = 0
        self._runs: dict[int, Utterance] = {}
        self._held: Utterance | None = None
        self._paused = False
        self._resuming = False
        self._resumed: tuple[int, int] | None = None
        """Where playout goes on from, and how far it had been asked to go: media's count is right again beyond that."""
        self._resumed_at: float | None = None
        self._flushed: asyncio.Future[None] | None = None
        self._answers: asyncio.Queue[Answer] | None = None
        self._running: tuple[Utterance, int] | None = None
        self._task: asyncio.Task[None] | None = asyncio.create_task(self._run())

    def become(self, tts: EnginePool, voice: Voice, on_over: Callable[[Utterance], None]) -> None:
        """Say what comes next in another voice. What was said before has been said, or :meth:`stop` has been called."""
        self._tts, self._voice, self._on_over = tts, voice, on_over
        self.pace = 1.0

    @property
    def speaking(self) -> bool:
        """Something is being said, or about to be; also while it is paused."""
        return bool(self._live)

    @property
    def paused(self) -> bool:
        return self._paused

    @property
    def dry_at(self) -> int | None:
        """The position at which playout waits for more of the reply; None where there is more to play."""
        idle = self._live and not self._wake.is_set() and not self._paused
        played = int(self._rings.tts_played[self._playback.slot])
        return self._position if idle and played >= self._position else None

    @property
    def interruptible(self) -> bool:
        return all(utterance.interruptible for utterance in self._live.values())

    def begin(self, *, interruptible: bool = True, filler: bool = False, held: bool = False) -> Utterance:
        """A new utterance whose clauses come one by one: :meth:`add` them, then :meth:`finish`.

        A held one is followed by no other until it has been released or dropped, and nothing may be live before it.
        """
        self._numbers += 1
        utterance = Utterance(self._numbers, interruptible, filler, held, asked_at=self._now(), end=self._position)
        if held:
            assert not self._live and self._held is None
            self._held = utterance
        else:
            self._make_live(utterance)
        return utterance

    def add(self, utterance: Utterance, clause: str) -> None:
        """Say ``clause`` next; ignored where the utterance has been stopped."""
        if self._wanted(utterance) and clause:
            self._queue.append((utterance, clause))
            self._wake.set()

    def follow(self, utterance: Utterance, speech: Speech) -> None:
        """Say next what somebody else speaks; ignored where the utterance has been stopped."""
        if self._wanted(utterance):
            self._queue.append((utterance, speech))
            self._wake.set()
        else:
            speech.stop()

    def finish(self, utterance: Utterance) -> None:
        """No clause follows."""
        if not utterance.complete:
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

    def release(self, utterance: Utterance) -> None:
        """It is certain that the held utterance is wanted: play what there is of it."""
        assert self._held is utterance
        self._held = None
        utterance.held = False
        self._make_live(utterance)
        self._play(utterance, utterance.start, utterance.end)

    def drop(self, utterance: Utterance) -> float:
        """The held utterance is not wanted. Returns the seconds of speech that were synthesised for nothing."""
        assert self._held is utterance
        self._held = None
        utterance.over = True
        wasted_s = (utterance.end - utterance.start) / RATE_HZ
        self._position = utterance.start
        self._queue = deque(item for item in self._queue if item[0] is not utterance)
        if self._running is not None and self._running[0] is utterance:
            self._tts.cancel(self._running[1])
            assert self._answers is not None
            self._answers.put_nowait(Failed(self._running[1], "not wanted", False))
        return wasted_s

    def pause(self) -> None:
        """Be silent now, and remember where; :meth:`resume` or :meth:`stop` follows."""
        self._resuming = False
        stopping = self._task is None
        if self._live and not self._paused and not stopping:
            self._paused = True
            self._flush()

    def resume(self) -> None:
        """Go on from the beginning of the word that was cut off."""
        if not self._paused or self._resuming:
            return
        self._resuming = True
        if self._flushed is not None and not self._flushed.done():
            self._flushed.add_done_callback(lambda _: self._go_on())
        else:
            self._go_on()

    async def stop(self) -> None:
        """Be silent now. Utterances that were not over know afterwards how much of them was heard."""
        self._queue.clear()
        self._resuming = False
        await self._end_synthesis()
        if self._live and not self._paused:
            self._flush()
        elif self._paused:
            self._skip()
        if self._flushed is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FLUSH_TIMEOUT_S):
                    await asyncio.shield(self._flushed)
            self._flushed = None
        self._paused = False
        for utterance in self._live.values():
            utterance.over = True
        self._live.clear()
        self._runs.clear()
        self._resumed = None
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """The call is over."""
        self._queue.clear()
        self._resuming = False
        await self._end_synthesis()

    async def _end_synthesis(self) -> None:
        """Stop asking for speech. The task is dropped: its CancelledError holds the frames of :meth:`_run`, which hold
        this speaker, and such a ring is freed only when the collector comes by."""
        if self._running is not None:
            self._tts.cancel(self._running[1])
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    # --- what media plays -----------------------------------------------------------------------------------------

    def _wanted(self, utterance: Utterance) -> bool:
        return utterance.number in self._live or self._held is utterance

    def _make_live(self, utterance: Utterance) -> None:
        utterance.released_at = self._now()
        self._live[utterance.number] = utterance
        self._begin_run(utterance)

    def _begin_run(self, utterance: Utterance) -> None:
        self._runs = {number: other for number, other in self._runs.items() if other is not utterance}
        self._run_numbers += 1
        self._runs[self._run_numbers] = utterance

    def _run_of(self, utterance: Utterance) -> int:
        return next(number for number, other in self._runs.items() if other is utterance)

    def _play(self, utterance: Utterance, start: int, end: int) -> None:
        """Have media play [start, end), and know where that is the last of it. Not while all is quiet on purpose."""
        if utterance.held or self._paused or utterance.number not in self._live:
            return
        if end > start or utterance.synthesised:
            self._playback.play(self._run_of(utterance), start, end, utterance.synthesised)

    def _flush(self) -> None:
        self._flushed = asyncio.get_running_loop().create_future()
        self._playback.flush()

    def _skip(self) -> None:
        """Nobody wants what was synthesised in the pause: media, which was told of none of it, is to be past it."""
        self._run_numbers += 1
        self._playback.play(self._run_numbers, self._position, self._position, True)

    def _go_on(self) -> None:
        if not (self._paused and self._resuming):
            return
        self._paused = self._resuming = False
        self._flushed = None
        for utterance in list(self._live.values()):
            at = utterance.start
            if utterance.played > 0:
                reached = utterance.start + utterance.played
                ring = self._rings.tts[self._playback.slot]
                at = quietest(ring, utterance.start, utterance.word_at(reached), reached)
                utterance.pauses += 1
            if self._resumed is None or at < self._resumed[0]:
                self._resumed = (at, int(self._rings.tts_played[self._playback.slot]))
            self._resumed_at = self._now()
            utterance.base = at - utterance.start
            self._begin_run(utterance)
            self._play(utterance, at, utterance.end)

    # --- what media says ------------------------------------------------------------------------------------------

    def on_playout_started(self, number: int, frame: int, at: float) -> None:
        utterance = self._runs.get(number)
        if utterance is not None and utterance.started_at is None:
            utterance.started_at = at
            utterance.started_frame = frame

    def on_playout_done(self, number: int, played: int) -> None:
        utterance = self._runs.pop(number, None)
        if utterance is None or self._live.pop(utterance.number, None) is None:
            return
        utterance.played = utterance.base + played
        utterance.over = True
        if not self._live:
            self._paused = self._resuming = False
        self._on_over(utterance)

    def on_flushed(self, number: int, played: int) -> None:
        utterance = self._runs.get(number)
        if utterance is not None and utterance.number in self._live:
            utterance.played = utterance.base + played
        if self._paused and self._live:
            first = next(iter(self._live.values()))
            at = first.word_at(first.start + first.played) - RATE_HZ
            self._resumed = (max(at, first.start), int(self._rings.tts_played[self._playback.slot]))
            self._resumed_at = None
        if self._flushed is not None and not self._flushed.done():
            self._flushed.set_result(None)

    # --- synthesis ------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            while not self._queue:
                self._wake.clear()
                await self._wake.wait()
            utterance, text = self._queue.popleft()
            if not self._wanted(utterance):
                continue
            if not isinstance(text, str):
                await self._follow(utterance, text)
            elif text:
                await self._synthesise(utterance, text)
            else:
                utterance.synthesised = True
                self._play(utterance, utterance.end, utterance.end)

    async def _synthesise(self, utterance: Utterance, text: str) -> None:
        """Put one clause into the ring and queue it for playout as it comes."""
        form = self._voice.spoken_form(text)
        room = min(_ROOM_MARGIN + len(form.text) * _SAMPLES_PER_CHARACTER, RING_SAMPLES - _ROOM_MARGIN)
        while self._free() < room:  # noqa: ASYNC110 - another process reads the ring
            await asyncio.sleep(_POLL_ROOM_S)
        if not self._wanted(utterance):
            return
        if not utterance.clauses:
            utterance.end = self._position
        pause_s = max(utterance.pause_s, pause_before(text)) if utterance.clauses else 0.0
        clause = Clause(text.strip(), form, pause_s, self._position, self._position)
        utterance.clauses.append(clause)
        utterance.pause_s = pause_after(text)
        for attempt in range(1, _ATTEMPTS + 1):
            problem = await self._attempt(utterance, clause, room)
            if problem is None or not self._wanted(utterance):
                return
            logger.warning("%d characters were not synthesised (attempt %d): %s", len(text), attempt, problem.reason)
            if not problem.retryable:
                break
        utterance.failed = problem.reason if problem is not None else ""

    async def _follow(self, utterance: Utterance, speech: Speech) -> None:
        """Give speech of somebody else's its place in the ring, and queue it for playout as it comes."""
        if not utterance.clauses:
            utterance.end = self._position
        start = given = self._position
        clause = Clause("", self._voice.spoken_form(""), 0.0, start, start)
        utterance.clauses.append(clause)
        utterance.pause_s = 0.0
        speech.place(utterance, clause)
        try:
            while True:
                speech.changed.clear()
                if speech.text != clause.text:
                    clause.text, clause.form = speech.text, self._voice.spoken_form(speech.text)
                if speech.end > clause.end:
                    if utterance.first_audio_at is None:
                        utterance.first_audio_at = self._now()
                    new, self._position = clause.end, speech.end
                    clause.end = utterance.end = speech.end
                    self._play(utterance, new, clause.end)
                if speech.over or not self._wanted(utterance):
                    break
                room = self._position + self._free() - _ROOM_MARGIN
                if room - given >= _ROOM_MARGIN:
                    given = room
                    speech.give_room(start, given)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_POLL_ROOM_S):
                        await speech.changed.wait()
            clause.shares = text_shares(self._ring(clause.speech, clause.end), clause.form.text)
        finally:
            if not speech.over:
                speech.stop()

    async def _attempt(self, utterance: Utterance, clause: Clause, room: int) -> Failed | None:
        """One request. A repeated one writes the same samples again, so playout goes on where it stopped."""
        answers = self._answers = asyncio.Queue[Answer]()
        number = self._tts.number()
        self._running = (utterance, number)
        request = Synthesise(
            number,
            self._playback.slot,
            self._playback.generation,
            clause.form.text,
            self._voice.language,
            self._voice.name,
            self._voice.rate * self.pace,
            clause.start,
            room,
            clause.pause_s,
            urgent=utterance.first_audio_at is None,
        )
        self._tts.ask(request, answers.put_nowait)
        limit_s = _FIRST_AUDIO_TIMEOUT_S
        try:
            while True:
                async with asyncio.timeout(limit_s):
                    answer = await answers.get()
                if isinstance(answer, Failed):
                    return answer
                if not self._wanted(utterance):
                    return None
                assert isinstance(answer, Spoken)
                limit_s = _SYNTHESIS_TIMEOUT_S
                if answer.tts_end > clause.end:
                    if utterance.first_audio_at is None:
                        utterance.first_audio_at = self._now()
                    start, self._position = clause.end, answer.tts_end
                    clause.end = utterance.end = answer.tts_end
                    self._play(utterance, start, answer.tts_end)
                if answer.last:
                    clause.shares = text_shares(self._ring(clause.speech, clause.end), clause.form.text)
                    return None
        except TimeoutError:
            return Failed(number, f"no speech within {limit_s:.0f} s", True)
        finally:
            self._tts.cancel(number)
            self._running = self._answers = None

    def _ring(self, start: int, end: int) -> NDArray[np.int16]:
        """A copy of what was synthesised into [start, end)."""
        ring = self._rings.tts[self._playback.slot]
        first, count = start % len(ring), max(0, min(end - start, len(ring)))
        return np.concatenate([ring[first : first + count], ring[: max(0, first + count - len(ring))]])

    def _free(self) -> int:
        """Samples of the ring that nobody is going to hear any more."""
        if self._paused and self._flushed is not None and not self._flushed.done():
            return 0  # media has dropped what it was to play, and it is not known yet from where it is wanted again
        played = int(self._rings.tts_played[self._playback.slot])
        if self._resumed is not None:
            resumed_from, asked_to = self._resumed
            if played > asked_to or not self._live:
                self._resumed = None
            elif self._resumed_at is None:
                played = resumed_from
            else:
                since_s = max(0.0, self._now() - self._resumed_at - _LAG_S)
                played = min(played, resumed_from + int(since_s * RATE_HZ))
        return RING_SAMPLES - (self._position - played)
