"""Calls from the browser phone: the part of a carrier, between a page that the box serves and the box.

The page asks for a call over HTTP and is told where to open the stream of its audio. Whoever may open the page may
speak with every line, so a call is taken from the trunk's ``allow`` only, and from no other site's page: not one that
another site sends (``Origin``), nor one that has had a name of its own point here (``Host``).
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from appliance.api.carriers import (
    BoxCall,
    CallRequest,
    CarrierBox,
    CarrierCall,
    IncomingCall,
    StreamAddress,
    StreamOffer,
)
from appliance.api.streams import printable
from appliance.api.web_carrier import Sparing
from appliance.errors import DialError
from appliance.signalling.browser_options import HOST, BrowserOptions

logger = logging.getLogger(__name__)

MEDIA_PATH: Final = "/browser/media"
"""Where ``listen.media`` takes the streams of browsers."""

CALLING: Final = "browser"
"""Who calls, as dialplans and the record have it."""

_MAX_BODY: Final = 1_024
_MAX_CALLS: Final = 1_000
_BODY_TIMEOUT_S: Final = 5.0
_ANSWER_TIMEOUT_S: Final = 15.0
_CALLED = re.compile(r"[0-9A-Za-z+*#][0-9A-Za-z+*#._@-]{0,63}")
_SCHEMES: Final = {"http": ("ws", 80), "https": ("wss", 443)}
_WORDS: Final = {
    404: "no line of the dialplan answers {called!r} on trunk {trunk!r}",
    486: "the line is busy",
    503: "the box has no room for another call; try again in a few seconds",
}


class Refused(Exception):
    """A request that is not served; ``str()`` is for whoever opened the page."""

    def __init__(self, status: int, words: str) -> None:
        self.status = status
        super().__init__(words)


@dataclass(frozen=True, slots=True)
class _Refusal:
    status: int
    reason: str


class BrowserCall:
    """One call of a page."""

    can_transfer = False
    sends_digits = False

    def __init__(self, call_id: str, forget: Callable[[str], None]) -> None:
        self._call_id = call_id
        self._forget = forget
        self.decided: asyncio.Future[StreamAddress | _Refusal] = asyncio.get_running_loop().create_future()
        """Where the stream is to be opened, or why not."""

    @property
    def call_id(self) -> str:
        return self._call_id

    async def ring(self) -> None:
        """The page shows by itself that it rings."""

    async def answer(self, stream: StreamAddress) -> None:
        self._decide(stream)

    async def reject(self, status: int, reason: str) -> None:
        self._forget(self._call_id)
        self._decide(_Refusal(status, reason))

    async def hangup(self) -> None:
        """The stream's end tells the page."""
        self._forget(self._call_id)
        self._decide(_Refusal(480, "the call was ended before it was answered"))

    async def transfer(self, number: str, other: CarrierCall | None, ring_timeout_s: float = 30.0) -> int:
        return 501

    async def send_digits(self, digits: str) -> None:
        """Keys are sent as tones."""

    def _decide(self, decision: StreamAddress | _Refusal) -> None:
        if not self.decided.done():
            self.decided.set_result(decision)


