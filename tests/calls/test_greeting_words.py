"""The words of a greeting are asked for one stretch at a time, and what does not come changes nothing."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import numpy as np

from appliance.calls.answer_watch import AnswerWatch
from appliance.calls.greeting_words import GreetingWords
from appliance.conversation.answering import Answering, Event, Verdict
from appliance.engines.client import EnginePool
from appliance.engines.greetings import GREETING
from appliance.errors import EngineError
from appliance.ipc.messages import Recognise, Recognised


class Pool:
    """Workers that answer every request with the same words, once they are let."""

    connected = 1

    def __init__(self, text: str = "leave a message", error: EngineError | None = None) -> None:
        self.text, self.error = text, error
        self.asked: list[Recognise] = []
        self.free = asyncio.Event()
        self.free.set()

    def number(self) -> int:
        return len(self.asked) + 1

    async def recognise(self, request: Recognise) -> Recognised:
        self.asked.append(request)
        await self.free.wait()
        if self.error is not None:
            raise self.error
        return Recognised(request.request, self.text, 1.0, True, 0.0, 0.1)


def words_of(pool: Pool) -> GreetingWords:
    return GreetingWords(cast(EnginePool, pool), 3, 7, "en")


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_words_are_asked_for_by_their_samples_and_told() -> None:
    pool, told = Pool(), []
    words_of(pool).hear(800, 16000, True, lambda text, final: told.append((text, final)))
    await settle()
    (request,) = pool.asked
    assert (request.slot, request.generation, request.start, request.end) == (3, 7, 800, 16000)
    assert request.phrases == (GREETING,)
    assert told == [("leave a message", True)]


async def test_one_stretch_is_heard_at_a_time() -> None:
    pool, told = Pool(), []
    pool.free.clear()
    words = words_of(pool)
    for end in (8000, 16000):
        words.hear(0, end, False, lambda text, final: told.append(text))
        await settle()
    assert [request.end for request in pool.asked] == [8000]
    pool.free.set()
    await settle()
    words.hear(0, 24000, True, lambda text, final: told.append(text))
    await settle()
    assert [request.end for request in pool.asked] == [8000, 24000]


async def test_a_recogniser_that_does_not_know_the_language_is_asked_once() -> None:
    pool, told = Pool(error=EngineError("PocketSphinx understands English", retryable=False)), []
    words = words_of(pool)
    for _ in range(2):
        words.hear(0, 8000, True, lambda text, final: told.append(text))
        await settle()
    assert len(pool.asked) == 1
    assert told == []


async def test_no_words_come_after_the_end() -> None:
    pool, told = Pool(), []
    pool.free.clear()
    words = words_of(pool)
    words.hear(0, 8000, True, lambda text, final: told.append(text))
    await settle()
    words.close()
    pool.free.set()
    await settle()
    words.hear(0, 8000, True, lambda text, final: told.append(text))
    await settle()
    assert told == []
    assert len(pool.asked) == 1


async def test_the_words_of_a_greeting_reach_the_detection_of_a_call() -> None:
    pool, events = Pool(), list[Event]()
    silent: Any = lambda start, end: np.zeros(end - start, np.int16)  # noqa: E731
    watch = AnswerWatch(Answering(), silent, lambda tone: None, events.append, words_of(pool))
    watch.answered(100.0, 50)
    for frame in range(50, 110):
        talks = 60 <= frame < 100
        watch.on_tick(100.0 + (frame - 49) * 0.02, frame, -22.0 if talks else -75.0, 0.95 if talks else 0.0, -96.0)
        await settle()
    assert [event.kind for event in events if isinstance(event, Verdict)] == ["machine"]
    request = pool.asked[-1]
    assert 50 * 160 <= request.start <= 60 * 160 < request.end <= 110 * 160
