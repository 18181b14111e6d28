"""Speech over HTTP, against a server on this machine that streams, stalls, breaks off and refuses."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import openai
import pytest
from numpy.typing import NDArray

from appliance.engines.audio_reply import AudioReply
from appliance.engines.builtin import provider_registry
from appliance.engines.openai_tts import OpenAiSpeech
from appliance.engines.openai_tts_options import OpenAiSpeechOptions
from appliance.engines.phrase_cache import PhraseCache
from appliance.engines.speech import SharedSpeech, Source
from appliance.engines.worker import Worker
from appliance.errors import EngineError
from appliance.ipc.messages import Cancel, Failed, Synthesise
from appliance.ipc.rings import AudioRings
from tests.openai_sim.speech import RATE_HZ, S_PER_CHARACTER, Speech, SpeechSim, said, wav_header

TEXT = "Your table is booked."


@dataclass
class Context:
    """Takes the speech of one request."""

    chunks: list[NDArray[np.int16]] = field(default_factory=list)
    ended: bool = False
    wanted: int = 1 << 30
    first: asyncio.Event = field(default_factory=asyncio.Event)

    def speak(self, request: Any, pcm: NDArray[np.int16], *, last: bool = False, cached: bool = False) -> bool:
        self.chunks.append(pcm)
        self.ended = last
        self.first.set()
        return len(self.chunks) < self.wanted

    @property
    def pcm(self) -> NDArray[np.int16]:
        return np.concatenate(self.chunks)


def ask(text: str = TEXT, voice: str = "", language: str = "en-us", rate: float = 1.0) -> Synthesise:
    return Synthesise(1, 0, 1, text, language, voice, rate, 0, 200_000)


@asynccontextmanager
async def client(server: SpeechSim, **options: Any) -> AsyncIterator[OpenAiSpeech]:
    made = OpenAiSpeech(OpenAiSpeechOptions.model_validate({"base_url": server.url, "model": "sim", **options}))
    await made.load()
    try:
        yield made
    finally:
        await made.close()


def loud(pcm: NDArray[np.int16]) -> float:
    """Seconds between the first and the last loud sample."""
    at = np.flatnonzero(np.abs(pcm.astype(np.int32)) > 1000)
    return float(at[-1] - at[0]) / 8000


@pytest.mark.parametrize("form", ["pcm", "wav"])
@pytest.mark.parametrize("chunk_bytes", [1, 333, 4801, 1 << 20])
async def test_speech_comes_as_it_was_said_whatever_the_chunks(form, chunk_bytes):
    text = TEXT if chunk_bytes > 1 else "Hi"
    async with SpeechSim(Speech(chunk_bytes=chunk_bytes)) as server, client(server, format=form) as engine:
        context = Context()
        await engine.run([ask(text)], context)
    assert context.ended
    assert loud(context.pcm) == pytest.approx(len(text) * S_PER_CHARACTER, abs=0.01)
    assert np.abs(context.pcm.astype(np.int32)).max() == pytest.approx(0.2 * 32767, rel=0.02)
    assert max(map(len, context.chunks)) <= 1600


async def test_it_asks_for_what_the_line_wants():
    options = {"voice": "alloy", "voices": {"de": "nova", "en-gb": "fable"}, "extra_body": {"instructions": "Calm."}}
    async with SpeechSim() as server, client(server, **options) as engine:
        for request in (ask(), ask(language="de-at"), ask(language="en-GB"), ask(voice="onyx", rate=1.5), ask(rate=9)):
            await engine.run([request], Context())
        bodies = [asked.body for asked in server.asked]
    common = {"model": "sim", "input": TEXT, "response_format": "pcm", "instructions": "Calm."}
    assert bodies == [
        {**common, "voice": "alloy"},
        {**common, "voice": "nova"},
        {**common, "voice": "fable"},
        {**common, "voice": "onyx", "speed": 1.5},
        {**common, "voice": "alloy", "speed": 4.0},
    ]


async def test_the_official_client_gets_the_same_from_the_simulator():
    """What is tested against speaks the real protocol."""
    async with SpeechSim() as server, openai.AsyncOpenAI(base_url=server.url, api_key="x") as official:
        answer = await official.audio.speech.create(model="sim", voice="alloy", input=TEXT, response_format="pcm")
        assert await answer.aread() == said({"input": TEXT}, Speech(), wav=False)


async def test_audio_is_handed_on_before_the_answer_is_complete():
    async with SpeechSim(Speech(stall_after=10)) as server, client(server, stall_s=30) as engine:
        context = Context()
        task = asyncio.create_task(engine.run([ask()], context))
        async with asyncio.timeout(30):
            await context.first.wait()
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_connections_are_open_before_they_are_needed_and_are_used_again():
    async with SpeechSim() as server, client(server, connections=1) as engine:
        for _ in range(5):
            await engine.run([ask()], Context())
        assert len(server.connections) == 1
        assert len(server.looked) == 1


async def test_cancelling_closes_the_connection_at_once():
    async with SpeechSim(Speech(stall_after=5)) as server, client(server, stall_s=30) as engine:
        context = Context()
        task = asyncio.create_task(engine.run([ask()], context))
        asked = await server.wait_asked(1)
        async with asyncio.timeout(30):
            await context.first.wait()
        task.cancel()
        async with asyncio.timeout(30):
            await asked.gone.wait()
        assert not asked.done
        await asyncio.gather(task, return_exceptions=True)


async def test_a_caller_who_interrupts_makes_the_worker_close_the_connection():
    rings = AudioRings.create(1)
    rings.open(0, 1)
    async with SpeechSim(Speech(stall_after=5)) as server, client(server, stall_s=30) as engine:
        worker = Worker("w", SharedSpeech([Source(engine)], PhraseCache(1 << 20)), rings)

        class Client:
            def send(self, message: Any) -> bool:
                return True

        asker = Client()
        worker.handle(asker, ask())
        asked = await server.wait_asked(1)
        worker.handle(asker, Cancel(1))
        async with asyncio.timeout(30):
            await asked.gone.wait()
        await worker.close()


async def test_nobody_wanting_more_closes_it_too():
    async with SpeechSim(Speech(chunk_bytes=500, speed=1)) as server, client(server) as engine:
        context = Context(wanted=2)
        await engine.run([ask("A long text that takes a while to be said in full.")], context)
        async with asyncio.timeout(30):
            await server.asked[0].gone.wait()


class TestFaults:
    @pytest.mark.parametrize(
        ("answer", "reason", "retryable"),
        [
            (Speech(status=500), "sim at .* answered 500: said 500", True),
            (Speech(status=429), "answered 429: said 429", True),
            (Speech(status=400), "answered 400: said 400", False),
            (Speech(status=401), "it wants a key .*; set engines.tts.api_key", False),
            (Speech(status=404), "check engines.tts.base_url and engines.tts.model 'sim'", False),
            (Speech(status=302, headers={"Location": "http://x/"}), "redirects to http://x/; set engines.tts", False),
            (Speech(stall_after=0), "gave no audio within 0.3 s", True),
            (Speech(die_after=0), "broke off", True),
            (Speech(body=b"", content_type="audio/pcm"), "answered without any audio", True),
            (Speech(body=b"{}", content_type="application/json"), "application/json in place of audio", False),
            (Speech(body=b"ID3", content_type="audio/mpeg"), "must be able to send pcm or wav", False),
        ],
    )
    async def test_are_told_with_what_would_help(self, answer, reason, retryable):
        async with SpeechSim(answer) as server, client(server, first_audio_s=0.3) as engine:
            with pytest.raises(EngineError, match=reason) as caught:
                await engine.run([ask()], Context())
            assert caught.value.retryable == retryable
            assert len(server.asked) == (2 if retryable else 1)

    @pytest.mark.parametrize(
        "fault", [Speech(status=503), Speech(stall_after=0), Speech(die_after=0), Speech(close_after=0)]
    )
    async def test_before_the_first_audio_it_is_asked_once_more(self, fault):
        async with SpeechSim() as server, client(server, first_audio_s=1.0) as engine:
            server.script.append(fault)
            context = Context()
            await engine.run([ask()], context)
            assert context.ended
            assert len(server.asked) == 2
            assert loud(context.pcm) == pytest.approx(len(TEXT) * S_PER_CHARACTER, abs=0.01)

    @pytest.mark.parametrize(
        ("fault", "reason"),
        [
            (Speech(stall_after=12), "paused for more than 0.3 s"),
            (Speech(die_after=12), "broke off"),
            (Speech(close_after=12), "broke off"),
        ],
    )
    async def test_within_the_speech_it_is_not_said_twice(self, fault, reason):
        async with SpeechSim(fault) as server, client(server, stall_s=0.3) as engine:
            with pytest.raises(EngineError, match=reason):
                await engine.run([ask()], Context())
            assert len(server.asked) == 1

    async def test_speech_that_never_ends_is_cut(self):
        slow = Speech(chunk_bytes=4800, speed=0.5)
        async with SpeechSim(slow) as server, client(server, total_s=0.5) as engine:
            with pytest.raises(EngineError, match=r"took longer than 0.5 s") as caught:
                await engine.run([ask("word " * 100)], Context())
            assert not caught.value.retryable

    async def test_a_server_that_is_not_there(self):
        async with SpeechSim() as server:
            pass
        async with client(server) as engine:
            with pytest.raises(
                EngineError, match=r"refuses connections; start it, or check engines.tts.base_url"
            ) as caught:
                await engine.run([ask()], Context())
            assert caught.value.retryable

    async def test_keys_are_sent_and_never_told(self):
        async with SpeechSim(key="sk-right") as server:
            async with client(server, api_key="sk-right") as engine:
                await engine.run([ask()], Context())
            async with client(server, api_key="sk-wrong") as engine:
                with pytest.raises(EngineError, match="the key was refused") as caught:
                    await engine.run([ask()], Context())
        assert "sk-" not in str(caught.value)


async def test_when_the_server_dies_phrases_in_the_cache_are_spoken_and_another_voice_says_the_rest():
    """A real server and espeak-ng behind one worker."""
    rings = AudioRings.create(1)
    rings.open(0, 1)
    answers: asyncio.Queue[Any] = asyncio.Queue()

    class Client:
        def send(self, message: Any) -> bool:
            answers.put_nowait(message)
            return True

    espeak = provider_registry().create("tts", "espeak", {}, None)  # type: ignore[arg-type]
    async with SpeechSim() as server:
        engine = OpenAiSpeech(OpenAiSpeechOptions(base_url=server.url, model="sim", retries=0))
        speech = SharedSpeech([Source(engine, "sim"), Source(espeak, "espeak", levelled=True)], PhraseCache(1 << 22))
        await speech.load()
        worker, asker = Worker("w", speech, rings), Client()
        worker.handle(asker, Synthesise(1, -1, 0, "I am sorry.", "en-us", "", 1.0, 0, 0, keep=True))
        async with asyncio.timeout(30):
            assert (await answers.get()).last
    async with asyncio.timeout(30):
        worker.handle(asker, Synthesise(2, 0, 1, "I am sorry.", "en-us", "", 1.0, 0, 100_000))
        assert (await answers.get()).cached
        worker.handle(asker, Synthesise(3, 0, 1, "Something new.", "en-us", "", 1.0, 0, 100_000))
        while not (answer := await answers.get()).last:
            assert not isinstance(answer, Failed)
    await worker.close()


class TestAudioReply:
    @pytest.mark.parametrize("rate_hz", [100, 8_000_000, 4_000_000_000])
    def test_a_rate_that_no_speech_has_is_refused_before_any_work(self, rate_hz):
        header = struct.pack("<4sI8sIHHIIHH4sI", b"RIFF", 0, b"WAVEfmt ", 16, 1, 1, rate_hz, 0, 2, 16, b"data", 0)
        with pytest.raises(EngineError, match=rf"{rate_hz} Hz; it must send 4000 to 192000 Hz"):
            AudioReply("audio/wav", RATE_HZ).feed(header + bytes(8000))

    @staticmethod
    def read(data: bytes, kind: str = "audio/wav", chunk: int = 997) -> NDArray[np.int16]:
        reply = AudioReply(kind, RATE_HZ)
        parts = [reply.feed(data[at : at + chunk]) for at in range(0, len(data), chunk)]
        return np.concatenate([*parts, reply.finish()])

    @pytest.mark.parametrize(
        ("bits", "code", "channels"), [(8, 1, 1), (16, 1, 1), (16, 1, 2), (24, 1, 1), (32, 1, 1), (32, 3, 2)]
    )
    @pytest.mark.parametrize("rate_hz", [8000, 16_000, 22_050, 24_000, 44_100])
    def test_every_usual_wav_is_read(self, bits, code, channels, rate_hz):
        wave = 0.5 * np.sin(2 * np.pi * 300 / rate_hz * np.arange(rate_hz // 2))
        wide = np.repeat(wave, channels)
        if code == 3:
            body = wide.astype("<f4").tobytes()
        elif bits == 8:
            body = (wide * 127 + 128).astype(np.uint8).tobytes()
        elif bits == 24:
            body = b"".join(int(v * 8388607).to_bytes(3, "little", signed=True) for v in wide)
        else:
            body = (wide * (2 ** (bits - 1) - 1)).astype(f"<i{bits // 8}").tobytes()
        pcm = self.read(wav_header(rate_hz, bits=bits, channels=channels, code=code) + body)
        assert len(pcm) == pytest.approx(4000, abs=60)
        assert np.abs(pcm[200:-200].astype(np.int32)).max() == pytest.approx(0.5 * 32767, rel=0.03)

    def test_what_follows_the_data_is_no_audio(self):
        data = np.full(240, 1000, "<i2").tobytes()
        assert len(self.read(wav_header(8000, size=len(data)) + data + b"LIST junk" * 100)) == pytest.approx(
            240, abs=50
        )

    def test_a_rate_in_the_content_type_counts(self):
        assert len(self.read(bytes(32_000), "audio/L16; rate=16000; channels=1")) == pytest.approx(8000, abs=60)

    @pytest.mark.parametrize("data", [b"", b"R", b"RIFF", b"RI\0\0\0\0"])
    def test_very_short_answers_do_no_harm(self, data):
        assert len(self.read(data, "audio/pcm")) < 100

    def test_a_format_that_cannot_be_played_is_told(self):
        with pytest.raises(EngineError, match="format 85, 0 bits, 2 channels"):
            self.read(wav_header(44_100, bits=0, channels=2, code=85) + bytes(100))


@pytest.mark.parametrize(
    ("options", "mistake"),
    [
        ({}, "base_url: is missing"),
        ({"base_url": "localhost:8000", "model": "m"}, "is not the address of an API"),
        ({"base_url": "http://h/v1/audio/speech", "model": "m"}, "leave /audio/speech out"),
        ({"base_url": "http://h/v1", "model": "m", "extra_body": {"voice": "x"}}, "'voice' is what the appliance"),
        ({"base_url": "http://h/v1", "model": "m", "fromat": "wav"}, "did you mean 'format'?"),
    ],
)
def test_wrong_options_are_told_at_their_key(options, mistake):
    assert mistake in "; ".join(provider_registry().validate_options("tts", "openai_compatible", options))
