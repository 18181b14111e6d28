"""What voice activity detection costs per call: ``python -m tests.bench.vad_cost``.

Prints, for several numbers of calls, the model alone (per 32 ms frame) and the whole tick (per call and 20 ms), and
the share of one core that these calls take. Best of several rounds, since other work only ever adds to it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from appliance.media.silero import FRAME_SAMPLES, SileroBatch
from appliance.media.vad import TICK_SAMPLES, BatchVad
from appliance.models.catalogue import SILERO_VAD
from appliance.models.store import ModelStore, model_directory

BATCHES = (1, 8, 32, 100, 200, 400)
ROUNDS = 7


def main() -> None:
    model = ModelStore(model_directory()).read(SILERO_VAD.name)
    print("calls   model us/call   tick us/call   tick ms worst   core")
    for batch in BATCHES:
        model_s, tick_s, worst_s = measure(model, batch)
        print(
            f"{batch:5d} {model_s / batch * 1e6:15.1f} {tick_s / batch * 1e6:14.1f} {worst_s * 1e3:15.2f}"
            f" {tick_s / 0.02 * 100:5.1f} %"
        )


def measure(model: bytes, batch: int) -> tuple[float, float, float]:
    """Seconds of one model run over ``batch`` calls, of one tick, and of the slowest tick of the quietest round."""
    random = np.random.default_rng(0)
    slots = np.arange(batch)
    repeats = max(8, 800 // batch)
    silero = SileroBatch(model, batch)
    speech = random.normal(0, 0.1, (batch, FRAME_SAMPLES)).astype(np.float32)
    model_s = min(_timed(lambda: silero.step(slots, speech), repeats)[0] for _ in range(ROUNDS))
    vad = BatchVad(model, batch)
    heard = (random.normal(0, 0.1, (batch, TICK_SAMPLES)) * 32767).astype(np.int16)
    ticks = [_timed(lambda: vad.tick(slots, heard), repeats) for _ in range(ROUNDS)]
    return model_s, min(mean for mean, _ in ticks), min(worst for _, worst in ticks)


def _timed(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Mean and worst duration in seconds."""
    durations = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        durations.append(time.perf_counter() - start)
    return sum(durations) / repeats, max(durations)


if __name__ == "__main__":
    main()
