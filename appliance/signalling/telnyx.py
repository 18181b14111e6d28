"""Telnyx: Call Control's webhooks and commands. What its media streams say is in ``appliance.carriers.telnyx``.

Source: Telnyx's documents, "Voice API". Webhooks may come twice, late and out of order; each is signed with Ed25519
over ``timestamp|body``. Commands carry a ``command_id``, by which Telnyx knows one that it has had.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import msgspec
from aiohttp import web
from pydantic import ConfigDict, SecretStr

from appliance.api import BoxCall, CallRequest, CarrierBox, CarrierCall, IncomingCall, ProviderOptions, StreamAddress
from appliance.api.streams import printable
from appliance.api.web import Ed25519Key, HttpOrigin, WsOrigin, post
from appliance.api.web_carrier import MAX_CALLS, WebCarrier
from appliance.errors import CarrierApiError, CarrierError, DialError

logger = logging.getLogger(__name__)
REPLAY_S: Final = 300
"""A webhook whose timestamp is further off is refused."""
_TRANSFER_SLACK_S: Final = 8.0
_STREAMS: Final = 4
"""How often a call's stream is asked for where Telnyx cannot open it, or it breaks."""
_AGAIN_S: Final = 0.5
"""Later than a stream's end Telnyx tells that of the call."""
_CAUSES: Final = {"user_busy": 486, "call_rejected": 603, "not_found": 404, "originator_cancel": 487}
_REJECTIONS: Final = {
    404: "NOT_FOUND",
    486: "USER_BUSY",
    480: "TEMPORARILY_UNAVAILABLE",
    503: "TEMPORARILY_UNAVAILABLE",
}
_AUDIO: Final = {
    "stream_track": "inbound_track", "stream_codec": "PCMU", "stream_bidirectional_mode": "rtp",
    "stream_bidirectional_codec": "PCMU",
}  # fmt: skip
_HINTS: Final = {0: "; is api_url right?", 401: "; is api_key right?"}
_GONE: Final = (404, 422)
"""What a command for a call that has ended is answered with."""


