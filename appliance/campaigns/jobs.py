"""Long work on campaigns in a process of its own, so that the calls of the box do not wait for it.

``python -m appliance.campaigns.jobs`` is told what to do on its standard input, as JSON, and tells what came of it on
its standard output, as one object: ``{"result": ...}``, or ``{"error": ..., "mistakes": [...]}``.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field, StringConstraints

from appliance.campaigns import simulate
from appliance.campaigns.checking import check
from appliance.campaigns.columns import columns_of
from appliance.campaigns.exporter import export
from appliance.campaigns.importer import CampaignLeads, import_leads
from appliance.campaigns.lead_files import examine
from appliance.campaigns.mix import ASSUMED, Mix
from appliance.campaigns.mix_files import mix_of_campaign
from appliance.campaigns.number_lists import import_numbers
from appliance.campaigns.operations import definition_of
from appliance.config import Settings
from appliance.config.marks import Document
from appliance.config.validation import Section, validate
from appliance.errors import ApplianceError, CampaignError, ConfigError
from appliance.store.campaigns import CampaignStore

_NICE: Final = 10
_MAX_ANSWER: Final = 4 * 1024 * 1024
_GRACE_S: Final = 5.0

Job = Callable[[CampaignStore, Settings, Mapping[str, Any]], Awaitable[Any]]


async def in_a_process(settings: Settings, job: str, arguments: Mapping[str, Any], *, timeout_s: float) -> Any:
    """Do a job of :data:`JOBS` in a process of its own.

    Raises:
        ConfigError, CampaignError: as the job has raised them, or it took too long or died.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "appliance.campaigns.jobs"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=_MAX_ANSWER,
    )
    told = json.dumps({"settings": settings.dump_json(), "job": job, "arguments": dict(arguments)})
    try:
        async with asyncio.timeout(timeout_s):
            answer, _ = await process.communicate(told.encode())
    except TimeoutError:
        raise CampaignError(f"it has taken more than {timeout_s:.0f} s, and was ended; take less at a time") from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _GRACE_S)
    try:
        found: Mapping[str, Any] = json.loads(answer)
    except ValueError:
        raise CampaignError(f"the process that did it died with status {process.returncode}; try again") from None
    return result_of(found)


def result_of(found: Mapping[str, Any]) -> Any:
    """What a job has given, of what its process has told.

    Raises:
        JobError: the job has raised something.
    """
    if "error" in found:
        raise JobError(found["error"], found.get("mistakes", []))
    return found["result"]


class JobError(CampaignError):
    """What a job has raised; ``mistakes`` are those of a file, each in words."""

    def __init__(self, message: str, mistakes: list[str]) -> None:
        self.mistakes = mistakes
        super().__init__(message)


async def _import(store: CampaignStore, settings: Settings, given: Mapping[str, Any]) -> Any:
    row = await store.campaign(given["name"])
    definition = definition_of(row)
    file = examine(
        Path(given["path"]),
        encoding=given.get("encoding", ""),
        delimiter=given.get("delimiter", ""),
        format=given.get("format") or None,
        region=definition.region,
    )
    columns = columns_of(file.header, given.get("map", []), only_said=given.get("only_map", False))
    report = await import_leads(
        file,
        columns,
        definition,
        CampaignLeads(store, row.id),
        now=await store.now(),
        wanted=given.get("wanted", ()),
        dry_run=given.get("dry_run", False),
    )
    return import_told(file.encoding, [*file.notes, *columns.notes], list(columns.told())) | report.as_json()


def import_told(encoding: str, notes: list[str], columns: list[tuple[str, str, bool]]) -> dict[str, Any]:
    """How a list was read, as plain data."""
    told = [{"means": meaning, "column": column, "guessed": guessed} for meaning, column, guessed in columns]
    return {"encoding": encoding, "notes": notes, "columns": told}


async def _check(store: CampaignStore, settings: Settings, given: Mapping[str, Any]) -> Any:
    row = await store.campaign(given["name"])
    report = await check(
        store, row.name, definition_of(row), settings, now=await store.now(), limit=given.get("limit") or None
    )
    return {"name": row.name, "state": str(row.state), **report.as_json()}


