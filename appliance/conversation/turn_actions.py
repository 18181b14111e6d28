"""What the turn machine tells the call to do. PURE."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, TypeAlias


class CommitReason(enum.Enum):
    """Why a turn was committed."""

    VERDICT = "verdict"
    NO_VERDICT = "no_verdict"
    MAX_UTTERANCE = "max_utterance"


class StopReason(enum.Enum):
    """Why the agent, silent for a sound already, is not to go on."""

    SUSTAINED = "sustained"
    WORDS = "words"


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """The caller has begun to speak, at frame ``start``; it was certain after frame ``at``."""

    at: int
    start: int


@dataclass(frozen=True, slots=True)
class FirstSilence:
    """The caller may have finished [speech_start, speech_end): finalise the recogniser, begin to speculate.

    ``attempt`` names this pause; what was heard comes back with it (:meth:`TurnMachine.partial` and
    :meth:`TurnMachine.heard_over_agent`).
    """

    at: int
    attempt: int
    speech_start: int
    speech_end: int


@dataclass(frozen=True, slots=True)
class AskTurnModel:
    """Ask how likely it is that the caller has finished, given the audio up to frame ``at`` (inclusive)."""

    at: int
    ask: int
    speech_start: int


@dataclass(frozen=True, slots=True)
class SpeechResumed:
    """The caller goes on: whatever ``attempt`` has begun is to be cancelled."""

    at: int
    attempt: int


@dataclass(frozen=True, slots=True)
class TurnCommitted:
    """The turn [speech_start, speech_end) is the agent's to answer.

    A :class:`FirstSilence` of the same ``attempt`` has always come before; ``speech_end`` may lie a little later than
    it said (the released "t" of "eight" after its closure). ``probability`` is how likely it was by the last
    verdict that the caller had finished, None where there was none.
    """

    at: int
    attempt: int
    speech_start: int
    speech_end: int
    reason: CommitReason
    probability: float | None


@dataclass(frozen=True, slots=True)
class PauseAgent:
    """There is a sound over the agent since frame ``start``: fall silent now, and remember where.

    :class:`StopAgent` or :class:`ResumeAgent` follows within ``TurnConfig.max_pause_s``, unless the agent is said not
    to speak any more before that (:meth:`TurnMachine.agent_speaking`).
    """

    at: int
    start: int


@dataclass(frozen=True, slots=True)
class StopAgent:
    """The caller has interrupted: what was paused is not said any more. The utterance goes on, and will be a turn."""

    at: int
    start: int
    reason: StopReason


@dataclass(frozen=True, slots=True)
class JudgeSound:
    """The sound over the agent since frame ``start`` goes on: is it one sound that is held, as a hum is?

    The answer (:meth:`TurnMachine.sounded`) is wanted before the next frame; without one it is speech.
    """

    at: int
    start: int


@dataclass(frozen=True, slots=True)
class HearSound:
    """The sound over the agent since frame ``start`` goes on: what are its words so far?

    A recogniser without partial results is asked as if the caller had finished; the answer goes to
    :meth:`TurnMachine.heard_over_agent`, with no attempt, and may be late or missing.
    """

    at: int
    start: int


@dataclass(frozen=True, slots=True)
class ResumeAgent:
    """It was a backchannel, or no speech: go on from where the agent paused.

    The utterance that began is no turn; what its pauses have begun is to be cancelled.
    """

    at: int


@dataclass(frozen=True, slots=True)
class SpeechDropped:
    """The utterance that began is no turn, for it ended while the agent could not be interrupted."""

    at: int


@dataclass(frozen=True, slots=True)
class NoInput:
    """The caller has said nothing for the time the line waits."""

    at: int


Action: TypeAlias = (
    SpeechStarted
    | FirstSilence
    | AskTurnModel
    | SpeechResumed
    | TurnCommitted
    | PauseAgent
    | StopAgent
    | JudgeSound
    | HearSound
    | ResumeAgent
    | SpeechDropped
    | NoInput
)
Actions: TypeAlias = tuple[Action, ...]

NOTHING: Final[Actions] = ()
