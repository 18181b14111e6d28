"""Acme Voice: a carrier that there is not, whole."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence

import msgspec
from aiohttp import web
from pydantic import SecretStr

from appliance.api import (
    Audio,
    BoxCall,
    CallRequest,
    CarrierBox,
    CarrierCall,
    CarrierError,
    DialError,
    IncomingCall,
    Key,
    Marked,
    Message,
    Provider,
    ProviderOptions,
    Providers,
    Started,
    Stopped,
    StreamAddress,
    StreamEvent,
    StreamKind,
    StreamKinds,
    StreamRequest,
    hookimpl,
)  # fmt: skip
from appliance.api.streams import MAX_MESSAGE, MAX_PAYLOAD, Unknowns, key_of, printable
from appliance.api.web import HttpOrigin, post
from appliance.api.web_carrier import WebCarrier

# --- the media process: frames in, frames out ---


class Told(msgspec.Struct):
    type: str
    call: str = ""
    key: str = ""
    name: str = ""


class AcmeStream:
    """One connection: binary messages are mu-law, text messages are JSON about it."""

    name, marks, clears = "acme", True, True

    def __init__(self, token: str) -> None:
        self.frame_bytes = 0
        self._token = token
        self._number = 0
        self._unknowns = Unknowns()

    def receive(self, message: Message) -> list[StreamEvent]:
        if isinstance(message, bytes):
            if not self.frame_bytes or not 0 < len(message) <= MAX_PAYLOAD:
                raise CarrierError(f"{len(message)} bytes of audio, or audio before begin")
            self._number += 1
            return [Audio(self._number, message)]
        try:
            if len(message) > MAX_MESSAGE:
                raise CarrierError(f"a message of {len(message)} characters")
            told = msgspec.json.decode(message, type=Told)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise CarrierError(f"a message is not Acme's: {printable(str(error))}") from None
        if (told.type == "begin") == bool(self.frame_bytes):
            raise CarrierError(f"{printable(told.type)[:40]!r} comes out of turn")
        if told.type == "begin":
            self.frame_bytes = 160
            call_id = printable(told.call)
            return [Started(call_id, call_id, "pcmu", 8000, token=self._token)]
        if told.type == "key":
            return [Key(key_of(told.key))]
        if told.type == "played":
            return [Marked(told.name)]
        if told.type == "end":
            return [Stopped()]
        self._unknowns.pass_over(told.type)
        return []

    def media(self, payload: bytes) -> Message:
        return payload

    def mark(self, name: str) -> list[Message]:
        return [msgspec.json.encode({"type": "mark", "name": name}).decode()]

    def clear(self) -> list[Message]:
        return ['{"type":"clear"}']

    def goodbye(self) -> list[Message]:
        return []


def open_stream(request: StreamRequest) -> AcmeStream:
    return AcmeStream(request.path)


# --- the control process: webhooks in, commands out ---


class AcmeOptions(ProviderOptions):
    api_key: SecretStr
    public_url: HttpOrigin
    api_url: HttpOrigin = "https://api.acme.example"


class Event(msgspec.Struct):
    event: str
    call: str
    to: str = ""
    from_: str = msgspec.field(name="from", default="")


class AcmeCall:
    can_transfer = sends_digits = False

    def __init__(self, carrier: AcmeCarrier, call_id: str) -> None:
        self._carrier, self.call_id = carrier, call_id
        self.box_call: BoxCall | None = None

    async def command(self, action: str, **body: str) -> None:
        await self._carrier.ask(f"/calls/{self.call_id}/{action}", body)

    async def ring(self) -> None: ...

    async def answer(self, stream: StreamAddress) -> None:
        await self.command("answer", stream=stream.url)

    async def reject(self, status: int, reason: str) -> None:
        self._carrier.calls.pop(self.call_id, None)
        await self.command("reject", busy=str(status == 486))

    async def hangup(self) -> None:
        if self._carrier.calls.pop(self.call_id, None) is not None:
            await self.command("hangup")

    async def transfer(self, number: str, other: CarrierCall | None, ring_timeout_s: float = 30.0) -> int:
        return 501

    async def send_digits(self, digits: str) -> None: ...


class AcmeCarrier(WebCarrier):
    kind = "acme"

    def __init__(self, options: AcmeOptions, box: CarrierBox) -> None:
        super().__init__(box, options.public_url, "")
        self._options = options
        self.calls: dict[str, AcmeCall] = {}

    def routes(self) -> Sequence[web.RouteDef]:
        return [web.post("/events", self._event)]

    def verify(self, headers: Mapping[str, str], body: bytes) -> None:
        key = self._options.api_key.get_secret_value().encode()
        if not hmac.compare_digest(hmac.new(key, body, hashlib.sha256).hexdigest(), headers.get("X-Acme-Hmac", "")):
            raise CarrierError("its signature is wrong; is api_key that of the account?")

    async def ask(self, path: str, body: Mapping[str, str]) -> None:
        headers = {"Authorization": f"Bearer {self._options.api_key.get_secret_value()}"}
        await post(self.box.http, self._options.api_url + path, body, headers)

    async def place(self, request: CallRequest) -> CarrierCall:
        raise DialError(f"trunk {self.box.trunk!r}: Acme only calls in", status=404, cause="no_route")

    async def _event(self, request: web.Request) -> web.Response:
        event = await self.read(request, Event)
        if event.event == "incoming" and self.is_new(event.call):
            call = self.calls[event.call] = AcmeCall(self, event.call)
            call.box_call = self.box.admit(call, IncomingCall(event.call, event.to, event.from_))
        elif event.event == "ended" and (ended := self.calls.pop(event.call, None)) and ended.box_call:
            ended.box_call.over(200, "hung up")
        return web.Response()


# --- what makes it a kind of trunk ---


@hookimpl
def appliance_stream_providers() -> StreamKinds:
    return {"acme": StreamKind(open_stream, summary="Acme Voice")}


@hookimpl
def appliance_carrier_providers() -> Providers:
    return {"acme": Provider(AcmeCarrier, "Acme Voice", AcmeOptions)}
