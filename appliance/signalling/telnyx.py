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
from appliance.api.web_calls import TRANSFER_SLACK_S, WebCall, WebCalls
from appliance.api.web_carrier import MAX_CALLS
from appliance.errors import CarrierApiError, CarrierError, DialError

logger = logging.getLogger(__name__)
REPLAY_S: Final = 300
"""A webhook whose timestamp is further off is refused."""
_STREAMS: Final = 4
"""How often a call's stream is asked for where Telnyx cannot open it, or it breaks."""
_STREAM_ENDED: Final = ("streaming.stopped", "streaming.failed")
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
_HINTS: Final = {
    0: "; is api_url right?",
    401: "; is api_key right?",
    403: "; does the outbound voice profile allow it?",
}


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
    stream_params: dict[str, Any] | None = None

    @property
    def url(self) -> str:
        """Of the stream that it is about; it stands in another place where the stream failed."""
        return str(self.stream_url or (self.stream_params or {}).get("stream_url", ""))

    def status(self) -> int:
        """Why a call did not come about, in terms of SIP."""
        said = self.sip_hangup_cause or ""
        return int(said) if said in map(str, range(400, 700)) else _CAUSES.get(self.hangup_cause or "", 480)


class _Event(msgspec.Struct):
    event_type: str
    payload: _Payload


class _Webhook(msgspec.Struct):
    data: _Event


class TelnyxCall(WebCall):
    """One leg at Telnyx."""

    can_transfer = sends_digits = True

    def __init__(self, carrier: TelnyxCarrier, call_id: str, request: CallRequest | None = None) -> None:
        super().__init__(carrier, call_id, request)
        self._carrier = carrier
        self.state, self.url, self._rejection = _state(request.key) if request else "", "", ""
        self.answered = False
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
        try:
            await self.command("streaming_start", stream_url=stream.url, **_AUDIO)
        except CarrierApiError as error:
            self.no_stream(error)
            raise

    async def stream_again(self, box_call: BoxCall, url: str) -> None:
        """The stream has ended, which is no matter where the call has too, or is connected with somebody else."""
        await asyncio.sleep(self._carrier.again_s)
        busy = box_call.ended or self.moved or self.outcome is not None
        if not busy and self.url == url and self.streams < _STREAMS:
            self.streams += 1
            await self.stream(box_call.new_stream())

    async def reject(self, status: int, reason: str) -> None:
        self._rejection = _REJECTIONS.get(status, "CALL_REJECTED")
        await self.hangup()

    async def end(self) -> None:
        if self._rejection:
            await self.command("reject", cause=self._rejection)
        else:
            await self.command("hangup")

    async def transfer(self, number: str, other: CarrierCall | None, ring_timeout_s: float = 30.0) -> int:
        """Connect the two at Telnyx. The caller's stream goes on until that is done."""
        limit_s, to = ring_timeout_s + TRANSFER_SLACK_S, _state(f"transfer {self._commands} of {self.call_id}")
        if isinstance(other, TelnyxCall):
            asked = self.command("bridge", call_control_id=other.call_id)
            status = await self._carrier.hand_on(self, asked, limit_s, other)
        else:
            body = {"to": number, "timeout_secs": _ring_s(ring_timeout_s), "target_leg_client_state": to}
            status = await self._carrier.hand_on(self, self.command("transfer", **body), limit_s, to)
        for call in (self, other):
            if isinstance(call, TelnyxCall) and call.moved:
                self._carrier.spawn(call.command("streaming_stop"))
        return status

    async def send_digits(self, digits: str) -> None:
        await self.command("send_dtmf", digits=digits)


