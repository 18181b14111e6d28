"""Calls that come by Twilio: from the webhook to the stream, and what becomes of them."""

from __future__ import annotations

import asyncio
from xml.etree import ElementTree as ET

import pytest

from appliance.api import CarrierCall, CarrierError
from tests.signalling.twilio_edge import Edge, answer, edge

CALL = {"CallSid": "CA1", "From": "+4930111", "To": "+4930222"}
REJECT = '<?xml version="1.0" encoding="UTF-8"?><Response><Reject /></Response>'
HANGUP = '<?xml version="1.0" encoding="UTF-8"?><Response><Hangup /></Response>'


def connect(document: str) -> tuple[str, dict[str, str], str]:
    """The address of a stream, its parameters, and whom to ask when it ends."""
    verb = ET.fromstring(document.encode()).find("Connect")
    assert verb is not None, document
    noun = verb.find("Stream")
    assert noun is not None
    return noun.get("url", ""), {p.get("name", ""): p.get("value", "") for p in noun}, verb.get("action", "")


async def call_in(twilio: Edge, caller: str = "+4930111", called: str = "+4930222") -> str:
    twilio.box.decide = answer
    status, document = await twilio.post("/twilio/voice", {**CALL, "From": caller, "To": called})
    assert status == 200
    return document


async def test_a_call_is_answered_with_a_stream_and_its_token() -> None:
    async with edge() as twilio:
        url, parameters, action = connect(await call_in(twilio))
        assert url == "wss://voice.example.com/twilio/media"
        assert parameters == {"token": "secret-1"}
        assert action.startswith("https://voice.example.com/twilio/pstn/action?")
        _, incoming, _ = twilio.box.admitted[0]
        assert (incoming.call_id, incoming.called, incoming.calling) == ("CA1", "+4930222", "+4930111")


@pytest.mark.parametrize(
    ("status", "document"), [(486, '<Reject reason="busy" />'), (404, "<Reject />"), (503, "<Reject />")]
)
async def test_a_refusal_is_heard_as_busy_or_as_not_in_service(status: int, document: str) -> None:
    async def refuse(call: CarrierCall) -> None:
        await call.ring()
        await call.reject(status, "no")

    async with edge() as twilio:
        twilio.box.decide = refuse
        assert document in (await twilio.post("/twilio/voice", CALL))[1]


async def test_a_webhook_that_comes_twice_is_one_call() -> None:
    async with edge() as twilio:
        twilio.box.decide = answer
        first, second = await asyncio.gather(twilio.post("/twilio/voice", CALL), twilio.post("/twilio/voice", CALL))
        assert first == second == await twilio.post("/twilio/voice", CALL)
        assert len(twilio.box.admitted) == 1


async def test_a_call_that_nothing_answers_in_time_is_refused() -> None:
    async with edge(answer_timeout_s=0.01) as twilio:
        assert await twilio.post("/twilio/voice", CALL) == (200, REJECT)
        call, _, box_call = twilio.box.admitted[0]
        assert box_call.overs == [(503, False)]
        with pytest.raises(CarrierError, match="has gone"):
            await answer(call)


async def test_what_the_network_says_is_offered_to_the_dialplan() -> None:
    async with edge() as twilio:
        twilio.box.decide = answer
        said = {
            "From": "sip:alice@example.com",
            "To": "client:support",
            "CallerName": "ALICE\r\n",
            "StirVerstat": "TN-Validation-Passed-A",
            "ForwardedFrom": "+4930333",
            "SipHeader_X-Account": "17",
            "SipHeader_StirVerstat": "forged",
            "CallToken": "not for the record",
            **{f"SipHeader_X-{number}": "x" * 500 for number in range(60)},
        }
        await twilio.post("/twilio/voice", said)
        _, incoming, _ = twilio.box.admitted[0]
        assert (incoming.calling, incoming.called, incoming.calling_name) == ("alice", "support", "ALICE")
        assert incoming.offered["StirVerstat"] == "TN-Validation-Passed-A"
        assert incoming.offered["ForwardedFrom"] == "+4930333"
        assert (incoming.verstat, incoming.diverted) == ("TN-Validation-Passed", "+4930333")
        assert incoming.offered["X-Account"] == "17"
        assert "CallToken" not in incoming.offered
        assert len(incoming.offered) <= 40 and max(map(len, incoming.offered.values())) <= 256


