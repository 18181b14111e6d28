"""A leg: one party of a call, whatever protocol it speaks.

Nothing above this package knows whether a leg is SIP, a carrier's WebSocket or a browser. A leg is told where its
media runs by a :class:`MediaSlot` and tells the media where its peer is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from appliance.ipc.messages import StreamEnded, StreamStarted
from appliance.rtp_params import RtpParams
from appliance.signalling.headers import CallHeaders


@dataclass(frozen=True, slots=True)
class CallInfo:
    """Who calls whom, and how the call came. All text is printable and bounded; it is data, never instruction.

    Attributes:
        leg_id: unique in this box.
        protocol: "sip", or the kind of the carrier's trunk.
        trunk: the name of the trunk that the far end is on: by which the call came, or by which it was placed to
            whoever took the caller's place.
        called: the number or name dialled, without host.
        calling: the caller's number or name, without host.
        calling_name: the caller's display name, "" where none was given.
        source: "address:port" of the signalling peer.
        protocol_call_id: what the far end calls it: the SIP Call-ID, the carrier's name of the call.
        headers: the request's headers by usual name, repeated ones joined by ", ".
        about: what the network says beside it: asserted identity, diversions, reasons, the verdict on the number.
        offered: what dialplans may match on and the record keeps: the headers that the trunk's ``headers_in`` lists, by
            the name written there; of a carrier, what it says beside the call.
        can_transfer: whether the peer takes REFER, as far as it has said.
        outbound: the box has placed the call: ``called`` is who is at the far end, and ``calling`` what is shown there.
        known: of a call that the box has placed, what is known of the one called and of the call's purpose, by the name
            that dialplans have for it: ``lead.NAME``, ``campaign.owner``.
        zone: IANA name of the time zone of the far end; "" where it is not known.
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
    about: CallHeaders = field(default_factory=CallHeaders)
    offered: Mapping[str, str] = field(default_factory=dict)
    can_transfer: bool = False
    outbound: bool = False
    known: Mapping[str, str] = field(default_factory=dict)
    zone: str = ""

    @property
    def person(self) -> str:
        """The number or name of whoever is at the far end."""
        return self.called if self.outbound else self.calling


@dataclass(frozen=True, slots=True)
class HangupCause:
    """Why a leg ended. ``by`` is who ended it; ``code`` a SIP status (200 for a plain goodbye)."""

    by: Literal["caller", "agent", "system"]
    code: int
    text: str


class RtpSlot(Protocol):
    """The media end of a leg whose audio is RTP: a slot with an open port."""

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


class MediaSlot(RtpSlot, Protocol):
    """The media end of any leg: a slot of the media process. Without RTP ``local_port`` is 0."""

    def connect_stream(self, kind: str, token: str, timeout_s: float, told: Callable[[StreamNews], None]) -> None:
        """Have the stream that brings ``token`` be the audio, in place of what was; ``told`` hears what becomes of it.

        Where none comes within ``timeout_s`` it is told that the stream has ended.
        """
        ...


StreamNews = StreamStarted | StreamEnded


class TransferOutcome(NamedTuple):
    """What became of a transfer we asked for: the final ``status``, 200 to 299 where the call came about.

    Not ``taken``: the far end refused the request itself, and has called nobody.
    """

    status: int
    taken: bool

    @property
    def done(self) -> bool:
        return self.taken and 200 <= self.status <= 299


class TransferRequest(Protocol):
    """The far end asks us to call somebody else instead of it.

    Attributes:
        target: whom, as a URI; any text of the peer's.
        headers: what the new call's INVITE must say besides.
    """

    target: str
    headers: list[tuple[str, str]]

    def accept(self) -> None:
        """Agree; :meth:`report` follows until a final status."""
        ...

    def refuse(self, status: int) -> None:
        """Refuse with a SIP status."""
        ...

    def report(self, status: int) -> None:
        """Say how the new call goes: 180, or a final status from 200."""
        ...

    def goodbye(self) -> None:
        """Hang up on the one who asked, if that one has not."""
        ...


