"""Callers of Twilio's who are handed on: by a call that Twilio makes itself, or into a conference."""

from __future__ import annotations

import asyncio
from xml.etree import ElementTree as ET

import pytest
from aiohttp import web

from appliance.api import CarrierCall, CarrierError
from appliance.signalling import twilio_calls
from tests.signalling.test_twilio import CALL, HANGUP, call_in, connect
from tests.signalling.test_twilio_placing import hurry, request
from tests.signalling.twilio_edge import Asked, Edge, FakeBoxCall, edge

UNDER_WAY = {**CALL, "CallStatus": "in-progress"}


def verb(asked: Asked) -> ET.Element:
    found = ET.fromstring(asked.form["Twiml"]).find("Dial")
    assert found is not None
    return found


async def transferring(twilio: Edge, caller: str = "+4930111") -> tuple[asyncio.Task[int], FakeBoxCall, ET.Element]:
    """A caller on the way to +4930999: what it comes to, the box's side of the call, what Twilio was told."""
    await call_in(twilio, caller)
    call, _, box_call = twilio.box.admitted[0]
    transfer = asyncio.create_task(call.transfer("+4930999", None))
    asked = (await twilio.asked_for(1))[0]
    assert asked.path == "/CA1.json"
    return transfer, box_call, verb(asked)


async def test_the_target_answers() -> None:
    async with edge() as twilio:
        transfer, box_call, dial = await transferring(twilio)
        (number,) = dial
        assert (number.tag, number.text, dial.get("timeout")) == ("Number", "+4930999", "30")
        assert dial.get("callerId") is None, "Twilio shows the caller's own number"
        child = {"CallSid": "CA9", "ParentCallSid": "CA1"}
        await twilio.back(number.get("statusCallback", ""), child, CallStatus="in-progress")
        assert await transfer == 200
        await twilio.box.admitted[0][0].hangup()
        assert len(twilio.asked) == 1, "the call is theirs now: the box's goodbye does not end it"
        over = await twilio.back(dial.get("action", ""), UNDER_WAY, DialCallStatus="completed", DialBridged="true")
        assert over == (200, HANGUP)
        assert box_call.overs == [(200, True)]


@pytest.mark.parametrize(
    ("word", "status"), [("busy", 486), ("no-answer", 480), ("failed", 503), ("canceled", 487), ("strange", 503)]
)
async def test_the_target_does_not_answer_and_the_caller_comes_back(word: str, status: int) -> None:
    async with edge() as twilio:
        transfer, box_call, dial = await transferring(twilio)
        back = await twilio.back(dial.get("action", ""), UNDER_WAY, DialCallStatus=word)
        assert connect(back[1])[1] == {"token": "again-1"}
        assert await transfer == status
        assert await twilio.back(dial.get("action", ""), UNDER_WAY, DialCallStatus=word) == back, "a retry"
        assert not box_call.overs and box_call.streams == 1
        call, _, _ = twilio.box.admitted[0]
        again = asyncio.create_task(call.transfer("+4930999", None))
        second = verb((await twilio.asked_for(2))[1])
        assert second.get("action") != dial.get("action")
        await twilio.back(second[0].get("statusCallback", ""), CallSid="CA10", CallStatus="in-progress")
        assert await again == 200


async def test_word_of_the_answer_comes_with_the_end_only() -> None:
    async with edge() as twilio:
        transfer, box_call, dial = await transferring(twilio)
        back = await twilio.back(dial.get("action", ""), UNDER_WAY, DialCallStatus="completed", DialBridged="true")
        assert back == (200, HANGUP) and await transfer == 200
        assert box_call.overs == [(200, True)]


async def test_the_caller_hangs_up_while_it_rings() -> None:
    async with edge() as twilio:
        transfer, box_call, dial = await transferring(twilio)
        ended = {**CALL, "CallStatus": "completed"}
        assert (await twilio.back(dial.get("action", ""), ended, DialCallStatus="canceled"))[1] == HANGUP
        assert await transfer == 487
        assert box_call.overs == [(200, True)]


async def test_the_box_hangs_up_while_it_rings() -> None:
    async with edge() as twilio:
        transfer, _, dial = await transferring(twilio)
        await twilio.box.admitted[0][0].hangup()
        assert await transfer == 487
        assert twilio.asked[1].form["Status"] == "completed"
        assert (await twilio.back(dial.get("action", ""), UNDER_WAY, DialCallStatus="canceled"))[1] == HANGUP


