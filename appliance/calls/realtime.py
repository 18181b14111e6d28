"""What a line needs whose model hears and speaks by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from appliance.calls.brains import about_call, call_in_box, hand_overs_of, number_of, values_of, with_fallback
from appliance.calls.tool_sources import DoNotCall, Offered, ToolSources
from appliance.clock import Clock
from appliance.conversation import brain, manners
from appliance.conversation.conversing import Workers
from appliance.conversation.dialogue import Dialogue
from appliance.conversation.hooked import NONE, HooksOfCall
from appliance.conversation.realtime_brain import AudioEars, RealtimeBrain, RealtimePersona
from appliance.conversation.tools import CallFacts
from appliance.dialplan import flow
from appliance.dialplan.schema import Line
from appliance.errors import EngineError
from appliance.ipc.rings import FRAME_SAMPLES, AudioRings
from appliance.signalling.leg import CallInfo


class MediaSlot(Protocol):
    """The media leg whose audio the model hears and speaks."""

    @property
    def slot(self) -> int: ...
    @property
    def generation(self) -> int: ...


@dataclass(frozen=True)
class Realtime:
    """One call's.

    Attributes:
        brain: for the dialogue; goes the line's other way once the model has failed.
        model: the part of it that has the model.
        needs_recogniser: the other way has to understand words.
    """

    brain: brain.Brain
    model: RealtimeBrain
    media: MediaSlot
    clock: Clock
    detects_turns: bool
    needs_recogniser: bool

    def ears_for(self, dialogue: Dialogue, rings: AudioRings) -> AudioEars:
        """What is told of the caller's sounds, instead of the dialogue itself."""
        self.model.on_caller_words = dialogue.understood
        return AudioEars(
            dialogue,
            self.model,
            lambda: int(rings.frames[self.media.slot]) * FRAME_SAMPLES,
            detects_turns=self.detects_turns,
            now=self.clock.monotonic,
        )


def make_realtime(
    line: Line,
    info: CallInfo,
    workers: Workers | None,
    media: MediaSlot,
    clock: Clock,
    do_not_call: DoNotCall | None,
    sources: ToolSources,
    hooks: HooksOfCall = NONE,
    of_host: Sequence[Offered] = (),
) -> Realtime:
    """What one call on ``line`` needs.

    Raises:
        EngineError: the box has no such model.
    """
    if workers is None:
        raise EngineError(
            f"line {line.name!r} has `agent: realtime` but engines.speech.provider is none", retryable=False
        )
    caller, values = number_of(info), values_of(line, info)
    hand_overs = hand_overs_of(line, values)
    detects_turns = line.turn.by == "model"
    model = RealtimeBrain(
        workers,
        media.slot,
        media.generation,
        RealtimePersona(
            prompt=line.prompt or "",
            opening=[brain.Say(said.text, said.interruptible) for said in flow.opening(line, values)],
            no_input_prompts=line.no_input.prompts,
            no_input_retries=line.no_input.retries,
            expectation=brain.Expectation(no_input_s=line.no_input.after_s),
            voice=line.voice.name,
            language=line.voice.language or line.language,
            detects_turns=detects_turns,
            filler_after_s=line.filler.after_s,
            fillers=line.filler.texts or manners.fillers(line.language),
            transfers=hand_overs,
        ),
        facts=CallFacts(info.leg_id, line.name, caller, info.called),
        tools=sources.tools_for(call_in_box(line, info, hand_overs, None, do_not_call, clock.utc), of_host),
        slots={},
        about=about_call(info),
        now=clock.monotonic,
        hooks=hooks,
    )
    whole = with_fallback(model, line, info)
    needs_recogniser = line.on_engine_failure is not None and line.on_engine_failure.step is not None
    return Realtime(whole, model, media, clock, detects_turns, needs_recogniser)