async def _export(store: CampaignStore, settings: Settings, given: Mapping[str, Any]) -> Any:
    with Path(given["path"]).open("w", encoding="utf-8", newline="") as to:  # noqa: ASYNC230 - nobody else is here
        return await export(store, given["name"], to, what=given["what"], format=given["format"])


async def _numbers(store: CampaignStore, settings: Settings, given: Mapping[str, Any]) -> Any:
    report = await import_numbers(
        Path(given["path"]),
        given["region"],
        store,
        source=given.get("source", ""),
        campaign_id=given.get("campaign_id", ""),
        encoding=given.get("encoding", ""),
    )
    return report.as_json()


class SimulationRequest(Section):
    """What may be said of a simulation."""

    mix: Mix | None = Field(default=None, description="What becomes of calls; see campaign-rules.md. Empty: a guess.")
    from_: Annotated[str, StringConstraints(max_length=64)] = Field(
        default="", alias="from", description="The campaign whose calls say what becomes of calls."
    )
    start: datetime | None = Field(default=None, description="When it is started, in ISO 8601. Empty: now.")
    seed: int = Field(default=1, description="Of the draws: the same one gives the same figures.")
    runs: int | None = Field(default=None, ge=1, le=1000, description="How often. Empty: 25, fewer of a long list.")


async def _simulate(store: CampaignStore, settings: Settings, given: Mapping[str, Any]) -> Any:
    asked = {key: value for key, value in given.items() if key != "name"}
    checked = validate(SimulationRequest, Document("body", asked))
    if checked.mistakes or checked.value is None:
        raise ConfigError(list(checked.mistakes))
    wanted = checked.value
    found = await simulated(
        store,
        settings,
        given["name"],
        mix=wanted.mix or ASSUMED,
        earlier=wanted.from_,
        start=wanted.start.astimezone(UTC) if wanted.start is not None else None,
        seed=wanted.seed,
        runs=wanted.runs,
    )
    return found.as_json()


async def simulated(
    store: CampaignStore,
    settings: Settings,
    name: str,
    *,
    mix: Mix,
    earlier: str = "",
    start: datetime | None = None,
    seed: int = 1,
    runs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> simulate.Simulation:
    """Run a campaign of the store in virtual time.

    Args:
        store: holds it.
        settings: of the box that would call.
        name: of the campaign; its leads that are not done are called.
        mix: what becomes of calls.
        earlier: the campaign whose calls say that instead.
        start: when it is started, aware; None for now.
        seed: of the draws.
        runs: how often; None for as often as is sensible.
        progress: told of it.

    Raises:
        StoreError: there is no such campaign, or it has no calls to go by.
    """
    row = await store.campaign(name)
    definition = definition_of(row)
    drawn = await mix_of_campaign(store, earlier) if earlier else mix
    leads = [lead async for lead in store.leads(row.name, states=("waiting", "claimed"))]
    trunk = settings.trunks.get(definition.trunk)
    box = simulate.Box(
        settings.limits.max_calls,
        trunk.max_calls if trunk is not None else None,
        trunk.max_cps if trunk is not None else None,
    )
    begin = start or await store.now()
    return simulate.run(definition, leads, drawn, begin, seed, box=box, runs=runs, progress=progress)


JOBS: Final[Mapping[str, Job]] = {
    "import": _import,
    "check": _check,
    "export": _export,
    "numbers": _numbers,
    "simulate": _simulate,
}


async def done(told: Mapping[str, Any]) -> dict[str, Any]:
    """Do what is ``told``, and give what is to be told of it."""
    settings = Settings.model_validate_json(told["settings"])
    try:
        async with CampaignStore(settings.store.url) as store:
            return {"result": await JOBS[told["job"]](store, settings, told["arguments"])}
    except ConfigError as error:
        return {"error": str(error), "mistakes": [str(mistake) for mistake in error.mistakes]}
    except ApplianceError as error:
        return {"error": str(error)}


def main() -> int:
    os.nice(_NICE)
    print(json.dumps(asyncio.run(done(json.load(sys.stdin)))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
