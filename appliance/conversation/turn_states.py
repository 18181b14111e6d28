"""What the caller may be doing, what moves it on, and the diagrams of both sides of the floor. PURE."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from appliance.conversation.barge_in import TRANSITIONS as AGENT_TRANSITIONS
from appliance.conversation.barge_in import Agent


class State(enum.Enum):
    """What the caller is doing."""

    QUIET = "quiet"
    ONSET = "onset"
    SPEAKING = "speaking"
    PAUSING = "pausing"


class Event(enum.Enum):
    """What moves the machine on."""

    VOICE = "voice begins"
    VOICE_LOST = "it was a click"
    VOICE_HELD = "voice has held"
    FELL = "first silence"
    RESUMED = "voice again"
    ENOUGH_SILENCE = "enough silence"
    TOO_LONG = "utterance too long"
    NOT_MEANT = "not meant for the agent"


TRANSITIONS: Final[Mapping[tuple[State, Event], State]] = MappingProxyType(
    {
        (State.QUIET, Event.VOICE): State.ONSET,
        (State.ONSET, Event.VOICE_LOST): State.QUIET,
        (State.ONSET, Event.VOICE_HELD): State.SPEAKING,
        (State.SPEAKING, Event.FELL): State.PAUSING,
        (State.SPEAKING, Event.TOO_LONG): State.QUIET,
        (State.SPEAKING, Event.NOT_MEANT): State.QUIET,
        (State.PAUSING, Event.RESUMED): State.SPEAKING,
        (State.PAUSING, Event.ENOUGH_SILENCE): State.QUIET,
        (State.PAUSING, Event.NOT_MEANT): State.QUIET,
    }
)


def turn_diagram() -> str:
    """The machine's state diagram in Mermaid, drawn from the table that runs it."""
    return _diagram(State.QUIET.value, [(a.value, b.value, e.value) for (a, e), b in TRANSITIONS.items()])


def barge_in_diagram() -> str:
    """The agent's, likewise."""
    moves = AGENT_TRANSITIONS.items()
    return _diagram(Agent.SILENT.value, [(a.value, b.value, e.value) for (a, e), b in moves])


def _diagram(first: str, moves: list[tuple[str, str, str]]) -> str:
    lines = ["stateDiagram-v2", f"    [*] --> {first}"]
    lines += [f"    {before} --> {after}: {event}" for before, after, event in moves]
    return "\n".join(lines) + "\n"
