"""What a call costs the media process: processor time of the tick, for each kind of leg.

The callers are a process of their own: only the tick is counted. Run: python -m tests.bench.tick_cost --calls 200
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import multiprocessing
import os
import socket
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from appliance.audio.codec import new_codec
from appliance.ipc.messages import AnyMessage
from appliance.ipc.rings import AudioRings
from appliance.media.leg import MediaLeg
from appliance.media.playout import Playout
from appliance.media.ports import PortPool
from appliance.media.tick import AudioClock
from appliance.media.vad import BatchVad
from appliance.rtp.packet import build
from appliance.rtp.srtp import SrtpContext
from appliance.rtp_params import RtpParams

_SETTLE_TICKS = 100
_KEY = base64.b64encode(bytes(range(30))).decode()
_KEYING = f"AES_CM_128_HMAC_SHA1_80 {_KEY}"
KINDS: dict[str, dict[str, Any]] = {
    "G.711": {"codec": "pcmu", "payload_type": 0},
    "G.711, SRTP": {"codec": "pcmu", "payload_type": 0, "srtp_tx": _KEYING, "srtp_rx": _KEYING},
    "G.711, 40 ms": {"codec": "pcmu", "payload_type": 0, "ptime_ms": 40},
    "G.711, key tones": {"codec": "pcmu", "payload_type": 0, "dtmf": "inband"},
    "G.722": {"codec": "g722", "payload_type": 9},
    "Opus": {"codec": "opus", "payload_type": 96},
}


def callers(control: Connection, count: int, codec_name: str, payload_type: int, keying: str) -> None:
    """Send one packet of speech-like noise a call every 20 ms, on a grid of ten phases."""
    socks = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
    for sock in socks:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
    control.send([sock.getsockname()[1] for sock in socks])
    targets = control.recv()
    codec = new_codec(codec_name)
    voice = (3000 * np.random.default_rng(1).standard_normal((50, 160))).astype(np.int16)
    payloads = [codec.encode(frame) for frame in voice]
    contexts = [SrtpContext(keying, inbound=False) if keying else None for _ in socks]
    scale = codec.rtp_clock_hz // 8000
    due = time.monotonic()
    number = 0
    while not control.poll():
        for phase in range(10):
            for index in range(phase, count, 10):
                data = build(payload_type, number & 0xFFFF, number * 160 * scale, index + 1, payloads[number % 50])
                context = contexts[index]
                socks[index].sendto(context.protect(data) if context else data, ("127.0.0.1", targets[index]))
                with contextlib.suppress(BlockingIOError):
                    socks[index].recv(2048)
            due += 0.002
            time.sleep(max(0.0, due - time.monotonic()))
        number += 1


def measure(count: int, seconds: float, agreed: dict[str, Any], vad: bytes | None) -> float:
    """Processor seconds of the tick per second, for ``count`` calls of this kind."""
    ours, theirs = multiprocessing.Pipe()
    job = (theirs, count, agreed["codec"], agreed["payload_type"], agreed.get("srtp_rx", ""))
    process = multiprocessing.get_context("spawn").Process(target=callers, args=job, daemon=True)
    process.start()
    rings = AudioRings.create(count)
    heard: list[AnyMessage] = []
    clock = AudioClock(rings, BatchVad(vad, count) if vad else None, heard.append, 30.0)
    pool = PortPool("127.0.0.1", 26000, 26400 + 4 * count)
    speech = (3000 * np.random.default_rng(2).standard_normal(16000)).astype(np.int16)
    ports = []
    for slot, port in enumerate(ours.recv()):
        pair = pool.bind()
        rings.open(slot, 1)
        leg = MediaLeg(slot, 1, pair, Playout(rings.tts[slot]), slot + 1000)
        clock.legs[slot] = leg
        clock.receiver.add(pair.rtp, slot)
        clock.receiver.add(pair.rtcp, ~slot)
        leg.connect(RtpParams("127.0.0.1", port, dtmf_payload_type=101, **agreed), time.monotonic())
        clock.begin(leg, 1, 1)
        rings.tts[slot, : len(speech)] = speech
        ports.append(pair.port)
    ours.send(ports)
    due = time.monotonic()
    spent = 0.0
    ticks = int(seconds / 0.02)
    for number in range(_SETTLE_TICKS + ticks):
        if number % 100 == 0:
            for leg in clock.legs.values():
                leg.playout.flush()
                leg.playout.add(number, 0, len(speech), True)
        due += 0.02
        time.sleep(max(0.0, due - time.monotonic()))
        begun = time.process_time()
        clock.run(1, 0.0)
        if number >= _SETTLE_TICKS:
            spent += time.process_time() - begun
        heard.clear()
    received = sum(leg.received for leg in clock.legs.values())
    lost = sum(leg.jitter.lost + leg.jitter.late for leg in clock.legs.values())
    assert received > 0.9 * count * ticks, f"only {received} packets came"
    print(f"    {received} packets heard, {lost} lost", flush=True)
    ours.send("stop")
    process.join()
    for leg in list(clock.legs.values()):
        for sock in leg.pair:
            clock.receiver.remove(sock)
        clock.forget(leg)
        pool.release(leg.pair)
    clock.receiver.close()
    os.close(rings.fd)
    return spent / (ticks * 0.02)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--only", default="")
    parser.add_argument("--vad", type=Path, help="the Silero model, to count it too")
    args = parser.parse_args()
    vad = args.vad.read_bytes() if args.vad else None
    for name, agreed in KINDS.items():
        if args.only in name:
            share = measure(args.calls, args.seconds, agreed, vad)
            print(
                f"{name}: {share:.3f} core for {args.calls} calls, {share * 1e6 / args.calls / 50:.1f} us a packet pair"
            )


if __name__ == "__main__":
    main()