class TelnyxCarrier(WebCalls[TelnyxCall]):
    """The calls of one trunk."""

    kind, signature_header = "telnyx", "telnyx-signature-ed25519"

    def __init__(self, options: TelnyxOptions, box: CarrierBox, now: Callable[[], float] = time.time) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        super().__init__(box, options.public_url, options.media_url)
        self._options, self._now = options, now
        self._key = Ed25519PublicKey.from_public_bytes(base64.b64decode(options.public_key))

    def new_call(self, call_id: str) -> TelnyxCall:
        return TelnyxCall(self, call_id)

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
            text = f"Telnyx: {error}{_HINTS.get(error.status, '')}"
            raise CarrierApiError(text, status=error.status, sure=error.sure) from None

    async def place(self, request: CallRequest) -> CarrierCall:
        """The stream is asked for when the far end answers: asked for here, it might begin with the ringing."""
        if not self._options.connection_id:
            text = f"trunk {self.box.trunk!r} cannot place calls; give it a connection_id"
            raise DialError(text, status=404, cause="no_route")
        call = TelnyxCall(self, "", request)
        body = {
            "connection_id": self._options.connection_id, "to": request.number, "from": request.caller_id,
            "timeout_secs": _ring_s(request.ring_timeout_s), "client_state": call.state, "command_id": request.key,
        }  # fmt: skip

        async def ask() -> str:
            try:
                return str((await self.ask("", body))["data"]["call_control_id"])
            except (LookupError, TypeError):
                raise CarrierApiError("Telnyx: the call has no name", status=0, sure=False) from None

        return await self.place_as(call, ask)

    async def _webhook(self, request: web.Request) -> web.Response:
        event = (await self.read(request, _Webhook)).data
        said, name = event.payload, event.event_type
        call_id, state = said.call_control_id or "", said.client_state or ""
        coming = {"call.bridged": 200, "call.hangup": said.status()}.get(name, 0)
        if name == "call.initiated" and said.direction == "incoming":
            self._incoming(call_id, said, self.box.client_of(request))
        elif (call := self.known(call_id, state)) is not None:
            self._told(call, name, said)
        elif not self.target_told(state, call_id, coming, over=name == "call.hangup"):
            ours = name in _STREAM_ENDED and said.url.startswith(self.stream_url(""))
            if ours and self.is_new(call_id):
                self.end(call_id)  # of before a restart: nobody is there for it
        return web.Response()

    def _incoming(self, call_id: str, said: _Payload, source: str) -> None:
        if not self.is_new(call_id):
            return
        call = TelnyxCall(self, call_id)
        if len(self.calls) >= MAX_CALLS:
            logger.error("%s: a call is refused: %d are known", self.box.trunk, MAX_CALLS)
            self.spawn(call.command("reject", cause=_REJECTIONS[503]))
            return
        self.calls[call_id] = call
        called, calling = (party.removeprefix("sip:").partition("@")[0] for party in (said.to or "", said.from_ or ""))
        incoming = IncomingCall(call_id, called, calling, said.caller_id_name or "", source=source)
        call.box_call = self.box.admit(call, incoming)

    def _told(self, call: TelnyxCall, event: str, said: _Payload) -> None:
        """Keys (call.dtmf.received) are left out: the stream tells them too."""
        box_call = call.box_call
        if event == "call.bridged":
            call.settle(200)
        if event == "call.hangup":
            self.forget(call)
            if box_call is not None:
                box_call.over(200 if call.answered else said.status(), printable(said.hangup_cause or ""))
        elif call.done:
            self.end_later(call, 0.0 if event in ("call.initiated", "call.answered") else self.again_s)
        elif box_call is None:
            return
        elif event in ("call.ringing", "call.answered") and call.request is not None:
            box_call.ringing()
            if event == "call.answered" and not call.answered:
                call.answered = True
                self.spawn(call.stream(call.request.stream))
        elif event in _STREAM_ENDED and said.url in ("", call.url):
            if event == "streaming.failed":
                why = printable(said.failure_reason or "")
                logger.warning("Telnyx cannot open a stream (%s); can it reach %s?", why, self.stream_url("TOKEN"))
            self.spawn(call.stream_again(box_call, call.url))


def _state(text: str) -> str:
    """What Telnyx brings back in every webhook of a leg."""
    return base64.b64encode(text.encode()).decode()


def _ring_s(ring_timeout_s: float) -> int:
    """As Telnyx takes it."""
    return min(600, max(5, round(ring_timeout_s)))
