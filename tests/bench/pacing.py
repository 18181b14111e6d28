"""Bar 7: how evenly audio leaves when many calls speak at once, recording on, media on one core.

The error of a packet is its kernel arrival time against the 20 ms grid that is the median of its own call. The
callers live in a process of their own, off the media core. ``--burn`` adds the two neighbours that must not matter:
control parses a 50 MB JSON in a loop, and the recognisers are saturated.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from appliance.cli.box import Box
from tests.bench import lines, processes
from tests.bench.report import Bar, percentiles

LIMIT_S = 0.005
_BURN = """
import sys
if "appliance.server.control" in sys.orig_argv:
    import json, pathlib, threading, time
    text = "[" + ",".join(['{"name": "value", "number": 12345.678}'] * (50_000_000 // 41)) + "]"
    def burn():
        while not pathlib.Path(__file__).with_name("go").exists():
            time.sleep(0.1)
        while True:
            json.loads(text)
    threading.Thread(target=burn, daemon=True).start()
if "appliance.engines.worker" in sys.orig_argv and "asr-0" in sys.orig_argv:
    import threading
    def spin():
        while True:
            sum(range(100_000))
    threading.Thread(target=spin, daemon=True).start()
"""


def errors(path: Path) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], int]:
    """Absolute pacing error of every packet in seconds, and how many packets never came."""
    data = np.load(path)
    found, missing = [], 0
    for call in np.unique(data["call"]):
        mine = data["call"] == call
        sequence = data["sequence"][mine]
        grid = data["at"][mine] - 0.02 * sequence
        found.append(np.abs(grid - np.median(grid)))
        missing += int(sequence.max() - sequence.min() + 1 - len(sequence))
    return np.concatenate(found), missing


def _burning_control(folder: Path) -> Path:
    """A folder for PYTHONPATH: control parses a 50 MB JSON, over and over, in a thread, and a worker never rests.

    Control begins when a file ``go`` appears in the folder: beside a thread that holds the interpreter lock for a
    second at a time, it would take minutes to start.
    """
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(_BURN)
    return folder / "site"


def measure(bar: Bar, count: int, seconds: float, burn: bool) -> None:
    name = f"{count} calls{', neighbours burning' if burn else ''}"
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="bar7-") as folder_name:
        folder = Path(folder_name)
        settings = lines.settings(folder, asr="pocketsphinx" if burn else "fake")
        environment = {"PYTHONPATH": str(_burning_control(folder))} if burn else {}
        with Box(folder / "box", settings, environment) as box:
            out = folder / "arrivals.npz"
            command = [sys.executable, "-m", "tests.bench.load_calls", "--port", str(box.sip_port)]
            command += ["--uri", box.uri(lines.TALKER), "--calls", str(count), "--seconds", str(seconds)]
            command += ["--out", str(out), "--cores", ",".join(map(str, cores[:-1] or cores))]
            command += ["--speech", *map(str, lines.human_speech(folder))]
            load = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert load.stdout is not None
            pids = {}
            before: dict[str, float] = {}
            after: dict[str, float] = {}
            began = spent = 0.0
            for line in load.stdout:
                if line.startswith("measuring"):
                    if burn:
                        (folder / "site" / "go").touch()
                    pids = {**box.processes(), "callers": load.pid}
                    before = processes.all_processor_s(pids)
                    began = time.monotonic()
                elif line.startswith("measured"):
                    after = processes.all_processor_s(pids)
                    spent = time.monotonic() - began
            gone = sorted(set(pids) - set(after)) if after else []
            if gone:
                bar.note(f"restarted meanwhile: {', '.join(gone)}")
            bar.require(load.wait() == 0, f"{name}: the callers left with {load.returncode}")
            if not out.exists():
                bar.note(box.log_tail())
                return
            found, missing = errors(out)
            p99 = float(np.percentile(found, 99))
            bar.figure(f"{name}: {percentiles(found)}")
            bar.note(f"worst {found.max() * 1e3:.1f} ms; {missing} of {len(found) + missing} packets missing")
            bar.note(f"cores: {processes.processor_shares(before, after, spent)}")
            bar.require(p99 <= LIMIT_S, f"{name}: p99 {p99 * 1e3:.1f} ms is above {LIMIT_S * 1e3:.0f} ms")
            expected = count * seconds * 50
            bar.require(len(found) > 0.98 * expected, f"{name}: {len(found)} packets of {expected:.0f}")
            bar.require(box.stop(60.0) == 0, f"{name}: the box did not leave with exit code 0")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, nargs="+", default=[50, 100])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--burn", choices=["no", "yes", "both"], default="both")
    args = parser.parse_args()
    bar = Bar(7, "pacing error")
    for burn in {"no": [False], "yes": [True], "both": [False, True]}[args.burn]:
        for count in args.calls:
            measure(bar, count, args.seconds, burn)
    return bar.finish()


if __name__ == "__main__":
    sys.exit(main())
