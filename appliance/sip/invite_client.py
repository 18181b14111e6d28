"""The calling side of an INVITE: its repetitions after a challenge, its branches, and what confirms their responses
(RFC 3261 §13.2.2, RFC 3262 §4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.errors import RemoteSipError
from appliance.sip.call_state import CallEvent, CallState, CallTimer
from appliance.sip.dialog import Dialog, ack_of_refusal, cancel_of
from appliance.sip.events import Answered, Progress
from appliance.sip.message import Response
from appliance.sip.outside import again
from appliance.sip.reliable import ReliableReceiver, requires_reliable
from appliance.sip.transaction import Transaction
from appliance.sip.uri import Peer

if TYPE_CHECKING:
    from appliance.sip.call import Call

MAX_FORKS = 16
"""Branches of one outgoing call that may ring; more are ignored until they answer."""

MAX_ANSWERS = 64
"""Branches of one outgoing call whose 2xx are acknowledged; more are ignored."""

MAX_INVITES = 6
"""How often one call's INVITE is sent anew after 401, 407, 422 and 3xx."""


class InviteClient:
    """What only a call of ours has. Its methods are given the call, as those of its siblings.

    Attributes:
        transaction: that of the latest INVITE.
        forks: the dialogs of its branches by the peer's tag.

    A session description in a reliable response settles the first offer of its branch; of those in responses after it
    nothing is taken over (RFC 3261 §13.2.1).
    """

    def __init__(self) -> None:
        self.transaction: Transaction | None = None
        self.forks: dict[str, Dialog] = {}
        self._heard = ReliableReceiver()
        self._agreed: set[str] = set()
        self._previews: dict[str, bytes] = {}
        self._acks: dict[str, bytes] = {}
        self._unsent_ack: Dialog | None = None
        self._unsent_prack: Response | None = None
        self._losers: set[Transaction] = set()
        self._sent = 0

    @property
    def answered(self) -> bool:
        """Whether a branch has answered with a 2xx; what the others send is not the call's any more."""
        return bool(self._acks) or self._unsent_ack is not None

    @property
    def sdp_agreed_early(self) -> bool:
        """Whether a branch has answered our offer, or we its, before the call is answered."""
        return bool(self._agreed) and self._unsent_prack is None

    @property
    def owes_ack(self) -> bool:
        """Whether a 2xx has brought an offer that the application has not answered yet."""
        return self._unsent_ack is not None

    def send(self, call: Call, now: float) -> None:
        """Send the call's INVITE."""
        request = call.request
        self._sent += 1
        for name in ("session-expires", "min-se"):
            request.headers.set_all(name, [])
        for name, value in call.session.ask():
            request.headers.add(name, value)
        self.transaction = call.host.layer.open_client(
            request, call.source, call, now, lambda response: ack_of_refusal(request, response)
        )

    def cancel(self, call: Call, now: float) -> None:
        """CANCEL our INVITE, if a provisional response has come so that it may be sent (RFC 3261 §9.1)."""
        call.cancel_timer(CallTimer.NO_ANSWER)
        call.set_timer(CallTimer.GIVE_UP, now + 64 * call.host.timing.t1_s)
        if call.state is CallState.CANCEL_WAITS:
            return
        way = self.transaction.destination if self.transaction is not None else call.source
        call.host.layer.open_client(cancel_of(call.request), way, call, now)

    # --- responses --------------------------------------------------------------------------------------------------

    def on_provisional(self, call: Call, response: Response, now: float) -> None:
        """A 1xx to our INVITE."""
        before = call.state
        if call.move(CallEvent.PROVISIONAL) is None:
            return
        if before is CallState.CANCEL_WAITS:
            self.cancel(call, now)
            return
        tag, sdp = response.to.tag, response.sdp
        needs_answer = False
        if tag and response.status > 100:
            call.note_allow(response)
            dialog = self._fork(call, response, tag)
            if tag in self._agreed:
                sdp = b""
            if dialog is not None and requires_reliable(response):
                if not self._heard.is_next(response):
                    return
                needs_answer = self._on_reliable(call, response, tag, now)
            if dialog is not None and sdp:
                self._previews[tag] = sdp
        call.host.emit(Progress(call, response.status, sdp or None, needs_answer))

    def _on_reliable(self, call: Call, response: Response, tag: str, now: float) -> bool:
        """Confirm a reliable response; whether that must wait for the answer to the offer in it."""
        first = bool(response.sdp) and tag not in self._agreed
        if first:
            self._agreed.add(tag)
        if first and not call.request.body and self._unsent_prack is None:
            self._unsent_prack = response
            return True
        self.send_prack(call, response, b"", now)
        return False

    def confirm_within(self, call: Call, response: Response, now: float) -> None:
        """Confirm a reliable provisional response to a re-INVITE."""
        if self._heard.is_next(response):
            self.send_prack(call, response, b"", now)

    def send_prack(self, call: Call, response: Response, body: bytes, now: float) -> None:
        """Confirm a reliable provisional response."""
        dialog = self.forks.get(response.to.tag or "") or call.dialog
        if dialog is not None:
            rack = f"{response.headers.get('rseq')} {response.cseq.number} {response.cseq.method}"
            call.send_in_dialog(dialog, "PRACK", now, [("RAck", rack)], body=body)

    def on_success(self, call: Call, response: Response, now: float) -> None:
        """ACK every 2xx; keep the first dialog, end the dialogs of other branches (RFC 3261 §13.2.2.4).

        A call answered with a Contact or Record-Route that no request can be sent to is ended as well.
        """
        tag = response.to.tag or ""
        if tag in self._acks:
            call.host.layer.resend(self._acks[tag], self._ack_way(call, self.forks[tag]))
            return
        if self._unsent_ack is not None and self._unsent_ack.remote_tag == tag:
            return
        if len(self._acks) >= MAX_ANSWERS:
            return
        usable = self._fork(call, response, tag, confirmed=True)
        dialog = usable or self._keep(call, Dialog.to_end(call.request, response), None)
        winner = call.move(CallEvent.SUCCESS) is not None
        confirmed = winner and call.state is CallState.CONFIRMED and usable is not None
        sdp = response.sdp if tag not in self._agreed else b""
        offered = confirmed and not call.request.body and bool(sdp)
        if offered:
            self._unsent_ack = dialog
        else:
            self._acks[tag] = call.send_ack(dialog, call.request, b"")
        if winner:
            call.dialog = dialog
            call.cancel_timer(CallTimer.NO_ANSWER)
            call.cancel_timer(CallTimer.GIVE_UP)
        if confirmed:
            call.session.agreed(call, response, now)
            call.host.emit(Answered(call, sdp or self._previews.get(tag), offered))
            call.queue.advance(call, now)
        elif winner and call.state is CallState.CONFIRMED:
            call.lost(502, "answered with a Contact or Record-Route that nothing can be sent to", now)
        elif winner:
            call.send_bye(now)
        else:
            self._losers.add(call.send_in_dialog(dialog, "BYE", now))

    def on_failure(self, call: Call, response: Response, now: float) -> bool:
        """A final refusal of our INVITE; true where it is sent again instead of ending the call."""
        if call.state not in (CallState.CALLING, CallState.PROCEEDING) or self._sent >= MAX_INVITES:
            return False
        status, uri, destination = response.status, call.request.uri, call.source
        credentials: list[tuple[str, str]] | None = None
        if status in (401, 407):
            credentials = call.host.authorize(call.request, response, call.source)
        elif status == 422 and call.session.refused(response):
            credentials = []
        elif 300 <= status < 400 and (target := call.host.redirect(call, response)) is not None:
            (uri, destination), credentials = target, []
        if credentials is None:
            return False
        call.move(CallEvent.RETRY)
        self._forget_branches(call)
        call.source = destination
        via, cseq = call.host.new_via(destination), call.request.cseq.number + 1
        call.request = again(call.request, uri, via, cseq, credentials)
        self.send(call, now)
        return True

    def on_bye_done(self, transaction: Transaction) -> bool:
        """Whether this was the BYE of a branch that lost."""
        known = transaction in self._losers
        self._losers.discard(transaction)
        return known

    def acknowledge(self, call: Call, body: bytes, now: float) -> bool:
        """Send the PRACK or ACK that waits for our answer; false where none does."""
        if self._unsent_prack is not None:
            response, self._unsent_prack = self._unsent_prack, None
            self.send_prack(call, response, body, now)
        elif self._unsent_ack is not None:
            dialog, self._unsent_ack = self._unsent_ack, None
            self._acks[dialog.remote_tag] = call.send_ack(dialog, call.request, body)
            call.queue.advance(call, now)
        else:
            return False
        return True

    def session_changed(self, tag: str) -> None:
        """An offer has been answered in this branch: what its provisional responses said no longer holds."""
        self._previews.pop(tag, None)

    def close(self, call: Call, now: float) -> None:
        """The session is over: an ACK that waited for an answer leaves without."""
        self._unsent_prack = None
        if self._unsent_ack is not None:
            self.acknowledge(call, b"", now)

    # --- branches -------------------------------------------------------------------------------------------------

    def _fork(self, call: Call, response: Response, tag: str, *, confirmed: bool = False) -> Dialog | None:
        """The dialog of this branch, made where it is new. A 2xx has the last word on routes and target."""
        dialog = self.forks.get(tag)
        if dialog is not None and not confirmed:
            return dialog
        if not confirmed and len(self.forks) >= MAX_FORKS:
            return None
        try:
            fresh = Dialog.for_uac(call.request, response)
        except RemoteSipError:
            return dialog
        return self._keep(call, fresh, dialog)

    def _keep(self, call: Call, fresh: Dialog, before: Dialog | None) -> Dialog:
        """Let a branch have this dialog in place of the one it had."""
        if before is not None:
            fresh.remote_cseq, fresh.local_cseq = before.remote_cseq, before.local_cseq
        self.forks[fresh.remote_tag] = fresh
        if call.dialog is None or call.dialog is before:
            call.dialog = fresh
        if call.state is not CallState.TERMINATED:
            call.host.remember(fresh, call)
        return fresh

    def _forget_branches(self, call: Call) -> None:
        """A new INVITE makes new dialogs."""
        call.host.forget_dialogs(self.forks.values())
        self.forks.clear()
        self._agreed.clear()
        self._previews.clear()
        self._unsent_prack = None
        call.dialog = None

    def _ack_way(self, call: Call, dialog: Dialog) -> Peer:
        return call.host.locate(dialog, call.source)
