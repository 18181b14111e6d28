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


async def transferring(
    twilio: Edge, caller: str = "+4930111", called: str = "+4930222", ring_s: float = 30.0
) -> tuple[asyncio.Task[int], FakeBoxCall, ET.Element]:
    """A caller on the way to +4930999: what it comes to, the box's side of the call, what Twilio was told."""
    await call_in(twilio, caller, called)
    call, _, box_call = twilio.box.admitted[0]
    transfer = asyncio.create_task(call.transfer("+4930999", None, ring_s))
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


@pytest.mark.parametrize(
    ("caller", "called", "shown"),
    [
        ("+4930111", "+4930222", None),
        ("+266696687", "+4930222", "+4930222"),
        ("anonymous", "+4930222", "+4930222"),
        ("", "2001", "+4930555"),
        ("client:alice", "+4930222", "+4930555"),
        ("client:+4930111", "+1900", "+4930555"),
        ("sip:alice@example.sip.twilio.com", "sip:+4930222@example.sip.twilio.com", "+4930555"),
        ("sip:+4930111@example.sip.twilio.com", "+4930222", "+4930555"),
        ("sip:1001@example.sip.twilio.com", "sip:1002@example.sip.twilio.com", "+4930555"),
    ],
)
async def test_whom_the_target_sees(caller: str, called: str, shown: str | None) -> None:
    """A number that Twilio takes as one of ours: never an address, nor what a client has written."""
    async with edge() as twilio:
        transfer, _, dial = await transferring(twilio, caller, called)
        assert dial.get("callerId") == shown
        await twilio.back(dial.get("action", ""), UNDER_WAY, DialCallStatus="busy")
        assert await transfer == 486


async def test_without_a_number_to_show_the_box_hands_on_itself() -> None:
    async with edge() as twilio:
        twilio.box.caller_id = "reception"
        await call_in(twilio, "sip:alice@example.sip.twilio.com")
        assert not twilio.box.admitted[0][0].can_transfer


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
        assert await call.transfer("+4930999", None) == 408, "it may have rung: the box does not ring it again"
        back = (await twilio.asked_for(5))[4]
        assert connect(back.form["Twiml"])[1] == {"token": "again-1"}
        assert box_call.streams == 1


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
        assert other_end(agent).overs == [(503, False)] and not twilio.box.admitted[0][2].overs


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


@pytest.mark.parametrize(("ring_s", "timeout"), [(15.0, "15"), (20.9, "20"), (0.2, "1"), (9000.0, "600")])
async def test_it_rings_for_as_long_as_the_line_says(ring_s: float, timeout: str) -> None:
    async with edge() as twilio:
        transfer, _, dial = await transferring(twilio, ring_s=ring_s)
        assert dial.get("timeout") == timeout
        await twilio.back(dial.get("action", ""), UNDER_WAY, DialCallStatus="no-answer")
        assert await transfer == 480


