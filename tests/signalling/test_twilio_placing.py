"""Calls that the box places by Twilio: asked for until there is one, and never two."""

from __future__ import annotations

import asyncio
import base64
import contextlib

import pytest
from aiohttp import web

from appliance.api import CallRequest, CarrierCall, DialError
from appliance.signalling.twilio_rest import TwilioApi
from tests.signalling.test_twilio import HANGUP, connect
from tests.signalling.twilio_edge import ACCOUNT, TOKEN, Edge, FakeBoxCall, edge, stream

FIRST, SECOND = f"CA{1:032x}", f"CA{2:032x}"
BUSY = (503, {"code": 20500, "message": "try again"}, {})


def hurry(twilio: Edge, try_s: float = 5.0) -> None:
    """Let second tries come at once."""
    base = twilio.carrier.api
    twilio.carrier._api = TwilioApi(
        ACCOUNT, TOKEN, base._client.api.base_url, twilio.http, backoff_s=0.01, try_s=try_s, chance=lambda: 0.0
    )


def request(key: str = "leg-1", ring_timeout_s: float = 30) -> CallRequest:
    return CallRequest("+4930999", "+4930222", ring_timeout_s, stream(), key, FakeBoxCall(key))


def box(asked: CallRequest) -> FakeBoxCall:
    assert isinstance(asked.box_call, FakeBoxCall)
    return asked.box_call


async def test_a_call_is_placed_and_gets_its_stream_when_it_is_answered() -> None:
    async with edge() as twilio:
        asked = request()
        call = await twilio.carrier.place(asked)
        assert call.call_id == FIRST
        (sent,) = twilio.asked
        assert sent.path == ".json"
        assert sent.authorization == "Basic " + base64.b64encode(f"{ACCOUNT}:{TOKEN}".encode()).decode()
        assert (sent.form["To"], sent.form["From"], sent.form["Timeout"]) == ("+4930999", "+4930222", "30")
        assert sent.form.getall("StatusCallbackEvent") == ["initiated", "ringing", "answered", "completed"]
        assert "MachineDetection" not in sent.form and "Twiml" not in sent.form
        for status in ("initiated", "ringing", "ringing"):
            await twilio.back(sent.form["StatusCallback"], CallSid=FIRST, CallStatus=status)
        assert box(asked).rang == 1
        first = await twilio.back(sent.form["Url"], CallSid=FIRST, CallStatus="in-progress")
        assert connect(first[1])[1] == {"token": "secret-1"}
        assert await twilio.back(sent.form["Url"], CallSid=FIRST, CallStatus="in-progress") == first
        await twilio.back(sent.form["StatusCallback"], CallSid=FIRST, CallStatus="completed")
        assert box(asked).overs == [(200, True)]


@pytest.mark.parametrize(("where", "status"), [("Url", "in-progress"), ("StatusCallback", "in-progress")])
async def test_an_answer_says_that_it_has_rung(where: str, status: str) -> None:
    """Word of the ringing may be lost: no other trunk rings the same person when the stream cannot be opened."""
    async with edge() as twilio:
        asked = request()
        await twilio.carrier.place(asked)
        await twilio.back(twilio.asked[0].form[where], CallSid=FIRST, CallStatus=status)
        assert box(asked).rang == 1


async def test_the_answer_of_a_second_call_is_not_the_call_s() -> None:
    async with edge() as twilio:
        asked = request()
        await twilio.carrier.place(asked)
        await twilio.back(twilio.asked[0].form["Url"], CallSid="CA" + "e" * 32, CallStatus="in-progress")
        assert box(asked).rang == 0


async def test_machine_detection_runs_beside_the_call() -> None:
    async with edge(machine_detection="detect_message_end", machine_detection_timeout_s=20) as twilio:
        call = await twilio.carrier.place(request())
        form = twilio.asked[0].form
        assert (form["MachineDetection"], form["MachineDetectionTimeout"], form["AsyncAmd"]) == (
            "DetectMessageEnd",
            "20",
            "true",
        )
        await twilio.back(form["AsyncAmdStatusCallback"], CallSid=FIRST, AnsweredBy="machine_end_beep")
        assert getattr(call, "answered_by") == "machine_end_beep"  # noqa: B009 - no part of CarrierCall


