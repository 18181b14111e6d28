"""SIP legs: a call that came in, and a call placed by us."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import zlib
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from appliance.errors import LocalSipError, RemoteSipError
from appliance.rtp_params import RtpParams
from appliance.signalling.headers import named_headers, read_headers
from appliance.signalling.leg import (
    CallInfo,
    HangupCause,
    RtpSlot,
    TransferOutcome,
    TransferRequest,
)
from appliance.signalling.sip_media import SipMedia
from appliance.signalling.trunks import TrunkRule
from appliance.sip.call import Call
from appliance.sip.events import (
    Answered,
    CallEnded,
    Confirmed,
    Event,
    InfoReceived,
    Progress,
    ReferProgress,
    ReferReceived,
    ReofferAnswered,
    Reoffered,
    ReofferFailed,
    TransferDone,
)
from appliance.sip.headers import tokens
from appliance.sip.info_dtmf import CONTENT_TYPE as DTMF_RELAY
from appliance.sip.info_dtmf import dtmf_from_info, dtmf_to_info
from appliance.sip.message import Request
from appliance.sip.offer_answer import MediaPolicy
from appliance.sip.uri import Peer, SipUri, join_host_port, printable

logger = logging.getLogger(__name__)

__all__ = ["OutgoingCall", "SipLeg", "TrunkRule", "call_info", "session_id_of"]

MAX_HEADERS = 64


class Driver(Protocol):
    """What a leg needs of its endpoint: the time, and sending what the protocol core has queued."""

    def now(self) -> float: ...
    def pump(self) -> None: ...


def call_info(request: Request, leg_id: str, trunk: str, source: Peer, offered: Sequence[str] = ()) -> CallInfo:
    """Who calls whom, from an INVITE. ``offered`` names the headers that the trunk's ``headers_in`` lists."""
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
        source=join_host_port(source.host, source.port),
        protocol_call_id=printable(request.call_id),
        headers=headers,
        about=read_headers(request.headers),
        offered=named_headers(request.headers, offered),
        can_transfer="REFER" in tokens(request.headers.get_all("allow")),
    )


def session_id_of(token: str) -> int:
    """A number for the o= line out of a token: a random one of ours, or a Call-ID, which may not be valid UTF-8."""
    return zlib.crc32(token.encode("utf-8", "surrogateescape"))


