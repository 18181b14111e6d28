"""Which events of calls go to which webhooks, what is sent, how it is signed and when it is tried again. PURE.

Signed as Standard Webhooks (standardwebhooks.com) has it: whoever receives them can check them with its libraries.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import msgspec
from pydantic import SecretStr

from appliance.events import (
    CallAnswered,
    CallEnded,
    CallEvent,
    CallStarted,
    RecordingFinished,
    ToolRun,
    TurnAmended,
    TurnFinished,
)

MAX_BODY: Final = 256 * 1024
_FIRST_PAUSE_S: Final = 5.0
_LONGEST_PAUSE_S: Final = 3600.0
_MAX_CALLS: Final = 10_000
_MAX_ENDED: Final = 200
"""Calls of which something may still come once they are over: a recording, a tool that was finished late."""
_FRAME_S: Final = 0.02
_MAX_TEXT: Final = 10_000


@dataclass(frozen=True)
class Target:
    """A webhook as one line has it, everything filled in."""

    plugin: str
    webhook: str
    url: str = field(repr=False)
    events: frozenset[str]
    secret: SecretStr
    headers: Mapping[str, str] = field(repr=False)
    timeout_s: float
    attempts: int
    concurrency: int
    max_waiting: int

    @property
    def key(self) -> tuple[str, str]:
        return self.plugin, self.webhook


@dataclass(frozen=True)
class NewEvent:
    """An event for one webhook, to be kept until it has been delivered."""

    id: str
    plugin: str
    webhook: str
    line: str
    call_id: str
    event: str
    body: str
    created_at: datetime


def signed(secret: SecretStr, event_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers that tell a receiver who sent ``body``, and when (``timestamp``: seconds since 1970)."""
    text = secret.get_secret_value()
    key = text.encode()
    if text.startswith("whsec_"):
        try:
            key = base64.b64decode(text.removeprefix("whsec_"), validate=True)
        except binascii.Error:
            key = text.encode()
    told = f"{event_id}.{timestamp}.".encode() + body
    seal = base64.b64encode(hmac.new(key, told, hashlib.sha256).digest()).decode()
    return {"webhook-id": event_id, "webhook-timestamp": str(timestamp), "webhook-signature": f"v1,{seal}"}


def pause_s(event_id: str, attempts: int, wanted_s: float | None = None) -> float:
    """How long to wait after the failure of attempt number ``attempts``: doubling, and not all events at one moment.

    Args:
        event_id: spreads events over a tenth more.
        attempts: how many there were, from 1.
        wanted_s: for how long the server wants to be left alone.
    """
    doubled = _FIRST_PAUSE_S * 2.0 ** min(attempts - 1, 20)
    spread = 1.0 + (zlib.crc32(event_id.encode()) % 1000) / 10_000
    return min(max(doubled * spread, wanted_s or 0.0), _LONGEST_PAUSE_S)


@dataclass
class _Known:
    """A call that somebody wants to hear of."""

    about: dict[str, Any]
    targets: Sequence[Target]
    answered_at: float | None = None
    told_tools: dict[int, int] = field(default_factory=dict)
    """Turn to how many of its tools have been told of."""


