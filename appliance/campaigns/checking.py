"""What a campaign would call now, and why not the rest."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from appliance.campaigns.definition import Definition
from appliance.campaigns.rules import Allowed, Never, NotNow, Rules, Surroundings
from appliance.config import Settings
from appliance.errors import DialError
from appliance.signalling.routes import Router
from appliance.signalling.trunks import TrunkRule, TrunkTable
from appliance.store.campaign_rows import Lead
from appliance.store.campaigns import BATCH, CampaignStore

_EXAMPLES: Final = 3

Progress = Callable[[int, int], None]


@dataclass
class Reason:
    """Why some leads are not called now.

    Attributes:
        never: whether they are never called, as things stand.
        leads: how many.
        until: when the first of them may be; None where nobody knows, or never.
        examples: a few, each a number and a sentence.
    """

    never: bool = False
    leads: int = 0
    until: datetime | None = None
    examples: list[str] = field(default_factory=list)


@dataclass
class CheckReport:
    """What a campaign would do now.

    Attributes:
        leads: how many were looked at.
        done: of these, how many are done with.
        now: how many would be called now, as far as the rules go; pacing says how fast.
        examples: a few of these numbers.
        reasons: why the others are not, by a word.
    """

    leads: int = 0
    done: int = 0
    now: int = 0
    examples: list[str] = field(default_factory=list)
    reasons: dict[str, Reason] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {
            "leads": self.leads,
            "done": self.done,
            "now": self.now,
            "examples": self.examples,
            "not_now": {
                word: {
                    "leads": reason.leads,
                    "never": reason.never,
                    "until": reason.until.isoformat() if reason.until else None,
                    "examples": reason.examples,
                }
                for word, reason in sorted(self.reasons.items(), key=lambda item: -item[1].leads)
            },
        }


class TrunkCheck:
    """Why the box's trunks may not dial a number."""

    def __init__(self, settings: Settings, trunk: str) -> None:
        rules = [TrunkRule.of(name, one) for name, one in settings.trunks.items()]
        self._router = Router(TrunkTable(rules), settings.routes)
        self._trunk = trunk
        names = [trunk] if trunk else [name for route in settings.routes for name in route.trunks]
        self.owned = frozenset(
            number for name in names if name in settings.trunks for number in settings.trunks[name].caller_ids
        )
        """The numbers that may be shown."""

    def refusal(self, number: str) -> str:
        """In words; "" where one of them may."""
        # A number that is only asked about has not been refused to anybody.
        logger = logging.getLogger(Router.__module__)
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            self._router.attempts(number, trunk=self._trunk)
        except DialError as error:
            return str(error)
        finally:
            logger.setLevel(level)
        return ""


async def check(
    store: CampaignStore,
    name: str,
    definition: Definition,
    settings: Settings,
    *,
    now: datetime,
    limit: int | None = None,
    progress: Progress | None = None,
) -> CheckReport:
    """Ask the rules about every lead, as if the campaign ran.

    Args:
        store: holds it.
        name: of the campaign.
        definition: to ask by; one that is not the campaign's own shows what a change would do.
        settings: of the box: its trunks.
        now: aware.
        limit: leads to look at; None for all.
        progress: told of it.

    Raises:
        StoreError: there is no such campaign, or it cannot be read.
    """
    row = await store.campaign(name)
    total = min((await store.counts(name)).total, limit or 10**12)
    work = _Check(Rules(definition), TrunkCheck(settings, definition.trunk), now)
    batch: list[Lead] = []

    async def ask() -> None:
        numbers = [lead.number for lead in batch]
        listed = await store.on_lists(row.id, numbers)
        contacts = await store.contacts(numbers)
        for lead in batch:
            work.take(lead, contacts.get(lead.number), ("a do-not-call list",) if lead.number in listed else ())
        batch.clear()
        if progress is not None:
            progress(work.report.leads, total)

    async for lead in store.leads(name):
        if work.report.leads + len(batch) >= total:
            break
        batch.append(lead)
        if len(batch) == BATCH:
            await ask()
    if batch:
        await ask()
    return work.report


class _Check:
    def __init__(self, rules: Rules, trunks: TrunkCheck, now: datetime) -> None:
        self.report = CheckReport()
        self._rules = rules
        self._trunks = trunks
        self._now = now

    def take(self, lead: Lead, contact: Any, listed: Sequence[str]) -> None:
        report = self.report
        report.leads += 1
        if lead.state == "done":
            report.done += 1
            return
        if lead.state == "claimed":
            self._because("claimed", f"{lead.number}: {lead.claimed_by or 'a box'} is at work on it", None, never=False)
            return
        around = Surroundings("running", listed, self._trunks.owned, self._trunks.refusal(lead.number))
        match self._rules.may_dial(lead, contact, around, self._now):
            case Allowed():
                report.now += 1
                if len(report.examples) < _EXAMPLES:
                    report.examples.append(lead.number)
            case NotNow(cause, why, until):
                self._because(cause, f"{lead.number}: {why}", until, never=False)
            case Never(cause, why, _):
                self._because(cause, f"{lead.number}: {why}", None, never=True)

    def _because(self, word: str, example: str, until: datetime | None, *, never: bool) -> None:
        reason = self.report.reasons.setdefault(word, Reason(never=never))
        reason.leads += 1
        reason.never = reason.never and never
        if until is not None:
            reason.until = until if reason.until is None else min(reason.until, until)
        if len(reason.examples) < _EXAMPLES:
            reason.examples.append(example)
