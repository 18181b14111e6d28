"""The simulated Twilio against a tiny peer: what it plays, what it answers, what it finds wrong."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from twilio.base.exceptions import TwilioRestException
from twilio.http.async_http_client import AsyncTwilioHttpClient
from twilio.request_validator import RequestValidator
from twilio.rest import Client

from appliance.cli.playout import Codec, Playout
from appliance.cli.stream_caller import TwilioCaller
from appliance.errors import CarrierError
from tests.carriers import twiml
from tests.carriers.peer import Peer, Socket, mulaw, tone
from tests.carriers.twilio_sim import Callee, TwilioSim
from tests.waiting import LIMIT_S, eventually

pytestmark = [  # Twilio's package has not heard of them
    pytest.mark.filterwarnings("ignore:BasicAuth is deprecated"),
    pytest.mark.filterwarnings("ignore:The 'auth' parameter is deprecated"),
]

OUR, THEIR = "+4930123456", "+491711234567"


# --- the buffer, by arithmetic ------------------------------------------------------------------------------------


def payload(seconds: float) -> bytes:
    return Codec("pcmu").encode(tone(seconds))


def test_audio_is_played_from_its_arrival_and_what_follows_is_queued() -> None:
    playout = Playout(Codec("pcmu"))
    playout.receive(payload(0.02), 10.0)
    playout.receive(payload(0.02), 10.001)
    assert playout.end == pytest.approx(10.04)
    assert list(playout.leads) == pytest.approx([0.02, 0.039])
    assert [(run.start, run.end) for run in playout.runs()] == [(10.0, pytest.approx(10.04))]


def test_a_buffer_that_runs_dry_within_an_utterance_is_a_gap() -> None:
    playout = Playout(Codec("pcmu"))
    playout.receive(payload(0.02), 10.0)
    playout.receive(payload(0.02), 10.05)
    assert [(gap.at, gap.seconds) for gap in playout.gaps] == [(pytest.approx(10.02), pytest.approx(0.03))]
    assert len(playout.runs()) == 2


def test_no_gap_where_the_caller_spoke_or_the_buffer_was_cleared_or_it_took_long() -> None:
    for between in ("spoke", "cleared", "long"):
        playout = Playout(Codec("pcmu"))
        playout.receive(payload(0.02), 10.0)
        if between == "spoke":
            playout.caller_active(10.1)
        if between == "cleared":
            playout.clear(10.01)
        playout.receive(payload(0.02), 12.0 if between == "long" else 10.5)
        assert playout.gaps == [], between


def test_a_mark_is_due_when_all_before_it_has_been_played_and_at_once_in_an_empty_buffer() -> None:
    playout = Playout(Codec("pcmu"))
    assert playout.mark("at once", 9.0) == 9.0
    assert playout.passed(9.0) == ["at once"]
    playout.receive(payload(0.1), 10.0)
    assert playout.mark("later", 10.01) == pytest.approx(10.1)
    assert playout.passed(10.09) == []
    assert playout.passed(10.11) == ["later"]


def test_a_clear_cuts_what_is_being_played_and_gives_all_marks_back() -> None:
    playout = Playout(Codec("pcmu"))
    playout.receive(payload(0.1), 10.0)
    playout.mark("one", 10.0)
    playout.receive(payload(0.1), 10.0)
    playout.mark("two", 10.0)
    assert playout.clear(10.05) == ["one", "two"]
    assert playout.played_s(11.0) == pytest.approx(0.05)
    heard = playout.heard(9.9, 10.3)
    assert np.abs(heard[:800]).max() < 300
    assert np.abs(heard[800:1200]).max() > 9000
    assert np.abs(heard[1200:]).max() < 300


def test_what_is_heard_is_what_was_sent_sample_for_sample() -> None:
    playout = Playout(Codec("pcmu"))
    sound = tone(1.0, 333.0)
    coded = Codec("pcmu").encode(sound)
    for at in range(0, 8000, 160):
        playout.receive(coded[at : at + 160], 10.0 + at / 80_000)
    assert np.array_equal(playout.heard(10.0, 11.0), Codec("pcmu").decode(coded))


def test_the_answer_counts_from_the_end_of_speech_to_the_first_sound() -> None:
    playout = Playout(Codec("pcmu"))
    playout.caller_finished(10.0)
    playout.receive(b"\xff" * 160, 10.5)
    playout.receive(payload(0.02), 10.51)
    assert playout.turns == [(10.0, pytest.approx(10.52))]


# --- a stream -----------------------------------------------------------------------------------------------------


async def test_a_stream_begins_as_twilio_s_and_carries_audio_keys_and_stop() -> None:
    async with Peer() as peer:
        caller = await TwilioCaller.open(peer.media_url)
        socket = await _socket(peer)
        said = caller.say(tone(0.1))
        await asyncio.wait_for(said, LIMIT_S)
        caller.press("5")
        await socket.until(lambda: "dtmf" in socket.events)
        await caller.hang_up()
        await socket.until(lambda: "stop" in socket.events)
        assert socket.events[:3] == ["connected", "start", "media"]
        start = socket.of("start")[0]
        assert start["start"]["mediaFormat"] == {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
        assert start["streamSid"] == caller.stream_sid
        media = socket.of("media")
        assert [message["media"]["chunk"] for message in media] == [str(n + 1) for n in range(len(media))]
        numbers = [int(message["sequenceNumber"]) for message in socket.got if "sequenceNumber" in message]
        assert numbers == list(range(1, len(numbers) + 1))
        payloads = [message["media"]["payload"] for message in media]
        spoken = tone(0.1)
        assert mulaw(spoken[:160]) in payloads
        assert caller.ended_by == "us"


async def test_marks_come_back_in_order_once_played() -> None:
    async def script(socket: Socket) -> None:
        await socket.until(lambda: "start" in socket.events)
        await socket.mark("empty")
        await socket.say(tone(0.2))
        await socket.mark("end")

    async with Peer(script) as peer:
        caller = await TwilioCaller.open(peer.media_url)
        socket = await _socket(peer)
        await socket.until(lambda: len(socket.of("mark")) == 2)
        assert [message["mark"]["name"] for message in socket.of("mark")] == ["empty", "end"]
        (_, _), (at, _) = caller.marks_answered
        assert at >= caller.playout.end
        await caller.hang_up()
        assert caller.violations == []


async def test_a_clear_returns_marks_at_once() -> None:
    async def script(socket: Socket) -> None:
        await socket.until(lambda: "start" in socket.events)
        await socket.say(tone(30.0))
        await socket.mark("far")
        await socket.clear()

    async with Peer(script) as peer:
        caller = await TwilioCaller.open(peer.media_url)
        socket = await _socket(peer)
        await socket.until(lambda: bool(socket.of("mark")), 5.0)
        assert caller.playout.clears[0][1] > 25
        await caller.hang_up()


BROKEN = {
    "no JSON": "{",
    "unknown event": {"event": "stop", "streamSid": "SID"},
    "unknown key": {"event": "media", "streamSid": "SID", "media": {"payload": "//8=", "track": "outbound"}},
    "unknown key outside": {"event": "clear", "streamSid": "SID", "now": True},
    "wrong type": {"event": "mark", "streamSid": "SID", "mark": {"name": 1}},
    "no base64": {"event": "media", "streamSid": "SID", "media": {"payload": "*"}},
    "empty": {"event": "media", "streamSid": "SID", "media": {"payload": ""}},
    "another stream": {"event": "clear", "streamSid": "MZ1"},
    "no streamSid": {"event": "clear"},
    "a file": {"event": "media", "streamSid": "SID", "media": {"payload": "UklGRg=="}},
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_breaks_the_schema_is_told(name: str) -> None:
    caller = TwilioCaller()
    message = BROKEN[name]
    import json

    text = message if isinstance(message, str) else json.dumps(message).replace('"SID"', f'"{caller.stream_sid}"')
    with pytest.raises(CarrierError):
        caller.take(text, 1.0)


async def test_nobody_there_is_said() -> None:
    with pytest.raises(CarrierError, match=r"no stream at ws://127\.0\.0\.1:9/x: "):
        await TwilioCaller.open("ws://127.0.0.1:9/x?token=secret")


async def test_a_severed_stream_is_lost_at_both_ends() -> None:
    async with Peer() as peer:
        caller = await TwilioCaller.open(peer.media_url)
        socket = await _socket(peer)
        await socket.until(lambda: "media" in socket.events)
        caller.sever(b"\x81\xfe")
        assert await caller.wait_ended() == "lost"
        await caller.hang_up()
        assert "stop" not in socket.events


async def test_a_network_that_stands_still_loses_nothing() -> None:
    async with Peer() as peer:
        caller = await TwilioCaller.open(peer.media_url)
        socket = await _socket(peer)
        await caller.freeze(0.3)
        sent = caller.frames
        await socket.until(lambda: len(socket.of("media")) >= sent)
        chunks = [int(message["media"]["chunk"]) for message in socket.of("media")]
        assert chunks == list(range(1, len(chunks) + 1))
        await caller.hang_up()


async def test_what_was_heard_before_a_clear_is_still_found() -> None:
    async def script(socket: Socket) -> None:
        await socket.until(lambda: "start" in socket.events)
        await socket.say(tone(1.0))
        await socket.until(lambda: "dtmf" in socket.events)
        await socket.clear()
        await socket.say(tone(0.1))

    async with Peer(script) as peer:
        caller = await TwilioCaller.open(peer.media_url)
        first = await caller.wait_heard(after=0.0)
        caller.press("1")
        second = await caller.wait_heard(after=first + 0.0001)
        assert second > first
        with pytest.raises(CarrierError, match="nothing was heard in time"):
            await caller.wait_heard(after=second + 5, timeout_s=0.2)
        await caller.hang_up()


# --- calls --------------------------------------------------------------------------------------------------------


async def test_a_call_is_signed_streamed_and_asked_about_afterwards() -> None:
    async def script(socket: Socket) -> None:
        await socket.until(lambda: "start" in socket.events)
        await socket.say(tone(0.2))
        await socket.until(lambda: "dtmf" in socket.events)
        await socket.close()

    async with Peer(script) as peer, TwilioSim(f"{peer.url}/voice", status_url=f"{peer.url}/status") as sim:
        peer.documents["/voice"] = peer.connect("/after", token="s3cret")
        peer.documents["/after"] = "<Response><Hangup/></Response>"
        call = await sim.call(OUR, THEIR, caller_name="Ümit")
        stream = await call.streaming()
        await stream.wait_heard(after=0.0)
        stream.press("1")
        assert await call.wait_ended() == "completed"
        path, form, request = peer.posted[0]
        assert path == "/voice"
        assert (form["From"], form["To"], form["CallStatus"]) == (THEIR, OUR, "ringing")
        validator = RequestValidator(sim.auth_token)
        assert validator.validate(f"{peer.url}/voice", form, request.headers["X-Twilio-Signature"])
        assert not validator.validate(f"{peer.url}/voice", form | {"To": "+1"}, request.headers["X-Twilio-Signature"])
        assert peer.sockets[0].of("start")[0]["start"]["customParameters"] == {"token": "s3cret"}
        assert peer.forms("/after")[0]["CallStatus"] == "in-progress"
        assert [form["CallStatus"] for form in peer.forms("/status")] == ["completed"]
        sim.check()


async def test_the_caller_hanging_up_stops_the_stream_and_tells_the_action() -> None:
    async with Peer() as peer, TwilioSim(f"{peer.url}/voice") as sim:
        peer.documents["/voice"] = peer.connect("/after")
        call = await sim.call(OUR, THEIR)
        await call.streaming()
        await call.hang_up()
        assert peer.sockets[0].events[-1] == "stop"
        assert peer.forms("/after")[0]["CallStatus"] == "completed"


async def test_a_call_may_be_rejected() -> None:
    async with Peer() as peer, TwilioSim(f"{peer.url}/voice") as sim:
        peer.documents["/voice"] = '<Response><Reject reason="busy"/></Response>'
        call = await sim.call(OUR, THEIR)
        assert await call.wait_ended() == "busy"
        assert call.answered_at is None


async def test_a_public_address_is_signed_and_the_real_one_asked() -> None:
    async with Peer() as peer:
        reach = {"https://voice.example.com": peer.url, "wss://voice.example.com": peer.url.replace("http", "ws")}
        async with TwilioSim("https://voice.example.com/voice", reach=reach, tls_only=True) as sim:
            peer.documents["/voice"] = (
                '<Response><Connect><Stream url="wss://voice.example.com/media"/></Connect></Response>'
            )
            call = await sim.call(OUR, THEIR)
            await call.streaming()
            await call.hang_up()
            _, form, request = peer.posted[0]
            signed = request.headers["X-Twilio-Signature"]
            assert RequestValidator(sim.auth_token).validate("https://voice.example.com/voice", form, signed)


@pytest.mark.parametrize("outcome", ["busy", "no-answer", "answered"])
async def test_a_dial_ends_as_the_callee_does(outcome: str) -> None:
    async with Peer() as peer, TwilioSim(f"{peer.url}/voice") as sim:
        sim.callees["+49301"] = Callee(outcome=outcome, ring_s=0.01, talk_s=0.05)  # type: ignore[arg-type]
        peer.documents["/voice"] = (
            f'<Response><Dial action="{peer.url}/dialled" timeout="1"><Number statusCallback="{peer.url}/leg" '
            'statusCallbackEvent="initiated ringing answered completed">+49301</Number></Dial></Response>'
        )
        call = await sim.call(OUR, THEIR)
        await call.wait_ended()
        told = peer.forms("/dialled")[0]
        assert told["DialCallStatus"] == {"answered": "completed"}.get(outcome, outcome)
        last = {"answered": ["in-progress", "completed"]}.get(outcome, [outcome])
        legs = peer.forms("/leg")
        assert [form["CallStatus"] for form in legs] == ["initiated", "ringing", *last]
        assert {form["ParentCallSid"] for form in legs} == {call.sid}
        sim.check()


async def test_two_calls_meet_in_a_conference_until_one_leaves() -> None:
    async with Peer() as peer, TwilioSim(f"{peer.url}/voice") as sim:
        peer.documents["/voice"] = (
            '<Response><Dial><Conference endConferenceOnExit="true" beep="false">room</Conference></Dial></Response>'
        )
        one, two = await sim.call(OUR, THEIR), await sim.call(OUR, "+491712222222")
        await one.until(lambda: "room" in sim.rooms and len(sim.rooms["room"].members) == 2, "two in the room")
        assert sim.rooms["room"].started.is_set()
        await one.hang_up()
        assert await two.wait_ended() == "completed"
        sim.check()


# --- the API ------------------------------------------------------------------------------------------------------


class _Api:
    """The package's own client, pointed at the simulator."""

    def __init__(self, sim: TwilioSim, token: str = "") -> None:
        self.http = AsyncTwilioHttpClient()
        self.client = Client(sim.account_sid, token or sim.auth_token, http_client=self.http)
        self.client.api.base_url = sim.api_url

    async def __aenter__(self) -> Client:
        return self.client

    async def __aexit__(self, *_: object) -> None:
        await self.http.close()


