"""PocketSphinx hears callers without their noise, unless it is told not to."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from appliance.engines.adapters import LEAD_SAMPLES, PocketSphinxEngine, without_noise
from appliance.engines.builtin import provider_registry

Pcm = NDArray[np.int16]


def hiss(samples: int) -> Pcm:
    return np.random.default_rng(1).normal(0, 300, samples).astype(np.int16)


def power_db(pcm: Pcm) -> float:
    return float(10 * np.log10((pcm.astype(np.float64) ** 2).mean() + 1e-9))


@pytest.mark.parametrize("lead", [0, 37, 12_000])
def test_as_many_samples_come_out_as_are_behind_the_lead(lead: int) -> None:
    assert len(without_noise(hiss(lead + 4321), lead)) == 4321


def test_noise_is_known_by_the_time_the_words_begin() -> None:
    noise = hiss(16_000)
    assert power_db(noise[12_000:]) - power_db(without_noise(noise, 12_000)) >= 6.0


def test_words_keep_their_place() -> None:
    click = np.zeros(16_000, np.int16)
    click[14_000:14_040] = (8000 * np.sin(np.arange(40))).astype(np.int16)
    out = without_noise(click, 12_000)
    assert abs(int(np.abs(out).argmax()) - 2_020) <= 40


class Context:
    """Who asked for what."""

    def __init__(self) -> None:
        self.audio = hiss(80_000)
        self.starts: list[int] = []

    def caller_audio(self, request: Any, start: int | None = None) -> Pcm:
        first = request.start if start is None else start
        self.starts.append(first)
        return self.audio[first : request.end]

    def cancelled(self, request: Any) -> bool:
        return False

    async def checkpoint(self) -> None: ...

    def recognised(self, request: Any, text: str, **more: Any) -> None: ...


class Recogniser:
    def __init__(self) -> None:
        self.heard: list[Pcm] = []

    def recognise(self, pcm: Pcm, *more: Any, **named: Any) -> Any:
        self.heard.append(pcm)
        return SimpleNamespace(text="", confidence=0.0, accepted=False)


@pytest.mark.parametrize(("start", "first"), [(30_000, 30_000 - LEAD_SAMPLES), (500, 0)])
def test_the_line_is_heard_from_before_the_words(start: int, first: int) -> None:
    recogniser, context = Recogniser(), Context()
    request = SimpleNamespace(
        start=start, end=40_000, language="en-us", phrases=("yes",), pronunciations=(), reject=False
    )
    asyncio.run(PocketSphinxEngine(recogniser, denoise=True).run([request], context))  # type: ignore[arg-type, list-item]
    asyncio.run(PocketSphinxEngine(recogniser).run([request], context))  # type: ignore[arg-type, list-item]
    assert context.starts == [first, start]
    assert len(recogniser.heard[0]) == len(recogniser.heard[1]) == 40_000 - start
    np.testing.assert_array_equal(recogniser.heard[1], context.audio[start:40_000])
    assert power_db(recogniser.heard[0][-4000:]) < power_db(recogniser.heard[1][-4000:]) - 6.0


def test_it_is_on_unless_the_box_says_otherwise() -> None:
    options = provider_registry().provider("asr", "pocketsphinx").options
    assert options().model_dump() == {"denoise": True}
    assert provider_registry().validate_options("asr", "pocketsphinx", {"denoise": False}) == []
