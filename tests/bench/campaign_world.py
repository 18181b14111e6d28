"""What the benchmarks of campaigns share: boxes that call a farm of callees, and how what these saw is held against the
database."""

from __future__ import annotations

import asyncio
import itertools
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from appliance.cli.box import Box
from appliance.store.campaign_rows import AttemptRow, Counts, Lead, NewLead
from appliance.store.campaigns import CampaignStore
from tests.bench.callees import FarmProcess
from tests.bench.lines import dialplan
from tests.bench.report import Bar
from tests.store.clusters import running_cluster

NAME: Final = "spring"
ZONE: Final = "America/New_York"
SHOWN: Final = ("+12025550100", "+12025550101")
WANTED: Final[Mapping[str, str]] = {
    "0": "completed",
    "1": "completed",
    "2": "busy",
    "3": "no_answer",
    "4": "rejected",
    "5": "invalid",
    "6": "failed",
    "7": "voicemail_left",
    "8": "completed",
    "9": "opted_out",
}
"""How a lead ends by its last digit: what the farm does (``callees.BY_LAST_DIGIT``)."""
LATE_S: Final = 1.0
"""The gap is counted from the commit; one INVITE may leave so much later after it than another."""

LINE: Final[Mapping[str, Any]] = {
    "name": "recall",
    "match": {"called": ["900"]},
    "greeting": "Hello.",
    "no_input": {"after_s": 4, "retries": 1},
    "flow": {
        "ask": {
            "ask": "Shall we come?",
            "expect": {"yes": ["yes", "yes please"], "no": ["no", "no thank you"]},
            "keys": {"1": "yes"},
            "slot": "wanted",
        },
        "bye": {"hang_up": "Goodbye."},
    },
}
FAKES: Final[Mapping[str, object]] = {
    "engines.asr": {"provider": "fake", "delay_ms": 50, "text": ""},
    "engines.tts": {"provider": "fake", "first_audio_ms": 50, "chunk_ms": 20},
    "engines.turn": {"provider": "none"},
}


def numbers(count: int, digits: str = "0123456789") -> list[str]:
    """So many numbers, each another, whose last digits are ``digits`` in turn."""
    used: Counter[str] = Counter()
    found = []
    for index in range(count):
        digit = digits[index % len(digits)]
        found.append(f"+1212555{used[digit]:03d}{digit}")
        used[digit] += 1
    return found


def definition(*, gap_s: float = 20.0, times: int = 1, **changes: Any) -> dict[str, Any]:
    """The campaign: every hour of every day, and as much again as ``times`` says."""
    rule = {"after_s": 1, "times": times, "best_hour": False, "backoff": 1.0}
    many = {"after_s": 1, "times": 50, "best_hour": False, "backoff": 1.0}
    keys: dict[str, Any] = {
        "name": NAME,
        "line": "recall",
        "trunk": "carrier",
        "caller_ids": list(SHOWN),
        "owner": "Acme Plumbing",
        "region": "US",
        "windows": {"default": {"days": "mon-sun", "hours": "00:00-24:00"}},
        "consent": {"required": False},
        "attempts": {"per_lead": 50, "per_number_per_day": 50, "per_number_total": 500, "gap_s": gap_s},
        "retry": {**dict.fromkeys(("busy", "no_answer", "machine", "rejected", "failed"), rule), "interrupted": many},
        "pacing": {"max_calls": 30, "calls_per_s": 10, "ring_timeout_s": 5, "max_abandoned_percent": 100},
        "answering_machines": {"on_machine": "message", "message": "This is ${campaign.owner}. Please call us back."},
    }
    return {**keys, **changes}


def settings(folder: Path, farm: FarmProcess, *, fakes: bool = True, **changes: object) -> dict[str, object]:
    """Of a box that calls the farm."""
    carrier = {
        "kind": "sip",
        "proxy": f"sip:127.0.0.1:{farm.port}",
        "allow_prefixes": ["+1"],
        "caller_id": SHOWN[0],
        "caller_ids": list(SHOWN),
    }
    return {
        "trunks": {"carrier": carrier},
        "recording.enabled": False,
        "limits.max_calls": 60,
        "limits.drain_s": 5,
        **(FAKES if fakes else {}),
        **dialplan(folder, [dict(LINE)]),
        **changes,
    }


@contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    """The URL of an empty one: ``sqlite`` or ``postgresql``."""
    if kind == "sqlite":
        yield f"sqlite+aiosqlite:///{folder / 'shared.db'}"
        return
    with running_cluster() as cluster:
        yield cluster.url


@contextmanager
def workplace() -> Iterator[Path]:
    """A folder for one run."""
    with tempfile.TemporaryDirectory(prefix="campaign-", ignore_cleanup_errors=True) as name:
        yield Path(name)


async def begin(url: str, wanted: Sequence[str], keys: Mapping[str, Any]) -> None:
    """Make the campaign, fill it and start it."""
    async with CampaignStore(url, box="operator") as store:
        campaign_id = await store.create(NAME, keys)
        leads = [NewLead(row, number, f"r{row}", (ZONE,)) for row, number in enumerate(wanted, 2)]
        await store.insert_leads(campaign_id, leads)
        await store.set_state(NAME, "running")