class TelnyxOptions(ProviderOptions):
    """Keys of a trunk of the kind ``telnyx``, beside those of every trunk.

    Attributes:
        api_key: opens Telnyx's API to us.
        public_key: of the account (Keys & Credentials, Public Key): its webhooks are signed with the other half.
        public_url: the https origin under which Telnyx reaches ``listen.http``: webhooks go to ``/telnyx/webhook``.
        connection_id: the Voice API application by which calls are placed; without it calls only come.
        media_url: the wss origin under which Telnyx reaches ``listen.media``; by default the host of ``public_url``.
        api_url: of Telnyx's API, where it is not the usual one: a proxy, a test.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    api_key: SecretStr
    public_key: Ed25519Key
    public_url: HttpOrigin
    connection_id: str = ""
    media_url: WsOrigin = ""
    api_url: HttpOrigin = "https://api.telnyx.com"


class _Payload(msgspec.Struct):
    call_control_id: str | None = None
    client_state: str | None = None
    direction: str | None = None
    from_: str | None = msgspec.field(name="from", default=None)
    to: str | None = None
    caller_id_name: str | None = None
    hangup_cause: str | None = None
    sip_hangup_cause: str | None = None
    failure_reason: str | None = None
    stream_url: str | None = None

    def status(self) -> int:
        """Why a call did not come about, in terms of SIP."""
        said = self.sip_hangup_cause or ""
        return int(said) if said in map(str, range(400, 700)) else _CAUSES.get(self.hangup_cause or "", 480)


class _Event(msgspec.Struct):
    event_type: str
    payload: _Payload


class _Webhook(msgspec.Struct):
    data: _Event


class TelnyxCall:
    """One leg at Telnyx. A call that we place is known by ``state`` until its ``call_id`` has been told."""

    can_transfer = sends_digits = True

    def __init__(self, carrier: TelnyxCarrier, call_id: str, request: CallRequest | None = None) -> None:
        self._carrier, self.call_id, self.request = carrier, call_id, request
        self.state, self.url = _state(request.key) if request else "", ""
        self.box_call: BoxCall | None = request.box_call if request else None
        self.answered = self.moved = False
        self.outcome: asyncio.Future[int] | None = None
        self.streams = self._commands = 0

    async def command(self, action: str, **body: Any) -> None:
        self._commands += 1
        key = f"{self.box_call.key if self.box_call else self.call_id}.{self._commands}"
        await self._carrier.ask(f"/{quote(self.call_id, safe='')}/actions/{action}", {"command_id": key, **body})

    async def ring(self) -> None:
        """A caller hears ringing as long as nothing is done."""

    async def answer(self, stream: StreamAddress) -> None:
        self.url = stream.url
        await self.command("answer", stream_url=stream.url, **_AUDIO)
        self.answered = True

    async def stream(self, stream: StreamAddress) -> None:
        self.url = stream.url
        await self.command("streaming_start", stream_url=stream.url, **_AUDIO)

    async def stream_again(self, box_call: BoxCall, url: str) -> None:
        """The stream has ended, which is no matter where the call has too, or is connected with somebody else."""
        await asyncio.sleep(_AGAIN_S)
        busy = box_call.ended or self.moved or self.outcome is not None
        if not busy and self.url == url and self.streams < _STREAMS:
            self.streams += 1
            await self.stream(box_call.new_stream())

    async def reject(self, status: int, reason: str) -> None:
        self._carrier.forget(self)
        await self.command("reject", cause=_REJECTIONS.get(status, "CALL_REJECTED"))

    async def hangup(self) -> None:
        self._carrier.forget(self)
        if not self.call_id or self.moved:
            return
        try:
            await self.command("hangup")
        except CarrierApiError as error:
            if error.status not in _GONE:
                raise

    async def transfer(self, number: str, other: CarrierCall | None, ring_timeout_s: float = 30.0) -> int:
        """Connect the two at Telnyx. The caller's stream goes on until that is done."""
        self.outcome = asyncio.get_running_loop().create_future()
        state = _state(f"transfer of {self.call_id}")
        moved = [self, other] if isinstance(other, TelnyxCall) else [self]
        try:
            if isinstance(other, TelnyxCall):
                await self.command("bridge", call_control_id=other.call_id)
            else:
                self._carrier.transfers[state] = self
                await self.command(
                    "transfer", to=number, timeout_secs=round(ring_timeout_s), target_leg_client_state=state
                )
            status = await asyncio.wait_for(self.outcome, ring_timeout_s + _TRANSFER_SLACK_S)
        except TimeoutError:
            status = 408
        finally:
            self.outcome = None
            self._carrier.transfers.pop(state, None)
        for call in moved if status == 200 else ():
            call.moved = True
            self._carrier.spawn(call.command("streaming_stop"))
        return status

    async def send_digits(self, digits: str) -> None:
        await self.command("send_dtmf", digits=digits)

    def settle(self, status: int) -> None:
        """A transfer has come to this, if there is one."""
        if self.outcome is not None and not self.outcome.done():
            self.outcome.set_result(status)


