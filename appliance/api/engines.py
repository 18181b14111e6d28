"""What an engine is, and what it may do.

An engine is a class of this shape, made by the factory of a :class:`Provider`::

    class Shout:
        kind = "asr"
        max_batch, max_wait_s, concurrency, cpu_bound = 1, 0.0, 4, False

        async def load(self) -> None: ...
        async def close(self) -> None: ...

        async def run(self, batch, context):
            for request in batch:
                pcm = context.caller_audio(request)
                context.recognised(request, "HELLO", confidence=0.5, accepted=True)

It lives in a worker process of its own, is loaded once, and serves all calls. Audio is mono signed 16-bit at 8 kHz
everywhere. Positions are samples since the leg was connected; times are CLOCK_MONOTONIC seconds.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Pcm: TypeAlias = NDArray[np.int16]
"""Mono samples at 8 kHz."""


class JudgeTurnRequest(Protocol):
    """How likely is it that the caller has finished, given the samples [start, end)?"""

    @property
    def request(self) -> int: ...
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def deadline(self) -> float: ...


class RecogniseRequest(JudgeTurnRequest, Protocol):
    """What was said in the samples [start, end)?

    ``phrases`` is the closed list of what is expected (empty: anything), ``pronunciations`` are (word, phones)
    additions, ``reject`` asks to be told when nothing expected was said, ``hints`` are words that are likely.

    A provider with ``partials`` is asked while the caller still speaks, too: ``final`` is false then, and each request
    of the same (``slot``, ``generation``, ``utterance``) reaches further than the one before.
    """

    @property
    def slot(self) -> int: ...
    @property
    def generation(self) -> int: ...
    @property
    def utterance(self) -> int: ...
    @property
    def final(self) -> bool: ...
    @property
    def hints(self) -> tuple[str, ...]: ...

    @property
    def language(self) -> str: ...
    @property
    def phrases(self) -> tuple[str, ...]: ...
    @property
    def pronunciations(self) -> tuple[tuple[str, str], ...]: ...
    @property
    def reject(self) -> bool: ...


class SynthesiseRequest(Protocol):
    """Speak ``text``; at most ``room`` samples fit. ``rate`` 1.0 is the voice's normal speed.

    Silence before it, phrases said before, fades and level are the worker's part. ``urgent``: the caller hears nothing
    until it is there. A negative ``slot`` is nobody's: it is said in advance.
    """

    @property
    def request(self) -> int: ...
    @property
    def slot(self) -> int: ...
    @property
    def text(self) -> str: ...
    @property
    def language(self) -> str: ...
    @property
    def voice(self) -> str: ...
    @property
    def rate(self) -> float: ...
    @property
    def urgent(self) -> bool: ...
    @property
    def room(self) -> int: ...


class ToolCallShape(Protocol):
    """A tool that a model asked for; ``arguments`` is JSON text as it came."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def arguments(self) -> str: ...


class ToolShape(Protocol):
    """A tool that a model may ask for; ``parameters`` is a JSON schema, as text."""

    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def parameters(self) -> str: ...


class ChatTurn(Protocol):
    """One message of a conversation; ``role`` is system, user, assistant or tool.

    ``tool_calls`` is what an assistant's message asked for, ``call_id`` which of them a tool's message answers.
    """

    @property
    def role(self) -> str: ...
    @property
    def content(self) -> str: ...
    @property
    def tool_calls(self) -> Sequence[ToolCallShape]: ...
    @property
    def call_id(self) -> str: ...


class GenerateRequest(Protocol):
    """What comes next in the conversation?

    ``first_token_by`` is when its first token has to be there (0: by ``deadline``), ``session`` names the conversation,
    ``max_tokens`` 0 leaves the length to the model.
    """

    @property
    def request(self) -> int: ...
    @property
    def messages(self) -> Sequence[ChatTurn]: ...
    @property
    def deadline(self) -> float: ...
    @property
    def tools(self) -> Sequence[ToolShape]: ...
    @property
    def first_token_by(self) -> float: ...
    @property
    def session(self) -> str: ...
    @property
    def max_tokens(self) -> int: ...


class ConverseRequest(Protocol):
    """Hold a call's conversation: hear the caller, and speak.

    ``history`` has been said already, the greeting for instance. ``detects_turns``: say with ``Talk.caller_turn`` when
    the caller begins to speak and has finished; all is to be heard then, from the beginning on.
    """

    @property
    def request(self) -> int: ...
    @property
    def slot(self) -> int: ...
    @property
    def generation(self) -> int: ...
    @property
    def instructions(self) -> str: ...
    @property
    def voice(self) -> str: ...
    @property
    def language(self) -> str: ...
    @property
    def history(self) -> Sequence[ChatTurn]: ...
    @property
    def tools(self) -> Sequence[ToolShape]: ...
    @property
    def detects_turns(self) -> bool: ...


