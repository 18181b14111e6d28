"""The life of one call, on one page."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from appliance.calls.brains import make_brain
from appliance.calls.recording import RecorderClient
from appliance.clock import Clock
from appliance.conversation.brain import Brain
from appliance.conversation.budget import VerdictBudget
from appliance.conversation.dialogue import Dialogue, Ended
from appliance.conversation.listening import Listening
from appliance.conversation.speaker import Speaker, Voice
from appliance.conversation.turn_log import TurnLog
from appliance.conversation.turns import FRAME_S, TurnConfig, TurnMachine
from appliance.dialplan.schema import Line
from appliance.engines.client import EnginePool
from appliance.errors import MediaError, StoreError
from appliance.events import (
    CallAnswered,
    CallEnded,
    CallEvent,
    CallRinging,
    CallStarted,
    Direction,
    Disposition,
    HangupBy,
    RecordingFinished,
    RecordingStarted,
)
from appliance.ipc.messages import LegClosed
from appliance.ipc.rings import AudioRings
from appliance.media.client import MediaClient, MediaLegHandle
from appliance.signalling.leg import HangupCause, Leg

logger = logging.getLogger(__name__)

_RECORD_TIMEOUT_S: Final = 3.0
"""An answer waits this long for the record to hold the call; a caller waits no longer than that."""


class CallLog(Protocol):
    """Where a call's events go: the record first, then whoever counts."""

    def started(self, event: CallStarted) -> asyncio.Future[None]:
        """Puts the call on its way into the record; done when the record holds it.

        Raises:
            StoreError: at once or when awaited, where it cannot.
        """
        ...

    def say(self, event: CallEvent) -> None: ...
    def leg_closed(self, leg: LegClosed) -> None: ...


@dataclass(frozen=True)
class Services:
    """What every call uses; made once by the control process."""

    clock: Clock
    rings: AudioRings
    media: MediaClient
    recorder: RecorderClient | None
    log: CallLog
    asr: EnginePool | None
    turn: EnginePool | None
    verdicts: VerdictBudget
    tts: EnginePool
    llm: EnginePool | None
    asr_timeout_s: float
    llm_timeout_s: float
    recordings: Path


@dataclass(frozen=True)
class Outcome:
    """How a call ended, in the record's words."""

    disposition: Disposition
    by: HangupBy
    code: int = 0
    text: str = ""


