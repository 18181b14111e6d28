"""Leads, contacts and definitions for tests, each with what makes it callable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from appliance.campaigns.definition import Definition

OWNED = frozenset({"+12025550100", "+12025550101", "+12025550102"})
CONSENT = {"source": "web form", "text": "Yes, call me about my boiler", "at": "2026-01-05T10:00:00+00:00"}


def definition(**keys: Any) -> Definition:
    """A campaign of a plumber in Washington, with ``keys`` in place of its own."""
    return Definition.of(
        {"name": "recall", "line": "recall", "caller_ids": ["+12025550100"], "owner": "Acme", "region": "US", **keys}
    )


@dataclass(frozen=True)
class Lead:
    """Somebody in New York who has agreed to be called."""

    number: str = "+12125550142"
    zones: Sequence[str] = ("America/New_York",)
    address_zone: str = ""
    region: str = ""
    consent: Mapping[str, str] | None = field(default_factory=lambda: dict(CONSENT))
    attempts: int = 0
    next_at: datetime | None = None
    callback_at: datetime | None = None
    last_at: datetime | None = None


@dataclass(frozen=True)
class Contact:
    """How often the number has been called."""

    last_started_at: datetime | None = None
    day_attempts: int = 0
    total_attempts: int = 0
