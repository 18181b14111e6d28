"""The caller, the box and the one called: three SIP endpoints of our own over real loopback sockets.

Media is a slot that remembers what it was told; what independent peers make of it is in tests/interop and tests/peers.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from appliance.calls.transfer import KeyRelay, Transfers
from appliance.config.trunks import Route
from appliance.conversation.brain import Transfer
from appliance.errors import MediaError
from appliance.rtp_params import RtpParams
from appliance.signalling.leg import TransferRequest
from appliance.signalling.routes import Dialler, Router
from appliance.signalling.sip_endpoint import ListenOn, SipEndpoint
from appliance.signalling.sip_legs import OutgoingCall, SipLeg
from appliance.signalling.sip_media import SipMedia
from appliance.signalling.trunks import TrunkRule, TrunkTable
from appliance.sip.events import Answered, Event
from appliance.sip.uri import SipUri
from tests.waiting import LIMIT_S, eventually

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

    async def open_leg(self, listener: Any, *, rtp: bool = True, denoise: str = "off") -> Slot:
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
        async with asyncio.timeout(LIMIT_S):
            return await what

    async def until(self, condition: Callable[[], bool]) -> None:
        await eventually(condition)

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