@pytest.mark.parametrize(
    ("told", "status"),
    [
        ({"CallStatus": "busy"}, 486),
        ({"CallStatus": "no-answer"}, 480),
        ({"CallStatus": "no-answer", "SipResponseCode": "487"}, 480),
        ({"CallStatus": "canceled"}, 487),
        ({"CallStatus": "failed"}, 503),
        ({"CallStatus": "failed", "SipResponseCode": "404"}, 404),
        ({"CallStatus": "failed", "SipResponseCode": "200"}, 503),
        ({"CallStatus": "failed", "SipResponseCode": "9" * 400}, 503),
        ({"CallStatus": "failed", "ErrorCode": "13224"}, 404),
        ({"CallStatus": "completed"}, 480),
    ],
)
async def test_what_becomes_of_a_call_that_nobody_answers(told: dict[str, str], status: int) -> None:
    async with edge() as twilio:
        asked = request()
        await twilio.carrier.place(asked)
        await twilio.back(twilio.asked[0].form["StatusCallback"], told, CallSid=FIRST)
        assert box(asked).overs == [(status, True)]


async def test_a_ringing_that_comes_after_the_end_is_passed_over() -> None:
    async with edge() as twilio:
        asked = request()
        await twilio.carrier.place(asked)
        callback = twilio.asked[0].form["StatusCallback"]
        await twilio.back(callback, CallSid=FIRST, CallStatus="busy")
        await twilio.back(callback, CallSid=FIRST, CallStatus="ringing")
        assert (box(asked).rang, box(asked).overs) == (0, [(486, True)])


@pytest.mark.parametrize(
    ("http_status", "code", "status", "cause", "remedy"),
    [
        (400, 21211, 404, "malformed", "write it in full"),
        (400, 21210, 403, "caller_id", "Verified Caller IDs"),
        (400, 21212, 403, "caller_id", "caller_id must be"),
        (401, 20003, 503, "auth", "auth_token"),
        (404, 20404, 503, "auth", "account_sid"),
        (400, 21215, 403, "country", "Geo permissions"),
        (403, 21216, 403, "forbidden", "support"),
        (400, 21219, 403, "trial", "verify the number"),
        (400, 99999, 503, "failed", "https://www.twilio.com/docs/errors/99999"),
    ],
)
async def test_a_refusal_says_how_to_fix_it(http_status: int, code: int, status: int, cause: str, remedy: str) -> None:
    async with edge() as twilio:
        twilio.answers.append((http_status, {"code": code, "message": "no\nthank you", "status": http_status}, {}))
        with pytest.raises(DialError, match=remedy) as refused:
            await twilio.carrier.place(request())
        assert (refused.value.status, refused.value.cause) == (status, cause)
        assert str(code) in str(refused.value) and "\n" not in str(refused.value) and TOKEN not in str(refused.value)
        assert len(twilio.asked) == 1, "a refusal is not asked for again"
        assert (await twilio.carrier.place(request())).call_id == FIRST, "the same call may be asked for again"


@pytest.mark.parametrize("answer", [(429, {"code": 20429, "message": "too many"}, {}), BUSY, (500, "nonsense", {})])
async def test_what_the_api_cannot_do_now_is_asked_for_again(answer: tuple[int, object, dict[str, str]]) -> None:
    async with edge() as twilio:
        hurry(twilio)
        twilio.answers += [answer, answer]
        assert (await twilio.carrier.place(request())).call_id == FIRST
        assert len(twilio.asked) == 3


async def test_it_is_not_asked_for_for_ever() -> None:
    async with edge() as twilio:
        hurry(twilio)
        twilio.answers += [(429, {"code": 20429, "message": "too many"}, {})] * 9
        with pytest.raises(DialError, match="max_cps") as refused:
            await twilio.carrier.place(request())
        assert (refused.value.status, refused.value.cause, len(twilio.asked)) == (503, "rate", 4)


async def test_a_wait_that_the_api_asks_for_is_kept_or_given_up() -> None:
    async with edge() as twilio:
        hurry(twilio)
        twilio.answers.append((429, {"code": 20429, "message": "too many"}, {"Retry-After": "3600"}))
        with pytest.raises(DialError, match="no more requests"):
            await twilio.carrier.place(request(ring_timeout_s=5))
        assert len(twilio.asked) == 1


async def test_an_api_that_is_not_there() -> None:
    async with edge(api_url="http://127.0.0.1:9") as twilio:
        hurry(twilio)
        with pytest.raises(DialError, match=r"does not answer .* see that the box reaches api_url") as refused:
            await twilio.carrier.place(request())
        assert (refused.value.status, refused.value.cause) == (503, "failed")


