"""One call: an INVITE, the dialog it makes, and the BYE that ends it (RFC 3261 §13-§15).

The two tables say which state follows which event, for calls to us and calls from us. Transactions retransmit
everything except the 2xx to an INVITE, which is this module's business: it is sent again until the ACK comes, and
when that never comes the call is ended with a BYE (§13.3.1.4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeAlias

from appliance.errors import LocalSipError, RemoteSipError
from appliance.sip.dialog import Dialog
from appliance.sip.events import (
    Answered,
    CallClosed,
    CallEnded,
    Confirmed,
    Event,
    InfoReceived,
    Progress,
    Reoffered,
)
from appliance.sip.message import Headers, Request, Response, make_response
from appliance.sip.timers import TimerQueue
from appliance.sip.transaction import Kind, Timing, Transaction
from appliance.sip.transaction_layer import TimerKey, TransactionLayer
from appliance.sip.uri import Address

RING_REFRESH_S = 60.0
"""A ringing UAS repeats its 180 this often, so that proxies on the way do not give up (§13.3.1.1)."""

MAX_FORKS = 16
"""Branches of one outgoing call that may ring or answer; more are ignored."""


class Role(StrEnum):
    UAS = "UAS"
    UAC = "UAC"


class CallState(StrEnum):
    INVITED = "invited"
    RINGING = "ringing"
    ACCEPTED = "accepted"
    CLOSING = "closing"
    CALLING = "calling"
    PROCEEDING = "proceeding"
    CANCEL_WAITS = "cancel waits"
    CANCELLING = "cancelling"
    CONFIRMED = "confirmed"
    ENDING = "ending"
    TERMINATED = "terminated"


class CallEvent(StrEnum):
    RING = "send 18x"
    ACCEPT = "send 2xx"
    REFUSE = "send 300-699"
    CANCELLED = "CANCEL"
    ACKED = "ACK"
    ACK_TIMEOUT = "no ACK in 64*T1"
    BYE_RECEIVED = "BYE"
    HANGUP = "hang up"
    PROVISIONAL = "1xx"
    SUCCESS = "2xx"
    FAILURE = "300-699"
    NO_ANSWER = "nobody answered in time"
    GIVE_UP = "64*T1 after CANCEL"
    BYE_DONE = "BYE answered or given up"


CallTable: TypeAlias = dict[tuple[CallState, CallEvent], CallState]

UAS_TABLE: CallTable = {
    (CallState.INVITED, CallEvent.RING): CallState.RINGING,
    (CallState.INVITED, CallEvent.ACCEPT): CallState.ACCEPTED,
    (CallState.INVITED, CallEvent.REFUSE): CallState.TERMINATED,
    (CallState.INVITED, CallEvent.CANCELLED): CallState.TERMINATED,
    (CallState.INVITED, CallEvent.BYE_RECEIVED): CallState.TERMINATED,
    (CallState.INVITED, CallEvent.NO_ANSWER): CallState.TERMINATED,
    (CallState.RINGING, CallEvent.RING): CallState.RINGING,
    (CallState.RINGING, CallEvent.ACCEPT): CallState.ACCEPTED,
    (CallState.RINGING, CallEvent.REFUSE): CallState.TERMINATED,
    (CallState.RINGING, CallEvent.CANCELLED): CallState.TERMINATED,
    (CallState.RINGING, CallEvent.BYE_RECEIVED): CallState.TERMINATED,
    (CallState.RINGING, CallEvent.NO_ANSWER): CallState.TERMINATED,
    (CallState.ACCEPTED, CallEvent.ACKED): CallState.CONFIRMED,
    (CallState.ACCEPTED, CallEvent.ACK_TIMEOUT): CallState.ENDING,
    (CallState.ACCEPTED, CallEvent.BYE_RECEIVED): CallState.TERMINATED,
    (CallState.ACCEPTED, CallEvent.HANGUP): CallState.CLOSING,
    (CallState.CLOSING, CallEvent.ACKED): CallState.ENDING,
    (CallState.CLOSING, CallEvent.ACK_TIMEOUT): CallState.ENDING,
    (CallState.CLOSING, CallEvent.BYE_RECEIVED): CallState.TERMINATED,
    (CallState.CONFIRMED, CallEvent.ACK_TIMEOUT): CallState.ENDING,
    (CallState.CONFIRMED, CallEvent.BYE_RECEIVED): CallState.TERMINATED,
    (CallState.CONFIRMED, CallEvent.HANGUP): CallState.ENDING,
    (CallState.ENDING, CallEvent.BYE_RECEIVED): CallState.ENDING,
    (CallState.ENDING, CallEvent.BYE_DONE): CallState.TERMINATED,
}

UAC_TABLE: CallTable = {
    (CallState.CALLING, CallEvent.PROVISIONAL): CallState.PROCEEDING,
    (CallState.CALLING, CallEvent.SUCCESS): CallState.CONFIRMED,
    (CallState.CALLING, CallEvent.FAILURE): CallState.TERMINATED,
    (CallState.CALLING, CallEvent.HANGUP): CallState.CANCEL_WAITS,
    (CallState.CALLING, CallEvent.NO_ANSWER): CallState.CANCEL_WAITS,
    (CallState.PROCEEDING, CallEvent.PROVISIONAL): CallState.PROCEEDING,
    (CallState.PROCEEDING, CallEvent.SUCCESS): CallState.CONFIRMED,
    (CallState.PROCEEDING, CallEvent.FAILURE): CallState.TERMINATED,
    (CallState.PROCEEDING, CallEvent.HANGUP): CallState.CANCELLING,
    (CallState.PROCEEDING, CallEvent.NO_ANSWER): CallState.CANCELLING,
    (CallState.PROCEEDING, CallEvent.BYE_RECEIVED): CallState.CANCELLING,
    (CallState.CANCEL_WAITS, CallEvent.PROVISIONAL): CallState.CANCELLING,
    (CallState.CANCEL_WAITS, CallEvent.SUCCESS): CallState.ENDING,
    (CallState.CANCEL_WAITS, CallEvent.FAILURE): CallState.TERMINATED,
    (CallState.CANCELLING, CallEvent.SUCCESS): CallState.ENDING,
    (CallState.CANCELLING, CallEvent.FAILURE): CallState.TERMINATED,
    (CallState.CANCELLING, CallEvent.BYE_RECEIVED): CallState.CANCELLING,
    (CallState.CANCELLING, CallEvent.GIVE_UP): CallState.TERMINATED,
    (CallState.CONFIRMED, CallEvent.ACK_TIMEOUT): CallState.ENDING,
    (CallState.CONFIRMED, CallEvent.BYE_RECEIVED): CallState.TERMINATED,
    (CallState.CONFIRMED, CallEvent.HANGUP): CallState.ENDING,
    (CallState.ENDING, CallEvent.BYE_RECEIVED): CallState.ENDING,
    (CallState.ENDING, CallEvent.BYE_DONE): CallState.TERMINATED,
}


class CallTimer(StrEnum):
    RESEND_2XX = "2xx again"
    NO_ACK = "no ACK"
    RING = "180 again"
    NO_ANSWER = "no answer"
    GIVE_UP = "give up"


class CallHost(Protocol):
    """What a call needs of its user agent."""

    layer: TransactionLayer
    timers: TimerQueue[TimerKey]
    timing: Timing

    def emit(self, event: Event) -> None: ...
    def new_token(self) -> str: ...
    def new_via(self, destination: Address) -> str: ...
    def sign(self, message: Request | Response, destination: Address, *, contact: bool) -> None: ...
    def locate(self, dialog: Dialog, fallback: Address) -> Address: ...
    def remember(self, dialog: Dialog, call: Call) -> None: ...
    def forget(self, call: Call, dialogs: Iterable[Dialog]) -> None: ...


@dataclass(slots=True)
class _Unacknowledged:
    """A 2xx to an INVITE on its way to the peer."""

    cseq: int
    data: bytes
    destination: Address
    interval_s: float
    initial: bool


class Call:
    """One INVITE session, in either role. Made by the user agent only.

    Attributes:
        request: the INVITE that began it.
        source: where the peer's signalling came from (UAS) or ours goes to (UAC).
        dialog: the confirmed or early dialog; None for a call of ours before the first tagged response.
    """

    def __init__(self, host: CallHost, role: Role, request: Request, source: Address) -> None:
        self._host = host
        self.role = role
        self.request = request
        self.source = source
        self.state = CallState.INVITED if role is Role.UAS else CallState.CALLING
        self.dialog: Dialog | None = None
        self.local_tag = ""
        self._invite: Transaction | None = None
        self._reinvite: Transaction | None = None
        self._reinvite_request: Request | None = None
        self._unacknowledged: _Unacknowledged | None = None
        self._ringing: tuple[int, bytes] | None = None
        self._forks: dict[str, Dialog] = {}
        self._acks: dict[str, tuple[bytes, Address]] = {}
        self._losers: set[Transaction] = set()
        self._ended = False

    @property
    def call_id(self) -> str:
        return self.request.call_id

    @property
    def ended(self) -> bool:
        """Whether :class:`CallEnded` has been told."""
        return self._ended

    # --- beginning, by the user agent -------------------------------------------------------------------------

    def begin_uas(self, transaction: Transaction, dialog: Dialog, ring_timeout_s: float, now: float) -> None:
        """Take over a new INVITE."""
        self._host.timers.set((self, CallTimer.NO_ANSWER), now + ring_timeout_s)
        self._invite = transaction
        self.local_tag = dialog.local_tag
        self.dialog = dialog
        transaction.owner = self
        self._host.remember(dialog, self)

    def begin_uac(self, make_ack: Callable[[Response], bytes], ring_timeout_s: float, now: float) -> None:
        """Send our INVITE."""
        self.local_tag = self.request.from_.tag or ""
        self._host.timers.set((self, CallTimer.NO_ANSWER), now + ring_timeout_s)
        self._invite = self._host.layer.open_client(self.request, self.source, self, now, make_ack)

    # --- what the application does -----------------------------------------------------------------------------

    def ring(self, now: float, status: int = 180, body: bytes = b"") -> None:
        """Send a provisional response (180, or 183 with SDP for early media).

        Raises:
            LocalSipError: where the call is past ringing.
        """
        self._move_local(CallEvent.RING)
        self._ringing = (status, body)
        self._send_response(self._invite_transaction(), self.request, status, now, body=body)
        self._host.timers.set((self, CallTimer.RING), now + RING_REFRESH_S)

    def accept(self, body: bytes, now: float) -> None:
        """Answer the INVITE, or the re-INVITE that is waiting, with 200 and this SDP.

        Raises:
            LocalSipError: where nothing waits for an answer.
        """
        if self._reinvite is not None and self._reinvite_request is not None:
            transaction, request = self._reinvite, self._reinvite_request
            self._reinvite = self._reinvite_request = None
            self._send_2xx(transaction, request, body, now, initial=False)
            return
        transaction = self._invite_transaction()
        self._move_local(CallEvent.ACCEPT)
        self._host.timers.cancel((self, CallTimer.RING))
        self._host.timers.cancel((self, CallTimer.NO_ANSWER))
        self._send_2xx(transaction, self.request, body, now, initial=True)

    def reject(self, status: int, now: float, reason: str = "", headers: Iterable[tuple[str, str]] = ()) -> None:
        """Refuse the INVITE with a final response from 300 to 699.

        Raises:
            LocalSipError: where it has been answered already, or the status is not final.
        """
        if not 300 <= status <= 699:
            raise LocalSipError(f"{status} does not refuse a call; use 300 to 699")
        self._move_local(CallEvent.REFUSE)
        response = self._send_response(self._invite_transaction(), self.request, status, now, reason, headers)
        self._end("local", status, response.reason)
        self._close()

    def refuse_reoffer(self, status: int, now: float, reason: str = "") -> None:
        """Refuse the re-INVITE that is waiting; the call goes on as it was.

        Raises:
            LocalSipError: where none waits.
        """
        if self._reinvite is None or self._reinvite_request is None:
            raise LocalSipError("no re-INVITE waits for an answer")
        transaction, request = self._reinvite, self._reinvite_request
        self._reinvite = self._reinvite_request = None
        self._send_response(transaction, request, status, now, reason)

    def hangup(self, now: float, reason: str = "") -> None:
        """End the call however it stands: 480, CANCEL or BYE. Does nothing where it has ended."""
        if self._ended:
            return
        if self.state in (CallState.INVITED, CallState.RINGING):
            self.reject(480, now, reason)
            return
        if self._move(CallEvent.HANGUP) is None:
            return
        self._end("local", 200, reason or "hung up")
        if self.state is CallState.CANCELLING:
            self._send_cancel(now)
        elif self.state is CallState.ENDING:
            self._send_bye(now, reason)

    # --- requests from the peer, by the user agent -----------------------------------------------------------

    def on_cancel(self, now: float) -> None:
        """The caller gave up. The CANCEL itself is answered by the user agent."""
        if self._move(CallEvent.CANCELLED) is not None:
            self._send_response(self._invite_transaction(), self.request, 487, now)
            self._end("remote", 487, "cancelled")
            self._close()

    def on_ack(self, request: Request, now: float) -> None:
        """An ACK in this dialog. Others than the one waited for are stragglers."""
        waiting = self._unacknowledged
        if waiting is None or waiting.cseq != request.cseq.number:
            return
        self._stop_2xx()
        body = request.body or None
        if waiting.initial:
            self._move(CallEvent.ACKED)
            if self.state is CallState.ENDING:
                self._send_bye(now)
                return
        if not self._ended:
            self._host.emit(Confirmed(self, body))

    def on_request(self, transaction: Transaction, request: Request, now: float) -> None:
        """A request in this dialog other than ACK and CANCEL, of a method we allow.

        Raises:
            RemoteSipError: with the status to answer it with.
        """
        dialog = self._dialog_of(request)
        dialog.accept(request)
        if request.method == "BYE":
            self._on_bye(transaction, request, now)
        elif request.method == "INVITE":
            self._on_reinvite(transaction, request, now)
        elif request.method == "INFO":
            if "info-package" in request.headers:
                raise RemoteSipError("no INFO packages here", status_hint=469)
            self._send_response(transaction, request, 200, now)
            if not self._ended:
                self._host.emit(InfoReceived(self, request.headers.get("content-type") or "", request.body))
        else:
            self._send_response(transaction, request, 200, now)

    def _on_bye(self, transaction: Transaction, request: Request, now: float) -> None:
        self._send_response(transaction, request, 200, now)
        before = self.state
        if self._move(CallEvent.BYE_RECEIVED) is None:
            return
        self._stop_2xx()
        if before in (CallState.INVITED, CallState.RINGING):
            self._send_response(self._invite_transaction(), self.request, 487, now)
        self._end("remote", 200, "BYE")
        if self.state is CallState.CANCELLING and before is CallState.PROCEEDING:
            self._send_cancel(now)
        if self.state is CallState.TERMINATED:
            if self._reinvite is not None and self._reinvite_request is not None:
                self._send_response(self._reinvite, self._reinvite_request, 487, now)
            self._close()

    def _on_reinvite(self, transaction: Transaction, request: Request, now: float) -> None:
        if self._ended:
            raise RemoteSipError("the call is over", status_hint=481)
        if self.state is not CallState.CONFIRMED or self._reinvite is not None or self._unacknowledged is not None:
            self._send_response(transaction, request, 500, now, "Another INVITE In Progress", [("Retry-After", "2")])
            return
        self._reinvite, self._reinvite_request = transaction, request
        transaction.owner = self
        self._send_response(transaction, request, 100, now)
        self._host.emit(Reoffered(self, request.body or None))

    # --- responses to our requests ------------------------------------------------------------------------------

    def on_response(self, transaction: Transaction, response: Response, now: float) -> None:
        """A response to our INVITE, CANCEL or BYE, passed up by its transaction."""
        method = response.cseq.method
        if method == "BYE":
            if response.status >= 200:
                self._bye_done(transaction)
        elif method == "INVITE":
            if response.status < 200:
                self._on_provisional(response, now)
            elif response.status < 300:
                self._on_success(response, now)
            elif self._move(CallEvent.FAILURE) is not None:
                self._end("remote", response.status, response.reason)
                self._close()

    def on_timeout(self, transaction: Transaction, now: float) -> None:
        """A transaction of ours was never answered, or our refusal of an INVITE never acknowledged."""
        if transaction is self._invite:
            if self.role is Role.UAC and self._move(CallEvent.FAILURE) is not None:
                self._end("network", 408, "no answer to our INVITE")
                self._close()
        else:
            self._bye_done(transaction)

    def on_timer(self, timer: CallTimer, now: float) -> None:
        """A deadline of this call fell due."""
        if timer is CallTimer.RESEND_2XX and self._unacknowledged is not None:
            waiting = self._unacknowledged
            self._host.layer.resend(waiting.data, waiting.destination)
            waiting.interval_s = min(2 * waiting.interval_s, self._host.timing.t2_s)
            self._host.timers.set((self, CallTimer.RESEND_2XX), now + waiting.interval_s)
        elif timer is CallTimer.NO_ACK:
            self._stop_2xx()
            if self._move(CallEvent.ACK_TIMEOUT) is not None:
                self._end("network", 408, "no ACK to our 200")
                self._send_bye(now)
        elif timer is CallTimer.RING and self._ringing is not None and self.state is CallState.RINGING:
            self.ring(now, *self._ringing)
        elif timer is CallTimer.NO_ANSWER and self._move(CallEvent.NO_ANSWER) is not None:
            if self.role is Role.UAS:
                self._send_response(self._invite_transaction(), self.request, 480, now)
            self._end("local", 408, "nobody answered")
            if self.state is CallState.CANCELLING:
                self._send_cancel(now)
            elif self.state is CallState.TERMINATED:
                self._close()
        elif timer is CallTimer.GIVE_UP and self._move(CallEvent.GIVE_UP) is not None:
            self._host.layer.abandon(self._invite_transaction())
            self._close()

    def _on_provisional(self, response: Response, now: float) -> None:
        before = self.state
        if self._move(CallEvent.PROVISIONAL) is None:
            return
        if before is CallState.CANCEL_WAITS:
            self._send_cancel(now)
            return
        tag = response.to.tag
        if tag and response.status > 100:
            self._fork(response, tag)
        self._host.emit(Progress(self, response.status, response.body or None))

    def _on_success(self, response: Response, now: float) -> None:
        """ACK every 2xx; keep the first dialog, end the dialogs of other branches (§13.2.2.4)."""
        tag = response.to.tag or ""
        if tag in self._acks:
            self._host.layer.resend(*self._acks[tag])
            return
        dialog = self._fork(response, tag, confirmed=True)
        if dialog is None:
            return
        destination = self._host.locate(dialog, self.source)
        ack = dialog.request("ACK", self._host.new_via(destination), self.request.cseq.number)
        self._acks[tag] = (ack.encode(), destination)
        self._host.layer.send(*self._acks[tag])
        winner = self._move(CallEvent.SUCCESS) is not None
        if winner:
            self.dialog = dialog
            self._host.timers.cancel((self, CallTimer.NO_ANSWER))
            self._host.timers.cancel((self, CallTimer.GIVE_UP))
        if winner and self.state is CallState.CONFIRMED:
            self._host.emit(Answered(self, response.body or None))
        elif winner:
            self._send_bye(now)
        else:
            self._losers.add(self._send_in_dialog(dialog, "BYE", now))

    def _fork(self, response: Response, tag: str, *, confirmed: bool = False) -> Dialog | None:
        """The dialog of this branch, made where it is new. A 2xx has the last word on routes and target."""
        dialog = self._forks.get(tag)
        if dialog is not None and not confirmed:
            return dialog
        if dialog is None and len(self._forks) >= MAX_FORKS:
            return None
        try:
            fresh = Dialog.for_uac(self.request, response)
        except RemoteSipError:
            return dialog
        if dialog is not None:
            fresh.remote_cseq = dialog.remote_cseq
        self._forks[tag] = fresh
        if self.dialog is None or self.dialog is dialog:
            self.dialog = fresh
        if self.state is not CallState.TERMINATED:
            self._host.remember(fresh, self)
        return fresh

    # --- sending -----------------------------------------------------------------------------------------------

    def _invite_transaction(self) -> Transaction:
        if self._invite is None:
            raise LocalSipError("the call has no INVITE to answer")
        return self._invite

    def _dialog_of(self, request: Request) -> Dialog:
        dialog = self._forks.get(request.from_.tag or "") or self.dialog
        if dialog is None:
            raise RemoteSipError("no such dialog", status_hint=481)
        return dialog

    def _send_response(
        self,
        transaction: Transaction,
        request: Request,
        status: int,
        now: float,
        reason: str = "",
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
    ) -> Response:
        response = make_response(request, status, reason, self.local_tag if status > 100 else "")
        if status > 100 and request.method == "INVITE" and status < 300:
            response.headers.set_all("record-route", request.headers.get_all("record-route"))
        contact = request.method == "INVITE" and 100 < status < 300
        self._host.sign(response, transaction.destination, contact=contact)
        for name, value in headers:
            response.headers.add(name, value)
        if body:
            response.headers.set("content-type", "application/sdp")
            response.body = body
        transaction.respond(status, response.encode(), now)
        return response

    def _send_2xx(self, transaction: Transaction, request: Request, body: bytes, now: float, *, initial: bool) -> None:
        response = self._send_response(transaction, request, 200, now, body=body)
        t1 = self._host.timing.t1_s
        self._unacknowledged = _Unacknowledged(
            request.cseq.number, response.encode(), transaction.destination, t1, initial
        )
        if not transaction.reliable:
            self._host.timers.set((self, CallTimer.RESEND_2XX), now + t1)
        self._host.timers.set((self, CallTimer.NO_ACK), now + 64 * t1)

    def _stop_2xx(self) -> None:
        self._unacknowledged = None
        self._host.timers.cancel((self, CallTimer.RESEND_2XX))
        self._host.timers.cancel((self, CallTimer.NO_ACK))

    def _send_cancel(self, now: float) -> None:
        """CANCEL our INVITE (§9.1). Called once, after a provisional response."""
        invite = self.request
        headers = Headers([("via", str(invite.via)), ("max-forwards", "70")])
        headers.set_all("route", invite.headers.get_all("route"))
        headers.add("from", invite.headers.get("from") or "")
        headers.add("to", invite.headers.get("to") or "")
        headers.add("call-id", invite.call_id)
        headers.add("cseq", f"{invite.cseq.number} CANCEL")
        self._host.timers.cancel((self, CallTimer.NO_ANSWER))
        self._host.timers.set((self, CallTimer.GIVE_UP), now + 64 * self._host.timing.t1_s)
        self._host.layer.open_client(Request("CANCEL", invite.uri, headers), self.source, self, now)

    def _send_bye(self, now: float, reason: str = "") -> None:
        if self.dialog is None:
            raise LocalSipError("no dialog to end")
        headers = [("Reason", f'SIP;cause=200;text="{_quotable(reason)}"')] if reason else []
        self._invite = self._invite if self.role is Role.UAC else None
        self._send_in_dialog(self.dialog, "BYE", now, headers)

    def _send_in_dialog(
        self, dialog: Dialog, method: str, now: float, headers: Iterable[tuple[str, str]] = ()
    ) -> Transaction:
        destination = self._host.locate(dialog, self.source)
        request = dialog.request(method, self._host.new_via(destination))
        self._host.sign(request, destination, contact=False)
        for name, value in headers:
            request.headers.add(name, value)
        return self._host.layer.open_client(request, destination, self, now)

    # --- ending --------------------------------------------------------------------------------------------------

    def _bye_done(self, transaction: Transaction) -> None:
        if transaction in self._losers:
            self._losers.discard(transaction)
        elif transaction.key[-1] == "BYE" and transaction.kind is Kind.CLIENT and self._move(CallEvent.BYE_DONE):
            self._close()

    def _move(self, event: CallEvent) -> CallState | None:
        """Take the step of the table; None where the event changes nothing now."""
        table = UAS_TABLE if self.role is Role.UAS else UAC_TABLE
        state = table.get((self.state, event))
        if state is not None:
            self.state = state
        return state

    def _move_local(self, event: CallEvent) -> None:
        if self._move(event) is None:
            raise LocalSipError(f"cannot {event} while the call is {self.state}")

    def _end(self, by: str, status: int, reason: str) -> None:
        if not self._ended:
            self._ended = True
            self._host.emit(CallEnded(self, by, status, reason))

    def _close(self) -> None:
        for timer in CallTimer:
            self._host.timers.cancel((self, timer))
        self._unacknowledged = None
        dialogs = [*self._forks.values(), *([self.dialog] if self.dialog is not None else [])]
        self._host.forget(self, dialogs)
        # Transactions live for 32 s more to absorb what is repeated; they need nothing of the call for that.
        for transaction in (self._invite, self._reinvite):
            if transaction is not None and self.role is Role.UAS:
                transaction.owner = None
        self._host.emit(CallClosed(self))


def _quotable(text: str) -> str:
    return "".join(c for c in text[:100] if c.isprintable() and c not in '"\\')
