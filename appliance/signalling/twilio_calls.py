"""One call at Twilio: what the box asks of it, and what Twilio tells and asks in its webhooks."""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
from collections.abc import Coroutine, Mapping
from typing import Any, Final, Protocol

from appliance.api import BoxCall, CallRequest, CarrierCall, CarrierError, DialError, StreamAddress
from appliance.signalling import twilio_twiml as twiml
from appliance.signalling.twilio_rest import TwilioApi
from appliance.signalling.twilio_status import OVER, UNSURE, final_status

logger = logging.getLogger(__name__)

_TRANSFER_SLACK_S: Final = 6.5
"""Twilio may let a transfer's target ring for 5 s more; what it came to is said no later than 8 s after the time."""

_DIRECT_S: Final = 6.0
_JOIN_S: Final = 3.5
"""Twice, so that both halves have had their time before 8 s."""

_MAX_REOPENED: Final = 5
_MAX_STRAYS: Final = 8
_GONE: Final = 481
_NO_ANSWER: Final = 480
_MAY_HAVE_RUNG: Final = 408
_NO_ROOM: Final = 503
_CANCELLED: Final = 487


class Host(Protocol):
    """What a call needs of the carrier that it is of."""

    @property
    def account(self) -> str: ...
    @property
    def api(self) -> TwilioApi: ...

    def url(self, path: str, **query: str | int) -> str:
        """The public address of a webhook of this trunk."""
        ...

    def background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Have it done, without waiting; DialError is logged."""
        ...


class TwilioCall:
    """A call of either direction.

    Attributes:
        call_id: its CallSid; "" until a placed call has one.
        box_call: the same call at the box.
        named: set when a placed call has its name.
        placing: the request that places it.
        answered_by: what machine detection says: "human", "machine_start" ..., "" where it has said nothing.
        hung_up: the box wants it ended.
        over: Twilio has said that it has ended.
        can_transfer: whether there is a number to show to a transfer's target.

    Args:
        shown: what that is, where it is not the caller's own; "" where there is none.
    """

    sends_digits = False

    def __init__(self, host: Host, call_id: str, shown: str | None) -> None:
        self.call_id = call_id
        self.box_call: BoxCall | None = None
        self.named = asyncio.Event()
        self.placing: asyncio.Task[None] | None = None
        self.answered_by = ""
        self.hung_up = False
        self.over = False
        self._host = host
        self._shown = shown
        self.can_transfer = shown != ""
        self._placed = False
        self._answered = False
        self._rang = False
        self._first: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._streams = 0
        self._reopened = 0
        self._next: tuple[str, str] = ("", "")
        self._transfers = 0
        self._transfer: asyncio.Future[int] | None = None
        self._given_away = False
        self._joined: TwilioCall | None = None
        self._returning: asyncio.Task[None] | None = None
        self._strays: set[str] = set()

    @classmethod
    def to_place(cls, host: Host, request: CallRequest) -> TwilioCall:
        """A call that the box places; its first document is known, its name is not."""
        call = cls(host, "", None)
        call._placed = True
        call.box_call = request.box_call
        call._first.set_result(call._connect(request.stream))
        return call

    @property
    def done(self) -> bool:
        """Whether nothing more will be wanted of it."""
        return self.over or self.hung_up or (self.box_call is not None and self.box_call.ended)

    # --- the box asks ---------------------------------------------------------------------------------------------

    async def ring(self) -> None:
        """The caller hears ringing for as long as the webhook has no answer."""

    async def answer(self, stream: StreamAddress) -> None:
        if self._first.done() or self.done:
            raise CarrierError("the caller has gone, or its webhook has been answered otherwise")
        self._answered = True
        self._first.set_result(self._connect(stream))

    async def reject(self, status: int, reason: str) -> None:
        if self._first.done():
            await self.hangup()
            return
        self.hung_up = True
        self._first.set_result(twiml.reject(status))

    async def hangup(self) -> None:
        if self._given_away or self.over:
            return
        self.hung_up = True
        self._settle_transfer(_CANCELLED)
        if not self._first.done():
            self._first.set_result(twiml.reject(_NO_ROOM))
        elif self.call_id:
            await self._host.api.end(self.call_id)

    async def transfer(self, number: str, other: CarrierCall | None, ring_timeout_s: float = 30.0) -> int:
        loop = asyncio.get_running_loop()
        ring_s = ring_seconds(math.floor(ring_timeout_s))
        until = loop.time() + ring_s + _TRANSFER_SLACK_S
        if self._returning is not None:
            await asyncio.wait({self._returning})
        if self.done:
            return _GONE
        if other is not None:
            return await self._join(other)
        self._transfer = outcome = loop.create_future()
        self._transfers += 1
        try:
            status = await self._dial(number, outcome, ring_s, until)
        except BaseException:
            if outcome.done() and outcome.result() == 200:
                self._talks_elsewhere()
            else:
                self._returning = self._host.background(self._take_back())
            raise
        finally:
            self._transfer = None
        self._given_away = status == 200
        return status

    async def _dial(self, number: str, outcome: asyncio.Future[int], ring_s: int, until: float) -> int:
        """Have Twilio call ``number``; what that comes to, little later than ``until``."""
        loop = asyncio.get_running_loop()
        document = twiml.dial(
            number,
            self._host.url("/dialed", n=self._transfers),
            self._host.url("/called", n=self._transfers, call=self.call_id),
            self._shown,
            ring_s,
        )
        status = _NO_ANSWER
        try:
            await self._host.api.direct(self.call_id, document, _DIRECT_S)
            await asyncio.wait({outcome}, timeout=max(until - loop.time(), 0.0))
            if not outcome.done():
                talks = await self._host.api.talks(self.call_id)
                if talks is not False and not outcome.done():
                    # Word that it came to nothing is a question Twilio waits with; word of the answer may be lost.
                    return 200
        except DialError as error:
            logger.warning("call %s: no transfer: %s", self.call_id, error)
            if error.cause != UNSURE and not outcome.done():
                return error.status
            status = _MAY_HAVE_RUNG
        if outcome.done():
            return outcome.result()
        self._returning = self._host.background(self._take_back())
        return status

    def _settle_transfer(self, status: int) -> None:
        if self._transfer is not None and not self._transfer.done():
            self._given_away = status == 200
            self._transfer.set_result(status)

    async def send_digits(self, digits: str) -> None:
        raise CarrierError("Twilio takes no keys for a call under way; they go as tones in its audio")

    async def _join(self, other: CarrierCall) -> int:
        """Both calls into a conference of two."""
        if not isinstance(other, TwilioCall) or other._host.account != self._host.account or other.done:
            logger.warning("call %s: no transfer: the other call is not one of this account's", self.call_id)
            return _GONE
        document = twiml.conference(f"transfer-{secrets.token_hex(16)}")
        other._given_away = True  # until it is settled nobody ends it: the box's goodbye to it may come meanwhile
        half = 0
        try:
            for call in (other, self):
                half += 1
                call._given_away = True
                await self._host.api.direct(call.call_id, document, _JOIN_S)
                if other.over:
                    raise DialError("the other side has hung up", status=_NO_ANSWER, cause=UNSURE)
        except BaseException as error:
            self._given_away = False
            known = isinstance(error, DialError) and error.cause != UNSURE
            if half == 1 and known:
                other._given_away = False
            else:  # it has no stream any more; the box's own goodbye to it would come before the caller is back
                other.hung_up = True
                other._tell_over(_NO_ROOM, "it could not be joined with the caller", by_peer=False)
                self._returning = self._host.background(self._part_from(other, taken=half == 2 and not known))
            if not isinstance(error, DialError):
                raise
            logger.warning("call %s: no transfer: %s", self.call_id, error)
            return error.status
        self._joined, other._joined = other, self
        return 200

    async def _part_from(self, other: TwilioCall, *, taken: bool) -> None:
        """End the other half of a conference that came to nothing; this one leaves it first, as it may end with it."""
        if taken:
            await self._take_back()
        self._host.background(self._host.api.end(other.call_id))

    async def _take_back(self) -> None:
        """Have the caller's audio here again, wherever it is, unless the target has answered."""
        if self.done or self.box_call is None:
            return
        if await self._host.api.talks(self.call_id):
            self._talks_elsewhere()
            return
        if self.done:
            return
        try:
            await self._host.api.direct(self.call_id, self._connect(self.box_call.new_stream()))
        except DialError as error:
            logger.warning("call %s: its stream could not be opened again: %s", self.call_id, error)

    def _talks_elsewhere(self) -> None:
        """The target has answered though the box has given the transfer up: nobody ends that conversation."""
        logger.info("call %s: the target of a transfer that was given up has answered", self.call_id)
        self._given_away = True
        self._tell_over(200, "it is connected with the target of a transfer", by_peer=False)

    # --- Twilio asks and tells ------------------------------------------------------------------------------------

    async def first_document(self, limit_s: float) -> str:
        """What is to become of the call: as soon as the box has decided, or a refusal when it takes too long."""
        try:
            async with asyncio.timeout(limit_s):
                return await asyncio.shield(self._first)
        except TimeoutError:
            logger.warning("call %s: refused: nothing had answered it after %.0f s", self.call_id, limit_s)
            self.hung_up = True
            self._tell_over(_NO_ROOM, "nothing answered in time", by_peer=False)
            if not self._first.done():
                self._first.set_result(twiml.reject(_NO_ROOM))
            return self._first.result()

    def answered(self, params: Mapping[str, str]) -> str:
        """The one called has answered: what now?"""
        if self.ended_by(params) or self.done:
            return twiml.hangup()
        self._answered = True
        self._alerted()
        return self._first.result()

    def stream_ended(self, params: Mapping[str, str], number: str) -> str:
        """Stream ``number`` of this call has ended: what now?"""
        question = f"stream {number}"
        if self.ended_by(params) or self.done or self.box_call is None:
            return twiml.hangup()
        if self._next[0] == question:
            return self._next[1]
        if self._transfer is not None or self._given_away or number != str(self._streams):
            return twiml.stay(self._host.url("/action", n=self._streams))
        return self._reopen(question)

    def target_answered(self, number: str) -> None:
        """The target of transfer ``number`` has answered."""
        if number == str(self._transfers):
            self._settle_transfer(200)

    def transfer_ended(self, params: Mapping[str, str], number: str) -> str:
        """The target of transfer ``number`` has hung up, or did not answer: what now?"""
        question = f"transfer {number}"
        if self._next[0] == question:
            return self._next[1]
        current = number == str(self._transfers)
        outcome = self._transfer if current else None
        bridged = params.get("DialBridged", "true") != "false"
        status = final_status(params, status_key="DialCallStatus", answered=bridged)
        if self.ended_by(params):
            return twiml.hangup()
        if current and (status == 200 or self._given_away):
            self._settle_transfer(200)
            self._finish(200, "the transferred call has ended")
            return twiml.hangup()
        if outcome is None or outcome.done() or self.done:
            return twiml.hangup() if self.done else twiml.stay(self._host.url("/action", n=self._streams))
        document = self._reopen(question, broken=False)
        self._settle_transfer(status)
        return document

    def told(self, params: Mapping[str, str]) -> None:
        """A status callback; they come late, twice, out of order, or never."""
        if self.over or self.ended_by(params) or self.done:
            return
        if params.get("CallStatus") in ("ringing", "in-progress"):
            self._alerted()

    def _alerted(self) -> None:
        """A call that we placed rings, or has been answered: the box rings nobody else for it."""
        if self._placed and not self._rang and self.box_call is not None:
            self._rang = True
            self.box_call.ringing()

    def machine_detected(self, answered_by: str) -> None:
        self.answered_by = answered_by
        logger.info("call %s: answered by %s, as machine detection has it", self.call_id, answered_by)

    def ended_by(self, params: Mapping[str, str]) -> bool:
        """Whether the form of a webhook says that the call has ended; the box is told."""
        if params.get("CallStatus") not in OVER:
            return False
        status = final_status(params, answered=self._answered or not self._placed)
        if not self._placed and status != 200:
            status = _CANCELLED  # what becomes of a call to us that was not answered is the caller's doing, or ours
        self._finish(status, params.get("CallStatus", ""))
        return True

    def strange(self, call_id: str) -> bool:
        """Whether a second call under this one's key is a new one, that is to be ended."""
        if call_id in self._strays or len(self._strays) >= _MAX_STRAYS:
            return False
        self._strays.add(call_id)
        return True

    def _finish(self, status: int, reason: str) -> None:
        self.over = True
        if not self._first.done():
            self._first.set_result(twiml.hangup())
        self._settle_transfer(_CANCELLED)
        self._tell_over(status, reason)
        if self._joined is not None and not self._joined.over:
            # Whoever came into the conference as the other left it is alone in it.
            self._host.background(self._host.api.end(self._joined.call_id))

    def _tell_over(self, status: int, reason: str, *, by_peer: bool = True) -> None:
        if self.box_call is not None:
            self.box_call.over(status, reason, by_peer=by_peer)

    def _reopen(self, question: str, *, broken: bool = True) -> str:
        assert self.box_call is not None
        self._reopened += broken
        if self._reopened > _MAX_REOPENED:
            logger.warning("call %s: ended: its stream broke %d times", self.call_id, self._reopened)
            self.hung_up = True
            self._tell_over(_NO_ROOM, "its stream broke too often", by_peer=False)
            return twiml.hangup()
        if broken:
            logger.warning("call %s: its stream broke; a new one is asked for", self.call_id)
        self._next = (question, self._connect(self.box_call.new_stream()))
        return self._next[1]

    def _connect(self, stream: StreamAddress) -> str:
        self._streams += 1
        return twiml.connect(stream, self._host.url("/action", n=self._streams), self._host.url("/stream"))


def ring_seconds(ring_timeout_s: float) -> int:
    """As Twilio takes it."""
    return min(max(math.ceil(ring_timeout_s), 1), 600)
