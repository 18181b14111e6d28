"""Cost of one received packet in pure Python: parse, jitter push, jitter pop. Run: python -m tests.bench.rtp_cost"""

from __future__ import annotations

import time

from appliance.rtp import packet
from appliance.rtp.jitter import JitterBuffer

CALLS = 200
FRAMES = 400


def best(runs: int = 5) -> tuple[float, float, float, float]:
    """Microseconds per packet, the least of some runs: parse, push, pop, and the three as one loop."""
    results = []
    for _ in range(runs):
        datagrams = [packet.build(0, 65500 + n, n * 160, 7, bytes(160)) for n in range(FRAMES)]
        buffers = [JitterBuffer() for _ in range(CALLS)]
        parse, clock = packet.parse, time.perf_counter
        parsing = pushing = popping = 0.0
        for n, datagram in enumerate(datagrams):
            begun = clock()
            parsed = [parse(datagram) for _ in range(CALLS)]
            parsing += clock() - begun
            begun = clock()
            now = n * 0.02
            for buffer, (_, marker, seq, timestamp, ssrc, payload) in zip(buffers, parsed, strict=True):
                buffer.push(seq, timestamp, payload, now, marker, ssrc)
            pushing += clock() - begun
            begun = clock()
            for buffer in buffers:
                buffer.pop()
            popping += clock() - begun
        scale = 1e6 / (CALLS * FRAMES)
        results.append((parsing * scale, pushing * scale, popping * scale))
    columns = [min(column) for column in zip(*results, strict=True)]
    return columns[0], columns[1], columns[2], min(sum(result) for result in results)


if __name__ == "__main__":
    parse_us, push_us, pop_us, total_us = best()
    print(f"parse {parse_us:.2f} us, push {push_us:.2f} us, pop {pop_us:.2f} us; together {total_us:.2f} us a packet")
