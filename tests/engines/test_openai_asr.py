"""Recognition over HTTP against a local server that checks what it is sent."""

from __future__ import annotations

import asyncio
import json
import time

import numpy as np
import pytest
from pydantic import SecretStr, ValidationError

from appliance.engines.asr_options import OpenAiAsrOptions
from appliance.engines.builtin import provider_registry
from appliance.engines.openai_asr import OpenAiAsr
from appliance.ipc.messages import Failed, HeardWord
from tests.openai_sim.transcriptions import Answer, TranscriptionSim

from .callers import Callers, noise

TEXT = "I would like to book a table for four."


def asking(server: TranscriptionSim, **options: object) -> Callers:
    chosen = OpenAiAsrOptions.model_validate({"base_url": server.url, "model": "sim"} | options)
    return Callers(OpenAiAsr(chosen, jitter=lambda: 0.0))


async def test_a_caller_is_understood_and_each_word_has_its_time():
    async with TranscriptionSim(key="sk-1") as server, asking(server, api_key=SecretStr("sk-1")) as callers:
        pcm = noise(4)
        callers.hear(0, pcm)
        answer = await callers.recognise(0, 24_000, start=1600, language="en-GB", hints=("Bistro", "Ann"))
        assert answer.text == "I would like to book a table for"
        assert answer.accepted and answer.confidence == pytest.approx(0.905, abs=0.01)
        assert answer.words[:2] == (HeardWord("I", 1600, 1600 + 2640), HeardWord("would", 1600 + 2640, 1600 + 5360))
        asked = server.asked[0]
        assert asked.fields == {
            "model": "sim",
            "language": "en",
            "prompt": "Bistro, Ann",
            "response_format": "verbose_json",
            "temperature": "0",
            "timestamp_granularities[]": "word",
        }
        assert asked.granularities == ["segment", "word"]
        assert asked.samples == pcm[1600:24_000].astype("<i2").tobytes()
        assert server.problems == []


async def test_connections_are_opened_in_advance_and_used_again():
    async with TranscriptionSim() as server, asking(server, connections=2) as callers:
        assert len(server.connections) == 2
        callers.hear(0, noise(2))
        for _ in range(5):
            await callers.recognise(0, 16_000)
        assert len(server.connections) == 2


async def test_the_plain_format_has_no_word_times():
    async with TranscriptionSim(formats=("json",)) as server, asking(server, response_format="json") as callers:
        callers.hear(0, noise(4))
        answer = await callers.recognise(0, 24_000, language="")
        assert (answer.text, answer.words, answer.stable, answer.confidence) == (TEXT, (), 9, 1.0)
        assert "language" not in server.asked[0].fields and "prompt" not in server.asked[0].fields
        assert server.problems == []


async def test_words_without_punctuation_are_written_as_in_the_text():
    async with TranscriptionSim(Answer(text="Yes, please.", bare=True)) as server, asking(server) as callers:
        answer = await callers.recognise(0, callers.hear(0, noise(1)))
        assert [word.text for word in answer.words] == ["Yes,", "please."]


async def test_expected_phrases_are_chosen_from():
    async with TranscriptionSim(Answer(text="Uh, book a table, please.")) as server, asking(server) as callers:
        end = callers.hear(0, noise(3))
        answer = await callers.recognise(0, end, phrases=("book a table", "<digits 2 4>", "opening hours"), reject=True)
        assert (answer.text, answer.accepted) == ("book a table", True)
        assert server.asked[0].fields["prompt"] == "book a table, opening hours"


async def test_what_the_server_doubts_is_nothing():
    answer = Answer(text="Thanks for watching!", avg_logprob=-1.4, no_speech_prob=0.9)
    async with TranscriptionSim(answer) as server, asking(server) as callers:
        heard = await callers.recognise(0, callers.hear(0, noise(2)))
        assert (heard.text, heard.accepted, heard.confidence) == ("", False, 0.0)


@pytest.mark.parametrize(
    "trouble",
    [Answer(status=503), Answer(status=429, headers={"Retry-After": "0"}), Answer(die=True), Answer(stall=True)],
)
async def test_a_passing_fault_is_asked_again(trouble):
    async with TranscriptionSim() as server, asking(server, attempt_s=0.5) as callers:
        server.script.append(trouble)
        answer = await callers.recognise(0, callers.hear(0, noise(3)))
        assert answer.text == TEXT
        assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Answer(status=500), "sim at 127.0.0.1:PORT answered 500: said 500"),
        (Answer(status=400), "answered 400: said 400"),
        (Answer(status=404), "answered 404: said 404; check engines.asr.base_url and engines.asr.model 'sim'"),
        (Answer(body="<html>"), "sent no transcript"),
        (Answer(body='{"words": []}'), "sent no transcript (KeyError('text'))"),
        (Answer(body='{"text": "x", "words": [{"word": "x"}]}'), "sent no transcript"),
        (Answer(status=307, headers={"Location": "http://else.where/v1"}), "it redirects to http://else.where/v1; set"),
    ],
)
async def test_a_lasting_fault_says_what_to_do(answer, message):
    async with TranscriptionSim(answer) as server, asking(server, retries=1) as callers:
        failed = await callers.answer(0, callers.hear(0, noise(1)))
        assert isinstance(failed, Failed)
        assert message.replace("PORT", str(server.port)) in failed.reason
        assert len(server.asked) == (2 if answer.status == 500 else 1)


