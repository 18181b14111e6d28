from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from appliance.engines.adapters import EspeakEngine, NoEngine, PocketSphinxEngine, SmartTurnEngine
from appliance.engines.phrase_cache import PhraseCache
from appliance.engines.protocol import Engine
from appliance.engines.speech import SharedSpeech, Source
from appliance.engines.worker import Worker
from appliance.errors import EngineError
from appliance.ipc.messages import Cancel, Failed, JudgeTurn, Recognise, Recognised, Spoken, Synthesise, TurnVerdict
from appliance.ipc.rings import FRAME_SAMPLES, AudioRings

from .virtual_time import run_virtual

FRAMES = 10


@dataclass
class Heard:
    text: str
    confidence: float
    accepted: bool


class Recogniser:
    def __init__(self) -> None:
        self.asked: list[tuple] = []

    def recognise(self, pcm, phrases, pronunciations, *, reject) -> Heard:
        self.asked.append((len(pcm), phrases, pronunciations, reject))
        return Heard(phrases[0], 0.75, not reject)


class Turn:
    def __init__(self) -> None:
        self.asked: list[tuple] = []

    def warm_up(self) -> None:
        self.asked.append(("warm", 0))

    def probability(self, pcm, *, rate_hz) -> float:
        self.asked.append((len(pcm), rate_hz))
        return 0.9


class Synthesiser:
    def __init__(self, chunks: int = 3) -> None:
        self.chunks = chunks
        self.asked: list[tuple] = []
        self.made = 0

    def synthesise(self, text, *, voice="en-us", rate=1.0) -> Iterator[np.ndarray]:
        if voice == "xx":
            raise EngineError("espeak-ng has no voice 'xx'", retryable=False)
        self.asked.append((text, voice, rate))
        for _ in range(self.chunks):
            self.made += 1
            yield np.full(800, self.made, np.int16)


class Inbox:
    def __init__(self) -> None:
        self.messages: list = []
        self.on_message = lambda message: None

    def send(self, message) -> bool:
        self.messages.append(message)
        self.on_message(message)
        return True


@pytest.fixture
def rings() -> AudioRings:
    rings = AudioRings.create(1)
    rings.open(0, 1)
    rings.frames[0] = FRAMES
    return rings


def play(engine, rings, *requests, on_message=None) -> tuple[list, Worker]:
    """What the engine says to requests that come one after the other."""

    async def story():
        assert isinstance(engine, Engine)
        await engine.load()
        worker = Worker("w", engine, rings, now=asyncio.get_running_loop().time)
        inbox = Inbox()
        if on_message is not None:
            inbox.on_message = lambda message: on_message(worker, inbox, message)
        for request in requests:
            worker.handle(inbox, request)
            await asyncio.sleep(1)
        await worker.close()
        return inbox.messages, worker

    return run_virtual(story())


def recognise(language: str = "en-US", phrases: tuple[str, ...] = ("yes", "no")) -> Recognise:
    return Recognise(1, 0, 1, 0, 800, language, phrases, (("yes", "Y EH S"),), True, math.inf)


def shared(synthesiser: Synthesiser, cache: PhraseCache) -> SharedSpeech:
    return SharedSpeech([Source(EspeakEngine(synthesiser, "en-us"), "espeak", levelled=True)], cache)


def synthesise(text: str, voice: str = "", language: str = "en-gb", room: int = 10_000, request: int = 1) -> Synthesise:
    return Synthesise(request, 0, 1, text, language, voice, 1.25, 100, room)


def test_recognition_passes_the_question_and_the_answer_on(rings):
    recogniser = Recogniser()
    (answer,), _ = play(PocketSphinxEngine(recogniser), rings, recognise())
    assert recogniser.asked[1:] == [(800, ("yes", "no"), (("yes", "Y EH S"),), True)]
    assert isinstance(answer, Recognised)
    assert (answer.text, answer.confidence, answer.accepted) == ("yes", 0.75, False)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [(recognise("fr"), "understands English, not 'fr'"), (recognise(phrases=()), "needs the phrases to expect")],
)
def test_what_pocketsphinx_cannot_do_is_said(rings, request_, reason):
    (failed,), _ = play(PocketSphinxEngine(Recogniser()), rings, request_)
    assert isinstance(failed, Failed)
    assert reason in failed.reason
    assert not failed.retryable


def test_the_turn_model_gets_telephone_audio_and_is_told_so(rings):
    model = Turn()
    (answer,), _ = play(SmartTurnEngine(model), rings, JudgeTurn(1, 0, 1, 0, FRAMES * FRAME_SAMPLES, math.inf))
    assert model.asked == [("warm", 0), (1600, 8000)]
    assert isinstance(answer, TurnVerdict)
    assert answer.probability == 0.9


def test_speech_is_passed_on_as_it_comes_and_then_from_the_cache(rings):
    synthesiser = Synthesiser()
    engine = shared(synthesiser, PhraseCache(1 << 20))
    said, worker = play(engine, rings, synthesise("Hello."), synthesise("Hello."))
    assert [(a.tts_end, a.last, a.cached) for a in said] == [
        (900, False, False),
        (1700, False, False),
        (2500, False, False),
        (2500, True, False),
        (2500, True, True),
    ]
    assert synthesiser.asked == [("Ready.", "en-us", 1.0), ("Hello.", "en-gb", 1.25)]
    assert worker.stats().cache_hits == 1
    assert rings.tts[0, 100:2500].all()
    assert not rings.tts[0, 2500:].any()


def test_the_lines_voice_comes_before_its_language_and_the_default(rings):
    synthesiser = Synthesiser()
    engine = shared(synthesiser, PhraseCache(0))
    play(engine, rings, synthesise("a", voice="de+f3"), synthesise("a", voice="", language=""))
    assert [voice for _, voice, _ in synthesiser.asked] == ["en-us", "de+f3", "en-us"]


def test_nothing_to_say_is_said_at_once(rings):
    said, _ = play(shared(Synthesiser(chunks=0), PhraseCache(1 << 20)), rings, synthesise("..."))
    assert [(a.tts_end, a.last) for a in said] == [(100, True)]


def test_an_unknown_voice_fails_for_good(rings):
    said, _ = play(shared(Synthesiser(), PhraseCache(0)), rings, synthesise("a", voice="xx"))
    assert said == [Failed(1, "espeak-ng has no voice 'xx'", False)]


def test_speech_longer_than_its_room_stops_and_is_not_cached(rings):
    synthesiser, cache = Synthesiser(), PhraseCache(1 << 20)
    said, _ = play(shared(synthesiser, cache), rings, synthesise("long", room=1000))
    assert [type(message) for message in said] == [Spoken, Failed]
    assert len(cache) == 0


def test_cancelling_in_the_middle_stops_the_synthesis(rings):
    synthesiser = Synthesiser(chunks=1000)

    def barge_in(worker, inbox, message):
        if len(inbox.messages) == 2:
            asyncio.get_running_loop().call_soon(worker.handle, inbox, Cancel(1))

    engine = shared(synthesiser, PhraseCache(1 << 20))
    said, _ = play(engine, rings, synthesise("long", room=1_000_000), on_message=barge_in)
    assert len(said) <= 4
    assert synthesiser.made < 1010


def test_no_engine_says_which_setting_to_change(rings):
    (failed,), _ = play(NoEngine("tts"), rings, synthesise("a"))
    assert failed == Failed(1, "engines.tts.provider is none; name a provider", False)
