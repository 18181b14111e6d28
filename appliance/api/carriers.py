"""How a carrier is told what to do with a call, and tells what becomes of it.

A carrier is two things. In the media process a :class:`StreamKind` reads and writes the frames of its audio: a PURE
class, one object per connection. In the control process a :class:`Carrier` answers its webhooks and asks its API for
what is to happen to a call. The two meet in a *token*: the box makes one per stream, the carrier is told it with the
address, and the connection that brings it back is the call's audio, once.

A call that comes::

    webhook -> box.admit(call, IncomingCall(...))        the dialplan decides
            -> call.ring(), call.answer(stream)          or call.reject(status, reason)
    the carrier connects to stream.url, with stream.token
            -> call.hangup()                             unless the carrier said so first: box_call.over(...)

A call that the box places::

    carrier.place(CallRequest) -> CarrierCall            box_call.ringing(); the stream that begins is the answer
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from appliance.api.streams import StreamProtocol

if TYPE_CHECKING:
    import aiohttp
    from aiohttp import web


# --- the media process --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """How a connection was asked for: ``path`` is what stands behind ``/KIND/media/``, ``query`` what behind the ?."""

    path: str = ""
    query: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StreamKind:
    """How the streams of a kind of trunk are read, in the media process.

    Its code runs between two ticks of the audio clock: PURE, and a few microseconds a message.

    Attributes:
        open: makes the protocol of one connection. Raises CarrierError where the request cannot be served.
        transport: "websocket", at ``/KIND/media`` of ``listen.media``; "tcp", at the trunk's own listener.
        subprotocols: of the WebSocket, as the peer may ask for them.
        unasked: streams may come without a token that the box gave out, from the addresses in a trunk's ``allow``.
        summary: one line for lists.
    """

    open: Callable[[StreamRequest], StreamProtocol]
    transport: Literal["websocket", "tcp"] = "websocket"
    subprotocols: tuple[str, ...] = ()
    unasked: bool = False
    summary: str = ""


StreamKinds: TypeAlias = Mapping[str, StreamKind]


# --- the control process ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StreamAddress:
    """Where a carrier is to open a stream, and the secret by which it is known. Good for one connection."""

    url: str
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class StreamOffer:
    """A stream that came unasked. ``token`` stands for the connection, which waits; nobody outside knows it."""

    token: str = field(repr=False)
    source: str
    call_id: str
    called: str = ""
    calling: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class IncomingCall:
    """Who calls whom. All of it comes from outside; the box bounds it and makes it printable.

    ``offered`` is what else is known, by name: what the trunk's ``headers_in`` lists of it dialplans may match on, and
    the record keeps. ``verstat`` is the network's verdict on the caller's number in the words that SIP has for it
    ("TN-Validation-Passed"), ``diverted`` whom the call was meant for before; "" where nothing is said.
    """

    call_id: str
    called: str
    calling: str
    calling_name: str = ""
    source: str = ""
    offered: Mapping[str, str] = field(default_factory=dict)
    verstat: str = ""
    diverted: str = ""


@dataclass(frozen=True, slots=True)
class CallRequest:
    """A call to be placed. ``key`` is the same whenever the same call is asked for again, and is nobody else's."""

    number: str
    caller_id: str
    ring_timeout_s: float
    stream: StreamAddress
    key: str
    box_call: BoxCall
    values: Mapping[str, str] = field(default_factory=dict)


