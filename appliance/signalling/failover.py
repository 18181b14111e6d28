"""One outgoing call on its way through the servers that its URI resolves to (RFC 3263 §4.3)."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from appliance.errors import LocalSipError, SipUnreachable
from appliance.signalling.resolver import Server
from appliance.signalling.sip_legs import OutgoingCall
from appliance.sip.call import Call
from appliance.sip.events import Answered, CallEnded, Event, Progress
from appliance.sip.uri import Peer

logger = logging.getLogger(__name__)

PATIENCE_S: Final = 4.0
"""How long a server may say nothing at all, not even 100, before the next one is tried; the last one is waited for."""

_FAILED: Final = (408, 503)
"""Statuses that speak of the server, not of the one called: no answer in time, and out of service."""


class Host(Protocol):
    """What a placement needs of the endpoint."""

    def now(self) -> float: ...
    def pump(self) -> None: ...
    def adopt(self, call: Call, outgoing: OutgoingCall, placement: Placement | None) -> None: ...
    def disown(self, call: Call) -> None: ...


class Placement:
    """Tries one server after the other, until one says something of the call itself.

    Args:
        servers: in the order to try them.
        reach: makes the way to one; raises SipUnreachable.
        host: the endpoint.
    """

    def __init__(self, servers: Sequence[Server], reach: Callable[[Server], Awaitable[Peer]], host: Host) -> None:
        self._left = deque(servers)
        self._reach = reach
        self._host = host
        self._outgoing: OutgoingCall | None = None
        self._invite: Callable[[Peer], Call] | None = None
        self._call: Call | None = None
        self._impatience: asyncio.TimerHandle | None = None
        self._moving: asyncio.Task[None] | None = None

    async def first(self) -> Peer:
        """The way to the first server that can be reached.

        Raises:
            SipUnreachable: where none can; with the reason of the last.
        """
        while True:
            server = self._left.popleft()
            try:
                return await self._reach(server)
            except SipUnreachable:
                if not self._left:
                    raise

    def begin(self, outgoing: OutgoingCall, invite: Callable[[Peer], Call]) -> None:
        """The INVITE to the first server has been made; ``invite`` makes one to another."""
        self._outgoing, self._invite = outgoing, invite
        self._watch(outgoing.call)

    def takes(self, event: Event) -> bool:
        """Look at an event of the call under way; true where it means the next server, so that nobody hears of it."""
        if isinstance(event, Progress):
            self._stop_waiting()
            if event.status > 100:
                self._settle()
        elif isinstance(event, Answered):
            self._settle()
        elif isinstance(event, CallEnded):
            self._stop_waiting()
            if self._left and event.by != "local" and event.status in _FAILED and not self._given_up:
                self._move_on(event)
                return True
            self._settle()
        return False

    def abandon(self) -> None:
        """Try no further server."""
        self._left.clear()
        self._stop_waiting()
        if self._moving is not None:
            self._moving.cancel()

    @property
    def _given_up(self) -> bool:
        return self._outgoing is not None and self._outgoing.given_up

    def _watch(self, call: Call) -> None:
        assert self._outgoing is not None
        self._call = call
        self._host.adopt(call, self._outgoing, self if self._left else None)
        if self._left:
            self._impatience = asyncio.get_running_loop().call_later(PATIENCE_S, self._lose_patience)

    def _settle(self) -> None:
        """The call has found its server."""
        self._stop_waiting()
        self._left.clear()
        if self._call is not None and self._outgoing is not None:
            self._host.adopt(self._call, self._outgoing, None)

    def _stop_waiting(self) -> None:
        if self._impatience is not None:
            self._impatience.cancel()
            self._impatience = None

    def _lose_patience(self) -> None:
        self._impatience = None
        call = self._call
        if call is None or not self._left or self._given_up or call.ended:
            return
        self._move_on(CallEnded(call, "network", 408, "no answer from the server"))
        call.hangup(self._host.now(), "no answer")
        self._host.pump()

    def _move_on(self, failure: CallEnded) -> None:
        self._host.disown(failure.call)
        logger.info(
            "server %s: %d %s; trying the next", failure.call.source, failure.status, failure.reason,
            extra={"call_id": failure.call.call_id},
        )  # fmt: skip
        self._moving = asyncio.get_running_loop().create_task(self._try_next(failure), name="next server")

    async def _try_next(self, failure: CallEnded) -> None:
        outgoing, invite = self._outgoing, self._invite
        assert outgoing is not None and invite is not None
        call: Call | None = None
        try:
            while self._left and call is None:
                server = self._left.popleft()
                try:
                    peer = await self._reach(server)
                    if not outgoing.given_up:
                        call = invite(peer)
                except (SipUnreachable, LocalSipError) as error:
                    logger.info("%s", error)
        finally:
            if call is None:
                outgoing.on_event(failure)
        if call is not None:
            outgoing.take_over(call)
            self._watch(call)
            self._host.pump()
