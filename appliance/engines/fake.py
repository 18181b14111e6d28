"""Engines that do nothing, on time: for benchmarks and tests.

They serve any number of requests at once and keep their delays to the event loop's millisecond, counted from the
moment a request starts; a late token does not make the next one late.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from pydantic import Field

from appliance.api import (
    ChatTurn,
    ConverseRequest,
    EngineContext,
    GenerateRequest,
    JudgeTurnRequest,
    Pcm,
    RecogniseRequest,
    SynthesiseRequest,
    Talk,
)
from appliance.hookspecs import ProviderOptions

RATE_HZ: Final = 8000
TONE_HZ: Final = 220.0
TONE_MS_PER_CHARACTER: Final = 60
STANDARD_REPLY: Final = (
    "Sure, I can help you with that. Your appointment is confirmed for Tuesday at three. Is there anything else?"
)
STANDARD_FAKES: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "asr": MappingProxyType({"delay_ms": 100.0}),
        "llm": MappingProxyType({"first_token_ms": 150.0, "token_ms": 15.0, "text": STANDARD_REPLY}),
        "tts": MappingProxyType({"first_audio_ms": 100.0}),
    }
)
"""Options of the fakes that the appliance's latency figures are measured with."""

_CONCURRENCY: Final = 1024
_AMPLITUDE: Final = 0.2 * 32767
_RAMP_SAMPLES: Final = 40  # 5 ms, so that the tone does not click


class FakeAsrOptions(ProviderOptions):
    """``words_per_s``: how fast ``text`` is said; partial results hold the words said so far, 0 gives none."""

    delay_ms: float = Field(100.0, ge=0)
    text: str = "hello"
    words_per_s: float = Field(3.0, ge=0, le=100)


class FakeLlmOptions(ProviderOptions):
    first_token_ms: float = Field(150.0, ge=0)
    token_ms: float = Field(15.0, ge=0)
    text: str = STANDARD_REPLY


class FakeTtsOptions(ProviderOptions):
    first_audio_ms: float = Field(100.0, ge=0)
    chunk_ms: float = Field(100.0, gt=0)


class FakeTurnOptions(ProviderOptions):
    probability: float = Field(0.99, ge=0, le=1)
    delay_ms: float = Field(30.0, ge=0)


class FakeSpeechOptions(ProviderOptions):
    """``text`` is what it says, ``hears`` what the caller is taken to have said."""

    first_audio_ms: float = Field(300.0, ge=0)
    text: str = STANDARD_REPLY
    hears: str = "hello"


class _Fake:
    """What all fakes have in common: nothing to load, requests one by one, as many at once as there are."""

    kind = ""
    max_batch = 1
    max_wait_s = 0.0
    concurrency = _CONCURRENCY
    cpu_bound = False

    async def load(self) -> None:
        return

    async def close(self) -> None:
        return


class FakeAsr(_Fake):
    """Hears the same text in everything, after ``delay_ms``.

    A partial request is answered with the words that fit into its samples, of which all but the last are stable.
    """

    kind = "asr"

    def __init__(self, options: FakeAsrOptions) -> None:
        self.options = options

    async def run(self, batch: Sequence[RecogniseRequest], context: EngineContext) -> None:
        await asyncio.sleep(self.options.delay_ms / 1000)
        for request in batch:
            text, words = self._heard(request)
            stable = len(words) if request.final else max(len(words) - 1, 0)
            context.recognised(request, text, confidence=1.0, accepted=True, words=words, stable=stable)

    def _heard(self, request: RecogniseRequest) -> tuple[str, list[tuple[str, int, int]]]:
        """The text so far, and its words with their samples."""
        words = self.options.text.split()
        samples = request.end - request.start
        if request.final:
            each = samples / max(len(words), 1)
        elif self.options.words_per_s:
            each = RATE_HZ / self.options.words_per_s
            words = words[: int(samples / each)]
        else:
            return "", []
        timed = [
            (word, request.start + int(index * each), request.start + int((index + 1) * each))
            for index, word in enumerate(words)
        ]
        return (self.options.text if request.final else " ".join(words)), timed


class FakeTurn(_Fake):
    """Has one opinion, after ``delay_ms``."""

    kind = "turn"

    def __init__(self, options: FakeTurnOptions) -> None:
        self.options = options

    async def run(self, batch: Sequence[JudgeTurnRequest], context: EngineContext) -> None:
        await asyncio.sleep(self.options.delay_ms / 1000)
        for request in batch:
            context.verdict(request, self.options.probability)


