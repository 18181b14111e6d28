"""What a call that the box places has beside one that has come: dialling, who has answered, and what comes of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, Final

from appliance.audio.call_tones import Tone
from appliance.calls.answer_watch import AnswerWatch
from appliance.calls.builtin_tools import CALLBACK_SLOT
from appliance.calls.facts import Outcome
from appliance.calls.greeting_words import GreetingWords
from appliance.calls.hand_back import TO_THE_CALLED
from appliance.calls.orders import OutgoingOrder, OutgoingResult, Progress, SlotValue
from appliance.calls.outbound_brain import CallNotes, OutboundBrain, identified
from appliance.calls.services import Services
from appliance.conversation.answering import Answering, Event, LeaveMessage, Verdict
from appliance.conversation.brain import Brain, Detected, Input, Opening
from appliance.dialplan.schema import Line
from appliance.errors import DialError
from appliance.events import CallEvent, CallPlaced, CallRinging, Disposition, HangupBy
from appliance.media.client import MediaLegHandle
from appliance.signalling.leg import CallInfo
from appliance.signalling.outgoing_leg import OutgoingLeg

logger = logging.getLogger(__name__)

_NO_ANSWER: Final = frozenset({408, 480, 487})
_GIVES_UP: Final = frozenset({"busy", "reorder", "sit", "fax"})
"""Tones after which nobody answers any more."""
_UNFINISHED: Final = frozenset({"no_input", "no_match", "transfer_failed"})
"""What a flow ends with (slot ``ending``) that has not come to where it was to come."""
_SCREENED_S: Final = 60.0
_INTRODUCTIONS: Final = 2
_ASKED_S, _ASKS_S = 0.6, 10.0
"""An assistant has asked when it has been silent for the first; it does not ask for longer than the second."""
_RECORDS_S: Final = 75.0
"""So long an assistant may screen, or a machine take to record, before it is given up."""
_HOPELESS: Final = "the agent's engines failed"


class Placing:
    """One call's; made with its order, and kept by its session.

    Args:
        order: what was asked for.
        leg: not dialled yet.
        line: whose agent speaks.
        services: of the box.
        progress: told how it goes.

    Attributes:
        deaf: nobody is there whom the agent is to listen to.
        greeted_at: when the agent's first sound left.
        kept: set once the call is over and all of it on its way into the record.
    """

    def __init__(
        self, order: OutgoingOrder, leg: OutgoingLeg, line: Line, services: Services, progress: Progress
    ) -> None:
        self.leg = leg
        self.notes = CallNotes()
        self.deaf = False
        self.kept = asyncio.Event()
        self.greeted_at: float | None = None
        self._order = order
        self._services = services
        self._progress = progress
        self._line = _for_the_called(line, leg.info)
        self._result = OutgoingResult()
        self._watch: AnswerWatch | None = None
        self._finish: Callable[[Outcome], None] = lambda outcome: None
        self._redirect: Callable[[Input], None] = lambda value: None
        self._guard: asyncio.TimerHandle | None = None
        self._screens = self._records = False
        self._introductions = 0
        self._asked_at: float | None = None

    @property
    def line(self) -> Line:
        """The line as it is in this call."""
        return self._line

    @property
    def result(self) -> OutgoingResult:
        """What has come of it so far."""
        return self._result

    # --- for the session ------------------------------------------------------------------------------------------

    def open(self, media: MediaLegHandle, finish: Callable[[Outcome], None], redirect: Callable[[Input], None]) -> None:
        """There is a slot for the audio; ``finish`` ends the call, ``redirect`` has the agent reply to something."""
        self._finish, self._redirect = finish, redirect
        self._watch = AnswerWatch(
            self._order.answering or Answering(detect=False),
            partial(self._services.rings.read_rx, media.slot, media.generation),
            self._tone,
            self._event,
            GreetingWords(self._services.asr, media.slot, media.generation, self._line.language),
        )

    def brain(self, brain: Brain) -> Brain:
        """``brain`` with what holds in every call of ours around it."""
        answering = self._order.answering
        return OutboundBrain(
            brain,
            self._line,
            self.leg.info,
            self._services.callers,
            self.notes,
            key=self._order.opt_out_key,
            message=answering.message if answering is not None else "",
        )

    async def dial(
        self,
        media: MediaLegHandle,
        values: Mapping[str, str],
        over: asyncio.Future[Outcome],
        say: Callable[[CallEvent], None],
    ) -> Outcome | None:
        """Place the call; None once it is answered, else how it ended. Cancelled, it is taken back."""
        leg, clock = self.leg, self._services.clock

        def placed() -> None:
            info = leg.info
            say(
                CallPlaced(
                    call_id=info.leg_id,
                    protocol=info.protocol,
                    protocol_call_id=info.protocol_call_id,
                    trunk=info.trunk,
                )
            )

        def ringing(status: int) -> None:
            if status in (180, 183) and self._result.ringing_at is None:
                at = clock.monotonic()
                self._result = replace(self._result, ringing_at=at)
                say(CallRinging(call_id=leg.info.leg_id, ringing_at=at, ringing_utc=clock.utc()))
                self._tell("ringing", at)

        leg.on_placed, leg.on_ringing = placed, ringing
        self._tell("dialling", clock.monotonic())
        dialling = asyncio.create_task(leg.dial(media, values), name=f"dial {leg.info.leg_id}")
        try:
            waiting: set[asyncio.Future[Any]] = {dialling, over}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not dialling.done():
                dialling.cancel()
                await asyncio.gather(dialling, return_exceptions=True)
        if dialling.cancelled():
            return over.result() if over.done() else None
        problem = dialling.exception()
        if problem is None:
            return None
        if not isinstance(problem, DialError):
            raise problem
        return self._not_answered(problem)

    def answered(self, at: float, frame: int) -> None:
        """It was answered at ``at`` (CLOCK_MONOTONIC), ``frame`` being the next one to be heard."""
        self._result = replace(self._result, sip_code=200, sip_text="OK", answered_at=at)
        if self._watch is not None:
            self._watch.answered(at, frame)
        self._tell("answered", at)

    def on_tick(self, at: float, frame: int, level_dbfs: float, speech: float, sent_dbfs: float) -> None:
        """A frame was heard, before the answer or after."""
        if self._watch is not None:
            if self.notes.conversed:
                self._watch.close()  # whoever has answered the agent is no machine
            elif self._asked_at is not None:
                self._perhaps_introduce(self._watch, self._asked_at)
            self._watch.on_tick(at, frame, level_dbfs, speech, sent_dbfs)

    def overheard(self, text: str, final: bool) -> None:
        """Words were understood: of a closed list they are what is most like what was said, and tell nothing."""
        if self._watch is not None and not self.notes.closed_list:
            self._watch.on_text(text, final)

    def greeted(self, at: float) -> None:
        """The agent begins to be heard."""
        if self.greeted_at is None:
            self.greeted_at = at
            self._result = replace(self._result, greeted_at=at)

    def over(self, outcome: Outcome, slots: Mapping[str, SlotValue], transferred_to: str) -> None:
        """The call is over; what came of it stands in :attr:`result`."""
        self._stop_guard()
        if self._watch is not None:
            self._watch.close()
        result, answered = self._result, self._result.answered_at is not None
        ours = outcome.disposition in (Disposition.FAILED, Disposition.INTERRUPTED) and not result.early
        ending = str(slots.get("ending", ""))
        by_agent = outcome.by is HangupBy.AGENT and outcome.text != _HOPELESS and ending not in _UNFINISHED
        self._result = replace(
            result,
            ended_at=self._services.clock.monotonic() if answered else None,
            ended_by=outcome.by.value if answered else "",
            reason=outcome.text,
            message_left=self.notes.message_left,
            opted_out=self.notes.opted_out or "do_not_call" in slots,
            transferred_to=transferred_to,
            callback_at=_time(slots.get(CALLBACK_SLOT)),
            slots=dict(slots),
            completed=answered and by_agent,
            problem=result.problem or (outcome.text or "the call failed" if ours else ""),
        )

    # --- before the answer ----------------------------------------------------------------------------------------

    def _not_answered(self, problem: DialError) -> Outcome:
        text = problem.text or str(problem)
        if not problem.code:
            self._result = replace(self._result, problem=str(problem))
            return Outcome(Disposition.FAILED, HangupBy.BOX, problem.status, str(problem))
        self._result = replace(self._result, sip_code=problem.code, sip_text=problem.text)
        if problem.code in _NO_ANSWER:
            return Outcome(Disposition.NO_ANSWER, HangupBy.BOX, problem.code, text)
        return Outcome(Disposition.REJECTED, HangupBy.CALLER, problem.code, text)

    def _tone(self, tone: Tone) -> None:
        known = tone.kind == "sit" and tone.detail not in ("", "unknown")
        early = f"sit_{tone.detail}" if known else tone.kind
        self._result = replace(self._result, early=early)
        if tone.kind in _GIVES_UP:
            self._finish(Outcome(Disposition.REJECTED, HangupBy.BOX, 0, f"{early} was heard before the answer"))

    # --- who has answered -----------------------------------------------------------------------------------------

    def _event(self, event: Event) -> None:
        if isinstance(event, Verdict):
            self._verdict(event)
        elif isinstance(event, LeaveMessage) and self._records:
            self._records = False
            self._stop_guard()
            self._redirect(Detected("message"))

    def _verdict(self, verdict: Verdict) -> None:
        answering = self._order.answering
        assert answering is not None
        if verdict.kind in ("machine", "screening", "fax") and self.notes.conversed:
            logger.info("call %s: %s is not believed, somebody has answered the agent", self._order.call_id, verdict)
            return
        if self._screens and verdict.kind == "human" and self._watch is not None and self._watch.acknowledged:
            logger.info("call %s: the assistant passes on who calls (%s)", self._order.call_id, self._watch.heard)
            self._watch.afresh()
            return
        logger.info("call %s: %s", self._order.call_id, verdict)
        self._result = replace(self._result, verdict=verdict)
        self._tell(verdict.kind, self._services.clock.monotonic())
        match verdict.kind:
            case "fax":
                self._hang_up("a fax has answered")
            case "screening" if answering.on_screening == "hang_up":
                self._hang_up("a call-screening assistant has answered")
            case "screening":
                self._introduce()
            case "machine" if answering.on_machine == "talk":
                self._stop_guard()
            case "machine" if answering.on_machine == "hang_up" or not answering.message:
                self._hang_up("an answering machine has answered")
            case "machine":
                self.deaf = self._records = True
                self._screens = False
                if self._watch is not None:
                    self._watch.awaits = False
                self._give_up_after(_RECORDS_S, "the machine has not begun to record")
                self._redirect(Detected("machine"))
            case _:
                self._a_person()

    def _introduce(self) -> None:
        """Tell the assistant who calls; asked too often it is left to give up."""
        self._records = False
        if not self._screens:
            self._screens = self.deaf = True
            self._give_up_after(_SCREENED_S, "the call was screened, and nobody came")
        self._introductions += 1
        if self._introductions <= _INTRODUCTIONS:
            self._asked_at = self._services.clock.monotonic()
            self._redirect(Detected("machine"))

    def _perhaps_introduce(self, watch: AnswerWatch, asked_at: float) -> None:
        """The assistant is answered once it has asked to the end."""
        if watch.silent_s >= _ASKED_S or self._services.clock.monotonic() - asked_at > _ASKS_S:
            self._asked_at = None
            watch.screened()
            self._redirect(Detected("screening"))

    def _a_person(self) -> None:
        """Somebody is there: who was not spoken to so far is greeted now."""
        waiting = self.deaf
        self.deaf = self._screens = self._records = False
        self._asked_at = None
        if self._watch is not None:
            self._watch.awaits = False
        self._stop_guard()
        if waiting:
            self._redirect(Opening())

    def _hang_up(self, why: str) -> None:
        self._finish(Outcome(Disposition.COMPLETED, HangupBy.AGENT, 200, why))

    def _give_up_after(self, seconds: float, why: str) -> None:
        self._stop_guard()
        self._guard = asyncio.get_running_loop().call_later(seconds, self._hang_up, why)

    def _stop_guard(self) -> None:
        if self._guard is not None:
            self._guard.cancel()
            self._guard = None

    def _tell(self, what: str, at: float) -> None:
        try:
            self._progress(what, at)
        except Exception:
            logger.exception("call %s: whoever follows it failed at %r", self._order.call_id, what)


def _for_the_called(line: Line, info: CallInfo) -> Line:
    """``line`` as it is in a call that the box places."""
    line = identified(line, info)
    if line.agent != "flow" and line.tools is not None:
        line = line.model_copy(update={"tools": tuple(dict.fromkeys((*line.tools, *TO_THE_CALLED)))})
    return line


def _time(value: SlotValue) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None
