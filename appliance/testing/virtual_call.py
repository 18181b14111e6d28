"""A whole call in virtual time: the real session, dialogue, listening, speaker and flow; only the edges are played.

The edges are the leg (signalling), the media process and the engine workers. Time jumps, so a minute of conversation
takes milliseconds.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np

from appliance.calls.services import Services
from appliance.calls.session import CallSession
from appliance.conversation.budget import VerdictBudget
from appliance.conversation.speculation import SpeculationBudget
from appliance.dialplan.schema import Line
from appliance.errors import EngineError
from appliance.events import CallEnded, CallEvent, CallStarted, TurnFinished
from appliance.ipc.messages import (
    Failed,
    Generate,
    JudgeTurn,
    LegClosed,
    Recognise,
    Recognised,
    Spoken,
    Synthesise,
    Token,
    ToolCall,
    TurnVerdict,
)
from appliance.ipc.rings import FRAME_SAMPLES, RATE_HZ, AudioRings
from appliance.media.playout import Playout
from appliance.plugins.hooks import NO_HOOKS, Hooks
from appliance.signalling.leg import CallInfo, HangupCause

QUIET = (-80.0, 0.02)
LOUD = (-20.0, 0.95)
SPEECH_DBFS, SILENT_DBFS = -20.0, -96.0
SAMPLES_PER_CHARACTER = 480


class VirtualClock:
    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def utc(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.monotonic())


class Leg:
    """Signalling's part: remembers what it was told."""

    needs_rtp = True

    def __init__(self) -> None:
        self.info = CallInfo("leg1", "sip", "local", "100", "200", "Ann", "127.0.0.1:5062", "cid", {})
        self.on_hangup: Callable[[HangupCause], None] | None = None
        self.on_digits: Callable[[str], None] | None = None
        self.on_held: Callable[[bool], None] | None = None
        self.on_transfer: Callable[[Any], None] | None = None
        self.told: list[str] = []

    def ring(self) -> None:
        self.told.append("ring")

    def answer(self, media: Any) -> None:
        self.told.append("answer")

    def reject(self, status: int, reason: str = "", retry_after_s: int | None = None) -> None:
        self.told.append(f"reject {status}")

    def hangup(self, reason: str = "") -> None:
        self.told.append("hangup")


class Media:
    """The media process's part for one leg: a tick every 20 ms, real playout, a caller made of levels."""

    def __init__(self, rings: AudioRings) -> None:
        self.rings = rings
        self.slot, self.generation = 0, 1
        self.local_host, self.local_port = "127.0.0.1", 4000
        self.playout = Playout(rings.tts[0])
        self.caller: deque[tuple[float, float]] = deque()
        self.spoken: list[tuple[int, int]] = []
        self.resumed_at: list[int] = []
        self.task: asyncio.Task[None] | None = None
        self.closed = False
        rings.open(0, 1)

    async def open_leg(self, listener: Any, *, rtp: bool = True, denoise: str = "off") -> Media:
        self.listener = listener
        self.task = asyncio.create_task(self._run())
        return self

    def play(self, utterance: int, tts_start: int, tts_end: int, last: bool) -> None:
        if tts_start < self.playout.position:
            self.resumed_at.append(tts_start)
        self.playout.add(utterance, tts_start, tts_end, last)

    def flush(self) -> None:
        utterance, played = self.playout.flush()
        self.rings.tts_played[0] = self.playout.position
        self.listener.on_flushed(utterance, played, self.frame)

    async def close(self) -> None:
        self.closed = True
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)

    def release(self) -> None:
        assert self.closed

    @property
    def frame(self) -> int:
        return int(self.rings.frames[0])

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        sent = SILENT_DBFS
        while True:
            due += 0.02
            await asyncio.sleep(due - loop.time())
            level, speech = self.caller.popleft() if self.caller else QUIET
            self.rings.frames[0] += 1
            self.listener.on_tick(due, self.frame - 1, level, speech, sent)
            popped = self.playout.pop(np.zeros(FRAME_SAMPLES, np.int16))
            sent = SPEECH_DBFS if popped.filled else SILENT_DBFS
            self.rings.tts_played[0] = self.playout.position
            if popped.started >= 0:
                self.listener.on_playout_started(popped.started, self.frame, due)
            if popped.done >= 0:
                self.listener.on_playout_done(popped.done, popped.done_samples, self.frame)


class Engines:
    """All engine workers: recognition says what the script says, synthesis takes 60 ms a character."""

    def __init__(self, rings: AudioRings) -> None:
        self.rings = rings
        self.numbers = itertools.count(1)
        self.hears: deque[tuple[str, bool]] = deque()
        self.asked: list[Recognise] = []
        self.said: list[str] = []
        self.cancelled: list[int] = []
        self.probability = 0.98
        self.broken: set[str] = set()
        self.tokens: list[str] = []
        self.prompts: list[Generate] = []
        self.partials = False

    def number(self) -> int:
        return next(self.numbers)

    def ask(self, request: Any, on_answer: Callable[[Any], None]) -> None:
        assert isinstance(request, Synthesise)
        if "tts" in self.broken:
            asyncio.get_running_loop().call_soon(on_answer, Failed(request.request, "no voice", True))
            return
        self.said.append(request.text)
        pause = round(request.pause_s * RATE_HZ)
        end = request.tts_start + pause + len(request.text) * SAMPLES_PER_CHARACTER
        answer = Spoken(request.request, end, last=True, cached=False, queued_s=0.0, run_s=0.0)
        asyncio.get_running_loop().call_later(0.01, on_answer, answer)

    def cancel(self, number: int) -> None:
        self.cancelled.append(number)

    async def recognise(self, request: Recognise) -> Recognised:
        self.asked.append(request)
        await asyncio.sleep(0.05)
        if "asr" in self.broken:
            raise EngineError("no ears")
        text, accepted = self.hears[0]
        return Recognised(request.request, text, 0.9, accepted, 0.0, 0.05)

    async def judge_turn(self, request: JudgeTurn) -> TurnVerdict:
        await asyncio.sleep(0.03)
        if "turn" in self.broken:
            raise EngineError("no judge")
        return TurnVerdict(request.request, self.probability, 0.0, 0.03)

    async def generate(self, request: Generate) -> AsyncIterator[Token]:
        self.prompts.append(request)
        await asyncio.sleep(0.15)
        if "llm" in self.broken:
            raise EngineError("no thought")
        for number, token in enumerate(self.tokens, 1):
            await asyncio.sleep(0.015)
            yield Token(request.request, token, number == len(self.tokens))


