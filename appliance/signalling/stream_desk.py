"""The carriers of all trunks: their webhooks, the streams they offer, and the calls placed through them."""

from __future__ import annotations

import asyncio
import inspect
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import aiohttp
from aiohttp import web

from appliance.api import BoxCall, CallRequest, Carrier, CarrierCall, IncomingCall, StreamOffer
from appliance.carriers.forwarded import Network, client_address, within
from appliance.errors import DialError
from appliance.ipc.messages import RefuseStream, StreamOffered
from appliance.signalling.headers import CallHeaders, Diversion
from appliance.signalling.leg import CallInfo, Leg, MediaSlot
from appliance.signalling.routes import Attempt
from appliance.signalling.stream_legs import StreamCall, StreamLeg
from appliance.signalling.trunks import TrunkRule
from appliance.sip.uri import printable

logger = logging.getLogger(__name__)

_REQUEST_S: Final = 15.0
_LAST_S: Final = 5.0
_MAX_VALUE: Final = 1024


class MakeCarrier(Protocol):
    """Makes the carrier of one trunk out of its options."""

    def __call__(self, kind: str, options: Mapping[str, Any], box: Box, trunk: str) -> Any: ...


@dataclass(frozen=True)
class Desk:
    """What all carriers share."""

    http: aiohttp.ClientSession
    media_port: int
    proxies: Sequence[Network]
    on_call: Callable[[Leg], None]
    send: Callable[[RefuseStream], None]
    pending: set[asyncio.Task[None]] = field(default_factory=set)
    """What carriers have been asked for and have not done yet."""


class Box:
    """What one trunk's carrier is offered; :class:`appliance.api.CarrierBox`."""

    def __init__(self, rule: TrunkRule, desk: Desk) -> None:
        self.trunk = rule.name
        self.caller_id = rule.caller_id
        self._rule = rule
        self._desk = desk
        self.carrier: Carrier | None = None

    @property
    def http(self) -> aiohttp.ClientSession:
        return self._desk.http

    @property
    def media_port(self) -> int:
        return self._desk.media_port

    def allows(self, host: str) -> bool:
        return within(host, self._rule.allow)

    def client_of(self, request: web.Request) -> str:
        forwarded = ",".join(request.headers.getall("X-Forwarded-For", []))
        return client_address(request.remote or "", forwarded, self._desk.proxies)

    def admit(self, call: CarrierCall, incoming: IncomingCall, offer: StreamOffer | None = None) -> BoxCall:
        assert self.carrier is not None
        said = {name.lower(): value for name, value in incoming.offered.items()}
        wanted = (name for name in self._rule.headers_in if name.lower() in said)
        info = CallInfo(
            leg_id=secrets.token_hex(8),
            protocol=self._rule.kind,
            trunk=self.trunk,
            called=printable(incoming.called, 128),
            calling=printable(incoming.calling, 128),
            calling_name=printable(incoming.calling_name, 128),
            source=printable(incoming.source, 64),
            protocol_call_id=printable(incoming.call_id, 256),
            headers={},
            about=CallHeaders(
                verstat=printable(incoming.verstat, 64),
                diversions=(Diversion(printable(incoming.diverted, 128)),) if incoming.diverted else (),
            ),
            offered={name: printable(said[name.lower()], _MAX_VALUE) for name in wanted},
            can_transfer=call.can_transfer,
        )
        leg = StreamLeg(call, info, self.carrier, self._desk.pending, offer)
        try:
            self._desk.on_call(leg)
        except Exception:
            logger.exception("the handler of a new call failed", extra={"call_id": info.leg_id})
            leg.reject(500, "Internal Server Error")
        return leg

    def refuse(self, offer: StreamOffer, reason: str) -> None:
        self._desk.send(RefuseStream(offer.token, printable(reason, 120)))