class Leg(Protocol):
    """One party of a call. Every method returns at once, and does nothing on a leg that has ended.

    Attributes:
        info: who and how.
        needs_rtp: whether its media slot must have a port.
        on_hangup: called once when the far end ended the leg or it failed; not for what this side asked for.
        on_digits: called with keys that come beside the audio (SIP INFO); RFC 4733 events come through the media.
        on_held: called with true when the far end puts us on hold, with false when it takes us off.
        on_transfer: called when the far end asks for a transfer; without it every one is refused.
    """

    info: CallInfo
    needs_rtp: bool
    on_hangup: Callable[[HangupCause], None] | None
    on_digits: Callable[[str], None] | None
    on_held: Callable[[bool], None] | None
    on_transfer: Callable[[TransferRequest], None] | None

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

    async def settled(self, timeout_s: float = 4.0) -> None:
        """Wait until the far end knows that its call is answered."""
        ...

    def hold(self) -> None:
        """Tell the far end that it is on hold."""
        ...

    def resume(self) -> None:
        """Take the far end off hold."""
        ...

    def send_digits(self, digits: str) -> bool:
        """Send keys beside the audio, where the far end takes them so; false where media has to send them."""
        ...

    def transfer(
        self, target: str, replaces: Any = None, ring_timeout_s: float = 30.0
    ) -> asyncio.Future[TransferOutcome]:
        """Ask the far end to call ``target`` itself, in place of ``replaces``, a call that we placed.

        A carrier lets it ring for ``ring_timeout_s``; a SIP peer knows for itself how long.
        """
        ...

    def become(self, outgoing: Any) -> None:
        """Go on as ``outgoing``, a call that we placed on this leg's media slot; also where the leg has ended."""
        ...

    def reconnect(self) -> None:
        """Take the media slot back from a call that came to nothing."""
        ...


class PlacedCall(Protocol):
    """A call that the box placed, whatever its trunk speaks.

    Attributes:
        on_ringing: called with the status (SIP) of everything that says that it goes on: 180, 183.
        on_digits: keys that the far end sends beside the audio.
        on_held: called with true when the far end puts us on hold, with false when it takes us off.
        on_transfer: called when the far end asks for a transfer; without it every one is refused.
        trunk, uri: by which trunk and at which URI it was placed.
        needs_rtp: whether its media slot must have a port.
    """

    on_ringing: Callable[[int], None] | None
    on_digits: Callable[[str], None] | None
    on_held: Callable[[bool], None] | None
    on_transfer: Callable[[TransferRequest], None] | None
    trunk: str
    uri: str
    needs_rtp: bool

    @property
    def ended(self) -> bool: ...

    @property
    def held(self) -> bool:
        """Whether the far end has put us on hold."""
        ...

    async def wait_answered(self) -> object | None:
        """Anything once it is answered, its media slot being connected; None where it ended before."""
        ...

    async def wait_ended(self) -> HangupCause:
        """Why the call ended, once it has; ``by`` is "caller" for this side, "agent" for the one called."""
        ...

    def when_over(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once the call has ended, or soon where it has."""
        ...

    def hangup(self, reason: str = "") -> None:
        """End it, answered or not."""
        ...

    def send_digits(self, digits: str) -> bool:
        """Send keys beside the audio; false where media has to send them."""
        ...

    @property
    def protocol_call_id(self) -> str:
        """What the far end calls it: the SIP Call-ID, the carrier's name of the call; "" while that is not known."""
        ...

    @property
    def source(self) -> str:
        """ "address:port" of the signalling peer; "" where there is none."""
        ...

    @property
    def can_transfer(self) -> bool:
        """Whether the far end, or its carrier, takes :meth:`transfer`, as far as it has said."""
        ...

    async def settled(self, timeout_s: float = 4.0) -> None:
        """As of a :class:`Leg`, and so are the following."""
        ...

    def hold(self) -> None: ...
    def resume(self) -> None: ...
    def transfer(
        self, target: str, replaces: Any = None, ring_timeout_s: float = 30.0
    ) -> asyncio.Future[TransferOutcome]: ...
    def reconnect(self) -> None: ...

    def let_go(self) -> None:
        """Its media slot is another call's now: it changes nothing there any more, and nobody hears of it."""
        ...