@dataclass
class Log:
    """The record: every event in order."""

    events: list[CallEvent] = field(default_factory=list)

    def started(self, event: CallStarted) -> asyncio.Future[None]:
        self.events.append(event)
        return asyncio.ensure_future(asyncio.sleep(0.005))

    def say(self, event: CallEvent) -> None:
        self.events.append(event)

    def leg_closed(self, leg: LegClosed) -> None:
        pass

    @property
    def turns(self) -> list[TurnFinished]:
        return [event for event in self.events if isinstance(event, TurnFinished)]

    @property
    def ended(self) -> CallEnded:
        (event,) = [event for event in self.events if isinstance(event, CallEnded)]
        return event


Step = float | str | ToolCall
"""What a model does: it takes seconds, says words, or asks for a tool."""


class VirtualCall:
    """One call on ``line``; use inside ``run_virtual``. ``more`` is what else its ``Services`` have.

    ``make`` makes its session, of a leg, the line and the services.
    """

    def __init__(
        self,
        line: Line,
        *,
        llm: bool = False,
        speech: Any = None,
        transfers: Any = None,
        trunks: Any = None,
        hooks: Hooks = NO_HOOKS,
        records: Any = None,
        make: Callable[[Any, Line, Services], CallSession] = CallSession,
        **more: Any,
    ) -> None:
        self.rings = AudioRings.create(1)
        self.media = Media(self.rings)
        self.engines = Engines(self.rings)
        self.leg = Leg()
        self.leg.info = more.pop("info", self.leg.info)
        self.log = Log()
        engines: Any = self.engines
        media: Any = self.media
        services = Services(
            clock=VirtualClock(),
            rings=self.rings,
            media=media,
            recorder=more.pop("recorder", None),
            log=self.log,
            asr=engines,
            turn=engines,
            verdicts=VerdictBudget(),
            speculation=SpeculationBudget(),
            tts=engines,
            llm=engines if llm else None,
            speech=speech,
            asr_timeout_s=5.0,
            llm_timeout_s=5.0,
            recordings=more.pop("recordings", Path("unused")),
            trunks=trunks,
            transfers=transfers,
            hooks=hooks,
            records=records,
            **more,
        )
        leg: Any = self.leg
        self.session = make(leg, line, services)
        self.task = asyncio.create_task(self.session.run())

    async def until(self, condition: Callable[[], bool], within_s: float = 60.0) -> None:
        """Let virtual time pass until it is so."""
        async with asyncio.timeout(within_s):
            while not condition():
                await asyncio.sleep(0.02)

    async def until_quiet(self) -> None:
        """The agent has said all it has to say."""
        await asyncio.sleep(0.2)
        await self.until(lambda: not self.media.playout)
        await asyncio.sleep(0.1)

    async def until_says(self, text: str) -> None:
        """The agent has begun to say this, aloud: a reply may be synthesised before it is certain that it is wanted."""
        await self.until(lambda: text in self.engines.said and bool(self.media.playout))

    def speaks(self, seconds: float, text: str, accepted: bool = True) -> None:
        """The caller speaks; the recogniser will hear ``text``."""
        self.engines.hears.clear()
        self.engines.hears.append((text, accepted))
        self.media.caller.extend([LOUD] * int(seconds / 0.02))

    def hangs_up(self, by: Literal["caller", "system"] = "caller", code: int = 200, text: str = "BYE") -> None:
        assert self.leg.on_hangup is not None
        self.leg.on_hangup(HangupCause(by, code, text))

    async def ends(self) -> CallEnded:
        """The agent says all it has to say, and the caller hangs up."""
        await self.until_quiet()
        self.hangs_up()
        return await self.over()

    def recognises_after(self, seconds: float) -> None:
        """The recogniser takes so much longer."""
        recognise = self.engines.recognise

        async def slow(request: Recognise) -> Recognised:
            await asyncio.sleep(seconds)
            return await recognise(request)

        self.engines.recognise = slow  # type: ignore[method-assign]

    def replies(self, reply: Callable[[Generate], Iterable[Step]]) -> None:
        """The model answers every request with the steps of ``reply``."""

        async def generate(request: Generate) -> AsyncIterator[Token]:
            self.engines.prompts.append(request)
            for step in reply(request):
                match step:
                    case str():
                        yield Token(request.request, step, False)
                    case ToolCall():
                        yield Token(request.request, "", False, (step,))
                    case _:
                        await asyncio.sleep(step)
            yield Token(request.request, "", True)

        self.engines.generate = generate  # type: ignore[method-assign]

    async def over(self, within_s: float = 60.0) -> CallEnded:
        async with asyncio.timeout(within_s):
            await self.task
        os.close(self.rings.fd)
        return self.log.ended
