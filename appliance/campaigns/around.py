"""What a campaign calls with, and what is known of a call of its own while it goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from appliance.calls.outgoing import Originator, OutgoingResult
from appliance.campaigns.definition import Breaker as BreakerSettings
from appliance.campaigns.definition import Definition
from appliance.campaigns.pacing import Breaker, Gate
from appliance.campaigns.results import Moment
from appliance.campaigns.stats import CampaignStats
from appliance.clock import Clock
from appliance.hook_types import CampaignEvent
from appliance.plugins.declarative.webhooks import NewEvent
from appliance.store.campaign_leases import LeadQueue
from appliance.store.campaign_rows import Lead
from appliance.store.campaigns import CampaignStore


@dataclass
class TrunkPace:
    """What all campaigns share of a trunk: its pace, and whether it works. ``leaving`` lets one call leave at a
    time."""

    gate: Gate
    breaker: Breaker
    settings: BreakerSettings
    leaving: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True)
class Around:
    """What a campaign calls with.

    Attributes:
        store: its campaigns.
        queue: the leads, as this box calls them.
        originator: places calls.
        clock: of this machine; the campaigns' own is the store's.
        pace_of: of a trunk ("" where the routes choose), for a campaign's breaker.
        owned: the numbers that may be shown on a trunk ("": where the routes choose).
        refuses: why a number may not be dialled by a trunk, in words; "" where it may.
        has_line: whether the dialplan has a line of that name.
        tell: tells plugins of an event.
        sent: events for webhooks have been queued.
        stats: counters.
    """

    store: CampaignStore
    queue: LeadQueue
    originator: Originator
    clock: Clock
    pace_of: Callable[[str, BreakerSettings], TrunkPace]
    owned: Callable[[str], AbstractSet[str]]
    refuses: Callable[[str, str], str]
    has_line: Callable[[str], bool]
    tell: Callable[[CampaignEvent], None]
    sent: Callable[[Sequence[NewEvent]], None]
    stats: CampaignStats

    def now(self) -> Moment:
        """Now, by both clocks."""
        return Moment(self.store.time(), self.clock.monotonic())


@dataclass(eq=False)
class Call:
    """A call that goes on. ``lead`` is as it was claimed, ``begun`` as it is since the attempt began."""

    lead: Lead
    begun: Lead
    call_id: str
    caller_id: str
    definition: Definition
    progress: dict[str, float] = field(default_factory=dict)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    left_at: float | None = None

    def seen(self, now: float) -> OutgoingResult:
        """What is known of a call that this side has ended."""
        return OutgoingResult(
            ringing_at=self.progress.get("ringing"),
            answered_at=self.progress.get("answered"),
            greeted_at=self.progress.get("answered"),
            ended_at=now,
            ended_by="box",
            reason="the campaign was stopped",
        )