class BrowserCarrier:
    """The call control of one trunk of kind ``browser``.

    * ``POST /calls`` with ``{"called": "100"}`` gives ``{"call", "token", "media_url"}`` once the call is answered
    * ``POST /calls/{call}/stream`` gives ``{"token", "media_url"}`` for a stream in place of one that broke
    * ``DELETE /calls/{call}`` hangs up
    """

    def __init__(self, options: BrowserOptions, box: CarrierBox) -> None:
        self._options = options
        self._box = box
        self._calls: dict[str, BoxCall] = {}
        self._sparing = Sparing()

    @property
    def trunk(self) -> str:
        return self._box.trunk

    def routes(self) -> Sequence[web.RouteDef]:
        return [
            web.post("/calls", _answering(self._call)),
            web.post("/calls/{call}/stream", _answering(self._stream_again)),
            web.delete("/calls/{call}", _answering(self._hang_up)),
        ]

    async def start(self) -> None:
        """There is nobody to be asked."""

    async def close(self) -> None:
        self._calls.clear()

    def offered(self, offer: StreamOffer) -> None:
        self._box.refuse(offer, "a browser's stream comes with a token")

    def stream_url(self, token: str) -> str:
        return (self._options.media_url or f"ws://localhost:{self._box.media_port}") + MEDIA_PATH

    async def place(self, request: CallRequest) -> CarrierCall:
        raise DialError(
            f"trunk {self._box.trunk!r} is the browser phone, which only calls in; route the number to another trunk",
            status=501,
            cause="browser",
        )

    # --- requests -------------------------------------------------------------------------------------------------

    def check(self, request: web.Request) -> None:
        """Whether a request comes from an address and a page that may call.

        Raises:
            Refused: it does not; the words say which key to set.
        """
        try:
            self._check(request)
        except Refused as refused:
            source = printable(self._box.client_of(request))
            self._sparing.warn(logger, "%s %s from %s refused: %s", request.method, request.path, source, refused)
            raise

    def _check(self, request: web.Request) -> None:
        source = self._box.client_of(request)
        trunk = f"trunks.{self._box.trunk}"
        if not self._box.allows(source):
            raise Refused(403, f"calls from {printable(source)} are not taken; add that address to {trunk}.allow")
        found = HOST.fullmatch(request.headers.get("Host", ""))
        host = found["host"].lower() if found is not None else ""
        if found is None or not (_is_address(host) or host == "localhost" or host in self._options.hosts):
            shown = printable(request.headers.get("Host", ""))[:80]
            raise Refused(
                403,
                f"the page was opened under the name {shown!r}, which the box does not know; add it to {trunk}.hosts",
            )
        origin = request.headers.get("Origin")
        if origin is None:
            if request.method not in ("GET", "HEAD") or request.headers.get("Sec-Fetch-Site") not in (
                None,
                "same-origin",
                "none",
            ):
                raise Refused(403, "this is asked for by another site's page; use the page of the box itself")
        elif not _place(origin)[1] or _place(origin) != _place(
            f"{origin.partition('://')[0]}://{request.headers['Host']}"
        ):
            raise Refused(
                403,
                f"the page is of {printable(origin)[:80]!r} and the box is asked as "
                f"{printable(request.headers['Host'])[:80]!r}; where a proxy stands before it, have it keep the Host",
            )

    def media_url(self, request: web.Request) -> str:
        """Where a page opens its stream. The request has been checked."""
        if self._options.media_url:
            return self._options.media_url + MEDIA_PATH
        scheme, _ = _SCHEMES.get(request.headers.get("Origin", "http").partition("://")[0], ("ws", 80))
        host, _ = _place(f"http://{request.headers['Host']}")
        return f"{scheme}://{host}:{self._box.media_port}{MEDIA_PATH}"

    def media_sources(self, host_header: str) -> tuple[str, ...]:
        """The origins that the page has to be allowed to connect to (Content-Security-Policy)."""
        if self._options.media_url:
            parts = urlsplit(self._options.media_url)
            return (f"{parts.scheme}://{parts.netloc}",)
        found = HOST.fullmatch(host_header)
        if found is None:
            return ()
        return tuple(f"{scheme}://{found['host'].lower()}:{self._box.media_port}" for scheme in ("ws", "wss"))

    async def _call(self, request: web.Request) -> web.Response:
        self.check(request)
        called = await _called(request)
        self._forget_ended()
        if len(self._calls) >= _MAX_CALLS:
            raise Refused(503, _WORDS[503])
        call = BrowserCall(secrets.token_urlsafe(16), self._forget)
        peer = request.transport.get_extra_info("peername") if request.transport is not None else None
        source = f"{self._box.client_of(request)}:{peer[1] if peer else 0}"
        box_call = self._box.admit(call, IncomingCall(call.call_id, called, CALLING, source=source))
        if not box_call.ended:
            self._calls[call.call_id] = box_call
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                decision = await call.decided
        except TimeoutError:
            box_call.over(408, "the box did not answer in time", by_peer=False)
            self._forget(call.call_id)
            raise Refused(504, f"the box did not answer within {_ANSWER_TIMEOUT_S:.0f} s; see its log") from None
        if isinstance(decision, _Refusal):
            words = _WORDS.get(decision.status, "the box refused the call: {reason}")
            status = decision.status if decision.status in _WORDS else 502
            reason = printable(decision.reason) or f"status {decision.status}"
            raise Refused(status, words.format(called=called, trunk=self._box.trunk, reason=reason))
        answer = {"call": call.call_id, "token": decision.token, "media_url": self.media_url(request)}
        return web.json_response(answer, headers={"Cache-Control": "no-store"})

    async def _stream_again(self, request: web.Request) -> web.Response:
        self.check(request)
        box_call = self._calls.get(request.match_info["call"])
        if box_call is None or box_call.ended:
            raise Refused(404, "there is no such call; it has ended")
        answer = {"token": box_call.new_stream().token, "media_url": self.media_url(request)}
        return web.json_response(answer, headers={"Cache-Control": "no-store"})

    async def _hang_up(self, request: web.Request) -> web.Response:
        self.check(request)
        box_call = self._calls.pop(request.match_info["call"], None)
        if box_call is None:
            raise Refused(404, "there is no such call; it has ended")
        box_call.over(200, "the caller hung up")
        return web.Response(status=204)

    def _forget(self, call_id: str) -> None:
        self._calls.pop(call_id, None)

    def _forget_ended(self) -> None:
        """Calls that ended with their stream are not told to the carrier."""
        for call_id in [call_id for call_id, call in self._calls.items() if call.ended]:
            del self._calls[call_id]


def _answering(
    handler: Callable[[web.Request], Awaitable[web.Response]],
) -> Callable[[web.Request], Awaitable[web.Response]]:
    """The handler, with its refusals as JSON."""

    async def answer(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except Refused as refused:
            return refusal(refused)

    return answer


def refusal(refused: Refused) -> web.Response:
    """What a page is told that is not served: ``{"error": "..."}``."""
    return web.json_response({"error": str(refused)}, status=refused.status, headers={"Cache-Control": "no-store"})


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    called: str


async def _called(request: web.Request) -> str:
    if request.content_type != "application/json":
        raise Refused(415, "the body must be application/json")
    length = request.content_length
    if length is None or length > _MAX_BODY:
        raise Refused(413, f"the body must be of at most {_MAX_BODY} bytes, and say its length")
    try:
        async with asyncio.timeout(_BODY_TIMEOUT_S):
            body = await request.content.readexactly(length)
        called = msgspec.json.decode(body, type=_Body).called.strip()
    except TimeoutError:
        raise Refused(408, "the body did not come") from None
    except (msgspec.MsgspecError, UnicodeError, asyncio.IncompleteReadError):
        raise Refused(400, 'the body must be {"called": "100"}') from None
    if not _CALLED.fullmatch(called):
        raise Refused(400, "a number is of digits, letters, + * # . _ @ and -, up to 64 of them")
    return called


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _place(url: str) -> tuple[str, int]:
    """Host and port of an http(s) origin; ("", 0) of anything else."""
    scheme, _, rest = url.lower().partition("://")
    found = HOST.fullmatch(rest)
    if found is None or scheme not in _SCHEMES:
        return "", 0
    return found["host"], int(found["port"] or _SCHEMES[scheme][1])
