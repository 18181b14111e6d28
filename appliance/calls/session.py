"""The life of one call, on one page."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from appliance.calls.afterwards import keep_recording, tell_record
from appliance.calls.agent import make_agent, turn_config
from appliance.calls.brains import number_of, spoken_language, variables, voice_of
from appliance.calls.call_recording import CallRecording
from appliance.calls.facts import Outcome, line_measured, started_event, summary_in
from appliance.calls.hook_calls import hook_call, summary_of
from appliance.calls.moves import Moves
from appliance.calls.placing import Placing
from appliance.calls.services import Services
from appliance.calls.storing import CallKeeping
from appliance.calls.tool_audit import ToolAudit
from appliance.calls.tool_sources import Offered, host_tools
from appliance.calls.transfer import KeyRelay
from appliance.conversation import manners
from appliance.conversation.brain import Brain, Transfer, TransferFailed
from appliance.conversation.dialogue import Dialogue, Ended
from appliance.conversation.endpointing import FRAME_S
from appliance.conversation.hooked import HooksOfCall
from appliance.conversation.listening import Listening
from appliance.conversation.speaker import Speaker
from appliance.conversation.speculation import Drafts
from appliance.conversation.turn_log import TurnLog
from appliance.conversation.turns import TurnMachine
from appliance.dialplan.schema import Line
from appliance.dialplan.text import SUMMARY, render
from appliance.errors import MediaError, StoreError
from appliance.events import (
    CallAnswered,
    CallEnded,
    CallRinging,
    Disposition,
    Doing,
    HangupBy,
    TurnProgress,
)
from appliance.ipc.hook_messages import HookOutcome
from appliance.media.client import MediaLegHandle
from appliance.rtp.dtmf import KeyPresses
from appliance.signalling.leg import HangupCause, Leg, TransferRequest

logger = logging.getLogger(__name__)

_MAX_EARLY: Final = 8
_PARTING_S: Final = 5.0
"""A call that is no longer wanted is ended so much later at most, for a goodbye."""
_GOODBYE_S: Final = 10.0
"""A call that has taken as long as it may is ended so much later at most."""
_RECORD_TIMEOUT_S: Final = 3.0
"""An answer waits this long for the record to hold the call; a caller waits no longer than that."""


class CallSession:
    """One call from INVITE to record. :meth:`run` never raises; :meth:`end` ends it from outside.

    ``closed``: why the line that was called is not open now, for the record; "" where it is. ``lines`` finds the one
    that goes on where the engines of ``line`` fail. ``placing``: of a call that the box places, in place of one that
    has come.
    """

    def __init__(
        self,
        leg: Leg,
        line: Line,
        services: Services,
        *,
        closed: str = "",
        lines: Callable[[str], Line | None] = lambda name: None,
        placing: Placing | None = None,
    ) -> None:
        line = placing.line if placing is not None else line
        self._placing = placing
        self.call_id = leg.info.leg_id
        self.trunk = leg.info.trunk
        self._leg = leg
        self._line = line
        self._lines = lines
        self._had = {line.name}
        """Names of the lines that the call has been on."""
        self._of_box = services
        self._services = services = services.on(line)
        self._hooks = HooksOfCall(services.hooks, hook_call(leg.info, number_of(leg.info), line))
        self._log = CallKeeping(services.log, self._hooks)
        self._audit = ToolAudit()
        self._early_troubles: list[str] = []
        self._offered: list[Offered] = []
        self._over: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._answered_at: float | None = None
        self._slots: dict[str, str] = {"line.closed": closed} if closed else {}
        self._moves = Moves(
            self.call_id,
            leg,
            self._slots,
            self._log,
            values=self._values,
            send_keys_to=self._send_keys_to,
            hung_up=self._hung_up,
        )
        self._answers: dict[str, str] = {}
        self._brains: list[Brain] = []
        self._dialogue: Dialogue | None = None
        self._listening: Listening | None = None
        self._speaker: Speaker | None = None
        self._media: MediaLegHandle | None = None
        self._recording = self._recording_by(line)
        self._keys = KeyPresses()
        self._key_relay: KeyRelay | None = None
        self._held = False
        self._politely = False
        self._recorded_path = ""
        self._preparing: asyncio.Task[None] | None = None
        leg.on_hangup = self._hung_up
        leg.on_digits = self._digits
        leg.on_held = self._hold
        leg.on_transfer = self._follow

    @property
    def placed(self) -> bool:
        """Whether the box places the call."""
        return self._placing is not None

    # --- from ring to record --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Ring, answer, talk, hang up, record."""
        try:
            outcome = await self._set_up() or await self._talk()
        except asyncio.CancelledError:
            outcome = Outcome(Disposition.INTERRUPTED, HangupBy.BOX, text="the appliance stopped")
        except Exception as error:
            logger.exception("call %s failed", self.call_id)
            outcome = Outcome(Disposition.FAILED, HangupBy.BOX, 500, f"{type(error).__name__}: {error}")
        await self._wind_up(outcome)

    def end(self, disposition: Disposition, text: str, *, politely: bool = False) -> None:
        """End the call from outside (drain, shutdown); ``politely`` with a goodbye, where somebody is there."""
        self._politely = politely
        self._finish(Outcome(disposition, HangupBy.BOX, text=text))

    async def _set_up(self) -> Outcome | None:
        """Ring at once; answer when the record holds the call and a port is open. An outcome means it ended here."""
        services = self._services
        self._leg.ring()
        started: asyncio.Future[None] | None = None
        try:
            started = services.log.started(started_event(self._leg.info, self._line.name, services.clock))
            if self._placing is None:
                at = services.clock.monotonic()
                self._log.say(CallRinging(call_id=self.call_id, ringing_at=at, ringing_utc=services.clock.utc()))
            self._media = await services.media.open_leg(self, rtp=self._leg.needs_rtp, denoise=self._line.denoise)
            async with asyncio.timeout(_RECORD_TIMEOUT_S):
                await asyncio.gather(started, self._prepare_opening(self._media), self._ask_for_tools())
        except (MediaError, StoreError, TimeoutError) as error:
            reason = str(error) or f"the record could not be written within {_RECORD_TIMEOUT_S:.0f} s"
            logger.error("call %s refused: %s", self.call_id, reason)
            self._leg.reject(503, "Service Unavailable", retry_after_s=5)
            if started is not None:
                started.cancel()
            return Outcome(Disposition.REJECTED, HangupBy.BOX, 503, reason)
        if self._over.done():
            return self._over.result()
        self._connect_conversation(self._media)
        if (ended := await self._answer(self._media)) is not None:
            return ended
        self._answered_at = services.clock.monotonic()
        if self._placing is not None:
            self._placing.answered(self._answered_at, int(services.rings.frames[self._media.slot]))
        self._log.say(
            CallAnswered(call_id=self.call_id, answered_at=self._answered_at, answered_utc=services.clock.utc())
        )
        self._hooks.answered()
        return None

    async def _answer(self, media: MediaLegHandle) -> Outcome | None:
        """Answer, or call and be answered; an outcome means it ended here."""
        if self._placing is not None:
            failed = await self._placing.dial(media, self._values(), self._over, self._log.say)
            if failed is not None:
                return failed
        else:
            self._leg.answer(media)
        return self._over.result() if self._over.done() else None  # the media could not be agreed on, say

    async def _talk(self) -> Outcome:
        """Until the caller, the agent, or a limit ends it, on whatever lines."""
        assert self._media is not None
        self._recording.answered(self._media)
        while isinstance(came_to := await self._talk_on_line(), Ended):
            other = self._lines(came_to.line) if came_to.line not in self._had else None
            if other is None or other.refuse is not None:
                return Outcome(Disposition.COMPLETED, HangupBy.AGENT, 200, came_to.reason)
            await self._change_line(other, came_to.reason, self._media)
        return came_to

    async def _talk_on_line(self) -> Outcome | Ended:
        """Until the caller or a limit ends the call, or the agent of the line has done its part."""
        assert self._dialogue is not None
        conversation = asyncio.create_task(self._dialogue.run())
        try:
            await self._until_over(conversation, self._dialogue)
            if conversation.done():
                return conversation.result()
            if self._over.done() and not self._politely:
                return self._over.result()
        finally:
            conversation.cancel()
            await asyncio.gather(conversation, return_exceptions=True)
        if self._over.done():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PARTING_S):
                    await self._dialogue.part(manners.sign_off(spoken_language(self._line)))
            return self._over.result()
        await self._say_goodbye(self._dialogue)
        return Outcome(Disposition.COMPLETED, HangupBy.BOX, 200, "maximum duration reached")

    async def _until_over(self, conversation: asyncio.Task[Ended], dialogue: Dialogue) -> None:
        """Until one of both has ended the call, or it has taken as long as it may; the caller is told in time."""
        waiting: set[asyncio.Future[Any]] = {conversation, self._over}
        left_s, warning = self._line.max_duration_s, self._line.max_duration_warning
        if warning is not None:
            early_s = max(0.0, left_s - warning.before_s)
            done, _ = await asyncio.wait(waiting, timeout=early_s, return_when=asyncio.FIRST_COMPLETED)
            if done:
                return
            left_s -= early_s
            dialogue.announce(render(warning.text, self._values()))
        await asyncio.wait(waiting, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)

    async def _change_line(self, line: Line, reason: str, media: MediaLegHandle) -> None:
        """Go on as another line: with its conversation, engines, plugins and recording, but in the same record."""
        assert self._dialogue is not None and self._listening is not None
        logger.warning("call %s goes on with line %s: %s", self.call_id, line.name, reason)
        self._slots["line.changed"] = f"{self._line.name} to {line.name}: {reason}"
        dialogue, listening = self._dialogue, self._listening
        self._dialogue = self._listening = None
        await dialogue.close()
        self._answers |= dialogue.brain.slots
        self._brains.append(dialogue.brain)
        await listening.close()
        self._had.add(line.name)
        self._line, self._services = line, self._of_box.on(line)
        self._hooks = HooksOfCall(self._services.hooks, hook_call(self._leg.info, number_of(self._leg.info), line))
        self._log.go_on_with(self._hooks)
        if not self._recording.begun and not self._recording.refused:
            self._recording = self._recording_by(line)
        await self._ask_for_tools()
        self._connect_conversation(media, dialogue.next_turn)
        if not self._recording.refused:
            self._recording.answered(media, late=True)

    async def _say_goodbye(self, dialogue: Dialogue) -> None:
        """Tell the caller why the call is ended now, unless nobody is there to hear it."""
        if self._away:
            return
        warning = self._line.max_duration_warning
        text = render(warning.goodbye, self._values()) if warning is not None else ""
        parting = asyncio.create_task(dialogue.part(text or manners.time_is_up(spoken_language(self._line))))
        waiting: set[asyncio.Future[Any]] = {parting, self._over}
        await asyncio.wait(waiting, timeout=_GOODBYE_S, return_when=asyncio.FIRST_COMPLETED)
        parting.cancel()
        await asyncio.gather(parting, return_exceptions=True)

    async def _wind_up(self, outcome: Outcome) -> None:
        """Whatever happened: the leg is down, the media slot is free, the record is complete."""
        services = self._services
        self._moves.cancel()
        if self._preparing is not None:
            self._preparing.cancel()
        self._leg.hangup(outcome.text)
        if self._dialogue is not None:
            self._brains.append(self._dialogue.brain)
        if self._dialogue is not None and self._listening is not None and self._speaker is not None:
            await self._dialogue.close()
            if self._answered_at is not None:
                self._answers |= self._dialogue.brain.slots
            await self._listening.close()
            await self._speaker.close()
        if self._media is not None:
            await self._close_media(self._media)
        self._log.say(
            CallEnded(
                call_id=self.call_id,
                ended_at=services.clock.monotonic(),
                ended_utc=services.clock.utc(),
                disposition=outcome.disposition,
                hangup_by=outcome.by,
                hangup_code=outcome.code,
                hangup_text=outcome.text,
                slots=self._facts(),
            )
        )
        try:
            await self._log.close()
        finally:
            if self._placing is not None:
                # Results keep of the answers what the record does: plugins may have taken something out of them.
                kept = self._log.ended.slots if self._log.ended is not None else {}
                self._placing.over(outcome, kept, self._moves.to)
        for brain in self._brains:
            await brain.close()
        if self._brains:
            for run in self._audit.rest():
                self._log.lost_tool(run)
            await self._log.close()
        if self._hooks.wanted("call_ended"):
            self._hooks.call_ended(summary_of(self._log, self._answered_at, self._moves.to))
        logger.info(
            "call %s ended: %s by %s%s",
            self.call_id,
            outcome.disposition.value,
            outcome.by.value,
            f" ({outcome.text})" if outcome.text else "",
        )
        self._let_go()
        if self._placing is not None:
            self._placing.kept.set()
        if self._recorded_path:
            await keep_recording(self._hooks, services.log, self.call_id, self._recorded_path)
        await tell_record(self._hooks, services.records, self.call_id)
        self._hooks.over()

    def _let_go(self) -> None:
        """Nothing of the conversation outlives it: signalling keeps a leg for 32 s more (RFC 3261 timers H to K)."""
        self._leg.on_hangup = self._leg.on_digits = self._leg.on_held = self._leg.on_transfer = None
        self._dialogue = self._listening = self._speaker = self._media = None
        self._moves.let_go()
        self._brains.clear()

    async def _prepare_opening(self, media: MediaLegHandle) -> None:
        """Have the greeting synthesised while it rings: there, if the box places the call."""
        if self._services.warm_up is None:
            return
        opening = self._services.warm_up.opening(self._line, self._leg.info, media.slot)
        if self._placing is None:
            await opening
        else:
            self._preparing = asyncio.create_task(opening, name=f"greeting of {self.call_id}")

    async def _ask_for_tools(self) -> None:
        """Ask plugins while it rings."""
        if (self._line.agent != "flow" or self._line.converses) and self._hooks.wanted("tools"):
            self._offered = await host_tools(self._hooks)

    def _recording_by(self, line: Line) -> CallRecording:
        services = self._services
        return CallRecording(
            self.call_id, line.record, services.recorder, services.recordings, services.clock, self._log.say
        )

    # --- parts ----------------------------------------------------------------------------------------------------

    def _connect_conversation(self, media: MediaLegHandle, first_turn: int = 0) -> None:
        services, line = self._services, self._line
        agent = make_agent(line, self._leg.info, services, media, self._hooks, self._offered, asks=self._recording.asks)
        brain, realtime = agent.brain, agent.realtime
        if self._placing is not None:
            brain = self._placing.brain(brain)
        brain.report_tools(self._audit.ran)
        drafts = Drafts(services.speculation, line.turn.speculate, services.clock.monotonic, line.name, self._hooks)
        self._dialogue = dialogue = Dialogue(
            brain,
            barge_in=line.barge_in,
            now=services.clock.monotonic,
            on_turn=self._turn_finished,
            drafts=drafts,
            hand_on=self._hand_on,
            on_progress=self._turn_goes_on,
            press=lambda digits: self._press(media, digits),
            language=spoken_language(line),
            fillers=line.filler.texts,
            hooks=self._hooks,
            on_consent=self._recording.consented,
            on_private=self._recording.private,
            gives_up_after=line.on_engine_failure.after if line.on_engine_failure is not None else None,
            first_turn=first_turn,
        )
        self._listening = Listening(
            media.slot,
            media.generation,
            TurnMachine(turn_config(line)),
            services.asr if agent.needs_recogniser else None,
            services.turn,
            services.verdicts,
            language=line.language,
            asr_timeout_s=services.asr_timeout_s,
            delay_s=lambda: int(services.rings.delay[media.slot]) * FRAME_S,
            ears=dialogue if realtime is None else realtime.ears_for(dialogue, services.rings),
            audio=partial(services.rings.read_rx, media.slot, media.generation),
            hooks=self._hooks,
            lead_s=lambda: drafts.lead.seconds,
            overhear=self._overheard,
        )
        if self._speaker is None:
            self._speaker = Speaker(
                media, services.rings, services.tts, voice_of(line), services.clock.monotonic, dialogue.utterance_over
            )
        else:
            self._speaker.become(services.tts, voice_of(line), dialogue.utterance_over)
        self._dialogue.attach(self._listening, self._speaker)
        for trouble in self._early_troubles:
            self._dialogue.note_trouble(trouble)
        if self._placing is not None:
            self._placing.open(media, self._finish, dialogue.redirect)

    async def _close_media(self, media: MediaLegHandle) -> None:
        closed = await media.close()
        if closed is not None:
            self._services.log.leg_closed(closed)
            self._log.say(line_measured(self.call_id, closed))
        recorded = await self._recording.stop(media)
        media.release()
        if recorded is not None:
            self._recorded_path = "" if recorded.problem else recorded.path
            self._log.say(recorded)

    def _facts(self) -> dict[str, str | int | float | bool | None]:
        """What the record keeps beside the turns: answers, transfers, and the headers the trunk offers."""
        offered = {f"header.{name}": value for name, value in self._leg.info.offered.items()}
        return {**offered, **self._answers, **self._slots}

    def _turn_finished(self, turn: TurnLog) -> None:
        assert self._answered_at is not None
        self._audit.settle(turn.tools)
        event = turn.finished(self.call_id, self._answered_at, self._services.clock.utc())
        self._log.say(event)

    def note_trouble(self, hook: str, outcome: HookOutcome) -> None:
        """A hook of this call was no success."""
        trouble = f"plugin {outcome.plugin}: {hook} {outcome.outcome} {outcome.text}".strip()
        if self._dialogue is not None:
            self._dialogue.note_trouble(trouble)
        elif self._answered_at is None and len(self._early_troubles) < _MAX_EARLY:
            self._early_troubles.append(trouble)

    def _turn_goes_on(self, turn: TurnLog, doing: Doing, hearing: str) -> None:
        if self._answered_at is not None:
            so_far = turn.so_far(self.call_id, self._answered_at, self._services.clock.utc())
            self._log.say(TurnProgress(call_id=self.call_id, doing=doing, turn=so_far, hearing=hearing))

    def _finish(self, outcome: Outcome) -> None:
        if not self._over.done():
            self._over.set_result(outcome)

    # --- transfers and hold ----------------------------------------------------------------------------------------

    async def _hand_on(self, transfer: Transfer) -> str | TransferFailed:
        """Hand the caller on, as the brain wants; the reason for the record."""
        if self._media is None:
            return TransferFailed()
        return await self._moves.hand_on(transfer, self._media, self._services, self._line, self._hooks)

    def _follow(self, request: TransferRequest) -> None:
        """The caller's side wants somebody else to take its place."""
        media = self._media if self._answered_at is not None else None
        self._moves.follow(request, media, self._services.transfers)

    def _values(self) -> dict[str, str]:
        """What ``${...}`` stands for in what is dialled and sent for this call."""
        info = self._leg.info
        slots = self._dialogue.brain.slots if self._dialogue is not None else {}
        return {
            SUMMARY: summary_in(slots),
            **{f"slots.{name}": str(value) for name, value in slots.items()},
            "called.number": info.called,
            "caller.number": info.calling if self._answered_at is None else info.person,
            "call.id": self.call_id,
            "line.name": self._line.name,
            **variables(info),
        }

    def _hold(self, held: bool) -> None:
        """The caller's side has put us on hold, or taken us off it."""
        self._held = held

    @property
    def _away(self) -> bool:
        """Whether nobody is there to be heard: we are on hold, or the caller has left and the next one still rings."""
        return self._held or self._moves.gone is not None

    # --- what the leg and media say -------------------------------------------------------------------------------

    def _hung_up(self, cause: HangupCause) -> None:
        if self._moves.waits(cause):
            return  # whoever asked for a transfer may leave
        by = HangupBy.CALLER if cause.by == "caller" else HangupBy.BOX
        if self._answered_at is None:
            disposition = Disposition.CANCELLED if cause.by == "caller" else Disposition.FAILED
        else:
            disposition = Disposition.COMPLETED if cause.by == "caller" else Disposition.FAILED
        self._finish(Outcome(disposition, by, cause.code, cause.text))

    def _digits(self, digits: str) -> None:
        self._pressed(digits, "info")

    def _pressed(self, digits: str, way: str) -> None:
        now = self._services.clock.monotonic()
        for digit in digits:
            if not self._keys.press(digit, way, now):
                continue
            if self._key_relay is not None:
                self._key_relay(digit, way)
            elif self._dialogue is not None:
                self._dialogue.key(digit)

    def _press(self, media: MediaLegHandle, digits: str) -> None:
        """Keys for the far end, in whatever way it takes them."""
        if not self._leg.send_digits(digits):
            media.send_digits(digits)

    def _send_keys_to(self, relay: KeyRelay | None) -> None:
        self._key_relay = relay

    def on_tick(self, at: float, frame: int, level_dbfs: float, speech: float, sent_dbfs: float) -> None:
        # On hold there is music or nothing: neither an answer nor a silence to ask about.
        if self._placing is not None:
            self._placing.on_tick(at, frame, level_dbfs, speech, sent_dbfs)
            if self._answered_at is None or self._placing.deaf:
                return
        if self._listening is not None and not self._away:
            self._listening.on_tick(at, frame, level_dbfs, speech, sent_dbfs)

    def on_digit(self, digit: str, frame: int) -> None:
        self._pressed(digit, "media")

    def _overheard(self, text: str, final: bool) -> None:
        if self._placing is not None:
            self._placing.overheard(text, final)

    def on_playout_started(self, utterance: int, frame: int, at: float) -> None:
        if self._placing is not None:
            self._placing.greeted(at)
        if self._speaker is not None:
            self._speaker.on_playout_started(utterance, frame, at)
        if self._dialogue is not None:
            self._dialogue.utterance_started()

    def on_playout_done(self, utterance: int, played: int, frame: int) -> None:
        if self._speaker is not None:
            self._speaker.on_playout_done(utterance, played)

    def on_flushed(self, utterance: int, played: int, frame: int) -> None:
        if self._speaker is not None:
            self._speaker.on_flushed(utterance, played)

    def on_media_timeout(self, silent_s: float) -> None:
        rule = self._services.trunks.by_name(self._leg.info.trunk) if self._services.trunks is not None else None
        if self._answered_at is None:
            return  # it rings, in silence
        if self._away or (rule is not None and rule.media_timeout == "keep"):
            logger.info("call %s: no audio for %.0f s; the call is kept", self.call_id, silent_s)
            return
        text = f"no audio from the caller for {silent_s:.0f} s"
        self._finish(Outcome(Disposition.FAILED, HangupBy.BOX, 408, text))

    def on_media_lost(self) -> None:
        self._finish(Outcome(Disposition.INTERRUPTED, HangupBy.BOX, 500, "the media process stopped"))
