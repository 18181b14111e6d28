"""Telnyx as a box sees it: webhooks signed with Ed25519, Call Control's commands, media streams in RTP mode.

Sources: Telnyx's documents, "Voice API", "Stream call media over WebSocket", "Webhook signing".
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import aiohttp
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from appliance.cli.stream_caller import connect
from appliance.errors import CarrierError
from tests.carriers.sim_account import SimAccount, SimLeg
from tests.carriers.telnyx_caller import Disorder, TelnyxCaller, now_text

_STREAM: Final = {
    "stream_url", "stream_track", "stream_codec", "stream_bidirectional_mode", "stream_bidirectional_codec",
    "stream_bidirectional_target_legs", "stream_bidirectional_sampling_rate", "stream_auth_token", "custom_parameters",
}  # fmt: skip
_EVERY: Final = {"client_state", "command_id"}
# What each command takes, as far as anybody here would send it.
_ACTIONS: Final[dict[str, set[str]]] = {
    "answer": _STREAM | {"webhook_url", "webhook_url_method", "record", "billing_group_id"},
    "hangup": set(),
    "reject": {"cause"},
    "transfer": {"to", "from", "from_display_name", "timeout_secs", "time_limit_secs", "target_leg_client_state",
                 "webhook_url", "answering_machine_detection", "custom_headers", "mute_dtmf", "early_media"},
    "bridge": {"call_control_id", "park_after_unbridge", "mute_dtmf"},
    "send_dtmf": {"digits", "duration_millis"},
    "streaming_start": _STREAM | {"enable_dialogflow"},
    "streaming_stop": {"stream_id"},
}  # fmt: skip
_DIAL: Final = _STREAM | {
    "connection_id", "to", "from", "from_display_name", "timeout_secs", "time_limit_secs", "webhook_url",
    "answering_machine_detection", "answering_machine_detection_config", "link_to", "custom_headers",
}  # fmt: skip
_REJECTIONS: Final = {
    "CALL_REJECTED": ("call_rejected", "603"), "USER_BUSY": ("user_busy", "486"), "NOT_FOUND": ("not_found", "404"),
    "TEMPORARILY_UNAVAILABLE": ("unspecified", "480"),
}  # fmt: skip


@dataclass
class Callee:
    """What becomes of a call to a number."""

    outcome: Literal["answered", "busy", "no-answer", "failed"] = "answered"
    ring_s: float = 0.1


_ENDS: Final = {"busy": ("user_busy", "486"), "no-answer": ("timeout", "487"), "failed": ("not_found", "404")}


@dataclass(frozen=True)
class Sent:
    """A webhook that was sent, and the status of its answer; 0 where there was none."""

    event: str
    payload: Mapping[str, Any]
    status: int


class SimCall(SimLeg[TelnyxCaller]):
    """One leg at Telnyx.

    Attributes:
        commands: (action, body) of each command for it, in order.
        digits: what ``send_dtmf`` sent.
        peer: the leg that it is bridged with.
    """

    def __init__(self, sim: TelnyxSim, direction: str, to: str, from_: str, session: str = "") -> None:
        self.sim = sim
        self.direction = direction
        self.to, self.from_ = to, from_
        self.id = f"v3:{uuid.uuid4().hex}"
        super().__init__(self.id)
        self.leg_id, self.session_id = str(uuid.uuid4()), session or str(uuid.uuid4())
        self.client_state: str | None = None
        self.answered = False
        self.cause = ""
        self.stream_url = ""
        self.commands: list[tuple[str, dict[str, Any]]] = []
        self.webhooks: list[Sent] = []
        self.digits: list[str] = []
        self.peer: SimCall | None = None

    def outcome(self) -> str:
        """The hang-up cause."""
        return self.cause

    def story(self) -> str:
        return f"ended by {self.cause or 'nobody'}, commands {[action for action, _ in self.commands]}"

    async def hang_up(self) -> None:
        """The person on this leg hangs up."""
        await self.end("normal_clearing", "caller")

    async def end(self, cause: str, source: str, sip: str = "200") -> None:
        """The leg is over; the one it is bridged with goes too. Twice does no harm."""
        if self.ended.is_set():
            return
        self.cause = cause
        self.ended.set()
        self.changed.set()
        for caller in self.streams:
            await caller.hang_up()
        if self.streams:
            await self.tell("streaming.stopped", stream_url=self.stream_url)
        await self.tell(
            "call.hangup", hangup_cause=cause, hangup_source=source, sip_hangup_cause=sip, end_time=now_text()
        )
        if self.peer is not None:
            await self.peer.end("normal_clearing", "callee")

    async def tell(self, event: str, **more: Any) -> None:
        """Send a webhook about it."""
        payload = {
            "call_control_id": self.id, "call_leg_id": self.leg_id, "call_session_id": self.session_id,
            "client_state": self.client_state, "connection_id": self.sim.connection_id, "from": self.from_,
            "to": self.to, **more,
        }  # fmt: skip
        await self.sim.post(self, event, payload)

    async def open_stream(self, body: Mapping[str, Any]) -> None:
        """As ``answer`` and ``streaming_start`` ask for one."""
        if body.get("stream_bidirectional_mode") != "rtp":
            self.sim.mistakes.append("a stream without stream_bidirectional_mode rtp: the caller would hear nothing")
        codec = body.get("stream_bidirectional_codec", "PCMU")
        self.stream_url = body["stream_url"]
        url = self.sim.reached(self.stream_url)
        more = {"client_state": self.client_state or "", "from": self.from_, "to": self.to}
        try:
            caller = TelnyxCaller(self.id, codec=codec, disorder=self.sim.disorder, **more)
            caller.begin(await connect(url, session=self.sim.http))
        except CarrierError as error:
            self.sim.stream_errors.append(str(error))
            params = {"stream_url": body["stream_url"], "track": body.get("stream_track", "inbound_track")}
            await self.tell("streaming.failed", failure_reason="connection_failed", stream_params=params)
            return
        self.streams.append(caller)
        self.sim.streams.append(caller)
        self.changed.set()
        await self.tell("streaming.started", stream_url=body["stream_url"])
        await caller.ended.wait()
        self.sim.mistakes += [f"{self.id}: {what}" for what in caller.violations]
        if caller.ended_by != "us":
            await caller.hang_up()
            await self.tell("streaming.stopped", stream_url=body["stream_url"])
        self.changed.set()


class TelnyxSim(SimAccount[TelnyxCaller]):
    """One account at Telnyx. An asynchronous context manager; ``api_url`` is its REST API.

    Args:
        webhook_url: of the Voice API application.
        reach: see :class:`SimAccount`.
        twice: every webhook is sent twice, as Telnyx may.

    Attributes:
        public_key: what a trunk's ``public_key`` is set to.
    """

    def __init__(
        self,
        webhook_url: str = "",
        *,
        reach: Mapping[str, str] | None = None,
        disorder: Disorder | None = None,
        twice: bool = False,
    ) -> None:
        super().__init__(reach)
        self.webhook_url = webhook_url
        self.disorder = disorder
        self.twice = twice
        self.api_key = f"KEY{uuid.uuid4().hex.upper()}"
        self.connection_id = "2811212257810187875"
        self._key = Ed25519PrivateKey.generate()
        raw = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.public_key = base64.b64encode(raw).decode()
        self.calls: dict[str, SimCall] = {}
        self.callees: dict[str, Callee] = {}
        self._faults: deque[int] = deque()
        self._seen: dict[str, web.Response] = {}

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v2/calls", self._dial),
            web.get("/v2/calls/{call}", self._fetch),
            web.post("/v2/calls/{call}/actions/{action}", self._action),
        ]

    # What tests do.

    async def call(self, to: str, from_: str, *, caller_name: str = "") -> SimCall:
        """A person dials ``to``; gives the call at once, its webhook on the way."""
        call = SimCall(self, "incoming", to, from_)
        self.calls[call.id] = call
        more = {"direction": "incoming", "state": "parked", "start_time": now_text(), "calling_party_type": "pstn"}
        self.spawn(call.tell("call.initiated", **more, **({"caller_id_name": caller_name} if caller_name else {})))
        return call

    def fail(self, status: int, times: int = 1) -> None:
        """The next requests are answered with this status, and not done."""
        self._faults.extend([status] * times)

    # Webhooks.

    def signed(self, body: bytes, at: int | None = None) -> dict[str, str]:
        """The headers of a webhook."""
        stamp = str(int(time.time()) if at is None else at)
        signature = base64.b64encode(self._key.sign(stamp.encode() + b"|" + body)).decode()
        return {
            "telnyx-signature-ed25519": signature, "telnyx-timestamp": stamp, "Content-Type": "application/json",
            "User-Agent": "telnyx-webhooks",
        }  # fmt: skip

    async def post(self, call: SimCall, event: str, payload: Mapping[str, Any]) -> None:
        data = {
            "event_type": event, "id": str(uuid.uuid4()), "occurred_at": now_text(), "payload": payload,
            "record_type": "event",
        }  # fmt: skip
        for attempt in range(2 if self.twice else 1):
            meta = {"attempt": attempt + 1, "delivered_to": self.webhook_url}
            body = json.dumps({"data": data, "meta": meta}).encode()
            status = 0
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
                timeout = aiohttp.ClientTimeout(total=5.0)
                async with self.http.post(
                    self.reached(self.webhook_url), data=body, headers=self.signed(body), timeout=timeout
                ) as reply:
                    status = reply.status
            call.webhooks.append(Sent(event, payload, status))
            if status >= 500:
                self.mistakes.append(f"{event}: answered {status}")
        call.changed.set()

    # The API.

    async def _body(self, request: web.Request, known: set[str]) -> tuple[dict[str, Any], web.Response | None]:
        if self._faults:
            status = self._faults.popleft()
            return {}, _refused(status, "10007", "Unexpected error")
        if request.headers.get("Authorization") != f"Bearer {self.api_key}":
            return {}, _refused(401, "10009", "Authentication failed")
        try:
            body = json.loads(await request.read() or b"{}")
        except ValueError:
            return {}, _refused(400, "10015", "Invalid JSON")
        unknown = sorted(set(body) - known - _EVERY)
        if unknown:
            self.mistakes.append(f"{request.path}: unknown parameters {unknown}")
        state = body.get("client_state") or body.get("target_leg_client_state")
        if state:
            try:
                base64.b64decode(state, validate=True)
            except ValueError:
                return {}, _refused(422, "90029", "Invalid value for client_state: it is base64")
        return body, None

    async def _dial(self, request: web.Request) -> web.Response:
        body, refusal = await self._body(request, _DIAL)
        if refusal is not None:
            return refusal
        command = body.get("command_id", "")
        known = next((call for call in self.calls.values() if command and ("dial", command) in call.commands), None)
        if known is None:
            for name in ("connection_id", "to", "from"):
                if not body.get(name):
                    return _refused(422, "10004", f"Missing required parameter: {name}")
            if body["connection_id"] != self.connection_id:
                return _refused(422, "10015", "Invalid value for connection_id")
            known = SimCall(self, "outgoing", body["to"], body["from"])
            known.client_state = body.get("client_state")
            known.commands.append(("dial", command))  # type: ignore[arg-type]
            self.calls[known.id] = known
            self.spawn(self._ring(known, body, float(body.get("timeout_secs", 30))))
        data = {
            "call_control_id": known.id, "call_leg_id": known.leg_id, "call_session_id": known.session_id,
            "is_alive": not known.ended.is_set(), "record_type": "call", "client_state": known.client_state,
        }  # fmt: skip
        return web.json_response({"data": data})

    async def _ring(self, call: SimCall, body: Mapping[str, Any], timeout_s: float) -> bool:
        """Alert the one called; gives whether it answered."""
        await call.tell("call.initiated", direction="outgoing", state="bridging", start_time=now_text())
        callee = self.callees.get(call.to, Callee())
        wait_s = timeout_s if callee.outcome == "no-answer" else callee.ring_s
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(call.ended.wait(), wait_s)
        if call.ended.is_set():
            return False
        if callee.outcome != "answered":
            cause, sip = _ENDS[callee.outcome]
            await call.end(cause, "callee", sip)
            return False
        call.answered = True
        await call.tell("call.answered", start_time=now_text())
        if body.get("stream_url"):
            self.spawn(call.open_stream(body))
        return True

    async def _fetch(self, request: web.Request) -> web.Response:
        _, refusal = await self._body(request, set())
        call = self.calls.get(request.match_info["call"])
        if refusal is not None or call is None:
            return refusal or _refused(404, "10005", "Resource not found")
        return web.json_response({"data": {"call_control_id": call.id, "is_alive": not call.ended.is_set()}})

    async def _action(self, request: web.Request) -> web.Response:
        action = request.match_info["action"]
        if action not in _ACTIONS:
            self.mistakes.append(f"unknown command {action!r}")
            return _refused(404, "10005", "Resource not found")
        body, refusal = await self._body(request, _ACTIONS[action])
        if refusal is not None:
            return refusal
        call = self.calls.get(request.match_info["call"])
        if call is None:
            return _refused(404, "10005", "Resource not found")
        if call.ended.is_set():
            return _refused(422, "90018", "Call has already ended")
        command = f"{call.id} {body['command_id']}" if body.get("command_id") else ""
        if command in self._seen:
            return web.json_response({"data": {"result": "ok"}})
        call.commands.append((action, body))
        if body.get("client_state"):
            call.client_state = body["client_state"]
        answer = self._do(call, action, body)
        if command and answer.status == 200:
            self._seen[command] = answer
        call.changed.set()
        return answer

    def _do(self, call: SimCall, action: str, body: dict[str, Any]) -> web.Response:
        ok = web.json_response({"data": {"result": "ok"}})
        if action == "answer":
            if call.direction != "incoming" or call.answered:
                return _refused(422, "90034", "Call already answered")
            call.answered = True
            self.spawn(self._answered(call, body))
        elif action == "hangup":
            self.spawn(call.end("normal_clearing", "caller"))
        elif action == "reject":
            if call.answered or call.direction != "incoming":
                return _refused(422, "90034", "Call already answered")
            if body.get("cause") not in _REJECTIONS:
                return _refused(422, "10015", f"Invalid value for cause: one of {', '.join(_REJECTIONS)}")
            cause, sip = _REJECTIONS[body["cause"]]
            self.spawn(call.end(cause, "callee", sip))
        elif not call.answered:
            return _refused(422, "90034", "This call is not answered yet")
        elif action == "send_dtmf":
            if not body.get("digits") or set(body["digits"]) - set("0123456789ABCD*#wW"):
                return _refused(422, "10015", "Invalid value for digits")
            call.digits.append(body["digits"])
        elif action == "streaming_start":
            if not body.get("stream_url", "").startswith(("ws://", "wss://")):
                return _refused(422, "10015", "Invalid value for stream_url")
            if call.stream is not None:
                return _refused(422, "90046", "Media streaming is already active")
            self.spawn(call.open_stream(body))
        elif action == "streaming_stop":
            for caller in call.streams:
                self.spawn(caller.hang_up())
            self.spawn(call.tell("streaming.stopped", stream_url=call.stream_url))
        elif action == "bridge":
            other = self.calls.get(body.get("call_control_id", ""))
            if other is None or other.ended.is_set():
                return _refused(422, "90018", "Call to bridge with has already ended")
            self.spawn(self._bridge(call, other))
        elif action == "transfer":
            if not body.get("to"):
                return _refused(422, "10004", "Missing required parameter: to")
            self.spawn(self._transfer(call, body))
        return ok

    async def _answered(self, call: SimCall, body: Mapping[str, Any]) -> None:
        await call.tell("call.answered", start_time=now_text())
        if body.get("stream_url"):
            await call.open_stream(body)

    async def _transfer(self, call: SimCall, body: Mapping[str, Any]) -> None:
        leg = SimCall(self, "outgoing", body["to"], body.get("from") or call.from_, call.session_id)
        leg.client_state = body.get("target_leg_client_state")
        self.calls[leg.id] = leg
        if await self._ring(leg, {}, float(body.get("timeout_secs", 30))) and not call.ended.is_set():
            await self._bridge(call, leg)

    async def _bridge(self, one: SimCall, other: SimCall) -> None:
        one.peer, other.peer = other, one
        for call in (one, other):
            call.changed.set()
            await call.tell("call.bridged")


def _refused(status: int, code: str, title: str) -> web.Response:
    return web.json_response({"errors": [{"code": code, "title": title, "detail": title}]}, status=status)
