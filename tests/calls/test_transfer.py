"""Transfers over real loopback sockets: the caller, the box and the one called are three endpoints of our own.

Media is a slot that remembers what it was told; what independent peers make of it is in tests/interop and tests/peers.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from appliance.calls.transfer import KeyRelay, Transfers
from appliance.config.trunks import Route
from appliance.conversation.brain import Transfer
from appliance.errors import MediaError
from appliance.rtp_params import RtpParams
from appliance.signalling.leg import HangupCause, TransferRequest
from appliance.signalling.routes import Dialler, Router
from appliance.signalling.sip_endpoint import ListenOn, SipEndpoint
from appliance.signalling.sip_legs import OutgoingCall, SipLeg
from appliance.signalling.sip_media import SipMedia
from appliance.signalling.trunks import TrunkRule, TrunkTable
from appliance.sip.events import Answered, Event
from appliance.sip.uri import SipUri

DEADLINE_S = 5.0
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


@dataclass
class Slot:
    """A media slot that remembers."""

    slot: int = 0
    generation: int = 1
    local_host: str = "127.0.0.1"
    local_port: int = 16384
    connected: list[RtpParams] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def connect(self, params: RtpParams) -> None:
        self.connected.append(params)

    def bridge(self, other: Slot | None) -> None:
        self.told.append(f"bridge {other.slot if other else None}")

    def hold_music(self, on: bool) -> None:
        self.told.append(f"music {on}")

    def send_digits(self, digits: str) -> None:
        self.told.append(f"keys {digits}")

    async def close(self) -> None:
        self.told.append("close")

    def release(self) -> None:
        self.told.append("release")


class Box:
    """The box, a caller whose call it has answered, and somebody to be called.

    Args:
        route: by which trunk: the caller's, "pbx", or another, "far".
        rule: settings of the caller's trunk.

    A third trunk, "carrier", is of a carrier, with ``carrier`` as its settings; ``place`` is what places its calls.
    ``more`` are routes beside the usual ones.
    """

    def __init__(self, route: str = "pbx", **rule: Any) -> None:
        self.route = route
        self.rule = rule
        self.place: Any = None
        self.carrier: dict[str, Any] = {}
        self.more: tuple[Route, ...] = ()
        self.with_rtp: list[bool] = []
        self.media = Slot()
        self.second = Slot(slot=1, local_port=16386)
        self.legs: list[SipLeg] = []
        self.called: list[SipLeg] = []
        self.on_called: Callable[[SipLeg], None] = lambda leg: leg.answer(Slot(local_port=30000))  # type: ignore[arg-type]
        self.caller_call: OutgoingCall
        self.stack = AsyncExitStack()
        self.full = False

    async def open_leg(self, listener: Any, *, rtp: bool = True) -> Slot:
        if self.full:
            raise MediaError("every media slot is in use")
        self.listener = listener
        self.with_rtp.append(rtp)
        return self.second

    async def __aenter__(self) -> Box:
        await self.stack.__aenter__()
        self.target = await self._endpoint(self._called, (TrunkRule("box", LOOPBACK, allow_transfer=True),))
        usual: dict[str, Any] = {"allow_prefixes": ("2",), "proxies": (f"sip:127.0.0.1:{self.target.port}",)}
        carrier = TrunkRule("carrier", kind="twilio", **({"allow_prefixes": ("0",), "region": "DE"} | self.carrier))
        sip = (TrunkRule("pbx", LOOPBACK, **(usual | self.rule)), TrunkRule("far", **usual))
        self.trunks = TrunkTable([*sip, carrier])
        self.router = Router(self.trunks, [Route(to=(to,), trunks=(self.route,)) for to in ("2", "9")] + [*self.more])
        self.endpoint = await self._endpoint(self._incoming, self.trunks)
        loop = asyncio.get_running_loop()
        media: Any = self
        self.dialler = Dialler(self.router, self.trunks, self.endpoint.dial, loop.time, self.place)
        self.transfers = Transfers(self.dialler, self.trunks, media)
        self.caller = await self._endpoint(lambda leg: None, (TrunkRule("box", LOOPBACK),))
        self.caller_call = await self.caller.dial(f"sip:100@127.0.0.1:{self.endpoint.port}", "sip:ann@a", Slot())
        assert await self.within(self.caller_call.wait_answered()) is not None
        await self.until(lambda: self.leg.info.can_transfer)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stack.aclose()

    async def _endpoint(self, on_call: Callable[[SipLeg], None], trunks: Any) -> SipEndpoint:
        made = SipEndpoint([ListenOn("udp", "127.0.0.1", 0)], trunks=trunks, on_call=on_call, stop_grace_s=0.2)
        await made.start()
        self.stack.push_async_callback(made.stop)
        return made

    def _incoming(self, leg: SipLeg) -> None:
        self.legs.append(leg)
        leg.answer(self.media)  # type: ignore[arg-type]

    def _called(self, leg: SipLeg) -> None:
        self.called.append(leg)
        self.on_called(leg)

    @property
    def leg(self) -> SipLeg:
        return self.legs[0]

    async def within(self, what: Awaitable[Any]) -> Any:
        async with asyncio.timeout(DEADLINE_S):
            return await what

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                await asyncio.sleep(0.005)

    def hand_on(self, to: str = "200", **how: Any) -> asyncio.Task[str | None]:
        voicing: Any = None
        media: Any = self.media
        transfer = Transfer(to, timeout_s=3.0, **how)
        values = {"caller.number": "ann"}
        self.relays: list[KeyRelay | None] = []
        return asyncio.create_task(
            self.transfers.hand_on(self.leg, media, transfer, values, voicing, self.relays.append)
        )


class LetsTheBoxOffer:
    """An INVITE of the caller's side without an offer; its ACK brings the answer, with ``change`` made in it."""

    def __init__(self, box: Box, headers: Sequence[tuple[str, str]], change: tuple[str, str] = ("", "")) -> None:
        agent = box.caller._agent
        assert agent is not None
        target = SipUri.parse(f"sip:100@127.0.0.1:{box.endpoint.port}")
        self._box, self._change = box, change
        self.call = agent.invite(target, "sip:bob@b", b"", box.caller.now(), headers=headers)
        box.caller._legs[self.call] = self  # type: ignore[assignment]
        box.caller.pump()

    def on_event(self, event: Event) -> None:
        if isinstance(event, Answered) and event.body is not None:
            media: Any = Slot(local_port=40000)
            answer = SipMedia(media, 1, ("pcmu", "pcma"), "127.0.0.1").answer(event.body)
            self.call.acknowledge(answer.decode().replace(*self._change).encode(), self._box.caller.now())

    def hangup(self, reason: str = "") -> None:
        self.call.hangup(self._box.caller.now(), reason)
        self._box.caller.pump()