class _SipSide:
    """What both kinds of leg do inside an answered call: keys, hold, transfers, changes of the media.

    Attributes:
        on_digits: keys that came by INFO.
        on_held: the far end has put us on hold (true) or taken us off it.
        on_transfer: the far end asks us to call somebody else; unanswered, or without anybody listening, it is refused.
        needs_rtp: its audio comes by RTP.
    """

    needs_rtp = True

    def __init__(self, call: Call, media: SipMedia | None, driver: Driver) -> None:
        self.on_digits: Callable[[str], None] | None = None
        self.on_held: Callable[[bool], None] | None = None
        self.on_transfer: Callable[[TransferRequest], None] | None = None
        self._call = call
        self._media = media
        self._driver = driver
        self._held = False
        self._holds = False
        self._up = asyncio.Event()
        self._ack_answers = False
        self._transfer: asyncio.Future[TransferOutcome] | None = None
        self._reported = False

    @property
    def ended(self) -> bool:
        """Whether either side has ended it."""
        return self._call.ended

    @property
    def held(self) -> bool:
        """Whether the far end has put us on hold."""
        return self._media is not None and self._media.held

    @property
    def protocol_call_id(self) -> str:
        """The SIP Call-ID."""
        return self._call.call_id

    async def settled(self, timeout_s: float = 4.0) -> None:
        """Wait until both sides know that the call is up: until then nothing but a BYE may be sent in it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._up.wait()

    def hold(self) -> None:
        """Tell the far end that it is on hold, and hears music."""
        self._holds = True
        self._settle_hold()

    def resume(self) -> None:
        """Take the far end off hold."""
        self._holds = False
        self._settle_hold()

    def send_digits(self, digits: str) -> bool:
        """Send keys by INFO, where the trunk says that this is how they go; false where they go through the media."""
        if self._media is None or self._media.params is None or self._media.params.dtmf != "info":
            return False
        try:
            for digit in digits:
                self._call.info(DTMF_RELAY, dtmf_to_info(digit), self._driver.now())
        except LocalSipError as error:
            logger.warning("keys not sent: %s", error, extra={"call_id": self._call.call_id})
        self._driver.pump()
        return True

    def transfer(
        self, target: str, replaces: _SipSide | None = None, ring_timeout_s: float = 30.0
    ) -> asyncio.Future[TransferOutcome]:
        """Ask the far end to call ``target``, in place of ``replaces`` where that is given (REFER)."""
        done: asyncio.Future[TransferOutcome] = asyncio.get_running_loop().create_future()
        self._reported = False
        try:
            self._call.refer(target, self._driver.now(), replaces=replaces._call if replaces is not None else None)
        except (LocalSipError, RemoteSipError) as error:
            logger.warning("not transferred: %s", error, extra={"call_id": self._call.call_id})
            done.set_result(TransferOutcome(491, taken=False))
            return done
        self._transfer = done
        self._driver.pump()
        return done

    def adopt(self, call: Call, offer: bytes | None, policy: MediaPolicy) -> None:
        """Go on with ``call``, an INVITE that takes the place of this leg's call (Replaces), on the same media slot.

        Raises:
            RemoteSipError: the media cannot be agreed on, or there is none yet; nothing has changed then.
        """
        if self._media is None or self._call.ended:
            raise RemoteSipError("there is no answered call to replace", status_hint=481)
        media = SipMedia(self._media.media, session_id_of(call.call_id), policy, call.source.host)
        body = media.offer() if offer is None else media.answer(offer)
        self._call, self._media, self._ack_answers = call, media, offer is None
        self._up.clear()
        call.accept(body, self._driver.now())
        self._tell_held()

    def reconnect(self) -> None:
        """Send and receive again as agreed: somebody else has had the media slot."""
        if self._media is not None and self._media.params is not None and not self._call.ended:
            self._media.media.connect(self._media.params)

    def _settle_hold(self) -> None:
        """Offer what is wanted where the session is not so; while an offer of ours is open, its answer comes first."""
        media = self._media
        if media is None or not self._up.is_set() or media.awaits_answer or self._call.ended:
            return
        if media.holding == self._holds:
            return
        try:
            self._call.reoffer(media.hold_offer() if self._holds else media.resume_offer(), self._driver.now())
        except LocalSipError as error:
            media.offer_refused()
            logger.info("no re-INVITE now: %s", error, extra={"call_id": self._call.call_id})
        self._driver.pump()

    def _on_common(self, event: Event) -> bool:
        """Take an event that means the same in both kinds of leg; whether it was one."""
        match event:
            case Confirmed():
                self._on_confirmed(event.body)
            case Reoffered():
                self._answer_reoffer(event.offer)
            case ReofferAnswered():
                self._reoffer_answered(event)
            case ReofferFailed():
                if self._media is not None and self._media.awaits_answer:
                    self._media.offer_refused()
                    if self._holds:
                        self._holds = False  # asked again, it would be refused again; without it the call goes on too
            case InfoReceived():
                digit = dtmf_from_info(event.content_type, event.body)
                if digit and self.on_digits is not None:
                    self.on_digits(digit)
            case ReferReceived():
                self._on_refer(event)
            case ReferProgress():
                self._reported = True
            case TransferDone():
                if self._transfer is not None and not self._transfer.done():
                    taken = self._reported or event.status < 300
                    self._transfer.set_result(TransferOutcome(event.status, taken))
            case _:
                return False
        return True

    def _answer_reoffer(self, offer: bytes | None) -> None:
        """Answer a re-INVITE with the session as it is, changed to what the peer asks where that can be."""
        now = self._driver.now()
        if self._media is None:
            self._call.refuse_reoffer(488, now)
            return
        try:
            body = self._media.offer() if offer is None else self._media.answer(offer)
        except RemoteSipError as error:
            self._call.refuse_reoffer(error.status_hint or 488, now)
            return
        self._ack_answers = offer is None
        self._call.accept(body, now)
        self._tell_held()

    def _on_confirmed(self, body: bytes | None) -> None:
        """The ACK of a 200 of ours: it brings the answer where the 200 made the offer."""
        self._up.set()
        if self._ack_answers and self._media is not None:
            self._ack_answers = False
            try:
                self._media.take_answer(body)
            except RemoteSipError as error:
                self._fail(error.status_hint or 488, str(error))
                return
            self._tell_held()
        self._settle_hold()

    def _fail(self, status: int, text: str) -> None:
        """End the call because the media cannot be agreed on."""
        logger.warning("media not agreed: %s", text, extra={"call_id": self._call.call_id})
        self._call.hangup(self._driver.now(), "media not agreed")
        self._driver.pump()

    def _reoffer_answered(self, event: ReofferAnswered) -> None:
        media = self._media
        if media is None:
            return
        try:
            if event.needs_answer and event.body is not None:
                self._call.acknowledge(media.answer(event.body), self._driver.now())
            elif media.awaits_answer:
                media.take_answer(event.body)
        except RemoteSipError as error:
            logger.warning("the answer to our re-INVITE is of no use: %s", error, extra={"call_id": self._call.call_id})
            media.offer_refused()
            return
        self._tell_held()
        self._settle_hold()

    def _tell_held(self) -> None:
        if self.held != self._held:
            self._held = self.held
            if self.on_held is not None:
                self.on_held(self._held)

    def _on_refer(self, event: ReferReceived) -> None:
        request = _Referral(event, self._driver)
        if self.on_transfer is not None:
            self.on_transfer(request)
        else:
            request.refuse(603)


class _Referral:
    """A REFER that waits for us; see :class:`~appliance.signalling.leg.TransferRequest`."""

    def __init__(self, event: ReferReceived, driver: Driver) -> None:
        self.target = printable(event.target, 512)
        self.headers: list[tuple[str, str]] = []
        if event.replaces:
            self.headers.append(("Replaces", event.replaces))
        if event.referred_by:
            self.headers.append(("Referred-By", event.referred_by))
        self._call = event.call
        self._driver = driver

    def accept(self) -> None:
        self._tell(self._call.refer_accept)

    def refuse(self, status: int) -> None:
        self._tell(lambda now: self._call.refer_refuse(status, now))

    def report(self, status: int) -> None:
        self._tell(lambda now: self._call.refer_notify(status, now))

    def goodbye(self) -> None:
        if not self._call.ended:
            self._tell(lambda now: self._call.hangup(now, "transferred"))

    def _tell(self, what: Callable[[float], None]) -> None:
        try:
            what(self._driver.now())
        except LocalSipError as error:
            logger.info("the one who asked for the transfer is gone: %s", error)
        self._driver.pump()


class SipLeg(_SipSide):
    """An incoming SIP call; the :class:`~appliance.signalling.leg.Leg` protocol.

    Made by the endpoint when an INVITE has come and its offer can be answered.
    """

    def __init__(self, call: Call, info: CallInfo, offer: bytes | None, policy: MediaPolicy, driver: Driver) -> None:
        super().__init__(call, None, driver)
        self.info = info
        self.on_hangup: Callable[[HangupCause], None] | None = None
        self._offer = offer
        self._policy = policy
        self._own_end = False

    def ring(self) -> None:
        """Send 180."""
        if not self._call.ended and self._media is None:
            self._call.ring(self._driver.now())
            self._driver.pump()

    def answer(self, media: RtpSlot) -> None:
        """Send 200 with our SDP: the answer, or an offer where the INVITE had none.

        With an offer in the INVITE, ``media`` is connected before the 200 leaves; without, when the ACK brings the
        peer's answer.
        """
        if self._call.ended or self._media is not None:
            return
        negotiation = SipMedia(media, session_id_of(self.info.leg_id), self._policy, self._call.source.host)
        try:
            body = negotiation.offer() if self._offer is None else negotiation.answer(self._offer)
        except RemoteSipError as error:
            self._fail(error.status_hint or 488, str(error))
            return
        self._media = negotiation
        self._ack_answers = self._offer is None
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

    def become(self, outgoing: OutgoingCall) -> None:
        """Go on as ``outgoing``, a call answered on this leg's media slot.

        The call so far, which may have ended, is nobody's leg any more. What the far end may do is from now on what
        the trunk of the new one says.
        """
        self._call, self._media, self._ack_answers = outgoing._call, outgoing._media, False
        self._own_end = False
        self._up.set()
        outgoing.heir = self
        there = outgoing.call
        self.info = dataclasses.replace(
            self.info,
            trunk=outgoing.trunk or self.info.trunk,
            source=join_host_port(there.source.host, there.source.port),
            can_transfer="REFER" in there.remote_allows,
        )
        self._tell_held()

    # --- what the endpoint tells it ----------------------------------------------------------------------------

    def on_event(self, event: Event) -> None:
        """Take an event of its call; those of a call that it was before mean nothing any more."""
        if event.call is not self._call or self._on_common(event):
            return
        if isinstance(event, CallEnded) and not self._own_end and self.on_hangup is not None:
            who: Literal["caller", "system"] = "caller" if event.by == "remote" else "system"
            self.on_hangup(HangupCause(who, event.status, printable(event.reason, 100)))

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


class OutgoingCall(_SipSide):
    """A call placed by us.

    Attributes:
        on_ringing: called with the status of every provisional response above 100.
        on_answered: called once with the media parameters; the slot is connected already.
        on_ended: called once, whoever ended the call; ``by`` is "caller" for this side, "agent" for the one called.
        heir: the leg that goes on as this call, and hears what happens to it.
        trunk, uri: by which trunk and at which URI it was placed; "" where no trunk was.
    """

    _media: SipMedia

    def __init__(self, call: Call, negotiation: SipMedia, driver: Driver) -> None:
        super().__init__(call, negotiation, driver)
        self.on_ringing: Callable[[int], None] | None = None
        self.on_answered: Callable[[RtpParams], None] | None = None
        self.on_ended: Callable[[HangupCause], None] | None = None
        self.heir: SipLeg | None = None
        self.trunk = self.uri = ""
        self._given_up = False
        self._gone = False
        self._answered: asyncio.Future[RtpParams | None] = asyncio.get_running_loop().create_future()
        self._ended: asyncio.Future[HangupCause] = asyncio.get_running_loop().create_future()

    @property
    def call(self) -> Call:
        """The INVITE under way, or answered."""
        return self._call

    @property
    def source(self) -> str:
        """ "address:port" of the peer that the INVITE went to."""
        return join_host_port(self._call.source.host, self._call.source.port)

    @property
    def can_transfer(self) -> bool:
        """Whether the peer takes REFER, as far as it has said."""
        return "REFER" in self._call.remote_allows

    def let_go(self) -> None:
        """Its media slot is another call's now: what the peer wants changed is refused, and nobody hears of it."""
        self.on_digits = self.on_held = self.on_transfer = self.on_ringing = None
        self._gone = True

    @property
    def given_up(self) -> bool:
        """Whether this side has ended it, so that no other server is tried."""
        return self._given_up

    def take_over(self, call: Call) -> None:
        """Go on with another INVITE with the same offer, the one before having come to nothing."""
        self._call = call

    async def wait_answered(self) -> RtpParams | None:
        """The media parameters once the call is answered; None where it ended before."""
        return await asyncio.shield(self._answered)

    async def wait_ended(self) -> HangupCause:
        """Why the call ended, once it has."""
        return await asyncio.shield(self._ended)

    def when_over(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once the call has ended, or soon where it has."""
        self._ended.add_done_callback(lambda _: callback())

    def hangup(self, reason: str = "") -> None:
        """End the call: BYE where it was answered, CANCEL where not."""
        self._given_up = True
        if not self._call.ended:
            self._call.hangup(self._driver.now(), printable(reason, 100))
            self._driver.pump()

    def cancel(self) -> None:
        """The same as :meth:`hangup`, for a call that still rings."""
        self.hangup()

    def on_event(self, event: Event) -> None:
        """Take an event of its call."""
        if isinstance(event, CallEnded) and event.call is self._call:
            self._on_end(event)
        if self._gone:
            if isinstance(event, Reoffered):
                self._call.refuse_reoffer(488, self._driver.now())
            return
        if self.heir is not None:
            self.heir.on_event(event)
        elif event.call is self._call and not self._on_common(event):
            self._on_own(event)

    def _on_confirmed(self, body: bytes | None) -> None:
        super()._on_confirmed(body)
        self._tell_answered()  # of an INVITE that took the place of ours while that rang (call pick-up)

    def _on_own(self, event: Event) -> None:
        if isinstance(event, Progress):
            if event.body and self._media.awaits_answer:
                self._take_early(event.body)
            if event.status > 100 and self.on_ringing is not None:
                self.on_ringing(event.status)
        elif isinstance(event, Answered):
            self._on_answer(event.body)

    def _take_early(self, body: bytes) -> None:
        try:
            self._media.take_early(body)
        except RemoteSipError as error:
            logger.info("no early media: %s", error, extra={"call_id": self._call.call_id})

    def _on_answer(self, body: bytes | None) -> None:
        try:
            self._media.take_answer(body)
        except RemoteSipError as error:
            self._fail(error.status_hint or 488, str(error))
            return
        self._up.set()
        self._tell_answered()

    def _tell_answered(self) -> None:
        """Tell once that somebody has answered, as soon as the media are agreed on."""
        params = self._media.params
        if params is None or self._answered.done():
            return
        self._answered.set_result(params)
        if self.on_answered is not None:
            self.on_answered(params)

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
