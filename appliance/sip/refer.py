"""Transfers: REFER, the NOTIFYs that report on it, and Replaces (RFC 3515, RFC 3891, RFC 3892, RFC 4488)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.errors import LocalSipError, RemoteSipError
from appliance.sip.call_state import CallState, CallTimer, Role
from appliance.sip.events import ReferProgress, ReferReceived, TransferDone
from appliance.sip.headers import NameAddr, is_number, parse_params, split_quoted, split_values
from appliance.sip.in_dialog import Outgoing, Purpose
from appliance.sip.message import Request, Response, reason_phrase
from appliance.sip.transaction import Transaction
from appliance.sip.uri import SipUri, scheme_of, unescape

if TYPE_CHECKING:
    from appliance.sip.call import Call

SIPFRAG = "message/sipfrag"

UNANSWERED_S = 10.0
"""A REFER that the application leaves alone this long is refused with 603."""

SILENT_S = 180.0
"""A transfer of which the peer reports no end this long is told as failed with 408."""

_HEADER_SAFE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.!~*'()")


@dataclass(frozen=True, slots=True)
class Replaces:
    """The call that an INVITE is to take the place of, as its receiver knows it (RFC 3891 §6.1).

    ``to_tag`` is the tag of whoever receives this header, ``from_tag`` that of the other side.
    """

    call_id: str
    to_tag: str
    from_tag: str
    early_only: bool = False

    @classmethod
    def parse(cls, text: str) -> Replaces:
        """Read the value.

        Raises:
            RemoteSipError: where a part is missing or comes twice.
        """
        call_id, *rest = split_quoted(text, ";")
        params = parse_params(rest)
        to_tag, from_tag = params.get("to-tag") or "", params.get("from-tag") or ""
        if not call_id or not to_tag or not from_tag or len(params) != len(rest):
            raise RemoteSipError(f"a broken Replaces: {text[:80]!r}")
        return cls(call_id, to_tag, from_tag, "early-only" in params)

    def __str__(self) -> str:
        early = ";early-only" if self.early_only else ""
        return f"{self.call_id};to-tag={self.to_tag};from-tag={self.from_tag}{early}"


def replaces_of(request: Request) -> Replaces | None:
    """The Replaces of an INVITE, None where it has none.

    Raises:
        RemoteSipError: where it is broken, or there are several (RFC 3891 §3).
    """
    lines = request.headers.get_all("replaces")
    if not lines:
        return None
    if len(split_values(lines)) > 1:
        raise RemoteSipError("an INVITE can take the place of one call only, and this has several Replaces")
    return Replaces.parse(lines[0])


def replaced_call(invite: Request, find_call: Callable[[str, str, str], Call | None]) -> Call | None:
    """The call that an INVITE asks to take the place of, None where it asks for none (RFC 3891 §3).

    Args:
        find_call: finds a call by Call-ID, our tag and the peer's.

    Raises:
        RemoteSipError: 481, 486 or 603 where that cannot be, 400 where Replaces is broken.
    """
    replaces = replaces_of(invite)
    if replaces is None:
        return None
    found = find_call(replaces.call_id, replaces.to_tag, replaces.from_tag)
    if found is None:
        raise RemoteSipError("there is no such call to replace", status_hint=481)
    if found.ended:
        raise RemoteSipError("the call to replace is over", status_hint=603)
    answered = found.state in (CallState.CONFIRMED, CallState.ACCEPTED)
    if answered and replaces.early_only:
        raise RemoteSipError("the call to replace has been answered", status_hint=486)
    if not answered and found.role is Role.UAS:
        raise RemoteSipError("a call that rings here cannot be replaced", status_hint=481)
    return found


def escape_header(text: str) -> str:
    """``text`` as the value of a header inside a URI (RFC 3261 §19.1.1)."""
    return "".join(c if c in _HEADER_SAFE else "".join(f"%{b:02X}" for b in c.encode("utf-8", "replace")) for c in text)


def refer_to(target: str, replaces: Replaces | None) -> str:
    """The value of Refer-To."""
    if replaces is None:
        return f"<{target}>"
    return f"<{target}{'&' if '?' in target else '?'}Replaces={escape_header(str(replaces))}>"


@dataclass(frozen=True, slots=True)
class Referral:
    """What a REFER asks for. ``target`` is the URI without headers; ``replaces`` the raw value, "" without."""

    target: str
    replaces: str
    referred_by: str
    wants_notify: bool


def referral_of(request: Request) -> Referral:
    """Read a REFER.

    Raises:
        RemoteSipError: 400 where Refer-To is missing, doubled or broken, or it or Referred-By holds what cannot stand
            in a header of ours; 416 where it is nothing that can be called.
    """
    values = split_values(request.headers.get_all("refer-to"))
    if len(values) != 1:
        raise RemoteSipError("a REFER needs one Refer-To")
    uri = NameAddr.parse(values[0]).uri
    if scheme_of(uri) not in ("sip", "sips", "tel"):
        raise RemoteSipError("cannot refer to this kind of URI", status_hint=416)
    bare, _, tail = uri.partition("?")
    SipUri.parse(bare)
    headers = _uri_headers(tail)
    method = SipUri.parse(bare).param("method") if scheme_of(uri) != "tel" else None
    if method is not None and method.upper() != "INVITE":
        raise RemoteSipError("a transfer can only ask for an INVITE", status_hint=403)
    replaces = headers.get("replaces", "")
    if replaces:
        Replaces.parse(replaces)
    by = " ".join((request.headers.get("referred-by") or "").split())
    if not (bare + replaces + by).isprintable() or " " in bare:
        raise RemoteSipError("what a REFER asks for holds control characters, or is not valid UTF-8")
    wants = (request.headers.get("refer-sub") or "true").partition(";")[0].strip().lower() != "false"
    return Referral(bare, replaces, by, wants)


def _uri_headers(tail: str) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for part in tail.split("&")[:16] if tail else []:
        name, _, value = part.partition("=")
        found[unescape(name).lower()] = unescape(value)
    return found


def sipfrag(status: int, reason: str = "") -> bytes:
    """The body of a NOTIFY that reports ``status`` (RFC 3515 §2.4.5)."""
    return f"SIP/2.0 {status} {reason or reason_phrase(status)}\r\n".encode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class Report:
    """What a NOTIFY says: the status of the referred call, 0 where it says none, and whether it is the last."""

    status: int
    final: bool


def report_of(request: Request) -> Report:
    """Read a NOTIFY about a REFER.

    Raises:
        RemoteSipError: 489 where it is about something else, 400 where it is broken.
    """
    event = (request.headers.get("event") or "").partition(";")[0].strip().lower()
    if event != "refer":
        raise RemoteSipError("only NOTIFYs about a REFER are taken", status_hint=489)
    state = request.headers.get("subscription-state") or ""  # peers older than RFC 3265 leave it out
    ended = state.partition(";")[0].strip().lower() == "terminated"
    status = 0
    if request.body:
        first = request.body.split(b"\n", 1)[0].decode("utf-8", "replace").split()
        if len(first) < 2 or first[0].upper() != "SIP/2.0" or not is_number(first[1], 699) or int(first[1]) < 100:
            raise RemoteSipError("the body of this NOTIFY is no SIP status line")
        status = int(first[1])
    return Report(status, ended or status >= 200)


@dataclass(slots=True)
class SentRefer:
    """A REFER of ours until its end is known."""

    accepted: bool = False


@dataclass(slots=True)
class ReceivedRefer:
    """A REFER of the peer's that was accepted. ``event`` is the Event header of its NOTIFYs."""

    event: str
    notify: bool


