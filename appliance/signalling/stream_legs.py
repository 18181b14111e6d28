"""Legs whose audio is a stream: a call that came by a carrier, and one that was placed through it.

The carrier does what is asked of it in its own time (a request over the internet); a leg's methods return at once, so
what they ask for is done one after the other by a task of the leg's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal

from appliance.api import Carrier, CarrierCall, StreamAddress, StreamOffer
from appliance.errors import ApplianceError
from appliance.ipc.messages import StreamStarted
from appliance.signalling.leg import CallInfo, HangupCause, MediaSlot, StreamNews, TransferOutcome, TransferRequest
from appliance.sip.uri import printable

logger = logging.getLogger(__name__)

OPEN_S: Final = 12.0
"""A carrier that has been told to open a stream does so within this."""
AGAIN_S: Final = 6.0
"""The same for one whose stream has broken and that may come back by itself."""
REQUEST_S: Final = 20.0
"""What the carrier is asked for has failed by then."""
_TOKEN_BYTES: Final = 24
_MAX_REASON: Final = 100


class _StreamSide(ABC):
    """What both kinds of leg do with their stream and with the carrier.

    Args:
        kind: of the trunk.
        carrier: knows the address of a stream.
        key: unique in this box.
        pending: where what the carrier has been asked for is kept until it is done.
    """

    needs_rtp = False

    def __init__(self, kind: str, carrier: Carrier, key: str, pending: set[asyncio.Task[None]]) -> None:
        self.key = key
        self._pending = pending
        self.on_digits: Callable[[str], None] | None = None
        self.on_held: Callable[[bool], None] | None = None
        self.on_transfer: Callable[[TransferRequest], None] | None = None
        self._kind = kind
        self._carrier = carrier
        self._call: CarrierCall | None = None
        self._media: MediaSlot | None = None
        self._up = asyncio.Event()
        self._token = ""
        """Of the newest stream; what is told of another one has been overtaken."""
        self._over = False
        self._leaves = False
        """The carrier is connecting the far end with somebody else, or has: the stream is not the call any more."""
        self._asked: asyncio.Task[None] | None = None
        self._late: asyncio.TimerHandle | None = None

    # --- what the carrier tells (BoxCall) -------------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        """Whether either side has ended it."""
        return self._over

    @property
    def held(self) -> bool:
        """Carriers do not tell."""
        return False

    @abstractmethod
    def ringing(self) -> None:
        """The one called is being alerted."""

    def digits(self, digits: str) -> None:
        """Keys that were told of beside the audio."""
        if self.on_digits is not None and not self._over:
            self.on_digits(digits)

    def over(self, status: int, reason: str, *, by_peer: bool = True) -> None:
        """The call has ended at the carrier."""
        if self._over:
            return
        self._finish()
        self._tell_over(status, printable(reason, _MAX_REASON), "peer" if by_peer else "system")

    def new_stream(self) -> StreamAddress:
        """An address for the next stream of this call; the one before is void."""
        token = self._token = secrets.token_urlsafe(_TOKEN_BYTES)
        if self._media is not None and not self._over:
            self._stop_waiting()
            self._media.connect_stream(self._kind, token, self._patience_s(), self._told)
        return StreamAddress(self._carrier.stream_url(token), token)

    # --- what media tells -----------------------------------------------------------------------------------------

    def _told(self, news: StreamNews) -> None:
        if self._over or news.token != self._token:
            return
        if isinstance(news, StreamStarted):
            self._stop_waiting()
            self._up.set()
            self._stream_started()
        elif self._leaves:
            logger.debug("call %s: its stream is over, the carrier has it", self.key)
        elif news.orderly:
            self.over(200, news.reason)
        elif self._may_come_back() and self._up.is_set():
            logger.warning("call %s: its stream broke (%s); waiting for another", self.key, news.reason)
            self._stop_waiting()
            give_up = f"the stream broke: {news.reason}"
            self._late = asyncio.get_running_loop().call_later(AGAIN_S, lambda: self._give_up(give_up))
        else:
            self._give_up(news.reason)

    @abstractmethod
    def _stream_started(self) -> None:
        """The first stream, or another one."""

    def _may_come_back(self) -> bool:
        return True

    def _patience_s(self) -> float:
        return OPEN_S

    def _give_up(self, reason: str) -> None:
        """There is no audio, and will be none: the call ends, at the carrier too."""
        if not self._over:
            call = self._call
            self.over(408, reason, by_peer=False)
            if call is not None:
                self._ask(call.hangup, "be hung up")

    # --- both ways ------------------------------------------------------------------------------------------------

    async def settled(self, timeout_s: float = 4.0) -> None:
        """Wait until the stream is there."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._up.wait()

    def send_digits(self, digits: str) -> bool:
        """Have the carrier send keys, where it can."""
        call = self._call
        if self._over or call is None or not call.sends_digits:
            return False
        self._ask(lambda: call.send_digits(digits), "send keys")
        return True

    def hold(self) -> None:  # noqa: B027 - there is nothing to do
        """Media plays the music; the carrier knows nothing of it."""

    def resume(self) -> None:  # noqa: B027 - the same
        """See :meth:`hold`."""

    @property
    def can_transfer(self) -> bool:
        """Whether the carrier can connect the far end with somebody else."""
        return self._call is not None and self._call.can_transfer

    def transfer(
        self, target: str, replaces: Any = None, ring_timeout_s: float = 30.0
    ) -> asyncio.Future[TransferOutcome]:
        """Have the carrier connect the far end with ``target``, or with ``replaces``, a call of the same carrier."""
        done: asyncio.Future[TransferOutcome] = asyncio.get_running_loop().create_future()
        other = replaces if isinstance(replaces, StreamCall) else None
        if self._over or not self.can_transfer or (replaces is not None and other is None):
            done.set_result(TransferOutcome(501, taken=False))
            return done
        self._leaves = True
        if other is not None:
            other._leaves = True
        transferring = self._transferring(target.removeprefix("tel:"), other, ring_timeout_s)
        task = asyncio.create_task(transferring, name=f"transfer {self.key}")

        def tell(task: asyncio.Task[TransferOutcome]) -> None:
            if not done.done() and not task.cancelled():
                done.set_result(task.result())

        task.add_done_callback(tell)
        done.add_done_callback(lambda done: task.cancel() if done.cancelled() else None)
        return done

    async def _transferring(self, number: str, other: StreamCall | None, ring_timeout_s: float) -> TransferOutcome:
        taken, status = True, 500
        call = self._call
        assert call is not None
        try:
            there = other.carrier_call if other is not None else None
            status = await call.transfer(number, there, ring_timeout_s)
        except ApplianceError as error:
            taken = False
            logger.warning("call %s could not be transferred: %s", self.key, error)
        except Exception:
            taken = False
            logger.exception("call %s: a fault of ours in its transfer", self.key)
        finally:
            if not (taken and 200 <= status < 300):
                self._stays()
                if other is not None:
                    other._stays()
        return TransferOutcome(status, taken)

    def reconnect(self) -> None:  # noqa: B027 - the same
        """Nobody else has had the media slot: see :meth:`StreamLeg.become`."""

    @abstractmethod
    def _tell_over(self, status: int, reason: str, by: Literal["peer", "system", "self"]) -> None:
        """Tell whoever uses the leg that it has ended, and by whom."""

    def _finish(self) -> None:
        self._over = True
        self._up.set()
        self._stop_waiting()

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _hang_up(self) -> None:
        """End it from this side; a call that the carrier has connected elsewhere goes on there."""
        self._finish()
        if self._call is not None and not self._leaves:
            self._ask(self._call.hangup, "be hung up")

    def _stays(self) -> None:
        """The carrier has not connected it elsewhere after all: where it was given up meanwhile, it is hung up now."""
        self._leaves = False
        if self._over and self._call is not None:
            self._ask(self._call.hangup, "be hung up")

    def _ask(self, what: Callable[[], Awaitable[Any]], named: str, failed: Callable[[str], None] | None = None) -> None:
        """Have the carrier do something, after what it was asked before."""
        before = self._asked
        self._asked = asyncio.create_task(self._asking(before, what, named, failed), name=f"carrier {self.key}")
        self._pending.add(self._asked)
        self._asked.add_done_callback(self._pending.discard)

    async def _asking(
        self,
        before: asyncio.Task[None] | None,
        what: Callable[[], Awaitable[Any]],
        named: str,
        failed: Callable[[str], None] | None,
    ) -> None:
        if before is not None:
            await asyncio.wait({before}, timeout=REQUEST_S)
        problem = ""
        try:
            async with asyncio.timeout(REQUEST_S):
                await what()
        except TimeoutError:
            problem = f"no answer within {REQUEST_S:.0f} s"
        except ApplianceError as error:
            problem = str(error)
        except Exception as error:
            logger.exception("call %s: a fault of ours", self.key)
            problem = type(error).__name__
        if problem:
            logger.warning("call %s could not %s: %s", self.key, named, problem)
            if failed is not None:
                failed(problem)


