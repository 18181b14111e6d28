"""Campaigns for tests: a clock that is moved by hand, leads, limits, and what an attempt came to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

from appliance.store.campaign_leases import LeadQueue
from appliance.store.campaign_rows import AttemptEnd, AttemptLimits, Begun, Lead, NewLead
from appliance.store.campaigns import CampaignStore
from tests.store.facts import NOON

GAP_S = 3600.0
LEASE_S = 60.0


class HandClock:
    """Both clocks of a machine. ``step`` sets the wall clock alone."""

    def __init__(self) -> None:
        self.wall = NOON
        self.seconds = 1000.0

    def utc(self) -> datetime:
        return self.wall

    def monotonic(self) -> float:
        return self.seconds

    def forward(self, seconds: float) -> None:
        self.wall += timedelta(seconds=seconds)
        self.seconds += seconds

    def step(self, seconds: float) -> None:
        self.wall += timedelta(seconds=seconds)


def numbers(count: int, first: int = 0) -> list[str]:
    return [f"+1202555{first + i:04d}" for i in range(count)]


def new_leads(count: int, first: int = 0) -> list[NewLead]:
    return [
        NewLead(row=first + i + 2, number=number, reference=f"r{first + i}", zones=("America/New_York",))
        for i, number in enumerate(numbers(count, first))
    ]


def limits(**changes: Any) -> AttemptLimits:
    values: dict[str, Any] = {
        "day": "2026-03-02",
        "gap_s": GAP_S,
        "per_day": 10,
        "per_number": 10,
        "per_lead": 10,
        "max_calls": 100,
    }
    return AttemptLimits(**{**values, **changes})


def ended_as(disposition: str, at: datetime, **changes: Any) -> AttemptEnd:
    return AttemptEnd(disposition, at, **changes)


async def begin(queue: LeadQueue, lead: Lead, call_id: str, **changes: Any) -> Begun:
    return await queue.begin_attempt(lead, call_id, limits(**changes), lease_s=LEASE_S)


@asynccontextmanager
async def running(store: CampaignStore, count: int, name: str = "spring") -> AsyncIterator[str]:
    """A campaign with so many leads that runs; its id."""
    campaign_id = await store.create(name, {"line": "recall"})
    assert await store.insert_leads(campaign_id, new_leads(count)) == (count, [])
    await store.set_state(name, "running")
    yield campaign_id
