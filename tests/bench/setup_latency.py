"""Call set-up as the caller sees it: INVITE to 180, and INVITE and 200 to the first packet of the greeting that sounds.

The box is the one that is shipped (embedded engines, its own dialplan). Times are the kernel's: when a datagram came to
the caller's socket, and the moment before the INVITE was handed to it.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from appliance.cli.box import HOST, Box
from appliance.cli.rtp_stream import SPEECH_DBFS, RtpStream, Ticker
from appliance.cli.softphone import CallFailed
from tests.bench import records
from tests.bench.report import Bar, percentiles
from tests.bench.uac import BareUac, header
from tests.peers.capture import SO_TIMESTAMPNS, kernel_time

TRYING_MS = 10.0
GREETING_MS = 150.0
BUFFER_BYTES = 4 * 1024 * 1024


class StampedTransport(asyncio.DatagramTransport):
    """A UDP socket whose datagrams are handed on with their kernel receive time."""

    def __init__(self, host: str, received: Callable[[bytes, tuple[str, int], float], None]) -> None:
        super().__init__()
        self._received = received
        self._loop = asyncio.get_running_loop()
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.setblocking(False)
        self._sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        self._sock.bind((host, 0))
        self.address: tuple[str, int] = self._sock.getsockname()[:2]
        self._loop.add_reader(self._sock, self._readable)

    def sendto(self, data: Any, addr: Any = None) -> None:
        self._sock.sendto(data, addr)

    def is_closing(self) -> bool:
        return self._sock.fileno() < 0

    def close(self) -> None:
        if not self.is_closing():
            self._loop.remove_reader(self._sock)
            self._sock.close()

    def _readable(self) -> None:
        while True:
            try:
                data, ancillary, _, source = self._sock.recvmsg(65536, 128)
            except BlockingIOError:
                return
            self._received(data, source, kernel_time(ancillary))


class StampedUac(BareUac):
    """The bare caller, which notes when each response to an INVITE came first.

    Attributes:
        came: kernel receive time by (Call-ID, status).
    """

    def __init__(self, peer: tuple[str, int]) -> None:
        super().__init__(peer)
        self.came: dict[tuple[str, int], float] = {}

    async def __aenter__(self) -> StampedUac:
        transport = StampedTransport(self.host, self._received)
        self._transport, self.advertised = transport, transport.address
        return self

    def _received(self, data: bytes, source: tuple[str, int], at: float) -> None:
        message = data.decode(errors="replace")
        if message.startswith("SIP/2.0 ") and header(message, "CSeq").endswith("INVITE"):
            self.came.setdefault((header(message, "Call-ID"), int(message[8:11])), at)
        self.datagram_received(data, source)


@dataclass(frozen=True)
class SetUp:
    """One call's set-up in seconds after its INVITE."""

    ringing_s: float
    answered_s: float
    greeting_s: float


async def one_call(uac: StampedUac, uri: str, ticker: Ticker, talk_s: float) -> SetUp:
    """Call, listen for a while, hang up.

    Raises:
        CallFailed: refused, not answered, or nothing was heard.
    """
    rtp = RtpStream(HOST, ticker=ticker, keep_audio=False)
    try:
        call = await uac.dial(uri, (rtp.host, rtp.port), 15.0)
        rtp.start(call.answer.remote, call.answer.codecs)
        await asyncio.sleep(talk_s)
        await call.hangup()
    finally:
        rtp.close()
    heard = next((arrival.at for arrival in rtp.arrivals if arrival.level_dbfs > SPEECH_DBFS), None)
    if heard is None:
        raise CallFailed(200, f"answered, but silent for {talk_s:.0f} s")
    at = {status: uac.came.get((call.call_id, status), float("nan")) - call.sent_at for status in (180, 200)}
    return SetUp(at[180], at[200], heard - call.sent_at)


async def measure(port: int, calls: int, rate: float, talk_s: float) -> tuple[list[SetUp], list[str]]:
    """``calls`` calls, begun on a fixed grid; the set-ups of those that worked, and what went wrong with the others."""
    ticker = Ticker(phases=10)
    placed: list[asyncio.Task[SetUp]] = []
    async with StampedUac((HOST, port)) as uac:
        begun = time.monotonic()
        for number in range(calls):
            await asyncio.sleep(max(0.0, begun + number / rate - time.monotonic()))
            placed.append(asyncio.create_task(one_call(uac, f"sip:service@{HOST}:{port}", ticker, talk_s)))
        done = await asyncio.gather(*placed, return_exceptions=True)
        wrong = [
            *uac.stats.unexpected,
            *[f"{uac.stats.requests_sent_again} repeated"] * bool(uac.stats.requests_sent_again),
        ]
    return [one for one in done if isinstance(one, SetUp)], wrong + [
        f"{type(one).__name__}: {one}" for one in done if isinstance(one, BaseException)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--rate", type=float, default=20.0, help="calls per second")
    parser.add_argument("--talk-s", type=float, default=3.0)
    args = parser.parse_args()
    bar = Bar(10, f"call set-up, {args.calls} calls at {args.rate:.0f}/s")
    with tempfile.TemporaryDirectory(prefix="setup-") as name, Box(Path(name) / "box") as box:
        first, _ = uvloop.run(measure(box.sip_port, 1, 1.0, 1.0))
        bar.note(f"first call after the start, nothing cached: {[f'{one.greeting_s * 1e3:.0f} ms' for one in first]}")
        found, wrong = uvloop.run(measure(box.sip_port, args.calls, args.rate, args.talk_s))
        records.wait_settled(box.database, args.calls + 1)
        bar.require(box.stop() == 0, "the box did not leave with exit code 0")
    bar.require(len(found) == args.calls and not wrong, f"{len(found)} of {args.calls} calls worked; {wrong[:3]}")
    if found:
        report(bar, found)
    return bar.finish()


def report(bar: Bar, found: list[SetUp]) -> None:
    """The figures, and the two that are held to a bar."""
    ringing = [one.ringing_s for one in found]
    greeting = [one.greeting_s for one in found]
    bar.figure(f"INVITE to 180 {percentiles(ringing)}")
    bar.figure(f"INVITE to greeting {percentiles(greeting)}")
    bar.note(f"INVITE to 200 {percentiles([one.answered_s for one in found])}")
    bar.note(f"200 to greeting {percentiles([one.greeting_s - one.answered_s for one in found])}")
    bar.require(float(np.percentile(ringing, 95)) <= TRYING_MS / 1e3, f"180 later than {TRYING_MS:.0f} ms at p95")
    bar.require(
        float(np.percentile(greeting, 95)) <= GREETING_MS / 1e3, f"greeting later than {GREETING_MS:.0f} ms at p95"
    )


if __name__ == "__main__":
    sys.exit(main())