class TelnyxCarrier(WebCarrier):
    """The calls of one trunk."""

    kind = "telnyx"
    signature_header = "telnyx-signature-ed25519"

    def __init__(self, options: TelnyxOptions, box: CarrierBox, now: Callable[[], float] = time.time) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        super().__init__(box, options.public_url, options.media_url)
        self._options, self._now = options, now
        self._key = Ed25519PublicKey.from_public_bytes(base64.b64decode(options.public_key))
        self._calls: dict[str, TelnyxCall] = {}
        self._placed: dict[str, TelnyxCall] = {}
        self.transfers: dict[str, TelnyxCall] = {}

    def routes(self) -> Sequence[web.RouteDef]:
        return [web.post("/webhook", self._webhook)]

    def verify(self, headers: Mapping[str, str], body: bytes) -> None:
        from cryptography.exceptions import InvalidSignature

        timestamp, signature = headers.get("telnyx-timestamp", ""), headers.get("telnyx-signature-ed25519", "")
        if not timestamp.isascii() or not timestamp.isdecimal() or len(timestamp) > 12:
            raise CarrierError("it is not signed; is it Telnyx's?")
        if abs(self._now() - int(timestamp)) > REPLAY_S:
            raise CarrierError(f"it was signed more than {REPLAY_S} s from now; is this machine's clock right?")
        try:
            self._key.verify(base64.b64decode(signature, validate=True), timestamp.encode() + b"|" + body)
        except (InvalidSignature, ValueError):
            raise CarrierError("its signature is wrong; is public_key that of the account?") from None

    async def ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """A command. Raises CarrierApiError where it is not taken; says how to fix it."""
        headers = {"Authorization": f"Bearer {self._options.api_key.get_secret_value()}"}
        try:
            return await post(self.box.http, f"{self._options.api_url}/v2/calls{path}", body, headers)
        except CarrierApiError as error:
            raise CarrierApiError(f"Telnyx: {error}{_HINTS.get(error.status, '')}", status=error.status) from None

    async def place(self, request: CallRequest) -> CarrierCall:
        """The stream is asked for when the far end answers: asked for here, it might begin with the ringing."""
        if not self._options.connection_id:
            text = f"trunk {self.box.trunk!r} cannot place calls; give it a connection_id"
            raise DialError(text, status=404, cause="no_route")
        call = TelnyxCall(self, "", request)
        self._placed[call.state] = call
        body = {
            "connection_id": self._options.connection_id, "to": request.number, "from": request.caller_id,
            "timeout_secs": min(600, max(5, round(request.ring_timeout_s))), "client_state": call.state,
            "command_id": request.key,
        }  # fmt: skip
        try:
            call.call_id = str((await self.ask("", body))["data"]["call_control_id"])
            self.is_new(call.call_id)
        except (CarrierApiError, LookupError, TypeError) as error:
            self.forget(call)
            text = str(error) if isinstance(error, CarrierApiError) else "Telnyx: the call has no name"
            raise DialError(text, status=503, cause="unreachable") from None
        return call

    def forget(self, call: TelnyxCall) -> None:
        call.settle(487)
        self._calls.pop(call.call_id, None)
        self._placed.pop(call.state, None)

    async def _webhook(self, request: web.Request) -> web.Response:
        event = (await self.read(request, _Webhook)).data
        said, name = event.payload, event.event_type
        call_id, state = said.call_control_id or "", said.client_state or ""
        if name == "call.initiated" and said.direction == "incoming":
            self._incoming(call_id, said, self.box.client_of(request))
        elif (moving := self.transfers.get(state)) is not None and moving.call_id != call_id:
            if name in ("call.bridged", "call.hangup"):
                moving.settle(200 if name == "call.bridged" else said.status())
        elif (call := self._calls.get(call_id) or self._placed.get(state)) is not None:
            call.call_id = call_id
            self._told(call, name, said)
        elif name == "streaming.stopped" and self.is_new(call_id):
            self.spawn(TelnyxCall(self, call_id).hangup())  # of a call from before a restart: nobody is there for it
        return web.Response()

    def _incoming(self, call_id: str, said: _Payload, source: str) -> None:
        if len(self._calls) >= MAX_CALLS or not self.is_new(call_id):
            return
        call = self._calls[call_id] = TelnyxCall(self, call_id)
        called, calling = (party.removeprefix("sip:").partition("@")[0] for party in (said.to or "", said.from_ or ""))
        incoming = IncomingCall(call_id, called, calling, said.caller_id_name or "", source=source)
        call.box_call = self.box.admit(call, incoming)

    def _told(self, call: TelnyxCall, event: str, said: _Payload) -> None:
        """Keys (call.dtmf.received) are left out: the stream tells them too."""
        box_call = call.box_call
        if event == "call.bridged":
            call.settle(200)
        elif box_call is None:
            return
        elif event == "call.hangup":
            self.forget(call)
            box_call.over(200 if call.answered else said.status(), printable(said.hangup_cause or ""))
        elif box_call.ended and event in ("call.initiated", "call.answered"):
            self.spawn(call.hangup())
        elif event == "call.answered" and not call.answered:
            call.answered = True
            if call.request is not None:
                self.spawn(call.stream(call.request.stream))
        elif event in ("streaming.failed", "streaming.stopped") and said.stream_url in (None, call.url):
            if event == "streaming.failed":
                why = printable(said.failure_reason or "")
                logger.warning("Telnyx cannot open a stream (%s); can it reach %s?", why, self.stream_url("TOKEN"))
            self.spawn(call.stream_again(box_call, call.url))


def _state(text: str) -> str:
    """What Telnyx brings back in every webhook of a leg."""
    return base64.b64encode(text.encode()).decode()
