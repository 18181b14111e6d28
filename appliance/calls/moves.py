"""How one call gets to somebody else: the agent hands the caller on, or the caller's side puts another in its place."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from appliance.calls.brains import voice_of
from appliance.calls.hook_calls import other_transfer
from appliance.calls.services import Services
from appliance.calls.storing import CallKeeping
from appliance.calls.transfer import KeyRelay, Transfers, Voicing
from appliance.conversation.brain import Transfer, TransferFailed
from appliance.conversation.hooked import HooksOfCall
from appliance.dialplan.schema import Line
from appliance.dialplan.surroundings import targets_of
from appliance.dialplan.text import render
from appliance.hook_types import Denied
from appliance.media.client import MediaLegHandle
from appliance.signalling.leg import HangupCause, Leg, TransferRequest
from appliance.signalling.routes import Attempt

logger = logging.getLogger(__name__)


class Moves:
    """One call's transfers, in both directions.

    Args:
        call_id: of the record.
        leg: the caller's.
        slots: takes what becomes of transfers, for the record.
        log: the call's.
        values: what ``${...}`` stands for now.
        send_keys_to: told where the caller's keys go meanwhile; None for back to the agent.
        hung_up: called with why the caller had left, where nobody has come in that place.

    Attributes:
        to: who the call was transferred to last; "" for nobody.
        gone: why the caller has left while the next one still rings; None while somebody is there.
    """

    def __init__(
        self,
        call_id: str,
        leg: Leg,
        slots: dict[str, str],
        log: CallKeeping,
        *,
        values: Callable[[], Mapping[str, str]],
        send_keys_to: Callable[[KeyRelay | None], None],
        hung_up: Callable[[HangupCause], None],
    ) -> None:
        self._call_id = call_id
        self._leg = leg
        self._slots = slots
        self._log = log
        self._values = values
        self._send_keys_to = send_keys_to
        self._hung_up = hung_up
        self._following: asyncio.Task[None] | None = None
        self.to = ""
        self.gone: HangupCause | None = None

    async def hand_on(
        self, transfer: Transfer, media: MediaLegHandle, services: Services, line: Line, hooks: HooksOfCall
    ) -> str | TransferFailed:
        """Hand the caller on, as the brain of ``line`` wants; the reason for the record once that call is over."""
        if services.transfers is None:
            return TransferFailed()
        if hooks.wanted("transfer_requested"):
            wanted = await hooks.transfer_requested(transfer.to)
            if isinstance(wanted, Denied):
                self._slots["transfer"] = f"{transfer.to}: denied ({wanted.reason})"
                return TransferFailed(wanted.reason or "a plugin has denied it")
            transfer = other_transfer(transfer, wanted, line, self._values())
        if transfer.late:
            transfer = replace(transfer, announce=render(transfer.announce, self._values()), late=False)
        if transfer.to in targets_of(line):  # nobody's number but the operator's
            self._log.own_slots.add("transfer")
        voicing = Voicing(services.rings, services.tts, voice_of(line), services.clock.monotonic)
        self._slots["transfer"] = f"{transfer.to}: under way when the call ended"
        reason = await services.transfers.hand_on(
            self._leg, media, transfer, self._values(), voicing, self._send_keys_to
        )
        self._slots["transfer"] = f"{transfer.to}: {reason or 'failed'}"
        if reason is None:
            return TransferFailed()
        self.to = transfer.to
        return reason

    def follow(self, request: TransferRequest, media: MediaLegHandle | None, transfers: Transfers | None) -> None:
        """The caller's side wants somebody else to take its place; refused unless both are given."""
        if transfers is None or media is None or self._following is not None:
            request.refuse(603)
            return
        attempts = transfers.admit(self._leg, request)
        if attempts:
            self._following = asyncio.create_task(self._replace_caller(transfers, media, request, attempts))

    def waits(self, cause: HangupCause) -> bool:
        """The caller has left because of ``cause``; whether the call waits for somebody else in that place."""
        if self._following is None:
            return False
        self.gone = cause
        return True

    def cancel(self) -> None:
        """The call is over: nobody takes the caller's place any more."""
        if self._following is not None:
            self._following.cancel()

    def let_go(self) -> None:
        """Nothing of the call is held any more; after the dialogue has been closed."""
        self._values = dict
        self._send_keys_to = lambda relay: None
        self._hung_up = lambda cause: None

    async def _replace_caller(
        self, transfers: Transfers, media: MediaLegHandle, request: TransferRequest, attempts: Sequence[Attempt]
    ) -> None:
        try:
            if await transfers.follow(self._leg, media, request, attempts, self._values()):
                logger.info("call %s goes on with %s", self._call_id, request.target)
                self._slots["transferred_to"] = self.to = request.target
                self.gone = None
        except Exception:
            logger.exception("call %s: the transfer to %s failed", self._call_id, request.target)
        finally:
            self._following = None
            if self.gone is not None:
                self._hung_up(self.gone)
