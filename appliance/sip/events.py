"""What a user agent tells the layer above it. One frozen dataclass per fact; ``call`` is the same object throughout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from appliance.sip.message import Request

if TYPE_CHECKING:
    from appliance.sip.call import Call


@dataclass(frozen=True, slots=True)
class IncomingCall:
    """A new INVITE; 100 is on its way. ``offer`` is its SDP body, None where the peer wants ours (delayed offer)."""

    call: Call
    request: Request
    offer: bytes | None


@dataclass(frozen=True, slots=True)
class Progress:
    """Our INVITE got a provisional response. ``body`` is SDP where there is early media, else None."""

    call: Call
    status: int
    body: bytes | None


@dataclass(frozen=True, slots=True)
class Answered:
    """Our INVITE was accepted; the ACK is on its way. ``body`` is the peer's answer."""

    call: Call
    body: bytes | None


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The ACK of an INVITE we accepted has come. ``body`` is the answer where the offer was ours."""

    call: Call
    body: bytes | None


@dataclass(frozen=True, slots=True)
class Reoffered:
    """A re-INVITE: answer it with :meth:`Call.accept` or :meth:`Call.refuse_reoffer`. ``offer`` None: make one."""

    call: Call
    offer: bytes | None


@dataclass(frozen=True, slots=True)
class InfoReceived:
    """An INFO in the dialog, already answered 200."""

    call: Call
    content_type: str
    body: bytes


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
    IncomingCall | Progress | Answered | Confirmed | Reoffered | InfoReceived | CallEnded | CallClosed
)  # fmt: skip