def without_subscription(response: Response) -> bool:
    """Whether the peer took our REFER but will not report on it (RFC 4488 §4)."""
    return (response.headers.get("refer-sub") or "").partition(";")[0].strip().lower() == "false"


class Transfers:
    """The REFERs of one call, ours and the peer's, one of each at a time."""

    def __init__(self) -> None:
        self._sent: SentRefer | None = None
        self._received: ReceivedRefer | None = None
        self._unanswered: tuple[Transaction, Request, Referral] | None = None
        self._count = 0

    # --- ours ------------------------------------------------------------------------------------------------------

    def send(self, call: Call, target: str, replaces: Replaces | None, referred_by: str, now: float) -> None:
        """Ask the peer to call ``target``.

        Raises:
            LocalSipError: where a transfer is being tried already, the call is not up, or ``target`` is no URI.
        """
        if self._sent is not None:
            raise LocalSipError("a transfer of this call is being tried; wait for TransferDone")
        if call.state not in (CallState.CONFIRMED, CallState.ACCEPTED):
            raise LocalSipError("only an answered call can be transferred")
        headers = [("Refer-To", refer_to(target, replaces)), ("Referred-By", referred_by or f"<{call.local_uri}>")]
        if not (target + referred_by).isprintable():
            raise LocalSipError(f"control characters in {target[:80]!r}; take them out before transferring there")
        self._sent = SentRefer()
        call.set_timer(CallTimer.REFER_SILENT, now + SILENT_S)
        call.queue.submit(call, Outgoing(Purpose.REFER, "REFER", headers=headers), now)

    def on_answer(self, call: Call, status: int, response: Response | None, now: float) -> None:
        """The peer's answer to our REFER."""
        if self._sent is None:
            return
        if status >= 300 or (response is not None and without_subscription(response)):
            self._settle(call, status if status >= 300 else 202)
        else:
            self._sent.accepted = True

    def on_notify(self, call: Call, request: Request) -> None:
        """A NOTIFY of the peer's, to be answered 200 unless this raises.

        Raises:
            RemoteSipError: 481 where no REFER of ours waits for it, 489 for another event, 400 where it is broken.
        """
        report = report_of(request)
        if self._sent is None:
            raise RemoteSipError("no REFER waits for this NOTIFY", status_hint=481)
        self._sent.accepted = True
        if report.status:
            call.host.emit(ReferProgress(call, report.status, report.final))
        if report.final:
            self._settle(call, report.status if report.status >= 200 else 202)

    def on_silence(self, call: Call) -> None:
        """No end of our transfer was reported in time."""
        self._settle(call, 408)

    def _settle(self, call: Call, status: int) -> None:
        if self._sent is not None:
            self._sent = None
            call.cancel_timer(CallTimer.REFER_SILENT)
            call.host.emit(TransferDone(call, status))

    # --- the peer's -------------------------------------------------------------------------------------------------

    def on_refer(self, call: Call, transaction: Transaction, request: Request, now: float) -> None:
        """Take a REFER.

        Raises:
            RemoteSipError: where it cannot be followed.
        """
        referral = referral_of(request)
        if call.state not in (CallState.CONFIRMED, CallState.ACCEPTED):
            raise RemoteSipError("only an answered call can be transferred", status_hint=403)
        if self._unanswered is not None or self._received is not None:
            raise RemoteSipError("another transfer of this call is being tried", status_hint=491)
        self._unanswered = (transaction, request, referral)
        call.set_timer(CallTimer.REFER_WAITS, now + UNANSWERED_S)
        call.host.emit(ReferReceived(call, referral.target, referral.replaces, referral.referred_by))

    def accept(self, call: Call, now: float) -> None:
        """202, and the first report: 100 Trying.

        Raises:
            LocalSipError: where no REFER waits.
        """
        transaction, request, referral = self._take_unanswered(call)
        self._count += 1
        event = "refer" if self._count == 1 else f"refer;id={request.cseq.number}"
        self._received = ReceivedRefer(event, referral.wants_notify)
        headers = [] if referral.wants_notify else [("Refer-Sub", "false")]
        call.respond(transaction, request, 202, now, headers=headers)
        self.notify(call, 100, now)

    def refuse(self, call: Call, status: int, now: float) -> None:
        """Answer the REFER with a final status.

        Raises:
            LocalSipError: where no REFER waits, or the status refuses nothing.
        """
        if not 300 <= status <= 699:
            raise LocalSipError(f"{status} does not refuse a transfer; use 300 to 699")
        transaction, request, _ = self._take_unanswered(call)
        call.respond(transaction, request, status, now)

    def notify(self, call: Call, status: int, now: float, reason: str = "") -> None:
        """Report how the referred call goes; the last report has a status from 200.

        Raises:
            LocalSipError: where no accepted REFER waits for reports.
        """
        received = self._received
        if received is None:
            raise LocalSipError("no accepted REFER waits for a report")
        if status >= 200:
            self._received = None
        if received.notify and not call.ended:
            state = "terminated;reason=noresource" if status >= 200 else f"active;expires={SILENT_S:.0f}"
            headers = [("Event", received.event), ("Subscription-State", state)]
            body = sipfrag(status, reason)
            outgoing = Outgoing(Purpose.NOTIFY, "NOTIFY", body, f"{SIPFRAG};version=2.0", headers)
            call.queue.submit(call, outgoing, now)

    def on_notify_answer(self, status: int) -> None:
        """What a NOTIFY of ours was answered: the peer that does not know the subscription gets no more."""
        if status == 481 and self._received is not None:
            self._received = ReceivedRefer(self._received.event, notify=False)

    def refuse_unanswered(self, call: Call, now: float) -> None:
        """The application left a REFER alone."""
        if self._unanswered is not None:
            self.refuse(call, 603, now)

    def close(self, call: Call, now: float) -> None:
        """The call has ended."""
        self._received = None
        if self._unanswered is not None:
            transaction, request, _ = self._take_unanswered(call)
            call.respond(transaction, request, 481, now)
        if self._sent is not None:
            self._settle(call, 202 if self._sent.accepted else 487)

    def _take_unanswered(self, call: Call) -> tuple[Transaction, Request, Referral]:
        found, self._unanswered = self._unanswered, None
        if found is None:
            raise LocalSipError("no REFER waits for an answer")
        call.cancel_timer(CallTimer.REFER_WAITS)
        return found
