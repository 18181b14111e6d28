"""What all synthesisers share: the cache, joined requests, the order of work, and who speaks when one fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from appliance.config import Settings
from appliance.engines.builtin import provider_registry
from appliance.engines.phrase_cache import PhraseCache
from appliance.engines.speech import REST_S, SharedSpeech, Source, shared_speech
from appliance.engines.worker import Worker
from appliance.errors import EngineError
from appliance.ipc.messages import Cancel, Failed, Spoken, Synthesise
from appliance.ipc.rings import AudioRings

from .virtual_time import run_virtual

CHUNK = 800


class Voice:
    """Speaks three chunks of the request's number of letters, 0.1 s apart; ``broken`` says after how many it fails."""

    kind = "tts"
    max_batch = 1
    max_wait_s = 0.0
    cpu_bound = False

    def __init__(self, concurrency: int = 1, value: int = 7) -> None:
        self.concurrency = concurrency
        self.value = value
        self.asked: list[str] = []
        self.voices: list[str] = []
        self.stopped: list[str] = []
        self.broken: int | None = None
        self.delay_s = 0.1
        self.loaded = False

    async def load(self) -> None:
        self.loaded = True

    async def close(self) -> None:
        self.loaded = False

    async def run(self, batch: Sequence[Any], context: Any) -> None:
        for request in batch:
            self.asked.append(request.text)
            self.voices.append(request.voice)
            try:
                for count in range(3):
                    await asyncio.sleep(self.delay_s)
                    if self.broken == count:
                        raise EngineError("the voice broke")
                    if not context.speak(request, np.full(CHUNK, self.value, np.int16), last=count == 2):
                        return
            except asyncio.CancelledError:
                self.stopped.append(request.text)
                raise


@dataclass
class Box:
    """A worker with 4 slots and one client."""

    worker: Worker
    rings: AudioRings
    messages: list[Any]

    def send(self, message: Any) -> bool:
        self.messages.append((asyncio.get_running_loop().time(), message))
        return True

    def ask(self, request: Synthesise) -> None:
        self.worker.handle(self, request)

    def answers(self, number: int) -> list[Any]:
        return [message for _, message in self.messages if message.request == number]

    def ended_at(self, number: int) -> float:
        return next(at for at, m in self.messages if m.request == number and (isinstance(m, Failed) or m.last))

    def audio(self, slot: int, start: int, samples: int) -> np.ndarray:
        return self.rings.tts[slot, start : start + samples]


def ask(number: int, text: str = "hello", slot: int = 0, **more: Any) -> Synthesise:
    return Synthesise(number, slot, 1, text, "en", "", 1.0, 0, 20_000, **more)


def play(
    story: Callable[[Box], Coroutine[Any, Any, None]], *voices: Voice, exact: bool = False, cache_bytes: int = 1 << 20
) -> Box:
    rings = AudioRings.create(4)
    for slot in range(4):
        rings.open(slot, 1)

    async def run() -> Box:
        sources = [
            Source(voice, f"voice{index}", levelled=True, exact=exact, first_audio_s=0.5)
            for index, voice in enumerate(voices)
        ]
        speech = SharedSpeech(sources, PhraseCache(cache_bytes))
        await speech.load()
        worker = Worker("w", speech, rings, now=asyncio.get_running_loop().time)
        box = Box(worker, rings, [])
        await story(box)
        await worker.close()
        return box

    return run_virtual(run())


def test_a_phrase_is_spoken_once_for_calls_one_after_the_other():
    voice = Voice()

    async def story(box):
        box.ask(ask(1, slot=0))
        await asyncio.sleep(1)
        box.ask(ask(2, slot=1))
        await asyncio.sleep(0.001)

    box = play(story, voice)
    assert voice.asked == ["hello"]
    assert [(a.tts_end, a.last, a.cached) for a in box.answers(2)] == [(2400, True, True)]
    assert (box.audio(1, 0, 2400) == 7).all()
    assert box.worker.stats().cache_hits == 1


def test_a_call_joins_a_phrase_that_is_being_spoken_for_another():
    voice = Voice()

    async def story(box):
        box.ask(ask(1, slot=0))
        await asyncio.sleep(0.15)
        box.ask(ask(2, slot=1))
        await asyncio.sleep(1)

    box = play(story, voice)
    assert voice.asked == ["hello"]
    assert [a.tts_end for a in box.answers(2)] == [800, 1600, 2400, 2400]
    assert box.ended_at(1) == box.ended_at(2)
    assert (box.audio(1, 0, 2400) == 7).all()


