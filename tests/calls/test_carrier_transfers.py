"""Handing callers on where one side, or both, is a carrier's."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from appliance.config.trunks import Route
from appliance.conversation.brain import Transfer
from appliance.signalling.leg import CallInfo, HangupCause, TransferOutcome
from tests.calls.transfer_box import Box, follows


class Placed:
    """A call that a carrier has placed, and that is answered at once."""

    needs_rtp = False
    held = False

    def __init__(self) -> None:
        self.on_ringing: Any = None
        self.on_digits: Any = None
        self.trunk = self.uri = ""
        self.over = asyncio.get_running_loop().create_future()

    @property
    def ended(self) -> bool:
        return bool(self.over.done())

    async def wait_answered(self) -> object:
        return self

    async def wait_ended(self) -> HangupCause:
        await asyncio.shield(self.over)
        return HangupCause("agent", 200, "")

    def when_over(self, callback: Any) -> None:
        self.over.add_done_callback(lambda _: callback())

    def hangup(self, reason: str = "") -> None:
        if not self.over.done():
            self.over.set_result(None)

    def send_digits(self, digits: str) -> bool:
        return False


def by_carrier(box: Box) -> list[tuple[str, Placed]]:
    """What the carrier is asked to place, from here on."""
    placed: list[tuple[str, Placed]] = []

    async def place(attempt: Any, media: Any, **how: Any) -> Placed:
        assert media is box.second
        placed.append((attempt.number, Placed()))
        return placed[-1][1]

    box.place = place
    return placed


class CarrierLeg:
    """A caller on the trunk of a carrier, which does what ``status`` says when asked to transfer."""

    needs_rtp = False

    def __init__(self, status: int = 200, *, can_transfer: bool = True) -> None:
        self.info = CallInfo("leg1", "twilio", "carrier", "100", "+431", "", "", "CA1", {}, can_transfer=can_transfer)
        self.status = status
        self.told: list[Any] = []

    async def settled(self, timeout_s: float = 4.0) -> None:
        pass

    def hold(self) -> None:
        self.told.append("hold")

    def resume(self) -> None:
        self.told.append("resume")

    def send_digits(self, digits: str) -> bool:
        return False

    def transfer(
        self, target: str, replaces: Any = None, ring_timeout_s: float = 30.0
    ) -> asyncio.Future[TransferOutcome]:
        self.told.append((target, replaces))
        done = asyncio.get_running_loop().create_future()
        done.set_result(TransferOutcome(self.status, taken=self.status != 405))
        return done


def hand_on(box: Box, leg: CarrierLeg, to: str = "030 123456", **how: Any) -> asyncio.Task[str | None]:
    values: dict[str, str] = {}
    nothing: Any = None
    either: Any = (leg, box.media)
    transfer = Transfer(to, timeout_s=3.0, **how)
    return asyncio.create_task(box.transfers.hand_on(*either, transfer, values, nothing))


async def test_a_carrier_is_told_the_whole_number_of_its_own_trunk() -> None:
    async with Box() as box:
        leg = CarrierLeg()
        assert await box.within(hand_on(box, leg, trunk="carrier")) == "transferred to +4930123456"
        assert leg.told == [("+4930123456", None)]
        assert box.with_rtp == []


async def test_a_number_of_another_trunk_goes_through_the_box_unless_the_carrier_is_to_dial_it() -> None:
    async with Box(route="far") as box:
        leg = CarrierLeg()
        task = hand_on(box, leg, "200")
        await box.until(lambda: len(box.called) == 1 and "bridge 1" in box.media.told)
        assert box.with_rtp == [True]
        assert leg.told == ["hold", "resume"]
        box.called[0].hangup()
        assert await box.within(task) == "put through to 200, which ended the call (200)"
    box = Box(route="far")
    box.carrier = {"transfer": "refer", "allow_prefixes": ("2",)}
    async with box:
        leg = CarrierLeg()
        assert await box.within(hand_on(box, leg, "200")) is None, "it has no country code"
        assert leg.told == []
        assert await box.within(hand_on(box, leg, "20112345")) == "transferred to 20112345"
        assert leg.told == [("+4920112345", None)]


async def test_where_the_carrier_cannot_the_caller_is_put_through_by_it() -> None:
    box = Box()
    placed = by_carrier(box)
    async with box:
        leg = CarrierLeg(405)
        task = hand_on(box, leg, trunk="carrier")
        await box.until(lambda: "bridge 1" in box.media.told)
        assert [number for number, _ in placed] == ["+4930123456"]
        assert box.with_rtp == [False], "neither side needs a port"
        assert leg.told == [("+4930123456", None), "hold", "resume"]
        placed[0][1].hangup()
        assert (await box.within(task) or "").startswith("put through to +4930123456")
        assert box.trunks.state("carrier").calls == 0


async def test_an_attended_transfer_within_a_carrier_joins_both_calls_there() -> None:
    box = Box()
    placed = by_carrier(box)
    async with box:
        leg = CarrierLeg()
        transfer = hand_on(box, leg, trunk="carrier", attended=True)
        assert await box.within(transfer) == "transferred to +4930123456"
        assert leg.told[:2] == ["hold", ("tel:+4930123456", placed[0][1])]


@pytest.mark.parametrize("to", ["tel:+4930123456", "sip:+4930123456@127.0.0.1"])
async def test_a_peer_of_sip_is_not_followed_to_a_carrier(to: str) -> None:
    box = Box(allow_transfer=True)
    placed = by_carrier(box)
    box.carrier = {"allow_prefixes": ("+49",)}
    box.more = (Route(to=("+49",), trunks=("carrier",)),)
    async with box:
        done = follows(box)
        status, _ = await box.within(box.caller_call.transfer(to))
        assert (status, done, placed) == (603, [False], [])
        assert box.trunks.state("pbx").counters["refused_transfer"] == 1
        assert not box.leg.ended
