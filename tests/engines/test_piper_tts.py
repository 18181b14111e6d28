"""Piper: real phonemes from espeak-ng, and models with Piper's interface that are made on the spot."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from appliance.engines.builtin import provider_registry
from appliance.engines.espeak_tts import EspeakPhonemiser
from appliance.engines.phrase_cache import PhraseCache
from appliance.engines.piper_options import PiperOptions
from appliance.engines.piper_tts import PiperEngine
from appliance.engines.piper_voice import PiperVoice
from appliance.engines.speech import SharedSpeech, Source
from appliance.engines.speech_level import LEVEL, active_rms
from appliance.engines.speech_order import Turnstile
from appliance.engines.worker import Worker
from appliance.errors import EngineError
from appliance.ipc.messages import Cancel, Synthesise
from appliance.ipc.rings import AudioRings
from tests.engines.tiny_piper import HOP, HOPS, IDS, RATE_HZ, make_voice, tone_hz


@dataclass
class Context:
    """Takes the speech of one request."""

    chunks: list[NDArray[np.int16]] = field(default_factory=list)
    ended: bool = False
    wanted: int = 1 << 30

    def speak(self, request: Any, pcm: NDArray[np.int16], *, last: bool = False, cached: bool = False) -> bool:
        self.chunks.append(pcm)
        self.ended = last
        return len(self.chunks) < self.wanted

    @property
    def pcm(self) -> NDArray[np.int16]:
        return np.concatenate(self.chunks)


def ask(text: str = "Hello there.", voice: str = "", language: str = "", rate: float = 1.0, **more: Any) -> Synthesise:
    return Synthesise(1, more.pop("slot", 0), 1, text, language, voice, rate, 0, 200_000, **more)


@asynccontextmanager
async def piper(folder: Path, **options: Any) -> AsyncIterator[PiperEngine]:
    engine = PiperEngine(PiperOptions.model_validate({"folder": folder, **options}))
    await engine.load()
    try:
        yield engine
    finally:
        await engine.close()


async def speech(engine: PiperEngine, request: Synthesise) -> NDArray[np.int16]:
    context = Context()
    await engine.run([request], context)
    assert context.ended
    return context.pcm


def loud_s(pcm: NDArray[np.int16]) -> float:
    return float(np.count_nonzero(np.abs(pcm.astype(np.int32)) > 300)) / 8000


class TestPhonemes:
    def test_come_by_clause_with_the_mark_that_ended_it(self) -> None:
        clauses = EspeakPhonemiser().clauses("Well, I think so. He left! Did he? No: never; bye", "en-us")
        assert [mark for _, mark in clauses] == [",", ".", "!", "?", ":", ";", ""]
        assert clauses[0][0] == "wˈɛl"
        assert EspeakPhonemiser().clauses("  😀 ", "en-us") == []

    def test_become_the_numbers_that_models_are_trained_on(self, tmp_path: Path) -> None:
        """Begin, pad, each phoneme with a pad after it, end; combining marks by themselves, unknown ones left out."""
        voice = PiperVoice(make_voice(tmp_path, "ann"), 1)
        ids = voice.phoneme_ids("(fr)ɔ̃k，ჭ(en)")
        expected = [IDS["^"], IDS["_"]]
        for symbol in ("ɔ", "\u0303", "k", ","):
            expected += [IDS[symbol], IDS["_"]]
        assert ids == [number for (number,) in [*expected, IDS["$"]]]


class TestSpeech:
    async def test_each_phoneme_is_in_it_at_8_khz(self, tmp_path: Path) -> None:
        path = make_voice(tmp_path, "ann")
        pcm = PiperVoice(path, 1).speech("aks", 1.0, 0, onnxruntime.RunOptions())
        seconds = HOP * HOPS / RATE_HZ
        assert len(pcm) == pytest.approx((3 + 2 * 3) * seconds * 8000, abs=2)
        for place, symbol in enumerate("aks"):
            start = int((2 + 2 * place) * seconds * 8000)
            spectrum = np.abs(np.fft.rfft(pcm[start : start + 320] * np.hanning(320)))
            assert np.argmax(spectrum) * 25 == pytest.approx(tone_hz(symbol), abs=80)

    async def test_has_the_common_level_and_short_ends_whatever_the_voice_does(self, tmp_path: Path) -> None:
        make_voice(tmp_path, "quiet", level=0.02)
        make_voice(tmp_path, "loud", level=0.9)
        async with piper(tmp_path) as engine:
            for voice in ("quiet", "loud"):
                pcm = await speech(engine, ask(voice=voice))
                assert active_rms(pcm / np.float32(32768)) == pytest.approx(LEVEL, rel=0.1)
                # Somewhat below what is taken for silence: the voice's own hiss just reaches that before rounding.
                at = np.flatnonzero(np.abs(pcm.astype(np.int32)) > 0.005 * 32768)
                assert at[0] <= 90
                assert len(pcm) - at[-1] <= 330

    async def test_the_rate_makes_it_shorter_and_longer(self, tmp_path: Path) -> None:
        make_voice(tmp_path, "ann")
        async with piper(tmp_path) as engine:
            usual, fast, slow = [len(await speech(engine, ask(rate=rate))) for rate in (1.0, 2.0, 0.5)]
        assert fast == pytest.approx(usual / 2, rel=0.1)
        assert slow == pytest.approx(usual * 2, rel=0.1)

    async def test_the_first_clause_comes_by_itself_and_then_sentences_with_pauses_between(
        self, tmp_path: Path
    ) -> None:
        make_voice(tmp_path, "ann")
        text = "Thank you very much for calling us, I am glad, truly. We are open. Goodbye"
        async with piper(tmp_path) as engine:
            context = Context()
            await engine.run([ask(text)], context)
        assert [
            not chunk[: int(pause * 8000)].any()
            for chunk, pause in zip(context.chunks, (0.005, 0.12, 0.25, 0.25), strict=False)
        ][1:] == [True, True, True]
        assert len(context.chunks) == 5
        assert len(context.chunks[-1]) == 0

    async def test_nothing_to_say_is_said_at_once(self, tmp_path: Path) -> None:
        make_voice(tmp_path, "ann")
        async with piper(tmp_path) as engine:
            assert len(await speech(engine, ask("😀"))) == 0

    async def test_a_voice_trained_on_text_is_given_text(self, tmp_path: Path) -> None:
        make_voice(tmp_path, "ann", phoneme_type="text")
        async with piper(tmp_path) as engine:
            assert loud_s(await speech(engine, ask("hello there"))) == pytest.approx(
                10 * HOP * HOPS / RATE_HZ, rel=0.15
            )


class TestVoices:
    async def test_are_found_by_name_speaker_and_language(self, tmp_path: Path) -> None:
        make_voice(tmp_path, "amy")
        make_voice(tmp_path, "several", speakers=("p1", "p2"))
        make_voice(tmp_path, "thorsten", language="de_DE", espeak="de")
        async with piper(tmp_path, voice="several+p2", voices={"en-gb": "amy"}) as engine:
            chosen = {
                (named, language): (voice.name, speaker)
                for named, language in [
                    ("amy", "de"), ("several", ""), ("several+1", ""), ("", ""), ("", "en-us"), ("", "de-AT"),
                    ("", "en-GB"), ("", "fr"),
                ]
                for voice, speaker in [await engine._voice(named, language)]
            }  # fmt: skip
        assert chosen == {
            ("amy", "de"): ("amy", 0),
            ("several", ""): ("several", 0),
            ("several+1", ""): ("several", 1),
            ("", ""): ("several", 1),
            ("", "en-us"): ("several", 1),
            ("", "de-AT"): ("thorsten", 0),
            ("", "en-GB"): ("amy", 0),
            ("", "fr"): ("several", 1),
        }

    @pytest.mark.parametrize(
        ("voice", "reason"),
        [("amz", "no voice 'amz' in .*; there are: amy"), ("amy+9", "no speaker '9'; it has 0 to 0")],
    )
    async def test_unknown_ones_are_refused(self, tmp_path: Path, voice: str, reason: str) -> None:
        make_voice(tmp_path, "amy")
        async with piper(tmp_path) as engine:
            with pytest.raises(EngineError, match=reason) as caught:
                await engine.run([ask(voice=voice)], Context())
            assert not caught.value.retryable

    @pytest.mark.parametrize(
        ("break_it", "reason"),
        [
            (lambda folder: None, "holds no voice; put NAME.onnx and NAME.onnx.json there"),
            (lambda folder: make_voice(folder, "a").with_name("a.onnx.json").unlink(), "a voice is NAME.onnx and"),
            (lambda folder: make_voice(folder, "a").write_bytes(b"junk"), "cannot be loaded"),
            (lambda folder: make_voice(folder, "a", phoneme_type="pinyin"), "'pinyin' is not supported"),
            (lambda folder: make_voice(folder, "a", phoneme_id_map={"a": [1]}), "it has no phoneme '\\^'"),
            (lambda folder: make_voice(folder, "a", audio={"sample_rate": 1}), "a sample rate of 1 Hz"),
            (lambda folder: make_voice(folder, "a", audio="x"), "is not the description of a Piper voice"),
        ],
    )
    async def test_broken_ones_keep_the_box_from_starting(self, tmp_path: Path, break_it: Any, reason: str) -> None:
        break_it(tmp_path)
        with pytest.raises(EngineError, match=reason):
            async with piper(tmp_path):
                pass

    def test_the_settings_are_checked(self) -> None:
        wrong = provider_registry().validate_options("tts", "piper", {"voice": "a"})
        assert wrong == ["folder: is missing; provider 'piper' needs it"]


class TestWorking:
    async def test_a_cancelled_request_stops_the_model(self, tmp_path: Path) -> None:
        """A minute's work, if it were not stopped."""
        make_voice(tmp_path, "slow", burn=1)
        async with piper(tmp_path, threads=1) as engine:
            make_voice(tmp_path, "slow", burn=1500)
            engine._voices.clear()
            rings = AudioRings.create(1)
            rings.open(0, 1)
            speech = SharedSpeech([Source(engine, levelled=True)], PhraseCache(1 << 20))
            worker = Worker("w", speech, rings, run_timeout_s=600)

            class Client:
                def send(self, message: Any) -> bool:
                    return True

            client = Client()
            computing = asyncio.Event()
            compute = engine._compute

            async def watched(work: Any) -> Any:
                computing.set()
                return await compute(work)

            engine._compute = watched  # type: ignore[method-assign]
            worker.handle(client, ask())
            async with asyncio.timeout(60):
                await computing.wait()
            worker.handle(client, Cancel(1))
            async with asyncio.timeout(30):
                await asyncio.get_running_loop().run_in_executor(engine._thread, lambda: None)
            await worker.close()

    async def test_work_ahead_gives_way_to_a_caller_who_waits_and_is_done_after(self, tmp_path: Path) -> None:
        make_voice(tmp_path, "ann")
        async with piper(tmp_path) as engine:
            order: list[str] = []
            begun = asyncio.Event()
            compute = engine._compute

            async def slowly(work: Any) -> Any:
                request_options = work.args[-1]
                begun.set()
                for _ in range(50):
                    await asyncio.sleep(0)
                    if request_options.terminate:
                        raise RuntimeError("terminated")
                return await compute(work)

            engine._compute = slowly  # type: ignore[method-assign]

            async def one(text: str, **more: Any) -> None:
                await speech(engine, ask(text, **more))
                order.append(text)

            ahead = asyncio.create_task(one("Ahead of time.", slot=-1))
            await begun.wait()
            await asyncio.gather(one("Urgent.", urgent=True), ahead)
        assert order == ["Urgent.", "Ahead of time."]


async def test_the_turnstile_lets_through_the_most_urgent_and_survives_cancelled_waiters() -> None:
    turnstile = Turnstile()
    order: list[str] = []

    async def worker(name: str, priority: int) -> None:
        async with turnstile.turn(priority, lambda: order.append(f"{name} gives way")):
            order.append(name)
            for _ in range(5):
                await asyncio.sleep(0)

    tasks = [
        asyncio.create_task(worker(name, priority))
        for name, priority in [("a", 2), ("b", 2), ("c", 1), ("gone", 0), ("d", 0), ("e", 1)]
    ]
    await asyncio.sleep(0)
    tasks[3].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert [name for name in order if "gives" not in name] == ["a", "d", "c", "e", "b"]
    assert "a gives way" in order


def test_the_tiny_voices_look_like_real_ones(tmp_path: Path) -> None:
    path = make_voice(tmp_path, "ann", speakers=("x", "y"))
    session = onnxruntime.InferenceSession(str(path))
    assert [one.name for one in session.get_inputs()] == ["input", "input_lengths", "scales", "sid"]
    assert json.loads(path.with_name("ann.onnx.json").read_text())["phoneme_id_map"]["_"] == [0]