class Talker(Protocol):
    """What the box tells an engine that converses; see :meth:`Talk.attend`. All of it must return at once."""

    def hear(self, start: int) -> None:
        """The caller speaks, from this sample on. What was heard before and not replied to is to be forgotten."""
        ...

    def caller_silent(self, keep: bool) -> None:
        """The caller does not speak any more. Not ``keep``: it was no turn, and is to be forgotten."""
        ...

    def respond(self, reply: int, heard: bool) -> None:
        """Reply, by this number, to what the caller has said, or without ``heard`` to what was added."""
        ...

    def cut_short(self, reply: int, heard: int) -> None:
        """Nothing more is wanted of this reply. So many of its samples were heard; -1: it will be told later."""
        ...

    def add(self, message: ChatTurn) -> None:
        """Something that the model is to know: words of a role, or with role ``tool`` what a tool has given."""
        ...


class Talk(Protocol):
    """One conversation, as an engine that holds it sees the box. Replies are numbered by the box."""

    @property
    def position(self) -> int:
        """How many of the caller's samples there are by now.

        Raises:
            StaleSlot: the call is over.
        """
        ...

    def caller_audio(self, start: int, end: int) -> Pcm:
        """A copy of the caller's samples [start, end), as far as they are there.

        Raises:
            StaleSlot: the call is over, or the samples are more than 32 s old.
        """
        ...

    async def attend(self, talker: Talker) -> None:
        """Pass on what the box says, until cancelled."""
        ...

    def say(self, reply: int, pcm: Pcm) -> None:
        """The next audio of a reply, as fast as it comes: what there is no room for yet waits here."""
        ...

    def words(self, reply: int, text: str) -> None:
        """The next words of what a reply says."""
        ...

    def done(self, reply: int, *, calls: Sequence[tuple[str, str, str]] = (), problem: str = "") -> None:
        """Nothing follows of a reply. ``calls`` are (id, name, arguments as JSON text) of tools that it asks for;
        ``problem`` says why it is incomplete."""
        ...

    def caller_words(self, reply: int, text: str, *, final: bool) -> None:
        """What the caller has said before this reply; without ``final``, as far as it is understood by now."""
        ...

    def caller_turn(self, speaks: bool) -> None:
        """With ``detects_turns``: the caller begins to speak, or has finished."""
        ...


class EngineContext(Protocol):
    """What an engine may do with the requests of the batch it was given.

    Answers to a request that was cancelled, failed or finished before are dropped; an engine that asks
    :meth:`cancelled` between steps saves the work.
    """

    def cancelled(self, request: Any) -> bool:
        """Nobody wants the answer any more."""
        ...

    async def checkpoint(self) -> None:
        """Let cancellations and new requests in; call it between chunks of long computations."""
        ...

    def caller_audio(self, request: Any, start: int | None = None) -> Pcm:
        """A copy of the samples the request is about, or of those from ``start`` on.

        Raises:
            StaleSlot: the call is over, or the samples are more than 32 s old.
        """
        ...

    def recognised(
        self,
        request: Any,
        text: str,
        *,
        confidence: float,
        accepted: bool,
        words: Sequence[tuple[str, int, int]] = (),
        stable: int = 0,
    ) -> None:
        """The answer to a RecogniseRequest.

        Args:
            words: (word, start, end) in samples since the leg was connected, where the engine knows.
            stable: how many of the first words will not change as the caller goes on.
        """
        ...

    def verdict(self, request: Any, probability: float) -> None:
        """The final answer to a JudgeTurnRequest: 0 for "goes on", 1 for "has finished"."""
        ...

    def token(
        self,
        request: Any,
        text: str,
        *,
        last: bool = False,
        calls: Sequence[tuple[str, str, str]] = (),
        server: str = "",
    ) -> None:
        """The next words of a reply, white space included.

        Args:
            calls: (id, name, arguments as JSON text) of tools that the model asks for.
            server: who answered, for the record; with ``last``.
        """
        ...

    def speak(self, request: Any, pcm: Pcm, *, last: bool = False, cached: bool = False) -> bool:
        """The next samples of a SynthesiseRequest; they can be heard at once.

        Returns:
            False where there is no point in going on: cancelled, the call is over, or there is no room.
        """
        ...

    def talk(self, request: Any) -> Talk:
        """The conversation of a ConverseRequest. It lasts until ``run`` returns, raises, or is cancelled."""
        ...

    def failed(self, request: Any, reason: str, *, retryable: bool) -> None:
        """The final answer: it cannot be done. ``retryable``: another worker may manage."""
        ...


@runtime_checkable
class Engine(Protocol):
    """A loaded model, or the way to a service.

    Attributes:
        kind: turn, asr, llm, tts or speech.
        max_batch: requests it wants together at most.
        max_wait_s: how long a request may wait for company.
        concurrency: batches it can have under way at the same time.
        cpu_bound: it computes in this process; decides how the process is scheduled.
    """

    kind: str
    max_batch: int
    max_wait_s: float
    concurrency: int
    cpu_bound: bool

    async def load(self) -> None:
        """Load and warm everything, so that the first caller does not wait. Raises what keeps it from working."""
        ...

    async def run(self, batch: Sequence[Any], context: EngineContext) -> None:
        """Answer every request of ``batch``. What it raises fails those that are not answered yet.

        The task is cancelled when nobody wants any of the answers, or after the worker's time limit; a conversation
        has none.
        """
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


@runtime_checkable
class Shaping(Protocol):
    """An engine that says itself which requests it can take together; without it, those of one language."""

    def shape(self, request: Any) -> Hashable:
        """Requests of equal shape share a batch. Asked as each comes in, so quick."""
        ...
