"""One conversation as the engine that holds it sees the box: rings on one side, control's messages on the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from appliance.api import Pcm, Talker
from appliance.errors import EngineError
from appliance.ipc.messages import (
    AddToTalk,
    AnyMessage,
    CallerSilent,
    CallerTurn,
    CallerWords,
    Converse,
    CutShort,
    GiveRoom,
    HearCaller,
    ReplyDone,
    ReplySpoken,
    ReplyWords,
    Respond,
    ToolCall,
)
from appliance.ipc.rings import FRAME_SAMPLES, RATE_HZ, AudioRings

MAX_WAITING: Final = 600 * RATE_HZ
"""Samples of a reply that may wait for room: ten minutes."""
_NOWHERE: Final = -1


@dataclass
class _Reply:
    """A reply on its way into the ring. ``at`` is where its next sample goes, ``limit`` how far there is room."""

    waiting: list[Pcm] = field(default_factory=list)
    samples: int = 0
    at: int = _NOWHERE
    limit: int = _NOWHERE
    told: bool = False
    done: ReplyDone | None = None


class RingTalk:
    """Implements :class:`appliance.api.Talk`.

    Args:
        request: of the conversation.
        rings: the calls' audio.
        told: messages of control about it.
        answer: takes what control is to know.
    """

    def __init__(
        self,
        request: Converse,
        rings: AudioRings,
        told: asyncio.Queue[AnyMessage],
        answer: Callable[[AnyMessage], None],
    ) -> None:
        self._request = request
        self._rings = rings
        self._told = told
        self._answer = answer
        self._replies: dict[int, _Reply] = {}

    @property
    def position(self) -> int:
        count = int(self._rings.frames[self._request.slot]) * FRAME_SAMPLES
        self._rings.frame_count(self._request.slot, self._request.generation)  # raises where the call is over
        return count

    def caller_audio(self, start: int, end: int) -> Pcm:
        return self._rings.read_rx(self._request.slot, self._request.generation, start, end)

    async def attend(self, talker: Talker) -> None:
        while True:
            match await self._told.get():
                case HearCaller(start=start):
                    talker.hear(start)
                case CallerSilent(keep=keep):
                    talker.caller_silent(keep)
                case Respond(reply=reply, heard=heard):
                    self._replies[reply] = _Reply()
                    talker.respond(reply, heard)
                case GiveRoom() as room:
                    self._give_room(room)
                case CutShort(reply=reply, heard=played):
                    self._replies.pop(reply, None)
                    talker.cut_short(reply, played)
                case AddToTalk(message=message):
                    talker.add(message)

    def say(self, reply: int, pcm: Pcm) -> None:
        under_way = self._replies.get(reply)
        if under_way is None or under_way.done is not None or not len(pcm):
            return
        if under_way.samples + len(pcm) > MAX_WAITING:
            raise EngineError(f"a reply is longer than {MAX_WAITING // RATE_HZ} s", retryable=False)
        under_way.waiting.append(pcm)
        under_way.samples += len(pcm)
        if not under_way.told:
            under_way.told = True
            self._answer(ReplySpoken(self._request.request, reply, _NOWHERE))
        self._write(reply, under_way)

    def words(self, reply: int, text: str) -> None:
        if reply in self._replies and text:
            self._answer(ReplyWords(self._request.request, reply, text))

    def done(self, reply: int, *, calls: Sequence[tuple[str, str, str]] = (), problem: str = "") -> None:
        under_way = self._replies.get(reply)
        if under_way is not None and under_way.done is None:
            wanted = tuple(ToolCall(*call) for call in calls)
            under_way.done = ReplyDone(self._request.request, reply, wanted, problem)
            self._write(reply, under_way)

    def caller_words(self, reply: int, text: str, *, final: bool) -> None:
        self._answer(CallerWords(self._request.request, reply, text, final))

    def caller_turn(self, speaks: bool) -> None:
        self._answer(CallerTurn(self._request.request, speaks))

    def _give_room(self, room: GiveRoom) -> None:
        under_way = self._replies.get(room.reply)
        if under_way is not None:
            if under_way.at == _NOWHERE:
                under_way.at = room.tts_start
            under_way.limit = max(under_way.limit, room.tts_end)
            self._write(room.reply, under_way)

    def _write(self, number: int, reply: _Reply) -> None:
        """Put what there is room for into the ring; tell of the end once all of it is there."""
        request = self._request
        while reply.waiting and reply.at < reply.limit:
            pcm = np.concatenate(reply.waiting)
            fits = min(len(pcm), reply.limit - reply.at)
            self._rings.write_tts(request.slot, request.generation, reply.at, pcm[:fits])
            reply.at += fits
            reply.samples -= fits
            reply.waiting = [pcm[fits:]] if fits < len(pcm) else []
            self._answer(ReplySpoken(request.request, number, reply.at))
        if reply.done is not None and not reply.waiting:
            del self._replies[number]
            self._answer(reply.done)
