"""Our own requests inside a call, one after another (RFC 3261 §12.2.1, §14.1, RFC 3311).

One is under way at a time, so that none overtakes another on the way and is refused for its CSeq. BYE and PRACK do not
queue here: a BYE ends whatever waits, and a PRACK confirms what the other side keeps repeating.
"""

from __future__ import annotations

import zlib
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from appliance.errors import LocalSipError
from appliance.sip.call_state import CallState, CallTimer, Role
from appliance.sip.dialog import cancel_of
from appliance.sip.events import InfoAnswered, ReofferAnswered, ReofferFailed
from appliance.sip.headers import is_number
from appliance.sip.message import Response
from appliance.sip.reliable import requires_reliable
from appliance.sip.transaction import Kind, Transaction

if TYPE_CHECKING:
    from appliance.sip.call import Call

MAX_WAITING = 64
"""Requests of one call that may wait for their turn."""

MAX_TRIES = 6
"""How often one request is sent before a 401, 422, 491 or 500 with Retry-After is taken as a refusal."""

LONGEST_RETRY_AFTER_S = 10

LONGEST_REINVITE_S = 90.0
"""A re-INVITE that the peer is still thinking about after this time is taken back."""

MAX_ACKS = 4
"""ACKs of re-INVITEs kept for repeated 200s."""

OUTLIVED = frozenset((408, 481))
"""Answers to a re-INVITE or UPDATE that say the peer knows nothing of the call any more (RFC 3261 §12.2.1.2)."""


class Purpose(StrEnum):
    OFFER = "offer"
    REFRESH = "refresh"
    INFO = "info"
    REFER = "refer"
    NOTIFY = "notify"


@dataclass(slots=True)
class Outgoing:
    """A request of ours, sent or still to be sent. ``withdrawn`` once it has been cancelled."""

    purpose: Purpose
    method: str
    body: bytes = b""
    content_type: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    credentials: list[tuple[str, str]] = field(default_factory=list)
    tries: int = 0
    withdrawn: bool = False

    @property
    def in_session(self) -> bool:
        """Whether it is about the session (re-INVITE, UPDATE), and not beside it."""
        return self.method in ("INVITE", "UPDATE")

    @property
    def offers(self) -> bool:
        """Whether an offer/answer exchange goes with it."""
        return self.method == "INVITE" or (self.method == "UPDATE" and bool(self.body))


