"""Watching calls as they happen: the events of some, kept as long as they last, for whoever follows them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Final

from appliance.events import CallEnded, CallEvent, CallStarted

_MAX_EVENTS: Final = 512
"""Of one call; the oldest give way. A turn has about eight."""

_MAX_ENDED: Final = 16
"""Calls that are over and can still be read to their end."""

_MAX_FOLLOWERS: Final = 4


@dataclass
class WatchedCall:
    """One call. Events count from 1 in the order in which they were said."""

    started: CallStarted
    events: deque[CallEvent] = field(default_factory=lambda: deque(maxlen=_MAX_EVENTS))
    said: int = 0
    ended: bool = False
    followers: set[asyncio.Event] = field(default_factory=set)

    @property
    def crowded(self) -> bool:
        """As many follow it as may."""
        return len(self.followers) >= _MAX_FOLLOWERS

    def take(self, event: CallEvent) -> None:
        self.events.append(event)
        self.said += 1
        self.ended = self.ended or isinstance(event, CallEnded)
        for news in self.followers:
            news.set()

    async def follow(
        self, after: int = 0, idle_s: float | None = None
    ) -> AsyncGenerator[tuple[int, CallEvent | None], None]:
        """Every event behind number ``after`` that is still kept, and those to come, until the call has ended.

        None stands for ``idle_s`` without any.
        """
        news = asyncio.Event()
        self.followers.add(news)
        try:
            while True:
                news.clear()
                oldest = self.said - len(self.events) + 1
                after = max(after, oldest - 1)
                for number, event in enumerate(list(self.events)[after - oldest + 1 :], after + 1):
                    yield number, event
                    after = number
                if after >= self.said:
                    if self.ended:
                        return
                    try:
                        async with asyncio.timeout(idle_s):
                            await news.wait()
                    except TimeoutError:
                        yield after, None
        finally:
            self.followers.discard(news)


class CallWatch:
    """The calls that come by some protocols. A :class:`~appliance.events.CallObserver`.

    Args:
        protocols: such as "browser"; the events of other calls are passed over.
    """

    def __init__(self, protocols: frozenset[str]) -> None:
        self._protocols = protocols
        self._calls: dict[str, WatchedCall] = {}
        self._names: dict[str, str] = {}
        self._over: deque[str] = deque()

    def observe(self, event: CallEvent) -> None:
        if isinstance(event, CallStarted) and event.protocol in self._protocols:
            self._calls[event.call_id] = WatchedCall(event)
            self._names[event.protocol_call_id] = event.call_id
        call = self._calls.get(event.call_id)
        if call is None:
            return
        call.take(event)
        if isinstance(event, CallEnded):
            self._over.append(event.call_id)
            if len(self._over) > _MAX_ENDED:
                gone = self._calls.pop(self._over.popleft())
                self._names.pop(gone.started.protocol_call_id, None)

    def call(self, protocol_call_id: str) -> WatchedCall | None:
        """The call by the far end's name of it, while it is kept."""
        return self._calls.get(self._names.get(protocol_call_id, ""))
