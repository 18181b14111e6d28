"""PBXs whose audio streams come unasked: Asterisk over AudioSocket or a WebSocket, FreeSWITCH over a WebSocket.

Such a stream is the call. Whom it calls stands in its query (WebSocket), or has been announced over HTTP by the PBX's
dialplan just before (AudioSocket has no more room than a UUID for it), or is the trunk's ``called``.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

from aiohttp import web
from pydantic import ConfigDict

from appliance.api import CallRequest, CarrierBox, CarrierCall, IncomingCall, StreamAddress, StreamOffer
from appliance.api.streams import printable
from appliance.api.web_carrier import Sparing
from appliance.carriers.forwarded import from_a_page
from appliance.errors import DialError
from appliance.hookspecs import ProviderOptions

logger = logging.getLogger(__name__)

ANNOUNCED_S: Final = 30.0
"""How long an announcement is good for."""
MAX_ANNOUNCED: Final = 1000
_MAX_FORM: Final = 4096
_READ_S: Final = 5.0


class PbxOptions(ProviderOptions):
    """Keys of a trunk of the kinds ``pbx`` and ``audiosocket``, beside those of every trunk.

    Attributes:
        called: whom a stream calls that does not say so.
        calling: who calls, where that is not said.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    called: str = ""
    calling: str = ""


@dataclass(frozen=True, slots=True)
class _Announced:
    until: float
    called: str
    calling: str
    name: str


class PbxCall:
    """A stream that is a call. All that can be done about it is to talk, and to close it."""

    can_transfer: Final = False
    sends_digits: Final = False

    def __init__(self, call_id: str, refuse: Callable[[str], None]) -> None:
        self.call_id = call_id
        self._refuse = refuse

    async def ring(self) -> None:
        """The PBX answered its caller before it opened the stream, or rings it itself."""

    async def answer(self, stream: StreamAddress) -> None:
        """The stream is there."""

    async def reject(self, status: int, reason: str) -> None:
        self._refuse(f"{status} {reason}".strip())

    async def hangup(self) -> None:
        """The stream's own goodbye ends it."""

    async def transfer(self, number: str, other: CarrierCall | None, ring_timeout_s: float = 30.0) -> int:
        return 501

    async def send_digits(self, digits: str) -> None:
        """Never asked for: keys go as tones."""


class PbxCarrier:
    """The calls of one trunk.

    Args:
        kind: "pbx" or "audiosocket", for messages.
    """

    def __init__(
        self, kind: str, options: PbxOptions, box: CarrierBox, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._kind, self._options, self._box, self._now = kind, options, box, now
        self._announced: dict[str, _Announced] = {}
        self._sparing = Sparing()

    def routes(self) -> Sequence[web.RouteDef]:
        return [web.post("/calls", self._announce)]

    async def start(self) -> None:
        """There is nothing to begin with."""

    async def close(self) -> None:
        self._announced.clear()

    def stream_url(self, token: str) -> str:
        raise _not_called(self._box.trunk)

    async def place(self, request: CallRequest) -> CarrierCall:
        raise _not_called(self._box.trunk)

    def offered(self, offer: StreamOffer) -> None:
        announced = self._announced.pop(offer.call_id.lower(), None)
        if announced is not None and announced.until < self._now():
            announced = None
        if announced is not None:
            called, calling, name = announced.called, announced.calling, announced.name
        else:
            called, calling, name = offer.called, offer.calling, ""
        called, calling = called or self._options.called, calling or self._options.calling
        if not called:
            reason = (
                f"not announced in the last {ANNOUNCED_S:.0f} s (POST /{self._kind}/{self._box.trunk}/calls), and "
                f"trunk {self._box.trunk} has no 'called'"
            )
            self._sparing.warn(logger, "a stream from %s is refused: %s", offer.source, reason)
            self._box.refuse(offer, reason)
            return
        call_id = offer.call_id or str(uuid.uuid4())
        call = PbxCall(call_id, lambda reason: self._box.refuse(offer, reason))
        incoming = IncomingCall(call_id, called, calling, name, offer.source, offer.parameters)
        self._box.admit(call, incoming, offer)

    async def _announce(self, request: web.Request) -> web.Response:
        """``called``, ``calling`` and ``name`` in the query or a form; answered with the UUID to open a stream with.

        What a header says of the address is believed of the proxies in ``listen.proxies`` alone.
        """
        source = self._box.client_of(request)
        if from_a_page(request.headers):
            text = f"{printable(source)} asks as a page in a browser does; calls are announced by a PBX's own client"
            self._sparing.warn(logger, "an announcement is refused: %s", text)
            return web.Response(status=403, text=text + "\n")
        if not self._box.allows(source):
            text = f"{printable(source)} is not in 'allow' of trunk {self._box.trunk!r}; add it there"
            self._sparing.warn(logger, "an announcement is refused: %s", text)
            return web.Response(status=403, text=text + "\n")
        try:
            said = await self._said(request)
        except (ValueError, TimeoutError) as error:
            return web.Response(status=400, text=f"{error or 'the form did not come'}\n")
        called = printable(said.get("called", "")) or self._options.called
        if not called:
            return web.Response(status=400, text="whom the call is for is missing; send called=NUMBER\n")
        now = self._now()
        for old in [name for name, call in self._announced.items() if call.until < now]:
            del self._announced[old]
        if len(self._announced) >= MAX_ANNOUNCED:
            return web.Response(status=503, text=f"{MAX_ANNOUNCED} calls are announced and have not come\n")
        name = str(uuid.uuid4())
        self._announced[name] = _Announced(
            now + ANNOUNCED_S, called, printable(said.get("calling", "")), printable(said.get("name", ""))
        )
        return web.Response(text=name)

    async def _said(self, request: web.Request) -> Mapping[str, str]:
        said = dict(request.query)
        if (request.content_length or 0) > _MAX_FORM:
            raise ValueError(f"a form of more than {_MAX_FORM} bytes")
        body = b""
        async with asyncio.timeout(_READ_S):
            while len(body) <= _MAX_FORM and (piece := await request.content.read(_MAX_FORM)):
                body += piece
        if len(body) > _MAX_FORM:
            raise ValueError(f"a form of more than {_MAX_FORM} bytes")
        form = parse_qsl(body.decode("utf-8", "replace"), max_num_fields=16, keep_blank_values=True)
        return said | dict(form)


def _not_called(trunk: str) -> DialError:
    text = (
        f"trunk {trunk!r} cannot be called: a PBX over AudioSocket or a WebSocket only calls; give it a sip trunk too"
    )
    return DialError(text, status=404, cause="no_route")
