"""One session of OpenAI's Realtime protocol, from the client's side, over whatever carries its events. PURE.

The box decides when the caller has finished: the server's turn detection is off, or (``detects_turns``) only reports.
Replies are asked for one at a time, as the server wants it, and one that is cut short is cancelled and truncated to
what was heard, so that the model remembers nothing else. The names of both dialects of the protocol are understood.
"""

from __future__ import annotations

import base64
import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np

from appliance.api import ChatTurn, ConverseRequest, Pcm
from appliance.audio import g711
from appliance.audio.live_resample import LiveResampler
from appliance.engines.openai_realtime_options import OpenAiRealtimeOptions

logger = logging.getLogger(__name__)

RATE_HZ: Final = 8000
Event: TypeAlias = dict[str, Any]

_PCM_HZ: Final = 24_000
_LEAST_COMMIT: Final = RATE_HZ // 10
"""A server refuses to take less than 100 ms of audio for a turn."""
_HARMLESS: Final = frozenset({"cancel", "truncate", "delete", "clear"})
_FATAL: Final = frozenset(
    {"session_expired", "invalid_api_key", "insufficient_quota", "model_not_found", "rate_limit_exceeded"}
)
_BUSY: Final = "conversation_already_has_active_response"


@dataclass(frozen=True)
class Said:
    """Audio of a reply, 8 kHz."""

    reply: int
    pcm: Pcm


@dataclass(frozen=True)
class Words:
    """Words of a reply."""

    reply: int
    text: str


