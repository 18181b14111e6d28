"""A server of OpenAI's Realtime protocol that keeps time, checks every event, and remembers what it was told.

Every event of the client is held against the types that OpenAI publishes; keys that these do not know are faults. Its
voice says a word in ``WORD_S``: a burst of sound and a short silence, so that a caller's words can be counted.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from aiohttp import WSMsgType, web
from openai.types.realtime import RealtimeClientEvent
from pydantic import BaseModel, TypeAdapter, ValidationError

from appliance.audio import g711
from tests.openai_sim.server import SimServer

WORD_S = 0.3
SOUND_S = 0.2
TONE_HZ = 440.0
_LEAST_S = 0.1
_EVENTS: TypeAdapter[Any] = TypeAdapter(RealtimeClientEvent)
_BETA_SESSION = frozenset(
    {"modalities", "instructions", "voice", "input_audio_format", "output_audio_format", "input_audio_transcription"}
    | {"turn_detection", "tools", "tool_choice", "temperature", "max_response_output_tokens"}
)


@dataclass(frozen=True)
class Reply:
    """What is answered to one ``response.create``.

    ``calls`` are (name, arguments). After so many words the server dies (``die_after``: the socket is cut),
    goes silent (``stall_after``), or fails the response (``fail_after``); 0 is before the first.
    """

    text: str = ""
    calls: Sequence[tuple[str, str]] = ()
    die_after: int | None = None
    stall_after: int | None = None
    fail_after: int | None = None


@dataclass
class Item:
    """One item of a conversation. ``words`` are what the model said or was told; ``audio_ms`` its audio."""

    id: str
    kind: str
    role: str = ""
    text: str = ""
    audio_ms: float = 0.0
    call_id: str = ""
    truncated: bool = False

    @property
    def words(self) -> list[str]:
        return self.text.split()


@dataclass
class Session:
    """One connection, and what the server knows of it."""

    socket: web.WebSocketResponse
    number: int
    config: dict[str, Any] = field(default_factory=dict)
    items: list[Item] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    buffered: int = 0
    turns: int = 0
    response: str = ""
    speaking: asyncio.Task[None] | None = None
    cancelled: list[str] = field(default_factory=list)
    loud: int = 0
    quiet: int = 0
    speech: bool = False
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    def said(self, role: str) -> list[str]:
        """The texts of a role, in order."""
        return [item.text for item in self.items if item.role == role]

    def types(self) -> list[str]:
        return [event["type"] for event in self.events if event["type"] != "input_audio_buffer.append"]


class RealtimeSim(SimServer):
    """``async with RealtimeSim() as server``; ``script`` is answered in turn, then ``reply``.

    Args:
        key: it wants this API key.
        hears: what callers say, in turn; then the last again.
        dialect: ga or beta.
        first_audio_s: from the question to the first audio.
        speed: how many times faster than it is spoken audio is sent.
    """

    scheme = "ws"
    gives_up = False

    def __init__(
        self,
        *,
        reply: Reply = Reply("Sure I can help you with that today"),
        key: str = "",
        hears: Sequence[str] = ("what can you do for me",),
        dialect: str = "ga",
        first_audio_s: float = 0.15,
        speed: float = 4.0,
    ) -> None:
        super().__init__(key)
        self.reply = reply
        self.script: deque[Reply] = deque()
        self.hears = list(hears)
        self.dialect = dialect
        self.first_audio_s = first_audio_s
        self.speed = speed
        self.refuses = 0
        self.sessions: list[Session] = []
        self.talks: list[Session] = []
        """The sessions that a call has taken, in that order."""
        self._numbers = itertools.count(1)

    def routes(self) -> Sequence[web.RouteDef]:
        return [web.get("/v1/realtime", self._serve)]

    async def stop(self) -> None:
        """Close everything; it may be started again."""
        for session in self.sessions:
            await session.socket.close()
        await super().stop()

    def cut(self, session: Session) -> None:
        """Break a connection without a word."""
        assert session.socket._writer is not None
        session.socket._writer.transport.abort()  # type: ignore[union-attr]

    # --- one connection -------------------------------------------------------------------------------------------

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if self.refuses:
            return web.Response(status=self.refuses)
        if not self.knows(request):
            return web.Response(status=401, text="no such key")
        if (request.headers.get("OpenAI-Beta") == "realtime=v1") != (self.dialect == "beta"):
            self.problems.append("the header OpenAI-Beta does not fit the dialect")
        if not request.query.get("model"):
            self.problems.append("no model")
        socket = web.WebSocketResponse(max_msg_size=1 << 24)
        await socket.prepare(request)
        session = Session(socket, len(self.sessions))
        self.sessions.append(session)
        self.news.set()
        await self._send(session, "session.created", session={"id": f"s{session.number}"})
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await self._take(session, message.json())
                    self.news.set()
        finally:
            if session.speaking is not None:
                session.speaking.cancel()
                await asyncio.gather(session.speaking, return_exceptions=True)
            session.closed.set()
            self.news.set()
        return socket

    async def _send(self, session: Session, kind: str, /, **more: Any) -> None:
        if self.dialect == "beta":
            kind = kind.replace("response.output_audio", "response.audio")
        if not session.socket.closed:
            await session.socket.send_json({"type": kind, "event_id": f"event_{next(self._numbers)}", **more})

    async def _refuse(self, session: Session, event: dict[str, Any], code: str, told: str) -> None:
        error = {"type": "invalid_request_error", "code": code, "message": told, "event_id": event.get("event_id")}
        await self._send(session, "error", error=error)

    def _check(self, event: dict[str, Any]) -> None:
        """Hold it against the published types."""
        if self.dialect == "beta" and event.get("type") == "session.update":
            self.problems += [f"session.{key}: unknown" for key in event["session"] if key not in _BETA_SESSION]
            return
        if self.dialect == "beta" and event.get("item", {}).get("role") == "assistant":
            return  # of type "text" there
        try:
            made = _EVENTS.validate_python(event)
        except ValidationError as error:
            self.problems.append(f"{event.get('type')}: {error}")
            return
        self.problems += [f"{event['type']}: {where}: unknown" for where in _unknown(made)]

    async def _take(self, session: Session, event: dict[str, Any]) -> None:
        self._check(event)
        session.events.append(event)
        match event["type"]:
            case "session.update":
                session.config = event["session"]
                self.talks.append(session)
                await self._send(session, "session.updated", session=session.config)
            case "input_audio_buffer.append":
                await self._append(session, base64.b64decode(event["audio"], validate=True))
            case "input_audio_buffer.clear":
                session.buffered = 0
                await self._send(session, "input_audio_buffer.cleared")
            case "input_audio_buffer.commit":
                if session.buffered < _LEAST_S * 8000:
                    await self._refuse(session, event, "input_audio_buffer_commit_empty", "the buffer is too small")
                else:
                    await self._commit(session)
            case "conversation.item.create":
                await self._create_item(session, event)
            case "conversation.item.truncate":
                await self._truncate(session, event)
            case "conversation.item.delete":
                found = [item for item in session.items if item.id == event["item_id"]]
                if not found:
                    self.problems.append(f"delete: there is no item {event['item_id']}")
                for item in found:
                    session.items.remove(item)
                    await self._send(session, "conversation.item.deleted", item_id=item.id)
            case "response.create":
                if session.response:
                    told = "Conversation already has an active response"
                    await self._refuse(session, event, "conversation_already_has_active_response", told)
                else:
                    session.response = f"resp_{next(self._numbers)}"
                    reply = self.script.popleft() if self.script else self.reply
                    session.speaking = asyncio.create_task(self._respond(session, session.response, reply))
            case "response.cancel":
                if not session.response or event.get("response_id", session.response) != session.response:
                    await self._refuse(session, event, "response_cancel_not_active", "no active response found")
                else:
                    session.cancelled.append(session.response)

    async def _append(self, session: Session, data: bytes) -> None:
        if _format(session, "input") == "ulaw":
            pcm = g711.decode(np.frombuffer(data, np.uint8), False)
        else:
            pcm = np.frombuffer(data, "<i2")[::3]
        session.buffered += len(pcm)
        if not _turn_detection(session):
            return
        loud = len(pcm) and float(np.sqrt(np.mean(pcm.astype(np.float64) ** 2))) > 400
        session.loud = session.loud + len(pcm) if loud else 0
        session.quiet = 0 if loud else session.quiet + len(pcm)
        if not session.speech and session.loud > 800:
            session.speech = True
            await self._send(session, "input_audio_buffer.speech_started", audio_start_ms=0, item_id="x")
        elif session.speech and session.quiet > 4000:
            session.speech = False
            await self._send(session, "input_audio_buffer.speech_stopped", audio_end_ms=0, item_id="x")
            await self._commit(session)

    async def _commit(self, session: Session) -> None:
        heard = self.hears[min(session.turns, len(self.hears) - 1)]
        item = Item(f"item_{next(self._numbers)}", "message", "user", heard, session.buffered / 8)
        session.turns += 1
        session.buffered = 0
        session.items.append(item)
        await self._send(session, "input_audio_buffer.committed", item_id=item.id, previous_item_id=None)
        if _transcribes(session):
            kind = "conversation.item.input_audio_transcription"
            await self._send(session, f"{kind}.delta", item_id=item.id, content_index=0, delta=heard.split()[0])
            await self._send(session, f"{kind}.completed", item_id=item.id, content_index=0, transcript=heard, usage={})

    async def _create_item(self, session: Session, event: dict[str, Any]) -> None:
        told = event["item"]
        item = Item(f"item_{next(self._numbers)}", told["type"], told.get("role", ""))
        if told["type"] == "function_call_output":
            item.call_id, item.text = told["call_id"], told["output"]
            if not any(one.kind == "function_call" and one.call_id == item.call_id for one in session.items):
                self.problems.append(f"an answer to a call that there is not: {item.call_id}")
        else:
            item.text = " ".join(part.get("text", "") for part in told["content"])
        session.items.append(item)
        await self._send(session, "conversation.item.added", item={**told, "id": item.id}, previous_item_id=None)

    async def _truncate(self, session: Session, event: dict[str, Any]) -> None:
        item = next((item for item in session.items if item.id == event["item_id"]), None)
        if item is None:
            self.problems.append(f"truncate: there is no item {event['item_id']}")
            return
        if event["audio_end_ms"] > item.audio_ms:
            self.problems.append(f"truncate: there are only {item.audio_ms} ms, not {event['audio_end_ms']}")
            return
        item.audio_ms, item.truncated = event["audio_end_ms"], True
        item.text = " ".join(item.words[: int(item.audio_ms / 1000 / WORD_S + 0.5)])
        await self._send(
            session, "conversation.item.truncated", item_id=item.id, content_index=0, audio_end_ms=event["audio_end_ms"]
        )

    async def _respond(self, session: Session, name: str, reply: Reply) -> None:
        """One response, with all its events."""
        await self._send(session, "response.created", response={"id": name, "status": "in_progress", "output": []})
        status, error = "completed", None
        if reply.text or any(one is not None for one in (reply.die_after, reply.stall_after, reply.fail_after)):
            status, error = await self._speak(session, name, reply)
        calls = [
            {"type": "function_call", "name": wanted, "arguments": arguments, "call_id": f"call_{next(self._numbers)}"}
            for wanted, arguments in reply.calls
        ]
        if status == "completed":
            for call in calls:
                item = Item(f"item_{next(self._numbers)}", "function_call", call_id=call["call_id"], text=call["name"])
                session.items.append(item)
                call["id"] = item.id
                more = {"response_id": name, "output_index": 1, "item": {**call, "status": "completed"}}
                await self._send(session, "response.output_item.done", **more)
        session.response = ""
        response: dict[str, Any] = {"id": name, "status": status, "output": []}
        if error is not None:
            response["status_details"] = {"type": "failed", "error": {"code": "server_error", "message": error}}
        await self._send(session, "response.done", response=response)
        self.news.set()

    async def _speak(self, session: Session, name: str, reply: Reply) -> tuple[str, str | None]:
        """Say the text word by word: how that ends."""
        loop = asyncio.get_running_loop()
        item = Item(f"item_{next(self._numbers)}", "message", "assistant")
        about = {"response_id": name, "item_id": item.id, "output_index": 0, "content_index": 0}
        due = loop.time() + self.first_audio_s
        words = reply.text.split()
        for number in range(len(words) + 1):
            while loop.time() < due:
                if name in session.cancelled:
                    return "cancelled", None
                await asyncio.sleep(min(0.01, max(due - loop.time(), 0.0)))
            if number == reply.die_after:
                self.cut(session)
                await asyncio.sleep(60)
            if number == reply.stall_after:
                await asyncio.sleep(60)
            if number == reply.fail_after:
                return "failed", "The server had an error while processing your request"
            if number == len(words):
                break
            if number == 0:
                session.items.append(item)
                started = {"id": item.id, "type": "message", "role": "assistant", "content": []}
                await self._send(session, "response.output_item.added", response_id=name, output_index=0, item=started)
            item.text = " ".join(words[: number + 1])
            item.audio_ms += WORD_S * 1000
            said = words[number] if number == 0 else f" {words[number]}"
            await self._send(session, "response.output_audio_transcript.delta", **about, delta=said)
            await self._send(session, "response.output_audio.delta", **about, delta=_word(_format(session, "output")))
            due += WORD_S / self.speed
            self.news.set()
        await self._send(session, "response.output_audio.done", **about)
        await self._send(session, "response.output_audio_transcript.done", **about, transcript=reply.text)
        done = {"id": item.id, "type": "message", "role": "assistant", "status": "completed", "content": []}
        await self._send(session, "response.output_item.done", response_id=name, output_index=0, item=done)
        return "completed", None


def _unknown(made: object, where: str = "") -> Iterator[str]:
    """Keys that the types do not know."""
    if isinstance(made, BaseModel):
        yield from (f"{where}{key}" for key in made.model_extra or ())
        for key in made.model_fields_set:
            yield from _unknown(getattr(made, key), f"{where}{key}.")
    elif isinstance(made, list):
        for index, one in enumerate(made):
            yield from _unknown(one, f"{where}{index}.")


def _format(session: Session, way: str) -> str:
    config = session.config
    if f"{way}_audio_format" in config:
        return "ulaw" if config[f"{way}_audio_format"] == "g711_ulaw" else "pcm"
    return "ulaw" if config["audio"][way]["format"]["type"] == "audio/pcmu" else "pcm"


def _turn_detection(session: Session) -> Any:
    config = session.config
    return config["turn_detection"] if "audio" not in config else config["audio"]["input"].get("turn_detection")


def _transcribes(session: Session) -> bool:
    config = session.config
    found = (
        config.get("input_audio_transcription")
        if "audio" not in config
        else config["audio"]["input"].get("transcription")
    )
    return bool(found)


def _word(how: str) -> str:
    """One word as base64."""
    rate = 8000 if how == "ulaw" else 24_000
    pcm = np.zeros(round(WORD_S * rate), np.int16)
    at = np.arange(round(SOUND_S * rate))
    pcm[: len(at)] = (8000 * np.sin(2 * np.pi * TONE_HZ / rate * at)).astype(np.int16)
    data = g711.encode(pcm, False).tobytes() if how == "ulaw" else pcm.astype("<i2").tobytes()
    return base64.b64encode(data).decode()
