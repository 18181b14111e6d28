"""Two user agents joined in memory by a network that drops, doubles and reorders, in virtual time."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable

from appliance.sip.events import Event
from appliance.sip.transaction import Timing
from appliance.sip.uri import Peer
from appliance.sip.useragent import Limits, UserAgent

CALLER = Peer("192.0.2.1", 5060)
CALLED = Peer("192.0.2.2", 5060)

OFFER = (
    b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n"
    b"m=audio 4000 RTP/AVP 0 8 101\r\na=rtpmap:101 telephone-event/8000\r\n"
)
ANSWER = OFFER.replace(b"192.0.2.1", b"192.0.2.2").replace(b"4000", b"5000").replace(b"0 8 101", b"0 101")


def make_agent(address: Peer, seed: int = 1, **settings: object) -> UserAgent:
    """A user agent whose tokens are repeatable."""
    numbers = random.Random(f"{address}{seed}")
    return UserAgent(
        lambda peer: (address.host, address.port),
        new_token=lambda: f"{numbers.getrandbits(64):016x}",
        limits=Limits(calls=2000, transactions=20000),
        timing=Timing(),
        **settings,  # type: ignore[arg-type]
    )


class DialogPair:
    """``caller`` and ``called``, the network between them, and the clock.

    Args:
        loss: share of datagrams that vanish, each way.
        duplicate: share of datagrams that come twice.
        jitter_s: each datagram takes 5 ms plus up to this, so that later ones overtake.
    """

    def __init__(self, *, loss: float = 0.0, duplicate: float = 0.0, jitter_s: float = 0.0, seed: int = 1) -> None:
        self.now = 0.0
        self.caller = make_agent(CALLER, seed)
        self.called = make_agent(CALLED, seed)
        self.agents = {CALLER: self.caller, CALLED: self.called}
        self.events: dict[Peer, list[Event]] = {CALLER: [], CALLED: []}
        self.on_event: dict[Peer, Callable[[Event], None]] = {}
        self.wire: list[tuple[float, Peer, bytes]] = []
        self.drop: Callable[[Peer, bytes], bool] = lambda destination, data: False
        self._random = random.Random(seed)
        self._loss, self._duplicate, self._jitter_s = loss, duplicate, jitter_s
        self._order = itertools.count()
        self._flying: list[tuple[float, int, Peer, Peer, bytes]] = []
        self._plans: list[tuple[float, int, Callable[[], object]]] = []

    def at(self, when: float, do: Callable[[], object]) -> None:
        """Do something at a virtual time."""
        heapq.heappush(self._plans, (when, next(self._order), do))

    def after(self, seconds: float, do: Callable[[], object]) -> None:
        """Do something a while from now."""
        self.at(self.now + seconds, do)

    def settle(self) -> None:
        """Put what the agents want to send on the wire and hand out their events, until both are quiet."""
        busy = True
        while busy:
            busy = False
            for address, agent in self.agents.items():
                for data, destination in agent.datagrams_to_send():
                    self._transmit(address, destination, data)
                while (event := agent.next_event()) is not None:
                    busy = True
                    self.events[address].append(event)
                    if address in self.on_event:
                        self.on_event[address](event)
                    for data, destination in agent.datagrams_to_send():
                        self._transmit(address, destination, data)

    def run(self, until: float) -> None:
        """Let virtual time pass up to ``until``."""
        self.settle()
        while True:
            times = [agent.get_timer() for agent in self.agents.values()]
            times += [self._flying[0][0] if self._flying else None, self._plans[0][0] if self._plans else None]
            pending = [when for when in times if when is not None]
            if not pending or min(pending) > until:
                break
            self.now = max(self.now, min(pending))
            if self._plans and self._plans[0][0] <= self.now:
                heapq.heappop(self._plans)[2]()
            elif self._flying and self._flying[0][0] <= self.now:
                _, _, source, destination, data = heapq.heappop(self._flying)
                self.agents[destination].receive_datagram(data, source, self.now)
            else:
                for agent in self.agents.values():
                    agent.handle_timer(self.now)
            self.settle()
        self.now = until

    def sent(self, start: bytes, destination: Peer | None = None) -> int:
        """How many datagrams beginning so were put on the wire."""
        return sum(1 for _, to, data in self.wire if data.startswith(start) and destination in (None, to))

    def _transmit(self, source: Peer, destination: Peer, data: bytes) -> None:
        assert destination in self.agents, f"a datagram to nowhere: {destination}"
        self.wire.append((self.now, destination, data))
        if self.drop(destination, data):
            return
        for _ in range(2 if self._random.random() < self._duplicate else 1):
            if self._random.random() >= self._loss:
                at = self.now + 0.005 + self._random.random() * self._jitter_s
                heapq.heappush(self._flying, (at, next(self._order), source, destination, data))
