"""Bar 3 of the second part: two appliances call each other through a relay that loses a fifth of all SIP.

One is a whole running box, the other its SIP endpoint in this process. Calls are ended by either side, held and
resumed, and handed on by REFER to a third call that comes back through the relay; the box is registered with a
registrar behind a relay of its own all the while. None may get stuck, lost or doubled.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from appliance.cli.box import Box, free_port
from appliance.config.trunks import SipTrunk
from appliance.rtp_params import RtpParams
from appliance.signalling.sip_endpoint import ListenOn, SipEndpoint
from appliance.signalling.sip_legs import OutgoingCall, SipLeg
from appliance.signalling.trunks import TrunkRule
from tests.bench import lines, records
from tests.bench.bad_relay import Address, BadRelay, Harm
from tests.bench.report import Bar
from tests.bench.uac import header

BOX, PEER, AS_BOX, AS_PEER = "127.0.0.1", "127.0.0.31", "127.0.0.33", "127.0.0.32"
REGISTRAR, AS_REGISTRAR = "127.0.0.34", "127.0.0.35"
KINDS = ("caller hangs up", "box hangs up", "hold and resume", "re-INVITE and box hangs up", "REFER")
AT_ONCE = 25
SETTLE_S = 70.0
GRANTED_S = 20
THIRD = "+1555000"


class Slot:
    """A media slot without media; counts how often the two sides agreed on something."""

    slot = generation = 0

    def __init__(self) -> None:
        self.local_host, self.local_port = PEER, 9
        self.agreed = 0

    def connect(self, params: RtpParams) -> None:
        self.agreed += 1


class OtherAppliance:
    """The endpoint that calls, and that the box calls back after a REFER."""

    def __init__(self, port: int, box_port: int) -> None:
        self.port = port
        self._box_port = box_port
        self.came: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        rule = TrunkRule.of("box", SipTrunk.model_validate({"kind": "sip", "allow": ["127.0.0.0/8"]}))
        self.endpoint = SipEndpoint(
            [ListenOn("udp", PEER, port)], trunks=[rule], on_call=self._answer, advertised_host=AS_PEER
        )

    def _answer(self, leg: SipLeg) -> None:
        """A call that the box places after a REFER: ring, answer, hang up after a second."""
        self.came[leg.info.called] += 1

        async def live() -> None:
            leg.ring()
            await asyncio.sleep(0.3)
            leg.answer(Slot())
            await asyncio.sleep(1.0)
            leg.hangup()

        task = asyncio.create_task(live())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def call(self, number: int, room: asyncio.Semaphore) -> tuple[str, str]:
        """One call of the kind that ``number`` has; its Call-ID, and what went wrong (empty when nothing)."""
        async with room:
            kind = KINDS[number % len(KINDS)]
            line = lines.GOODBYE if "box hangs up" in kind else lines.LISTENER
            slot = Slot()
            try:
                outgoing = await self.endpoint.dial(
                    f"sip:{line}@{AS_BOX}:{self._box_port}", f"sip:caller{number}@{AS_PEER}", slot, ring_timeout_s=60
                )
                async with asyncio.timeout(120.0):
                    if await outgoing.wait_answered() is None:
                        return outgoing.protocol_call_id, f"{kind}: not answered: {await outgoing.wait_ended()}"
                    fault = await self._live(kind, outgoing, slot, number)
                    await outgoing.wait_ended()
            except TimeoutError:
                return outgoing.protocol_call_id, f"{kind}: stuck"
            return outgoing.protocol_call_id, f"{kind}: {fault}" if fault else ""

    async def _live(self, kind: str, outgoing: OutgoingCall, slot: Slot, number: int) -> str:
        if kind == "REFER":
            return await self._refer(outgoing, f"{THIRD}{number:04}")
        if kind in ("hold and resume", "re-INVITE and box hangs up"):
            changes = [outgoing.hold, outgoing.resume]
            for done, change in enumerate(changes, start=2):
                if outgoing.ended:
                    break
                change()
                while slot.agreed < done and not outgoing.ended:
                    await asyncio.sleep(0.05)
            if kind == "hold and resume" and slot.agreed < 1 + len(changes):
                return f"only {slot.agreed} agreements"
        if "box hangs up" not in kind:
            await asyncio.sleep(1.0)
            outgoing.hangup()
        return ""

    async def _refer(self, outgoing: OutgoingCall, target: str) -> str:
        await asyncio.sleep(0.5)
        outcome: Any = await outgoing.transfer(f"sip:{target}@{AS_PEER}:{self.port}")
        outgoing.hangup()
        status = getattr(outcome, "status", outcome)
        for _ in range(100):
            if self.came[target]:
                break
            await asyncio.sleep(0.1)
        calls = self.came[target]
        return "" if calls == 1 and 200 <= status <= 299 else f"REFER came to {status}, {calls} calls came of it"


class Registrar(asyncio.DatagramProtocol):
    """Takes every REGISTER; knows a retransmission by its CSeq."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []
        self.again = 0
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Address) -> None:
        message = data.decode(errors="replace")
        if not message.startswith("REGISTER "):
            return
        number = int(header(message, "CSeq").split()[0])
        wanted = re.search(r"expires\s*[=:]\s*(\d+)", message, re.IGNORECASE)
        expires = min(GRANTED_S, int(wanted.group(1)) if wanted else GRANTED_S)
        if any(number == before for before, _ in self.seen):
            self.again += 1
        else:
            self.seen.append((number, expires))
        contact = header(message, "Contact").partition(";expires")[0]
        lines_ = ["SIP/2.0 200 OK", f"Via: {header(message, 'Via')}", f"To: {header(message, 'To')};tag=registrar"]
        lines_ += [f"{name}: {header(message, name)}" for name in ("From", "Call-ID", "CSeq")]
        lines_ += [f"Contact: {contact};expires={expires}"] * bool(expires) + ["Content-Length: 0", "", ""]
        self._transport.sendto("\r\n".join(lines_).encode(), addr)