def caller_refers(box: Box) -> None:
    """The caller's side follows REFERs as a PBX does: it calls the target itself and reports."""

    def follow(request: TransferRequest) -> None:
        async def call() -> None:
            request.accept()
            other = await box.caller.dial(request.target, "sip:ann@a", Slot(), headers=request.headers)
            answered = await other.wait_answered()
            request.report(200 if answered is not None else (await other.wait_ended()).code)

        box.tasks = [asyncio.create_task(call())]  # type: ignore[attr-defined]

    box.caller_call.on_transfer = follow


async def test_a_peer_that_takes_refer_calls_the_target_itself() -> None:
    async with Box() as box:
        caller_refers(box)
        assert await box.within(box.hand_on()) == "transferred to 200"
        assert [leg.info.called for leg in box.called] == ["200"]
        assert box.media.told == []
        assert box.trunks.state("pbx").calls == 0


async def test_when_the_target_is_busy_the_caller_is_here_again() -> None:
    async with Box() as box:
        caller_refers(box)
        box.on_called = lambda leg: leg.reject(486)
        assert await box.within(box.hand_on()) is None
        assert not box.leg.ended
        assert box.media.told == [], "the target has refused, so the box does not call it again"


async def test_where_the_peer_reports_that_it_cannot_reach_the_target_the_box_calls_it() -> None:
    async with Box() as box:

        def fail(request: TransferRequest) -> None:
            request.accept()
            request.report(404)

        box.caller_call.on_transfer = fail
        transfer = box.hand_on()
        await box.until(lambda: "bridge 1" in box.media.told)
        box.called[0].hangup()
        assert await box.within(transfer) == "put through to 200, which ended the call (200)"


