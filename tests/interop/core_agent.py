"""The user agent by itself on a UDP socket, for what no setting of the box makes it do at a given moment."""

from __future__ import annotations

import asyncio
import secrets
from typing import Self, TypeVar

from appliance.cli.box import HOST
from appliance.sip.call import Call
from appliance.sip.call_state import CallOptions
from appliance.sip.events import Event, Reoffered
from appliance.sip.uri import Peer, SipUri
from appliance.sip.useragent import UserAgent
from tests.waiting import LIMIT_S

E = TypeVar("E", bound=Event)


class CoreAgent(asyncio.DatagramProtocol):
    """Drives one :class:`UserAgent`, keeps its events, and answers every offer with the SDP it was given."""

    def __init__(self, sdp: bytes) -> None:
        self.sdp = sdp
        self.events: list[Event] = []
        self._news = asyncio.Condition()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.DatagramTransport | None = None
        self._wakeup: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._transport, _ = await self._loop.create_datagram_endpoint(lambda: self, local_addr=(HOST, 0))
        port = self._transport.get_extra_info("sockname")[1]
        self.agent = UserAgent(lambda peer: (HOST, port), new_token=lambda: secrets.token_hex(8))
        return self

    async def __aexit__(self, *_: object) -> None:
        for call in self.agent.calls:
            call.hangup(self.now)
        self.pump()
        if self._wakeup is not None:
            self._wakeup.cancel()
        assert self._transport is not None
        self._transport.close()

    @property
    def now(self) -> float:
        return self._loop.time()

    def call(self, uri: str, body: bytes, options: CallOptions | None = None) -> Call:
        """Place a call."""
        call = self.agent.invite(SipUri.parse(uri), f"sip:core@{HOST}", body, self.now, options=options)
        self.pump()
        return call

    async def wait(self, kind: type[E], count: int = 1) -> E:
        """The ``count``-th event of this kind, once it is there."""
        async with asyncio.timeout(LIMIT_S), self._news:
            while len(found := [event for event in self.events if isinstance(event, kind)]) < count:
                await self._news.wait()
        return found[count - 1]

    def pump(self) -> None:
        """Send what is queued, take events, set the next wake-up; to be called after every doing with a call."""
        while (event := self.agent.next_event()) is not None:
            self.events.append(event)
            if isinstance(event, Reoffered):
                event.call.accept(self.sdp, self.now)
        for data, destination in self.agent.datagrams_to_send():
            assert self._transport is not None
            self._transport.sendto(data, destination[:2])
        if self._wakeup is not None:
            self._wakeup.cancel()
        at = self.agent.get_timer()
        self._wakeup = self._loop.call_at(at, self._on_wakeup) if at is not None else None
        task = self._loop.create_task(self._tell())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.agent.receive_datagram(data, Peer(addr[0], addr[1]), self.now)
        self.pump()

    def _on_wakeup(self) -> None:
        self.agent.handle_timer(self.now)
        self.pump()

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()
