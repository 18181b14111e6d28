"""The peer's requests that change a session: re-INVITE, UPDATE and a PRACK with SDP (RFC 3261 §14.2, RFC 3311,
RFC 3262), and the 2xx to an INVITE, which is sent again until its ACK comes.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from appliance.errors import LocalSipError, RemoteSipError
from appliance.sip.call_state import CallState, CallTimer
from appliance.sip.events import Confirmed, ReofferCancelled, Reoffered
from appliance.sip.message import Request
from appliance.sip.reliable import Unacknowledged
from appliance.sip.transaction import Transaction

if TYPE_CHECKING:
    from appliance.sip.call import Call


class PeerOffers:
    """What the peer has asked for and not heard about yet. Its methods are given the call, as those of its siblings.

    Attributes:
        waiting: the request that waits for the application's answer.
        unacknowledged: our 2xx to an INVITE that waits for its ACK.
    """

    def __init__(self) -> None:
        self.waiting: tuple[Transaction, Request] | None = None
        self.unacknowledged: Unacknowledged | None = None
        self._last_reinvite: Transaction | None = None

    def on_reinvite(self, call: Call, transaction: Transaction, request: Request, now: float) -> None:
        """Take a re-INVITE, or tell the peer when to come back (§14.2).

        Raises:
            RemoteSipError: where the call is over.
        """
        if call.ended:
            raise RemoteSipError("the call is over", status_hint=481)
        if call.queue.offering:
            call.respond(transaction, request, 491, now)
        elif call.state is not CallState.CONFIRMED or self.waiting is not None or self.unacknowledged is not None:
            self._come_back(call, transaction, request, now)
        elif not self.refused_interval(call, transaction, request, now):
            self.waiting = (transaction, request)
            self._own(call, transaction)
            call.respond(transaction, request, 100, now)
            call.host.emit(Reoffered(call, request.sdp or None))

    def on_update(self, call: Call, transaction: Transaction, request: Request, now: float) -> None:
        """Take an UPDATE: without SDP it is answered here, with SDP by the application (RFC 3311 §5.2).

        Raises:
            RemoteSipError: where the call is over.
        """
        if call.ended:
            raise RemoteSipError("the call is over", status_hint=481)
        if request.sdp and call.queue.offering:
            call.respond(transaction, request, 491, now)
        elif request.sdp and (self.waiting is not None or not call.sdp_agreed):
            self._come_back(call, transaction, request, now)
        elif self.refused_interval(call, transaction, request, now):
            return
        elif request.sdp:
            self.take(call, transaction, request)
        else:
            headers = call.session.answer(request)
            call.respond(transaction, request, 200, now, headers=headers)
            call.session.restart(call, now)

    def take(self, call: Call, transaction: Transaction, request: Request) -> None:
        """Keep an offer that needs no ACK until the application answers it."""
        self.waiting = (transaction, request)
        call.host.emit(Reoffered(call, request.sdp))

    def accept(self, call: Call, body: bytes, now: float) -> None:
        """Answer what waits with 200 and this SDP.

        Raises:
            LocalSipError: where nothing waits.
        """
        transaction, request = self._take_waiting()
        if request.method == "INVITE":
            self.send_2xx(call, transaction, request, body, now, initial=False)
        else:
            headers = call.session.answer(request) if request.method == "UPDATE" else []
            call.respond(transaction, request, 200, now, headers=headers, body=body)
        call.client.session_changed(request.from_.tag or "")
        if request.method != "PRACK":
            call.session.restart(call, now)
        call.queue.advance(call, now)

    def refuse(self, call: Call, status: int, now: float, reason: str = "") -> None:
        """Refuse what waits; the call goes on as it was.

        Raises:
            LocalSipError: where nothing waits.
        """
        transaction, request = self._take_waiting()
        call.respond(transaction, request, status, now, reason)
        call.queue.advance(call, now)

    def on_cancel(self, call: Call, invite: Transaction, now: float) -> bool:
        """The peer took back its re-INVITE; false where that is not what the CANCEL is about."""
        if self.waiting is None or self.waiting[0] is not invite:
            return False
        self.refuse(call, 487, now)
        call.host.emit(ReofferCancelled(call))
        return True

    def send_2xx(
        self, call: Call, transaction: Transaction, request: Request, body: bytes, now: float, *, initial: bool
    ) -> None:
        """Accept an INVITE, and repeat that until its ACK comes (RFC 3261 §13.3.1.4).

        Also over TCP and TLS: the peer may stand behind a proxy that goes on by UDP.
        """
        headers = call.session.answer(request)
        response = call.respond(transaction, request, 200, now, headers=headers, body=body)
        t1 = call.host.timing.t1_s
        self.unacknowledged = Unacknowledged(
            request.cseq.number, response.encode(), transaction.destination, t1, initial
        )
        call.set_timer(CallTimer.RESEND_2XX, now + t1)
        call.set_timer(CallTimer.NO_ACK, now + 64 * t1)

    def resend_2xx(self, call: Call, now: float) -> None:
        """The ACK is late."""
        waiting = self.unacknowledged
        if waiting is not None:
            call.host.layer.resend(waiting.data, waiting.destination)
            waiting.interval_s = min(2 * waiting.interval_s, call.host.timing.t2_s)
            call.set_timer(CallTimer.RESEND_2XX, now + waiting.interval_s)

    def stop_2xx(self, call: Call) -> None:
        """The ACK came, or no longer matters."""
        self.unacknowledged = None
        call.cancel_timer(CallTimer.RESEND_2XX)
        call.cancel_timer(CallTimer.NO_ACK)

    def on_ack(self, call: Call, request: Request) -> bool | None:
        """Take an ACK: None where it is a straggler, else whether it was the first of the call."""
        waiting = self.unacknowledged
        if waiting is None or waiting.cseq != request.cseq.number:
            return None
        self.stop_2xx(call)
        return waiting.initial

    def confirmed(self, call: Call, request: Request, now: float) -> None:
        """Tell of an ACK, and do what waited for it."""
        if not call.ended:
            call.host.emit(Confirmed(call, request.sdp or None))
            call.queue.advance(call, now)

    def refused_interval(self, call: Call, transaction: Transaction, request: Request, now: float) -> bool:
        """Refuse an INVITE or UPDATE whose session interval is too small (RFC 4028 §9); whether that was so.

        Raises:
            RemoteSipError: where its headers are broken.
        """
        least = call.session.too_small(request)
        if least is not None:
            call.respond(transaction, request, 422, now, headers=[("Min-SE", str(least))])
        return least is not None

    def close(self, call: Call, now: float) -> None:
        """The call has ended: what waits is answered 487."""
        if self.waiting is not None:
            transaction, request = self._take_waiting()
            call.respond(transaction, request, 487, now)
        self._own(None, None)

    def _own(self, call: Call | None, transaction: Transaction | None) -> None:
        """Let CANCEL and stray ACKs find the call by its latest re-INVITE, and by no older one."""
        if self._last_reinvite is not None:
            self._last_reinvite.owner = None
        self._last_reinvite = transaction
        if transaction is not None:
            transaction.owner = call

    def _take_waiting(self) -> tuple[Transaction, Request]:
        found, self.waiting = self.waiting, None
        if found is None:
            raise LocalSipError("no re-INVITE or UPDATE waits for an answer")
        return found

    def _come_back(self, call: Call, transaction: Transaction, request: Request, now: float) -> None:
        """An offer is being dealt with: 500 and a time from 0 to 10 s (§14.2)."""
        wait_s = zlib.crc32(call.host.new_token().encode()) % 11
        reason = "Another INVITE In Progress" if request.method == "INVITE" else "Another Offer In Progress"
        call.respond(transaction, request, 500, now, reason, [("Retry-After", str(wait_s))])
