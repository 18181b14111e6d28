"""One call's conversation: inputs in order, a reply to each, interruptions at any time."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from appliance.conversation.brain import (
    Brain,
    HangUp,
    Heard,
    Input,
    Key,
    KeysEnded,
    Listen,
    Opening,
    Say,
    Silence,
    Spoken,
    Transfer,
    TransferFailed,
)
from appliance.conversation.listening import HeardTurn, Listening
from appliance.conversation.speaker import Speaker, Utterance
from appliance.conversation.turn_log import TurnLog
from appliance.errors import EngineError
from appliance.events import Doing, InputBy

logger = logging.getLogger(__name__)

_APOLOGY: Final = "I am sorry, something went wrong on my side. Please try again."
_FAREWELL: Final = "I am sorry, I cannot help you right now. Goodbye."
_MAX_FAILURES: Final = 2
_MAX_INPUTS: Final = 64


@dataclass(frozen=True)
class Ended:
    """The conversation is over because the agent says so."""

    reason: str


HandOn: TypeAlias = Callable[[Transfer], Awaitable[str | None]]
"""Hands the caller on, and returns when that call is over, with the reason for the record; None: it failed."""


@dataclass
class _Pending:
    """An input and what is known about how it came."""

    value: Input
    heard: HeardTurn | None = None
    at: float = 0.0


class Dialogue:
    """Runs a brain on a leg.

    Implements media's listener for what concerns the conversation. ``on_turn`` is called with every finished turn,
    ``hand_on`` when the brain transfers the caller, ``on_progress`` with the turn under way whenever there is news.
    """

    def __init__(
        self,
        brain: Brain,
        *,
        barge_in: bool,
        now: Callable[[], float],
        on_turn: Callable[[TurnLog], None],
        hand_on: HandOn | None = None,
        on_progress: Callable[[TurnLog, Doing], None] = lambda turn, doing: None,
    ) -> None:
        self._brain = brain
        self._barge_in = barge_in
        self._now = now
        self._on_turn = on_turn
        self._inputs: deque[_Pending] = deque(maxlen=_MAX_INPUTS)
        self._arrived = asyncio.Event()
        self._said = asyncio.Event()
        self._turn = TurnLog(0)
        self._reply: asyncio.Task[Ended | None] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._key_timer: asyncio.TimerHandle | None = None
        self._key_timeout_s: float | None = None
        self._listening: Listening | None = None
        self._speaker: Speaker | None = None
        self._failures = 0
        self._hand_on = hand_on
        self._handing_on = False
        self._on_progress = on_progress
        self._caller_speaks = False
        self._caller_done = False
        self._replied = False
        self._told: tuple[object, ...] = ()

    def attach(self, listening: Listening, speaker: Speaker) -> None:
        """Ears and mouth; before :meth:`run`."""
        self._listening = listening
        self._speaker = speaker

    async def run(self) -> Ended:
        """From the greeting until the agent ends it; cancel it when the call ends otherwise."""
        self._put(Opening())
        while True:
            pending = await self._next()
            self._begin_turn(pending)
            self._reply = asyncio.create_task(self._answer(pending.value))
            self._tell()
            ended = await self._wait_for_reply()
            if ended is not None:
                return ended

    async def close(self) -> None:
        """Stop everything and report the turn under way."""
        if self._key_timer is not None:
            self._key_timer.cancel()
        for task in (self._reply, self._stopping):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if self._speaker is not None and self._speaker.speaking:
            await self._speaker.stop()  # the leg is still open, and says how much of it was heard
        self._finish_turn()
        self._listening = self._speaker = self._reply = self._stopping = None

    # --- what the ears, the mouth and the keys say ----------------------------------------------------------------

    def heard(self, turn: HeardTurn) -> None:
        """The caller has finished a turn."""
        self._caller_done = False
        if self._handing_on or (self._talking and not self._interruptible):
            self._tell()
            return
        self._put(Heard(turn.text, turn.confidence, turn.accepted), turn)

    def caller_speaks(self, speaks: bool) -> None:
        """The caller has begun to speak, or has finished a turn: what was said is not known yet."""
        self._caller_speaks, self._caller_done = speaks, not speaks
        self._tell()

    def caller_dropped(self) -> None:
        """What the caller began to say is no turn."""
        self._caller_speaks = self._caller_done = False
        self._tell()

    def barged_in(self) -> None:
        """The caller speaks over the agent."""
        if self._talking and self._interruptible and not self._handing_on:
            self._interrupt()

    def silent(self) -> None:
        """The caller has said nothing for as long as the expectation allows."""
        if not self._talking and self._reply is not None and self._reply.done():
            self._put(Silence())

    def key(self, digit: str) -> None:
        """The caller pressed a key: it ends the prompt, and whatever was being said is not the input."""
        if self._handing_on:
            return
        assert self._listening is not None
        self._listening.drop()
        self._caller_speaks = self._caller_done = False
        if self._talking and self._interruptible:
            self._interrupt()
        self._put(Key(digit))

    def utterance_started(self) -> None:
        """Media has begun to play an utterance."""
        self._tell()

    def utterance_over(self, utterance: Utterance) -> None:
        """Media has played an utterance to its end."""
        assert self._speaker is not None and self._listening is not None
        if not self._speaker.speaking:
            self._listening.machine.agent_speaking(False)
            self._said.set()
        self._tell()

    # --- turns ----------------------------------------------------------------------------------------------------

    @property
    def _talking(self) -> bool:
        return self._speaker is not None and self._speaker.speaking

    @property
    def _interruptible(self) -> bool:
        return self._barge_in and self._speaker is not None and self._speaker.interruptible

    @property
    def _doing(self) -> Doing:
        if self._caller_speaks:
            return Doing.CALLER_SPEAKS
        if any(utterance.started_at is not None and not utterance.over for utterance in self._turn.utterances):
            return Doing.AGENT_SPEAKS
        if self._handing_on:
            return Doing.HANDED_ON
        replying = self._reply is not None and not self._reply.done() and not self._replied
        return Doing.THINKING if self._caller_done or self._inputs or replying else Doing.LISTENING

    def _tell(self) -> None:
        """Say how the turn goes, where that has changed."""
        turn, doing = self._turn, self._doing
        news = (doing, turn.number, turn.caller_text, len(turn.meant), turn.interrupted, turn.heard_text)
        if news != self._told:
            self._told = news
            self._on_progress(turn, doing)

    def _put(self, value: Input, heard: HeardTurn | None = None) -> None:
        self._inputs.append(_Pending(value, heard, self._now()))
        self._arrived.set()

    async def _next(self) -> _Pending:
        while not self._inputs:
            self._arrived.clear()
            await self._arrived.wait()
        return self._inputs.popleft()

    async def _wait_for_reply(self) -> Ended | None:
        """Until the reply is done, or something else has to be replied to first."""
        assert self._reply is not None
        while not self._reply.done():
            self._arrived.clear()
            arrived = asyncio.create_task(self._arrived.wait())
            try:
                await asyncio.wait({self._reply, arrived}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                arrived.cancel()
            if self._inputs and not self._reply.done():
                if self._handing_on:
                    await asyncio.wait({self._reply})
                    continue
                if self._talking and not self._interruptible:
                    await asyncio.wait({self._reply})
                    continue
                if self._talking:
                    self._interrupt()
                self._reply.cancel()
                await asyncio.wait({self._reply})
        if self._stopping is not None:
            await asyncio.wait({self._stopping})
        return None if self._reply.cancelled() else self._reply.result()

    def _begin_turn(self, pending: _Pending) -> None:
        if self._key_timer is not None:
            self._key_timer.cancel()
            self._key_timer = None
        if self._continues_keys(pending):
            return
        self._finish_turn()
        turn = self._turn
        turn.decided_at = self._now()
        self._replied = False
        match pending.value:
            case Heard(text, confidence, accepted):
                turn.by = InputBy.VOICE
                turn.caller_text, turn.confidence, turn.accepted = text, confidence, accepted
            case Key(digit):
                turn.by = InputBy.KEY
                turn.caller_text = digit
                turn.speech_start_at = turn.speech_end_at = pending.at
            case _:
                turn.by = InputBy.NONE
        if pending.heard is not None:
            turn.speech_start_at = pending.heard.speech_start_at
            turn.speech_end_at = pending.heard.speech_end_at
            turn.stages.extend(pending.heard.stages)

    def _continues_keys(self, pending: _Pending) -> bool:
        """Keys that make up one number are one turn, answered when the number is complete."""
        turn = self._turn
        if turn.by is not InputBy.KEY or turn.agent_text:
            return False
        if isinstance(pending.value, Key):
            turn.caller_text += pending.value.digit
            turn.speech_end_at = pending.at
        turn.decided_at = self._now()
        return isinstance(pending.value, Key | KeysEnded)

    def _finish_turn(self) -> None:
        if not self._turn.empty:
            self._on_turn(self._turn)
            self._turn = TurnLog(self._turn.number + 1)
        else:
            self._turn = TurnLog(self._turn.number)

    def _interrupt(self) -> None:
        """Stop speaking; what is being worked out is abandoned unless it has been decided already."""
        if self._stopping is None or self._stopping.done():
            self._turn.interrupted = True
            self._stopping = asyncio.create_task(self._stop_speaking())

    async def _stop_speaking(self) -> None:
        assert self._speaker is not None and self._listening is not None
        await self._speaker.stop()
        self._listening.machine.agent_speaking(False)
        self._brain.was_heard(self._turn.heard_text)
        self._said.set()
        self._tell()

    # --- replying -------------------------------------------------------------------------------------------------

    async def _answer(self, value: Input) -> Ended | None:
        """Carry out one reply; an engine that fails is apologised for, twice in a row ends the call."""
        try:
            ended = await self._carry_out(value)
        except EngineError as error:
            self._failures += 1
            logger.error("the reply failed: %s", error)
            if self._failures >= _MAX_FAILURES:
                await self._say_alone(_FAREWELL)
                return Ended("the agent's engines failed")
            await self._say_alone(_APOLOGY)
            self._listen()
            return None
        self._failures = 0
        return ended

    async def _carry_out(self, value: Input) -> Ended | None:
        assert self._listening is not None
        ended = await self._speak_reply(value)
        if ended is None:
            ended = await self._speak_reply(Spoken())
        if ended is not None:
            return ended
        self._listen()
        if isinstance(value, Key) and self._key_timeout_s is not None:
            loop = asyncio.get_running_loop()
            self._key_timer = loop.call_later(self._key_timeout_s, lambda: self._put(KeysEnded()))
        return None

    def _listen(self) -> None:
        """The reply has been given: it is the caller's turn."""
        assert self._listening is not None
        self._listening.machine.listen()
        self._replied = True
        self._tell()

    async def _speak_reply(self, value: Input) -> Ended | None:
        """Do the steps of one reply as they come, and wait until what they say has been said or cut short."""
        assert self._speaker is not None and self._listening is not None
        utterance: Utterance | None = None
        ended: Ended | None = None
        transfer: Transfer | None = None
        steps = self._brain.reply(value)
        try:
            async for step in steps:
                match step:
                    case Say(text, interruptible):
                        if utterance is not None and utterance.interruptible != interruptible:
                            self._speaker.finish(utterance)
                            utterance = None
                        if utterance is None:
                            utterance = self._begin_utterance(interruptible)
                        self._say(utterance, text)
                    case Listen(expectation):
                        self._key_timeout_s = expectation.key_timeout_s
                        self._listening.expect(expectation)
                    case HangUp(reason):
                        ended = Ended(reason)
                    case Transfer():
                        transfer = step
                        self._handing_on = True
                if utterance is not None and utterance.over:
                    break  # interrupted: the rest of the reply is not wanted
        finally:
            if utterance is not None:
                self._speaker.finish(utterance)
            close = getattr(steps, "aclose", None)
            if close is not None:
                await close()
        if utterance is not None:
            await self._until_said()
            if not self._turn.interrupted:
                self._brain.was_heard(self._turn.heard_text)
        return ended if transfer is None else await self._transfer(transfer)

    async def _transfer(self, transfer: Transfer) -> Ended | None:
        """The caller is somebody else's until this returns; what is said meanwhile is not for the agent."""
        try:
            reason = await self._hand_on(transfer) if self._hand_on is not None else None
        finally:
            self._handing_on = False
            self._inputs.clear()
        if reason is not None:
            return Ended(reason)
        self._put(TransferFailed())
        return None

    def _begin_utterance(self, interruptible: bool) -> Utterance:
        assert self._speaker is not None and self._listening is not None
        self._said.clear()
        utterance = self._speaker.begin(interruptible=interruptible)
        self._turn.utterances.append(utterance)
        self._listening.machine.agent_speaking(True, interruptible=interruptible and self._barge_in)
        return utterance

    def _say(self, utterance: Utterance, clause: str) -> None:
        assert self._speaker is not None
        self._speaker.add(utterance, clause)
        self._turn.meant.append(clause)
        self._tell()

    async def _say_alone(self, text: str) -> None:
        assert self._speaker is not None
        utterance = self._begin_utterance(True)
        self._say(utterance, text)
        self._speaker.finish(utterance)
        await self._until_said()

    async def _until_said(self) -> None:
        while self._talking:
            await self._said.wait()
            self._said.clear()
