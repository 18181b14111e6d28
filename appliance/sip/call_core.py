"""What every part of a call builds on: who the two sides are, sending within their dialog, and deadlines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from appliance.sip.call_state import CallTimer, Role
from appliance.sip.dialog import Dialog, ack_of_refusal
from appliance.sip.events import Event
from appliance.sip.headers import tokens
from appliance.sip.message import Headers, Request, Response, make_response
from appliance.sip.multipart import SDP
from appliance.sip.timers import TimerQueue
from appliance.sip.transaction import Timing, Transaction
from appliance.sip.transaction_layer import TimerKey, TransactionLayer
from appliance.sip.uri import Peer

if TYPE_CHECKING:
    from appliance.sip.call import Call

MAX_ALLOWS = 64

_TARGETED = frozenset(("INVITE", "UPDATE", "REFER", "NOTIFY"))
"""Methods whose messages carry Contact: they make or move a dialog's target."""


class CallHost(Protocol):
    """What a call needs of its user agent."""

    layer: TransactionLayer
    timers: TimerQueue[TimerKey]
    timing: Timing

    def emit(self, event: Event) -> None: ...
    def new_token(self) -> str: ...
    def new_via(self, destination: Peer) -> str: ...
    def sign(self, message: Request | Response, destination: Peer, *, contact: bool) -> None: ...
    def locate(self, dialog: Dialog, fallback: Peer) -> Peer: ...
    def remember(self, dialog: Dialog, call: Call) -> None: ...
    def forget(self, call: Call, dialogs: Iterable[Dialog]) -> None: ...
    def forget_dialogs(self, dialogs: Iterable[Dialog]) -> None: ...
    def find_call(self, call_id: str, local_tag: str, remote_tag: str) -> Call | None: ...

    def authorize(self, request: Request, response: Response, destination: Peer) -> list[tuple[str, str]] | None:
        """The headers with which a request refused with 401 or 407 may succeed; None where there are none."""
        ...

    def redirect(self, call: Call, response: Response) -> tuple[str, Peer] | None:
        """Request-URI and destination to try after a 3xx; None where the call is to fail."""
        ...


class CallCore(ABC):
    """The part of :class:`~appliance.sip.call.Call` that speaks; see there for the attributes."""

    def __init__(self, host: CallHost, role: Role, request: Request, source: Peer) -> None:
        self.host = host
        self.role = role
        self.request = request
        self.source = source
        self.local_tag = ""
        self.remote_allows: frozenset[str] = frozenset()

    @property
    def call_id(self) -> str:
        return self.request.call_id

    @abstractmethod
    def on_response(self, transaction: Transaction, response: Response, now: float) -> None: ...

    @abstractmethod
    def on_timeout(self, transaction: Transaction, now: float) -> None: ...

    def set_timer(self, timer: CallTimer, when: float) -> None:
        """Let a deadline of this call fall due at ``when``."""
        self.host.timers.set((self, timer), when)

    def cancel_timer(self, timer: CallTimer) -> None:
        """Forget a deadline of this call."""
        self.host.timers.cancel((self, timer))

    def note_allow(self, message: Request | Response) -> None:
        """Take over what the peer says it can do."""
        if "allow" in message.headers:
            self.remote_allows = frozenset(tokens(message.headers.get_all("allow"))[:MAX_ALLOWS])

    def respond(
        self,
        transaction: Transaction,
        request: Request,
        status: int,
        now: float,
        reason: str = "",
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
    ) -> Response:
        """Answer a request of the peer's."""
        response = make_response(request, status, reason, self.local_tag if status > 100 else "")
        makes_dialog = request.method in _TARGETED and 100 < status < 300
        if makes_dialog and request.method == "INVITE":
            response.headers.set_all("record-route", request.headers.get_all("record-route"))
        self.host.sign(response, transaction.destination, contact=makes_dialog)
        for name, value in headers:
            response.headers.add(name, value)
        if body:
            response.headers.set("content-type", SDP)
            response.body = body
        transaction.respond(status, response.encode(), now)
        return response

    def send_in_dialog(
        self,
        dialog: Dialog,
        method: str,
        now: float,
        headers: Iterable[tuple[str, str]] = (),
        *,
        body: bytes = b"",
        content_type: str = "",
        credentials: Iterable[tuple[str, str]] = (),
    ) -> Transaction:
        """Send a request in a dialog of this call; ``content_type`` empty means SDP."""
        destination = self.host.locate(dialog, self.source)
        request = dialog.request(method, self.host.new_via(destination))
        self.host.sign(request, destination, contact=method in _TARGETED)
        for name, value in headers:
            request.headers.add(name, value)
        replace_headers(request.headers, credentials)
        if body:
            request.headers.set("content-type", content_type or SDP)
            request.body = body
        make_ack = (lambda response: ack_of_refusal(request, response)) if method == "INVITE" else None
        return self.host.layer.open_client(request, destination, self, now, make_ack)

    def send_ack(self, dialog: Dialog, invite: Request, body: bytes) -> bytes:
        """Acknowledge a 2xx to an INVITE of ours; the bytes, to send them again when the 2xx comes again."""
        destination = self.host.locate(dialog, self.source)
        ack = dialog.request("ACK", self.host.new_via(destination), invite.cseq.number)
        for name in ("authorization", "proxy-authorization"):
            ack.headers.set_all(name, invite.headers.get_all(name))
        if body:
            ack.headers.set("content-type", SDP)
            ack.body = body
        data = ack.encode()
        self.host.layer.send(data, destination)
        return data


def replace_headers(headers: Headers, lines: Iterable[tuple[str, str]]) -> None:
    """Put these lines in place of all of their names."""
    kept = list(lines)
    for name in {name for name, _ in kept}:
        headers.set_all(name, [])
    for name, value in kept:
        headers.add(name, value)
