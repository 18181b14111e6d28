"""What the common part of speech synthesis is worth, each figure beside the same without it.

* the greeting of a box that speaks through a server of 400 ms to its first audio, with its cache and without;
* a worker: a phrase for the first time, joined while another call has it made, and out of the cache;
* the level of clauses and the sharpest step between them, before and after;
* how soon a model that computes stops when its caller interrupts; what spoken forms and levelling cost.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import uvloop
from numpy.typing import NDArray

from appliance.calls.warm_up import box_phrases
from appliance.cli.box import Box
from appliance.conversation.english import matches
from appliance.dialplan.schema import Line
from appliance.engines.espeak_tts import EspeakSynthesiser
from appliance.engines.openai_tts import OpenAiSpeech
from appliance.engines.openai_tts_options import OpenAiSpeechOptions
from appliance.engines.phrase_cache import PhraseCache
from appliance.engines.piper_options import PiperOptions
from appliance.engines.piper_tts import PiperEngine
from appliance.engines.speech import SharedSpeech, Source
from appliance.engines.speech_level import Shaper, VoiceLevels, active_rms
from appliance.engines.worker import Worker
from appliance.ipc.messages import Cancel, Spoken, Synthesise
from appliance.ipc.rings import AudioRings
from tests.bench.lines import dialplan
from tests.bench.report import Bar, percentiles
from tests.bench.setup_latency import GREETING_MS, measure
from tests.engines.tiny_piper import make_voice
from tests.openai_sim.speech import Speech, SpeechSim

SLOW_SERVER = Speech(first_audio_s=0.4, speed=4.0)
CLAUSES = (
    *("Sure, I can help you with that.", "Your appointment is confirmed for Tuesday at three.", "Is that fine?"),
    *("She sells sea shells.", "We are open from nine until five on weekdays.", "Thank you for calling us today."),
)
LINE = {
    "name": "desk",
    "greeting": "Hello, you have reached the front desk of the Blue Olive.",
    "flow": {
        "what": {"ask": "What can I do for you?", "expect": ["nothing"], "next": "bye"},
        "bye": {"hang_up": "Goodbye."},
    },
}


async def greet(folder: Path, cache_mb: float, calls: int) -> tuple[list[float], list[float], int]:
    """(INVITE to greeting, 200 to greeting) of each call in seconds, and how often the server was asked."""
    async with SpeechSim(SLOW_SERVER) as server:
        tts = {"provider": "openai_compatible", "base_url": server.url, "model": "sim", "cache_mb": cache_mb}
        box = Box(folder, {"engines.tts": tts, **dialplan(folder, [LINE])})
        await asyncio.to_thread(box.start)
        try:
            if cache_mb:
                await server.wait_asked(
                    len(box_phrases(Line.model_validate(LINE))) + 3
                )  # the greeting, the question and the farewell
                await asyncio.sleep(2.0)
            found, wrong = await measure(box.sip_port, calls, 0.5, 1.5)
        finally:
            await asyncio.to_thread(box.stop)
    if wrong:
        print(f"  {wrong[:3]}")
    return [one.greeting_s for one in found], [one.greeting_s - one.answered_s for one in found], len(server.asked)


class Client:
    """Asks a worker, and notes when the first audio came."""

    def __init__(self) -> None:
        self.first: dict[int, float] = {}
        self.done: dict[int, asyncio.Event] = {}

    def send(self, message: Any) -> bool:
        if isinstance(message, Spoken):
            self.first.setdefault(message.request, time.perf_counter())
            if message.last:
                self.done[message.request].set()
        return True

    async def ask(self, worker: Worker, number: int, text: str, slot: int) -> float:
        """Seconds to the first audio."""
        self.done[number] = asyncio.Event()
        asked = time.perf_counter()
        worker.handle(self, Synthesise(number, slot, 1, text, "en-us", "", 1.0, 0, 200_000, urgent=True))
        async with asyncio.timeout(30):
            await self.done[number].wait()
        return self.first[number] - asked


async def share(times: int) -> tuple[list[float], list[float], list[float], int]:
    """First audio in seconds: of new phrases, of those joined half-way, and of cached ones; requests to the server."""
    rings = AudioRings.create(4)
    for slot in range(4):
        rings.open(slot, 1)
    new, joined, cached = [], [], []
    async with SpeechSim(SLOW_SERVER) as server:
        engine = OpenAiSpeech(OpenAiSpeechOptions(base_url=server.url, model="sim"))
        speech = SharedSpeech([Source(engine, "sim")], PhraseCache(1 << 25))
        await speech.load()
        worker, client, numbers = Worker("w", speech, rings), Client(), itertools.count(1)
        for turn in range(times):
            text = f"This is the phrase of number {turn}."
            first = asyncio.create_task(client.ask(worker, next(numbers), text, 0))
            await asyncio.sleep(0.2)
            joined.append(await client.ask(worker, next(numbers), text, 1))
            new.append(await first)
            cached.append(await client.ask(worker, next(numbers), text, 2))
        await worker.close()
        return new, joined, cached, len(server.asked)


def level_figures(bar: Bar, rounds: int = 10) -> None:
    """Clauses of an engine that changes its level by 5 dB and has an offset; streamed in fifths of a second."""
    espeak, chance = EspeakSynthesiser(), np.random.default_rng(3)
    clauses = [np.concatenate(list(espeak.synthesise(text))) for text in CLAUSES]
    spent, seconds, edge = 0.0, 0.0, 0
    spreads: dict[str, list[float]] = {"before": [], "after": []}
    for _ in range(rounds):
        levels = VoiceLevels()
        levels.learn("ann", np.full(500, 0.055**2))
        before: list[NDArray[np.int16]] = []
        after: list[NDArray[np.int16]] = []
        for clause in clauses:
            quiet = np.zeros(int(chance.uniform(0.1, 0.5) * 8000))
            speech = np.concatenate([quiet, clause * 10 ** (chance.uniform(-5, 0) / 20), quiet])
            before.append((speech + 300).astype(np.int16))
            begun = time.perf_counter()
            shaper = Shaper(levels, "ann")
            chunks = [shaper.push(before[-1][at : at + 1600]) for at in range(0, len(speech), 1600)]
            after.append(np.concatenate([*chunks, shaper.finish()]))
            spent += time.perf_counter() - begun
            seconds += len(speech) / 8000
        edge = max(edge, *(abs(int(piece[at])) for piece in after for at in (0, -1)))
        for name, pieces in (("before", before), ("after", after)):
            decibels = [20 * np.log10(active_rms((piece - piece.mean()) / np.float32(32768))) for piece in pieces]
            spreads[name].append(max(decibels) - min(decibels))
    worst = {name: float(np.percentile(values, 95)) for name, values in spreads.items()}
    bar.figure(f"six clauses within {worst['before']:.2f} dB before, {worst['after']:.2f} dB after (p95)")
    bar.note(f"no piece begins or ends further than {edge} of 32768 from silence")
    bar.require(worst["after"] < 2.0, "clauses differ by 2 dB")
    bar.require(edge < 66, "a piece begins or ends with a click")
    bar.figure(f"levelling {spent / seconds * 1e3:.2f} ms per second of speech")


async def stop_figures(folder: Path) -> tuple[list[float], list[float]]:
    """Seconds from Cancel until the model has stopped, and what it would have gone on for."""
    make_voice(folder, "slow", burn=60)
    engine = PiperEngine(PiperOptions(folder=folder, threads=1))
    await engine.load()
    rings = AudioRings.create(1)
    rings.open(0, 1)
    worker, client = Worker("w", SharedSpeech([Source(engine, levelled=True)], PhraseCache(1 << 20)), rings), Client()
    loop = asyncio.get_running_loop()
    whole, stopped = [], []
    for turn in range(10):
        begun = time.perf_counter()
        await client.ask(worker, 2 * turn + 1, f"Number {turn}", 0)
        whole.append(time.perf_counter() - begun)
        worker.handle(client, Synthesise(2 * turn + 2, 0, 1, f"Other {turn}", "en-us", "", 1.0, 0, 200_000))
        await asyncio.sleep(whole[-1] * 0.3)
        begun = time.perf_counter()
        worker.handle(client, Cancel(2 * turn + 2))
        await loop.run_in_executor(engine._thread, lambda: None)
        stopped.append(time.perf_counter() - begun)
    await worker.close()
    return stopped, whole


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=6)
    parser.add_argument("--times", type=int, default=8)
    args = parser.parse_args()
    bar = Bar("speech", "speech that is prepared, shared and levelled")
    with tempfile.TemporaryDirectory(prefix="speech-") as name:
        kept, after_answer, asked = uvloop.run(greet(Path(name) / "kept", 32.0, args.calls))
        bar.note(f"a server of 400 ms, with a cache: INVITE to greeting {percentiles(kept)}, asked {asked} times")
        bar.note(f"with a cache: 200 to greeting {percentiles(after_answer)}")
        plain, _, asked = uvloop.run(greet(Path(name) / "plain", 0.0, args.calls))
        bar.note(f"without one: INVITE to greeting {percentiles(plain)}, asked {asked} times")
        if kept and plain:
            bar.figure(f"greeting p50 {np.median(kept) / np.median(plain):.2f} x that without a cache")
            bar.require(float(np.percentile(after_answer, 95)) <= GREETING_MS / 1e3, "greeting later than 150 ms")
        bar.require(len(kept) == len(plain) == args.calls, "a call failed")
        new, joined, cached, asked = uvloop.run(share(args.times))
        bar.note(f"first audio: new {percentiles(new)}, joined 200 ms later {percentiles(joined)}")
        bar.note(f"first audio: cached {percentiles(cached)}; {3 * args.times} requests, {asked} to the server")
        bar.figure(
            f"cached {np.median(cached) / np.median(new):.4f} x, joined {np.median(joined) / np.median(new):.2f} x"
        )
        bar.require(asked == args.times, "a phrase was asked for twice")
        level_figures(bar)
        stopped, whole = uvloop.run(stop_figures(Path(name) / "voices"))
        bar.note(f"a model of {np.median(whole) * 1e3:.0f} ms: stopped after {percentiles(stopped)}")
    texts = [
        f"Your total of ${n}.50 is due on March {n}, 2026 at 10:30am; call 415-555-01{n:02d}." for n in range(1, 29)
    ]
    begun = time.perf_counter()
    said = sum(len(list(matches(text))) for text in texts)
    each_us = (time.perf_counter() - begun) / len(texts) * 1e6
    bar.figure(f"spoken form {each_us:.0f} us a sentence of {said / len(texts):.0f} numbers")
    return bar.finish()


if __name__ == "__main__":
    sys.exit(main())
