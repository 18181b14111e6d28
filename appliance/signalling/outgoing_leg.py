"""A call placed by us as a leg, with an agent of ours on it: what :class:`SipLeg` is to a call that has come."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from appliance.signalling.leg import (
    CallInfo,
    HangupCause,
    MediaSlot,
    PlacedCall,
    TransferOutcome,
    TransferRequest,
)
from appliance.signalling.routes import Attempt, Dialler


class OutgoingLeg:
    """Satisfies :class:`~appliance.signalling.leg.Leg` once :meth:`dial` has returned; before, nobody is there.

    Args:
        info: who is called and what is shown there; trunk and protocol become those of the call that is answered.
        dialler: places it.
        attempts: by which ways.
        ring_timeout_s: it rings for so long at most.
        caller_id: number shown; "" for that of each trunk.

    Attributes:
        on_placed: told when a call has been placed, and ``info`` is right; again for each further trunk.
        on_ringing: called with the status (SIP) of everything that says that it goes on: 180, 183.
    """

    def __init__(
        self,
        info: CallInfo,
        dialler: Dialler,
        attempts: Sequence[Attempt],
        ring_timeout_s: float,
        caller_id: str = "",
    ) -> None:
        self.info = info
        self.needs_rtp = any(attempt.needs_rtp for attempt in attempts)
        self.on_hangup: Callable[[HangupCause], None] | None = None
        self.on_digits: Callable[[str], None] | None = None
        self.on_held: Callable[[bool], None] | None = None
        self.on_transfer: Callable[[TransferRequest], None] | None = None
        self.on_placed: Callable[[], None] | None = None
        self.on_ringing: Callable[[int], None] | None = None
        self._dialler = dialler
        self._attempts = tuple(attempts)
        self._ring_timeout_s = ring_timeout_s
        self._caller_id = caller_id
        self._placed: PlacedCall | None = None
        self._telling: set[asyncio.Task[None]] = set()

    async def dial(self, media: MediaSlot, values: Mapping[str, str]) -> None:
        """Call, and return once it is answered; ``media`` is connected then. Cancelled, the call is taken back.

        Raises:
            DialError: nobody has answered.
        """
        placed = await self._dialler.call(
            self._attempts,
            media,
            values=values,
            ring_timeout_s=self._ring_timeout_s,
            on_ringing=self._ringing,
            caller_id=self._caller_id,
            on_placed=self._has_placed,
        )
        self._attach(placed)

    def _has_placed(self, placed: PlacedCall) -> None:
        protocol = next(
            (one.trunk.kind for one in self._attempts if one.trunk.name == placed.trunk), self.info.protocol
        )
        self._note(placed, protocol)
        if self.on_placed is not None:
            self.on_placed()

    def _ringing(self, status: int) -> None:
        if self.on_ringing is not None:
            self.on_ringing(status)

    def _note(self, placed: PlacedCall, protocol: str) -> None:
        self.info = dataclasses.replace(
            self.info,
            protocol=protocol,
            trunk=placed.trunk,
            source=placed.source,
            protocol_call_id=placed.protocol_call_id,
            can_transfer=placed.can_transfer,
        )

    def _attach(self, placed: PlacedCall) -> None:
        """The leg is this call from now on."""
        self._placed = placed
        self._note(placed, self.info.protocol)
        placed.on_digits = self._digits
        placed.on_held = self._held
        placed.on_transfer = self._transfer
        placed.when_over(lambda: self._over(placed))

    def _digits(self, digits: str) -> None:
        if self.on_digits is not None:
            self.on_digits(digits)

    def _held(self, held: bool) -> None:
        if self.on_held is not None:
            self.on_held(held)

    def _transfer(self, request: TransferRequest) -> None:
        if self.on_transfer is not None:
            self.on_transfer(request)
        else:
            request.refuse(603)

    def _over(self, placed: PlacedCall) -> None:
        if placed is self._placed:
            task = asyncio.create_task(self._tell(placed), name=f"end of {self.info.leg_id}")
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def _tell(self, placed: PlacedCall) -> None:
        cause = await placed.wait_ended()
        if placed is not self._placed or cause.by == "caller" or self.on_hangup is None:
            return
        self.on_hangup(HangupCause("caller" if cause.by == "agent" else "system", cause.code, cause.text))

    # --- the leg ----------------------------------------------------------------------------------------------------

    def ring(self) -> None:
        """Nothing: the far end rings."""

    def answer(self, media: MediaSlot) -> None:
        """Nothing: the far end answers."""

    def reject(self, status: int, reason: str = "", retry_after_s: int | None = None) -> None:
        """The same as :meth:`hangup`."""
        self.hangup(reason)

    def hangup(self, reason: str = "") -> None:
        """End it; while it rings, cancel :meth:`dial` instead."""
        if self._placed is not None:
            self._placed.hangup(reason)

    async def settled(self, timeout_s: float = 4.0) -> None:
        """Wait until both sides know that the call is up."""
        if self._placed is not None:
            await self._placed.settled(timeout_s)

    def hold(self) -> None:
        """Tell the far end that it is on hold."""
        if self._placed is not None:
            self._placed.hold()

    def resume(self) -> None:
        """Take the far end off hold."""
        if self._placed is not None:
            self._placed.resume()

    def send_digits(self, digits: str) -> bool:
        """Send keys beside the audio, where the far end takes them so; false where media has to send them."""
        return self._placed is not None and self._placed.send_digits(digits)

    def transfer(
        self, target: str, replaces: Any = None, ring_timeout_s: float = 30.0
    ) -> asyncio.Future[TransferOutcome]:
        """Ask the far end, or its carrier, to call ``target`` itself."""
        if self._placed is not None:
            return self._placed.transfer(target, replaces, ring_timeout_s)
        refused: asyncio.Future[TransferOutcome] = asyncio.get_running_loop().create_future()
        refused.set_result(TransferOutcome(481, taken=False))
        return refused

    def become(self, outgoing: PlacedCall) -> None:
        """Go on as ``outgoing``, a call that we placed on this leg's media slot."""
        before, self._placed = self._placed, None
        if before is not None:
            before.let_go()
        self._attach(outgoing)

    def reconnect(self) -> None:
        """Take the media slot back from a call that came to nothing."""
        if self._placed is not None:
            self._placed.reconnect()