class CallSession:
    """One inbound call from INVITE to record. :meth:`run` never raises; :meth:`end` ends it from outside."""

    def __init__(self, leg: Leg, line: Line, services: Services) -> None:
        self.call_id = leg.info.leg_id
        self._leg = leg
        self._line = line
        self._services = services
        self._over: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._answered_at: float | None = None
        self._slots: dict[str, str] = {}
        self._brain: Brain | None = None
        self._dialogue: Dialogue | None = None
        self._listening: Listening | None = None
        self._speaker: Speaker | None = None
        self._media: MediaLegHandle | None = None
        leg.on_hangup = self._hung_up
        leg.on_digits = self._digits

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

    def end(self, disposition: Disposition, text: str) -> None:
        """End the call from outside (drain, shutdown)."""
        self._finish(Outcome(disposition, HangupBy.BOX, text=text))

    async def _set_up(self) -> Outcome | None:
        """Ring at once; answer when the record holds the call and a port is open. An outcome means it ended here."""
        services = self._services
        self._leg.ring()
        started: asyncio.Future[None] | None = None
        try:
            started = services.log.started(self._started_event())
            services.log.say(
                CallRinging(
                    call_id=self.call_id, ringing_at=services.clock.monotonic(), ringing_utc=services.clock.utc()
                )
            )
            self._media = await services.media.open_leg(self)
            async with asyncio.timeout(_RECORD_TIMEOUT_S):
                await started
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
        self._leg.answer(self._media)
        self._answered_at = services.clock.monotonic()
        services.log.say(
            CallAnswered(call_id=self.call_id, answered_at=self._answered_at, answered_utc=services.clock.utc())
        )
        return None

    async def _talk(self) -> Outcome:
        """Until the caller, the agent, or a limit ends it."""
        assert self._dialogue is not None and self._media is not None
        self._start_recording(self._media)
        conversation = asyncio.create_task(self._dialogue.run())
        try:
            waiting: set[asyncio.Future[Any]] = {conversation, self._over}
            done, _ = await asyncio.wait(
                waiting, timeout=self._line.max_duration_s, return_when=asyncio.FIRST_COMPLETED
            )
            if conversation in done:
                ended: Ended = conversation.result()
                outcome = Outcome(Disposition.COMPLETED, HangupBy.AGENT, 200, ended.reason)
            elif self._over in done:
                outcome = self._over.result()
            else:
                outcome = Outcome(Disposition.COMPLETED, HangupBy.BOX, 200, "maximum duration reached")
        finally:
            conversation.cancel()
            await asyncio.gather(conversation, return_exceptions=True)
        return outcome

    async def _wind_up(self, outcome: Outcome) -> None:
        """Whatever happened: the leg is down, the media slot is free, the record is complete."""
        services = self._services
        self._leg.hangup(outcome.text)
        if self._dialogue is not None and self._listening is not None and self._speaker is not None:
            await self._dialogue.close()
            await self._listening.close()
            await self._speaker.close()
        if self._media is not None:
            await self._close_media(self._media)
        services.log.say(
            CallEnded(
                call_id=self.call_id,
                ended_at=services.clock.monotonic(),
                ended_utc=services.clock.utc(),
                disposition=outcome.disposition,
                hangup_by=outcome.by,
                hangup_code=outcome.code,
                hangup_text=outcome.text,
                slots=dict(self._brain.slots) if self._brain is not None and self._answered_at is not None else {},
            )
        )
        logger.info(
            "call %s ended: %s by %s%s",
            self.call_id,
            outcome.disposition.value,
            outcome.by.value,
            f" ({outcome.text})" if outcome.text else "",
        )
        self._let_go()

    def _let_go(self) -> None:
        """Nothing of the conversation outlives it: signalling keeps a leg for 32 s more (RFC 3261 timers H to K)."""
        self._leg.on_hangup = self._leg.on_digits = None
        self._dialogue = self._listening = self._speaker = self._media = None
        self._brain = None

    # --- parts ----------------------------------------------------------------------------------------------------

    def _connect_conversation(self, media: MediaLegHandle) -> None:
        services, line = self._services, self._line
        brain = make_brain(line, self._leg.info, services.llm, services.llm_timeout_s, services.clock.monotonic)
        self._brain = brain
        self._dialogue = Dialogue(
            brain,
            barge_in=line.barge_in,
            now=services.clock.monotonic,
            on_turn=self._turn_finished,
        )
        self._listening = Listening(
            media.slot,
            media.generation,
            TurnMachine(_turn_config(line)),
            services.asr,
            services.turn,
            services.verdicts,
            language=line.language,
            asr_timeout_s=services.asr_timeout_s,
            delay_s=lambda: int(services.rings.delay[media.slot]) * FRAME_S,
            on_turn=self._dialogue.heard,
            on_barge_in=self._dialogue.barged_in,
            on_silence=self._dialogue.silent,
        )
        self._speaker = Speaker(
            media,
            services.rings,
            services.tts,
            Voice(line.language, line.voice.name, line.voice.rate),
            services.clock.monotonic,
            self._dialogue.utterance_over,
        )
        self._dialogue.attach(self._listening, self._speaker)

    def _start_recording(self, media: MediaLegHandle) -> None:
        recorder = self._services.recorder
        if recorder is None or not self._line.record:
            return
        day = self._services.clock.utc().strftime("%Y/%m/%d")
        path = self._services.recordings / day / f"{self.call_id}.wav"
        recorder.start(self.call_id, media.slot, media.generation, path)
        self._services.log.say(RecordingStarted(call_id=self.call_id, path=str(path), start_frame=0))

    async def _close_media(self, media: MediaLegHandle) -> None:
        recorder = self._services.recorder
        recorded = None
        closed = await media.close()
        if closed is not None:
            self._services.log.leg_closed(closed)
        if recorder is not None and recorder.active(self.call_id):
            recorded = await recorder.stop(self.call_id, media)
        media.release()
        if recorded is not None:
            self._services.log.say(
                RecordingFinished(
                    call_id=self.call_id, path=recorded.path, frames=recorded.frames, problem=recorded.problem
                )
            )

    def _started_event(self) -> CallStarted:
        info, clock = self._leg.info, self._services.clock
        return CallStarted(
            call_id=self.call_id,
            started_at=clock.monotonic(),
            started_utc=clock.utc(),
            direction=Direction.INBOUND,
            protocol=info.protocol,
            protocol_call_id=info.protocol_call_id,
            trunk=info.trunk,
            line=self._line.name,
            called=info.called,
            calling=info.calling,
            calling_name=info.calling_name,
        )

    def _turn_finished(self, turn: TurnLog) -> None:
        assert self._answered_at is not None
        event = turn.finished(self.call_id, self._answered_at, self._services.clock.utc())
        self._services.log.say(event)

    def _finish(self, outcome: Outcome) -> None:
        if not self._over.done():
            self._over.set_result(outcome)

    # --- what the leg and media say -------------------------------------------------------------------------------

    def _hung_up(self, cause: HangupCause) -> None:
        by = HangupBy.CALLER if cause.by == "caller" else HangupBy.BOX
        if self._answered_at is None:
            disposition = Disposition.CANCELLED if cause.by == "caller" else Disposition.FAILED
        else:
            disposition = Disposition.COMPLETED if cause.by == "caller" else Disposition.FAILED
        self._finish(Outcome(disposition, by, cause.code, cause.text))

    def _digits(self, digits: str) -> None:
        if self._dialogue is not None:
            for digit in digits:
                self._dialogue.key(digit)

    def on_tick(self, at: float, frame: int, level_dbfs: float, speech: float) -> None:
        if self._listening is not None:
            self._listening.on_tick(at, frame, level_dbfs, speech)

    def on_digit(self, digit: str, frame: int) -> None:
        self._digits(digit)

    def on_playout_started(self, utterance: int, frame: int, at: float) -> None:
        if self._speaker is not None:
            self._speaker.on_playout_started(utterance, frame, at)

    def on_playout_done(self, utterance: int, played: int, frame: int) -> None:
        if self._speaker is not None:
            self._speaker.on_playout_done(utterance, played)

    def on_flushed(self, utterance: int, played: int, frame: int) -> None:
        if self._speaker is not None:
            self._speaker.on_flushed(utterance, played)

    def on_media_timeout(self, silent_s: float) -> None:
        text = f"no RTP from the caller for {silent_s:.0f} s"
        self._finish(Outcome(Disposition.FAILED, HangupBy.BOX, 408, text))

    def on_media_lost(self) -> None:
        self._finish(Outcome(Disposition.INTERRUPTED, HangupBy.BOX, 500, "the media process stopped"))


def _turn_config(line: Line) -> TurnConfig:
    usual = TurnConfig()
    return TurnConfig(
        patience=line.turn.patience,
        sure=(usual.sure[0], line.turn.min_silence_s),
        unsure=(usual.unsure[0], line.turn.max_silence_s),
        no_input_s=line.no_input.after_s,
    )