@dataclass(frozen=True)
class Done:
    """The end of a reply."""

    reply: int
    calls: tuple[tuple[str, str, str], ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class CallerSaid:
    """What the caller has said before a reply."""

    reply: int
    text: str
    final: bool


@dataclass(frozen=True)
class CallerIs:
    """With ``detects_turns``: the caller begins to speak, or has finished."""

    speaks: bool


@dataclass(frozen=True)
class Broken:
    """The session is of no use any more."""

    problem: str


Outcome: TypeAlias = Said | Words | Done | CallerSaid | CallerIs | Broken


@dataclass
class _Item:
    """An item of a response: ``samples`` of its audio have come, at 8 kHz, in part ``part`` of it."""

    id: str
    part: int = 0
    samples: int = 0
    spoken: bool = True


@dataclass
class _Response:
    """What the server makes of one ``response.create``. ``cut``: it was cancelled while it went on."""

    reply: int
    id: str = ""
    wanted: bool = True
    cut: bool = False
    over: bool = False
    began: bool = False
    items: list[_Item] = field(default_factory=list)
    calls: dict[str, tuple[str, str, str]] = field(default_factory=dict)

    def item(self, name: str, part: int) -> _Item:
        found = next((item for item in self.items if item.id == name), None)
        if found is None:
            found = _Item(name, part)
            self.items.append(found)
        found.part = part
        return found


class RealtimeProtocol:
    """The session of one conversation.

    Attributes:
        outgoing: events for the server, in order; whoever drives this takes them.
        outcomes: what there is to tell the box, in order; likewise.
    """

    def __init__(self, options: OpenAiRealtimeOptions, request: ConverseRequest) -> None:
        self._options = options
        self._request = request
        self.outgoing: deque[Event] = deque()
        self.outcomes: deque[Outcome] = deque()
        self._numbers = 0
        self._appended = 0
        self._ulaw = options.audio == "ulaw"
        self._up = LiveResampler(RATE_HZ, RATE_HZ if self._ulaw else _PCM_HZ)
        self._down = LiveResampler(RATE_HZ if self._ulaw else _PCM_HZ, RATE_HZ)
        self._queue: deque[_Response] = deque()
        self._current: _Response | None = None
        self._responses: dict[int, _Response] = {}
        self._committing: deque[int] = deque()
        self._turns: dict[str, int | None] = {}
        self._heard: dict[str, str] = {}

    @property
    def awaits(self) -> str:
        """What the server owes: "reply" where it has not begun one that it was asked for, "more" of one, or ""."""
        current = self._current
        if current is None or current.over:
            return "reply" if self._queue else ""
        return "more" if current.began else "reply"

    def open(self) -> None:
        """The session as it is to be, and what has been said already."""
        self._send("session.update", "update", session=self._session())
        for message in self._request.history:
            self.add(message)

    # --- what the box says ----------------------------------------------------------------------------------------

    def hear(self, pcm: Pcm) -> None:
        """The next of the caller's samples, int16 at 8 kHz."""
        if not len(pcm):
            return
        self._appended += len(pcm)
        data = g711.encode(pcm, False).tobytes() if self._ulaw else self._up.push(pcm).astype("<i2").tobytes()
        self._send("input_audio_buffer.append", "append", audio=base64.b64encode(data).decode())

    def forget(self) -> None:
        """What the caller said since the last reply is no turn."""
        if self._appended:
            self._appended = 0
            self._send("input_audio_buffer.clear", "clear")

    def respond(self, reply: int, *, heard: bool) -> None:
        """Ask for a reply; it begins when the one before is over."""
        if heard and self._request.detects_turns:
            for item in [item for item, of in self._turns.items() if of is None]:
                self._turns[item] = reply
                if item in self._heard:
                    self.outcomes.append(CallerSaid(reply, self._heard[item], True))
        elif heard and self._appended >= _LEAST_COMMIT:
            self._appended = 0
            self._committing.append(reply)
            self._send("input_audio_buffer.commit", "commit")
        response = self._responses[reply] = _Response(reply)
        self._queue.append(response)
        self._ask()

    def cut_short(self, reply: int, heard: int) -> None:
        """Stop it; once it is known how much was ``heard`` (samples), the server forgets the rest."""
        response = self._responses.get(reply)
        if response is None:
            return
        response.wanted = False
        if response in self._queue:
            self._queue.remove(response)
            del self._responses[reply]
            return
        if not response.over and not response.cut:
            response.cut = True
            if response.id:
                self._send("response.cancel", "cancel", response_id=response.id)
        if heard >= 0:
            self._truncate(response, heard)

    def add(self, message: ChatTurn) -> None:
        """Something that the model is to know."""
        if message.role == "tool":
            item: Event = {"type": "function_call_output", "call_id": message.call_id, "output": message.content}
        else:
            kind = {"assistant": "output_text" if self._options.dialect == "ga" else "text"}.get(message.role)
            content = [{"type": kind or "input_text", "text": message.content}]
            item = {"type": "message", "role": message.role, "content": content}
        self._send("conversation.item.create", "item", item=item)

    # --- what the server says -------------------------------------------------------------------------------------

    def received(self, event: Mapping[str, Any]) -> None:
        """Take one event; those that are of no interest change nothing."""
        kind = str(event.get("type", "")).replace("response.output_audio", "response.audio")
        match kind:
            case "error":
                self._error(_mapping(event.get("error")))
            case "response.created":
                self._created(_mapping(event.get("response")))
            case "response.audio.delta":
                self._audio(event)
            case "response.audio_transcript.delta":
                response = self._of(event)
                if response is not None and response.wanted:
                    self.outcomes.append(Words(response.reply, str(event.get("delta", ""))))
            case "response.output_item.done":
                self._item_done(self._of(event), _mapping(event.get("item")))
            case "response.done":
                self._done(_mapping(event.get("response")))
            case "input_audio_buffer.committed":
                self._committed(str(event.get("item_id", "")))
            case "input_audio_buffer.speech_started" if self._request.detects_turns:
                self.outcomes.append(CallerIs(True))
            case _ if kind.startswith("conversation.item.input_audio_transcription."):
                self._transcribed(kind.rpartition(".")[2], event)

    def _error(self, error: Mapping[str, Any]) -> None:
        code, told = str(error.get("code") or ""), str(error.get("message") or "no reason given")
        what = str(error.get("event_id") or "").partition("-")[2]
        if what in _HARMLESS:
            logger.info("the server did not %s: %s", what, told)
        elif code in _FATAL or what in ("update", "item", "append"):
            self.outcomes.append(Broken(f"the server says: {told}"))
        elif code == _BUSY and self._current is not None and not self._current.id:
            self._queue.appendleft(self._current)
            self._current = None
        elif what != "commit" and self._current is not None and not self._current.id:
            response, self._current = self._current, None
            response.over = True
            self.outcomes.append(Done(response.reply, problem=f"the server says: {told}"))
            self._ask()
        else:
            logger.warning("the server reports an error: %s", told)

    def _created(self, response: Mapping[str, Any]) -> None:
        name, current = str(response.get("id", "")), self._current
        if current is None or current.id:
            logger.warning("the server replies without having been asked; that is cancelled")
            self._send("response.cancel", "cancel", response_id=name)
            return
        current.id = name
        if current.cut:
            self._send("response.cancel", "cancel", response_id=name)

    def _audio(self, event: Mapping[str, Any]) -> None:
        response = self._of(event)
        if response is None:
            return
        try:
            data = base64.b64decode(str(event.get("delta", "")), validate=True)
        except ValueError:  # binascii.Error, and what is not ASCII
            self.outcomes.append(Broken("the server sent audio that is not base64"))
            return
        response.began = True
        if self._ulaw:
            pcm = g711.decode(np.frombuffer(data, np.uint8), False)
        else:
            pcm = self._down.push(np.frombuffer(data[: len(data) // 2 * 2], "<i2").astype(np.int16))
        part = event.get("content_index")
        item = response.item(str(event.get("item_id", "")), part if isinstance(part, int) else 0)
        if response.wanted:
            item.samples += len(pcm)
            self.outcomes.append(Said(response.reply, pcm))

    def _item_done(self, response: _Response | None, item: Mapping[str, Any]) -> None:
        if response is None:
            return
        if item.get("type") == "function_call":
            call_id, name = str(item.get("call_id", "")), str(item.get("name", ""))
            response.calls[call_id] = (call_id, name, str(item.get("arguments", "")))
            response.item(str(item.get("id", "")), 0).spoken = False

    def _done(self, told: Mapping[str, Any]) -> None:
        name, current = str(told.get("id", "")), self._current
        if current is None or (name and name != current.id):
            self._ask()
            return
        self._current, current.over = None, True
        output = told.get("output")
        for item in output if isinstance(output, list) else ():
            self._item_done(current, _mapping(item))
        if current.wanted:
            self.outcomes.append(Done(current.reply, tuple(current.calls.values()), _problem(told)))
        else:
            for left in current.items:
                if not left.samples and left.id:  # a call that nobody will answer, and words that nobody will hear
                    self._send("conversation.item.delete", "delete", item_id=left.id)
        self._ask()

    def _committed(self, item: str) -> None:
        if self._request.detects_turns:
            self._appended = 0
            self._turns[item] = None
            self.outcomes.append(CallerIs(False))
        elif self._committing:
            self._turns[item] = self._committing.popleft()

    def _transcribed(self, how: str, event: Mapping[str, Any]) -> None:
        item = str(event.get("item_id", ""))
        if how == "delta":
            self._heard[item] = self._heard.get(item, "") + str(event.get("delta", ""))
        elif how == "completed":
            self._heard[item] = str(event.get("transcript", "")).strip()
        else:
            return
        reply = self._turns.get(item)
        if reply is not None and self._heard[item]:
            self.outcomes.append(CallerSaid(reply, self._heard[item], how == "completed"))

    # --- parts ----------------------------------------------------------------------------------------------------

    def _ask(self) -> None:
        if self._current is None and self._queue:
            self._current = self._queue.popleft()
            self._send("response.create", "create")

    def _of(self, event: Mapping[str, Any]) -> _Response | None:
        """The response that an event is about; only the current one is of interest."""
        current = self._current
        name = event.get("response_id")
        return current if current is not None and (name is None or name == current.id) else None

    def _truncate(self, response: _Response, heard: int) -> None:
        """Let the server forget what was not heard."""
        left = heard
        spoken = [item for item in response.items if item.spoken and item.samples]
        for item in spoken:
            kept = min(left, item.samples)
            left -= kept
            more_to_come = item is spoken[-1] and response.cut
            if kept == 0:
                self._send("conversation.item.delete", "delete", item_id=item.id)
            elif kept < item.samples or more_to_come:
                self._send(
                    "conversation.item.truncate",
                    "truncate",
                    item_id=item.id,
                    content_index=item.part,
                    audio_end_ms=kept * 1000 // RATE_HZ,
                )

    def _send(self, kind: str, what: str, **more: Any) -> None:
        self._numbers += 1
        self.outgoing.append({"type": kind, "event_id": f"e{self._numbers}-{what}", **more})

    def _session(self) -> Event:
        options, request = self._options, self._request
        language = request.language.partition("-")[0]
        transcription = {"model": options.transcription_model, "language": language}
        written = transcription if options.transcription_model else None
        turns: Event | None = None
        if request.detects_turns:
            turns = {"type": options.turn_detection, "create_response": False, "interrupt_response": False}
        tools = [
            {
                "type": "function",
                "name": one.name,
                "description": one.description,
                "parameters": _schema(one.parameters),
            }
            for one in request.tools
        ]
        voice = request.voice or options.voice
        limit = options.max_output_tokens or "inf"
        common: Event = {"instructions": request.instructions, "tools": tools, "tool_choice": "auto"}
        if options.dialect == "beta":
            beta = "g711_ulaw" if self._ulaw else "pcm16"
            session: Event = {
                **common,
                "modalities": ["audio", "text"],
                "input_audio_format": beta,
                "output_audio_format": beta,
                "input_audio_transcription": written,
                "turn_detection": turns,
                "max_response_output_tokens": limit,
            }
            return {**session, "voice": voice} if voice else session
        wire: Event = {"type": "audio/pcmu"} if self._ulaw else {"type": "audio/pcm", "rate": _PCM_HZ}
        output: Event = {"format": wire, "voice": voice} if voice else {"format": wire}
        return {
            **common,
            "type": "realtime",
            "output_modalities": ["audio"],
            "audio": {
                "input": {"format": wire, "transcription": written, "turn_detection": turns},
                "output": output,
            },
            "max_output_tokens": limit,
        }


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _schema(text: str) -> Any:
    return msgspec.json.decode(text or "{}")


def _problem(response: Mapping[str, Any]) -> str:
    """Why a response that is over is not all there; "" where it is."""
    status = response.get("status")
    if status not in ("failed", "incomplete", "cancelled"):
        return ""
    details = _mapping(response.get("status_details"))
    error = _mapping(details.get("error"))
    told = error.get("message") or error.get("code") or details.get("reason") or "no reason given"
    return f"the reply is {status}: {told}"
