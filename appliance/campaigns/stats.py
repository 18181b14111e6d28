"""What the campaigns of this box do, for metrics and status pages."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class CampaignStats:
    """Counters since the start, and what is so now. Keys begin with the campaign's name."""

    attempts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Calls that are over, by (campaign, disposition)."""
    leads_done: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Leads that are done, by (campaign, disposition)."""
    held_back: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Leads that were due and not called, by (campaign, cause)."""
    calls: dict[str, int] = field(default_factory=dict)
    """Calls going on now."""
    abandoned_percent: dict[str, float] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)
    """What holds a campaign back, in words; "" for nothing."""
    taken_back: int = 0
    """Leads whose box, or call, was gone."""
    unwritten: int = 0
    """Ends of calls that are not in the database yet."""
    problem: str = ""
    """Why nothing is called at all, in words; "" where that is not so."""
    open_breakers: set[str] = field(default_factory=set)
    """Trunks that are left alone because they fail."""

    def forget(self, campaign: str) -> None:
        """What is so now no longer is, of a campaign that does not call any more."""
        for now in (self.calls, self.abandoned_percent, self.why):
            now.pop(campaign, None)
