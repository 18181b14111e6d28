"""What has come of a campaign's leads, or of its calls, as CSV or JSON Lines."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final, Literal, TextIO, TypeAlias

from appliance.store.campaign_rows import AttemptRow, Lead
from appliance.store.campaigns import CampaignStore

What: TypeAlias = Literal["leads", "attempts"]
Format: TypeAlias = Literal["csv", "jsonl"]

LEAD_COLUMNS: Final = (
    "row",
    "reference",
    "number",
    "region",
    "state",
    "disposition",
    "detail",
    "attempts",
    "last_at",
    "next_at",
    "callback_at",
    "done_at",
    "sip_code",
    "call_id",
)
"""Of each lead; its variables follow as ``lead.NAME``, what was found out in its last call as ``slot.NAME``."""
_TIMES: Final = ("last_at", "next_at", "callback_at", "done_at")
_STARTS_A_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,20}([.,][0-9]{1,20})?")
MAX_COLUMNS: Final = 500


async def export(store: CampaignStore, name: str, to: TextIO, *, what: What, format: Format) -> int:  # noqa: A002
    """Write a campaign's leads, or attempts, and give how many there were. A page of them is in memory at a time.

    A cell of CSV that a spreadsheet would take for a formula has a ``'`` put before it; numbers are left alone, with a
    sign or without, and so telephone numbers are. JSON Lines hold everything as it is.

    Raises:
        StoreError: there is no such campaign, or it cannot be read.
    """
    if format == "jsonl":
        return await _as_json(store, name, to, what)
    columns: Sequence[str] = await _columns(store, name) if what == "leads" else [*AttemptRow.__dataclass_fields__]
    writer = csv.writer(to, lineterminator="\r\n")
    writer.writerow(columns)
    written = 0
    async for row in rows(store, name, what):
        flat = _flat(row) if what == "leads" else row
        writer.writerow([defused(_cell(flat.get(column))) for column in columns])
        written += 1
    return written


async def rows(store: CampaignStore, name: str, what: What) -> AsyncIterator[dict[str, Any]]:
    """Each lead or attempt as plain data: times in ISO 8601."""
    if what == "attempts":
        async for attempt in store.attempts(name):
            yield {key: _plain(value) for key, value in asdict(attempt).items()}
        return
    async for lead in store.leads(name):
        yield lead_row(lead)


def lead_row(lead: Lead) -> dict[str, Any]:
    """A lead as plain data, with ``variables`` and ``slots``."""
    row = {column: _plain(getattr(lead, column)) for column in LEAD_COLUMNS}
    if lead.state == "done":
        row["next_at"] = None
    return row | {"variables": dict(lead.variables), "slots": dict(lead.slots)}


def defused(cell: str) -> str:
    """``cell`` so that no spreadsheet calculates it."""
    return f"'{cell}" if cell.startswith(_STARTS_A_FORMULA) and not _NUMBER.fullmatch(cell) else cell


async def _as_json(store: CampaignStore, name: str, to: TextIO, what: What) -> int:
    written = 0
    async for row in rows(store, name, what):
        to.write(json.dumps(row, ensure_ascii=False) + "\n")
        written += 1
    return written


async def _columns(store: CampaignStore, name: str) -> list[str]:
    """Those of all leads, and every name of a variable or slot that any of them has, in the order they come in."""
    more: dict[str, None] = {}
    async for lead in store.leads(name):
        more.update(dict.fromkeys(f"lead.{key}" for key in lead.variables))
        more.update(dict.fromkeys(f"slot.{key}" for key in lead.slots))
        if len(more) > MAX_COLUMNS:
            break
    return [*LEAD_COLUMNS, *sorted(more, key=lambda key: key.startswith("slot."))][:MAX_COLUMNS]


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    flat = {key: value for key, value in row.items() if key not in ("variables", "slots")}
    flat |= {f"lead.{key}": value for key, value in row["variables"].items()}
    return flat | {f"slot.{key}": value for key, value in row["slots"].items()}


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