async def test_a_peer_is_not_told_to_call_what_another_trunk_leads_to() -> None:
    async with Box(route="far") as box:
        told: list[TransferRequest] = []
        box.caller_call.on_transfer = told.append
        transfer = box.hand_on()
        await box.until(lambda: "bridge 1" in box.media.told)
        assert box.trunks.state("far").calls == 1
        assert told == []
        box.called[0].hangup()
        await box.within(transfer)


@pytest.mark.parametrize("proxy", [True, False])
async def test_a_peer_that_is_told_to_call_whatever_leads_elsewhere_calls_it_by_its_own_proxy(proxy: bool) -> None:
    async with Box(route="far", transfer="refer", **({} if proxy else {"proxies": ()})) as box:
        told: list[str] = []

        def follow(request: TransferRequest) -> None:
            told.append(request.target)
            request.accept()
            request.report(200)

        box.caller_call.on_transfer = follow
        assert await box.within(box.hand_on()) == "transferred to 200"
        assert told == [f"sip:200@127.0.0.1:{box.target.port if proxy else box.caller.port}"]


async def test_a_peer_is_not_told_to_call_what_its_own_trunk_may_not_dial() -> None:
    async with Box(route="far", transfer="refer", allow_prefixes=("3",)) as box:
        told: list[TransferRequest] = []
        box.caller_call.on_transfer = told.append
        assert await box.within(box.hand_on()) is None
        assert told == box.called == []
        assert box.router.refused["prefix"] == box.trunks.state("pbx").counters["refused_dialling"] == 1


async def test_a_peer_that_refuses_refer_is_put_through_the_box() -> None:
    async with Box() as box:
        transfer = box.hand_on()
        await box.until(lambda: "bridge 1" in box.media.told)
        assert box.media.told == ["music True", "music False", "bridge 1"]
        assert box.trunks.state("pbx").calls == 1
        await box.until(lambda: box.media.connected[-1].receive)
        box.called[0].hangup("done")
        assert await box.within(transfer) == "put through to 200, which ended the call (200)"
        assert box.media.told[3:] == ["bridge None", "music False"]
        assert box.second.told == ["close", "release"]
        assert box.trunks.state("pbx").calls == 0


async def test_the_caller_is_on_hold_while_the_other_side_rings() -> None:
    async with Box(transfer="bridge") as box:
        held: list[bool] = []
        box.caller_call.on_held = held.append
        box.on_called = lambda leg: leg.ring()
        transfer = box.hand_on(attended=True)
        await box.until(lambda: held == [True])
        box.called[0].answer(Slot(local_port=30000))  # type: ignore[arg-type]
        await box.until(lambda: held == [True, False])
        assert "bridge 1" in box.media.told
        box.called[0].hangup()
        assert await box.within(transfer) is not None


@pytest.mark.parametrize("offers", [True, False])
async def test_a_call_of_ours_that_somebody_else_picks_up_is_answered(offers: bool) -> None:
    async with Box(transfer="bridge", allow_transfer=True) as box:
        box.on_called = lambda leg: leg.ring()
        ended: list[HangupCause] = []
        transfer = box.hand_on()
        await box.until(lambda: bool(box.called))
        box.called[0].on_hangup = ended.append
        headers = [("Replaces", str(box.called[0]._call.as_replaced()))]
        picked_up: Any
        if offers:
            slot: Any = Slot(local_port=40000)
            picked_up = await box.caller.dial(
                f"sip:100@127.0.0.1:{box.endpoint.port}", "sip:bob@b", slot, headers=headers
            )
        else:
            picked_up = LetsTheBoxOffer(box, headers)
        await box.until(lambda: "bridge 1" in box.media.told)
        assert box.second.connected[-1].remote_port == 40000
        await box.until(lambda: ended == [HangupCause("caller", 487, "cancelled")])
        picked_up.hangup()
        assert await box.within(transfer) == "put through to 200, which ended the call (200)"
        assert box.trunks.state("pbx").calls == 0