class StreamLeg(_StreamSide):
    """A call that came by a carrier; the :class:`~appliance.signalling.leg.Leg` protocol.

    Args:
        call: the carrier's side of it.
        info: who calls whom.
        carrier: knows the address of a stream.
        pending: where what the carrier has been asked for is kept until it is done.
        offer: the stream that is there already, where it came unasked.
    """

    def __init__(
        self,
        call: CarrierCall,
        info: CallInfo,
        carrier: Carrier,
        pending: set[asyncio.Task[None]],
        offer: StreamOffer | None = None,
    ) -> None:
        super().__init__(info.protocol, carrier, info.leg_id, pending)
        self.info = info
        self.on_hangup: Callable[[HangupCause], None] | None = None
        self._call: CarrierCall = call
        self._offer = offer

    def ring(self) -> None:
        """Have the caller hear that it rings, where that does not go by itself."""
        if not self._over and self._media is None:
            self._ask(self._call.ring, "ring")

    def answer(self, media: MediaSlot) -> None:
        """Take the call; its stream is waited for, or is the one that was offered."""
        if self._over or self._media is not None:
            return
        self._media = media
        if self._offer is not None:
            self._token = self._offer.token
            media.connect_stream(self._kind, self._offer.token, OPEN_S, self._told)
            stream = StreamAddress("", self._offer.token)
        else:
            stream = self.new_stream()
        self._ask(lambda: self._call.answer(stream), "be answered", self._not_answered)

    def _not_answered(self, problem: str) -> None:
        if not self._up.is_set():
            self._give_up(f"the carrier could not answer it: {problem}")

    def reject(self, status: int, reason: str = "", retry_after_s: int | None = None) -> None:
        """Refuse the call with a status of SIP; does nothing once it is answered."""
        if self._over or self._media is not None:
            return
        self._finish()
        self._ask(lambda: self._call.reject(status, printable(reason, _MAX_REASON)), "be refused")

    def hangup(self, reason: str = "") -> None:
        """End it; before the answer it is refused."""
        if self._over:
            return
        if self._media is None:
            self.reject(480, reason)
        else:
            self._hang_up()

    def ringing(self) -> None:
        """Nobody is called here: the caller is."""

    def _stream_started(self) -> None:
        """The answer was given when the stream was asked for."""

    def become(self, outgoing: Any) -> None:
        """Nobody asks a carrier's call to become another: see :meth:`Transfers.follow`."""
        logger.error("call %s cannot become another call", self.key)

    def _may_come_back(self) -> bool:
        return self._offer is None

    def _tell_over(self, status: int, reason: str, by: Literal["peer", "system", "self"]) -> None:
        if self.on_hangup is not None:
            self.on_hangup(HangupCause("caller" if by == "peer" else "system", status, reason))


