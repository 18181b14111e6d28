"""One call's conversation: inputs in order, a reply to each, interruptions at any time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from appliance.conversation import manners
from appliance.conversation.brain import (
    Answered,
    Asked,
    Brain,
    ChangeLine,
    Consented,
    EnginesFailed,
    HangUp,
    Heard,
    Input,
    Key,
    KeysEnded,
    Listen,
    Notice,
    Opening,
    Pace,
    Say,
    SendDigits,
    Silence,
    Speak,
    Spoken,
    Transfer,
    TransferFailed,
    Trouble,
    Used,
)
from appliance.conversation.bridging import DeadAir
from appliance.conversation.floor import Floor
from appliance.conversation.hooked import NONE, HooksOfCall
from appliance.conversation.inputs import Inputs, Pending
from appliance.conversation.listening import HeardTurn, Listening
from appliance.conversation.mouth import Mouth
from appliance.conversation.passage import Passage
from appliance.conversation.reply import Reply
from appliance.conversation.setbacks import Setbacks
from appliance.conversation.speaker import Speaker
from appliance.conversation.speculation import Draft, Drafts
from appliance.conversation.turn_log import TurnLog
from appliance.conversation.utterance import Utterance
from appliance.errors import EngineError
from appliance.events import Consent, Doing, InputBy

logger = logging.getLogger(__name__)

_FAILED: Final = "the agent's engines failed"


@dataclass(frozen=True)
class Ended:
    """The conversation is over because the agent says so; ``line`` is the one that goes on with it, "" for none."""

    reason: str
    line: str = ""


HandOn: TypeAlias = Callable[[Transfer], Awaitable[str | TransferFailed]]
"""Hands the caller on, and returns when that call is over, with the reason for the record."""


class Dialogue:
    """Runs a brain on a leg.

    Implements media's listener for what concerns the conversation. ``on_turn`` is called with every finished turn,
    ``hand_on`` when the brain transfers the caller, ``on_progress`` with the turn under way and what is being heard of
    the next one whenever there is news, ``press`` with keys that the brain wants pressed on the line. What it says by
    itself is in the line's ``language``; ``fillers`` replace what it bridges waits with. ``hooks`` are the call's.
    ``on_consent`` is called with what a caller says about being recorded, ``on_private`` as what is private begins and
    ends. After ``gives_up_after`` failures in a row the brain is told of them (:class:`EnginesFailed`) and has its own
    way of ending the call; None: the dialogue ends it. ``first_turn`` numbers the turns.
    """

    def __init__(
        self,
        brain: Brain,
        *,
        barge_in: bool,
        now: Callable[[], float],
        on_turn: Callable[[TurnLog], None],
        drafts: Drafts,
        hand_on: HandOn | None = None,
        on_progress: Callable[[TurnLog, Doing, str], None] = lambda turn, doing, hearing: None,
        press: Callable[[str], None] = lambda digits: None,
        language: str = "en",
        fillers: tuple[str, ...] = (),
        hooks: HooksOfCall = NONE,
        on_consent: Callable[[Consent], None] = lambda consent: None,
        on_private: Callable[[bool], None] = lambda begins: None,
        gives_up_after: int | None = None,
        first_turn: int = 0,
    ) -> None:
        self.brain = brain
        self._hooks = hooks
        self._silences = 0
        self._drafts = drafts
        self._draft: Draft | None = None
        self._timed = 0
        self._press = press
        self._language = language
        self._dead_air = DeadAir(self._bridge, fillers or manners.fillers(language))
        self._thinking: Reply | None = None
        self._now = now
        self._on_turn = on_turn
        self._inputs = Inputs(now)
        self._floor = Floor(self._inputs, TurnLog(first_turn), on_progress)
        self._mouth = Mouth(self._floor, barge_in=barge_in)
        self._stopping: asyncio.Task[None] | None = None
        self._key_timer: asyncio.TimerHandle | None = None
        self._key_timeout_s: float | None = None
        self._listening: Listening | None = None
        self._speaker: Speaker | None = None
        self._setbacks = Setbacks(gives_up_after)
        self._hand_on = hand_on
        self._on_consent = on_consent
        self._on_private = on_private
        self._notice = ""
        self._announcing = False

    def attach(self, listening: Listening, speaker: Speaker) -> None:
        """Ears and mouth; before :meth:`run`."""
        self._listening = listening
        self._speaker = speaker
        self._mouth.attach(speaker, listening.machine)

    async def run(self) -> Ended:
        """From the greeting until the agent ends it; cancel it when the call ends otherwise."""
        self._inputs.put(Opening())
        while True:
            pending = await self._inputs.next()
            self._begin_turn(pending)
            self._floor.reply = reply = asyncio.create_task(self._answer(pending.value))
            self._floor.tell()
            ended = await self._wait_for(reply)
            if ended is not None:
                return ended
            self._announce_now()

    def announce(self, text: str) -> None:
        """Say this once nobody speaks and nobody waits for the other; the caller may talk over it."""
        self._notice = text
        self._announce_now()

    async def part(self, text: str) -> None:
        """Break off whatever is going on, and say this to the end; after :meth:`run`, whose place it takes."""
        if self._floor.handing_on or self._speaker is None:
            return
        self._drafts.discard()
        if self._floor.reply is not None:
            self._floor.reply.cancel()
            await asyncio.wait({self._floor.reply})
        if self._mouth.talking:
            await self._stop_speaking()
        self._finish_turn()
        self._announcing = True
        await self._say_alone(text, interruptible=False)

    @property
    def next_turn(self) -> int:
        """The number of the turn that comes next, once this is closed."""
        return self._turn.number

    async def close(self) -> None:
        """Stop everything and report the turn under way."""
        if self._key_timer is not None:
            self._key_timer.cancel()
        self._dead_air.close()
        self._drafts.discard()
        for task in (self._floor.reply, self._stopping):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if self._speaker is not None and self._speaker.speaking:
            await self._speaker.stop()  # the leg is still open, and says how much of it was heard
            self._was_heard()
        self._finish_turn()
        self._mouth.detach()
        self._listening = self._speaker = self._floor.reply = self._stopping = self._thinking = self._draft = None

    # --- what the ears, the mouth and the keys say ----------------------------------------------------------------

    def heard(self, turn: HeardTurn) -> None:
        """The caller has finished a turn."""
        self._floor.caller_done = False
        barred = self._mouth.barred and not self._mouth.only_bridging
        nothing = self._floor.replying and not (turn.text or turn.problem or turn.unwritten)
        if self._floor.handing_on or barred or nothing:
            self._drafts.discard()
            self._floor.tell()
            return
        self._silences = 0
        self._inputs.put(turn.as_input, turn, private=self._floor.private)

    def may_have_finished(self, turn: HeardTurn) -> None:
        """The caller is silent, and this is what was said so far: begin to work out the reply to it."""
        if self._speaker is None or self._busy or turn.instead is not None:
            return
        self._drafts.begin(turn.attempt, turn.as_input, self.brain, self._speaker)

    def hearing(self, text: str) -> None:
        """The caller speaks, and this is what was understood so far."""
        self._floor.hearing = "" if self._floor.private else text
        self._floor.tell()

    def understood(self, text: str) -> None:
        """What the caller has said in this turn, where it is known only after the reply was asked for."""
        if self._turn.by is InputBy.VOICE:
            self._turn.caller_text, self._turn.accepted = text, True
            self._floor.tell()

    def goes_on(self) -> None:
        """The caller has not finished."""
        self._drafts.discard()

    def caller_speaks(self, speaks: bool) -> None:
        """The caller has begun to speak, or has finished a turn: what was said is not known yet."""
        self._floor.caller_speaks, self._floor.caller_done = speaks, not speaks
        self._floor.hearing = ""
        if speaks:
            self._dead_air.end()
        else:
            self._dead_air.begin()
        self._floor.tell()

    def caller_dropped(self) -> None:
        """What the caller began to say is no turn."""
        self._floor.caller_said_nothing()
        if self._floor.replying and not self._floor.replied:
            self._dead_air.begin()
        self._announce_now()
        self._floor.tell()

    def paused(self) -> None:
        """There is a sound over the agent's speech: fall silent until it is known what it is."""
        self._mouth.pause()

    def resumed(self) -> None:
        """It was nothing: go on from where the agent fell silent."""
        self._floor.caller_said_nothing()
        if self._mouth.go_on():
            self._dead_air.look_again()

    def barged_in(self) -> None:
        """The caller speaks over the agent, and means it."""
        if self._mouth.talking and self._mouth.interruptible:
            self._interrupt()

    def silent(self) -> None:
        """The caller has said nothing for as long as the expectation allows."""
        if not self._mouth.talking and self._floor.reply is not None and self._floor.reply.done():
            self._silences += 1
            self._hooks.silence(self._silences)
            self._inputs.put(Silence())

    def key(self, digit: str) -> None:
        """The caller pressed a key: it ends the prompt, and whatever was being said is not the input."""
        if self._floor.handing_on or self._listening is None:
            return
        if not self._floor.private:
            self._hooks.key(digit)
        self._silences = 0
        self._listening.drop()
        self._drafts.discard()
        self._floor.caller_said_nothing()
        if self._mouth.talking and self._mouth.interruptible:
            self._interrupt()
        self._inputs.put(Key(digit), private=self._floor.private)

    def redirect(self, value: Input) -> None:
        """Stop whatever is said, heard and thought, also what may not be interrupted, and reply to ``value``."""
        if self._listening is None or self._floor.handing_on:
            return
        self._listening.drop()
        self._drafts.discard()
        self._inputs.clear()
        self._floor.caller_said_nothing()
        self._dead_air.end()
        if self._mouth.talking:
            self._interrupt()
        self._inputs.put(value)

    def note_trouble(self, problem: str) -> None:
        """Something beside the conversation went wrong in this turn."""
        self._turn.trouble(problem)

    def utterance_started(self) -> None:
        """Media has begun to play an utterance."""
        took_s = self._turn.took_s
        if took_s is not None and self._timed != self._turn.number:
            self._timed = self._turn.number
            self._drafts.lead.took(took_s)
        self._floor.tell()

    def utterance_over(self, utterance: Utterance) -> None:
        """Media has played an utterance to its end."""
        if self._mouth.over() and utterance.filler and not self._floor.replied:
            self._dead_air.again()
        self._floor.tell()

    # --- turns ----------------------------------------------------------------------------------------------------

    @property
    def _turn(self) -> TurnLog:
        return self._floor.turn

    @property
    def _busy(self) -> bool:
        """Whether the agent replies, speaks or has more to reply to, or the caller is somebody else's."""
        return bool(self._floor.replying or self._mouth.talking or self._inputs or self._floor.handing_on)

    async def _wait_for(self, reply: asyncio.Task[Ended | None]) -> Ended | None:
        """Until the reply is done, or something else has to be replied to first."""
        while not reply.done():
            await self._inputs.another(unless=reply)
            if self._inputs and not reply.done():
                if self._floor.handing_on or self._mouth.barred:
                    await asyncio.wait({reply})
                    continue
                if self._mouth.talking:
                    self._interrupt()
                reply.cancel()
                await asyncio.wait({reply})
        if self._stopping is not None:
            await asyncio.wait({self._stopping})
        return None if reply.cancelled() else reply.result()

    def _begin_turn(self, pending: Pending) -> None:
        if self._key_timer is not None:
            self._key_timer.cancel()
            self._key_timer = None
        self._floor.replied = False
        self._announcing = isinstance(pending.value, Notice)
        if not isinstance(pending.value, Opening):
            self._dead_air.begin()
        if pending.continues(self._turn, self._now()):
            self._drafts.discard()
            return
        self._finish_turn()
        turn = self._turn
        turn.decided_at = self._now()
        self._draft, turn.speculation = self._drafts.take(pending.attempt, pending.value)
        pending.begins(turn)

    def _finish_turn(self) -> None:
        if not self._turn.empty:
            self._on_turn(self._turn)
            self._floor.turn = TurnLog(self._turn.number + 1)
        else:
            self._floor.turn = TurnLog(self._turn.number, troubles=self._turn.troubles)

    def _interrupt(self) -> None:
        """Stop speaking; what is being worked out is abandoned unless it has been decided already."""
        if self._stopping is None or self._stopping.done():
            self._turn.interrupted = True
            if self._thinking is not None:
                self._thinking.abandon()
            self._stopping = asyncio.create_task(self._stop_speaking())

    async def _stop_speaking(self) -> None:
        await self._mouth.stop()
        self._was_heard()
        self._floor.tell()

    def _was_heard(self) -> None:
        """What the dialogue has said by itself, and in a turn of its own, is no part of the brain's reply."""
        if not self._announcing:
            self.brain.was_heard(self._turn.heard_text)

    # --- replying -------------------------------------------------------------------------------------------------

    async def _answer(self, value: Input | Notice) -> Ended | None:
        """Carry out one reply; an engine that fails is apologised for, twice in a row ends the call."""
        try:
            if problem := self._setbacks.deafness(value, self._turn.problem):
                return await self._give_up(problem)
            ended = await self._carry_out(value)
        except EngineError as error:
            self._turn.problem = str(error)
            logger.error("the reply failed: %s", error)
            if self._setbacks.failed():
                return await self._give_up(str(error))
            await self._say_alone(manners.apology(self._language))
            if not self._turn.interrupted:
                self._was_heard()
            self._listen()
            return None
        self._setbacks.answered()
        return ended

    async def _give_up(self, problem: str) -> Ended | None:
        """Engines have failed as often as is put up with."""
        if not self._setbacks.another_way:
            await self._say_alone(manners.farewell(self._language))
            return Ended(_FAILED)
        self._setbacks.begin_again()
        try:
            return await self._carry_out(EnginesFailed(problem))
        except EngineError as error:
            logger.error("the line's way out failed, too: %s", error)
            return Ended(_FAILED)

    def _announce_now(self) -> None:
        """Put what is to be announced where the next input would be, if it is nobody's turn."""
        floor = self._floor
        caller = floor.caller_speaks or floor.caller_done or self._key_timer is not None or floor.private
        if self._notice and not (caller or self._busy):
            self._inputs.put(Notice(self._notice))
            self._notice = ""

    async def _carry_out(self, value: Input | Notice) -> Ended | None:
        assert self._listening is not None
        if isinstance(value, Notice):
            await self._say_alone(value.text)
            self._listen()
            return None
        if isinstance(value, Heard) and value.instead is not None:
            return await self._carry_on(value, value.instead)
        ended = await self._speak_reply(value)
        not_recognised = isinstance(value, Heard) and not value.text and self._turn.problem
        if ended is None and not_recognised and not self._turn.agent_text:
            raise EngineError(self._turn.problem)  # nobody has told the caller that nothing was understood
        if ended is None:
            ended = await self._speak_reply(Spoken())
        if ended is not None:
            return ended
        self._carried_out(value)
        return None

    async def _carry_on(self, value: Heard, instead: str) -> Ended | None:
        """Answer words that a plugin has kept back: in its own words, or as what nobody has understood."""
        ended = None if instead else await self._speak_reply(value)
        if ended is None and not self._turn.agent_text:
            await self._say_alone(instead or manners.not_understood(self._language))
        if ended is None:
            self._carried_out(value)
        return ended

    def _carried_out(self, value: Input) -> None:
        self._listen()
        if isinstance(value, Key) and self._key_timeout_s is not None:
            loop = asyncio.get_running_loop()
            self._key_timer = loop.call_later(self._key_timeout_s, lambda: self._inputs.put(KeysEnded()))

    def _listen(self) -> None:
        """The reply has been given: it is the caller's turn."""
        assert self._listening is not None
        self._listening.machine.listen()
        self._floor.replied = True
        self._dead_air.end()
        self._floor.tell()

    async def _speak_reply(self, value: Input) -> Ended | None:
        """Do the steps of one reply as they come, and wait until what they say has been said or cut short."""
        assert self._speaker is not None and self._listening is not None
        draft, self._draft = self._draft, None
        if draft is not None:
            reply = draft.reply
            self.brain = reply.brain
            self._turn.thinking_at = draft.begun_at
            if draft.utterance is not None:
                self._mouth.begun(draft.utterance)
        else:
            reply = Reply(self.brain, value, hooks=self._hooks)
        passage = Passage(self._speaker, self._mouth.begin, draft.utterance if draft is not None else None)
        self._thinking = reply
        ended: Ended | None = None
        transfer: Transfer | None = None
        try:
            async for step in reply.steps():
                match step:
                    case Say(_, _, True) if self._turn.bridged:
                        pass  # the wait has been bridged, and will be again
                    case Say(text, interruptible, filler):
                        self._dead_air.look_again()
                        self._mouth.meant(passage.say(text, interruptible=interruptible, filler=filler), text)
                    case Speak(speech):
                        self._dead_air.end()
                        passage.follow(speech)
                    case HangUp(reason):
                        self._keep_private(False)
                        ended = Ended(reason)
                    case ChangeLine(line, reason):
                        self._keep_private(False)
                        ended = Ended(reason, line)
                    case Transfer():
                        self._keep_private(False)
                        transfer = step
                        self._floor.handing_on = True
                        if self._mouth.talking:
                            self._mouth.changed()
                    case Consented(consent):
                        await self._finish_saying(passage)
                        self._on_consent(consent)
                    case SendDigits(digits):
                        await self._finish_saying(passage)
                        self._press(digits)
                        if self._turn.interrupted:
                            break
                    case _:
                        self._note(step)
                if passage.open is not None and passage.open.over and self._turn.interrupted:
                    break  # the rest of the reply is not wanted
        finally:
            self._thinking = None
            passage.close()
            await reply.close()
        utterance = passage.open
        if self._mouth.talking or utterance is not None:
            await self._mouth.until_said()
            if not self._turn.interrupted:
                self._was_heard()
        unheard = utterance is not None and utterance.failed and not utterance.played
        if unheard and not isinstance(value, EnginesFailed):
            assert utterance is not None
            raise EngineError(utterance.failed)
        return ended if transfer is None else await self._transfer(transfer)

    async def _finish_saying(self, passage: Passage) -> None:
        """Until what the reply says so far has been said."""
        if passage.open is not None:
            passage.finish()
            await self._mouth.until_said()

    def _keep_private(self, private: bool) -> None:
        """What the caller says and presses from now on is private, or is so no more."""
        if private != self._floor.private:
            self._floor.private = private
            self._on_private(private)

    def _note(self, step: Listen | Used | Asked | Answered | Trouble | Pace) -> None:
        """Steps that take no time."""
        assert self._speaker is not None and self._listening is not None
        match step:
            case Listen(expectation):
                self._key_timeout_s = expectation.key_timeout_s
                self._keep_private(expectation.private)
                self._listening.expect(expectation)
            case Used(tool):
                self._turn.tools.append(tool)
            case Asked(messages):
                self._turn.asked = messages
            case Answered(server):
                self._turn.server = server
            case Trouble(problem):
                self._turn.problem = problem
            case Pace(factor):
                self._speaker.pace = factor

    async def _transfer(self, transfer: Transfer) -> Ended | None:
        """The caller is somebody else's until this returns; what is said meanwhile is not for the agent."""
        came_to: str | TransferFailed = TransferFailed()
        try:
            if self._hand_on is not None:
                came_to = await self._hand_on(transfer)
        finally:
            self._floor.handing_on = False
            self._inputs.clear()
        if isinstance(came_to, str):
            return Ended(came_to)
        self._inputs.put(came_to)
        return None

    def _bridge(self, phrase: str) -> bool:
        """The caller has been waiting: say something short, unless something is being said and has not run dry."""
        floor = self._floor
        if self._speaker is None or floor.caller_speaks or floor.handing_on or not floor.awaited:
            return False
        if self._mouth.talking and not self._mouth.has_run_dry():
            self._dead_air.look_again()
            return False
        self._drafts.discard()
        self._mouth.bridge(phrase)
        return True

    async def _say_alone(self, text: str, *, interruptible: bool = True) -> None:
        self._dead_air.end()
        await self._mouth.say(text, interruptible=interruptible)