async def test_a_pick_up_whose_media_cannot_be_agreed_on_is_no_answer() -> None:
    async with Box(transfer="bridge", allow_transfer=True) as box:
        box.on_called = lambda leg: leg.ring()
        transfer = box.hand_on()
        await box.until(lambda: bool(box.called))
        LetsTheBoxOffer(box, [("Replaces", str(box.called[0]._call.as_replaced()))], ("m=audio 40000", "m=audio 0"))
        assert await box.within(transfer) is None
        assert "bridge 1" not in box.media.told


async def test_a_caller_who_hangs_up_takes_the_other_side_along() -> None:
    async with Box(transfer="bridge") as box:
        ended: list[HangupCause] = []
        transfer = box.hand_on()
        await box.until(lambda: "bridge 1" in box.media.told)
        box.called[0].on_hangup = ended.append
        transfer.cancel()
        await asyncio.gather(transfer, return_exceptions=True)
        await box.until(lambda: bool(ended))
        assert box.second.told == ["close", "release"]
        assert box.trunks.state("pbx").calls == 0


async def test_attended_with_a_peer_that_takes_refer_joins_both_there() -> None:
    async with Box() as box:
        caller_refers(box)
        held: list[bool] = []
        box.caller_call.on_held = held.append
        assert await box.within(box.hand_on(attended=True)) == "transferred to 200"
        assert held == [True], "a call that is about to end is not taken off hold"
        assert len(box.called) == 1, "the second INVITE took the place of the first call"
        assert box.target.counters["calls_received"] == 2
        assert box.second.told == ["close", "release"]


async def test_what_may_not_be_dialled_is_not_transferred_to() -> None:
    async with Box() as box:
        for to in ("300", "sip:200@192.0.2.1", "909001123456", ""):
            assert await box.within(box.hand_on(to)) is None
        assert box.called == []
        assert sum(box.router.refused.values()) == 4


async def test_without_a_free_slot_the_caller_stays() -> None:
    async with Box(transfer="bridge") as box:
        box.full = True
        assert await box.within(box.hand_on()) is None
        assert not box.leg.ended


async def test_one_who_was_called_may_hold_a_call_that_goes_through_the_box() -> None:
    async with Box(transfer="bridge") as box:
        transfer = box.hand_on()
        await box.until(lambda: "bridge 1" in box.media.told)
        await box.until(box.called[0]._up.is_set)
        box.called[0].hold()
        await box.until(lambda: box.listener.outgoing.held)
        box.listener.on_media_timeout(30.0)
        assert not box.listener.outgoing.ended
        box.called[0].resume()
        await box.until(lambda: not box.listener.outgoing.held)
        box.listener.on_media_timeout(30.0)
        assert await box.within(transfer) == "put through to 200, which ended the call (200)"


async def test_a_trunk_may_keep_calls_without_rtp_that_go_through_the_box() -> None:
    async with Box(transfer="bridge", media_timeout="keep") as box:
        transfer = box.hand_on()
        await box.until(lambda: "bridge 1" in box.media.told)
        box.listener.on_media_timeout(30.0)
        assert not box.listener.outgoing.ended
        box.called[0].hangup()
        await box.within(transfer)


# --- what the peer asks for -----------------------------------------------------------------------------------------


def follows(box: Box) -> list[bool]:
    done: list[bool] = []

    def on_transfer(request: TransferRequest) -> None:
        attempts = box.transfers.admit(box.leg, request)

        async def follow() -> None:
            media: Any = box.media
            values = {"caller.number": "ann"}
            done.append(bool(attempts) and await box.transfers.follow(box.leg, media, request, attempts, values))

        box.following = asyncio.create_task(follow())  # type: ignore[attr-defined]

    box.leg.on_transfer = on_transfer
    return done


async def test_a_peer_may_not_transfer_unless_its_trunk_says_so() -> None:
    async with Box() as box:
        done = follows(box)
        status, _ = await box.within(box.caller_call.transfer(f"sip:200@127.0.0.1:{box.target.port}"))
        assert (status, done, box.called) == (603, [False], [])
        assert box.trunks.state("pbx").counters["refused_transfer"] == 1


async def test_a_transfer_to_a_premium_number_is_refused_and_counted() -> None:
    async with Box(allow_transfer=True, allow_prefixes=("*",), region="DE") as box:
        follows(box)
        status, _ = await box.within(box.caller_call.transfer(f"sip:09001123456@127.0.0.1:{box.target.port}"))
        assert status == 603
        assert box.router.refused["premium"] == 1
        assert box.trunks.state("pbx").counters["refused_transfer"] == 1


