"""A conversation that an engine holds by itself, audio in and audio out: replies are asked for, and come as speech."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from appliance.conversation.utterance import Clause, Utterance
from appliance.engines.client import Answer, Request, Told
from appliance.errors import EngineError
from appliance.ipc.messages import (
    AddToTalk,
    CallerSilent,
    CallerTurn,
    CallerWords,
    ChatMessage,
    Converse,
    CutShort,
    Failed,
    GiveRoom,
    HearCaller,
    ReplyDone,
    ReplySpoken,
    ReplyWords,
    Respond,
    ToolCall,
)

logger = logging.getLogger(__name__)

NOT_KNOWN: Final = -1


class Workers(Protocol):
    """The engine's workers; see :class:`~appliance.engines.client.EnginePool`."""

    def number(self) -> int: ...
    def ask(self, request: Request, on_answer: Callable[[Answer], None]) -> None: ...
    def tell(self, message: Told) -> None: ...
    def cancel(self, number: int) -> None: ...


class SpokenReply:
    """One reply as it comes; implements :class:`~appliance.conversation.speaker.Speech`.

    Attributes:
        text: what it says, as far as that is known.
        end: position in the synthesis ring up to which it stands there; -1 while it has no place.
        over: nothing follows.
        has_audio: there is something to be heard.
        calls: tools that it asks for.
        problem: why it is incomplete.
        changed: set whenever one of these has changed.
    """

    def __init__(self, conversation: Conversation, number: int) -> None:
        self._conversation = conversation
        self.number = number
        self.text = ""
        self.end = NOT_KNOWN
        self.over = False
        self.has_audio = False
        self.calls: Sequence[ToolCall] = ()
        self.problem = ""
        self.changed = asyncio.Event()
        self._news = asyncio.Event()
        self._complete = False
        self._failed: EngineError | None = None
        self._utterance: Utterance | None = None
        self._clause: Clause | None = None

    # --- for the speaker ------------------------------------------------------------------------------------------

    def place(self, utterance: Utterance, clause: Clause) -> None:
        self._utterance, self._clause = utterance, clause

    def give_room(self, start: int, end: int) -> None:
        self._conversation.tell(GiveRoom(self._conversation.number, self.number, start, end))

    def stop(self) -> None:
        self.cut_short(NOT_KNOWN)

    # --- for the brain --------------------------------------------------------------------------------------------

    @property
    def placed(self) -> bool:
        """Whether it is being said, or was."""
        return self._clause is not None

    async def begins(self) -> None:
        """Return once there is something to be heard, or it is over.

        Raises:
            EngineError: the conversation has failed.
        """
        while not (self.has_audio or self.over):
            await self._next()
        if self._failed is not None and not self.has_audio:
            raise self._failed

    async def ends(self) -> None:
        """Return when all of it is there. Raises as :meth:`begins`."""
        while not self.over:
            await self._next()
        if self._failed is not None:
            raise self._failed

    def cut_short(self, heard: int) -> None:
        """Nothing more is wanted of it; so many samples were heard, as far as that is known."""
        self._conversation.tell(CutShort(self._conversation.number, self.number, heard))
        if not self.over:
            self.over = True
            self._tell()

    def settle(self) -> None:
        """It has been said, or was stopped: let the model remember what was heard of it, and nothing else."""
        if self._utterance is None or self._clause is None:
            if self.has_audio or not self._complete:
                self.cut_short(0)
            return
        there = self._clause.end - self._clause.start
        reached = self._utterance.start + self._utterance.played
        heard = min(max(reached - self._clause.start, 0), there)
        if not self._complete or heard < there:
            self.cut_short(heard)

    # --- for the conversation -------------------------------------------------------------------------------------

    def took(self, answer: ReplySpoken | ReplyWords | ReplyDone | EngineError) -> None:
        """What has come of it."""
        if self.over:
            return
        match answer:
            case ReplySpoken(tts_end=end):
                self.has_audio, self.end = True, max(self.end, end)
            case ReplyWords(text=text):
                self.text += text
            case ReplyDone(calls=calls, problem=problem):
                self.calls, self.problem = calls, problem
                self.over = self._complete = True
            case EngineError():
                self._failed, self.over, self.problem = answer, True, str(answer)
        self._tell()

    def _tell(self) -> None:
        self.changed.set()
        self._news.set()

    async def _next(self) -> None:
        self._news.clear()
        await self._news.wait()


class Conversation:
    """What control has of a conversation.

    Args:
        workers: of the engine.
        request: makes the first message, of its number.
        on_caller_words: called with what the caller has said, and before which reply; and whether that is final.
        on_caller_turn: called where the engine finds that the caller begins to speak (true) or has finished (false).

    Attributes:
        failed: it is over, for this reason.
    """

    def __init__(
        self,
        workers: Workers,
        request: Callable[[int], Converse],
        *,
        on_caller_words: Callable[[int, str, bool], None],
        on_caller_turn: Callable[[bool], None],
    ) -> None:
        self._workers = workers
        self._on_caller_words = on_caller_words
        self._on_caller_turn = on_caller_turn
        self._replies: dict[int, SpokenReply] = {}
        self.failed: EngineError | None = None
        self.number = workers.number()
        workers.ask(request(self.number), self._answered)

    def hear(self, start: int) -> None:
        """The caller speaks, from this sample on."""
        self.tell(HearCaller(self.number, start))

    def caller_silent(self, *, keep: bool) -> None:
        """The caller does not speak any more; not ``keep``: it was no turn."""
        self.tell(CallerSilent(self.number, keep))

    def add(self, message: ChatMessage) -> None:
        """Something that the model is to know."""
        self.tell(AddToTalk(self.number, message))

    def respond(self, number: int, *, heard: bool) -> SpokenReply:
        """Ask for a reply, to what the caller has said or else to what was added."""
        reply = SpokenReply(self, number)
        if self.failed is not None:
            reply.took(self.failed)
            return reply
        self._replies[number] = reply
        self.tell(Respond(self.number, number, heard))
        return reply

    def close(self) -> None:
        if self.failed is None:
            self.failed = EngineError("the conversation is over", retryable=False)
            self._workers.cancel(self.number)

    def tell(self, message: Told) -> None:
        if self.failed is None:
            self._workers.tell(message)

    def _answered(self, answer: Answer) -> None:
        match answer:
            case ReplySpoken() | ReplyWords() | ReplyDone():
                reply = self._replies.get(answer.reply)
                if reply is not None:
                    reply.took(answer)
                    if reply.over:
                        del self._replies[answer.reply]
            case CallerWords(reply=number, text=text, final=final):
                self._on_caller_words(number, text, final)
            case CallerTurn(speaks=speaks):
                self._on_caller_turn(speaks)
            case Failed(reason=reason, retryable=retryable):
                self.failed = EngineError(reason, retryable=retryable)
                logger.error("a conversation has failed: %s", reason)
                replies, self._replies = self._replies, {}
                for reply in replies.values():
                    reply.took(self.failed)