@dataclass(frozen=True)
class Found:
    """What the database holds in the end."""

    leads: Sequence[Lead]
    attempts: Sequence[AttemptRow]
    counts: Counts
    state: str


async def found(url: str) -> Found:
    """Read it."""
    async with CampaignStore(url, box="operator") as store:
        return Found(
            [lead async for lead in store.leads(NAME)],
            [attempt async for attempt in store.attempts(NAME)],
            await store.counts(NAME),
            (await store.campaign(NAME)).state,
        )


async def until_finished(url: str, limit_s: float, bar: Bar | None = None) -> float:
    """Wait for the end of the campaign; how long that took."""
    began = said = time.monotonic()
    async with CampaignStore(url, box="operator") as store:
        while (row := await store.campaign(NAME)).state == "running":
            if time.monotonic() - began > limit_s:
                break
            if bar is not None and time.monotonic() - said > 30:
                said = time.monotonic()
                counts = await store.counts(NAME)
                bar.note(f"{said - began:4.0f} s: {counts.done} of {counts.total} done, {counts.calling} calls")
            await asyncio.sleep(0.5)
        if row.state != "finished":
            print(f"  the campaign is {row.state}: {row.state_reason}", file=sys.stderr)
    return time.monotonic() - began


def invites(entries: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """When each number was called, as the callees saw it."""
    found: dict[str, list[float]] = {}
    for entry in entries:
        if entry["event"] == "invite":
            found.setdefault(entry["number"], []).append(entry["at"])
    return found


def shortest_gap(entries: Sequence[Mapping[str, Any]]) -> float:
    """The least time between two calls of one number, in seconds; infinite where none was called twice."""
    calls = invites(entries).values()
    gaps = [later - earlier for one in calls for earlier, later in itertools.pairwise(one)]
    return min(gaps, default=float("inf"))


def judge(
    bar: Bar,
    what: str,
    wanted: Collection[str],
    end: Found,
    entries: Sequence[Mapping[str, Any]],
    gap_s: float,
    *,
    exact: bool = True,
    also: Collection[str] = (),
) -> None:
    """Hold the database against the callees.

    Args:
        what: was run, for the messages.
        wanted: the numbers of the list.
        end: what the database holds.
        entries: what the callees saw.
        gap_s: of the campaign.
        exact: nothing was killed: every attempt that got an answer was seen by a callee, and no other.
        also: other dispositions that leads may end with: of people whose call was cut off before they heard the agent.
    """
    bar.require(end.state == "finished", f"{what}: the campaign is {end.state}")
    rows = {lead.number: lead for lead in end.leads}
    bar.require(
        set(rows) == set(wanted) and len(rows) == len(end.leads), f"{what}: the leads are not those of the list"
    )
    open_leads = [lead.number for lead in end.leads if lead.state != "done"]
    bar.require(not open_leads, f"{what}: {len(open_leads)} leads are lost ({open_leads[:3]})")
    wrong = Counter(
        f"{number[-1]}: {lead.disposition or lead.state}, not {WANTED[number[-1]]}"
        for number, lead in rows.items()
        if lead.disposition not in (WANTED[number[-1]], *also)
    )
    bar.require(not wrong, f"{what}: {sum(wrong.values())} leads ended otherwise ({dict(wrong)})")
    last = {attempt.call_id: attempt for attempt in end.attempts}
    for lead in [lead for lead in end.leads if lead.disposition != WANTED[lead.number[-1]]][:20]:
        call = last.get(lead.call_id)
        told = "" if call is None else f", {call.verdict or 'no verdict'}, {call.talk_s:.1f} s"
        bar.note(f"{lead.number}: {lead.disposition}{told}: {lead.detail}")
    calls = invites(entries)
    strangers = set(calls) - set(wanted)
    bar.require(not strangers, f"{what}: {len(strangers)} numbers were called that are not on the list")
    uncalled = set(wanted) - set(calls)
    bar.require(not uncalled, f"{what}: {len(uncalled)} numbers were never called")
    gap = shortest_gap(entries)
    bar.require(gap >= gap_s - LATE_S, f"{what}: a number was called again after {gap:.2f} s, within its {gap_s:.0f} s")
    recorded = Counter(attempt.number for attempt in end.attempts)
    left = Counter(attempt.number for attempt in end.attempts if attempt.sip_code)
    unknown = [number for number, times in calls.items() if len(times) > recorded[number]]
    bar.require(not unknown, f"{what}: calls of {len(unknown)} numbers are not on record ({unknown[:3]})")
    if exact:
        differ = [number for number, count in left.items() if len(calls.get(number, ())) != count]
        bar.require(not differ, f"{what}: {len(differ)} numbers were called another number of times ({differ[:3]})")
    bar.require(all(attempt.ended_at is not None for attempt in end.attempts), f"{what}: attempts are left open")
    summed = sum(end.counts.by_disposition.values())
    bar.require(summed == end.counts.done == end.counts.total == len(wanted), f"{what}: the counts do not add up")
    seen = sum(map(len, calls.values()))
    bar.figure(f"{what}: {len(rows)} leads, {seen} calls seen, {len(end.attempts)} on record, shortest gap {gap:.2f} s")


def ended(box: Box) -> str:
    """The end of the box's log, for what went wrong."""
    return box.log_tail(30)
