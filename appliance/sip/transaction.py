"""The four transaction state machines of RFC 3261 §17, as corrected by RFC 6026.

The tables say everything: what each machine does in each state on each event. :class:`Transaction` only carries them
out. Timers that have no row in the new state stop by themselves. A pair without a row is an event that changes
nothing (a late provisional response, an ACK seen twice).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol, TypeAlias

from appliance.sip.message import Request, Response
from appliance.sip.timers import TimerQueue
from appliance.sip.uri import Peer


@dataclass(frozen=True, slots=True)
class Timing:
    """The base timers in seconds (RFC 3261 §17.1.1.1): round trip, longest retransmission, life of a datagram."""

    t1_s: float = 0.5
    t2_s: float = 4.0
    t4_s: float = 5.0


class Kind(StrEnum):
    INVITE_CLIENT = "INVITE client"
    CLIENT = "client"
    INVITE_SERVER = "INVITE server"
    SERVER = "server"


class State(StrEnum):
    CALLING = "Calling"
    TRYING = "Trying"
    PROCEEDING = "Proceeding"
    COMPLETED = "Completed"
    CONFIRMED = "Confirmed"
    ACCEPTED = "Accepted"
    TERMINATED = "Terminated"


class Event(StrEnum):
    """What can happen. ``A`` to ``M`` are the timers of RFC 3261 Table 4 and RFC 6026."""

    REQUEST = "request again"
    ACK = "ACK"
    SEND_1XX = "send 1xx"
    SEND_2XX = "send 2xx"
    SEND_3XX_6XX = "send 300-699"
    RECEIVE_1XX = "1xx"
    RECEIVE_2XX = "2xx"
    RECEIVE_3XX_6XX = "300-699"
    A = "timer A"
    B = "timer B"
    D = "timer D"
    E = "timer E"
    F = "timer F"
    G = "timer G"
    H = "timer H"
    I = "timer I"  # noqa: E741 - RFC 3261 calls it so
    J = "timer J"
    K = "timer K"
    L = "timer L"
    M = "timer M"


TIMERS = (
    Event.A, Event.B, Event.D, Event.E, Event.F, Event.G, Event.H, Event.I, Event.J, Event.K, Event.L, Event.M,
)  # fmt: skip


class Action(StrEnum):
    SEND = "send it"
    RESEND = "send the last again"
    SEND_ACK = "send ACK"
    PASS_UP = "pass up"
    TIMED_OUT = "report timeout"
    START_AB = "start A, B"
    START_D = "start D"
    START_EF = "start E, F"
    START_GH = "start G, H"
    START_I = "start I"
    START_J = "start J"
    START_K = "start K"
    START_L = "start L"
    START_M = "start M"
    REPEAT = "double the timer"


class Step(NamedTuple):
    """The next state and what to do on the way."""

    state: State
    actions: tuple[Action, ...] = ()


Table: TypeAlias = dict[tuple[State, Event], Step]

# RFC 3261 §17.1.1, RFC 6026 §8.4
INVITE_CLIENT: Table = {
    (State.CALLING, Event.A): Step(State.CALLING, (Action.RESEND, Action.REPEAT)),
    (State.CALLING, Event.B): Step(State.TERMINATED, (Action.TIMED_OUT,)),
    (State.CALLING, Event.RECEIVE_1XX): Step(State.PROCEEDING, (Action.PASS_UP,)),
    (State.CALLING, Event.RECEIVE_2XX): Step(State.ACCEPTED, (Action.START_M, Action.PASS_UP)),
    (State.CALLING, Event.RECEIVE_3XX_6XX): Step(State.COMPLETED, (Action.SEND_ACK, Action.START_D, Action.PASS_UP)),
    (State.PROCEEDING, Event.RECEIVE_1XX): Step(State.PROCEEDING, (Action.PASS_UP,)),
    (State.PROCEEDING, Event.RECEIVE_2XX): Step(State.ACCEPTED, (Action.START_M, Action.PASS_UP)),
    (State.PROCEEDING, Event.RECEIVE_3XX_6XX): Step(State.COMPLETED, (Action.SEND_ACK, Action.START_D, Action.PASS_UP)),
    (State.COMPLETED, Event.RECEIVE_3XX_6XX): Step(State.COMPLETED, (Action.RESEND,)),
    (State.COMPLETED, Event.D): Step(State.TERMINATED),
    (State.ACCEPTED, Event.RECEIVE_2XX): Step(State.ACCEPTED, (Action.PASS_UP,)),
    (State.ACCEPTED, Event.M): Step(State.TERMINATED),
}

# RFC 3261 §17.1.2
CLIENT: Table = {
    (State.TRYING, Event.E): Step(State.TRYING, (Action.RESEND, Action.REPEAT)),
    (State.TRYING, Event.F): Step(State.TERMINATED, (Action.TIMED_OUT,)),
    (State.TRYING, Event.RECEIVE_1XX): Step(State.PROCEEDING, (Action.PASS_UP,)),
    (State.TRYING, Event.RECEIVE_2XX): Step(State.COMPLETED, (Action.START_K, Action.PASS_UP)),
    (State.TRYING, Event.RECEIVE_3XX_6XX): Step(State.COMPLETED, (Action.START_K, Action.PASS_UP)),
    (State.PROCEEDING, Event.E): Step(State.PROCEEDING, (Action.RESEND, Action.REPEAT)),
    (State.PROCEEDING, Event.F): Step(State.TERMINATED, (Action.TIMED_OUT,)),
    (State.PROCEEDING, Event.RECEIVE_1XX): Step(State.PROCEEDING, (Action.PASS_UP,)),
    (State.PROCEEDING, Event.RECEIVE_2XX): Step(State.COMPLETED, (Action.START_K, Action.PASS_UP)),
    (State.PROCEEDING, Event.RECEIVE_3XX_6XX): Step(State.COMPLETED, (Action.START_K, Action.PASS_UP)),
    (State.COMPLETED, Event.K): Step(State.TERMINATED),
}

# RFC 3261 §17.2.1, RFC 6026 §8.5 and §8.7
INVITE_SERVER: Table = {
    (State.PROCEEDING, Event.REQUEST): Step(State.PROCEEDING, (Action.RESEND,)),
    (State.PROCEEDING, Event.SEND_1XX): Step(State.PROCEEDING, (Action.SEND,)),
    (State.PROCEEDING, Event.SEND_2XX): Step(State.ACCEPTED, (Action.SEND, Action.START_L)),
    (State.PROCEEDING, Event.SEND_3XX_6XX): Step(State.COMPLETED, (Action.SEND, Action.START_GH)),
    (State.COMPLETED, Event.REQUEST): Step(State.COMPLETED, (Action.RESEND,)),
    (State.COMPLETED, Event.G): Step(State.COMPLETED, (Action.RESEND, Action.REPEAT)),
    (State.COMPLETED, Event.H): Step(State.TERMINATED, (Action.TIMED_OUT,)),
    (State.COMPLETED, Event.ACK): Step(State.CONFIRMED, (Action.START_I,)),
    (State.CONFIRMED, Event.I): Step(State.TERMINATED),
    (State.ACCEPTED, Event.SEND_2XX): Step(State.ACCEPTED, (Action.SEND,)),
    (State.ACCEPTED, Event.ACK): Step(State.ACCEPTED, (Action.PASS_UP,)),
    (State.ACCEPTED, Event.L): Step(State.TERMINATED),
}

# RFC 3261 §17.2.2
SERVER: Table = {
    (State.TRYING, Event.SEND_1XX): Step(State.PROCEEDING, (Action.SEND,)),
    (State.TRYING, Event.SEND_2XX): Step(State.COMPLETED, (Action.SEND, Action.START_J)),
    (State.TRYING, Event.SEND_3XX_6XX): Step(State.COMPLETED, (Action.SEND, Action.START_J)),
    (State.PROCEEDING, Event.REQUEST): Step(State.PROCEEDING, (Action.RESEND,)),
    (State.PROCEEDING, Event.SEND_1XX): Step(State.PROCEEDING, (Action.SEND,)),
    (State.PROCEEDING, Event.SEND_2XX): Step(State.COMPLETED, (Action.SEND, Action.START_J)),
    (State.PROCEEDING, Event.SEND_3XX_6XX): Step(State.COMPLETED, (Action.SEND, Action.START_J)),
    (State.COMPLETED, Event.REQUEST): Step(State.COMPLETED, (Action.RESEND,)),
    (State.COMPLETED, Event.J): Step(State.TERMINATED),
}

TABLES: dict[Kind, Table] = {
    Kind.INVITE_CLIENT: INVITE_CLIENT,
    Kind.CLIENT: CLIENT,
    Kind.INVITE_SERVER: INVITE_SERVER,
    Kind.SERVER: SERVER,
}

INITIAL: dict[Kind, tuple[State, tuple[Action, ...]]] = {
    Kind.INVITE_CLIENT: (State.CALLING, (Action.SEND, Action.START_AB)),
    Kind.CLIENT: (State.TRYING, (Action.SEND, Action.START_EF)),
    Kind.INVITE_SERVER: (State.PROCEEDING, ()),
    Kind.SERVER: (State.TRYING, ()),
}


class Wire(Protocol):
    """What a transaction needs of the outside."""

    timers: TimerQueue[tuple[object, StrEnum]]
    timing: Timing

    def send(self, data: bytes, destination: Peer) -> None: ...
    def resend(self, data: bytes, destination: Peer) -> None: ...


class Owner(Protocol):
    """Who started a client transaction, or answers an INVITE, and hears what becomes of it."""

    def on_response(self, transaction: Transaction, response: Response, now: float) -> None: ...
    def on_timeout(self, transaction: Transaction, now: float) -> None: ...


class Transaction:
    """One transaction under one of the tables.

    Attributes:
        key: how messages find it (RFC 3261 §17.1.3, §17.2.3).
        destination: where its messages go.
        request: the request; a server forgets it once the final response is out.
        response: the last response a server has sent, for those who ask what was answered.
        reliable: whether the transport delivers by itself (TCP, TLS): no retransmission, no waiting.
        tries: of a client, how often its request has been sent, those that were challenged before it included.
    """

    __slots__ = (
        "_interval_s", "_last", "destination", "key", "kind", "make_ack", "owner", "reliable", "request", "state",
        "status", "tries", "wire",
    )  # fmt: skip

    def __init__(
        self,
        kind: Kind,
        key: tuple[str, ...],
        wire: Wire,
        destination: Peer,
        request: Request,
        owner: Owner | None = None,
    ) -> None:
        self.kind = kind
        self.key = key
        self.wire = wire
        self.destination = destination
        self.request: Request | None = request
        self.owner = owner
        self.reliable = destination.reliable
        self.status = 0
        self.tries = 1
        self.state = INITIAL[kind][0]
        self.make_ack: Callable[[Response], bytes] | None = None
        self._last = b""
        self._interval_s = wire.timing.t1_s

    @property
    def finished(self) -> bool:
        return self.state is State.TERMINATED

    def start(self, data: bytes, now: float) -> None:
        """Send a client's request for the first time."""
        for action in INITIAL[self.kind][1]:
            self._act(action, None, now, data)

    def respond(self, status: int, data: bytes, now: float) -> bool:
        """Send a server's response; False where the machine is past it."""
        event = Event.SEND_1XX if status < 200 else Event.SEND_2XX if status < 300 else Event.SEND_3XX_6XX
        done = self.handle(event, now, data) is not None
        if done:
            self.status = status
            if status >= 200:
                self.request = None
        return done

    def receive(self, response: Response, now: float) -> tuple[Action, ...] | None:
        """Take a response that matched this client."""
        status = response.status
        event = Event.RECEIVE_1XX if status < 200 else Event.RECEIVE_2XX if status < 300 else Event.RECEIVE_3XX_6XX
        self.status = max(self.status, status)
        data = b""
        if event is Event.RECEIVE_3XX_6XX and self.make_ack is not None and self.state is not State.COMPLETED:
            data = self.make_ack(response)
        return self.handle(event, now, data)

    def handle(self, event: Event, now: float, data: bytes = b"") -> tuple[Action, ...] | None:
        """Carry out one row; None where there is none."""
        table = TABLES[self.kind]
        step = table.get((self.state, event))
        if step is None:
            return None
        if step.state is not self.state:
            for timer in TIMERS:
                if (self.state, timer) in table and (step.state, timer) not in table:
                    self.wire.timers.cancel((self, timer))
            self.state = step.state
        for action in step.actions:
            self._act(action, event, now, data)
        return step.actions

    def _act(self, action: Action, event: Event | None, now: float, data: bytes) -> None:
        t1, timing = self.wire.timing.t1_s, self.wire.timing
        if action in (Action.SEND, Action.SEND_ACK):
            self._last = data
            self.wire.send(data, self.destination)
        elif action is Action.RESEND:
            if self._last:
                self.wire.resend(self._last, self.destination)
        elif action is Action.REPEAT:
            assert event is not None
            capped = self.state is State.PROCEEDING
            self._interval_s = timing.t2_s if capped else self._interval_s * 2
            if event is not Event.A:
                self._interval_s = min(self._interval_s, timing.t2_s)
            self._set(event, now + self._interval_s)
        elif action is Action.START_AB:
            self._set_retransmission(Event.A, now)
            self._set(Event.B, now + 64 * t1)
        elif action is Action.START_EF:
            self._set_retransmission(Event.E, now)
            self._set(Event.F, now + 64 * t1)
        elif action is Action.START_GH:
            self._set_retransmission(Event.G, now)
            self._set(Event.H, now + 64 * t1)
        elif action in _LINGER:
            timer, t1_multiple = _LINGER[action]
            wait = t1_multiple * t1 if t1_multiple else timing.t4_s
            if self.reliable and timer not in (Event.L, Event.M):
                wait = 0.0
            self._set(timer, now + wait)

    def _set_retransmission(self, timer: Event, now: float) -> None:
        self._interval_s = self.wire.timing.t1_s
        if not self.reliable:
            self._set(timer, now + self._interval_s)

    def _set(self, timer: Event, when: float) -> None:
        self.wire.timers.set((self, timer), when)


_LINGER: dict[Action, tuple[Event, int]] = {
    Action.START_D: (Event.D, 64),
    Action.START_I: (Event.I, 0),
    Action.START_J: (Event.J, 64),
    Action.START_K: (Event.K, 0),
    Action.START_L: (Event.L, 64),
    Action.START_M: (Event.M, 64),
}
"""How long a machine waits for stragglers: a timer and its length as a multiple of T1 (0: it is T4)."""