async def test_the_end_of_the_stream_does_not_bring_back_a_caller_on_the_way() -> None:
    async with edge() as twilio:
        first = connect(await call_in(twilio))[2]
        call, _, box_call = twilio.box.admitted[0]
        transfer = asyncio.create_task(call.transfer("+4930999", None))
        dial = verb((await twilio.asked_for(1))[0])
        _, document = await twilio.back(first, UNDER_WAY)
        assert "<Pause" in document and "<Redirect" in document and not box_call.streams
        await twilio.back(dial[0].get("statusCallback", ""), CallSid="CA9", CallStatus="in-progress")
        assert await transfer == 200


async def test_a_caller_without_a_number_is_shown_as_the_number_called() -> None:
    async with edge() as twilio:
        transfer, _, dial = await transferring(twilio, caller="client:alice")
        assert dial.get("callerId") == "+4930222"
        await twilio.back(dial.get("action", ""), UNDER_WAY, DialCallStatus="busy")
        assert await transfer == 486


async def test_twilio_does_not_take_the_transfer() -> None:
    async with edge() as twilio:
        await call_in(twilio)
        call, _, box_call = twilio.box.admitted[0]
        twilio.answers.append((400, {"code": 21220, "message": "not in progress"}, {}))
        assert await call.transfer("+4930999", None) == 481
        assert not box_call.streams


async def test_nobody_knows_whether_twilio_took_the_transfer() -> None:
    async with edge() as twilio:
        hurry(twilio)
        await call_in(twilio)
        call, _, box_call = twilio.box.admitted[0]
        twilio.answers += [(502, "", {})] * 4
        assert await call.transfer("+4930999", None) == 503
        assert box_call.streams == 1
        assert connect(twilio.asked[4].form["Twiml"])[1] == {"token": "again-1"}


async def two_calls(twilio: Edge) -> tuple[CarrierCall, CarrierCall]:
    await call_in(twilio)
    return twilio.box.admitted[0][0], await twilio.carrier.place(request())


async def test_a_warm_transfer_is_a_conference_of_two() -> None:
    async with edge() as twilio:
        caller, agent = await two_calls(twilio)
        assert await caller.transfer("+4930999", agent) == 200
        first, second = twilio.asked[1:]
        assert (first.path, second.path) == (f"/{agent.call_id}.json", "/CA1.json")
        rooms = [verb(asked)[0] for asked in (first, second)]
        assert rooms[0].text == rooms[1].text and len(rooms[0].text or "") > 30
        for room in rooms:
            assert (room.tag, room.get("beep"), room.get("waitUrl")) == ("Conference", "false", "")
            assert (room.get("endConferenceOnExit"), room.get("maxParticipants")) == ("true", "2")
        for call in (caller, agent):
            await call.hangup()
        assert len(twilio.asked) == 3, "the calls are theirs now"


async def test_a_warm_transfer_of_which_one_half_fails() -> None:
    async with edge() as twilio:
        caller, agent = await two_calls(twilio)
        twilio.answers += [
            lambda: asyncio.sleep(0, web.json_response({"sid": agent.call_id})),
            (400, {"code": 21220, "message": "not in progress"}, {}),
        ]
        assert await caller.transfer("+4930999", agent) == 481
        ended = (await twilio.asked_for(4))[3]
        assert (ended.path, ended.form["Status"]) == (f"/{agent.call_id}.json", "completed")


async def test_a_warm_transfer_needs_both_calls_at_the_same_account() -> None:
    async with edge() as one, edge(account_sid="AC" + "9" * 32) as other:
        caller, _ = await two_calls(one)
        elsewhere = await other.carrier.place(request("leg-9"))
        assert await caller.transfer("+4930999", elsewhere) == 481


async def test_keys_go_as_tones() -> None:
    async with edge() as twilio:
        caller, _ = await two_calls(twilio)
        assert not caller.sends_digits and caller.can_transfer
        with pytest.raises(CarrierError, match="as tones"):
            await caller.send_digits("1")


async def test_a_transfer_that_is_given_up_brings_the_caller_back() -> None:
    async with edge() as twilio:
        transfer, box_call, dial = await transferring(twilio)
        transfer.cancel()
        back = (await twilio.asked_for(2))[1]
        assert connect(back.form["Twiml"])[1] == {"token": "again-1"}
        over = await twilio.back(dial.get("action", ""), UNDER_WAY, DialCallStatus="canceled")
        assert "<Redirect" in over[1] and box_call.streams == 1


async def test_without_word_that_it_came_to_nothing_the_target_has_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twilio waits with the caller until it is told what to do, so this word is not lost; that of the answer may be."""
    monkeypatch.setattr(twilio_calls, "_TRANSFER_SLACK_S", 0.05 - twilio_calls.TRANSFER_RING_S)
    async with edge() as twilio:
        transfer, box_call, dial = await transferring(twilio)
        assert await transfer == 200
        over = await twilio.back(dial.get("action", ""), UNDER_WAY, DialCallStatus="completed", DialBridged="true")
        assert over == (200, HANGUP) and not box_call.streams
