"""One call: an INVITE, the dialog it makes, and the BYE that ends it (RFC 3261 §13-§15).

The tables of :mod:`appliance.sip.call_state` say which state follows which event, for calls to us and calls from us.
What happens inside an answered call is its parts' business: ``queue`` sends our requests one after another, ``offers``
takes the peer's changes of the session, ``session`` counts its age, ``transfers`` are REFERs. Before the answer,
``client`` follows the branches of an INVITE of ours, and ``early`` sends reliable provisional responses to the peer's.
"""

from __future__ import annotations

from collections.abc import Iterable

from appliance.errors import LocalSipError, RemoteSipError
from appliance.sip.call_core import CallCore, CallHost
from appliance.sip.call_state import UAC_TABLE, UAS_TABLE, CallEvent, CallOptions, CallState, CallTimer, Role
from appliance.sip.dialog import Dialog
from appliance.sip.events import CallClosed, CallEnded, IncomingCall, InfoReceived
from appliance.sip.headers import NameAddr
from appliance.sip.in_dialog import InDialog, Outgoing, Purpose, may_update_early
from appliance.sip.invite_client import InviteClient
from appliance.sip.message import Request, Response, make_response
from appliance.sip.offers import PeerOffers
from appliance.sip.outside import MAX_TRIES, again
from appliance.sip.refer import Replaces, Transfers, replaced_call
from appliance.sip.reliable import ReliableSender, requires_reliable, wants_reliable
from appliance.sip.session_timer import SessionTimer
from appliance.sip.transaction import Kind, Transaction
from appliance.sip.uri import Peer

RING_REFRESH_S = 60.0
"""A ringing UAS repeats its 180 this often, so that proxies on the way do not give up (§13.3.1.1)."""