class FakeLlm(_Fake):
    """Replies with the same text: a word per token, the first after ``first_token_ms``, one every ``token_ms``."""

    kind = "llm"

    def __init__(self, options: FakeLlmOptions) -> None:
        self.options = options
        self._tokens = split_tokens(options.text)

    async def run(self, batch: Sequence[GenerateRequest], context: EngineContext) -> None:
        start = asyncio.get_running_loop().time() + self.options.first_token_ms / 1000
        for index, token in enumerate(self._tokens):
            await _until(start + index * self.options.token_ms / 1000)
            for request in batch:
                context.token(request, token, last=index == len(self._tokens) - 1)
            if all(context.cancelled(request) for request in batch):
                return


class FakeTts(_Fake):
    """Plays a 220 Hz tone of 60 ms per character; after ``first_audio_ms`` all of it, in chunks of ``chunk_ms``."""

    kind = "tts"

    def __init__(self, options: FakeTtsOptions) -> None:
        self.options = options
        self._chunk_samples = max(round(options.chunk_ms * RATE_HZ / 1000), 1)

    async def run(self, batch: Sequence[SynthesiseRequest], context: EngineContext) -> None:
        await asyncio.sleep(self.options.first_audio_ms / 1000)
        for request in batch:
            pcm = tone(len(request.text) * TONE_MS_PER_CHARACTER * RATE_HZ // 1000)
            for start in range(0, max(len(pcm), 1), self._chunk_samples):
                end = start + self._chunk_samples
                if not context.speak(request, pcm[start:end], last=end >= len(pcm)):
                    break
                await context.checkpoint()


class FakeSpeech(_Fake):
    """Answers with a 220 Hz tone of 60 ms per character, after ``first_audio_ms``."""

    kind = "speech"

    def __init__(self, options: FakeSpeechOptions) -> None:
        self.options = options

    async def run(self, batch: Sequence[ConverseRequest], context: EngineContext) -> None:
        (request,) = batch
        talk = context.talk(request)
        talker = _FakeTalker(self.options, talk)
        try:
            await talk.attend(talker)
        finally:
            talker.close()


class _FakeTalker:
    def __init__(self, options: FakeSpeechOptions, talk: Talk) -> None:
        self._options = options
        self._talk = talk
        self._timers: dict[int, asyncio.TimerHandle] = {}

    def close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()

    def hear(self, start: int) -> None:
        """It has no use for what it hears."""

    def caller_silent(self, keep: bool) -> None:
        """It has no use for what it hears."""

    def add(self, message: ChatTurn) -> None:
        """It knows what to say."""

    def respond(self, reply: int, heard: bool) -> None:
        if heard:
            self._talk.caller_words(reply, self._options.hears, final=True)
        loop = asyncio.get_running_loop()
        self._timers[reply] = loop.call_later(self._options.first_audio_ms / 1000, self._speak, reply)

    def cut_short(self, reply: int, heard: int) -> None:
        timer = self._timers.pop(reply, None)
        if timer is not None:
            timer.cancel()

    def _speak(self, reply: int) -> None:
        text = self._options.text
        self._talk.words(reply, text)
        self._talk.say(reply, tone(len(text) * TONE_MS_PER_CHARACTER * RATE_HZ // 1000))
        self._talk.done(reply)


def split_tokens(text: str) -> list[str]:
    """Words, each but the first with the space before it, as language models cut them; at least one."""
    words = text.split(" ")
    return [word if index == 0 else f" {word}" for index, word in enumerate(words)]


def tone(samples: int) -> Pcm:
    """A 220 Hz tone at -17 dBFS RMS, 8 kHz, faded in and out over 5 ms."""
    wave = np.sin(2 * np.pi * TONE_HZ / RATE_HZ * np.arange(samples)) * _AMPLITUDE
    ramp = np.minimum(np.arange(samples) / _RAMP_SAMPLES, 1.0)
    faded: Pcm = (wave * ramp * ramp[::-1]).astype(np.int16)
    return faded


async def _until(when: float) -> None:
    """Sleep to ``when`` on the event loop's clock; not at all if it has passed."""
    delay = when - asyncio.get_running_loop().time()
    if delay > 0:
        await asyncio.sleep(delay)