async def test_of_two_calls_for_one_request_only_the_first_gets_a_stream() -> None:
    """The answer to the first request is lost, so that it is sent again; Twilio has placed both."""
    async with edge() as twilio:
        hurry(twilio)

        async def lost() -> web.Response:
            twilio.created()
            return web.Response(status=504)

        twilio.answers.append(lost)
        call = await twilio.carrier.place(request())
        assert call.call_id == SECOND
        url = twilio.asked[0].form["Url"]
        assert url == twilio.asked[1].form["Url"]
        answered = await asyncio.gather(
            twilio.back(url, CallSid=SECOND, CallStatus="in-progress"),
            twilio.back(url, CallSid=FIRST, CallStatus="in-progress"),
        )
        assert "<Stream" in answered[0][1] and answered[1][1] == HANGUP
        ended = (await twilio.asked_for(3))[2]
        assert (ended.path, ended.form["Status"]) == (f"/{FIRST}.json", "completed")
        await twilio.back(twilio.asked[0].form["StatusCallback"], CallSid=FIRST, CallStatus="completed")
        assert not call.box_call.overs  # type: ignore[attr-defined]


async def test_a_call_whose_answer_was_lost_is_known_by_its_callback() -> None:
    async with edge() as twilio:

        async def lost() -> web.Response:
            twilio.created()
            status = twilio.asked[-1].form["StatusCallback"]
            await twilio.back(status, CallSid=FIRST, CallStatus="initiated")
            return web.Response(status=502)

        twilio.answers.append(lost)
        call = await twilio.carrier.place(request())
        assert (call.call_id, len(twilio.asked)) == (FIRST, 1)


async def test_a_call_that_was_given_up_is_ended_when_it_turns_up() -> None:
    async with edge() as twilio:
        hurry(twilio, try_s=0.05)
        go = asyncio.Event()

        async def silent() -> web.Response:
            await go.wait()
            return web.Response(status=504)

        twilio.answers += [silent] * 4
        with pytest.raises(DialError, match="TimeoutError"):
            await twilio.carrier.place(request())
        go.set()
        form = twilio.asked[0].form
        await twilio.back(form["StatusCallback"], CallSid=FIRST, CallStatus="ringing")
        assert (await twilio.asked_for(5))[4].path == f"/{FIRST}.json"
        assert (await twilio.back(form["Url"], CallSid=FIRST, CallStatus="in-progress"))[1] == HANGUP
        with pytest.raises(DialError, match="has been placed"):
            await twilio.carrier.place(request())


async def test_the_same_call_asked_for_twice_is_one() -> None:
    async with edge() as twilio:
        one, two = await asyncio.gather(twilio.carrier.place(request()), twilio.carrier.place(request()))
        assert one is two is await twilio.carrier.place(request())
        assert len(twilio.asked) == 1
        other = await twilio.carrier.place(request("leg-2"))
        assert other.call_id == SECOND


async def test_nobody_waits_for_it_any_more_while_it_is_placed() -> None:
    async with edge() as twilio:
        reached, go = asyncio.Event(), asyncio.Event()

        async def slow() -> web.Response:
            reached.set()
            await go.wait()
            return twilio.created()

        twilio.answers.append(slow)
        placing = asyncio.create_task(twilio.carrier.place(request()))
        await reached.wait()
        placing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await placing
        go.set()
        ended = (await twilio.asked_for(2))[1]
        assert (ended.path, ended.form["Status"]) == (f"/{FIRST}.json", "completed")


async def test_an_answer_to_a_key_of_before_a_restart_is_hung_up() -> None:
    async with edge() as twilio:
        assert await twilio.post("/twilio/pstn/answer?key=old", CallStatus="in-progress") == (200, HANGUP)


async def test_a_call_that_is_hung_up_before_its_answer_gets_no_stream() -> None:
    async with edge() as twilio:
        call: CarrierCall = await twilio.carrier.place(request())
        await call.hangup()
        assert twilio.asked[1].form["Status"] == "completed"
        assert (await twilio.back(twilio.asked[0].form["Url"], CallSid=FIRST, CallStatus="in-progress"))[1] == HANGUP


async def test_a_trunk_without_a_caller_id_places_no_calls() -> None:
    async with edge() as twilio:
        asked = CallRequest("+4930999", "", 30, stream(), "leg-1", FakeBoxCall("leg-1"))
        with pytest.raises(DialError, match="trunk 'pstn' has no caller_id; set it to a number of the account"):
            await twilio.carrier.place(asked)
        assert not twilio.asked