def test_other_texts_voices_languages_and_rates_are_other_phrases():
    voice = Voice(concurrency=8)

    async def story(box):
        base = ask(1)
        for number, changes in enumerate([{}, {"text": "b"}, {"voice": "x"}, {"language": "de"}, {"rate": 1.5}], 1):
            fields = {name: getattr(base, name) for name in base.__struct_fields__}
            box.ask(Synthesise(**{**fields, **changes, "request": number, "slot": number % 4}))
        await asyncio.sleep(1)

    play(story, voice)
    assert len(voice.asked) == 5


def test_one_of_two_callers_hanging_up_does_not_stop_the_phrase_for_the_other():
    voice = Voice()

    async def story(box):
        box.ask(ask(1, slot=0))
        box.ask(ask(2, slot=1))
        await asyncio.sleep(0.15)
        box.ask(Cancel(1))
        await asyncio.sleep(1)

    box = play(story, voice)
    assert voice.stopped == []
    assert box.answers(2)[-1].last


def test_when_nobody_wants_it_any_more_the_voice_is_stopped_at_once():
    voice = Voice()
    stopped_at = []

    async def story(box):
        box.ask(ask(1, slot=0))
        box.ask(ask(2, slot=1))
        await asyncio.sleep(0.15)
        box.ask(Cancel(1))
        box.ask(Cancel(2))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        stopped_at.append(list(voice.stopped))
        box.ask(ask(3, slot=2))
        await asyncio.sleep(1)

    box = play(story, voice)
    assert stopped_at == [["hello"]]
    assert voice.asked == ["hello", "hello"], "half a phrase is not kept"
    assert box.answers(3)[-1].last


def test_what_a_caller_waits_for_goes_before_what_continues_and_both_before_what_nobody_waits_for():
    voice = Voice()

    async def story(box):
        box.ask(ask(1, "running"))
        await asyncio.sleep(0.05)
        box.ask(ask(2, "ahead", slot=-1))
        box.ask(ask(3, "next sentence", slot=1))
        box.ask(ask(4, "first words", slot=2, urgent=True))
        await asyncio.sleep(3)

    play(story, voice)
    assert voice.asked == ["running", "first words", "next sentence", "ahead"]


def test_a_phrase_prepared_in_the_background_moves_up_when_a_caller_needs_it():
    voice = Voice()

    async def story(box):
        box.ask(ask(1, "running"))
        await asyncio.sleep(0.05)
        box.ask(ask(2, "greeting", slot=-1))
        box.ask(ask(3, "other", slot=1))
        box.ask(ask(4, "greeting", slot=2, urgent=True))
        await asyncio.sleep(3)

    play(story, voice)
    assert voice.asked == ["running", "greeting", "other"]


def test_a_phrase_for_the_cache_touches_no_ring_and_is_there_when_needed():
    voice = Voice()

    async def story(box):
        box.ask(ask(1, slot=-1))
        await asyncio.sleep(1)
        assert not box.rings.tts.any()
        box.ask(ask(2))
        await asyncio.sleep(0.001)

    box = play(story, voice)
    assert [type(a) for a in box.answers(1)] == [Spoken]
    assert box.answers(2)[-1].cached


def test_kept_phrases_outlast_any_number_of_others():
    voice = Voice(concurrency=8)

    async def story(box):
        box.ask(ask(1, "sorry", slot=-1, keep=True))
        await asyncio.sleep(1)
        for number in range(2, 40):
            box.ask(ask(number, f"text {number}", slot=number % 4))
            await asyncio.sleep(0.5)
        voice.broken = 0
        box.ask(ask(99, "sorry"))
        await asyncio.sleep(1)

    box = play(story, voice, cache_bytes=30_000)
    assert box.answers(99)[-1].cached


def test_a_pause_comes_before_the_speech_and_at_once():
    voice = Voice()

    async def story(box):
        box.rings.tts[0, :] = 1
        box.ask(ask(1, pause_s=0.25))
        await asyncio.sleep(0.05)
        assert box.answers(1)[-1].tts_end == 2000
        await asyncio.sleep(1)
        box.ask(ask(2, slot=1, pause_s=0.1))
        await asyncio.sleep(0.01)

    box = play(story, voice)
    assert not box.audio(0, 0, 2000).any()
    assert (box.audio(0, 2000, 2400) == 7).all()
    assert box.answers(2)[-1].tts_end == 800 + 2400