async def test_a_key_is_never_shown():
    async with TranscriptionSim(key="right") as server, asking(server, api_key=SecretStr("sk-wrong")) as callers:
        failed = await callers.answer(0, callers.hear(0, noise(1)))
        assert failed.reason.endswith("refused (Incorrect API key provided: Bearer ***); set engines.asr.api_key")


async def test_a_format_that_the_model_does_not_know_is_named():
    async with TranscriptionSim(formats=("json",)) as server, asking(server) as callers:
        failed = await callers.answer(0, callers.hear(0, noise(1)))
        assert failed.reason.endswith("set engines.asr.response_format to json")


async def test_nothing_is_asked_again_that_would_come_too_late():
    async with TranscriptionSim(Answer(status=503, headers={"Retry-After": "60"})) as server, asking(server) as callers:
        end = callers.hear(0, noise(1))
        failed = await callers.answer(0, end, deadline=time.monotonic() + 20)
        assert isinstance(failed, Failed) and "answered 503" in failed.reason
        assert len(server.asked) == 1


async def test_an_answer_that_nobody_wants_is_let_go_of():
    async with TranscriptionSim(Answer(stall=True)) as server, asking(server) as callers:
        number = callers.ask(0, callers.hear(0, noise(1)))
        asked = await server.wait_asked(1)
        callers.cancel(number)
        async with asyncio.timeout(30):
            await asked.gone.wait()
        assert callers.said == {}


async def test_partial_results_are_asked_for_as_often_as_wanted():
    async with TranscriptionSim() as server, asking(server, partials_every_s=1.0) as callers:
        callers.hear(0, noise(6))
        heard = [await callers.recognise(0, end, utterance=1, final=False) for end in range(4000, 32_001, 4000)]
        assert [round(asked.seconds, 1) for asked in server.asked] == [1.0, 2.0, 3.0, 4.0]
        assert [answer.text for answer in heard[:3]] == ["", "I would like", "I would like"]
        assert [answer.stable for answer in heard] == [0, 0, 0, 3, 3, 6, 6, 9]
        assert heard[-1].text == TEXT and heard[-1].words[0] == HeardWord("I", 0, 2640)
        final = await callers.recognise(0, 32_000, utterance=1)
        assert (final.text, final.stable) == (TEXT, 9)


async def test_without_partial_results_nothing_is_sent_before_the_end():
    async with TranscriptionSim() as server, asking(server) as callers:
        callers.hear(0, noise(6))
        answer = await callers.recognise(0, 32_000, utterance=1, final=False)
        assert (answer.text, answer.accepted, server.asked) == ("", False, [])
    registry = provider_registry()
    options = {"base_url": "http://h/v1", "model": "m"}
    assert not registry.partials("asr", "openai_compatible", options)
    assert registry.partials("asr", "openai_compatible", options | {"partials_every_s": 0.5})


async def test_a_server_that_is_not_there_yet_keeps_nobody_from_starting(caplog):
    server = TranscriptionSim()
    async with server:
        pass
    async with asking(server, retries=0) as callers:
        assert "cannot be reached; check engines.asr.base_url" in caplog.text
        failed = await callers.answer(0, callers.hear(0, noise(1)))
        assert failed.reason.endswith("refuses connections; start it, or check engines.asr.base_url")
        async with server:
            assert (await callers.recognise(0, 8000)).text == "I would like"


async def test_many_callers_at_once():
    async with TranscriptionSim(Answer(delay_s=0.05)) as server, asking(server) as callers:
        ends = [callers.hear(slot, noise(1 + slot / 3)) for slot in range(8)]
        answers = await callers.answers(*(callers.ask(slot, end) for slot, end in enumerate(ends)))
        assert [len(answer.text.split()) for answer in answers] == [3, 4, 5, 6, 7, 8, 9, 9]
        assert len({asked.samples for asked in server.asked}) == 8


def test_mistakes_in_the_options():
    for url in ("here", "ws://h/v1", "http://u:p@h/v1", "http://h/v1/audio/transcriptions"):
        with pytest.raises(ValidationError):
            OpenAiAsrOptions(base_url=url, model="m")
    assert OpenAiAsrOptions(base_url="http://h/v1/", model="m").base_url == "http://h/v1"
    assert "sk-2" not in repr(OpenAiAsrOptions(base_url="http://h", model="m", api_key=SecretStr("sk-2")))


def test_noise_is_heard():
    assert np.abs(noise(0.1)).max() > 1000


async def test_a_transcript_longer_than_anybody_speaks_is_none():
    long = Answer(body=json.dumps({"text": "word " * 100_000}))
    async with TranscriptionSim(long) as server, asking(server, retries=0) as callers:
        answer = await callers.answer(0, callers.hear(0, noise(1)), phrases=("yes", "no"))
        assert isinstance(answer, Failed) and "characters" in answer.reason


async def test_words_lie_within_what_was_sent():
    words = [{"word": "well", "start": -5, "end": 1e300}, {"word": "yes", "start": 1e300, "end": 1e300}]
    body = json.dumps({"text": "well yes", "words": words})
    async with TranscriptionSim(Answer(body=body)) as server, asking(server) as callers:
        answer = await callers.recognise(0, callers.hear(0, noise(1)))
        assert [(word.start, word.end) for word in answer.words] == [(0, 8000), (8000, 8000)]