@pytest.mark.parametrize("known", [True, False])
async def test_word_of_the_answer_is_lost(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twilio waits with the caller until it is told what to do, so word that it came to nothing would be here."""
    monkeypatch.setattr(twilio_calls, "_TRANSFER_SLACK_S", -30.0)
    async with edge() as twilio:
        twilio.children = [{"sid": "CA9", "status": "in-progress"}] if known else None
        transfer, box_call, dial = await transferring(twilio)
        assert await transfer == 200
        assert twilio.looked == [("CA1", "in-progress")]
        over = await twilio.back(dial.get("action", ""), UNDER_WAY, DialCallStatus="completed", DialBridged="true")
        assert over == (200, HANGUP) and not box_call.streams


async def test_word_comes_while_twilio_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twilio_calls, "_TRANSFER_SLACK_S", -30.0)
    async with edge() as twilio:

        async def ask(call_id: str) -> None:
            dial = verb(twilio.asked[0])
            await twilio.back(dial.get("action", ""), UNDER_WAY, DialCallStatus="busy")

        monkeypatch.setattr(twilio.carrier.api, "talks", ask)
        transfer, box_call, _ = await transferring(twilio)
        assert await transfer == 486
        assert box_call.streams == 1 and len(twilio.asked) == 1


async def test_the_target_still_rings_when_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twilio_calls, "_TRANSFER_SLACK_S", -30.0)
    async with edge() as twilio:
        transfer, box_call, _ = await transferring(twilio)
        assert await transfer == 480
        back = (await twilio.asked_for(2))[1]
        assert connect(back.form["Twiml"])[1] == {"token": "again-1"} and not box_call.overs


def test_what_it_comes_to_is_told_in_time() -> None:
    assert 5.0 < twilio_calls._TRANSFER_SLACK_S < 8.0 - 1.2
    assert 2 * twilio_calls._JOIN_S < 8.0 and twilio_calls._DIRECT_S < 8.0


async def test_a_transfer_that_is_given_up_leaves_alone_those_who_talk() -> None:
    """Word of the answer was lost, or is on its way."""
    async with edge() as twilio:
        twilio.children = [{"sid": "CA9", "status": "in-progress"}]
        transfer, box_call, dial = await transferring(twilio)
        transfer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await transfer
        await settled(twilio)
        assert box_call.overs == [(200, False)] and not box_call.streams
        await twilio.box.admitted[0][0].hangup()
        assert len(twilio.asked) == 1
        over = await twilio.back(dial.get("action", ""), UNDER_WAY, DialCallStatus="completed", DialBridged="true")
        assert over == (200, HANGUP)


async def test_a_transfer_is_given_up_as_the_target_answers() -> None:
    async with edge() as twilio:
        transfer, box_call, _ = await transferring(twilio)
        call = twilio.box.admitted[0][0]
        assert isinstance(call, twilio_calls.TwilioCall)
        call.target_answered("1")
        transfer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await transfer
        await settled(twilio)
        assert box_call.overs == [(200, False)] and not box_call.streams and len(twilio.asked) == 1


async def settled(twilio: Edge) -> None:
    """Wait for what the trunk does in the background."""
    while twilio.carrier._tasks:
        await asyncio.wait(twilio.carrier._tasks)


# --- into a conference -----------------------------------------------------------------------------------------------


class Never:
    """An answer of the API that does not come before ``over``; ``asked`` is set once it is waited for."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.over = asyncio.Event()

    async def __call__(self) -> web.Response:
        self.asked.set()
        await self.over.wait()
        return web.json_response({"sid": "x"})


@pytest.mark.parametrize("half", [1, 2])
async def test_the_caller_hangs_up_while_both_are_being_joined(half: int) -> None:
    """Whom the box has called is not left alone in a conference, at the account's cost."""
    async with edge() as twilio:
        caller, agent = await two_calls(twilio)
        never = Never()
        twilio.answers += [(200, {"sid": "x"}, {})] * (half - 1) + [never]
        transfer = asyncio.create_task(caller.transfer("+4930999", agent))
        await never.asked.wait()
        twilio.box.admitted[0][2].ended = True
        transfer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await transfer
        never.over.set()
        assert other_end(agent).overs == [(503, False)]
        ended = (await twilio.asked_for(2 + half))[-1]
        assert (ended.path, ended.form.get("Status")) == (f"/{agent.call_id}.json", "completed")
        await settled(twilio)
        assert len(twilio.asked) == 2 + half and not twilio.box.admitted[0][2].streams


async def test_joining_takes_too_long_and_the_caller_comes_back_first() -> None:
    async with edge() as twilio:
        caller, agent = await two_calls(twilio)
        never = Never()
        twilio.answers += [(200, {"sid": "x"}, {}), never]
        transfer = asyncio.create_task(caller.transfer("+4930999", agent))
        await never.asked.wait()
        transfer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await transfer
        never.over.set()
        await agent.hangup()
        back, ended = (await twilio.asked_for(5))[3:]
        assert back.path == "/CA1.json" and connect(back.form["Twiml"])[1] == {"token": "again-1"}
        assert (ended.path, ended.form.get("Status")) == (f"/{agent.call_id}.json", "completed")
        assert other_end(agent).overs == [(503, False)] and not twilio.box.admitted[0][2].overs


async def test_nobody_knows_whether_the_target_is_in_the_conference() -> None:
    async with edge() as twilio:
        hurry(twilio)
        caller, agent = await two_calls(twilio)
        twilio.answers += [(502, "", {})] * 4
        assert await caller.transfer("+4930999", agent) == 503
        assert other_end(agent).overs == [(503, False)], "the box does not join the caller with a stream that is gone"
        ended = (await twilio.asked_for(6))[5]
        assert (ended.path, ended.form.get("Status")) == (f"/{agent.call_id}.json", "completed")
        assert not twilio.box.admitted[0][2].streams, "the caller never left"


async def test_twilio_does_not_take_the_target_into_a_conference() -> None:
    async with edge() as twilio:
        caller, agent = await two_calls(twilio)
        twilio.answers.append((400, {"code": 21205, "message": "no"}, {}))
        assert await caller.transfer("+4930999", agent) == 503
        await settled(twilio)
        assert len(twilio.asked) == 2 and not other_end(agent).overs, "both are with the box still, which joins them"
        await agent.hangup()
        assert twilio.asked[2].form.get("Status") == "completed"


async def test_the_target_hangs_up_while_both_are_being_joined() -> None:
    async with edge() as twilio:
        caller, agent = await two_calls(twilio)

        async def gone() -> web.Response:
            await twilio.back(twilio.asked[0].form["StatusCallback"], CallSid=agent.call_id, CallStatus="completed")
            return web.json_response({"sid": "x"})

        twilio.answers.append(gone)
        assert await caller.transfer("+4930999", agent) == 480
        await settled(twilio)
        assert [asked.path for asked in twilio.asked[1:]] == [f"/{agent.call_id}.json"] * 2, "the caller stays here"


async def test_the_target_hangs_up_as_the_caller_comes_into_the_conference() -> None:
    """Twilio would make a new one of it, with nobody else in it."""
    async with edge() as twilio:
        caller, agent = await two_calls(twilio)
        assert await caller.transfer("+4930999", agent) == 200
        await twilio.back(twilio.asked[0].form["StatusCallback"], CallSid=agent.call_id, CallStatus="completed")
        ended = (await twilio.asked_for(4))[3]
        assert (ended.path, ended.form.get("Status")) == ("/CA1.json", "completed")


def other_end(call: CarrierCall) -> FakeBoxCall:
    assert isinstance(call, twilio_calls.TwilioCall) and isinstance(call.box_call, FakeBoxCall)
    return call.box_call
