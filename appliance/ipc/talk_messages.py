"""Messages between control and an engine that holds a call's conversation itself, audio in and audio out.

It is cancelled and fails, and its worker reports, as any other (:mod:`appliance.ipc.engine_messages`).
"""

from __future__ import annotations

from typing import TypeAlias

from appliance.ipc.engine_messages import ChatMessage, ToolCall, ToolSpec
from appliance.ipc.message_base import Message


class Converse(Message, frozen=True):
    """Hold a call's conversation, audio in and audio out, until it is cancelled or Failed.

    ``history`` is what has been said already. With ``detects_turns`` the engine says when the caller has finished.
    """

    request: int
    slot: int
    generation: int
    instructions: str
    voice: str
    language: str
    history: tuple[ChatMessage, ...] = ()
    tools: tuple[ToolSpec, ...] = ()
    detects_turns: bool = False


class HearCaller(Message, frozen=True):
    """The caller speaks, from this sample on; what was heard before and not replied to is forgotten."""

    request: int
    start: int


class CallerSilent(Message, frozen=True):
    """The caller does not speak any more. Not ``keep``: what was heard is no turn, and is forgotten."""

    request: int
    keep: bool


class Respond(Message, frozen=True):
    """Reply, by the number ``reply``, to what the caller has said, or without ``heard`` to what was added only."""

    request: int
    reply: int
    heard: bool


class GiveRoom(Message, frozen=True):
    """What there is of ``reply``, and what comes of it, goes into the synthesis ring: [tts_start, tts_end) is free.

    Sent again with a later ``tts_end`` as the ring is played; ``tts_start`` stays.
    """

    request: int
    reply: int
    tts_start: int
    tts_end: int


class CutShort(Message, frozen=True):
    """Nothing more is wanted of ``reply``. So many of its samples were heard; -1: that is not known yet."""

    request: int
    reply: int
    heard: int


class AddToTalk(Message, frozen=True):
    """Something that the model is to know: words of ``role`` (system, user, assistant), or what a tool has given."""

    request: int
    message: ChatMessage


class ReplySpoken(Message, frozen=True):
    """There is audio of ``reply``: samples up to ``tts_end`` are in the ring; -1 while there is no room given."""

    request: int
    reply: int
    tts_end: int


class ReplyWords(Message, frozen=True):
    """The next words of what ``reply`` says."""

    request: int
    reply: int
    text: str


class ReplyDone(Message, frozen=True):
    """All of ``reply`` is in the ring. ``problem`` says why there is not more of it."""

    request: int
    reply: int
    calls: tuple[ToolCall, ...] = ()
    problem: str = ""


class CallerWords(Message, frozen=True):
    """What the caller has said before ``reply``; without ``final`` as far as it has been understood by now."""

    request: int
    reply: int
    text: str
    final: bool


class CallerTurn(Message, frozen=True):
    """The engine has found that the caller begins to speak, or has finished."""

    request: int
    speaks: bool


TalkMessage: TypeAlias = (
    Converse | HearCaller | CallerSilent | Respond | GiveRoom | CutShort | AddToTalk | ReplySpoken | ReplyWords
    | ReplyDone | CallerWords | CallerTurn
)  # fmt: skip