class Call(CallCore):
    """One INVITE session, in either role. Made by the user agent only.

    Attributes:
        request: the INVITE that began it.
        source: where the peer's signalling came from (UAS) or ours goes to (UAC).
        dialog: the confirmed or early dialog; None for a call of ours before the first tagged response.
        remote_allows: the methods of the peer's latest Allow header; empty while it has named none.
        replaces: the call of ours that this one takes the place of once it is accepted.
        redirects: the targets tried, for whoever bounds 3xx.
        local_sdp: our side of the session as agreed last, which a refresh repeats.
    """

    def __init__(
        self, host: CallHost, role: Role, request: Request, source: Peer, options: CallOptions | None = None
    ) -> None:
        super().__init__(host, role, request, source)
        self.options = options or CallOptions()
        self.state = CallState.INVITED if role is Role.UAS else CallState.CALLING
        self.dialog: Dialog | None = None
        self.replaces: Call | None = None
        self.redirects: set[str] = set()
        self.local_sdp = request.body if role is Role.UAC else b""
        self.session = SessionTimer(self.options.session_expires_s, self.options.min_se_s)
        self.queue = InDialog()
        self.offers = PeerOffers()
        self.transfers = Transfers()
        self.early = ReliableSender()
        self.client = InviteClient()
        self._invite: Transaction | None = None
        self._ringing: tuple[int, bytes] | None = None
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether :class:`CallEnded` has been told."""
        return self._ended

    @property
    def local_uri(self) -> str:
        """Our address in this call."""
        if self.dialog is not None:
            return NameAddr.parse(self.dialog.local_party).uri
        return self.request.from_.uri if self.role is Role.UAC else self.request.to.uri

    @property
    def sdp_agreed(self) -> bool:
        """Whether the first offer has had its answer, so that there may be another."""
        if self.state is CallState.CONFIRMED:
            return not self.client.owes_ack
        if self.state is CallState.ACCEPTED:
            return bool(self.request.sdp)
        return self.early.confirmed_body or self.client.sdp_agreed_early

    def may_offer(self, offers: bool) -> bool:
        """Whether a re-INVITE or UPDATE may leave now; ``offers`` says whether it carries or asks for SDP."""
        if self._ended or self.offers.waiting is not None:
            return False
        if self.state is CallState.CONFIRMED:
            return self.offers.unacknowledged is None and not self.client.owes_ack
        return may_update_early(self.role, self.state, confirmed_sdp=self.sdp_agreed, offers=offers)

    # --- beginning, by the user agent -------------------------------------------------------------------------

    def begin_uas(self, transaction: Transaction, dialog: Dialog, ring_timeout_s: float, now: float) -> bool:
        """Take over a new INVITE, answer it 100 and tell the application; false where it got 422 instead.

        Raises:
            RemoteSipError: where it must be refused otherwise. Nothing is kept of a refused one.
        """
        self.local_tag = dialog.local_tag
        self.replaces = replaced_call(self.request, self.host.find_call)
        if self.offers.refused_interval(self, transaction, self.request, now):
            return False
        self.note_allow(self.request)
        self.set_timer(CallTimer.NO_ANSWER, now + ring_timeout_s)
        self._invite = transaction
        self.dialog = dialog
        transaction.owner = self
        self.host.remember(dialog, self)
        transaction.respond(100, make_response(self.request, 100).encode(), now)
        self.host.emit(IncomingCall(self, self.request, self.request.sdp or None, self.replaces))
        return True

    def begin_uac(self, ring_timeout_s: float, now: float) -> None:
        """Send our INVITE.

        Raises:
            LocalSipError: where it cannot be sent as it is; nothing is kept then.
        """
        self.local_tag = self.request.from_.tag or ""
        if self.options.reliable == "required":
            self.request.headers.add("require", "100rel")
        self.client.send(self, now)
        self.set_timer(CallTimer.NO_ANSWER, now + ring_timeout_s)

    # --- what the application does: the call itself -------------------------------------------------------------

    def ring(self, now: float, status: int = 180, body: bytes = b"") -> None:
        """Send a provisional response (180, or 183 with SDP for early media).

        It is sent reliably where the peer insists, or can take that and it carries SDP; then it may wait for the
        confirmation of an earlier one.

        Raises:
            LocalSipError: where the call is past ringing.
        """
        self._move_local(CallEvent.RING)
        self._ringing = (status, body)
        self.set_timer(CallTimer.RING, now + RING_REFRESH_S)
        wanted = self.options.reliable != "off" and wants_reliable(self.request) and bool(body)
        if not wanted and not requires_reliable(self.request):
            self.respond(self._invite_transaction(), self.request, status, now, body=body)
        elif self.early.under_way is not None:
            self.early.waiting.append((status, body))
        else:
            self.early.send(self, self._invite_transaction(), status, body, now)

    def accept(self, body: bytes, now: float) -> None:
        """Answer what waits with 200 and this SDP: the re-INVITE or UPDATE, else the INVITE.

        The 200 to the INVITE waits for the confirmation of a reliable provisional response; SDP that the peer has
        already confirmed with one is not sent again.

        Raises:
            LocalSipError: where nothing waits for an answer.
        """
        if self.offers.waiting is not None:
            self.local_sdp = body
            self.offers.accept(self, body, now)
            return
        if self.early.under_way is not None:
            if (self.state, CallEvent.ACCEPT) not in UAS_TABLE or self.early.deferred_answer is not None:
                raise LocalSipError(f"cannot {CallEvent.ACCEPT} while the call is {self.state}")
            self.early.deferred_answer = body
            return
        self.accept_invite(body, now)

    def accept_invite(self, body: bytes, now: float) -> None:
        """Send the 200 to the INVITE. Raises LocalSipError where it has been answered."""
        transaction = self._invite_transaction()
        self._move_local(CallEvent.ACCEPT)
        for timer in (CallTimer.RING, CallTimer.NO_ANSWER):
            self.cancel_timer(timer)
        if self.early.confirmed_body:
            body = b""
        self.local_sdp = body or self.local_sdp
        self.offers.send_2xx(self, transaction, self.request, body, now, initial=True)
        self.session.restart(self, now)
        if self.replaces is not None:
            self.replaces.hangup(now, "replaced")
            self.replaces = None

    def reject(self, status: int, now: float, reason: str = "", headers: Iterable[tuple[str, str]] = ()) -> None:
        """Refuse the INVITE with a final response from 300 to 699.

        Raises:
            LocalSipError: where it has been answered already, or the status is not final.
        """
        if not 300 <= status <= 699:
            raise LocalSipError(f"{status} does not refuse a call; use 300 to 699")
        self._move_local(CallEvent.REFUSE)
        response = self.respond(self._invite_transaction(), self.request, status, now, reason, headers)
        self._end("local", status, response.reason, now)
        self._close()

    def hangup(self, now: float, reason: str = "") -> None:
        """End the call however it stands: 480, CANCEL or BYE. Does nothing where it has ended."""
        if self._ended:
            return
        if self.state in (CallState.INVITED, CallState.RINGING):
            self.reject(480, now, reason)
            return
        if self._move(CallEvent.HANGUP) is None:
            return
        self._end("local", 200, reason or "hung up", now)
        if self.state is CallState.ENDING:
            self.send_bye(now, reason)
        elif self.role is Role.UAC:
            self.client.cancel(self, now)

    # --- what the application does inside the call ----------------------------------------------------------------

    def reoffer(self, body: bytes, now: float) -> None:
        """Send a re-INVITE with this offer (empty: let the peer offer) as soon as the rules allow one.

        :class:`ReofferAnswered` or :class:`ReofferFailed` follows, unless the call ends first.

        Raises:
            LocalSipError: where the call is not answered, or an offer of ours is not settled yet.
        """
        if self.state not in (CallState.CONFIRMED, CallState.ACCEPTED):
            raise LocalSipError(f"cannot send a re-INVITE while the call is {self.state}")
        self._submit_offer("INVITE", body, now)

    def update(self, body: bytes | None, now: float) -> None:
        """Send an UPDATE with this offer, or without one; also before the call is answered (RFC 3311).

        Raises:
            LocalSipError: where the rules forbid it now, or an offer of ours is not settled yet.
        """
        answered = self.state in (CallState.CONFIRMED, CallState.ACCEPTED)
        if not answered and not self.may_offer(bool(body)):
            raise LocalSipError(f"cannot send an UPDATE while the call is {self.state}")
        self._submit_offer("UPDATE", body or b"", now)

    def _submit_offer(self, method: str, body: bytes, now: float) -> None:
        if self.queue.waits_for(Purpose.OFFER):
            raise LocalSipError("an offer of ours is not settled yet; wait for ReofferAnswered or ReofferFailed")
        self.queue.submit(self, Outgoing(Purpose.OFFER, method, body), now)

    def acknowledge(self, body: bytes, now: float) -> None:
        """Answer the offer of an event that said ``needs_answer``: in the PRACK or ACK that waits for it.

        Raises:
            LocalSipError: where nothing waits for an answer.
        """
        if not (self.client.acknowledge(self, body, now) or self.queue.acknowledge(self, body, now)):
            raise LocalSipError("no offer of the peer's waits for an answer")
        self.local_sdp = body or self.local_sdp

    def refuse_reoffer(self, status: int, now: float, reason: str = "") -> None:
        """Refuse the re-INVITE or UPDATE that is waiting; the call goes on as it was.

        Raises:
            LocalSipError: where none waits.
        """
        self.offers.refuse(self, status, now, reason)

    def info(self, content_type: str, body: bytes, now: float) -> None:
        """Send an INFO; :class:`InfoAnswered` follows. Several leave one after another.

        Raises:
            LocalSipError: where the call is not answered, or too many wait.
        """
        if self.state not in (CallState.CONFIRMED, CallState.ACCEPTED):
            raise LocalSipError(f"cannot send an INFO while the call is {self.state}")
        self.queue.submit(self, Outgoing(Purpose.INFO, "INFO", body, content_type), now)

    def refer(self, target: str, now: float, *, replaces: Call | str | None = None, referred_by: str = "") -> None:
        """Ask the peer to call ``target``, in place of ``replaces`` where that is given (attended transfer).

        :class:`ReferProgress` follows as the peer reports, and :class:`TransferDone` once. The call stays up.

        Raises:
            LocalSipError: where the call is not answered, or another transfer of it is being tried.
        """
        taken = Replaces.parse(replaces) if isinstance(replaces, str) and replaces else None
        if isinstance(replaces, Call):
            taken = replaces.as_replaced()
        self.transfers.send(self, target, taken, referred_by, now)

    def as_replaced(self) -> Replaces:
        """What an INVITE to this call's peer must say to take this call's place.

        Raises:
            LocalSipError: where there is no dialog yet.
        """
        if self.dialog is None:
            raise LocalSipError("a call without a dialog cannot be replaced")
        return Replaces(self.call_id, self.dialog.remote_tag, self.dialog.local_tag)

    def refer_accept(self, now: float) -> None:
        """Agree to the peer's REFER; report with :meth:`refer_notify`. Raises LocalSipError where none waits."""
        self.transfers.accept(self, now)

    def refer_refuse(self, status: int, now: float) -> None:
        """Refuse the peer's REFER. Raises LocalSipError where none waits."""
        self.transfers.refuse(self, status, now)

    def refer_notify(self, status: int, now: float, reason: str = "") -> None:
        """Report the status of the call that the peer asked for; from 200 it is the last report.

        Raises:
            LocalSipError: where no accepted REFER waits for reports.
        """
        self.transfers.notify(self, status, now, reason)

    # --- requests from the peer, by the user agent -----------------------------------------------------------

    def on_cancel(self, invite: Transaction, now: float) -> None:
        """The peer took back an INVITE. The CANCEL itself is answered by the user agent."""
        if self.offers.on_cancel(self, invite, now) or invite is not self._invite:
            return
        if self._move(CallEvent.CANCELLED) is not None:
            self.respond(self._invite_transaction(), self.request, 487, now)
            self._end("remote", 487, "cancelled", now)
            self._close()

    def on_ack(self, request: Request, now: float) -> None:
        """An ACK in this dialog. Others than the one waited for are stragglers."""
        first = self.offers.on_ack(self, request)
        if first is None:
            return
        if first:
            self._move(CallEvent.ACKED)
            if self.state is CallState.ENDING:
                self.send_bye(now)
                return
        self.offers.confirmed(self, request, now)

    def on_request(self, transaction: Transaction, request: Request, now: float) -> None:
        """A request in this dialog other than ACK and CANCEL, of a method we allow.

        Raises:
            RemoteSipError: with the status to answer it with.
        """
        dialog = self.client.forks.get(request.from_.tag or "") or self.dialog
        if dialog is None:
            raise RemoteSipError("no such dialog", status_hint=481)
        if self.client.answered and dialog is not self.dialog:
            self._on_request_of_loser(transaction, request, dialog, now)
            return
        dialog.accept(request)
        method = request.method
        if method == "BYE":
            self._on_bye(transaction, request, now)
        elif method == "INVITE":
            self.note_allow(request)
            self.offers.on_reinvite(self, transaction, request, now)
        elif method == "UPDATE":
            self.note_allow(request)
            self.offers.on_update(self, transaction, request, now)
        elif method == "PRACK":
            self.early.on_prack(self, transaction, request, now)
        elif method == "INFO":
            self._on_info(transaction, request, now)
        elif self._ended:
            raise RemoteSipError("the call is over", status_hint=481)
        elif method == "REFER":
            self.transfers.on_refer(self, transaction, request, now)
        elif method == "NOTIFY":
            self.transfers.on_notify(self, request)
            self.respond(transaction, request, 200, now)
        else:
            self.respond(transaction, request, 200, now)

    def _on_request_of_loser(self, transaction: Transaction, request: Request, dialog: Dialog, now: float) -> None:
        """A branch that another one was faster than may end itself; what else it wants is not for this call."""
        if request.method != "BYE":
            raise RemoteSipError("another branch has answered this call", status_hint=481)
        self.host.forget_dialogs([dialog])
        self.respond(transaction, request, 200, now)

    def _on_info(self, transaction: Transaction, request: Request, now: float) -> None:
        if "info-package" in request.headers:
            raise RemoteSipError("no INFO packages here", status_hint=469)
        self.respond(transaction, request, 200, now)
        if not self._ended:
            self.host.emit(InfoReceived(self, request.headers.get("content-type") or "", request.body))

    def _on_bye(self, transaction: Transaction, request: Request, now: float) -> None:
        self.respond(transaction, request, 200, now)
        before = self.state
        if self._move(CallEvent.BYE_RECEIVED) is None:
            return
        self.offers.stop_2xx(self)
        if before in (CallState.INVITED, CallState.RINGING):
            self.respond(self._invite_transaction(), self.request, 487, now)
        self._end("remote", 200, "BYE", now)
        if self.state is CallState.CANCELLING and before is CallState.PROCEEDING:
            self.client.cancel(self, now)
        if self.state is CallState.TERMINATED:
            self._close()

    # --- responses to our requests, and deadlines ----------------------------------------------------------------

    def on_response(self, transaction: Transaction, response: Response, now: float) -> None:
        """A response to a request of ours, passed up by its transaction."""
        if transaction is self.client.transaction:
            if response.status < 200:
                self.client.on_provisional(self, response, now)
            elif response.status < 300:
                self.client.on_success(self, response, now)
            elif not self.client.on_failure(self, response, now) and self._move(CallEvent.FAILURE) is not None:
                self._end("remote", response.status, response.reason, now)
                self._close()
        elif not self.queue.on_response(self, transaction, response, now) and response.status >= 200:
            challenged = response.status in (401, 407) and self._authorized(transaction, response, now)
            if response.cseq.method == "BYE" and not challenged:
                self._bye_done(transaction)

    def on_timeout(self, transaction: Transaction, now: float) -> None:
        """A transaction of ours was never answered, or our refusal of an INVITE never acknowledged."""
        if transaction is self.client.transaction:
            if self._move(CallEvent.FAILURE) is not None:
                self._end("network", 408, "no answer to our INVITE", now)
                self._close()
        elif not self.queue.on_timeout(self, transaction, now):
            self._bye_done(transaction)

    def _authorized(self, transaction: Transaction, response: Response, now: float) -> bool:
        """Send a BYE or PRACK that was challenged again, with credentials."""
        request = transaction.request
        dialog = self.client.forks.get(response.to.tag or "") or self.dialog
        if request is None or dialog is None or request.method not in ("BYE", "PRACK"):
            return False
        if transaction.tries >= MAX_TRIES:
            return False
        credentials = self.host.authorize(request, response, transaction.destination)
        if credentials is None:
            return False
        dialog.local_cseq += 1
        via = self.host.new_via(transaction.destination)
        repeated = again(request, request.uri, via, dialog.local_cseq, credentials)
        self.host.layer.open_client(repeated, transaction.destination, self, now).tries = transaction.tries + 1
        return True

    def on_timer(self, timer: CallTimer, now: float) -> None:
        """A deadline of this call fell due."""
        if timer is CallTimer.RESEND_2XX:
            self.offers.resend_2xx(self, now)
        elif timer is CallTimer.NO_ACK:
            self.offers.stop_2xx(self)
            self._give_up(408, "no ACK to our 200", now)
        elif timer is CallTimer.RING and self._ringing is not None and self.state is CallState.RINGING:
            status, body = self._ringing
            self.ring(now, status, b"" if self.early.confirmed_body else body)
        elif timer is CallTimer.NO_ANSWER:
            self._on_no_answer(now)
        elif timer is CallTimer.GIVE_UP and self._move(CallEvent.GIVE_UP) is not None:
            if self.client.transaction is not None:
                self.host.layer.abandon(self.client.transaction)
            self._close()
        elif timer is CallTimer.RESEND_1XX:
            self.early.resend(self, now)
        elif timer is CallTimer.NO_PRACK:
            self._on_no_prack(now)
        elif timer is CallTimer.NO_FINAL:
            self.queue.give_up(self, now)
        elif timer is CallTimer.TRY_AGAIN:
            self.queue.advance(self, now)
        elif timer is CallTimer.REFRESH:
            self.session.refresh(self, now)
        elif timer is CallTimer.EXPIRY:
            self._give_up(408, "the session expired", now)
        elif timer is CallTimer.REFER_WAITS:
            self.transfers.refuse_unanswered(self, now)
        elif timer is CallTimer.REFER_SILENT:
            self.transfers.on_silence(self)

    def _on_no_answer(self, now: float) -> None:
        if self._move(CallEvent.NO_ANSWER) is None:
            return
        if self.role is Role.UAS:
            self.respond(self._invite_transaction(), self.request, 480, now)
        self._end("local", 408, "nobody answered", now)
        if self.role is Role.UAC:
            self.client.cancel(self, now)
        else:
            self._close()

    def _on_no_prack(self, now: float) -> None:
        self.early.stop(self)
        if self._move(CallEvent.REFUSE) is not None:
            self.respond(self._invite_transaction(), self.request, 504, now)
            self._end("network", 504, "no PRACK to our provisional response", now)
            self._close()

    # --- what the parts of the call use ----------------------------------------------------------------------------

    def lost(self, status: int, reason: str, now: float) -> None:
        """The peer no longer knows the call, or is gone (RFC 3261 §12.2.1.2)."""
        self._give_up(status, reason, now)

    def send_bye(self, now: float, reason: str = "") -> None:
        """End the dialog."""
        if self.dialog is None:
            raise LocalSipError("no dialog to end")
        headers = [("Reason", f'SIP;cause=200;text="{_quotable(reason)}"')] if reason else []
        self.send_in_dialog(self.dialog, "BYE", now, headers)

    def _invite_transaction(self) -> Transaction:
        if self._invite is None:
            raise LocalSipError("the call has no INVITE to answer")
        return self._invite

    # --- ending --------------------------------------------------------------------------------------------------

    def _give_up(self, status: int, reason: str, now: float) -> None:
        if self._move(CallEvent.LOST) is not None:
            self._end("network", status, reason, now)
            self.send_bye(now, reason)

    def _bye_done(self, transaction: Transaction) -> None:
        if self.client.on_bye_done(transaction):
            return
        if transaction.key[-1] == "BYE" and transaction.kind is Kind.CLIENT and self._move(CallEvent.BYE_DONE):
            self._close()

    def move(self, event: CallEvent) -> CallState | None:
        """Take the step of the table; None where the event changes nothing now."""
        return self._move(event)

    def _move(self, event: CallEvent) -> CallState | None:
        table = UAS_TABLE if self.role is Role.UAS else UAC_TABLE
        state = table.get((self.state, event))
        if state is not None:
            self.state = state
        return state

    def _move_local(self, event: CallEvent) -> None:
        if self._move(event) is None:
            raise LocalSipError(f"cannot {event} while the call is {self.state}")

    def _end(self, by: str, status: int, reason: str, now: float) -> None:
        """The session is over: tell it once, and answer or drop what waited for something."""
        if self._ended:
            return
        self.offers.close(self, now)
        self.transfers.close(self, now)
        self._ended = True
        self.client.close(self, now)
        self.queue.close()
        self.early.stop(self)
        for timer in (CallTimer.REFRESH, CallTimer.EXPIRY, CallTimer.TRY_AGAIN, CallTimer.RING):
            self.cancel_timer(timer)
        self.host.emit(CallEnded(self, by, status, reason))

    def _close(self) -> None:
        for timer in CallTimer:
            self.cancel_timer(timer)
        self.queue.abandon(self)
        self.offers.unacknowledged = None
        self.replaces = None
        dialogs = [*self.client.forks.values(), *([self.dialog] if self.dialog is not None else [])]
        self.host.forget(self, dialogs)
        # Transactions live for 32 s more to absorb what is repeated; they need nothing of the call for that.
        if self._invite is not None:
            self._invite.owner = None
        self.host.emit(CallClosed(self))


def _quotable(text: str) -> str:
    return "".join(c for c in text[:100] if c.isprintable() and c not in '"\\')
