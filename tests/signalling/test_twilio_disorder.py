"""Webhooks twice, late, in any order, or never; and that nothing is remembered for ever."""

from __future__ import annotations

import asyncio
import contextlib
from xml.etree import ElementTree as ET

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.errors import ApplianceError
from appliance.signalling import twilio as module
from tests.signalling.test_twilio import CALL, HANGUP, call_in
from tests.signalling.test_twilio_placing import FIRST, request
from tests.signalling.twilio_edge import answer, edge

_STATUS = st.sampled_from(
    ["queued", "initiated", "ringing", "in-progress", "completed", "busy", "no-answer", "failed", "canceled", "odd", ""]
)
_NUMBER = st.sampled_from(["", "0", "1", "2", "3", "x" * 50, "%00"])
_WEBHOOK = st.tuples(
    st.sampled_from(["voice", "action", "dialed", "called", "status", "stream", "amd", "answer"]),
    st.sampled_from(["CA1", FIRST, "CA7"]),
    _STATUS,
    _STATUS,
    _NUMBER,
    st.sampled_from(["", "leg-1", "other"]),
)
_DOCUMENTS = ("voice", "action", "dialed", "answer")


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.one_of(_WEBHOOK, st.sampled_from(["transfer", "hangup", "ended"])), max_size=14), st.booleans())
async def test_any_order_of_webhooks_has_answers(
    steps: list[tuple[str, str, str, str, str, str] | str], answers: bool
) -> None:
    """Each question gets a document, each call is admitted once, and a call that has ended is never brought back."""
    async with edge(answer_timeout_s=0.01) as twilio:
        if answers:
            twilio.box.decide = answer
        await twilio.carrier.place(request())
        transfers: list[asyncio.Task[int]] = []
        for step in steps:
            if isinstance(step, str):
                for call, _, box_call in twilio.box.admitted:
                    if step == "transfer":
                        transfers.append(asyncio.create_task(call.transfer("+4930999", None)))
                    elif step == "hangup":
                        await call.hangup()
                    else:
                        box_call.ended = True
                continue
            path, call_id, status, dialled, number, key = step
            query = f"?n={number}&call={call_id}" + (f"&key={key}" if key else "")
            over = [box_call for _, _, box_call in twilio.box.admitted if box_call.ended]
            streams = [box_call.streams for box_call in over]
            form = {**CALL, "CallSid": call_id, "CallStatus": status, "DialCallStatus": dialled}
            found, text = await twilio.post(f"/twilio/pstn/{path}{query}", form)
            assert found == (200 if path in _DOCUMENTS else 204), (step, text)
            if path in _DOCUMENTS:
                assert ET.fromstring(text.encode()).tag == "Response"
            assert [box_call.streams for box_call in over] == streams
        names = [incoming.call_id for _, incoming, _ in twilio.box.admitted]
        assert len(names) == len(set(names))
        for transfer in transfers:
            transfer.cancel()
            with contextlib.suppress(asyncio.CancelledError, ApplianceError):
                await transfer


async def test_calls_that_are_over_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    async with edge() as twilio:
        twilio.carrier._now = lambda: now[0]
        twilio.carrier._swept_at = 0.0
        await call_in(twilio)
        await twilio.post("/twilio/status", CALL, CallStatus="completed")
        for now[0], known in ((20.0, True), (40.0, True), (60.0, False)):
            await twilio.post("/twilio/voice", {**CALL, "CallSid": f"CB{now[0]:.0f}"})
            assert ("CA1" in twilio.carrier._calls) is known
        assert (await twilio.post("/twilio/action?n=1", CALL, CallStatus="in-progress"))[1] == HANGUP


async def test_more_calls_than_can_be_known_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_CALLS", 1)
    async with edge() as twilio:
        await call_in(twilio)
        assert "<Reject" in (await twilio.post("/twilio/voice", {**CALL, "CallSid": "CA2"}))[1]
        assert len(twilio.box.admitted) == 1
