"""A leg: one party of a call, whatever protocol it speaks.

Nothing above this package knows whether a leg is SIP, a carrier's WebSocket or a browser. A leg is told where its
media runs by a :class:`MediaSlot` and tells the media where its peer is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class CallInfo:
    """Who calls whom, and how the call came. All text is printable and bounded; it is data, never instruction.

    Attributes:
        leg_id: unique in this box.
        protocol: "sip".
        trunk: the name of the trunk it came in by.
        called: the number or name dialled, without host.
        calling: the caller's number or name, without host.
        calling_name: the caller's display name, "" where none was given.
        source: "address:port" of the signalling peer.
        protocol_call_id: the SIP Call-ID.
        headers: the request's headers by usual name, repeated ones joined by ", ".
    """

    leg_id: str
    protocol: str
    trunk: str
    called: str
    calling: str
    calling_name: str
    source: str
    protocol_call_id: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RtpParams:
    """What the two sides agreed for the media; the fields of the ConnectLeg message.

    ``codec`` is "pcmu" or "pcma". ``dtmf_payload_type`` is -1 without telephone-event. ``send`` and ``receive`` are
    false where that direction is on hold.
    """

    remote_host: str
    remote_port: int
    codec: str
    payload_type: int
    dtmf_payload_type: int
    ptime_ms: int
    send: bool
    receive: bool


@dataclass(frozen=True, slots=True)
class HangupCause:
    """Why a leg ended. ``by`` is who ended it; ``code`` a SIP status (200 for a plain goodbye)."""

    by: Literal["caller", "agent", "system"]
    code: int
    text: str


class MediaSlot(Protocol):
    """The media end of a leg: a slot of the media process with an open port."""

    @property
    def slot(self) -> int: ...
    @property
    def generation(self) -> int: ...
    @property
    def local_host(self) -> str: ...
    @property
    def local_port(self) -> int: ...

    def connect(self, params: RtpParams) -> None:
        """Start sending and receiving; called again when the peer changes address, codec or direction."""
        ...


class Leg(Protocol):
    """One party of a call. Every method returns at once, and does nothing on a leg that has ended.

    Attributes:
        info: who and how.
        on_hangup: called once when the far end ended the leg or it failed; not for what this side asked for.
        on_digits: called with keys that come beside the audio (SIP INFO); RFC 4733 events come through the media.
    """

    info: CallInfo
    on_hangup: Callable[[HangupCause], None] | None
    on_digits: Callable[[str], None] | None

    def ring(self) -> None:
        """Tell the caller that it rings."""
        ...

    def answer(self, media: MediaSlot) -> None:
        """Take the call: agree on the media, connect it, and tell the caller."""
        ...

    def reject(self, status: int, reason: str = "", retry_after_s: int | None = None) -> None:
        """Refuse the call with a SIP status from 300 to 699."""
        ...

    def hangup(self, reason: str = "") -> None:
        """End the leg: goodbye where it was answered, 480 where not."""
        ...
