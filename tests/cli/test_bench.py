"""``appliance bench``: calls that it places, and what it says of them."""

from __future__ import annotations

import json

import pytest
from twilio.request_validator import RequestValidator

from appliance.cli.carrier_caller import Speech
from appliance.cli.carrier_load import Load, Target, stream_of
from appliance.cli.main import main
from appliance.cli.playout import Codec
from appliance.errors import CarrierError
from tests.carriers.peer import Peer, Socket, tone


async def echo(socket: Socket) -> None:
    """Says something, and something else whenever the caller has spoken and is quiet again."""
    await socket.until(lambda: "start" in socket.events)
    await socket.say(tone(0.3))
    heard, spoke = 0, False
    while True:
        await socket.until(lambda seen=heard: len(socket.of("media")) > seen)  # type: ignore[misc]
        heard = len(socket.of("media"))
        loud = socket.of("media")[-1]["media"]["payload"].count("/") < 150
        if spoke and not loud:
            await socket.say(tone(0.3))
        spoke = loud


async def test_calls_are_signed_and_their_answers_are_timed() -> None:
    async with Peer(echo) as peer:
        peer.documents["/voice"] = peer.connect("/after", token="t")
        target = Target(webhook=f"{peer.url}/voice", auth_token="secret")
        speech = [Speech.of(tone(0.2), Codec("pcmu"))]
        async with Load(target, 2, speech, per_s=50) as load:
            await load.place()
            found = await load.measure(4.0)
        assert found.calls == 2
        assert (found.failures, found.violations, found.lost) == ({}, {}, 0)
        assert found.turns >= 1
        assert found.speech_min > 0
        assert found.lead_max_ms > 20
        for path, form, request in peer.posted:
            signed = request.headers["X-Twilio-Signature"]
            assert RequestValidator("secret").validate(peer.url + path, form, signed)
        assert {form["CallStatus"] for form in peer.forms("/after")} == {"completed"}


async def test_calls_that_fail_are_told_apart() -> None:
    async with (
        Peer() as peer,
        Load(Target(webhook=f"{peer.url}/voice"), 2, [Speech.of(tone(0.1), Codec("pcmu"))]) as load,
    ):
        peer.documents["/voice"] = "<Response><Reject/></Response>"
        await load.place()
        assert list(load.failures.values()) == [2]
        assert "answered with Reject" in next(iter(load.failures))


@pytest.mark.parametrize(
    "text", ["", "<Response/>", "<Response><Dial>+49</Dial></Response>", "<!DOCTYPE x><Response/>"]
)
def test_a_document_without_a_stream_is_said(text: str) -> None:
    with pytest.raises(CarrierError):
        stream_of(text)


def test_what_it_needs_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TWILIO_AUTH_TOKEN", raising=False)
    assert main(["bench", "--webhook", "http://127.0.0.1:9/voice"]) == 2
    assert "--account-sid" in capsys.readouterr().err
    assert main(["bench", "--calls", "0"]) == 2


def test_nobody_at_the_address_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "--url", "ws://127.0.0.1:9/media", "--calls", "1", "--seconds", "0.1", "--json"]
    assert main(words) == 1
    assert json.loads(capsys.readouterr().out)["failures"]


@pytest.mark.peer
def test_a_box_of_its_own_holds_its_calls(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--calls", "2", "--seconds", "8", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["calls"], found["lost"], found["failures"], found["violations"]) == (2, 0, {}, {})
    assert found["speech_min"] > 0
    assert found["lead_p99_ms"] > 0
