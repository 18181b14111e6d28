"""What operators do with campaigns, whether by command line or by HTTP: each raises what an operator can mend."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from appliance.campaigns.definition import Definition
from appliance.campaigns.definition_files import misfits
from appliance.campaigns.number_lists import ListReport, import_numbers
from appliance.config import Settings
from appliance.dialplan.schema import Line
from appliance.errors import CampaignError, ConfigError
from appliance.store.campaign_rows import CampaignRow, CampaignState, Counts
from appliance.store.campaigns import CampaignStore

VERBS: Final = {
    "start": CampaignState.RUNNING,
    "pause": CampaignState.PAUSED,
    "resume": CampaignState.RUNNING,
    "drain": CampaignState.DRAINING,
    "stop": CampaignState.STOPPED,
}
"""What an operator says, and the state that it means."""

_OF_A_LEAD: Final = re.compile(r"\$\{\s*lead\.([a-z0-9_]{1,64})\s*[|}]")
_DONE: Final = {
    "start": "it calls",
    "pause": "no more calls are begun; those that go on may end",
    "resume": "it calls again",
    "drain": "no more calls are begun; it stops when the last one has ended",
    "stop": "no more calls are begun, and those that go on are ended politely",
}


async def create(
    store: CampaignStore,
    definition: Definition,
    settings: Settings,
    *,
    lines: Collection[str] | None,
    folder: Path | None = None,
) -> tuple[str, list[ListReport]]:
    """Make a campaign, with its do-not-call lists; gives its id and what has come of each list.

    Args:
        store: where to.
        definition: of the campaign.
        settings: of the box.
        lines: names of its lines; None does not look.
        folder: where the files of ``dnc.lists`` are; None where they cannot be read, from afar for one.

    Raises:
        ConfigError: it does not fit the box.
        LeadFileError: a list cannot be read; then there is no campaign.
        StoreError: there is one of that name.
    """
    _fitting(definition, settings, lines)
    if definition.dnc.lists and folder is None:
        hint = "leave dnc.lists out, and upload each list for the campaign once it is created"
        raise CampaignError(f"campaign {definition.name!r} names files of this machine; {hint}")
    campaign_id = await store.create(definition.name, definition.as_json())
    reports: list[ListReport] = []
    try:
        for name in definition.dnc.lists:
            assert folder is not None
            path = folder / Path(name).expanduser()
            reports.append(await import_numbers(path, definition.region, store, campaign_id=campaign_id))
    except BaseException:
        await store.delete(definition.name)
        raise
    return campaign_id, reports


async def change(
    store: CampaignStore,
    name: str,
    edit: Callable[[Definition], Definition],
    settings: Settings,
    lines: Collection[str] | None,
) -> int:
    """Change keys of a campaign, also while it runs; gives the new revision.

    Args:
        store: holds it.
        name: of the campaign.
        edit: makes the new definition of the present one.
        settings: of the box.
        lines: names of its lines; None does not look.

    Raises:
        ConfigError: a value is wrong, or does not fit the box.
        StoreError: there is no such campaign, or somebody else has changed it at the same time.
    """
    row = await store.campaign(name)
    definition = edit(definition_of(row))
    _fitting(definition, settings, lines)
    return await store.edit(row.name, definition.as_json(), revision=row.revision)


async def command(
    store: CampaignStore, name: str, verb: str, settings: Settings, lines: Collection[str] | None, reason: str = ""
) -> str:
    """Start, pause, resume, drain or stop a campaign; gives a sentence about what follows.

    Raises:
        CampaignError: it has no leads, or there is nothing to resume.
        ConfigError: it does not fit the box.
        StoreError: there is no such campaign, or it cannot do that in the state that it is in.
    """
    row = await store.campaign(name)
    if VERBS[verb] is CampaignState.RUNNING:
        if verb == "resume" and row.state not in (CampaignState.PAUSED, CampaignState.DRAINING, CampaignState.RUNNING):
            hint = f"`appliance campaign start {row.name}` starts it"
            raise CampaignError(f"campaign {row.name!r} is {row.state}, and was not paused; {hint}")
        _fitting(definition_of(row), settings, lines)
        if not (await store.counts(row.name)).total:
            hint = f"`appliance campaign import {row.name} FILE` reads some"
            raise CampaignError(f"campaign {row.name!r} has no leads; {hint}")
    before = await store.set_state(row.name, VERBS[verb], reason)
    if before is VERBS[verb]:
        return f"campaign {row.name!r} is {before} already"
    return f"campaign {row.name!r} was {before}; {_DONE[verb]}"


async def status(store: CampaignStore, name: str) -> dict[str, Any]:
    """Everything about a campaign but its leads, as plain data.

    Raises:
        StoreError: there is no such campaign.
    """
    row = await store.campaign(name)
    counts = await store.counts(row.name)
    return {**summary(row), **counts_as_json(counts), "definition": dict(row.definition)}


async def listing(store: CampaignStore) -> list[dict[str, Any]]:
    """All campaigns, each with where its leads are."""
    return [{**summary(row), **counts_as_json(await store.counts(row.name))} for row in await store.campaigns()]


def definition_of(row: CampaignRow) -> Definition:
    """The definition of a campaign of the store.

    Raises:
        CampaignError: another version of the appliance wrote it.
    """
    try:
        return Definition.of(row.definition)
    except ValueError as error:
        hint = "another version of the appliance made it; make it again"
        raise CampaignError(f"the definition of campaign {row.name!r} cannot be read; {hint}") from error


def variables_of(line: Line) -> list[str]:
    """The names of the leads' variables that a line's texts hold: ``first_name`` of ``${lead.first_name}``."""
    return sorted(set(_OF_A_LEAD.findall(line.model_dump_json())))


def summary(row: CampaignRow) -> dict[str, Any]:
    """A campaign and its state as plain data."""
    return {
        "name": row.name,
        "id": row.id,
        "state": str(row.state),
        "reason": row.state_reason,
        "since": row.state_at.isoformat(),
        "created_at": row.created_at.isoformat(),
        "revision": row.revision,
        "line": row.definition.get("line", ""),
    }


def counts_as_json(counts: Counts) -> dict[str, Any]:
    """Where its leads are as plain data."""
    return {
        "leads": counts.total,
        "waiting": counts.waiting,
        "claimed": counts.claimed,
        "done": counts.done,
        "by_disposition": dict(counts.by_disposition),
        "attempts": counts.attempts,
        "calling": counts.calling,
        "answered": counts.answered,
        "abandoned": counts.abandoned,
        "abandoned_percent": round(100 * counts.abandoned / counts.answered, 2) if counts.answered else 0.0,
        "talk_s": round(counts.talk_s, 1),
        "next_at": _iso(counts.next_at),
    }


def _iso(when: datetime | None) -> str | None:
    return when.isoformat() if when is not None else None


def _fitting(definition: Definition, settings: Settings, lines: Collection[str] | None) -> None:
    mistakes = list(misfits(definition, settings, lines))
    if mistakes:
        raise ConfigError(mistakes)
