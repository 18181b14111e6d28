"""What decides what to say next: the seam between a conversation and a dialplan's flow, a language model, or both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias

from appliance.conversation.conversing import SpokenReply
from appliance.events import Consent, ToolRun

ALL_KEYS: Final = "0123456789*#ABCD"


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
        keys: those that answer the question that is open; all where they make up a number that was asked for.
        hints: words that are likely, for a recogniser of open vocabulary.
        private: what is said and pressed is nobody's business: neither recorded, nor on record, nor told to plugins.
    """

    phrases: tuple[str, ...] = ()
    pronunciations: tuple[tuple[str, str], ...] = ()
    reject: bool = False
    no_input_s: float | None = None
    key_timeout_s: float | None = None
    min_digits: int = 0
    keys: str = ""
    hints: tuple[str, ...] = ()
    private: bool = False


@dataclass(frozen=True)
class Opening:
    """The call has been answered."""


@dataclass(frozen=True)
class Heard:
    """The caller said something. Not ``accepted``: nothing that was expected, ``text`` is the best guess.

    ``instead`` is given where a plugin has kept back what was said: it is answered with this and not by the brain,
    unless it is ""; to the brain it is as if nothing had been understood.
    """

    text: str
    confidence: float | None
    accepted: bool
    instead: str | None = None


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
    """The caller could not be handed on, and is here again. ``denied``: why it was not even tried, in words."""

    denied: str = ""


@dataclass(frozen=True)
class GoTo:
    """Go on at this step of the flow, whatever was going on; only for brains that have one."""

    step: str


@dataclass(frozen=True)
class EnginesFailed:
    """Replies have failed, or callers could not be understood, as often as the line puts up with; ``problem``: why.

    Only for brains of lines that say what is to be done then.
    """

    problem: str


@dataclass(frozen=True)
class Notice:
    """Something that the box has to tell the caller by itself, between two turns; never given to a brain."""

    text: str


@dataclass(frozen=True)
class Detected:
    """Of a call that the box has placed: not a person has answered, or not yet.

    ``machine``: one that records later; ``message``: it records now; ``screening``: an assistant asks who calls.
    """

    what: Literal["machine", "message", "screening"]


Input: TypeAlias = (
    Opening | Heard | Key | KeysEnded | Silence | Spoken | TransferFailed | GoTo | EnginesFailed | Detected
)


@dataclass(frozen=True)
class Say:
    """A piece of the reply, spoken as it comes. ``filler``: it only bridges a wait, and is no part of the reply."""

    text: str
    interruptible: bool = True
    filler: bool = False


@dataclass(frozen=True)
class Speak:
    """A reply that comes as speech, with its words beside it; what is said after it waits for its end."""

    speech: SpokenReply


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
    caller's side is told to call there by itself, where it can. ``late``: ``announce`` is still a template, of values
    that are known when the caller is handed on.
    """

    to: str
    trunk: str = ""
    attended: bool = False
    timeout_s: float = 30.0
    announce: str = ""
    late: bool = False


@dataclass(frozen=True)
class ChangeLine:
    """Go on as the line of that name when everything has been said; the last step of a reply."""

    line: str
    reason: str


@dataclass(frozen=True)
class SendDigits:
    """Press these keys on the line, once what was said before has been said."""

    digits: str


@dataclass(frozen=True)
class Consented:
    """What the caller was told or has said about being recorded, once what was said before has been said."""

    consent: Consent


@dataclass(frozen=True)
class Used:
    """A tool has run, for the record."""

    tool: ToolRun


@dataclass(frozen=True)
class Asked:
    """The language model was asked, for the record: ``messages`` is JSON of those that are new with this turn."""

    messages: str


@dataclass(frozen=True)
class Answered:
    """The language model has answered, for the record: ``server`` is which one."""

    server: str


@dataclass(frozen=True)
class Trouble:
    """Something has failed, and the brain goes on in another way; for the record, in words."""

    problem: str


@dataclass(frozen=True)
class Pace:
    """From now on speak at ``factor`` times the line's own speed; 1.0 is the line's own again."""

    factor: float


Step: TypeAlias = (
    Say
    | Speak
    | Listen
    | HangUp
    | Transfer
    | ChangeLine
    | SendDigits
    | Consented
    | Used
    | Asked
    | Answered
    | Trouble
    | Pace
)


class Gate:
    """Whether the caller's turn is certain to be over: a reply is begun before that, and some of it has to wait."""

    def __init__(self, *, is_open: bool = True) -> None:
        self._opened = asyncio.Event()
        if is_open:
            self._opened.set()

    @property
    def is_open(self) -> bool:
        return self._opened.is_set()

    def open(self) -> None:
        self._opened.set()

    async def passed(self) -> None:
        """Return once it is open. What has an effect that anybody can notice is done after this."""
        await self._opened.wait()


OPEN: Final = Gate()


class Brain(Protocol):
    """Decides. One per call."""

    @property
    def slots(self) -> Mapping[str, str]:
        """What has been found out so far, for the record."""
        ...

    @property
    def tokens(self) -> int:
        """Tokens of a language model that replies have taken so far. A fork counts on from there: what it has more than
        the brain it was made of, when it is thrown away, was for nothing."""
        ...

    def reply(self, heard: Input, gate: Gate = OPEN) -> AsyncIterator[Step]:
        """What to do about it, step by step; closing the iterator abandons the reply.

        Until ``gate`` opens, it is not certain that the caller has finished: nothing may be done that has an effect
        outside of this brain (no tool with side effects, no note to anybody). The steps themselves are carried out
        only after that.
        """
        ...

    def report_tools(self, report: Callable[[ToolRun], None]) -> None:
        """Have ``report`` called with each tool that has run, to its end or not, and for whatever reply; holds for
        forks, too. Replies tell of those that they were given (:class:`Used`)."""
        ...

    def fork(self) -> Brain:
        """A copy that may be asked for a reply in advance, and thrown away; cheap, and nothing is shared that a reply
        changes. When the turn has become certain, the copy takes this one's place."""
        ...

    def was_said(self, meant: str, said: str) -> None:
        """Of the reply under way, the piece ``meant`` is said in the words ``said``; not called where that is the same.

        Comes before anything of the piece is heard, and in the order of the pieces.
        """
        ...

    def was_heard(self, text: str) -> None:
        """How much of the last reply, fillers left out, has really left towards the caller.

        Comes before the next reply, and before the fork that gives it. Of several for the same reply, the last counts.
        """
        ...

    async def close(self) -> None:
        """The call is over, and its record complete: finish what must be finished (a tool that may not be cut off, what
        is to be remembered of the caller). Bounded in time; raises nothing."""
        ...