async def test_a_placed_call_is_told_of_and_redirected_by_the_api() -> None:
    async with Peer() as peer, TwilioSim(f"{peer.url}/voice") as sim, _Api(sim) as client:
        placed = await client.calls.create_async(
            to=THEIR, from_=OUR, twiml=peer.connect(), status_callback=f"{peer.url}/status",
            status_callback_event=["initiated", "ringing", "answered", "completed"], machine_detection="Enable",
            async_amd="true", async_amd_status_callback=f"{peer.url}/amd",
        )  # fmt: skip
        assert placed.status == "queued"
        call = sim.calls[placed.sid]
        await call.streaming()
        await call.until(lambda: bool(peer.forms("/amd")), "machine detection")
        assert peer.forms("/amd")[0]["AnsweredBy"] == "human"
        await client.calls(placed.sid).update_async(twiml=peer.connect())
        await call.streaming(number=2)
        assert peer.sockets[0].events[-1] == "stop"
        await client.calls(placed.sid).update_async(status="completed")
        assert await call.wait_ended() == "completed"
        statuses = [form["CallStatus"] for form in peer.forms("/status")]
        assert statuses == ["initiated", "ringing", "in-progress", "completed"]
        assert (await client.calls(placed.sid).fetch_async()).status == "completed"
        assert len(await client.calls.list_async()) == 1
        with pytest.raises(TwilioRestException) as refused:
            await client.calls(placed.sid).update_async(status="completed")
        assert refused.value.code == 21220
        sim.check()