def test_audio_that_is_to_be_exact_is_neither_kept_nor_shared_nor_prepared():
    voice = Voice(concurrency=8)

    async def story(box):
        box.ask(ask(1, slot=-1))
        box.ask(ask(2, slot=0))
        box.ask(ask(3, slot=1))
        await asyncio.sleep(1)
        box.ask(ask(4, slot=2))
        await asyncio.sleep(1)

    box = play(story, voice, exact=True)
    assert voice.asked == ["hello"] * 3
    assert not box.answers(4)[-1].cached


def test_too_long_a_phrase_fails_for_good():
    voice = Voice()

    async def story(box):
        box.ask(Synthesise(1, 0, 1, "hello", "en", "", 1.0, 0, 1000))
        await asyncio.sleep(1)

    box = play(story, voice)
    assert not box.answers(1)[-1].retryable


class TestFallback:
    def test_another_speaks_when_the_first_fails_before_its_first_audio(self):
        first, second = Voice(), Voice(value=9)
        first.broken = 0

        async def story(box):
            box.ask(Synthesise(1, 0, 1, "hello", "en", "alloy", 1.0, 0, 20_000))
            await asyncio.sleep(1)

        box = play(story, first, second)
        assert box.answers(1)[-1].last
        assert (box.audio(0, 0, 2400) == 9).all()
        assert second.voices == [""], "the first one's voices are not the second one's"

    def test_and_when_it_says_nothing_for_too_long(self):
        first, second = Voice(), Voice()
        first.delay_s = 60

        async def story(box):
            start = asyncio.get_running_loop().time()
            box.ask(ask(1))
            await asyncio.sleep(2)
            assert box.ended_at(1) - start == pytest.approx(0.8)

        play(story, first, second)
        assert first.stopped == ["hello"]

    def test_a_phrase_that_is_made_in_advance_may_take_its_time_until_a_caller_waits(self):
        first, second = Voice(), Voice()
        first.delay_s = 60

        async def story(box):
            box.ask(ask(1, slot=-1))
            await asyncio.sleep(5)
            assert box.answers(1) == []
            start = asyncio.get_running_loop().time()
            box.ask(ask(2))
            await asyncio.sleep(2)
            assert box.ended_at(2) - start == pytest.approx(0.8)

        play(story, first, second)

    def test_what_the_substitute_said_is_not_kept_and_the_first_is_asked_again_after_a_rest(self):
        first, second = Voice(), Voice()
        first.broken = 0

        async def story(box):
            box.ask(ask(1))
            await asyncio.sleep(1)
            first.broken = None
            box.ask(ask(2))
            await asyncio.sleep(1)
            assert (len(first.asked), len(second.asked)) == (1, 2)
            await asyncio.sleep(REST_S)
            box.ask(ask(3))
            await asyncio.sleep(1)

        play(story, first, second)
        assert (len(first.asked), len(second.asked)) == (2, 2)

    def test_a_failure_in_the_middle_is_reported_so_that_it_can_be_asked_again(self):
        first, second = Voice(), Voice()
        first.broken = 1

        async def story(box):
            box.ask(ask(1))
            await asyncio.sleep(1)

        box = play(story, first, second)
        assert isinstance(box.answers(1)[-1], Failed)
        assert box.answers(1)[-1].retryable
        assert second.asked == []

    def test_cached_phrases_are_spoken_when_every_voice_has_failed(self):
        first, second = Voice(), Voice()

        async def story(box):
            box.ask(ask(1, "sorry", slot=-1, keep=True))
            await asyncio.sleep(1)
            first.broken = second.broken = 0
            box.ask(ask(2, "something new"))
            await asyncio.sleep(1)
            box.ask(ask(3, "sorry"))
            await asyncio.sleep(0.001)

        box = play(story, first, second)
        assert box.answers(2) == [Failed(2, "the voice broke", False)]
        assert box.answers(3)[-1].cached

    def test_and_faster_than_was_asked_for_if_need_be(self):
        """A caller who wants slower speech is apologised to, too."""
        voice = Voice()

        async def story(box):
            box.ask(ask(1, "sorry", slot=-1, keep=True))
            await asyncio.sleep(1)
            voice.broken = 0
            box.ask(Synthesise(2, 0, 1, "sorry", "en", "", 0.8, 0, 20_000))
            await asyncio.sleep(1)

        box = play(story, voice)
        assert box.answers(2)[-1].cached
        assert (box.audio(0, 0, 2400) == 7).all()

    def test_without_one_the_failure_is_told(self):
        voice = Voice()
        voice.broken = 0

        async def story(box):
            box.ask(ask(1))
            await asyncio.sleep(1)

        assert play(story, voice).answers(1) == [Failed(1, "the voice broke", False)]

    def test_what_only_goes_into_the_cache_is_left_for_later_while_a_substitute_speaks(self):
        first, second = Voice(), Voice()
        first.broken = 0

        async def story(box):
            box.ask(ask(1, slot=-1))
            await asyncio.sleep(1)
            box.ask(ask(2, slot=-1))
            await asyncio.sleep(1)

        box = play(story, first, second)
        assert box.answers(1) == [Failed(1, "the voice broke", True)]
        assert box.answers(2) == [Failed(2, "voice0 rests", True)]
        assert second.asked == []

    def test_a_request_that_is_itself_to_blame_does_not_put_the_first_to_rest(self):
        first, second = Voice(), Voice()

        async def refuse(batch, context):
            raise EngineError("no such voice", retryable=False)

        async def story(box):
            usual, first.run = first.run, refuse
            box.ask(ask(1, "a"))
            await asyncio.sleep(1)
            first.run = usual
            box.ask(ask(2, "b"))
            await asyncio.sleep(1)

        play(story, first, second)
        assert (first.asked, second.asked) == (["b"], ["a"])


