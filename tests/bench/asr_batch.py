"""What batching over calls is worth: ``python -m tests.bench.asr_batch``.

Eight callers ask at once, five seconds of audio each (500 frames); their transcripts have 12 to 27 tokens. The model
has the shape of Whisper base (six layers each, 512 wide, a vocabulary of 51,865) in int8. Its weights are written down
so that a transcript ends where its audio does (``tests/engines/tone_whisper.py``); with random ones none would end, and
what is computed does not depend on their values. The requests go through the worker, its batcher and the engine:

- one by one: batches of one, the next request when the last is answered;
- together: all eight handed in at once;
- alone: one request in an engine that would take eight, against the same in one that takes one.

Rounds of all four alternate; the ratios are the median of those within a round. Other work on the machine slows both
sides, and makes the throughput by the wall a figure of that work, too: beside it stands the one per processor time.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from statistics import median

import numpy as np

from appliance.engines.asr_options import WhisperOptions
from appliance.engines.whisper_asr import WhisperAsr
from appliance.engines.whisper_model import WhisperModel
from appliance.engines.worker import Worker
from appliance.ipc.messages import AnyMessage, Failed, Recognise, Recognised
from appliance.ipc.rings import FRAME_SAMPLES, AudioRings
from appliance.server.plan import child_environment
from tests.bench.report import Bar
from tests.engines.tone_whisper import WORDS, speech, write_model

CALLS = 8
TOKENS = (12, 14, 16, 18, 21, 23, 25, 27)
AUDIO_S = 4.6
"""With the silence behind it, a window of five seconds."""
SLOT_S = 0.16
VOCABULARY = 51_865
ALONE = 8
"""Of each kind, in a round."""
GENERATION = 1


class Box:
    """A worker with an engine that takes at most ``max_batch`` requests at a time, and callers who have spoken."""

    def __init__(self, folder: Path, max_batch: int, threads: int) -> None:
        options = WhisperOptions(model=str(folder), max_batch=max_batch, threads=threads)
        self.engine = WhisperAsr(lambda: WhisperModel(folder, device="cpu", threads=threads), options)
        self.rings = AudioRings.create(CALLS)
        self._answers: dict[int, asyncio.Future[Recognised]] = {}
        self._numbers = 0

    async def start(self) -> None:
        await self.engine.load()
        self.worker = Worker("asr-0", self.engine, self.rings)
        for slot, tokens in enumerate(TOKENS):
            said = speech(text_of(slot, tokens), slot_s=SLOT_S)
            pcm = np.concatenate([said, np.zeros(round(AUDIO_S * 8000), np.int16)])[: round(AUDIO_S * 8000)]
            frames = pcm.reshape(-1, FRAME_SAMPLES)
            self.rings.open(slot, GENERATION)
            self.rings.rx[slot, : len(frames)] = frames
            self.rings.frames[slot] = len(frames)

    def send(self, message: AnyMessage) -> bool:
        if isinstance(message, Recognised):
            self._answers.pop(message.request).set_result(message)
        elif isinstance(message, Failed):
            self._answers.pop(message.request).set_exception(RuntimeError(message.reason))
        return True

    async def ask(self, slot: int) -> None:
        """Ask, wait, and check that it was understood."""
        self._numbers += 1
        answer = self._answers[self._numbers] = asyncio.get_running_loop().create_future()
        end = round(AUDIO_S * 8000)
        self.worker.handle(self, Recognise(self._numbers, slot, GENERATION, 0, end, "en", (), (), False, math.inf))
        heard = await answer
        if heard.text != text_of(slot, TOKENS[slot]):
            raise RuntimeError(f"heard {heard.text!r}")


def text_of(slot: int, tokens: int) -> str:
    """As many words as there are tokens, no two alike in a row."""
    return " ".join(WORDS[(slot + at * 5) % len(WORDS)] for at in range(tokens))


async def one_by_one(box: Box) -> None:
    for slot in range(CALLS):
        await box.ask(slot)


async def together(box: Box) -> None:
    await asyncio.gather(*(box.ask(slot) for slot in range(CALLS)))


async def alone(box: Box) -> None:
    await box.ask(3)


async def _timed(work: Callable[[Box], Coroutine[None, None, None]], box: Box) -> tuple[float, float]:
    """Seconds by the wall and of processor time."""
    started, used = time.perf_counter(), time.process_time()
    await work(box)
    return time.perf_counter() - started, time.process_time() - used


def _ratio(found: dict[str, list[tuple[float, float]]], above: str, below: str) -> tuple[float, float]:
    """Median over the rounds, which see the same machine, of the ratios of wall and of processor time."""
    pairs = list(zip(found[above], found[below], strict=True))
    return median(one[0] / other[0] for one, other in pairs), median(one[1] / other[1] for one, other in pairs)


async def measure(folder: Path, rounds: int, threads: int) -> int:
    bar = Bar(10, "batched recognition")
    single, batched = Box(folder, 1, threads), Box(folder, CALLS, threads)
    await single.start()
    await batched.start()
    bar.note(batched.engine.model.description)
    found: dict[str, list[tuple[float, float]]] = {}
    for _ in range(rounds):
        for name, work, box in (("one by one", one_by_one, single), ("together", together, batched)):
            found.setdefault(name, []).append(await _timed(work, box))
        for _ in range(ALONE):
            for name, box in (("alone, batches of 1", single), ("alone, batches of 8", batched)):
                found.setdefault(name, []).append(await _timed(alone, box))
    wall = {name: median(taken for taken, _ in all_of) for name, all_of in found.items()}
    for name, all_of in found.items():
        bar.note(
            f"{name:20} {wall[name] * 1e3:6.0f} ms, {median(used for _, used in all_of) * 1e3:6.0f} ms of processor"
        )
    throughput, processor = _ratio(found, "one by one", "together")
    lone, _ = _ratio(found, "alone, batches of 8", "alone, batches of 1")
    bar.figure(
        f"{CALLS} together {throughput:.2f} x the throughput of one by one ({processor:.2f} x per processor time)"
    )
    bar.figure(f"one alone takes {lone:.2f} x as long")
    bar.require(throughput >= 2.0, "at least 2 x")
    bar.require(lone <= 1.1, "a lone request not slower than 1.1 x")
    await single.worker.close()
    await batched.worker.close()
    return bar.finish()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=0, help="of a batch; 0: one per core, four at most")
    arguments = parser.parse_args()
    as_worker = child_environment(dict(os.environ))
    if as_worker != os.environ:
        # Libraries read at their import how many threads they may have.
        os.execve(sys.executable, [sys.executable, "-m", "tests.bench.asr_batch", *sys.argv[1:]], as_worker)
    logging.basicConfig(level=logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="appliance-bench-") as folder:
        shape = {"encoder_layers": 6, "decoder_layers": 6, "longest_prompt": 0, "padding": VOCABULARY}
        model = write_model(Path(folder) / "base", slot_s=SLOT_S, **shape)
        return asyncio.run(measure(model, arguments.rounds, arguments.threads))


if __name__ == "__main__":
    raise SystemExit(main())
