"""Legs of carriers: what media and the carrier tell, in every order, and what the carrier is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from appliance.api import CarrierCall, StreamAddress, StreamOffer
from appliance.ipc.messages import StreamEnded, StreamStarted
from appliance.signalling import stream_legs
from appliance.signalling.leg import CallInfo, HangupCause, StreamNews
from appliance.signalling.stream_legs import StreamCall, StreamLeg
from tests.waiting import eventually

INFO = CallInfo("leg", "acme", "trunk", "100", "+49170", "", "192.0.2.1:5", "call-1", {})


class Media:
    """A media slot that notes which streams it is to wait for."""

    slot, generation, local_host, local_port = 3, 9, "127.0.0.1", 0

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.told: Callable[[StreamNews], None] = lambda news: None

    def connect(self, params: Any) -> None:
        raise AssertionError("no RTP here")

    def connect_stream(self, kind: str, token: str, timeout_s: float, told: Callable[[StreamNews], None]) -> None:
        self.tokens.append(token)
        self.told = told

    def started(self, token: str = "") -> None:
        self.told(StreamStarted(3, 9, token or self.tokens[-1], "call-1", "pcmu", 8000, "192.0.2.1:6"))

    def ended(self, orderly: bool, token: str = "", reason: str = "gone") -> None:
        self.told(StreamEnded(3, 9, token or self.tokens[-1], orderly, reason))


class Call:
    """The carrier's side: it notes what it is asked for, and does it when it may."""

    call_id, can_transfer, sends_digits = "call-1", True, True

    def __init__(self, transfer_status: int = 200) -> None:
        self.asked: list[str] = []
        self.may = asyncio.Event()
        self.may.set()
        self.problem: Exception | None = None
        self.transfer_status = transfer_status

    async def _do(self, what: str) -> None:
        self.asked.append(what)
        await self.may.wait()
        if self.problem is not None:
            raise self.problem

    async def ring(self) -> None:
        await self._do("ring")

    async def answer(self, stream: StreamAddress) -> None:
        await self._do("answer")

    async def reject(self, status: int, reason: str) -> None:
        await self._do(f"reject {status}")

    async def hangup(self) -> None:
        await self._do("hangup")

    async def transfer(self, number: str, other: CarrierCall | None, ring_timeout_s: float = 30.0) -> int:
        await self._do(f"transfer {number} {ring_timeout_s:.0f}")
        return self.transfer_status

    async def send_digits(self, digits: str) -> None:
        await self._do(f"digits {digits}")


class Carrier:
    def stream_url(self, token: str) -> str:
        return f"wss://box.example/{token}"


class Bench:
    def __init__(self, call: Call | None = None, offer: StreamOffer | None = None) -> None:
        self.call = call or Call()
        self.media = Media()
        self.pending: set[asyncio.Task[None]] = set()
        self.causes: list[HangupCause] = []
        carrier: Any = Carrier()
        self.leg = StreamLeg(self.call, INFO, carrier, self.pending, offer)
        self.leg.on_hangup = self.causes.append

    def placed(self) -> StreamCall:
        """A call that the box placed through the same carrier."""
        carrier: Any = Carrier()
        made = StreamCall(
            "acme", carrier, "key", self.pending, media=Media(), ring_timeout_s=20, trunk="t", uri="tel:1"
        )
        made.new_stream()
        made.placed(Call())
        return made

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)


async def test_it_rings_is_answered_and_is_up_with_its_stream() -> None:
    bench = Bench()
    bench.leg.ring()
    bench.leg.answer(bench.media)
    await bench.settle()
    assert bench.call.asked == ["ring", "answer"]
    waiting = asyncio.create_task(bench.leg.settled())
    await bench.settle()
    assert not waiting.done()
    bench.media.started()
    await waiting


async def test_the_caller_hangs_up() -> None:
    bench = Bench()
    bench.leg.answer(bench.media)
    bench.media.started()
    bench.media.ended(True, reason="")
    bench.leg.over(200, "completed")
    await bench.settle()
    assert bench.causes == [HangupCause("caller", 200, "")]
    bench.leg.hangup()
    await bench.settle()
    assert bench.call.asked == ["answer"], "it is over already"


async def test_what_is_told_of_a_stream_that_has_been_replaced_ends_nothing() -> None:
    bench = Bench()
    bench.leg.answer(bench.media)
    bench.media.started()
    first = bench.media.tokens[0]
    bench.leg.new_stream()
    bench.media.ended(True, first)
    assert bench.causes == []
    bench.media.ended(True)
    assert len(bench.causes) == 1


