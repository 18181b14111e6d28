"""A relay between two SIP sides that drops, doubles, delays and reorders datagrams; by a fixed seed the same way."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

Address = tuple[str, int]


@dataclass(frozen=True)
class Harm:
    """What happens to datagrams: shares of them, and seconds."""

    loss: float = 0.2
    duplication: float = 0.05
    reordering: float = 0.05
    delay_s: float = 0.02
    reordered_by_s: float = 0.15


class BadRelay:
    """Stands in for each side towards the other: what comes to ``front`` leaves from ``back`` for ``second``,
    what comes to ``back`` leaves from ``front`` for ``first``. Each side must advertise the address that stands in
    for it, so that nothing goes round the relay.
    """

    def __init__(self, front: Address, first: Address, back: Address, second: Address, harm: Harm, seed: int) -> None:
        self._where = {"front": front, "back": back}
        self._sides = {"front": first, "back": second}
        self._harm = harm
        self._chance = random.Random(seed)
        self._sockets: dict[str, asyncio.DatagramTransport] = {}
        self.passed = self.dropped = self.doubled = self.reordered = 0

    async def __aenter__(self) -> BadRelay:
        loop = asyncio.get_running_loop()
        for side, other in (("front", "back"), ("back", "front")):
            transport, _ = await loop.create_datagram_endpoint(
                lambda out=other: _Side(lambda data: self._take(data, out)), local_addr=self._where[side]
            )  # fmt: skip
            self._sockets[side] = transport
        return self

    async def __aexit__(self, *_: object) -> None:
        for transport in self._sockets.values():
            transport.close()

    def _take(self, data: bytes, out: str) -> None:
        harm, chance = self._harm, self._chance
        if chance.random() < harm.loss:
            self.dropped += 1
            return
        copies = 1
        if chance.random() < harm.duplication:
            copies = 2
            self.doubled += 1
        for _ in range(copies):
            delay = chance.uniform(0.0, harm.delay_s)
            if chance.random() < harm.reordering:
                delay += harm.reordered_by_s
                self.reordered += 1
            asyncio.get_running_loop().call_later(delay, self._pass, data, out)

    def _pass(self, data: bytes, out: str) -> None:
        transport = self._sockets[out]
        if not transport.is_closing():
            self.passed += 1
            transport.sendto(data, self._sides[out])


class _Side(asyncio.DatagramProtocol):
    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self._take(data)
