"""Bar 3.5: calls by Twilio's protocol on one core of audio, and beside them Pipecat's in the same run.

The callers ask a recorded question in real time, again whenever they have been answered, and play what they hear as
Twilio does. An underrun is a break within what is being said (``appliance.cli.playout``); the headroom is what was
left to be played when more came. The engines are the standard fakes. ``--pipecat PYTHON`` is an interpreter with
Pipecat 1.14.0 in an environment of its own (``pip install "pipecat-ai[websocket,runner,silero]==1.14.0"``): the same
callers call it, its process on the one core that is otherwise our audio's.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from appliance.cli.bench import trunk_of
from appliance.cli.box import HOST, Box, free_port
from appliance.cli.stream_caller import sid
from tests.bench import lines, processes
from tests.bench.carrier_callers import TOKEN
from tests.bench.report import Bar

LIMIT_PER_MIN = 1.0
LEAD_MS = 200.0
PIPECAT_START_S = 120.0
_PEER = Path(__file__).with_name("pipecat_peer.py")


def call(
    words: list[str],
    calls: int,
    seconds: float,
    speech: list[Path],
    pids: Callable[[], Mapping[str, int]],
    token: str = "",
) -> tuple[dict[str, Any], str]:
    """Let the callers run; what they found, and the cores and memory that each process used meanwhile."""
    command = [sys.executable, "-m", "tests.bench.carrier_callers", *words, "--calls", str(calls)]
    command += ["--seconds", str(seconds), "--speech", *map(str, speech)]
    load = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, TOKEN: token})
    assert load.stdout is not None
    watched: dict[str, int] = {}
    before: dict[str, float] = {}
    began, used, found = 0.0, "", {}
    for line in load.stdout:
        if line.startswith("measuring"):
            watched = {**pids(), "callers": load.pid}
            before, began = processes.all_processor_s(watched), time.monotonic()
        elif line.startswith("measured"):
            shares = processes.processor_shares(before, processes.all_processor_s(watched), time.monotonic() - began)
            used = f"cores: {shares}; MiB: {processes.all_resident_mib(watched)}"
        elif line.startswith("{"):
            found = json.loads(line)
    if load.wait() != 0 or not found:
        raise RuntimeError(f"the callers left with {load.returncode}")
    return found, used


def told(bar: Bar, name: str, found: Mapping[str, Any], used: str) -> None:
    """One row."""
    bar.figure(
        f"{name}: {found['underruns_per_min']:.2f} underruns a minute of speech, "
        f"turn p50 {found['latency_p50_ms']:.0f} / p95 {found['latency_p95_ms']:.0f} ms, "
        f"lead p99 {found['lead_p99_ms']:.0f} ms, headroom p1 {found['headroom_p1_ms']:.0f} ms"
    )
    bar.note(
        f"{found['turns']} turns, {found['speech_min']:.1f} min of speech, {found['underruns']} underruns and "
        f"{found['doubtful']} while the callers stood still (at most {found['late_ms']:.0f} ms), "
        f"{found['lost']} calls lost; {used}"
    )
    for what, count in {**found["failures"], **found["violations"]}.items():
        bar.note(f"{count} x {what}")


def appliance(bar: Bar, calls: int, seconds: float, held_to: int) -> None:
    with tempfile.TemporaryDirectory(prefix="carrier-load-") as name:
        folder = Path(name)
        token, account = sid(""), sid("AC")
        settings: dict[str, object] = {
            **lines.settings(folder), "limits.max_calls": calls + 10, "limits.max_cps": 300,
            "limits.streams_per_address": calls + 10, "log.level": "warning", "media.core": processes.cores()[0],
        }  # fmt: skip
        box = Box(folder / "box", settings)
        box.settings["trunks"] = trunk_of(account, token, box.http_port)
        with box:
            words = ["--webhook", f"http://{HOST}:{box.http_port}/twilio/voice", "--account-sid", account]
            words += ["--to", lines.TALKER]
            found, used = call(words, calls, seconds, [lines.question(folder)], box.processes, token)
            told(bar, f"{calls} calls", found, used)
            bound = calls <= held_to
            bar.require(not found["failures"] and not found["lost"], f"{calls} calls: not all of them held")
            bar.require(not found["violations"], f"{calls} calls: Twilio's schema was broken")
            bar.require(found["lead_p99_ms"] <= LEAD_MS, f"{calls} calls: a lead of {found['lead_p99_ms']} ms")
            if bound:
                bar.require(
                    found["underruns_per_min"] < LIMIT_PER_MIN,
                    f"{calls} calls: {found['underruns_per_min']:.2f} underruns a minute",
                )
            bar.require(box.stop(60.0) == 0, f"{calls} calls: the box did not leave with exit code 0")


@contextlib.contextmanager
def pipecat_server(python: Path) -> Iterator[tuple[str, int]]:
    """Pipecat's pipeline behind a WebSocket; gives its address and process id."""
    port = free_port()
    with tempfile.NamedTemporaryFile("w+", suffix=".log") as log:
        command = [
            str(python),
            str(_PEER),
            "--port",
            str(port),
            "--core",
            str(processes.cores()[0]),
            "--reply",
            lines.REPLY,
        ]
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + PIPECAT_START_S
            while True:
                with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{HOST}:{port}/ready", timeout=2):
                    break
                if server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"Pipecat did not start:\n{Path(log.name).read_text()[-3000:]}")
                time.sleep(0.2)
            yield f"ws://{HOST}:{port}/ws", server.pid
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def pipecat(bar: Bar, python: Path, calls: int, seconds: float) -> None:
    with tempfile.TemporaryDirectory(prefix="carrier-load-") as name, pipecat_server(python) as (url, pid):
        speech = [lines.question(Path(name))]
        found, used = call(["--url", url, "--settle", "8"], calls, seconds, speech, lambda: {"pipecat": pid})
        told(bar, f"Pipecat, {calls} calls", found, used)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, nargs="+", default=[12, 24, 48, 96])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--held-to", type=int, default=48, help="calls up to which underruns are held to the bar")
    parser.add_argument(
        "--pipecat", type=Path, metavar="PYTHON", default=os.environ.get("PIPECAT") or None,
        help="measure Pipecat too, with this interpreter (default: the environment's PIPECAT)",
    )  # fmt: skip
    parser.add_argument("--pipecat-calls", type=int, nargs="+", default=[1, 12, 24, 48])
    args = parser.parse_args()
    bar = Bar("3.5", "calls by Twilio's protocol, audio on one core")
    for calls in args.calls:
        appliance(bar, calls, args.seconds, args.held_to)
    for calls in args.pipecat_calls if args.pipecat else ():
        pipecat(bar, args.pipecat, calls, args.seconds)
    return bar.finish()


if __name__ == "__main__":
    sys.exit(main())