class InDialog:
    """The queue of one call. Its methods are given the call, so that neither keeps the other alive."""

    def __init__(self) -> None:
        self.current: Outgoing | None = None
        self._transaction: Transaction | None = None
        self._waiting: deque[Outgoing] = deque()
        self._not_before = 0.0
        self._acks: dict[Transaction, bytes] = {}
        self._unsent_ack: Transaction | None = None

    @property
    def offering(self) -> bool:
        """Whether an offer of ours (or a re-INVITE that asks for one) is under way."""
        return self._unsent_ack is not None or (self.current is not None and self.current.offers)

    @property
    def inviting(self) -> bool:
        """Whether a re-INVITE of ours is under way."""
        return self.current is not None and self.current.method == "INVITE"

    def waits_for(self, purpose: Purpose) -> bool:
        """Whether a request for this purpose is under way or waits for its turn."""
        return any(out.purpose is purpose for out in (self.current, *self._waiting) if out is not None)

    def submit(self, call: Call, outgoing: Outgoing, now: float) -> None:
        """Send a request as soon as its turn comes. A refresh is next, however many wait: the call ends without it.

        Raises:
            LocalSipError: where too many wait.
        """
        if outgoing.purpose is Purpose.REFRESH:
            self._waiting.appendleft(outgoing)
        elif len(self._waiting) >= MAX_WAITING:
            raise LocalSipError(f"{MAX_WAITING} requests of this call wait already; wait for their answers first")
        else:
            self._waiting.append(outgoing)
        self.advance(call, now)

    def advance(self, call: Call, now: float) -> None:
        """Send the next request if it may go now; called whenever something has changed."""
        if self.current is not None or not self._waiting or call.ended or call.dialog is None:
            return
        if self._waiting[0].in_session:
            if not call.may_offer(self._waiting[0].offers):
                return
            if now < self._not_before:
                call.set_timer(CallTimer.TRY_AGAIN, self._not_before)
                return
        outgoing = self.current = self._waiting.popleft()
        outgoing.tries += 1
        if outgoing.method == "INVITE":
            call.set_timer(CallTimer.NO_FINAL, now + LONGEST_REINVITE_S)
            if outgoing.purpose is Purpose.REFRESH:
                outgoing.body = call.local_sdp
        headers = list(outgoing.headers)
        if outgoing.in_session:
            headers += call.session.ask()
        self._transaction = call.send_in_dialog(
            call.dialog,
            outgoing.method,
            now,
            headers,
            body=outgoing.body,
            content_type=outgoing.content_type,
            credentials=outgoing.credentials,
        )

    def give_up(self, call: Call, now: float) -> None:
        """The peer has said 100 to a re-INVITE and nothing since: take it back, as its transaction waits for ever.

        It stays under way until its final response, for at most 64*T1 (RFC 3261 §9.1): a 2xx that crossed the CANCEL
        changes the session all the same, and needs its ACK.
        """
        outgoing, transaction = self.current, self._transaction
        if call.ended or outgoing is None or transaction is None or not self.inviting:
            return
        if not outgoing.withdrawn and transaction.request is not None:
            outgoing.withdrawn = True
            call.set_timer(CallTimer.NO_FINAL, now + 64 * call.host.timing.t1_s)
            call.host.layer.open_client(cancel_of(transaction.request), transaction.destination, call, now)
            return
        self.abandon(call)
        self._failed(call, outgoing, 408, now)
        self.advance(call, now)

    def acknowledge(self, call: Call, body: bytes, now: float) -> bool:
        """Answer the offer that a 2xx to our re-INVITE brought; false where there is none."""
        transaction, self._unsent_ack = self._unsent_ack, None
        if transaction is None:
            return False
        self._send_ack(call, transaction, body)
        self.advance(call, now)
        return True

    def on_response(self, call: Call, transaction: Transaction, response: Response, now: float) -> bool:
        """Take a response; false where it belongs to nothing of this queue."""
        if transaction in self._acks:
            call.host.layer.resend(self._acks[transaction], transaction.destination)
            return True
        outgoing = self.current
        if transaction is not self._transaction or outgoing is None:
            return transaction is self._unsent_ack
        status = response.status
        if status < 200:
            if outgoing.method == "INVITE" and requires_reliable(response):
                call.client.confirm_within(call, response, now)
            return True
        self._transaction = self.current = None
        call.cancel_timer(CallTimer.NO_FINAL)
        if outgoing.method == "INVITE" and status < 300:
            self._on_reinvite_accepted(call, transaction, outgoing, response)
        if call.ended:
            return True
        if not self._try_again(call, outgoing, transaction, response, now):
            self._conclude(call, outgoing, status, response, now)
        self.advance(call, now)
        return True

    def on_timeout(self, call: Call, transaction: Transaction, now: float) -> bool:
        """A request of this queue was never answered; false where it is not of this queue."""
        outgoing = self.current
        if transaction is not self._transaction or outgoing is None:
            return False
        self._transaction = self.current = None
        if not call.ended:
            self._conclude(call, outgoing, 408, None, now)
            self.advance(call, now)
        return True

    def close(self) -> None:
        """The session is over: nothing more is sent. ACKs of 200s that come yet still are."""
        self._waiting.clear()

    def abandon(self, call: Call) -> None:
        """The dialog is over: nothing answers a re-INVITE any more."""
        if self._transaction is not None and self._transaction.kind is Kind.INVITE_CLIENT:
            call.host.layer.abandon(self._transaction)
        self._transaction = self.current = None

    def _on_reinvite_accepted(
        self, call: Call, transaction: Transaction, outgoing: Outgoing, response: Response
    ) -> None:
        if outgoing.body or not response.sdp or call.ended:
            self._send_ack(call, transaction, b"")
        else:
            self._unsent_ack = transaction

    def _send_ack(self, call: Call, transaction: Transaction, body: bytes) -> None:
        if call.dialog is None or transaction.request is None:
            return
        while len(self._acks) >= MAX_ACKS:
            del self._acks[next(iter(self._acks))]
        self._acks[transaction] = call.send_ack(call.dialog, transaction.request, body)

    def _try_again(
        self, call: Call, outgoing: Outgoing, transaction: Transaction, response: Response, now: float
    ) -> bool:
        """Put a refused request in front of the queue again where another try can help."""
        status = response.status
        if outgoing.tries >= MAX_TRIES or status < 300 or outgoing.withdrawn:
            return False
        if status in (401, 407):
            request = transaction.request
            credentials = call.host.authorize(request, response, transaction.destination) if request else None
            if credentials is None:
                return False
            outgoing.credentials = credentials
        elif status == 422:
            if not outgoing.in_session or not call.session.refused(response):
                return False
        elif status == 491 and outgoing.in_session:
            self._not_before = now + glare_delay_s(call.role, call.host.new_token())
        elif status in (500, 503) and outgoing.in_session and _retry_after_s(response) is not None:
            self._not_before = now + (_retry_after_s(response) or 0)
        else:
            return False
        self._waiting.appendleft(outgoing)
        return True

    def _conclude(self, call: Call, outgoing: Outgoing, status: int, response: Response | None, now: float) -> None:
        """Tell what became of a request."""
        purpose, body = outgoing.purpose, (response.sdp or None) if response is not None else None
        if outgoing.in_session and response is not None and status < 300:
            call.session.agreed(call, response, now)
            if outgoing.offers:
                call.client.session_changed(response.to.tag or "")
                call.local_sdp = outgoing.body or call.local_sdp
            needs_answer = self._unsent_ack is not None
            call.host.emit(ReofferAnswered(call, body, needs_answer=needs_answer, refresh=purpose is Purpose.REFRESH))
        elif outgoing.in_session and status in OUTLIVED:
            call.lost(status, f"{outgoing.method} answered {status}" if response else "the peer no longer answers", now)
        elif outgoing.in_session:
            self._failed(call, outgoing, status, now)
        elif purpose is Purpose.INFO:
            call.host.emit(InfoAnswered(call, status))
        elif purpose is Purpose.REFER:
            call.transfers.on_answer(call, status, response, now)
        else:
            call.transfers.on_notify_answer(status)

    def _failed(self, call: Call, outgoing: Outgoing, status: int, now: float) -> None:
        """A re-INVITE or UPDATE came to nothing; the call goes on as it was."""
        if outgoing.purpose is Purpose.REFRESH:
            call.session.refresh_failed(call, now, status)
        else:
            call.session.offer_failed(call, now)
            call.host.emit(ReofferFailed(call, status))


def glare_delay_s(role: Role, token: str) -> float:
    """How long to wait after a 491 (RFC 3261 §14.1): 2.1 to 4 s for who began the call, else 0 to 2, in 10 ms steps."""
    chance = zlib.crc32(token.encode())
    return (210 + chance % 191) / 100 if role is Role.UAC else chance % 201 / 100


def _retry_after_s(response: Response) -> int | None:
    words = (response.headers.get("retry-after") or "").replace(";", " ").replace("(", " ").split()
    return min(int(words[0]), LONGEST_RETRY_AFTER_S) if words and is_number(words[0], 10**9) else None


def may_update_early(role: Role, state: CallState, *, confirmed_sdp: bool, offers: bool) -> bool:
    """Whether an UPDATE may be sent before the call is answered (RFC 3311 §5.1).

    Not before the peer is known to have the dialog, and with an offer only once the first one has been answered; both
    are so when a reliable provisional response with SDP was confirmed.
    """
    if state is (CallState.PROCEEDING if role is Role.UAC else CallState.RINGING):
        return confirmed_sdp or (not offers and role is Role.UAC)
    return False
