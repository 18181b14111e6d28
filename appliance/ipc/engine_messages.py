"""Messages between control and the engine workers: a request, and what is answered to it."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from appliance.ipc.message_base import Message


class Recognise(Message, frozen=True):
    """Recognise the caller's samples [start, end).

    ``phrases`` is the closed list of what the dialplan expects (empty: open vocabulary, engines that can).
    ``pronunciations`` are (word, phones) additions. ``reject``: say so when nothing expected was said. ``hints`` are
    words that are likely, for engines that can be biased.

    While the caller goes on speaking, an engine that gives partial results is asked again and again with ``final``
    false, the same ``start`` and a later ``end``; ``utterance`` tells it that these belong together (0: to nothing).
    """

    request: int
    slot: int
    generation: int
    start: int
    end: int
    language: str
    phrases: tuple[str, ...]
    pronunciations: tuple[tuple[str, str], ...]
    reject: bool
    deadline: float
    utterance: int = 0
    final: bool = True
    hints: tuple[str, ...] = ()


class HeardWord(msgspec.Struct, frozen=True, array_like=True):
    """One word of what was recognised, in the samples [start, end) of the leg."""

    text: str
    start: int
    end: int


class Recognised(Message, frozen=True):
    """``accepted`` false: speech, but nothing that was expected; ``text`` is then the best guess.

    ``words`` is empty where the engine gives no times. ``stable``: so many of the first words of ``text`` will not
    change any more; of a final result, all of them.
    """

    request: int
    text: str
    confidence: float
    accepted: bool
    queued_s: float
    run_s: float
    words: tuple[HeardWord, ...] = ()
    stable: int = 0


class JudgeTurn(Message, frozen=True):
    """How likely is it that the caller has finished, given the samples up to ``end``?

    ``speech_start`` is where the utterance begins; -1 where nobody is to listen to its prosody.
    """

    request: int
    slot: int
    generation: int
    start: int
    end: int
    deadline: float
    speech_start: int = -1


class TurnVerdict(Message, frozen=True):
    """``ending`` is how the utterance sounds at its end (:class:`appliance.audio.prosody.Ending`), () where it is too
    short to say.
    """

    request: int
    probability: float
    queued_s: float
    run_s: float
    ending: tuple[float, ...] = ()


class Synthesise(Message, frozen=True):
    """Speak ``text`` into the slot's synthesis ring from position ``tts_start``, at most ``room`` samples.

    Answered by any number of Spoken, the last of them with ``last`` true. ``pause_s`` of silence come first.
    ``urgent``: the caller hears nothing until it is there, so it goes before what only continues.

    With a negative ``slot`` nothing is written anywhere: the phrase is to be in the cache when somebody needs it, and
    with ``keep`` it stays there whatever else is spoken.
    """

    request: int
    slot: int
    generation: int
    text: str
    language: str
    voice: str
    rate: float
    tts_start: int
    room: int
    pause_s: float = 0.0
    urgent: bool = False
    keep: bool = False


class Spoken(Message, frozen=True):
    """Samples up to ``tts_end`` are in the ring. ``cached``: the phrase did not have to be synthesised."""

    request: int
    tts_end: int
    last: bool
    cached: bool
    queued_s: float
    run_s: float


class ToolCall(msgspec.Struct, frozen=True, array_like=True):
    """The model wants a tool to run; ``arguments`` is JSON text as the model wrote it, not checked yet."""

    id: str
    name: str
    arguments: str


class ToolSpec(msgspec.Struct, frozen=True, array_like=True):
    """A tool the model may ask for; ``parameters`` is a JSON schema, as text."""

    name: str
    description: str
    parameters: str


class ChatMessage(msgspec.Struct, frozen=True, array_like=True):
    """``role`` is system, user, assistant or tool. An assistant's may ask for tools; a tool's answers ``call_id``."""

    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    call_id: str = ""


class Generate(Message, frozen=True):
    """Ask the language model for the next reply.

    ``first_token_by`` is when the first token has to be there (CLOCK_MONOTONIC; 0: by ``deadline``). ``session`` names
    the conversation, so that a server with several caches can be asked where this one's prompt is warm.
    """

    request: int
    messages: tuple[ChatMessage, ...]
    deadline: float
    tools: tuple[ToolSpec, ...] = ()
    first_token_by: float = 0.0
    session: str = ""
    max_tokens: int = 0


class Token(Message, frozen=True):
    """The next words of the reply, or tools that it asks for, or both. ``server`` is who answered, with ``last``."""

    request: int
    text: str
    last: bool
    calls: tuple[ToolCall, ...] = ()
    server: str = ""


class Cancel(Message, frozen=True):
    """Forget this request; nothing more is said about it."""

    request: int


class Failed(Message, frozen=True):
    """The request could not be served. ``retryable``: another worker may manage."""

    request: int
    reason: str
    retryable: bool


class WorkerStats(Message, frozen=True):
    """Once a second, from every engine worker; counts since its start."""

    name: str
    queued: int
    running: int
    done: int
    failed: int
    dropped: int
    cache_hits: int
    busy_s: float


EngineMessage: TypeAlias = (
    Recognise | Recognised | JudgeTurn | TurnVerdict | Synthesise | Spoken | Generate | Token | Cancel | Failed
    | WorkerStats
)  # fmt: skip