async def test_a_withheld_number_is_anonymous() -> None:
    async with edge() as twilio:
        twilio.box.decide = answer
        await twilio.post("/twilio/voice", {**CALL, "From": "+266696687"})
        assert twilio.box.admitted[0][1].calling == "anonymous"


async def test_a_stream_that_broke_is_opened_again_while_the_call_is_wanted() -> None:
    async with edge() as twilio:
        _, _, action = connect(await call_in(twilio))
        broke = await twilio.back(action, CALL, CallStatus="in-progress")
        assert broke == await twilio.back(action, CALL, CallStatus="in-progress"), "a retry gets the same answer"
        _, parameters, again = connect(broke[1])
        assert parameters == {"token": "again-1"} and again != action
        twilio.box.admitted[0][2].ended = True
        assert await twilio.back(again, CALL, CallStatus="in-progress") == (200, HANGUP)


async def test_a_stream_that_breaks_again_and_again_ends_the_call() -> None:
    async with edge() as twilio:
        document = await call_in(twilio)
        for _ in range(5):
            document = (await twilio.back(connect(document)[2], CALL, CallStatus="in-progress"))[1]
        assert (await twilio.back(connect(document)[2], CALL, CallStatus="in-progress"))[1] == HANGUP
        assert twilio.box.admitted[0][2].overs == [(503, False)]


async def test_a_call_from_before_a_restart_is_hung_up() -> None:
    async with edge() as twilio:
        assert await twilio.post("/twilio/pstn/action?n=1", CALL, CallStatus="in-progress") == (200, HANGUP)
        assert await twilio.post("/twilio/pstn/dialed?n=1", CALL, CallStatus="in-progress") == (200, HANGUP)
        assert (await twilio.post("/twilio/status", CALL, CallStatus="completed"))[0] == 204


@pytest.mark.parametrize(
    ("word", "status"), [("completed", 200), ("no-answer", 487), ("canceled", 487), ("failed", 487)]
)
async def test_the_caller_hangs_up(word: str, status: int) -> None:
    async with edge() as twilio:
        await call_in(twilio)
        for _ in range(2):
            assert (await twilio.post("/twilio/status", CALL, CallStatus=word))[0] == 204
        assert twilio.box.admitted[0][2].overs[0] == (status, True)


async def test_a_caller_who_hangs_up_while_it_rings_is_told_nothing_more() -> None:
    async with edge() as twilio:
        waiting = asyncio.create_task(twilio.post("/twilio/voice", CALL))
        while not twilio.box.admitted:
            await asyncio.sleep(0)
        await twilio.post("/twilio/status", CALL, CallStatus="canceled")
        assert await waiting == (200, HANGUP)
        assert twilio.box.admitted[0][2].overs == [(487, True)]
        assert (await twilio.post("/twilio/voice", CALL))[1] == HANGUP


async def test_the_box_hangs_up_once_and_the_webhook_says_so_too() -> None:
    async with edge() as twilio:
        _, _, action = connect(await call_in(twilio))
        call, _, _ = twilio.box.admitted[0]
        await call.hangup()
        (asked,) = twilio.asked
        assert asked.path == "/CA1.json" and asked.form["Status"] == "completed"
        assert await twilio.back(action, CALL, CallStatus="in-progress") == (200, HANGUP)


@pytest.mark.parametrize(("status", "code"), [(404, 20404), (400, 21220)])
async def test_a_call_that_has_ended_already_is_well_ended(status: int, code: int) -> None:
    async with edge() as twilio:
        await call_in(twilio)
        twilio.answers.append((status, {"code": code, "message": "gone", "status": status}, {}))
        await twilio.box.admitted[0][0].hangup()
        assert len(twilio.asked) == 1
