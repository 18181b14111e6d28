from __future__ import annotations

import asyncio
import math

import numpy as np
import pytest
from pydantic import ValidationError

from appliance.engines.builtin import provider_registry
from appliance.engines.fake import (
    STANDARD_FAKES,
    STANDARD_REPLY,
    FakeAsr,
    FakeAsrOptions,
    FakeLlm,
    FakeLlmOptions,
    FakeTtsOptions,
    FakeTurn,
    FakeTurnOptions,
    split_tokens,
    tone,
)
from appliance.engines.worker import Worker
from appliance.ipc.messages import Generate, HeardWord, JudgeTurn, Recognise, TurnVerdict
from appliance.ipc.rings import AudioRings

from .virtual_time import run_virtual


class Inbox:
    def __init__(self) -> None:
        self.said = []

    def send(self, message) -> bool:
        self.said.append((asyncio.get_running_loop().time() - 1000.0, message))
        return True


def play(engine, requests, heard: np.ndarray | None = None) -> list:
    """What the engine says to ``requests`` that all come at once, as (seconds, message)."""

    async def story():
        rings = AudioRings.create(1)
        rings.open(0, 1)
        row = np.zeros(1, np.int64)
        for frame in () if heard is None else heard.reshape(-1, 1, 160):
            rings.record(row, frame, np.zeros_like(frame), row, np.zeros(1, np.bool_))
        worker = Worker("w", engine, rings, now=asyncio.get_running_loop().time)
        inbox = Inbox()
        for request in requests:
            worker.handle(inbox, request)
        await asyncio.sleep(60)
        return inbox.said

    return run_virtual(story())


def test_tokens_come_on_an_absolute_schedule():
    said = play(FakeLlm(FakeLlmOptions(first_token_ms=150, token_ms=15)), [Generate(1, (), math.inf)])
    times = [at for at, _ in said]
    assert times == pytest.approx([0.15 + 0.015 * index for index in range(19)], abs=1e-6)
    assert "".join(message.text for _, message in said) == STANDARD_REPLY
    assert [message.last for _, message in said] == [False] * 18 + [True]


def test_many_requests_are_served_at_the_same_time():
    said = play(FakeLlm(FakeLlmOptions(text="one two")), [Generate(number, (), math.inf) for number in range(400)])
    assert len(said) == 800
    assert {round(at, 6) for at, _ in said} == {0.15, 0.165}


def test_the_turn_fake_has_one_opinion():
    engine = FakeTurn(FakeTurnOptions(probability=0.25, delay_ms=40))
    ((at, message),) = play(engine, [JudgeTurn(1, 0, 1, 0, 160, math.inf)])
    assert at == pytest.approx(0.04)
    assert isinstance(message, TurnVerdict)
    assert message.probability == 0.25
    assert message.ending == ()


def test_every_verdict_says_how_the_speech_sounds_at_its_end():
    engine = FakeTurn(FakeTurnOptions(probability=0.25, delay_ms=0))
    louder = tone(16000) // 4
    softer = np.concatenate([louder, louder[:3200] // 6, np.zeros(800, np.int16)])
    ((_, message),) = play(engine, [JudgeTurn(1, 0, 1, 0, len(softer), math.inf, 0)], softer)
    assert isinstance(message, TurnVerdict)
    pitch, loudness, fall = message.ending
    assert abs(pitch) < 0.5
    assert loudness < -6.0
    assert fall < -6.0


def test_the_tone_is_220_hz_and_does_not_click():
    pcm = tone(8000)
    spectrum = np.abs(np.fft.rfft(pcm))
    assert spectrum.argmax() == 220
    assert pcm[0] == pcm[-1] == 0
    assert len(tone(0)) == 0


def test_an_empty_text_is_one_empty_token():
    assert split_tokens("") == [""]
    assert split_tokens("a b") == ["a", " b"]


def test_the_standard_fakes_are_valid_options():
    assert FakeAsrOptions.model_validate(STANDARD_FAKES["asr"]).delay_ms == 100
    llm = FakeLlmOptions.model_validate(STANDARD_FAKES["llm"])
    assert (llm.first_token_ms, llm.token_ms, llm.text) == (150, 15, STANDARD_REPLY)
    assert FakeTtsOptions.model_validate(STANDARD_FAKES["tts"]).first_audio_ms == 100


def test_nonsense_is_refused():
    with pytest.raises(ValidationError):
        FakeTtsOptions(chunk_ms=0)
    with pytest.raises(ValidationError):
        FakeTurnOptions(probability=2)


def recognise(number: int, end: int, *, final: bool) -> Recognise:
    return Recognise(number, 0, 1, 0, end, "en", (), (), False, math.inf, 1, final)


def test_the_recogniser_says_so_far_what_fits_into_the_audio():
    engine = FakeAsr(FakeAsrOptions(text="book a table", words_per_s=2, delay_ms=50))
    said = play(engine, [recognise(number, end, final=False) for number, end in enumerate((3999, 8000, 80_000))])
    answers = sorted((message for _, message in said), key=lambda message: message.request)
    heard = [(message.text, message.stable, message.words) for message in answers]
    assert heard == [
        ("", 0, ()),
        ("book a", 1, (HeardWord("book", 0, 4000), HeardWord("a", 4000, 8000))),
        (
            "book a table",
            2,
            tuple(HeardWord(word, *at) for word, at in zip(("book", "a", "table"), THIRDS, strict=True)),
        ),
    ]
    assert {round(at, 6) for at, _ in said} == {0.05}


THIRDS = ((0, 4000), (4000, 8000), (8000, 12000))


def test_the_final_result_of_the_recogniser_is_the_whole_text_over_the_whole_of_the_audio():
    ((_, message),) = play(FakeAsr(FakeAsrOptions(text="book a table")), [recognise(1, 12000, final=True)])
    assert (message.text, message.stable) == ("book a table", 3)
    assert [(word.start, word.end) for word in message.words] == list(THIRDS)


def test_partial_results_of_the_fake_recogniser_can_be_turned_off():
    registry = provider_registry()
    assert registry.partials("asr", "fake", {})
    assert not registry.partials("asr", "fake", {"words_per_s": 0})
    assert not registry.partials("asr", "fake", {"words_per_s": "many"})
    assert not registry.partials("asr", "pocketsphinx", {})
    ((_, message),) = play(FakeAsr(FakeAsrOptions(words_per_s=0)), [recognise(1, 12000, final=False)])
    assert (message.text, message.stable, message.words) == ("", 0, ())
