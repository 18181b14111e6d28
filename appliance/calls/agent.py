"""What leads one call on a line: the brain of its ``agent``, with what the line has around every brain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from appliance.calls.brains import ModelServices, make_brain, with_fallback
from appliance.calls.consent_brain import with_consent, without_disclosure
from appliance.calls.hand_back import make_shared_brain
from appliance.calls.realtime import MediaSlot, Realtime, make_realtime
from appliance.calls.services import Services
from appliance.calls.shortcut_brain import with_shortcuts
from appliance.calls.tool_sources import Offered
from appliance.conversation.brain import Brain
from appliance.conversation.endpointing import TurnConfig
from appliance.conversation.hooked import HooksOfCall
from appliance.dialplan.schema import Line
from appliance.signalling.leg import CallInfo


@dataclass(frozen=True)
class Agent:
    """One call's; ``realtime`` is None unless its model hears and speaks by itself."""

    brain: Brain
    realtime: Realtime | None

    @property
    def needs_recogniser(self) -> bool:
        return self.realtime is None or self.realtime.needs_recogniser


def make_agent(
    line: Line,
    info: CallInfo,
    services: Services,
    media: MediaSlot,
    hooks: HooksOfCall,
    offered: Sequence[Offered],
    *,
    asks: bool,
) -> Agent:
    """The agent of a call on ``line``.

    Args:
        services: those that the line has.
        offered: tools that plugins offer to this call.
        asks: the caller is asked first whether the call may be recorded.

    Raises:
        EngineError: the line wants a model that the box does not have.
    """
    as_written, line = line, without_disclosure(line) if asks else line
    realtime = None
    if line.agent == "realtime":
        realtime = make_realtime(
            line, info, services.speech, media, services.clock, services.callers, services.tools, hooks, offered
        )
        brain = realtime.brain
    else:
        make = make_shared_brain if line.agent == "flow" and line.converses else make_brain
        brain = with_fallback(make(line, info, _model(services), hooks, offered), line, info)
    if line.keys:
        brain = with_shortcuts(brain, line, info)
    if asks:
        brain = with_consent(brain, as_written, info)
    return Agent(brain, realtime)


def _model(services: Services) -> ModelServices | None:
    if services.llm is None:
        return None
    return ModelServices(services.llm, services.llm_timeout_s, services.clock, services.callers, services.tools)


def turn_config(line: Line) -> TurnConfig:
    """When a caller's turn is over on ``line``."""
    usual = TurnConfig()
    return TurnConfig(
        patience=line.turn.patience,
        sure=(usual.sure[0], line.turn.min_silence_s),
        unsure=(usual.unsure[0], line.turn.max_silence_s),
        no_input_s=line.no_input.after_s,
    )
