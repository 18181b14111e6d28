"""What a test must know of a carrier to do the same at each: its account, and its words for the same thing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from appliance.cli.box import Box
from tests.carriers import at_telnyx, at_twilio


@dataclass(frozen=True)
class Carrier:
    """One whose calls come with webhooks and streams.

    Attributes:
        account: makes its simulation, an asynchronous context manager.
        trunk: the settings of a trunk at that account.
        reach: leads the account's webhooks and streams to a box.
        completed: the outcome of a call that was answered and hung up.
        refused: whether a leg was rejected for want of a line.
        again: how many streams a call has had when a transfer has failed and the box speaks to the caller again.
    """

    name: str
    account: Callable[[], Any]
    trunk: Callable[[Any], dict[str, object]]
    reach: Callable[[Any, Box], None]
    completed: str
    refused: Callable[[Any], bool]
    again: int

    def __str__(self) -> str:
        return self.name


TWILIO = Carrier(
    "twilio",
    at_twilio.twilio_account,
    lambda sim: at_twilio.trunk(sim.api_url),
    at_twilio.reach,
    completed="completed",
    refused=lambda call: bool(call.rejected),
    again=2,
)
TELNYX = Carrier(
    "telnyx",
    at_telnyx.telnyx_account,
    at_telnyx.trunk,
    at_telnyx.reach,
    completed="normal_clearing",
    refused=lambda call: call.cause == "not_found",
    again=1,
)
CARRIERS = (TWILIO, TELNYX)
