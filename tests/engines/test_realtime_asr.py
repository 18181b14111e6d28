"""Recognition over OpenAI's Realtime protocol against a local server that checks what it is sent."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest
from aiohttp import web
from pydantic import SecretStr, ValidationError

from appliance.audio import g711
from appliance.engines.asr_options import RealtimeAsrOptions
from appliance.engines.builtin import provider_registry
from appliance.engines.realtime_asr import OpenAiRealtimeAsr
from appliance.ipc.messages import Failed
from tests.openai_sim.transcription_sessions import TEXT, Behaviour, SessionSim

from .callers import DEADLINE_S, GENERATION, Callers, noise

WORDS = TEXT.split()


def first(count: int) -> str:
    return " ".join(WORDS[:count])


def asking(server: SessionSim, **options: object) -> Callers:
    chosen = RealtimeAsrOptions.model_validate({"base_url": server.url, "model": "sim"} | options)
    return Callers(OpenAiRealtimeAsr(chosen))


async def test_a_caller_is_understood():
    async with SessionSim(key="sk-1") as server, asking(server, api_key=SecretStr("sk-1")) as callers:
        callers.hear(0, noise(6))
        answer = await callers.recognise(0, 24_000, language="en-GB", hints=("Bistro",))
        assert (answer.text, answer.accepted, answer.stable, answer.confidence) == (first(9), True, 9, 1.0)
        (session,) = server.used
        assert session.settings == [
            {
                "type": "transcription",
                "audio": {
                    "input": {
                        "format": {"type": "audio/pcm", "rate": 24_000},
                        "transcription": {"model": "sim", "language": "en", "prompt": "Bistro"},
                        "turn_detection": None,
                    }
                },
            }
        ]
        assert session.commits == [3 * 48_000]
        assert server.problems == []


async def test_what_was_said_so_far_comes_while_the_caller_speaks():
    async with SessionSim() as server, asking(server) as callers:
        callers.hear(0, noise(8))
        texts = [""]
        for end in range(8000, 48_001, 8000):
            # The filter holds back the newest few hundredths of a second.
            expected = first((end - 800) * 3 // 8000)
            async with asyncio.timeout(DEADLINE_S):
                while not texts[-1].startswith(expected):
                    answer = await callers.recognise(0, end, utterance=1, final=False)
                    assert TEXT.startswith(answer.text) and answer.text.startswith(texts[-1])
                    assert answer.stable == max(len(answer.text.split()) - 1, 0)
                    texts.append(answer.text)
        (session,) = server.used
        final = await callers.recognise(0, 48_000, utterance=1)
        assert final.text == first(18)
        assert session.commits == [6 * 48_000], "no audio is sent twice"
        assert server.problems == []


async def test_an_utterance_goes_on_after_a_silence_in_it():
    async with SessionSim(Behaviour(live=False)) as server, asking(server) as callers:
        callers.hear(0, noise(8))
        assert (await callers.recognise(0, 16_000, utterance=1)).text == first(6)
        partial = await callers.recognise(0, 24_000, utterance=1, final=False)
        assert (partial.text, partial.stable) == (first(6), 6)
        assert (await callers.recognise(0, 32_000, utterance=1)).text == first(12)
        (session,) = server.used
        assert session.commits == [2 * 48_000, 2 * 48_000]
        again = await callers.recognise(0, 32_000, utterance=1)
        assert again.text == first(12)
        assert len(session.commits) == 2, "what has been written down is not asked for again"


async def test_a_new_utterance_forgets_what_was_not_committed():
    async with SessionSim() as server, asking(server) as callers:
        callers.hear(0, noise(8))
        await callers.recognise(0, 16_000, utterance=1, final=False)
        answer = await callers.recognise(0, 32_000, start=24_000, utterance=2)
        (session,) = server.used
        assert session.clears == 1
        assert len(answer.text.split()) == 3
        assert server.problems == []


async def test_the_line_says_what_is_likely_anew_only_when_it_changes():
    async with SessionSim() as server, asking(server) as callers:
        callers.hear(0, noise(8))
        await callers.recognise(0, 8000, hints=("Ann",))
        await callers.recognise(0, 16_000, start=8000, hints=("Ann",))
        await callers.recognise(0, 24_000, start=16_000)
        (session,) = server.used
        asked = [one["audio"]["input"]["transcription"] for one in session.settings]
        assert asked == [
            {"model": "sim", "language": "en", "prompt": "Ann"},
            {"model": "sim", "language": "en", "prompt": ""},
        ]


async def test_expected_phrases_are_chosen_from():
    async with SessionSim(Behaviour(text="Um, book a table.")) as server, asking(server) as callers:
        end = callers.hear(0, noise(2))
        answer = await callers.recognise(0, end, phrases=("book a table", "opening hours"), reject=True)
        assert (answer.text, answer.accepted) == ("book a table", True)


async def test_a_telephones_own_coding_is_sent_as_it_is():
    async with SessionSim() as server, asking(server, format="pcmu") as callers:
        pcm = noise(2)
        end = callers.hear(0, pcm)
        assert (await callers.recognise(0, end)).text == first(6)
        (session,) = server.used
        assert session.audio == g711.encode(pcm, False).tobytes()
        assert session.settings[0]["audio"]["input"]["format"] == {"type": "audio/pcmu"}
        assert server.problems == []


async def test_samples_are_resampled_without_a_seam():
    async with SessionSim() as server, asking(server) as callers:
        tone = (np.sin(2 * np.pi * 500 * np.arange(16_000) / 8000) * 9000).astype(np.int16)
        callers.hear(0, tone)
        for end in (4000, 7200, 11_200):
            await callers.recognise(0, end, utterance=1, final=False)
        await callers.recognise(0, 16_000, utterance=1)
        (session,) = server.used
        sent = np.frombuffer(session.audio, "<i2").astype(float)
        expected = np.sin(2 * np.pi * 500 * np.arange(48_000) / 24_000) * 9000
        assert len(sent) == 48_000
        assert np.abs(sent - expected)[500:-500].max() < 200


async def test_the_older_dialect():
    async with SessionSim() as server, asking(server, dialect="beta", format="pcmu") as callers:
        end = callers.hear(0, noise(1))
        assert (await callers.recognise(0, end)).text == first(3)
        (session,) = server.used
        assert session.headers["OpenAI-Beta"] == "realtime=v1"
        assert session.settings == [
            {
                "input_audio_format": "g711_ulaw",
                "input_audio_transcription": {"model": "sim", "language": "en"},
                "turn_detection": None,
            }
        ]


async def test_how_sure_the_model_is():
    async with SessionSim(Behaviour(logprob=-0.5)) as server, asking(server, logprobs=True) as callers:
        answer = await callers.recognise(0, callers.hear(0, noise(1)))
        assert answer.confidence == pytest.approx(0.607, abs=0.001)
        assert server.used[0].settings[0]["include"] == ["item.input_audio_transcription.logprobs"]
        assert server.problems == []


async def test_sockets_are_kept_ready_and_one_belongs_to_each_call():
    async with SessionSim() as server, asking(server, warm=2) as callers:
        await server.until(lambda: len(server.sessions) == 2)
        for slot in range(2):
            callers.hear(slot, noise(2))
            await callers.recognise(slot, 8000)
            await callers.recognise(slot, 16_000, start=8000)
        assert [len(session.commits) for session in server.sessions[:2]] == [2, 2]
        await server.until(lambda: len(server.sessions) == 4)


async def test_the_next_call_in_a_slot_has_a_socket_of_its_own():
    async with SessionSim() as server, asking(server) as callers:
        callers.hear(0, noise(2))
        await callers.recognise(0, 8000)
        old = server.used[0]
        callers.hear(0, noise(2), generation=GENERATION + 1)
        await callers.recognise(0, 8000, generation=GENERATION + 1)
        async with asyncio.timeout(30):
            await old.closed.wait()
        assert len(server.used) == 2


async def test_a_silent_call_lets_go_of_its_socket():
    async with SessionSim() as server, asking(server, warm=0, idle_s=0.1) as callers:
        callers.hear(0, noise(2))
        await callers.recognise(0, 8000)
        async with asyncio.timeout(30):
            await server.used[0].closed.wait()
        await callers.recognise(0, 16_000, start=8000)
        assert len(server.used) == 2


async def test_a_connection_that_breaks_is_replaced_and_the_audio_told_again():
    async with SessionSim(Behaviour(drop_after=2)) as server, asking(server) as callers:
        callers.hear(0, noise(8))
        assert (await callers.recognise(0, 16_000, utterance=1)).text == first(6)
        assert (await callers.recognise(0, 32_000, utterance=1)).text == first(12)
        assert [session.commits for session in server.used] == [[96_000, 96_000], [192_000]]


async def test_an_item_that_failed_is_asked_for_again():
    async with SessionSim(Behaviour(fail_items=1)) as server, asking(server) as callers:
        assert (await callers.recognise(0, callers.hear(0, noise(2)))).text == first(6)
        server.behaviour.fail_items = 9
        failed = await callers.answer(0, 16_000, start=1600)
        assert isinstance(failed, Failed)
        assert failed.reason == f"sim at 127.0.0.1:{server.port}: it broke"


async def test_a_session_that_is_refused_says_what_to_look_at():
    async with SessionSim(Behaviour(refuse="model 'sim' does not transcribe")) as server, asking(server) as callers:
        failed = await callers.answer(0, callers.hear(0, noise(2)))
        assert isinstance(failed, Failed)
        assert "refuses the session: model 'sim' does not transcribe; check engines.asr.model" in failed.reason


async def test_a_key_that_is_refused_says_so_and_is_not_shown():
    async with SessionSim(key="right") as server, asking(server, api_key=SecretStr("sk-9")) as callers:
        failed = await callers.answer(0, callers.hear(0, noise(2)))
        assert "401" in failed.reason and "set api_key" in failed.reason and "sk-9" not in failed.reason


async def test_a_text_that_does_not_come_is_given_up_in_time():
    async with SessionSim(Behaviour(silent=True)) as server, asking(server) as callers:
        failed = await callers.answer(0, callers.hear(0, noise(2)), deadline=time.monotonic() + 0.4)
        assert isinstance(failed, Failed)


async def test_what_is_too_short_to_be_committed_is_made_longer():
    async with SessionSim() as server, asking(server) as callers:
        callers.hear(0, noise(2))
        answer = await callers.recognise(0, 160)
        assert answer.text == ""
        assert server.used[0].commits == [4800]


async def test_a_final_request_that_is_cancelled_keeps_the_session():
    async with SessionSim(Behaviour(delay_s=0.1, live=False)) as server, asking(server) as callers:
        callers.hear(0, noise(8))
        number = callers.ask(0, 16_000, utterance=1)
        await server.until(lambda: bool(server.used) and bool(server.used[0].commits))
        callers.cancel(number)
        answer = await callers.recognise(0, 32_000, utterance=1)
        assert answer.text == first(12)
        assert [session.commits for session in server.used] == [[96_000, 96_000]]


async def test_many_callers_at_once():
    async with SessionSim(Behaviour(delay_s=0.02)) as server, asking(server) as callers:
        ends = [callers.hear(slot, noise(1 + slot / 3)) for slot in range(8)]
        answers = await callers.answers(*(callers.ask(slot, end) for slot, end in enumerate(ends)))
        assert [answer.text for answer in answers] == [first(3 + slot) for slot in range(8)]
        assert len(server.used) == 8


def test_the_options():
    assert provider_registry().partials("asr", "openai_realtime", {"base_url": "wss://h/v1", "model": "m"})
    assert RealtimeAsrOptions(base_url="https://h/v1/", model="m").base_url == "wss://h/v1"
    for url in ("here", "ftp://h", "wss://u:p@h/v1", "wss://h/v1/realtime", "wss://h/v1?model=m"):
        with pytest.raises(ValidationError):
            RealtimeAsrOptions(base_url=url, model="m")


async def test_keys_are_not_taken_to_where_a_server_redirects():
    async with SessionSim() as elsewhere:
        app = web.Application()
        target = elsewhere.url.replace("ws://127.0.0.1", "http://localhost")

        async def redirect(request: web.Request) -> web.Response:
            return web.Response(status=307, headers={"Location": f"{target}/realtime?intent=transcription"})

        app.router.add_get("/v1/realtime", redirect)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        options = RealtimeAsrOptions.model_validate(
            {
                "base_url": f"ws://127.0.0.1:{runner.addresses[0][1]}/v1",
                "model": "sim",
                "extra_headers": {"X-Key": "hush"},
                "warm": 0,
            }
        )
        async with Callers(OpenAiRealtimeAsr(options)) as callers:
            callers.hear(0, noise(2))
            answer = await callers.answer(0, 8000)
        await runner.cleanup()
        assert isinstance(answer, Failed) and "redirects to http://localhost" in answer.reason
        assert elsewhere.sessions == []


@pytest.mark.parametrize(
    ("kind", "provider"),
    [
        ("asr", "openai_compatible"),
        ("asr", "openai_realtime"),
        ("tts", "openai_compatible"),
        ("speech", "openai_realtime"),
    ],
)
@pytest.mark.parametrize(
    "key", [{"api_key": "a\nb"}, {"extra_headers": {"X-Key": "a\nb"}}, {"extra_headers": {"a b": "c"}}]
)
def test_keys_that_no_header_can_carry_are_refused(kind: str, provider: str, key: dict[str, object]):
    options = {"base_url": "http://127.0.0.1:1/v1", "model": "m"} | key
    assert provider_registry().validate_options(kind, provider, options), (provider, key)
