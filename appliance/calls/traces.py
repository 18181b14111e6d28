"""Which SIP messages belong to which call's record, and when they are given to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from appliance.events import CallEnded, CallEvent, CallPlaced, CallStarted, CallTraced
from appliance.signalling.trace import SipTrace

_AFTER_S: Final = 2.0
"""What a peer still has to answer comes within this of the end."""


class CallTraces:
    """A :class:`~appliance.events.CallObserver` that adds the trace of every SIP call to its record.

    Args:
        trace: all messages.
        say: where CallTraced goes.
    """

    def __init__(self, trace: SipTrace, say: Callable[[CallEvent], None]) -> None:
        self._trace = trace
        self._say = say
        self._calls: dict[str, tuple[str, float]] = {}
        self._due: dict[str, asyncio.TimerHandle] = {}

    def observe(self, event: CallEvent) -> None:
        if isinstance(event, CallStarted) and event.protocol == "sip":
            self._calls[event.call_id] = (event.protocol_call_id, event.started_at)
            self._trace.keep(event.protocol_call_id)
        elif isinstance(event, CallPlaced) and event.call_id in self._calls and event.protocol == "sip":
            self._calls[event.call_id] = (event.protocol_call_id, self._calls[event.call_id][1])
            self._trace.keep(event.protocol_call_id)
        elif isinstance(event, CallEnded) and event.call_id in self._calls:
            loop = asyncio.get_running_loop()
            self._due[event.call_id] = loop.call_later(_AFTER_S, self._tell, event.call_id)

    def close(self) -> None:
        """Say what is known of the calls that have just ended."""
        for call_id, timer in list(self._due.items()):
            timer.cancel()
            self._tell(call_id)

    def _tell(self, call_id: str) -> None:
        self._due.pop(call_id, None)
        sip_call_id, started_at = self._calls.pop(call_id)
        if messages := self._trace.take(sip_call_id, started_at):
            self._say(CallTraced(call_id=call_id, messages=messages))
