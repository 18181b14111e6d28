"""Bar 8 of the second part: 2,000 INVITEs a second from one address while 50 calls from another talk.

Each address is in a network namespace of its own, joined to the box by a wire of its own; making them needs root. The
flood comes from an address that may call, which is the harder case: a stranger is dropped without being read.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from appliance.cli.box import Box
from tests.bench import lines, pacing, processes
from tests.bench.report import Bar, percentiles

LIMIT_S = 0.010
BURST_S = 0.01
NEW_CALLS = 5
NETWORK = "10.77"
"""Addresses ``NETWORK.N.1`` (the box) and ``NETWORK.N.2`` (the peer) for wire N."""


def invite(target: str, source: str, port: int) -> bytes:
    """One INVITE of a call of its own."""
    token = secrets.token_hex(6)
    body = f"v=0\r\no=- 1 1 IN IP4 {source}\r\ns=-\r\nc=IN IP4 {source}\r\nt=0 0\r\nm=audio 9 RTP/AVP 0\r\n"
    head = [
        f"INVITE {target} SIP/2.0", f"Via: SIP/2.0/UDP {source}:{port};branch=z9hG4bK{token};rport", "Max-Forwards: 70",
        f"From: <sip:flood@{source}>;tag={token}", f"To: <{target}>", f"Call-ID: {token}@{source}", "CSeq: 1 INVITE",
        f"Contact: <sip:flood@{source}:{port}>", "Content-Type: application/sdp", f"Content-Length: {len(body)}",
    ]  # fmt: skip
    return ("\r\n".join(head) + "\r\n\r\n" + body).encode()


def send_flood(host: str, port: int, source: str, rate: int, seconds: float) -> None:
    """Send INVITEs at ``rate`` a second; prints how many. Nothing that comes back is read."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.bind((source, 0))
        target = f"sip:{lines.LISTENER}@{host}:{port}"
        begun, sent = time.monotonic(), 0
        while (now := time.monotonic() - begun) < seconds:
            while sent < now * rate:
                out.sendto(invite(target, source, out.getsockname()[1]), (host, port))
                sent += 1
            time.sleep(BURST_S)
    print(sent)