async def test_the_leg_goes_on_with_the_one_the_peer_named() -> None:
    async with Box(allow_transfer=True) as box:
        done = follows(box)
        ended: list[HangupCause] = []
        box.leg.on_hangup = ended.append
        status, _ = await box.within(box.caller_call.transfer(f"sip:200@127.0.0.1:{box.target.port}"))
        assert status == 200
        await box.until(lambda: done == [True])
        assert box.media.connected[-1].remote_port == 30000
        box.caller_call.hangup()
        await box.within(box.caller_call.wait_ended())
        assert not box.leg.ended
        assert ended == []
        box.called[0].hangup()
        await box.until(lambda: bool(ended))
        assert ended[0].by == "caller"


async def test_the_one_the_peer_named_is_called_with_the_headers_of_the_trunk() -> None:
    async with Box(allow_transfer=True, headers_out=(("X-Caller", "${caller.number}"),)) as box:
        follows(box)
        assert (await box.within(box.caller_call.transfer(f"sip:200@127.0.0.1:{box.target.port}"))).done
        assert box.called[0].info.headers["X-Caller"] == "ann"


async def test_the_one_the_peer_named_may_do_what_its_own_trunk_says() -> None:
    async with Box(route="far", allow_transfer=True) as box:
        follows(box)
        assert (await box.within(box.caller_call.transfer("tel:200"))).done
        assert box.trunks.state("pbx").counters["transfers_in"] == 1
        assert (box.leg.info.trunk, box.leg.info.can_transfer) == ("far", True)
        assert box.leg.info.source == f"127.0.0.1:{box.target.port}"
        await box.until(box.called[0]._up.is_set)
        assert (await box.within(box.called[0].transfer("tel:200"))).status == 603
        assert box.trunks.state("far").counters["refused_transfer"] == 1


async def test_a_peer_may_hang_up_while_the_one_it_named_rings() -> None:
    async with Box(allow_transfer=True) as box:
        done = follows(box)
        box.on_called = lambda leg: leg.ring()
        ended: list[HangupCause] = []
        box.leg.on_hangup = ended.append
        box.caller_call.transfer(f"sip:200@127.0.0.1:{box.target.port}")
        await box.until(lambda: bool(box.called))
        box.caller_call.hangup()
        await box.until(lambda: ended == [HangupCause("caller", 200, "BYE")])
        box.called[0].answer(Slot(local_port=30000))  # type: ignore[arg-type]
        await box.until(lambda: done == [True])
        assert box.media.connected[-1].remote_port == 30000
        await box.until(box.called[0]._up.is_set)
        box.called[0].hangup()
        await box.until(lambda: len(ended) == 2)


async def test_once_the_peer_has_hung_up_nothing_is_sent_to_it_again() -> None:
    async with Box(allow_transfer=True) as box:
        done = follows(box)
        box.on_called = lambda leg: leg.ring()
        box.caller_call.transfer(f"sip:200@127.0.0.1:{box.target.port}")
        await box.until(lambda: bool(box.called))
        box.caller_call.hangup()
        await box.until(lambda: box.leg.ended)
        connected = len(box.media.connected)
        box.called[0].reject(486)
        await box.until(lambda: done == [False])
        assert len(box.media.connected) == connected


async def test_one_who_answers_and_is_gone_before_the_leg_goes_on_is_told_as_not_reached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Box(allow_transfer=True) as box:
        done = follows(box)
        place = box.dialler.call

        async def call(*args: Any, **how: Any) -> OutgoingCall:
            outgoing = await place(*args, **how)
            box.called[0].hangup()
            await outgoing.wait_ended()
            return outgoing

        monkeypatch.setattr(box.dialler, "call", call)
        assert await box.within(box.caller_call.transfer(f"sip:200@127.0.0.1:{box.target.port}")) == (480, True)
        assert done == [False]
        assert not box.leg.ended
        assert box.media.connected[-1] == box.media.connected[0]