async def test_the_api_wants_the_right_token_and_fails_when_told_to() -> None:
    async with TwilioSim() as sim:
        async with _Api(sim, "wrong") as client:
            with pytest.raises(TwilioRestException) as refused:
                await client.calls("CA" + "0" * 32).fetch_async()
            assert refused.value.status == 401
        async with _Api(sim) as client:
            sim.fail("429")
            sim.fail("500")
            for status in (429, 500):
                with pytest.raises(TwilioRestException) as refused:
                    await client.calls.create_async(to=THEIR, from_=OUR, twiml="<Response/>")
                assert refused.value.status == status
            assert (await client.calls.create_async(to=THEIR, from_=OUR, twiml="<Response/>")).sid in sim.calls


async def test_a_lost_answer_has_been_done_and_a_timed_out_one_has_not() -> None:
    async with TwilioSim() as sim, _Api(sim) as client:
        for fault, made in (("timeout", 0), ("lost", 1)):
            sim.fail(fault)  # type: ignore[arg-type]
            asked = len(sim.requests)
            request = asyncio.create_task(client.calls.create_async(to=THEIR, from_=OUR, twiml="<Response/>"))
            await eventually(lambda asked=asked: len(sim.requests) > asked)  # type: ignore[misc]
            await eventually(lambda made=made: len(sim.calls) == made)  # type: ignore[misc]
            assert not (await asyncio.wait([request], timeout=0.1))[0]
            assert len(sim.calls) == made
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)


# --- TwiML --------------------------------------------------------------------------------------------------------

WRONG = [
    "<Response><Dance/></Response>",
    "<Response><Connect><Stream url='https://x/y'/></Connect></Response>",
    "<Response><Connect><Stream url='wss://x/y?token=1'/></Connect></Response>",
    "<Response><Connect/></Response>",
    "<Response><Connect><Stream url='wss://x' track='both_tracks'/></Connect></Response>",
    f"<Response><Connect><Stream url='wss://x'><Parameter name='a' value='{'b' * 500}'/></Stream></Connect></Response>",
    "<Response><Dial/></Response>",
    "<Response><Dial timeout='soon'>+49</Dial></Response>",
    "<Response><Dial><Number>somebody</Number></Dial></Response>",
    "<Response><Reject reason='tired'/></Response>",
    "<Response><Redirect/></Response>",
    "<Say>hello</Say>",
    "<Response><Say>hello</Response>",
]


@pytest.mark.parametrize("text", WRONG)
def test_twiml_is_taken_strictly(text: str) -> None:
    with pytest.raises(twiml.BadTwiml):
        twiml.parse(text)


async def _socket(peer: Peer) -> Socket:
    await eventually(lambda: peer.sockets)
    return peer.sockets[0]