class StreamCall(_StreamSide):
    """A call placed through a carrier; the :class:`~appliance.signalling.leg.PlacedCall` protocol.

    Attributes:
        carrier_call: the carrier's side of it, once it has been placed.
    """

    def __init__(
        self,
        kind: str,
        carrier: Carrier,
        key: str,
        pending: set[asyncio.Task[None]],
        *,
        media: MediaSlot,
        ring_timeout_s: float,
        trunk: str,
        uri: str,
    ) -> None:
        super().__init__(kind, carrier, key, pending)
        self.trunk, self.uri = trunk, uri
        self._on_ringing: Callable[[int], None] | None = None
        self._rang = False
        self._media = media
        self._ring_timeout_s = ring_timeout_s
        loop = asyncio.get_running_loop()
        self._answered: asyncio.Future[bool] = loop.create_future()
        self._ended: asyncio.Future[HangupCause] = loop.create_future()

    @property
    def carrier_call(self) -> CarrierCall | None:
        return self._call

    @property
    def protocol_call_id(self) -> str:
        """The carrier's name of the call; "" while it has none."""
        return "" if self._call is None else printable(self._call.call_id, 256)

    @property
    def source(self) -> str:
        """Carriers do not tell."""
        return ""

    def let_go(self) -> None:
        """Never so: see :meth:`StreamLeg.become`."""

    def placed(self, call: CarrierCall) -> None:
        """The carrier has it. Where it was given up meanwhile, it is hung up."""
        self._call = call
        if self._over and not self._leaves:
            self._ask(call.hangup, "be hung up")

    @property
    def on_ringing(self) -> Callable[[int], None] | None:
        """Told once that it rings, also where it did so before anybody asked."""
        return self._on_ringing

    @on_ringing.setter
    def on_ringing(self, told: Callable[[int], None] | None) -> None:
        self._on_ringing = told
        if told is not None and self._rang:
            told(180)

    def ringing(self) -> None:
        """The one called is being alerted, or has answered."""
        if not self._rang:
            self._rang = True
            if self._on_ringing is not None and not self._over:
                self._on_ringing(180)

    async def wait_answered(self) -> object | None:
        """True once the stream is there; None where the call ended before."""
        return await asyncio.shield(self._answered) or None

    async def wait_ended(self) -> HangupCause:
        """Why the call ended, once it has."""
        return await asyncio.shield(self._ended)

    def when_over(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once the call has ended, or soon where it has."""
        self._ended.add_done_callback(lambda _: callback())

    def hangup(self, reason: str = "") -> None:
        """End it, answered or not."""
        if not self._over:
            self._hang_up()
            self._tell_over(200 if self._answered.done() else 487, printable(reason, _MAX_REASON), "self")

    def _patience_s(self) -> float:
        return OPEN_S + (0.0 if self._answered.done() else self._ring_timeout_s)

    def _stream_started(self) -> None:
        if not self._answered.done():
            self._answered.set_result(True)

    def _tell_over(self, status: int, reason: str, by: Literal["peer", "system", "self"]) -> None:
        who: Literal["caller", "agent", "system"] = "agent" if by == "peer" else "caller" if by == "self" else "system"
        if not self._answered.done():
            self._answered.set_result(False)
        if not self._ended.done():
            self._ended.set_result(HangupCause(who, status, reason))
