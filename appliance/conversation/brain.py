"""What decides what to say next: the seam between a conversation and a dialplan's flow, a language model, or both."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias


@dataclass(frozen=True)
class Expectation:
    """What the caller may say or press next.

    Attributes:
        phrases: the closed list the recogniser chooses from; empty for open vocabulary.
        pronunciations: (word, phones) the recogniser does not know.
        reject: say so when something else was said.
        no_input_s: silence after which the caller is taken to say nothing; None: wait.
        key_timeout_s: how long after a key the next one may come; None where keys do not make up a number.
        min_digits: spoken digits needed; fewer are an unfinished number. 0 where no digits are expected.
    """

    phrases: tuple[str, ...] = ()
    pronunciations: tuple[tuple[str, str], ...] = ()
    reject: bool = False
    no_input_s: float | None = None
    key_timeout_s: float | None = None
    min_digits: int = 0


@dataclass(frozen=True)
class Opening:
    """The call has been answered."""


@dataclass(frozen=True)
class Heard:
    """The caller said something. Not ``accepted``: nothing that was expected, ``text`` is the best guess."""

    text: str
    confidence: float | None
    accepted: bool


@dataclass(frozen=True)
class Key:
    """The caller pressed a key."""

    digit: str


@dataclass(frozen=True)
class KeysEnded:
    """No key came for ``key_timeout_s`` after the last."""


@dataclass(frozen=True)
class Silence:
    """The caller said nothing for ``no_input_s``."""


@dataclass(frozen=True)
class Spoken:
    """All that was to be said has been said, or was cut short; comes after every reply that does not hang up."""


@dataclass(frozen=True)
class TransferFailed:
    """The caller could not be handed on, and is here again."""


Input: TypeAlias = Opening | Heard | Key | KeysEnded | Silence | Spoken | TransferFailed


@dataclass(frozen=True)
class Say:
    """A piece of the reply, spoken as it comes."""

    text: str
    interruptible: bool = True


@dataclass(frozen=True)
class Listen:
    """Listen for this, from now on and while the rest is spoken."""

    expectation: Expectation


@dataclass(frozen=True)
class HangUp:
    """End the call when everything has been said; ``reason`` is for the record."""

    reason: str


@dataclass(frozen=True)
class Transfer:
    """Hand the caller on when everything has been said; the last step of a reply.

    ``to`` is a number, a name or a SIP URI; ``trunk`` "" leaves the choice to the routes. Not ``attended``: the
    caller's side is told to call there by itself, where it can.
    """

    to: str
    trunk: str = ""
    attended: bool = False
    timeout_s: float = 30.0
    announce: str = ""


Step: TypeAlias = Say | Listen | HangUp | Transfer


class Brain(Protocol):
    """Decides. One per call."""

    @property
    def slots(self) -> Mapping[str, str]:
        """What has been found out so far, for the record."""
        ...

    def reply(self, heard: Input) -> AsyncIterator[Step]:
        """What to do about it, step by step; closing the iterator abandons the reply."""
        ...

    def was_heard(self, text: str) -> None:
        """How much of the last reply has really left towards the caller."""
        ...
