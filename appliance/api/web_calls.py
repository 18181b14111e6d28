"""The calls of a carrier with webhooks and an API on the web: placed, handed on and ended, whatever goes wrong between.

The API may do what it was asked without saying so, and webhooks may come twice, late, out of order or not at all. So a
call is kept until the carrier has said that it has ended, or has taken a hang-up of it; nobody is left on the line.

Not part of ``appliance.api`` itself: only the control process has use for it.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, Final, Generic, TypeVar

from appliance.api.carriers import BoxCall, CallRequest, CarrierBox
from appliance.api.web_carrier import MAX_CALLS, WebCarrier
from appliance.errors import CarrierApiError, DialError

logger = logging.getLogger(__name__)

SWEEP_S: Final = 30.0
"""How often calls are looked at that the box is done with, and that have not ended at the carrier."""
KEEP_S: Final = 900.0
"""How long they are; longer than anybody's telephone rings."""
TRANSFER_SLACK_S: Final = 7.5
"""What a transfer came to is known so long after the target has ceased to ring."""
_LAST_S: Final = 2.0
_GONE: Final = (404, 410, 422)
"""What an API answers to a command for a call that has ended."""
_CANCELLED: Final = 487


class WebCall(ABC):
    """A call of either direction.

    Attributes:
        call_id: the carrier's name of it; "" until that of a placed call has been told.
        state: what the carrier brings back with every webhook of a placed call.
        given_up: the box wants it ended.
        moved: the carrier has connected it with somebody else.
        outcome: of the transfer under way.
    """

    def __init__(self, carrier: WebCalls[Any], call_id: str, request: CallRequest | None = None) -> None:
        self._calls, self.call_id, self.request = carrier, call_id, request
        self.state = ""
        self.box_call: BoxCall | None = request.box_call if request else None
        self.given_up = self.moved = False
        self.outcome: asyncio.Future[int] | None = None
        self.ending: asyncio.Task[None] | None = None
        self.done_at: float | None = None

    @abstractmethod
    async def end(self) -> None:
        """Have the carrier end it. Raises: CarrierApiError."""

    @property
    def done(self) -> bool:
        """Whether the box is done with it, and it is not just being connected with somebody else."""
        return self.given_up or (self.outcome is None and self.box_call is not None and self.box_call.ended)

    async def hangup(self) -> None:
        """End it at the carrier.

        Raises:
            CarrierApiError: it has failed for now; it is tried again, without anybody waiting.
        """
        await self._calls.hang_up(self)

    def no_stream(self, error: CarrierApiError) -> None:
        """The API opens none: that ends the call, where it has not ended by itself."""
        if error.status not in _GONE and self.box_call is not None:
            self.box_call.over(503, "no stream could be opened", by_peer=False)
            self._calls.end_later(self)

    def settle(self, status: int) -> None:
        """A transfer has come to this, if there is one."""
        if self.outcome is not None and not self.outcome.done():
            self.outcome.set_result(status)


Call = TypeVar("Call", bound=WebCall)


class _Target(Generic[Call]):
    """Whom a caller is being handed on to."""

    def __init__(self, caller: Call) -> None:
        self.caller, self.call_id, self.done_at = caller, "", -1.0