async def test_a_peer_that_holds_before_it_transfers_leaves_nobody_on_hold() -> None:
    async with Box(allow_transfer=True) as box:
        follows(box)
        held: list[bool] = []
        box.leg.on_held = held.append
        box.caller_call.hold()
        await box.until(lambda: held == [True])
        status, _ = await box.within(box.caller_call.transfer(f"sip:200@127.0.0.1:{box.target.port}"))
        assert status == 200
        await box.until(lambda: held == [True, False])
        await box.until(box.called[0]._up.is_set)
        box.called[0].hold()
        await box.until(lambda: held == [True, False, True])


async def test_when_that_one_does_not_answer_the_call_goes_on_as_it_was() -> None:
    async with Box(allow_transfer=True) as box:
        done = follows(box)
        box.on_called = lambda leg: leg.reject(486)
        before = box.media.connected[-1]
        assert await box.within(box.caller_call.transfer(f"sip:200@127.0.0.1:{box.target.port}")) == (486, True)
        assert done == [False]
        assert box.media.connected[-1] == before
        assert not box.leg.ended


@pytest.mark.parametrize("allowed", [True, False])
async def test_an_invite_that_takes_the_callers_place(allowed: bool) -> None:
    async with Box(allow_transfer=allowed) as box:
        old = box.caller_call
        replaces = str(old.call.as_replaced())
        new = await box.caller.dial(
            f"sip:100@127.0.0.1:{box.endpoint.port}",
            "sip:bob@b",
            replace(Slot(), local_port=40000),  # type: ignore[arg-type]
            headers=[("Replaces", replaces)],
        )
        answered = await box.within(new.wait_answered())
        assert (answered is not None) is allowed
        counters = box.trunks.state("pbx").counters
        if allowed:
            assert (await box.within(old.wait_ended())).by == "agent"
            assert box.media.connected[-1].remote_port == 40000
            assert counters["transfers_in"] == 1
            assert len(box.legs) == 1
        else:
            assert (await box.within(new.wait_ended())).code == 403
            assert counters["refused_transfer"] == 1
            assert not old.ended


@pytest.mark.parametrize("how", ["offers", "lets the box offer", "lets the box offer, and holds"])
async def test_an_invite_that_takes_the_place_of_a_caller_who_held_says_anew_who_is_on_hold(how: str) -> None:
    async with Box(allow_transfer=True) as box:
        held: list[bool] = []
        box.leg.on_held = held.append
        box.caller_call.hold()
        await box.until(lambda: held == [True])
        headers = [("Replaces", str(box.caller_call.call.as_replaced()))]
        if how == "offers":
            await box.caller.dial(f"sip:100@127.0.0.1:{box.endpoint.port}", "sip:bob@b", Slot(), headers=headers)
        else:
            LetsTheBoxOffer(box, headers, ("a=sendrecv", "a=sendonly" if how.endswith("holds") else "a=sendrecv"))
        await box.until(lambda: box.leg._up.is_set() and held == [True, False, *[True] * how.endswith("holds")])
        box.leg.hangup()


@pytest.mark.parametrize("dtmf", ["info", "auto"])
async def test_over_a_bridge_each_key_goes_on_once_the_way_the_other_side_takes_it(dtmf: str) -> None:
    """Media passes on by itself what it heard, unless the other side takes keys by INFO."""

    async with Box(transfer="bridge", dtmf=dtmf) as box:
        heard: list[str] = []
        task = box.hand_on()
        await box.until(lambda: "bridge 1" in box.media.told)
        box.called[0].on_digits = lambda digits: heard.append(f"called {digits}")
        box.caller_call.on_digits = lambda digits: heard.append(f"caller {digits}")
        [relay] = box.relays
        assert relay is not None
        relay("5", "media")
        relay("#", "info")
        box.listener.on_digit("7", 0)
        box.listener.pressed("7", "info")
        box.listener.pressed("8", "info")
        by_info = {"called 5", "called #", "caller 7", "caller 8"} if dtmf == "info" else set()
        await box.until(lambda: set(heard) >= by_info)
        assert sorted(heard) == sorted(by_info)
        assert ("keys #" in box.second.told) == ("keys 8" in box.media.told) == (dtmf == "auto")
        assert not {"keys 5", "keys 7"} & {*box.second.told, *box.media.told}
        box.called[0].hangup()
        await box.within(task)
        assert box.relays[1:] == [None]