def metric(box: Box, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)", box.get("/metrics")[1], re.MULTILINE)
    return float(found.group(1)) if found else 0.0


def settings(folder: Path, peer_port: int, registrar_port: int) -> dict[str, object]:
    """A box that knows the other side by the relay's address, may be told to call it, and registers."""
    peer = f"sip:{AS_PEER}:{peer_port}"
    trunk = {"kind": "sip", "allow": [AS_PEER], "proxy": peer, "allow_prefixes": ["+1555"], "allow_transfer": True}
    carrier = {"kind": "sip", "proxy": f"sip:{AS_REGISTRAR}:{registrar_port}", "register": True, "username": "box"}
    return {
        **lines.settings(folder),
        "engines.asr": {"provider": "fake", "delay_ms": 100, "text": lines.ANSWER, "workers": 1},
        "engines.turn": {"provider": "fake"},
        "listen.advertised": AS_BOX,
        "media.rtp_timeout_s": 600,
        "trunks": {"peer": trunk, "carrier": carrier},
    }


async def storm(box: Box, peer_port: int, registrar_port: int, count: int, harm: Harm, seed: int, bar: Bar) -> None:
    """Start the box behind its relays, make the calls, stop it, and hold what was seen to the bar."""
    other = OtherAppliance(peer_port, box.sip_port)
    registrar = Registrar()
    towards = ((AS_BOX, box.sip_port), (PEER, peer_port), (AS_PEER, peer_port), (BOX, box.sip_port))
    to_registrar = ((AS_BOX, free_port()), (BOX, box.sip_port), (AS_REGISTRAR, registrar_port))
    loop = asyncio.get_running_loop()
    made, _ = await loop.create_datagram_endpoint(lambda: registrar, local_addr=(REGISTRAR, registrar_port))
    swapped = (to_registrar[2], to_registrar[1], to_registrar[0], (REGISTRAR, registrar_port))
    async with BadRelay(*towards, harm, seed) as relay, BadRelay(*swapped, harm, seed + 1) as second:
        await other.endpoint.start()
        await asyncio.to_thread(box.start)
        room = asyncio.Semaphore(AT_ONCE)
        begun = time.monotonic()
        outcomes = await asyncio.gather(*(other.call(number, room) for number in range(count)))
        bar.note(f"{time.monotonic() - begun:.0f} s for the calls")
        until = time.monotonic() + SETTLE_S
        while time.monotonic() < until:
            left = await asyncio.to_thread(metric, box, 'appliance_sip_held{kind="calls"}')
            ours = other.endpoint.counters["calls"]
            if not left and not ours:
                break
            await asyncio.sleep(0.5)
        registered = await asyncio.to_thread(metric, box, 'appliance_trunk_registered{trunk="carrier"}')
        found = await asyncio.to_thread(records.wait_settled, box.database, count)
        stopped = await asyncio.to_thread(box.stop, 60.0)
        await other.endpoint.stop()
    made.close()
    for each in (relay, second):
        bar.note(
            f"{each.dropped} of {each.dropped + each.passed} datagrams dropped, {each.doubled} doubled, "
            f"{each.reordered} reordered"
        )
    faults = [fault for _, fault in outcomes if fault]
    doubled = {number: calls for number, calls in other.came.items() if calls != 1}
    wrong = records.problems(found, [call_id for call_id, _ in outcomes])
    for what in [*faults, *wrong]:
        bar.note(what)
    bar.figure(f"{count - len(faults)} of {count} calls as they should be")
    bar.figure(f"{len(found)} records")
    bar.figure(f"{sum(other.came.values())} calls came of {len(range(KINDS.index('REFER'), count, len(KINDS)))} REFERs")
    bar.figure(f"{len(registrar.seen)} registrations, {registrar.again} of them sent again")
    bar.require(not faults, f"{len(faults)} calls went wrong")
    bar.require(not left and not ours, f"{left:.0f} calls stuck in the box, {ours} at the other side")
    bar.require(not wrong and len(found) == count, "not exactly one record for each call")
    bar.require(not doubled, f"calls doubled or lost after a REFER: {doubled}")
    bar.require(registered == 1.0, "the box was not registered at the end")
    bar.require(bool(registrar.seen) and registrar.seen[-1][1] == 0, "the box did not unregister when it stopped")
    bar.require(stopped == 0, f"the box left with {stopped}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--loss", type=float, default=0.2, help="share of datagrams dropped each way")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="folder for the box's log and record; a temporary one by default")
    args = parser.parse_args()
    harm = Harm(loss=args.loss)
    bar = Bar(3, f"{args.loss:.0%} of SIP lost, {harm.duplication:.0%} doubled, {harm.reordering:.0%} reordered")
    peer_port, registrar_port = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="storm-") as name:
        folder = args.keep or Path(name)
        box = Box(folder / "box", settings(folder, peer_port, registrar_port))
        try:
            asyncio.run(storm(box, peer_port, registrar_port, args.calls, harm, args.seed, bar))
        finally:
            box.stop()
    return bar.finish()


if __name__ == "__main__":
    sys.exit(main())