async def test_a_stream_that_breaks_may_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_legs, "AGAIN_S", 0.05)
    bench = Bench()
    bench.leg.answer(bench.media)
    bench.media.started()
    bench.media.ended(False)
    address = bench.leg.new_stream()
    await asyncio.sleep(0.1)
    assert bench.causes == [], "the carrier is about to open another: that one's own time counts"
    assert address.url.endswith(address.token)
    bench.media.started()
    bench.media.ended(False)
    await eventually(lambda: bench.causes)
    (cause,) = bench.causes
    assert (cause.by, cause.code) == ("system", 408)
    await bench.settle()
    assert bench.call.asked[-1] == "hangup", "nobody may stay on the line at the carrier"


async def test_a_stream_that_never_comes_ends_the_call() -> None:
    bench = Bench()
    bench.leg.answer(bench.media)
    bench.media.ended(False, reason="no stream has come")
    await bench.settle()
    assert bench.causes[0].text == "no stream has come"
    assert bench.call.asked == ["answer", "hangup"]


async def test_a_carrier_that_cannot_answer_ends_the_call() -> None:
    bench = Bench()
    bench.call.problem = OSError("no way")
    bench.leg.answer(bench.media)
    await bench.settle()
    assert bench.causes[0].by == "system"


async def test_an_offered_stream_is_the_call() -> None:
    bench = Bench(offer=StreamOffer("offered", "192.0.2.1:5", "call-1"))
    bench.leg.answer(bench.media)
    assert bench.media.tokens == ["offered"]
    bench.media.started()
    bench.media.ended(False)
    assert len(bench.causes) == 1, "a PBX does not open it again"


async def test_a_refused_call_is_refused_once() -> None:
    bench = Bench()
    bench.leg.reject(486, "busy")
    bench.leg.hangup()
    bench.leg.answer(bench.media)
    await bench.settle()
    assert bench.call.asked == ["reject 486"]


async def test_a_call_that_was_handed_on_is_not_hung_up() -> None:
    bench = Bench()
    bench.leg.answer(bench.media)
    bench.media.started()
    outcome = await bench.leg.transfer("tel:+4930999", None, 17)
    assert outcome.done
    bench.media.ended(True)
    assert bench.causes == [], "its stream is over because somebody else talks to the caller"
    bench.leg.hangup()
    await bench.settle()
    assert bench.call.asked == ["answer", "transfer +4930999 17"]


async def test_a_transfer_that_failed_leaves_the_caller_here() -> None:
    bench = Bench(Call(transfer_status=486))
    bench.leg.answer(bench.media)
    bench.media.started()
    assert await bench.leg.transfer("tel:+4930999") == (486, True)
    bench.leg.hangup()
    await bench.settle()
    assert bench.call.asked[-1] == "hangup"


async def test_who_is_hung_up_on_in_the_middle_of_a_transfer_is_not_forgotten() -> None:
    """The box ends the call while both are being joined: neither may stay up at the carrier."""
    bench = Bench()
    bench.leg.answer(bench.media)
    bench.media.started()
    await bench.settle()
    other = bench.placed()
    bench.call.may.clear()
    joining = bench.leg.transfer(other.uri, other)
    await bench.settle()
    other.hangup("the call is over")
    bench.leg.hangup("maximum duration")
    await bench.settle()
    assert "hangup" not in bench.call.asked
    joining.cancel()
    bench.call.may.set()
    await bench.settle()
    assert bench.call.asked[-1] == "hangup"
    their: Any = other.carrier_call
    assert their.asked == ["hangup"]


async def test_keys_and_requests_go_one_after_another() -> None:
    bench = Bench()
    bench.call.may.clear()
    bench.leg.answer(bench.media)
    assert bench.leg.send_digits("12")
    await bench.settle()
    assert bench.call.asked == ["answer"]
    assert len(bench.pending) == 2
    bench.call.may.set()
    await bench.settle()
    assert bench.call.asked == ["answer", "digits 12"]
    assert bench.pending == set()


async def test_a_placed_call_is_answered_when_its_stream_begins() -> None:
    made = Bench().placed()
    media: Any = made._media
    made.ringing()
    rang: list[int] = []
    made.on_ringing = rang.append
    made.ringing()
    assert rang == [180], "also where it rang before anybody asked, and once"
    media.started()
    assert await made.wait_answered()
    media.ended(True)
    assert (await made.wait_ended()).by == "agent"


async def test_a_placed_call_that_is_busy() -> None:
    made = Bench().placed()
    made.over(486, "busy")
    assert await made.wait_answered() is None
    assert await made.wait_ended() == HangupCause("agent", 486, "busy")
    made.hangup()
    their: Any = made.carrier_call
    assert their.asked == []


async def test_a_call_given_up_before_the_carrier_had_it_is_hung_up_there() -> None:
    carrier: Any = Carrier()
    made = StreamCall("acme", carrier, "key", set(), media=Media(), ring_timeout_s=20, trunk="t", uri="tel:1")
    made.hangup()
    call = Call()
    made.placed(call)
    for _ in range(5):
        await asyncio.sleep(0)
    assert call.asked == ["hangup"]