class WebCalls(WebCarrier, Generic[Call]):
    """A carrier that keeps its calls.

    Attributes:
        calls: by their names.
        placed: by their states; a placed call is in both once it has a name.
        again_s: later than other news of a call that ends, carriers tell that it has ended.
    """

    again_s: ClassVar[float] = 0.5

    def __init__(self, box: CarrierBox, public_url: str, media_url: str) -> None:
        super().__init__(box, public_url, media_url)
        self.calls: dict[str, Call] = {}
        self.placed: dict[str, Call] = {}
        self._targets: dict[str, _Target[Call]] = {}
        self._hang_ups: set[asyncio.Task[None]] = set()

    @abstractmethod
    def new_call(self, call_id: str) -> Call:
        """One that is only to be ended."""

    async def start(self) -> None:
        self.spawn(self._sweeping())

    async def close(self) -> None:
        if self._hang_ups:
            await asyncio.wait(self._hang_ups, timeout=_LAST_S)
        self._tasks |= self._hang_ups
        await super().close()

    # --- to be found ------------------------------------------------------------------------------------------------

    def known(self, call_id: str, state: str) -> Call | None:
        """The call that a webhook is about. A second call under the same state is ended."""
        call = self.calls.get(call_id)
        if call is not None or not call_id or (call := self.placed.get(state)) is None:
            return call
        new = self.is_new(call_id)
        if call.call_id:
            if new:
                logger.warning("%s: call %s was placed twice; the other one is ended", self.box.trunk, call.call_id)
                self.end(call_id)
            return None
        call.call_id = call_id
        self.calls[call_id] = call
        return call

    def forget(self, call: Call) -> None:
        """It has ended, or is somebody else's."""
        call.settle(_CANCELLED)
        for names, name in ((self.calls, call.call_id), (self.placed, call.state)):
            if names.get(name) is call:
                del names[name]

    # --- placed -----------------------------------------------------------------------------------------------------

    async def place_as(self, call: Call, ask: Callable[[], Coroutine[Any, Any, str]]) -> Call:
        """Wait for the API, which gives the name of ``call``; a webhook with its state may be faster.

        Where nobody knows whether there is such a call now, it is ended as soon as it is heard of.

        Raises:
            DialError: it has not been placed, or is to be ended.
        """
        if len(self.placed) >= MAX_CALLS:
            raise DialError(f"{MAX_CALLS} calls are being placed", status=503, cause="failed")
        self.placed[call.state] = call
        try:
            self.known(await ask(), call.state)
        except CarrierApiError as error:
            if call.call_id:
                return call
            call.given_up = True
            if error.sure:
                self.forget(call)
            raise _not_placed(error) from None
        except BaseException:
            self.end_later(call)
            raise
        return call

    # --- ended ------------------------------------------------------------------------------------------------------

    def end(self, call_id: str) -> None:
        """End a call that is nobody's: of before a restart, of a transfer that was given up."""
        call = self.calls.get(call_id)
        if call is None:
            if len(self.calls) >= 2 * MAX_CALLS:
                return
            call = self.calls[call_id] = self.new_call(call_id)
        self.end_later(call)

    def end_later(self, call: Call, after_s: float = 0.0) -> None:
        """End a call; nobody waits for it."""

        async def work() -> None:
            await asyncio.sleep(after_s)
            try:
                await self.hang_up(call)
            except CarrierApiError as error:
                logger.warning("%s: a call could not be hung up, and will be tried again: %s", self.box.trunk, error)

        call.given_up = True
        self._keep(asyncio.create_task(work()))

    async def hang_up(self, call: Call) -> None:
        """See :meth:`WebCall.hangup`."""
        call.given_up = True
        call.settle(_CANCELLED)
        if call.moved or self.calls.get(call.call_id) is not call:
            return
        if call.ending is None or call.ending.done():
            call.ending = asyncio.create_task(self._ending(call))
            self._keep(call.ending)
        await asyncio.shield(call.ending)

    async def _ending(self, call: Call) -> None:
        try:
            await call.end()
        except CarrierApiError as error:
            if error.status not in _GONE:
                raise
        self.forget(call)

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._hang_ups.add(task)
        task.add_done_callback(self._hang_ups.discard)
        task.add_done_callback(lambda task: None if task.cancelled() else task.exception())

    async def _sweeping(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self.sweep(asyncio.get_running_loop().time())

    def sweep(self, now: float) -> None:
        """End what should have ended by itself, and forget what nothing more will be heard of."""
        for call in {**self.placed, **self.calls}.values():
            if not call.done:
                continue
            if call.done_at is None:
                call.done_at = now
            elif now - call.done_at > KEEP_S:
                self.forget(call)
            else:
                self.end_later(call)
        for state, target in list(self._targets.items()):
            if 0 <= target.done_at < now - KEEP_S:
                del self._targets[state]

    # --- handed on --------------------------------------------------------------------------------------------------

    async def hand_on(self, call: Call, asked: Coroutine[Any, Any, object], limit_s: float, to: str | Call) -> int:
        """Wait until the carrier has connected ``call`` with somebody else; else that one is hung up.

        Args:
            asked: the request to the API.
            to: another call; or the state that the webhooks of the target will have, see :meth:`target_told`.

        Returns:
            The final status in terms of SIP; 408 where it is not known within ``limit_s``.

        Raises:
            CarrierApiError: the API refuses; nobody has been rung.
        """
        outcome: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        target, joined = _Target(call), [call]
        if isinstance(to, str):
            self._targets[to] = target
        else:
            joined.append(to)
        for one in joined:
            one.outcome = outcome
        status = 0
        try:
            async with asyncio.timeout(limit_s):
                await asked
                status = await outcome
        except TimeoutError:
            status = 408
        except CarrierApiError as error:
            if error.sure:
                raise
            logger.warning("%s: nobody knows whether a call is being transferred: %s", self.box.trunk, error)
            status = 408
        except asyncio.CancelledError:
            if not isinstance(to, str):
                self.end_later(to)
            raise
        finally:
            for one in joined:
                one.outcome = None
            if isinstance(to, str):
                self._let_go(to, target, connected=status == 200)
        for one in joined if status == 200 else ():
            one.moved = True
            self.forget(one)
        return status

    def _let_go(self, state: str, target: _Target[Call], *, connected: bool) -> None:
        if connected:
            del self._targets[state]
            return
        target.done_at = asyncio.get_running_loop().time()
        if target.call_id:
            self.end(target.call_id)

    def target_told(self, state: str, call_id: str, status: int, *, over: bool) -> bool:
        """A webhook of a transfer's target. ``status``: what that is coming to, 0 for nothing yet.

        Returns:
            Whether it is one.
        """
        target = self._targets.get(state)
        if target is None:
            return False
        new = self.is_new(call_id)
        if target.done_at >= 0:
            if new and not over:
                self.end(call_id)
            return True
        target.call_id = "" if over else call_id
        if status:
            target.caller.settle(status)
        return True


def _not_placed(error: CarrierApiError) -> DialError:
    """What the API's refusal is for the dialler. After 503 the next trunk is tried, unless somebody may be rung now."""
    if not error.sure:
        text = f"{error}; should there be a call all the same, it is hung up when it is heard of"
        return DialError(text, status=503, cause="unsure")
    if error.status in (400, 422):
        return DialError(str(error), status=404, cause="malformed")
    if 400 <= error.status < 500 and error.status not in (401, 404, 429):
        return DialError(str(error), status=403, cause="forbidden")
    cause = {401: "auth", 429: "rate"}.get(error.status, "unreachable")
    return DialError(str(error), status=503, cause=cause)
