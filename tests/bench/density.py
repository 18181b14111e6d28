"""How many calls one core of audio carries: pacing at 50 to 400 G.711 calls, then with SRTP, G.722 and Opus.

Speech both ways, voice activity detection, recording and RTCP on, no suppression; media pinned to one core, the
callers on the others. The error of a packet is its kernel arrival time against the 20 ms grid that is the median of
its own call.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from appliance.cli.box import Box, free_rtp_range
from tests.bench import lines, processes
from tests.bench.pacing import LIMIT_S, errors
from tests.bench.report import Bar, percentiles

BAR_CALLS = 200
GOAL_CALLS = 400


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    calls: int
    codec: str = "pcmu"
    srtp: bool = False

    @property
    def name(self) -> str:
        return f"{self.calls} calls {self.codec}{' over SRTP' if self.srtp else ''}"

    def settings(self, folder: Path) -> dict[str, object]:
        trunk = {
            "kind": "sip",
            "allow": ["127.0.0.0/8"],
            "codecs": [self.codec],
            "srtp": "required" if self.srtp else "off",
        }
        return {
            **lines.settings(folder),
            "limits.max_calls": self.calls + 10,
            "limits.max_cps": 300,
            "listen.rtp_ports": free_rtp_range(2 * self.calls + 64),
            "trunks": {"local": trunk},
            "log.level": "warning",
        }


def measure(bar: Bar, case: Case, seconds: float, held_to: int) -> None:
    """Run one case; it belongs to the bar up to ``held_to`` calls, beyond that it is only told."""
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="density-") as name:
        folder = Path(name)
        with Box(folder / "box", case.settings(folder)) as box:
            out = folder / "arrivals.npz"
            command = [sys.executable, "-m", "tests.bench.dense_callers", "--port", str(box.sip_port)]
            command += ["--uri", box.uri(lines.TALKER), "--calls", str(case.calls), "--seconds", str(seconds)]
            command += ["--codec", case.codec, *(["--srtp"] if case.srtp else [])]
            command += ["--out", str(out), "--cores", ",".join(map(str, cores[:-1] or cores))]
            command += ["--speech", *map(str, lines.human_speech(folder))]
            load = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert load.stdout is not None
            pids: dict[str, int] = {}
            before: dict[str, float] = {}
            after: dict[str, float] = {}
            began = spent = 0.0
            for line in load.stdout:
                if line.startswith("measuring"):
                    pids = {**box.processes(), "callers": load.pid}
                    before = processes.all_processor_s(pids)
                    began = time.monotonic()
                elif line.startswith("measured"):
                    after = processes.all_processor_s(pids)
                    spent = time.monotonic() - began
            left = load.wait()
            gone = sorted(set(pids) - set(after)) if after else []
            if gone:
                bar.note(f"restarted meanwhile: {', '.join(gone)}")
            bound = case.calls <= held_to
            if bound:
                bar.require(left == 0, f"{case.name}: the callers left with {left}")
            elif left:
                bar.note(f"{case.name}: the callers left with {left}")
            if not out.exists():
                bar.note(box.log_tail())
                return
            found, missing = errors(out)
            p99 = float(np.percentile(found, 99))
            bar.figure(f"{case.name}: {percentiles(found)}, {missing} missing")
            bar.note(f"worst {found.max() * 1e3:.1f} ms; cores: {processes.processor_shares(before, after, spent)}")
            if bound:
                expected = case.calls * seconds * 50
                bar.require(p99 <= LIMIT_S, f"{case.name}: p99 {p99 * 1e3:.1f} ms is above {LIMIT_S * 1e3:.0f} ms")
                bar.require(missing == 0, f"{case.name}: {missing} packets never came")
                bar.require(len(found) > 0.98 * expected, f"{case.name}: {len(found)} packets of {expected:.0f}")
            bar.require(box.stop(60.0) == 0, f"{case.name}: the box did not leave with exit code 0")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, nargs="+", default=[50, 100, BAR_CALLS, 300, GOAL_CALLS])
    parser.add_argument("--others", type=int, nargs="*", default=[50, 100, BAR_CALLS], help="calls with other codecs")
    parser.add_argument("--codecs", nargs="*", default=["srtp", "g722", "opus"])
    parser.add_argument("--seconds", type=float, default=60.0)
    args = parser.parse_args()
    bar = Bar("2.6", "calls on one core")
    for calls in args.calls:
        measure(bar, Case(calls), args.seconds, BAR_CALLS)
    for codec in args.codecs:
        for calls in args.others:
            case = Case(calls, srtp=True) if codec == "srtp" else Case(calls, codec)
            measure(bar, case, args.seconds, 0)
    return bar.finish()


if __name__ == "__main__":
    sys.exit(main())
