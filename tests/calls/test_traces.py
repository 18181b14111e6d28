"""A call's SIP comes to its record once the call is over, also when the box stops."""

from __future__ import annotations

import asyncio

from appliance.calls.traces import CallTraces
from appliance.events import CallEvent, CallTraced
from appliance.signalling.trace import SipTrace
from tests.engines.virtual_time import run_virtual
from tests.store import facts


def bye(call_id: str) -> bytes:
    return f"BYE sip:100@box SIP/2.0\r\nCall-ID: {call_id}\r\n\r\n".encode()


def test_what_comes_after_the_end_is_in_it() -> None:
    async def call() -> None:
        said: list[CallEvent] = []
        trace = SipTrace()
        traces = CallTraces(trace, said.append)
        traces.observe(facts.started("c1"))
        traces.observe(facts.ended("c1"))
        await asyncio.sleep(0.5)
        trace.note(bye("c1@10.0.0.9"), sent=False, peer="p", at=1000.5)
        assert said == []
        await asyncio.sleep(5.0)
        (traced,) = said
        assert isinstance(traced, CallTraced)
        assert [(message["at_s"], message["sent"]) for message in traced.messages] == [(0.5, False)]

    run_virtual(call())


def test_a_stop_waits_for_nothing_and_loses_nothing() -> None:
    async def call() -> None:
        said: list[CallEvent] = []
        trace = SipTrace()
        traces = CallTraces(trace, said.append)
        for call_id in ("c1", "c2"):
            traces.observe(facts.started(call_id))
            trace.note(bye(f"{call_id}@10.0.0.9"), sent=True, peer="p", at=1001.0)
            traces.observe(facts.ended(call_id))
        traces.close()
        assert [event.call_id for event in said] == ["c1", "c2"]
        await asyncio.sleep(5.0)
        assert len(said) == 2

    run_virtual(call())


def test_carriers_calls_have_no_sip() -> None:
    async def call() -> None:
        said: list[CallEvent] = []
        traces = CallTraces(SipTrace(), said.append)
        traces.observe(facts.started("c1", protocol="twilio"))
        traces.observe(facts.ended("c1"))
        await asyncio.sleep(5.0)
        assert said == []

    run_virtual(call())
