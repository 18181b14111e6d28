"""Responses that are sent again until the peer confirms them: the 2xx to an INVITE (RFC 3261 §13.3.1.4) until its ACK,
and provisional responses (RFC 3262) until their PRACK.
"""

from __future__ import annotations

import zlib
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from appliance.errors import RemoteSipError
from appliance.sip.call_state import CallTimer
from appliance.sip.events import EarlyConfirmed
from appliance.sip.headers import is_number, tokens
from appliance.sip.message import Request, Response
from appliance.sip.transaction import Transaction
from appliance.sip.uri import Peer

if TYPE_CHECKING:
    from appliance.sip.call import Call

MAX_WAITING = 8
"""Provisional responses of one call that may wait for the PRACK of an earlier one; of more, the oldest are left out."""

LARGEST_RSEQ = 2**32 - 1


@dataclass(slots=True)
class Unacknowledged:
    """A 2xx to an INVITE on its way to the peer. ``initial`` where it answered the INVITE that began the call."""

    cseq: int
    data: bytes
    destination: Peer
    interval_s: float
    initial: bool


def wants_reliable(message: Request | Response) -> bool:
    """Whether the sender can take reliable provisional responses."""
    return any("100rel" in map(str.lower, tokens(message.headers.get_all(name))) for name in ("supported", "require"))


def requires_reliable(message: Request | Response) -> bool:
    """Whether the sender insists on them; in a response: whether it is one."""
    return "100rel" in map(str.lower, tokens(message.headers.get_all("require")))


@dataclass(slots=True)
class Provisional:
    """A reliable provisional response on its way to the peer."""

    rseq: int
    cseq: int
    data: bytes
    transaction: Transaction
    interval_s: float
    has_body: bool


@dataclass(slots=True)
class ReliableSender:
    """The called side: one response under way at a time, the others in order behind it (RFC 3262 §3).

    Attributes:
        under_way: the one not yet confirmed.
        waiting: (status, body) of those behind it.
        confirmed_body: whether a session description of ours has been sent and confirmed this way.
        deferred_answer: the body of a 2xx that has to wait until nothing is under way.
    """

    under_way: Provisional | None = None
    waiting: deque[tuple[int, bytes]] = field(default_factory=lambda: deque(maxlen=MAX_WAITING))
    confirmed_body: bool = False
    deferred_answer: bytes | None = None
    _last_rseq: int = 0

    def send(self, call: Call, transaction: Transaction, status: int, body: bytes, now: float) -> None:
        """Send a provisional response that the peer has to confirm."""
        rseq = self._next_rseq(zlib.crc32(call.host.new_token().encode()))
        headers = [("Require", "100rel"), ("RSeq", str(rseq))]
        response = call.respond(transaction, call.request, status, now, headers=headers, body=body)
        t1 = call.host.timing.t1_s
        self.under_way = Provisional(rseq, call.request.cseq.number, response.encode(), transaction, t1, bool(body))
        call.set_timer(CallTimer.RESEND_1XX, now + t1)
        call.set_timer(CallTimer.NO_PRACK, now + 64 * t1)

    def resend(self, call: Call, now: float) -> None:
        """The PRACK is late: twice the time until the next (§3, no upper bound)."""
        found = self.under_way
        if found is not None:
            call.host.layer.resend(found.data, found.transaction.destination)
            found.interval_s *= 2
            call.set_timer(CallTimer.RESEND_1XX, now + found.interval_s)

    def on_prack(self, call: Call, transaction: Transaction, request: Request, now: float) -> None:
        """Take a PRACK, and send what waited for it.

        Raises:
            RemoteSipError: 481 where it confirms nothing, 400 where RAck is broken.
        """
        rseq, cseq, method = parse_rack(request.headers.get("rack") or "")
        found = self.under_way
        if found is None or (found.rseq, found.cseq, "INVITE") != (rseq, cseq, method):
            raise RemoteSipError("this PRACK confirms nothing that is under way", status_hint=481)
        self.stop(call)
        answers = found.has_body and not self.confirmed_body and not call.request.sdp
        self.confirmed_body = self.confirmed_body or found.has_body
        if request.sdp and not answers and self.confirmed_body:
            call.offers.take(call, transaction, request)
        else:
            call.respond(transaction, request, 200, now)
            call.host.emit(EarlyConfirmed(call, request.sdp if answers and request.sdp else None))
        if call.ended:
            return
        if self.waiting:
            self.send(call, found.transaction, *self.waiting.popleft(), now)
        elif self.deferred_answer is not None:
            body, self.deferred_answer = self.deferred_answer, None
            call.accept_invite(body, now)
        else:
            call.queue.advance(call, now)

    def stop(self, call: Call) -> None:
        """Nothing is under way any more."""
        self.under_way = None
        call.cancel_timer(CallTimer.RESEND_1XX)
        call.cancel_timer(CallTimer.NO_PRACK)

    def _next_rseq(self, seed: int) -> int:
        """The number of the next response: the first at random in the lower half, then one more each (§3)."""
        self._last_rseq = self._last_rseq + 1 if self._last_rseq else 1 + seed % (2**31 - 1)
        return self._last_rseq


class ReliableReceiver:
    """The calling side: which provisional responses are new and in order (RFC 3262 §4)."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, int], int] = {}

    def is_next(self, response: Response) -> bool:
        """Whether this reliable response is the next of its dialog and INVITE.

        False for a repetition, for one that came too early (its turn comes when it is repeated), and for one without a
        usable RSeq.
        """
        text = response.headers.get("rseq") or ""
        if not is_number(text, LARGEST_RSEQ) or int(text) == 0:
            return False
        rseq = int(text)
        key = (response.to.tag or "", response.cseq.number)
        last = self._last.get(key)
        if last is not None and rseq != last + 1:
            return False
        self._last[key] = rseq
        return True


def parse_rack(text: str) -> tuple[int, int, str]:
    """(RSeq, CSeq number, method) of a RAck header.

    Raises:
        RemoteSipError: where it is broken.
    """
    parts = text.split()
    if len(parts) != 3 or not is_number(parts[0], LARGEST_RSEQ) or not is_number(parts[1], 2**31 - 1):
        raise RemoteSipError(f"a broken RAck: {text[:80]!r}")
    return int(parts[0]), int(parts[1]), parts[2]
