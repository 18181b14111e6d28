"""Bar 3: a fifth of all SIP datagrams is lost each way, and every call is still set up, torn down and on record once.

A relay of our own stands between a bare caller and the box and drops with a fixed seed. Half of the calls are ended
by the caller, half by the box.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from pathlib import Path

from appliance.cli.box import Box
from tests.bench import lines, records
from tests.bench.report import Bar
from tests.bench.uac import BareCall, BareUac

HOST = "127.0.0.1"


class LossyRelay:
    """Two UDP sockets: ``front`` faces the caller, ``back`` the box. Drops ``loss`` of what passes either way."""

    def __init__(self, box: tuple[str, int], loss: float, seed: int) -> None:
        self._box = box
        self._loss = loss
        self._chance = random.Random(seed)
        self._caller: tuple[str, int] | None = None
        self.passed = 0
        self.dropped = 0

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._front, _ = await loop.create_datagram_endpoint(lambda: _Side(self._from_caller), (HOST, 0))
        self._back, _ = await loop.create_datagram_endpoint(lambda: _Side(self._from_box), (HOST, 0))

    def close(self) -> None:
        self._front.close()
        self._back.close()

    @property
    def front(self) -> tuple[str, int]:
        address: tuple[str, int] = self._front.get_extra_info("sockname")
        return address

    @property
    def back(self) -> tuple[str, int]:
        address: tuple[str, int] = self._back.get_extra_info("sockname")
        return address

    def _from_caller(self, data: bytes, address: tuple[str, int]) -> None:
        self._caller = address
        if self._survives():
            self._back.sendto(data, self._box)

    def _from_box(self, data: bytes, address: tuple[str, int]) -> None:
        if self._caller is not None and self._survives():
            self._front.sendto(data, self._caller)

    def _survives(self) -> bool:
        lost = self._chance.random() < self._loss
        self.dropped += lost
        self.passed += not lost
        return not lost


class _Side(asyncio.DatagramProtocol):
    def __init__(self, received: object) -> None:
        self._received = received

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._received(data, addr)  # type: ignore[operator]


async def one_call(uac: BareUac, uri: str, caller_ends: bool, room: asyncio.Semaphore) -> tuple[str, BareCall | None]:
    """Set up and tear down; what went wrong (empty when nothing) and the call."""
    async with room:
        try:
            call = await uac.dial(uri, (HOST, 9), timeout_s=40.0)
        except Exception as error:
            return f"not set up: {error}", None
        if caller_ends:
            await asyncio.sleep(1.0)
            await call.hangup()
            return ("" if call.bye_answered.done() else "BYE never answered"), call
        try:
            await asyncio.wait_for(asyncio.shield(call.ended), 60.0)
        except TimeoutError:
            await call.hangup()
            return "the box never hung up", call
        return "", call


async def place_calls(box: Box, count: int, loss: float, seed: int) -> tuple[list[str], list[str], LossyRelay, BareUac]:
    relay = LossyRelay((HOST, box.sip_port), loss, seed)
    await relay.open()
    async with BareUac(relay.front) as uac:
        uac.advertised = relay.back
        room = asyncio.Semaphore(25)
        plans = [
            (box.uri(lines.LISTENER if even else lines.GOODBYE), even) for even in (i % 2 == 0 for i in range(count))
        ]
        outcomes = await asyncio.gather(*(one_call(uac, uri, even, room) for uri, even in plans))
    relay.close()
    faults = [fault for fault, _ in outcomes if fault]
    return faults, [call.call_id for _, call in outcomes if call is not None], relay, uac


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--loss", type=float, default=0.2, help="share of datagrams dropped each way")
    parser.add_argument("--seed", type=int, default=3)
    args = parser.parse_args()
    bar = Bar(3, f"{args.loss:.0%} of SIP lost each way")
    with tempfile.TemporaryDirectory(prefix="bar3-") as folder, Box(Path(folder), lines.settings(Path(folder))) as box:
        faults, call_ids, relay, uac = asyncio.run(place_calls(box, args.calls, args.loss, args.seed))
        found = records.wait_settled(box.database, args.calls, 60.0)
        bar.note(f"{relay.dropped} of {relay.dropped + relay.passed} datagrams dropped")
        bar.note(f"caller sent {uac.stats.requests_sent_again} requests again, box {uac.stats.repeated_finals} answers")
        bar.figure(f"{args.calls - len(faults)} of {args.calls} calls set up and torn down")
        wrong = records.problems(found, call_ids)
        bar.figure(f"{len(found)} records")
        for fault in faults + wrong:
            bar.note(fault)
        bar.require(not faults, f"{len(faults)} calls not set up or torn down")
        bar.require(not wrong and len(found) == args.calls, "not exactly one record for each call")
        endings = {row["disposition"] for row in found}
        bar.require(endings == {"completed"}, f"dispositions are {sorted(endings)}")
        bar.require(box.stop() == 0, "the box did not leave with exit code 0")
    return bar.finish()


if __name__ == "__main__":
    sys.exit(main())
