"""What a user agent tells the layer above it. One frozen dataclass per fact; ``call`` is the same object throughout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from appliance.sip.message import Request

if TYPE_CHECKING:
    from appliance.sip.call import Call


@dataclass(frozen=True, slots=True)
class IncomingCall:
    """A new INVITE; 100 is on its way. ``offer`` is its SDP body, None where the peer wants ours (delayed offer).

    ``replaces`` is the call of ours whose place it asks to take (RFC 3891), else None. Accepting it ends that one.
    """

    call: Call
    request: Request
    offer: bytes | None
    replaces: Call | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """Our INVITE got a provisional response. ``body`` is SDP that tells of early media, None where there is no new one.

    ``needs_answer``: the body is an offer, because our INVITE had none; answer it with :meth:`Call.acknowledge`.
    """

    call: Call
    status: int
    body: bytes | None
    needs_answer: bool = False


@dataclass(frozen=True, slots=True)
class EarlyConfirmed:
    """The caller confirmed a reliable provisional response of ours (PRACK). ``body`` answers the offer in it."""

    call: Call
    body: bytes | None


@dataclass(frozen=True, slots=True)
class Answered:
    """Our INVITE was accepted. ``body`` is the peer's answer, also where it came with an earlier response.

    It is None where offer and answer have changed the session since then: it goes on as it is.

    ``needs_answer``: the body is an offer, because our INVITE had none; the ACK waits for :meth:`Call.acknowledge`.
    """

    call: Call
    body: bytes | None
    needs_answer: bool = False


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The ACK of an INVITE we accepted has come. ``body`` is the answer where the offer was ours."""

    call: Call
    body: bytes | None


@dataclass(frozen=True, slots=True)
class Reoffered:
    """A re-INVITE, or an UPDATE with SDP: answer it with :meth:`Call.accept` or :meth:`Call.refuse_reoffer`.

    ``offer`` None (re-INVITE only): make one; :class:`Confirmed` brings the answer.
    """

    call: Call
    offer: bytes | None


@dataclass(frozen=True, slots=True)
class ReofferCancelled:
    """The peer took back the re-INVITE that waited for an answer; it needs none now."""

    call: Call


@dataclass(frozen=True, slots=True)
class ReofferAnswered:
    """Our re-INVITE or UPDATE was accepted. ``body`` is the answer, None where an UPDATE carried no offer.

    ``needs_answer``: the body is an offer, because our re-INVITE had none; answer it with :meth:`Call.acknowledge`.
    ``refresh``: it was the session timer's, with the description sent last.
    """

    call: Call
    body: bytes | None
    needs_answer: bool = False
    refresh: bool = False


@dataclass(frozen=True, slots=True)
class ReofferFailed:
    """Our re-INVITE or UPDATE was refused with ``status``; the call goes on as it was.

    487 where the peer never decided and so it was taken back, 408 where even that was not answered.
    """

    call: Call
    status: int


@dataclass(frozen=True, slots=True)
class InfoReceived:
    """An INFO in the dialog, already answered 200."""

    call: Call
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class InfoAnswered:
    """An INFO of ours was answered with ``status``; 408 where it never was."""

    call: Call
    status: int


@dataclass(frozen=True, slots=True)
class ReferReceived:
    """The peer asks us to call ``target``: :meth:`Call.refer_accept` or :meth:`Call.refer_refuse`.

    ``target`` is a URI without headers; ``replaces`` the value for the new INVITE's Replaces and ``referred_by`` for
    its Referred-By, "" where there is none.
    """

    call: Call
    target: str
    replaces: str
    referred_by: str


@dataclass(frozen=True, slots=True)
class ReferProgress:
    """What the peer reports on the transfer we asked for: the status of its call to the target."""

    call: Call
    status: int
    final: bool


@dataclass(frozen=True, slots=True)
class TransferDone:
    """The transfer we asked for is settled; told once per :meth:`Call.refer`.

    ``status`` is the last one reported, or what the REFER was refused with; 202 where the peer agreed and will not
    report or has hung up since, 408 where it fell silent, 487 where the call ended before it agreed.
    """

    call: Call
    status: int


@dataclass(frozen=True, slots=True)
class CallEnded:
    """The session is over for whoever uses it; told once per call, whatever ended it.

    ``by`` is "remote", "local" or "network" (nobody answered in time). ``status`` is the response that ended it:
    200 for a BYE, 487 for a CANCEL, 408 for a timeout, else what was answered.
    """

    call: Call
    by: str
    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class CallClosed:
    """Nothing is left of the call: a BYE or CANCEL of ours has been answered, or was given up."""

    call: Call


Event: TypeAlias = (
    IncomingCall | Progress | EarlyConfirmed | Answered | Confirmed | Reoffered | ReofferCancelled | ReofferAnswered
    | ReofferFailed | InfoReceived | InfoAnswered | ReferReceived | ReferProgress | TransferDone | CallEnded
    | CallClosed
)  # fmt: skip
