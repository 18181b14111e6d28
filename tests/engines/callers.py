"""Callers for a recogniser: their audio in the rings, their requests through a real worker, and the answers."""

from __future__ import annotations

import asyncio
import math

import numpy as np

from appliance.api import Engine
from appliance.engines.worker import Worker
from appliance.ipc.messages import AnyMessage, Cancel, Recognise, Recognised
from appliance.ipc.rings import FRAME_SAMPLES, RING_FRAMES, AudioRings

SLOTS = 10
GENERATION = 3
DEADLINE_S = 30


class Callers:
    """``async with Callers(engine) as callers``: loads the engine and closes it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.rings = AudioRings.create(SLOTS)
        self.said: dict[int, AnyMessage] = {}
        self._news = asyncio.Event()
        self._number = 0

    async def __aenter__(self) -> Callers:
        await self.engine.load()
        self.worker = Worker("asr-0", self.engine, self.rings)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.worker.close()

    def hear(self, slot: int, pcm: np.ndarray, generation: int = GENERATION) -> int:
        """The caller says this from the connection of the leg on; samples, in whole frames."""
        whole = np.concatenate([pcm, np.zeros(-len(pcm) % FRAME_SAMPLES, np.int16)]).reshape(-1, FRAME_SAMPLES)
        self.rings.open(slot, generation)
        for at, frame in enumerate(whole):
            self.rings.rx[slot, at % RING_FRAMES] = frame
        self.rings.frames[slot] = len(whole)
        return len(whole) * FRAME_SAMPLES

    def send(self, message: AnyMessage) -> bool:
        self.said[message.request] = message  # type: ignore[union-attr]
        self._news.set()
        return True

    def ask(self, slot: int, end: int, **how: object) -> int:
        """A request, by its number."""
        self._number += 1
        asked: dict = {
            "generation": GENERATION, "start": 0, "language": "en", "phrases": (), "pronunciations": (),
            "reject": False, "deadline": math.inf,
        } | how  # fmt: skip
        self.worker.handle(self, Recognise(self._number, slot, end=end, **asked))
        return self._number

    def cancel(self, number: int) -> None:
        self.worker.handle(self, Cancel(number))

    async def answers(self, *numbers: int) -> list:
        async with asyncio.timeout(DEADLINE_S):
            while not all(number in self.said for number in numbers):
                self._news.clear()
                await self._news.wait()
        return [self.said[number] for number in numbers]

    async def answer(self, slot: int, end: int, **how: object) -> AnyMessage:
        (answer,) = await self.answers(self.ask(slot, end, **how))
        return answer

    async def recognise(self, slot: int, end: int, **how: object) -> Recognised:
        answer = await self.answer(slot, end, **how)
        assert isinstance(answer, Recognised), answer
        return answer


def noise(seconds: float, seed: int = 1) -> np.ndarray:
    """int16 that is not silence."""
    return (np.random.default_rng(seed).standard_normal(round(seconds * 8000)) * 3000).astype(np.int16)