class CarrierCall(Protocol):
    """One call at the carrier; every method is the box asking for something.

    One is awaited at a time, but for :meth:`hangup`, which may come while another waits. What they raise is logged;
    where it is :meth:`answer` that raises, the call is over.

    Attributes:
        call_id: the carrier's name of the call.
        can_transfer: whether :meth:`transfer` can be asked for.
        sends_digits: whether :meth:`send_digits` can; else keys are sent as tones in the audio.
    """

    @property
    def call_id(self) -> str: ...
    @property
    def can_transfer(self) -> bool: ...
    @property
    def sends_digits(self) -> bool: ...

    async def ring(self) -> None:
        """The caller is to hear ringing, where that is not so by itself."""
        ...

    async def answer(self, stream: StreamAddress) -> None:
        """Take the call, and have a stream opened at this address. For a :class:`StreamOffer` there is one already."""
        ...

    async def reject(self, status: int, reason: str) -> None:
        """Refuse the call; ``status`` is SIP's: 486 busy, 404 no such number, 503 no room."""
        ...

    async def hangup(self) -> None:
        """End the call. To be done as well as can be, also where it has ended."""
        ...

    async def transfer(self, number: str, other: CarrierCall | None, ring_timeout_s: float = 30.0) -> int:
        """Have the carrier connect the caller with ``number``; with ``other``, a call placed to it, where given.

        It rings for ``ring_timeout_s`` at most, and what it came to is said no later than 8 s after that. Cancelled,
        the caller is to be here again.

        The stream ends when the carrier does so. If it comes to nothing the carrier opens one again, at an address
        from :meth:`BoxCall.new_stream`.

        Returns:
            The final status in terms of SIP: 200 when that side has answered, 486, 480 ...
        """
        ...

    async def send_digits(self, digits: str) -> None:
        """Send keys to the far end."""
        ...


class BoxCall(Protocol):
    """The same call at the box; every method is the carrier telling something. They return at once."""

    @property
    def key(self) -> str:
        """The box's name of the call, unique."""
        ...

    @property
    def ended(self) -> bool:
        """Whether the box is done with it."""
        ...

    def ringing(self) -> None:
        """The one called is being alerted."""
        ...

    def digits(self, digits: str) -> None:
        """Keys that were pressed, told beside the audio."""
        ...

    def over(self, status: int, reason: str, *, by_peer: bool = True) -> None:
        """The call has ended; 200 for a plain goodbye, else the status of SIP that says why. Twice does no harm."""
        ...

    def new_stream(self) -> StreamAddress:
        """An address at which the audio of this call goes on; the one before is void."""
        ...


class CarrierBox(Protocol):
    """What the box offers to the carrier of one trunk."""

    @property
    def trunk(self) -> str:
        """The trunk's name."""
        ...

    @property
    def caller_id(self) -> str:
        """The number that the trunk shows to those it calls, "" where it has none."""
        ...

    @property
    def http(self) -> aiohttp.ClientSession:
        """For requests to the carrier's API; with time-outs set."""
        ...

    @property
    def media_port(self) -> int:
        """The port of ``listen.media``, for those who reach it directly."""
        ...

    def allows(self, host: str) -> bool:
        """Whether an IP address is within the trunk's ``allow``."""
        ...

    def client_of(self, request: web.Request) -> str:
        """The IP address that a request came from, also behind the proxies that ``listen.proxies`` names."""
        ...

    def admit(self, call: CarrierCall, incoming: IncomingCall, offer: StreamOffer | None = None) -> BoxCall:
        """A call has come. The dialplan decides at once: ``call`` is asked to ring, to be answered or rejected."""
        ...

    def refuse(self, offer: StreamOffer, reason: str) -> None:
        """Close an offered stream for which there is no call."""
        ...


class Carrier(Protocol):
    """The call control of one trunk, for as long as the box runs."""

    def routes(self) -> Sequence[web.RouteDef]:
        """Its webhooks. Each path is served below ``/KIND/TRUNK``; of the first trunk of a kind below ``/KIND`` too."""
        ...

    async def start(self) -> None:
        """The box is up."""
        ...

    async def close(self) -> None:
        """The box stops; every call has ended."""
        ...

    def offered(self, offer: StreamOffer) -> None:
        """A stream has come unasked: :meth:`CarrierBox.admit` it, or :meth:`CarrierBox.refuse` it."""
        ...

    def stream_url(self, token: str) -> str:
        """The address at which a stream of that token can be opened, as the carrier reaches it."""
        ...

    async def place(self, request: CallRequest) -> CarrierCall:
        """Place a call.

        Raises:
            DialError: it cannot be placed; the message says why, ``status`` what it would be in SIP. After 408, 500 to
                599 and the cause "no_route" the next trunk is tried; not after the cause "unsure", with which it may
                have been placed all the same, and ring.
        """
        ...