class StreamDesk:
    """Makes a carrier for every trunk that is not SIP's.

    Args:
        rules: of all trunks.
        make: from kind, options, box and trunk to a carrier. Raises ApplianceError where it cannot be made.
        on_call: takes a leg of a call that has come.
        send: sends a message to media.
        media_port: of ``listen.media``.
        proxies: reverse proxies whose word on who asks is taken.
        refused: told the trunk whose webhook was not its carrier's, or could not be read.
    """

    def __init__(
        self,
        rules: Sequence[TrunkRule],
        make: MakeCarrier,
        *,
        on_call: Callable[[Leg], None],
        send: Callable[[RefuseStream], None],
        media_port: int,
        proxies: Sequence[Network] = (),
        refused: Callable[[str], None] = lambda trunk: None,
    ) -> None:
        self._refused = refused
        timeout = aiohttp.ClientTimeout(total=_REQUEST_S)
        self._http = aiohttp.ClientSession(timeout=timeout)
        desk = self._desk = Desk(self._http, media_port, proxies, on_call, send)
        self._carriers: dict[str, Carrier] = {}
        self._kinds: dict[str, str] = {}
        for rule in rules:
            if rule.kind != "sip":
                box = Box(rule, desk)
                box.carrier = self._carriers[rule.name] = make(rule.kind, rule.options, box, rule.name)
                self._kinds[rule.name] = rule.kind

    def carrier(self, trunk: str) -> Carrier | None:
        """The carrier of a trunk."""
        return self._carriers.get(trunk)

    def add_routes(self, app: web.Application) -> None:
        """Mount every carrier's webhooks: below ``/KIND/TRUNK``, of the first trunk of a kind below ``/KIND`` too."""
        first: set[str] = set()
        for name, carrier in self._carriers.items():
            kind = self._kinds[name]
            prefixes = [f"/{kind}/{name}"] if kind in first else [f"/{kind}", f"/{kind}/{name}"]
            first.add(kind)
            for prefix in prefixes:
                for route in carrier.routes():
                    handler = self._counting(name, route.handler)
                    app.router.add_route(route.method, prefix + route.path, handler, **route.kwargs)

    def _counting(self, trunk: str, handler: Any) -> Any:
        """``handler``, with its refusals counted; a class of views is left as it is."""
        if not inspect.iscoroutinefunction(handler):
            return handler

        async def handle(request: web.Request) -> Any:
            try:
                return await handler(request)
            except web.HTTPClientError:
                self._refused(trunk)
                raise

        return handle

    async def start(self) -> None:
        """The box is up."""
        for carrier in self._carriers.values():
            await carrier.start()

    async def close(self) -> None:
        """The box stops: what its last calls still ask of their carriers, to be hung up above all, is waited for."""
        if self._desk.pending:
            await asyncio.wait(set(self._desk.pending), timeout=_LAST_S)
        for carrier in self._carriers.values():
            await carrier.close()
        await self._http.close()

    def offered(self, offer: StreamOffered) -> None:
        """A stream came unasked."""
        told = StreamOffer(offer.token, offer.source, offer.call_id, offer.called, offer.calling, offer.parameters)
        carrier = self._carriers.get(offer.trunk)
        try:
            if carrier is not None:
                carrier.offered(told)
        except Exception:
            logger.exception("trunk %s: an offered stream could not be taken", offer.trunk)

    async def place(
        self,
        attempt: Attempt,
        media: MediaSlot,
        *,
        values: Mapping[str, str],
        ring_timeout_s: float,
        caller_id: str = "",
        **_: object,
    ) -> StreamCall:
        """Place a call through the carrier of the attempt's trunk.

        Raises:
            DialError: it cannot be placed.
        """
        rule = attempt.trunk
        carrier = self._carriers.get(rule.name)
        if carrier is None:
            raise DialError(f"trunk {rule.name!r} has no carrier", status=404, cause="no_route")
        key = secrets.token_hex(8)
        call = StreamCall(
            rule.kind,
            carrier,
            key,
            self._desk.pending,
            media=media,
            ring_timeout_s=ring_timeout_s,
            trunk=rule.name,
            uri=attempt.uri,
        )
        shown = caller_id or rule.caller_id
        request = CallRequest(attempt.number, shown, ring_timeout_s, call.new_stream(), key, call, values)
        try:
            call.placed(await carrier.place(request))
        except BaseException:
            call.hangup("could not be placed")
            raise
        return call
