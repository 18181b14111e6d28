"""What a tool is: something a language model may do for a caller.

A tool is a function with a description that the model reads and a JSON schema that its arguments are checked with::

    async def opening_hours(arguments, call):
        return {"monday": "9 to 17", "sunday": "closed"}

    Tool(
        name="opening_hours",
        description="When the shop is open.",
        parameters={"type": "object", "properties": {}, "additionalProperties": False},
        run=opening_hours,
        side_effects=False,
    )

What it returns is given to the model as JSON. What goes wrong it raises as :class:`~appliance.errors.ToolError`, whose
message the model is told; of any other exception the model only learns that the tool failed. A tool with side effects
is begun when the caller has certainly finished speaking; one without may be begun before, and for nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

from appliance.errors import ToolError

__all__ = ["Answer", "Arguments", "OngoingCall", "Question", "RunTool", "Tool", "ToolError"]

LEAVE: Final = "Shall I really do that?"
"""What is asked before a tool whose source says no more than that it needs leave: in the language of the line."""

Arguments: TypeAlias = Mapping[str, Any]
"""What the model wrote, once it has been checked against the tool's schema."""


@dataclass(frozen=True)
class Question:
    """Something that a tool asks the caller.

    Attributes:
        text: what is said; "" asks nothing and just listens.
        phrases: the closed list of what may be said; empty for anything.
        reject: with ``phrases``: have speech that fits none of them come back as not accepted.
        min_digits, max_digits: a number is wanted, so keys are gathered until there are ``max_digits``, until ``#``, or
            until none comes for ``key_timeout_s``. With ``max_digits`` 0 a single key is an answer.
        private: what is said and pressed until the answer is neither recorded, nor on record, nor told to plugins.
    """

    text: str
    phrases: tuple[str, ...] = ()
    reject: bool = True
    min_digits: int = 0
    max_digits: int = 0
    key_timeout_s: float = 3.0
    private: bool = False


@dataclass(frozen=True)
class Answer:
    """What the caller did: said ``words``, or pressed ``keys``; neither where there was silence.

    Not ``accepted``: nothing of what the question allowed; ``words`` is the best guess.
    """

    words: str = ""
    keys: str = ""
    accepted: bool = True


class OngoingCall(Protocol):
    """The call that a tool is used in. All but the facts and :meth:`say` is for tools that declare side effects."""

    @property
    def call_id(self) -> str: ...
    @property
    def line(self) -> str:
        """The line's name."""
        ...

    @property
    def caller(self) -> str:
        """The caller's number; "" where it is withheld."""
        ...

    @property
    def called(self) -> str: ...
    @property
    def idempotency_key(self) -> str:
        """For systems that must not do twice what is asked for once: the same when this use of the tool is repeated
        after a failure, and different for every other."""
        ...

    def say(self, text: str) -> None:
        """Say this at once, while the tool goes on."""
        ...

    async def ask(self, question: Question) -> Answer:
        """Ask the caller, and wait; that time does not count towards the tool's time-out.

        Raises:
            ToolError: the caller has gone on to something else.
        """
        ...

    def note(self, name: str, value: str) -> None:
        """Keep a slot in the call's record."""
        ...

    def press(self, digits: str) -> None:
        """Press keys on the line, once what was said before has been said."""
        ...

    def hand_on(self, target: str) -> None:
        """Put the caller through to one of the line's ``transfers``, once all has been said. Ends the reply.

        Raises:
            ToolError: the line has no such target.
        """
        ...

    def hang_up(self, reason: str, farewell: str = "") -> None:
        """End the call once all has been said; ``farewell`` is said if the model has said nothing. Ends the reply."""
        ...


RunTool: TypeAlias = Callable[[Arguments, OngoingCall], Awaitable[Any]]


@dataclass(frozen=True, kw_only=True)
class Tool:
    """Something a language model may do.

    Attributes:
        name: letters, digits, ``_`` and ``-``.
        description: tells the model what it does and when to use it.
        parameters: JSON schema (2020-12) of its arguments, of type object.
        run: does it; what it returns becomes JSON.
        side_effects: it changes something, or anybody can notice it. Without, it may be run in advance and repeated.
        cancellable: it may be cancelled half-way although it has side effects. Else it is finished even where the
            caller interrupts; the model learns the result with the next turn.
        timeout_s: it has failed after this long.
        filler: said when the caller has to wait for it; "" for the line's own.
        confirm: asked before it runs, to be answered yes or no by the caller and not by the model; ``{name}`` stands
            for an argument. "" for a tool that needs no leave.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    run: RunTool
    side_effects: bool = True
    cancellable: bool = False
    timeout_s: float = 10.0
    filler: str = ""
    confirm: str = ""
