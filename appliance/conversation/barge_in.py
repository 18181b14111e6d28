"""Whether a sound over the agent is an interruption. PURE.

The agent falls silent as soon as there is a voice (:class:`Agent` PAUSED), and only then it is decided: words that
are no backchannel stop it at once, a voice that has not ended when the pause may not last any longer stops it too,
and everything else lets it go on. The words come from the recogniser, which is asked at the sound's first silence; if
they do not come in time, the length of the sound decides alone.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final


class Agent(enum.Enum):
    """What the agent is doing."""

    SILENT = "silent"
    TALKING = "talking"
    PAUSED = "paused"
    STOPPED = "stopped"


class Overlap(enum.Enum):
    """What moves it on."""

    BEGINS = "begins to speak"
    ENDS = "has finished"
    VOICE = "a voice over it"
    MEANT = "it was an interruption"
    SLIGHT = "it was none"


TRANSITIONS: Final[Mapping[tuple[Agent, Overlap], Agent]] = MappingProxyType(
    {
        (Agent.SILENT, Overlap.BEGINS): Agent.TALKING,
        (Agent.TALKING, Overlap.VOICE): Agent.PAUSED,
        (Agent.PAUSED, Overlap.MEANT): Agent.STOPPED,
        (Agent.PAUSED, Overlap.SLIGHT): Agent.TALKING,
        (Agent.TALKING, Overlap.ENDS): Agent.SILENT,
        (Agent.PAUSED, Overlap.ENDS): Agent.SILENT,
        (Agent.STOPPED, Overlap.ENDS): Agent.SILENT,
    }
)

_INSISTS_FRAMES: Final = 18
_INSISTS_AT_ONCE_FRAMES: Final = 30
_TOGETHER_FRAMES: Final = 40
_NEVER: Final = -(1 << 30)


class Floor:
    """Who has the floor: what the agent does, and how much voice there has been over it.

    Frames are of 20 ms. ``interruptible`` is of what the agent says just now.
    """

    def __init__(self) -> None:
        self.agent = Agent.SILENT
        self.interruptible = True
        self.paused_at = 0
        self._over = 0
        self._voiced = 0
        self._sounds = 0
        self._last = _NEVER

    @property
    def barred(self) -> bool:
        """Whether the agent speaks and may not be interrupted."""
        return self.agent is not Agent.SILENT and not self.interruptible

    def go(self, event: Overlap, frame: int) -> None:
        self.agent = TRANSITIONS[self.agent, event]
        if self.agent is Agent.PAUSED:
            self.paused_at = frame
            if frame - self._last > _TOGETHER_FRAMES:
                self._voiced = self._sounds = 0
            self._sounds += 1
        elif event is Overlap.BEGINS:
            self._over = 0

    def voice(self, frame: int, voiced: int) -> None:
        """``voiced`` more frames of voice, the last of them ``frame``."""
        if self.agent is Agent.TALKING:
            self._over += voiced
        elif self.agent is Agent.PAUSED:
            self._voiced += voiced
            self._last = frame

    def goes_on(self, frame: int) -> None:
        """The sound of the last pause goes on, with its newest frame of voice, beside an agent that talks again."""
        self._last = frame

    def lasted(self, voiced: int) -> bool:
        """Whether there have been so many frames of voice over the agent."""
        return self._over >= voiced

    def another(self) -> None:
        """A sound has begun after a silence within the pause."""
        self._sounds += 1

    def quiet(self) -> None:
        """The sound has ended."""
        self._over = 0

    def insists(self, *, at_once: bool = False) -> bool:
        """Whether several sounds, shortly after one another, are speech together."""
        return self._sounds > 1 and self._voiced >= (_INSISTS_AT_ONCE_FRAMES if at_once else _INSISTS_FRAMES)


BACKCHANNELS: Final = (
    "ah",
    "aha",
    "all right",
    "alright",
    "exactly",
    "fine",
    "good",
    "got it",
    "great",
    "hm",
    "hmm",
    "huh",
    "i know",
    "i see",
    "i understand",
    "m hm",
    "mhm",
    "mm",
    "mm hm",
    "mm hmm",
    "mmhm",
    "oh",
    "ok",
    "okay",
    "perfect",
    "really",
    "right",
    "sure",
    "thank you",
    "thanks",
    "true",
    "uh huh",
    "uh hum",
    "uhhuh",
    "um hm",
    "wow",
    "yeah",
    "yep",
    "yes",
    "yup",
)
"""What a listener says to show that he listens, in English."""

RIVALS: Final = ("mm hmm", "yeah", "okay", "right", "i see")
"""Backchannels that a recogniser of a closed list is offered beside what the line expects, for sounds over the agent:
without them it makes "yes" of "yeah". More of them would take short answers for backchannels."""

_HESITATIONS: Final = ("uh", "um", "er", "erm", "eh")
_LETTERS_PER_S: Final = 25.0
_LETTERS_AT_ONCE: Final = 8
_MAX_WORDS: Final = 4
_WORD: Final = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*|\d+")
_PHRASES: Final = frozenset(tuple(phrase.split()) for phrase in (*BACKCHANNELS, *_HESITATIONS))
_LONGEST: Final = max(len(phrase) for phrase in _PHRASES)


class Words(enum.Enum):
    """What words over the agent mean."""

    NONE = "no words"
    BACKCHANNEL = "a backchannel"
    INTERRUPTION = "an interruption"
    DOUBTFUL = "not to be trusted"


def weigh(text: str, sound_s: float, *, accepted: bool, expected: bool = False) -> Words:
    """What ``text`` heard in ``sound_s`` seconds of sound over the agent means.

    Args:
        text: the recogniser's.
        sound_s: the length of the sound. Recognisers make whole sentences of a cough; more letters than can be spoken
            in that time are doubtful.
        accepted: the recogniser stands by it.
        expected: it answers what the line has asked, so that even "yes" is an interruption.
    """
    words = _WORD.findall(text.lower())
    if not words:
        return Words.NONE if accepted else Words.DOUBTFUL
    if not accepted or sum(map(len, words)) > _LETTERS_AT_ONCE + _LETTERS_PER_S * sound_s:
        return Words.DOUBTFUL
    if not expected and is_backchannel(words):
        return Words.BACKCHANNEL
    return Words.INTERRUPTION


def is_backchannel(words: list[str]) -> bool:
    """Whether ``words``, in lower case, are backchannels and nothing else ("yeah, okay")."""
    if len(words) > _MAX_WORDS:
        return False
    at = 0
    while at < len(words):
        for length in range(min(_LONGEST, len(words) - at), 0, -1):
            if tuple(words[at : at + length]) in _PHRASES:
                at += length
                break
        else:
            return False
    return True


def may_become_backchannel(words: list[str]) -> bool:
    """Whether ``words`` are the beginning of one ("i" of "i see")."""
    return any(phrase[: len(words)] == tuple(words) for phrase in _PHRASES) or is_backchannel(words)


def words_of(text: str) -> list[str]:
    """The words of ``text`` in lower case, without punctuation."""
    return _WORD.findall(text.lower())
