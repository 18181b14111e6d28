"""Who has answered an outgoing call: a person, an answering machine, a screening assistant or a fax. PURE.

The machine listens beside the agent, which greets at once as on any call: nobody is kept waiting for a verdict. Times
are seconds since the call was answered, given by the caller of each method.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from appliance.audio.call_tones import Beep, Tone, ToneKind

__all__ = [
    "Answering",
    "AnsweringMachine",
    "Beep",
    "DetectionConfig",
    "Event",
    "LeaveMessage",
    "Tone",
    "ToneKind",
    "Verdict",
    "VerdictKind",
]

VerdictKind = Literal["human", "machine", "screening", "fax", "unsure"]
OnMachine = Literal["hang_up", "message", "talk"]
OnScreening = Literal["answer", "hang_up"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Who has answered.

    Attributes:
        kind: ``unsure`` where nothing was heard that would tell: treat it as a human.
        confidence: that it is so, 0 to 1.
        at_s: when it was reached, seconds since the answer.
        why: what it rests on, in a few words for the record ("silence after a short greeting").
    """

    kind: VerdictKind
    confidence: float
    at_s: float
    why: str


@dataclass(frozen=True, slots=True)
class LeaveMessage:
    """A machine records from now on: a message may be left.

    Attributes:
        at_s: seconds since the answer.
        after: the beep, the silence after a greeting without one, or the limit on waiting for either.
    """

    at_s: float
    after: Literal["beep", "silence", "limit"]


Event = Verdict | Beep | Tone | LeaveMessage


@dataclass(frozen=True, slots=True)
class DetectionConfig:
    """The times of the detection, seconds.

    Attributes:
        give_up_s: after so long without a sound the verdict is ``unsure``.
        listen_s: a verdict may be revised for so long after the answer.
        message_silence_s: a greeting that ended in so much silence has no beep.
        message_limit_s: the longest wait for the end of a greeting, after the verdict.
    """

    give_up_s: float = 5.0
    listen_s: float = 60.0
    message_silence_s: float = 2.5
    message_limit_s: float = 45.0


@dataclass(frozen=True, slots=True)
class Answering:
    """What a campaign wants done about machines.

    Attributes:
        detect: whether to listen for one at all.
        on_machine: hang up, leave ``message`` once :class:`LeaveMessage` says so, or go on talking.
        message: what to leave; its ``${...}`` are filled in already.
        on_screening: answer an assistant's question with who calls and why, or hang up.
        config: the times.
    """

    detect: bool = True
    on_machine: OnMachine = "hang_up"
    message: str = ""
    on_screening: OnScreening = "answer"
    config: DetectionConfig = field(default_factory=DetectionConfig)


NO_EVENTS: Final[tuple[Event, ...]] = ()


class AnsweringMachine:
    """The detection of one call.

    Every method returns the events that follow, mostly none. The first :class:`Verdict` comes once; a later one
    replaces it (a "human" who talks on and beeps was a machine). Call order: everything that has happened before a
    time is told before that time.
    """

    def __init__(self, config: DetectionConfig | None = None) -> None:
        self.config = config if config is not None else DetectionConfig()
        self.verdict: Verdict | None = None

    def on_tick(self, t: float, level_dbfs: float, speech: float) -> tuple[Event, ...]:
        """Take a frame of 20 ms.

        Args:
            t: its end, seconds since the answer.
            level_dbfs: its RMS level.
            speech: the probability that it holds speech, 0 to 1; negative where there is none.
        """
        return NO_EVENTS

    def on_agent(self, t: float, speaking: bool) -> tuple[Event, ...]:
        """The agent has begun (true) or stopped (false) to speak."""
        return NO_EVENTS

    def on_audio(self, t: float, samples: NDArray[np.int16]) -> tuple[Event, ...]:
        """Take what was heard.

        Args:
            t: when the first sample was heard, seconds since the answer.
            samples: int16 [n] at 8 kHz, any number, following on what was given before.
        """
        return NO_EVENTS

    def on_text(self, t: float, text: str, final: bool) -> tuple[Event, ...]:
        """What the recogniser makes of what is being said (not final), or has made of it (final)."""
        return NO_EVENTS

    def get_timer(self) -> float | None:
        """When :meth:`handle_timer` wants to be called, seconds since the answer."""
        return None

    def handle_timer(self, now: float) -> tuple[Event, ...]:
        """The time of :meth:`get_timer` has come, or more."""
        return NO_EVENTS
