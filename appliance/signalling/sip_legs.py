"""SIP legs: a call that came in, and a call placed by us."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from appliance.errors import RemoteSipError
from appliance.signalling.leg import CallInfo, HangupCause, MediaSlot, RtpParams
from appliance.signalling.sip_media import SipMedia
from appliance.sip.call import Call
from appliance.sip.events import Answered, CallEnded, Confirmed, InfoReceived, Progress, Reoffered
from appliance.sip.message import Request
from appliance.sip.sdp import dtmf_from_info
from appliance.sip.uri import SipUri, join_host_port, printable

logger = logging.getLogger(__name__)

MAX_HEADERS = 64


@dataclass(frozen=True, slots=True)
class TrunkRule:
    """Which source addresses make up a trunk, and which codecs it may use, best first."""

    name: str
    allow: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]
    codecs: tuple[str, ...] = ("pcmu", "pcma")


class Driver(Protocol):
    """What a leg needs of its endpoint: the time, and sending what the protocol core has queued."""

    def now(self) -> float: ...
    def pump(self) -> None: ...


def call_info(request: Request, leg_id: str, trunk: str, source: tuple[str, int]) -> CallInfo:
    """Who calls whom, from an INVITE."""
    try:
        called = SipUri.parse(request.uri).number
    except RemoteSipError:
        called = ""
    headers: dict[str, str] = {}
    for name, value in request.headers:
        if name in headers:
            headers[name] = f"{headers[name]}, {printable(value, 1024)}"[:4096]
        elif len(headers) < MAX_HEADERS:
            headers[printable(name, 64)] = printable(value, 1024)
    return CallInfo(
        leg_id=leg_id,
        protocol="sip",
        trunk=trunk,
        called=called or request.to.number,
        calling=request.from_.number,
        calling_name=printable(request.from_.display),
        source=join_host_port(*source),
        protocol_call_id=printable(request.call_id),
        headers=headers,
    )


def session_id_of(token: str) -> int:
    """A number for the o= line out of a random token."""
    return zlib.crc32(token.encode())


class SipLeg:
    """An incoming SIP call; the :class:`~appliance.signalling.leg.Leg` protocol.

    Made by the endpoint when an INVITE has come and its offer can be answered.
    """

    def __init__(self, call: Call, info: CallInfo, offer: bytes | None, codecs: Sequence[str], driver: Driver) -> None:
        self.info = info
        self.on_hangup: Callable[[HangupCause], None] | None = None
        self.on_digits: Callable[[str], None] | None = None
        self._call = call
        self._offer = offer
        self._codecs = tuple(codecs)
        self._driver = driver
        self._media: SipMedia | None = None
        self._own_end = False

    @property
    def ended(self) -> bool:
        """Whether either side has ended it."""
        return self._call.ended

    def ring(self) -> None:
        """Send 180."""
        if not self._call.ended and self._media is None:
            self._call.ring(self._driver.now())
            self._driver.pump()

    def answer(self, media: MediaSlot) -> None:
        """Send 200 with our SDP: the answer, or an offer where the INVITE had none.

        With an offer in the INVITE, ``media`` is connected before the 200 leaves; without, when the ACK brings the
        peer's answer.
        """
        if self._call.ended or self._media is not None:
            return
        negotiation = SipMedia(media, session_id_of(self.info.leg_id), self._codecs, self._call.source[0])
        try:
            body = negotiation.offer() if self._offer is None else negotiation.answer(self._offer)
        except RemoteSipError as error:
            self._fail(error.status_hint or 488, str(error))
            return
        self._media = negotiation
        self._call.accept(body, self._driver.now())
        self._driver.pump()

    def reject(self, status: int, reason: str = "", retry_after_s: int | None = None) -> None:
        """Refuse the call; does nothing once it is answered."""
        if self._call.ended or self._media is not None:
            return
        self._own_end = True
        headers = [] if retry_after_s is None else [("Retry-After", str(retry_after_s))]
        self._call.reject(status, self._driver.now(), printable(reason, 100), headers)
        self._driver.pump()

    def hangup(self, reason: str = "") -> None:
        """Send BYE, or 480 before the answer."""
        if not self._call.ended:
            self._own_end = True
            self._call.hangup(self._driver.now(), printable(reason, 100))
            self._driver.pump()

    # --- what the endpoint tells it ----------------------------------------------------------------------------

    def on_event(self, event: Progress | Answered | Confirmed | Reoffered | InfoReceived | CallEnded) -> None:
        """Take an event of its call."""
        if isinstance(event, Confirmed):
            self._confirmed(event.body)
        elif isinstance(event, Reoffered):
            _answer_reoffer(self._call, self._media, event.offer, self._driver.now())
        elif isinstance(event, InfoReceived):
            digit = dtmf_from_info(event.content_type, event.body)
            if digit and self.on_digits is not None:
                self.on_digits(digit)
        elif isinstance(event, CallEnded) and not self._own_end and self.on_hangup is not None:
            who: Literal["caller", "system"] = "caller" if event.by == "remote" else "system"
            self.on_hangup(HangupCause(who, event.status, printable(event.reason, 100)))

    def _confirmed(self, body: bytes | None) -> None:
        if self._media is None or not self._media.awaits_answer:
            return
        try:
            self._media.take_answer(body)
        except RemoteSipError as error:
            self._fail(error.status_hint or 488, str(error))

    def _fail(self, status: int, text: str) -> None:
        """End the call because the media cannot be agreed on; whoever uses the leg hears of it."""
        logger.warning("media not agreed: %s", text, extra={"call_id": self.info.leg_id})
        self._own_end = True
        if self._media is None:
            self._call.reject(status, self._driver.now())
        else:
            self._call.hangup(self._driver.now(), text)
        self._driver.pump()
        if self.on_hangup is not None:
            self.on_hangup(HangupCause("system", status, printable(text, 100)))


class OutgoingCall:
    """A call placed by us.

    Attributes:
        on_ringing: called with the status of every provisional response above 100.
        on_answered: called once with the media parameters; the slot is connected already.
        on_ended: called once, whoever ended the call; ``by`` is "caller" for this side, "agent" for the one called.
        on_digits: keys that came by INFO.
    """

    def __init__(self, call: Call, negotiation: SipMedia, driver: Driver) -> None:
        self.on_ringing: Callable[[int], None] | None = None
        self.on_answered: Callable[[RtpParams], None] | None = None
        self.on_ended: Callable[[HangupCause], None] | None = None
        self.on_digits: Callable[[str], None] | None = None
        self._call = call
        self._media = negotiation
        self._driver = driver
        self._answered: asyncio.Future[RtpParams | None] = asyncio.get_running_loop().create_future()
        self._ended: asyncio.Future[HangupCause] = asyncio.get_running_loop().create_future()

    @property
    def protocol_call_id(self) -> str:
        """The SIP Call-ID."""
        return self._call.call_id

    async def wait_answered(self) -> RtpParams | None:
        """The media parameters once the call is answered; None where it ended before."""
        return await asyncio.shield(self._answered)

    async def wait_ended(self) -> HangupCause:
        """Why the call ended, once it has."""
        return await asyncio.shield(self._ended)

    def hangup(self, reason: str = "") -> None:
        """End the call: BYE where it was answered, CANCEL where not."""
        if not self._call.ended:
            self._call.hangup(self._driver.now(), printable(reason, 100))
            self._driver.pump()

    def cancel(self) -> None:
        """The same as :meth:`hangup`, for a call that still rings."""
        self.hangup()

    def on_event(self, event: Progress | Answered | Confirmed | Reoffered | InfoReceived | CallEnded) -> None:
        """Take an event of its call."""
        if isinstance(event, Progress):
            if event.status > 100 and self.on_ringing is not None:
                self.on_ringing(event.status)
        elif isinstance(event, Answered):
            self._on_answer(event.body)
        elif isinstance(event, Confirmed):
            if self._media.awaits_answer:
                self._take_answer(event.body)
        elif isinstance(event, Reoffered):
            _answer_reoffer(self._call, self._media, event.offer, self._driver.now())
        elif isinstance(event, InfoReceived):
            digit = dtmf_from_info(event.content_type, event.body)
            if digit and self.on_digits is not None:
                self.on_digits(digit)
        else:
            self._on_end(event)

    def _on_answer(self, body: bytes | None) -> None:
        params = self._take_answer(body)
        if params is not None:
            self._answered.set_result(params)
            if self.on_answered is not None:
                self.on_answered(params)

    def _take_answer(self, body: bytes | None) -> RtpParams | None:
        try:
            return self._media.take_answer(body)
        except RemoteSipError as error:
            logger.warning("media not agreed: %s", error, extra={"call_id": self._call.call_id})
            self._call.hangup(self._driver.now(), "media not agreed")
            self._driver.pump()
            return None

    def _on_end(self, event: CallEnded) -> None:
        who: Literal["agent", "caller", "system"] = (
            "agent" if event.by == "remote" else "caller" if event.by == "local" else "system"
        )
        cause = HangupCause(who, event.status, printable(event.reason, 100))
        if not self._answered.done():
            self._answered.set_result(None)
        self._ended.set_result(cause)
        if self.on_ended is not None:
            self.on_ended(cause)


def _answer_reoffer(call: Call, media: SipMedia | None, offer: bytes | None, now: float) -> None:
    """Answer a re-INVITE with the session as it is, changed to what the peer asks where that can be."""
    if media is None:
        call.refuse_reoffer(488, now)
        return
    try:
        body = media.offer() if offer is None else media.answer(offer)
    except RemoteSipError as error:
        call.refuse_reoffer(error.status_hint or 488, now)
    else:
        call.accept(body, now)
