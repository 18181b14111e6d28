"""A server of OpenAI's Realtime transcription sessions that keeps time, checks what it is sent, and fails on order.

What it "hears" is its text, three words a second: each committed item holds the words of its audio, going on where the
item before ended.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

from tests.openai_sim.server import SimServer

WORDS_PER_S = 3.0
TEXT = "I would like to book a table for four on Tuesday evening at eight if there is one left please thank you."
_BYTES_PER_S = {"audio/pcm": 48_000, "audio/pcmu": 8000, "audio/pcma": 8000, "pcm16": 48_000, "g711_ulaw": 8000}
_FIELDS = {
    "session.update": {"session"},
    "transcription_session.update": {"session"},
    "input_audio_buffer.append": {"audio"},
    "input_audio_buffer.commit": set(),
    "input_audio_buffer.clear": set(),
}


@dataclass
class Behaviour:
    """``live``: text comes while the audio does. ``delay_s``: from the commit to the text.

    The rest are faults: ``refuse`` answers the session's update with an error, ``fail_items`` items have no text,
    ``drop_after`` closes the connection at that commit (from one) of the server's life, ``silent`` answers no commit,
    ``status`` refuses the handshake.
    """

    text: str = TEXT
    live: bool = True
    delay_s: float = 0.0
    refuse: str = ""
    fail_items: int = 0
    drop_after: int = 0
    silent: bool = False
    status: int = 0
    logprob: float | None = None


@dataclass
class Session:
    """One connection, as the server saw it."""

    headers: Mapping[str, str]
    query: Mapping[str, str]
    settings: list[dict[str, Any]] = field(default_factory=list)
    appended: list[bytes] = field(default_factory=list)
    commits: list[int] = field(default_factory=list)
    """Bytes of audio in each."""
    clears: int = 0
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def audio(self) -> bytes:
        return b"".join(self.appended)


class SessionSim(SimServer):
    """``async with SessionSim() as server``; ``behaviour`` may be changed at any time."""

    scheme = "ws"

    def __init__(self, behaviour: Behaviour | None = None, *, key: str = "") -> None:
        super().__init__(key)
        self.behaviour = behaviour or Behaviour()
        self.sessions: list[Session] = []
        self._commits = 0
        self._names = 0

    def routes(self) -> Sequence[web.RouteDef]:
        return [web.get("/v1/realtime", self._serve)]

    @property
    def used(self) -> list[Session]:
        """The connections that were configured."""
        return [session for session in self.sessions if session.settings]

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if self.behaviour.status:
            return web.Response(status=self.behaviour.status)
        if not self.knows(request):
            return web.Response(status=401)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        session = Session(dict(request.headers), dict(request.query))
        self.sessions.append(session)
        self.news.set()
        if session.query != {"intent": "transcription"}:
            self.problems.append(f"query {session.query}")
        await _Conversation(self, session, socket).run()
        session.closed.set()
        self.news.set()
        return socket

    def name(self, what: str) -> str:
        self._names += 1
        return f"{what}_{self._names}"

    def commit(self) -> int:
        self._commits += 1
        return self._commits


class _Conversation:
    def __init__(self, server: SessionSim, session: Session, socket: web.WebSocketResponse) -> None:
        self._server = server
        self._session = session
        self._socket = socket
        self._rate = 0
        self._buffer = 0
        self._item = ""
        self._said = 0
        self._told = 0
        self._before: str | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        await self._send("session.created", session={"type": "transcription", "id": self._server.name("sess")})
        async for message in self._socket:
            if message.type is not WSMsgType.TEXT:
                continue
            event = json.loads(message.data)
            self._check(event)
            if not await self._handle(event):
                await self._socket.close()
                break
            self._server.news.set()
        for task in self._tasks:
            task.cancel()

    async def _handle(self, event: dict[str, Any]) -> bool:
        """False to hang up."""
        behaviour, session = self._server.behaviour, self._session
        match event["type"]:
            case "session.update" | "transcription_session.update":
                if behaviour.refuse:
                    await self._error(event, "invalid_value", behaviour.refuse)
                    return True
                session.settings.append(event["session"])
                audio = event["session"].get("audio", {}).get("input", {})
                kind = audio.get("format", {}).get("type") or event["session"].get("input_audio_format")
                self._rate = _BYTES_PER_S.get(str(kind), 0)
                if not self._rate:
                    self._server.problems.append(f"format {kind!r}")
                await self._send(event["type"].replace("update", "updated"), session=event["session"])
            case "input_audio_buffer.append":
                data = base64.b64decode(event["audio"], validate=True)
                session.appended.append(data)
                self._buffer += len(data)
                if behaviour.live:
                    self._item = self._item or self._server.name("item")
                    await self._tell(self._item)
            case "input_audio_buffer.clear":
                session.clears += 1
                self._buffer, self._item, self._told = 0, "", self._said
                await self._send("input_audio_buffer.cleared")
            case "input_audio_buffer.commit":
                return await self._commit(event)
        return True

    async def _commit(self, event: dict[str, Any]) -> bool:
        behaviour, server = self._server.behaviour, self._server
        if self._buffer < self._rate // 10:
            await self._error(event, "input_audio_buffer_commit_empty", "buffer too small")
            return True
        number = server.commit()
        self._session.commits.append(self._buffer)
        if number == behaviour.drop_after:
            return False
        if behaviour.silent:
            return True
        item = self._item or server.name("item")
        words = behaviour.text.split()
        heard = words[self._said : self._said + self._words()]
        self._said += len(heard)
        self._buffer, self._item = 0, ""
        await self._send("input_audio_buffer.committed", item_id=item, previous_item_id=self._before)
        await self._send("conversation.item.added", item={"id": item, "type": "message", "role": "user"})
        self._before = item
        self._tasks.append(asyncio.create_task(self._finish(item, heard, number)))
        return True

    async def _finish(self, item: str, heard: list[str], number: int) -> None:
        behaviour = self._server.behaviour
        await asyncio.sleep(behaviour.delay_s)
        if number <= behaviour.fail_items:
            error = {"type": "transcription_error", "code": "audio_unintelligible", "message": "it broke"}
            await self._send("conversation.item.input_audio_transcription.failed", item_id=item, error=error)
            return
        for word in heard[self._told - self._said + len(heard) :]:
            await self._delta(item, word)
        self._told = self._said
        more = {} if behaviour.logprob is None else {"logprobs": [{"token": "x", "logprob": behaviour.logprob}]}
        await self._send(
            "conversation.item.input_audio_transcription.completed",
            item_id=item,
            content_index=0,
            transcript=" ".join(heard),
            usage={"type": "duration", "seconds": 1},
            **more,
        )

    async def _tell(self, item: str) -> None:
        """The words of the audio so far."""
        words = self._server.behaviour.text.split()
        while self._told < min(self._said + self._words(), len(words)):
            self._told += 1
            await self._delta(item, words[self._told - 1])

    async def _delta(self, item: str, word: str) -> None:
        kind = "conversation.item.input_audio_transcription.delta"
        await self._send(kind, item_id=item, content_index=0, delta=f"{word} ")

    def _words(self) -> int:
        return int(self._buffer / self._rate * WORDS_PER_S + 0.02) if self._rate else 0

    async def _error(self, event: dict[str, Any], code: str, message: str) -> None:
        error = {"type": "invalid_request_error", "code": code, "message": message, "event_id": event.get("event_id")}
        await self._send("error", error=error)

    async def _send(self, kind: str, **more: Any) -> None:
        if not self._socket.closed:
            await self._socket.send_json({"type": kind, "event_id": self._server.name("event"), **more})

    def _check(self, event: dict[str, Any]) -> None:
        """What is against the published schema."""
        problems, kind = self._server.problems, event.get("type")
        if kind not in _FIELDS:
            problems.append(f"unknown event {kind!r}")
            return
        wrong = set(event) - _FIELDS[kind] - {"type", "event_id"}
        missing = _FIELDS[kind] - set(event)
        if wrong or missing:
            problems.append(f"{kind}: {sorted(wrong)} unknown, {sorted(missing)} missing")
        if kind == "session.update":
            session = event["session"]
            heard = session.get("audio", {}).get("input", {})
            if session.get("type") != "transcription" or set(session) - {"type", "audio", "include"}:
                problems.append(f"session {session}")
            if set(heard) - {"format", "transcription", "turn_detection", "noise_reduction"}:
                problems.append(f"audio.input {heard}")
            if set(heard.get("transcription", {})) - {"model", "language", "prompt"}:
                problems.append(f"transcription {heard['transcription']}")
            if heard.get("format", {}).get("type") == "audio/pcm" and heard["format"].get("rate") != 24_000:
                problems.append(f"format {heard['format']}")
            if "turn_detection" not in heard or heard["turn_detection"] is not None:
                problems.append("turn detection is on")