class WebhookEvents:
    """Turns what happens to calls into events for webhooks.

    Args:
        targets_of: the webhooks of a line, by its name; asked once, when a call begins.
        new_id: a new id for an event.
        utc: the time of day.
    """

    def __init__(
        self, targets_of: Callable[[str], Sequence[Target]], new_id: Callable[[], str], utc: Callable[[], datetime]
    ) -> None:
        self._targets_of = targets_of
        self._new_id = new_id
        self._utc = utc
        self._calls: OrderedDict[str, _Known] = OrderedDict()
        self._ended: OrderedDict[str, _Known] = OrderedDict()

    def events(self, event: CallEvent) -> list[tuple[Target, NewEvent]]:
        """What ``event`` means to whom. Nearly always nothing."""
        if isinstance(event, CallStarted):
            self._begin(event)
        call = self._calls.get(event.call_id) or self._ended.get(event.call_id)
        if call is None:
            return []
        found = [made for name, at, data in self._told(call, event) for made in self._for(call, name, at, data)]
        if isinstance(event, CallEnded):
            self._calls.pop(event.call_id, None)
            self._ended[event.call_id] = call
            if len(self._ended) > _MAX_ENDED:
                self._ended.popitem(last=False)
        return found

    def interrupted(self, call: Mapping[str, Any], ended_at: datetime, reason: str) -> list[tuple[Target, NewEvent]]:
        """The end of a call that was cut off when the box last stopped; ``call`` has the columns of its record."""
        targets = self._targets_of(str(call["line"]))
        if not targets:
            return []
        about = {name: call[name] for name in ("line", "trunk", "direction", "calling", "called")}
        known = _Known({"call_id": call["id"], **about}, targets)
        data = {"disposition": "interrupted", "hangup_by": "box", "hangup_text": reason, "slots": call["slots"]}
        return list(self._for(known, "call.ended", ended_at, data))

    def _begin(self, event: CallStarted) -> None:
        targets = self._targets_of(event.line)
        if not targets:
            return
        about = {
            "call_id": event.call_id,
            "line": event.line,
            "trunk": event.trunk,
            "direction": event.direction.value,
            "calling": event.calling,
            "called": event.called,
        }
        self._calls[event.call_id] = _Known(about, targets)
        if len(self._calls) > _MAX_CALLS:
            self._calls.popitem(last=False)

    def _told(self, call: _Known, event: CallEvent) -> Iterator[tuple[str, datetime, dict[str, Any]]]:
        match event:
            case CallStarted():
                yield "call.started", event.started_utc, {"calling_name": event.calling_name}
            case CallAnswered():
                call.answered_at = event.answered_at
                yield "call.answered", event.answered_utc, {}
            case CallEnded():
                duration_s = 0.0 if call.answered_at is None else round(event.ended_at - call.answered_at, 3)
                yield (
                    "call.ended",
                    event.ended_utc,
                    {
                        "disposition": event.disposition.value,
                        "hangup_by": event.hangup_by.value,
                        "hangup_text": event.hangup_text,
                        "duration_s": duration_s,
                        "slots": dict(event.slots),
                    },
                )
            case RecordingFinished():
                length_s = round(event.frames * _FRAME_S, 2)
                recording = {"path": event.path, "duration_s": length_s, "problem": event.problem}
                yield "call.recorded", self._utc(), recording
            case TurnFinished():
                yield from self._tools(call, event)
            case TurnAmended():
                yield from self._tools(call, event.turn)
            case _:
                pass

    def _tools(self, call: _Known, turn: TurnFinished) -> Iterator[tuple[str, datetime, dict[str, Any]]]:
        before = call.told_tools.get(turn.number, 0)
        if len(turn.tools) > before:
            call.told_tools[turn.number] = len(turn.tools)
            for run in turn.tools[before:]:
                yield "tool.used", turn.finished_utc, _tool(turn.number, run)

    def _for(self, call: _Known, name: str, at: datetime, data: Mapping[str, Any]) -> Iterator[tuple[Target, NewEvent]]:
        for target in call.targets:
            if name in target.events:
                told = {"type": name, "timestamp": at.isoformat(), "data": {**call.about, **data}}
                body = _encoded(told)
                if len(body) > MAX_BODY:
                    body = _encoded({**told, "data": {**call.about, "left_out": "too long"}})
                yield (
                    target,
                    NewEvent(
                        self._new_id(),
                        target.plugin,
                        target.webhook,
                        call.about["line"],
                        call.about["call_id"],
                        name,
                        body.decode(),
                        self._utc(),
                    ),
                )


def _encoded(told: Mapping[str, Any]) -> bytes:
    """As JSON. Peers may send half a character, which JSON has none of."""
    try:
        return msgspec.json.encode(told)
    except UnicodeEncodeError:
        return msgspec.json.encode(_whole(told))


def _whole(node: Any) -> Any:
    if isinstance(node, str):
        return node.encode("utf-8", "replace").decode()
    if isinstance(node, Mapping):
        return {_whole(key): _whole(item) for key, item in node.items()}
    return [_whole(item) for item in node] if isinstance(node, list | tuple) else node


def _tool(turn: int, run: ToolRun) -> dict[str, Any]:
    return {
        "turn": turn,
        "tool": run.name,
        "source": run.source,
        "arguments": _parsed(run.arguments),
        "result": _parsed(run.result),
        "problem": run.problem,
        "confirmed": run.confirmed.value,
        "idempotency_key": run.key,
        "duration_s": round(run.end_at - run.start_at, 3),
    }


def _parsed(text: str) -> Any:
    """JSON as it is, anything else as text."""
    try:
        return msgspec.json.decode(text) if text else None
    except (msgspec.MsgspecError, RecursionError):
        return text[:_MAX_TEXT]