@pytest.mark.parametrize(
    ("tts", "sources"),
    [
        ({"provider": "espeak"}, ["espeak"]),
        ({"provider": "fake"}, ["fake"]),
        ({"provider": "openai_compatible", "base_url": "http://h/v1", "model": "m"}, ["openai_compatible", "espeak"]),
        (
            {"provider": "openai_compatible", "base_url": "http://h/v1", "model": "m", "fallback": "none"},
            ["openai_compatible"],
        ),
        (
            {"provider": "espeak", "fallback": {"provider": "piper", "folder": "x", "first_audio_s": 0.7}},
            ["espeak", "piper"],
        ),
    ],
)
def test_the_settings_choose_who_speaks_and_who_takes_over(tts, sources):
    chosen = Settings.model_validate({"engines": {"tts": tts}}).engines.tts
    speech = shared_speech(chosen, provider_registry(), None)  # type: ignore[arg-type]
    assert [source.name for source in speech._sources] == sources
    assert speech._sources[0].first_audio_s == chosen.fallback.first_audio_s


class TestPhraseCache:
    @staticmethod
    def pcm(seconds: float) -> np.ndarray:
        return np.arange(int(seconds * 8000), dtype=np.int16)

    @staticmethod
    def key(text: str) -> tuple[str, str, str, float]:
        return (text, "", "en", 1.0)

    def test_neither_side_can_change_what_is_kept(self):
        cache = PhraseCache(1_000_000)
        mine = self.pcm(1)
        cache.put(self.key("hello"), mine)
        mine[:] = 0
        found = cache.get(self.key("hello"))
        assert found is not None and found[-1] != 0
        with pytest.raises(ValueError, match="read-only"):
            found[0] = 1

    def test_forgets_the_least_recently_used(self):
        cache = PhraseCache(3 * 17_000)
        for name in "abc":
            cache.put(self.key(name), self.pcm(1))
        cache.get(self.key("a"))
        cache.put(self.key("d"), self.pcm(1))
        assert [cache.get(self.key(name)) is not None for name in "abcd"] == [True, False, True, True]

    def test_stays_within_its_size_whatever_is_put(self):
        cache = PhraseCache(200_000)
        for count in range(300):
            cache.put(self.key(f"phrase {count % 70}"), self.pcm(0.1 * (count % 40)), keep=count % 3 == 0)
            assert cache.bytes_held <= cache.max_bytes
        assert len(cache) > 1

    def test_one_huge_phrase_does_not_empty_it(self):
        cache = PhraseCache(100_000)
        cache.put(self.key("small"), self.pcm(1))
        cache.put(self.key("huge"), self.pcm(5))
        assert cache.get(self.key("small")) is not None
        assert cache.get(self.key("huge")) is None

    def test_with_no_room_it_keeps_nothing(self):
        cache = PhraseCache(0)
        cache.put(self.key("a"), self.pcm(0.1))
        assert len(cache) == 0
