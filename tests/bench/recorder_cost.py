"""What recording costs: processor time of the recorder for calls in progress, at the real rate.

python -m tests.bench.recorder_cost [--calls 200] [--seconds 10]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from appliance.ipc.messages import StartRecording
from appliance.ipc.rings import AudioRings
from appliance.store.recorder import POLL_S, Recorder


def measure(calls: int, seconds: float, folder: Path) -> None:
    rings = AudioRings.create(calls)
    recorder = Recorder(rings)
    for slot in range(calls):
        rings.open(slot, 1)
        recorder.handle(StartRecording(str(slot), slot, 1, str(folder / f"{slot}.wav"), 0))
    begun, cpu, longest_s = time.monotonic(), 0.0, 0.0
    polls = int(seconds / POLL_S)
    for number in range(1, polls + 1):
        rings.frames[:] = int(number * POLL_S / 0.02)
        before, started = time.process_time(), time.monotonic()
        recorder.poll()
        cpu += time.process_time() - before
        longest_s = max(longest_s, time.monotonic() - started)
        time.sleep(max(0.0, begun + number * POLL_S - time.monotonic()))
    recorder.close()
    print(
        f"{calls} recordings: {100 * cpu / (polls * POLL_S):.1f} % of a core, "
        f"{1e6 * cpu / polls / calls:.0f} µs per call and write, longest poll {1000 * longest_s:.0f} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=10.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(args.calls, args.seconds, Path(folder))


if __name__ == "__main__":
    main()