@contextmanager
def wires(names: list[str]) -> Iterator[None]:
    """A namespace for each name, joined to this one."""
    made: list[str] = []

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    try:
        for number, name in enumerate(names, start=1):
            near, far = f"fl{number}n{os.getpid()}"[:15], f"fl{number}f{os.getpid()}"[:15]
            ip("netns", "add", name)
            made.append(name)
            ip("link", "add", near, "type", "veth", "peer", "name", far)
            ip("link", "set", far, "netns", name)
            ip("addr", "add", f"{NETWORK}.{number}.1/30", "dev", near)
            ip("link", "set", near, "up")
            ip("-n", name, "addr", "add", f"{NETWORK}.{number}.2/30", "dev", far)
            ip("-n", name, "link", "set", far, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def inside(name: str, *words: str) -> list[str]:
    """A command that runs this interpreter in a namespace."""
    return ["ip", "netns", "exec", name, sys.executable, "-m", *words]


def measure(bar: Bar, calls: int, rate: int, seconds: float) -> None:
    good, bad = f"good{os.getpid()}", f"bad{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix="flood-") as name, wires([good, bad]):
        folder = Path(name)
        here, there = f"{NETWORK}.1.1", f"{NETWORK}.2.1"
        box = Box(folder / "box", lines.settings(folder))
        box.settings["listen.sip"] = [
            {"transport": "udp", "host": host, "port": box.sip_port} for host in (here, there)
        ]
        box.settings["listen.rtp_host"] = here
        box.settings["trunks"] = {
            "good": {"kind": "sip", "allow": [f"{NETWORK}.1.2"]},
            "noisy": {"kind": "sip", "allow": [f"{NETWORK}.2.2"], "max_calls": 10},
        }
        with box:
            out = folder / "arrivals.npz"
            cores = sorted(os.sched_getaffinity(0))
            command = inside(good, "tests.bench.load_calls", "--port", str(box.sip_port), "--box", here)
            command += ["--host", f"{NETWORK}.1.2", "--uri", f"sip:{lines.TALKER}@{here}:{box.sip_port}"]
            command += ["--calls", str(calls), "--seconds", str(seconds), "--out", str(out)]
            command += ["--cores", ",".join(map(str, cores[:-1] or cores))]
            command += ["--speech", *map(str, lines.human_speech(folder))]
            load = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert load.stdout is not None
            flood: subprocess.Popen[str] | None = None
            failed: list[str] = []
            caller = threading.Thread(target=_new_calls, args=(box, good, here, failed), name="new calls")
            before: dict[str, float] = {}
            began = spent = 0.0
            shares = ""
            for line in load.stdout:
                if line.startswith("measuring"):
                    words = ["--send", there, str(box.sip_port), f"{NETWORK}.2.2", str(rate), str(seconds)]
                    flood = subprocess.Popen(
                        inside(bad, "tests.bench.flood", *words), stdout=subprocess.PIPE, text=True
                    )
                    pids = {**box.processes(), "flooder": flood.pid, "callers": load.pid}
                    before = {process: processes.processor_s(pid) for process, pid in pids.items()}
                    began = time.monotonic()
                    caller.start()
                elif line.startswith("measured"):
                    spent = time.monotonic() - began
                    after = {process: processes.processor_s(pid) for process, pid in pids.items() if _lives(pid)}
                    shares = processes.processor_shares(before, after, spent)
            left = load.wait()
            caller.join()
            sent = int(flood.communicate()[0]) if flood is not None else 0
            said = [line for line in box.log.read_text().splitlines() if "flood:" in line]
            stopped = box.stop(60.0)
        bar.figure(f"{sent} INVITEs in {seconds:.0f} s")
        bar.note(f"cores: {shares}")
        bar.require(sent > 0.9 * rate * seconds, f"only {sent} INVITEs could be sent")
        bar.require(left == 0 and out.exists(), f"the callers left with {left}: calls were dropped")
        if out.exists():
            found, missing = pacing.errors(out)
            p99 = float(np.percentile(found, 99))
            bar.figure(f"{calls} calls: {percentiles(found)}, {missing} packets missing")
            bar.require(p99 <= LIMIT_S, f"p99 {p99 * 1e3:.1f} ms is above {LIMIT_S * 1e3:.0f} ms")
            bar.require(len(found) > 0.98 * calls * seconds * 50, f"{len(found)} packets came")
        bar.figure(f"{NEW_CALLS - len(failed)} of {NEW_CALLS} new calls got through")
        bar.figure(f"{len(said)} log lines about the flood")
        for what in [*failed, *said[:2]]:
            bar.note(what)
        bar.require(not failed, f"{len(failed)} new calls from the good address did not get through")
        bar.require(0.8 * seconds <= len(said) <= 1.2 * seconds + 2, "the flood was not logged once a second")
        bar.require(stopped == 0, f"the box left with {stopped}")


def _new_calls(box: Box, namespace: str, host: str, failed: list[str]) -> None:
    for _ in range(NEW_CALLS):
        command = inside(namespace, "appliance.cli.main", "call", f"sip:{lines.GOODBYE}@{host}:{box.sip_port}")
        done = subprocess.run([*command, "--listen"], capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 0:
            failed.append(f"{done.returncode}: {done.stderr.strip()[-200:]}")


def _lives(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").exists()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=50)
    parser.add_argument("--rate", type=int, default=2000, help="INVITEs per second")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--send", nargs=5, metavar=("HOST", "PORT", "SOURCE", "RATE", "SECONDS"), help="be the flood")
    args = parser.parse_args()
    if args.send:
        host, port, source, rate, seconds = args.send
        send_flood(host, int(port), source, int(rate), float(seconds))
        return 0
    if os.geteuid() != 0 or shutil.which("ip") is None:
        print("skipped: network namespaces need root and iproute2")
        return 77
    bar = Bar(8, f"{args.rate} INVITEs a second from one address")
    measure(bar, args.calls, args.rate, args.seconds)
    return bar.finish()


if __name__ == "__main__":
    sys.exit(main())
