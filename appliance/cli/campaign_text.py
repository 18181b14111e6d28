"""Campaigns as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from appliance.campaigns.columns import Columns
from appliance.campaigns.lead_files import LeadFile
from appliance.campaigns.simulate import Simulation
from appliance.cli.calls import printable
from appliance.cli.progress import bar

_COLUMNS: Final = ("NAME", "STATE", "LINE", "LEADS", "DONE", "CALLING", "ANSWERED")
_KINDS: Final = {
    "columns": "have the wrong columns",
    "number": "have no number that can be called",
    "zone": "are at no place whose time is known",
    "consent": "have no consent",
    "value": "hold something that cannot be kept",
    "duplicate": "have a number that is in the list twice",
    "do_not_call": "are on a do-not-call list",
}
MENDABLE: Final = frozenset(_KINDS) - {"duplicate", "do_not_call"}
"""What is wrong with rows that an operator can mend."""
_CAUSES: Final = {
    "claimed": "are being called",
    "do_not_call": "are on a do-not-call list",
    "number": "have no valid number",
    "costly": "have a number that costs the caller more",
    "consent": "have no consent",
    "zone": "are where nobody knows the time",
    "window": "are outside the calling hours",
    "per_lead": "were called as often as the campaign may",
    "per_day": "were called today",
    "total": "were called as often as anybody may",
    "gap": "were called a short time ago",
    "retry": "wait for their next call",
    "callback": "have agreed on another time",
    "caller_id": "have no number to be shown",
    "trunk": "may not be dialled by the trunk",
}


def list_text(campaigns: Sequence[Mapping[str, Any]]) -> str:
    """All campaigns in aligned columns."""
    rows = [_COLUMNS] + [
        (
            printable(one["name"]),
            one["state"],
            printable(one["line"]),
            f"{one['leads']:,}",
            f"{one['done']:,}",
            str(one["calling"]),
            f"{one['answered']:,}",
        )
        for one in campaigns
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines if campaigns else [*lines, "no campaigns yet"])


def status_text(found: Mapping[str, Any]) -> str:
    """One campaign as a page of text."""
    reason = f", {printable(found['reason'])}" if found["reason"] else ""
    facts = [
        ("campaign", f"{printable(found['name'])}, {found['state']}{reason} since {_local(found['since'])}"),
        ("line", f"{printable(found['line'])}, revision {found['revision']}"),
        ("leads", bar("leads are done", found["done"], found["leads"], 0.0) if found["leads"] else "none yet"),
        ("waiting", _waiting(found)),
        ("calls", f"{found['attempts']:,} made, {found['answered']:,} answered, {found['calling']} going on"),
        ("abandoned", f"{found['abandoned']} ({found['abandoned_percent']:g} % of those answered)"),
        ("talk", f"{found['talk_s'] / 60:,.1f} min"),
    ]
    lines = [f"{name:<10} {text}" for name, text in facts]
    for word, count in sorted(found["by_disposition"].items(), key=lambda item: -item[1]):
        lines.append(f"  {word.replace('_', ' '):<16} {count:>8,}")
    return "\n".join(lines)


def check_text(found: Mapping[str, Any]) -> str:
    """What a campaign would do now."""
    lines = [f"mistake: {one}" for one in found["mistakes"]]
    state = "" if found["state"] == "running" else f" (it is {found['state']})"
    lines.append(f"{found['now']:,} of {found['leads']:,} leads would be called now{state}{_such(found['examples'])}")
    if found["done"]:
        lines.append(f"{found['done']:,} are done")
    for word, reason in found["not_now"].items():
        until = f", the first from {_local(reason['until'])} on" if reason["until"] else ""
        never = ", and never will be called" if reason["never"] else ""
        lines.append(f"{reason['leads']:,} {_CAUSES.get(word, word)}{until}{never}")
        lines += [f"    {printable(example)}" for example in reason["examples"]]
    return "\n".join(lines)


def about_file(file: LeadFile, columns: Columns) -> str:
    """How a list is read."""
    kind = "JSON Lines" if file.format == "jsonl" else f"CSV with {file.dialect.delimiter!r} between fields"
    lines = [f"{file.path}: {kind}, {file.encoding}, {file.rows:,} rows"]
    lines += [f"note: {printable(note)}" for note in (*file.notes, *columns.notes)]
    told = list(columns.told())
    width = max(len(target) for target, _, _ in told)
    for target, column, guessed in told:
        lines.append(f"  {target:<{width}}  from {printable(column)!r}{' (guessed)' if guessed else ''}")
    return "\n".join(lines)


def about_import(found: Mapping[str, Any]) -> str:
    """What has come of a list."""
    verb = "would be imported" if found["dry_run"] else "are imported"
    lines = [f"{found['imported']:,} leads {verb}, {found['already']:,} were there before"]
    if found["unmapped"]:
        names = ", ".join(found["unmapped"])
        lines.append(f"note: the texts want {names}, which no column gives; --map {found['unmapped'][0]}=COLUMN")
    if found["errors"]:
        lines.append(f"{found['errors']:,} rows are wrong:")
        for kind, count in found["errors_by_kind"].items():
            lines.append(f"  {count:,} {_KINDS.get(kind, kind)}")
            lines += [f"    {printable(example)}" for example in found["examples"][kind]]
    if found["error_file"]:
        hint = ": mend them there, and import that file" if MENDABLE & set(found["errors_by_kind"]) else ""
        lines.append(f"they are in {found['error_file']}{hint}")
    return "\n".join(lines)


def simulation_text(found: Simulation, guess: str) -> str:
    """A table: each quantity as a tenth, half and nine tenths of the runs have it."""
    runs = f"{len(found.runs)} run{'s' if len(found.runs) != 1 else ''}"
    lines = [f"{found.leads:,} leads from {_local(found.start.isoformat())} on, {runs}{f', {guess}' if guess else ''}"]
    rows = [("", "10 %", "50 %", "90 %")]
    rows += [(row.name, _quantity(row.p10), _quantity(row.p50), _quantity(row.p90)) for row in found.rows()]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for name, *values in rows:
        cells = "  ".join(value.rjust(width) for value, width in zip(values, widths[1:], strict=True))
        lines.append(f"{name:<{widths[0]}}  {cells}")
    if found.never:
        causes = ", ".join(f"{count:,} {_CAUSES.get(cause, cause)}" for cause, count in found.never.items())
        lines.append(f"never called: {causes}")
    stopped = {run.stopped for run in found.runs if run.stopped}
    lines += [f"stopped before it was done: {printable(why)}" for why in sorted(stopped)[:3]]
    return "\n".join(lines)


def _quantity(value: float | datetime | None) -> str:
    if value is None:
        return "never"
    if isinstance(value, datetime):
        return _local(value.isoformat())
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


def numbers_text(found: Mapping[str, Any]) -> str:
    """What has come of a do-not-call list."""
    wrong = f", {found['errors']:,} rows are wrong ({found['examples'][0]})" if found["errors"] else ""
    return f"{found['added']:,} of {found['rows']:,} numbers are new on the do-not-call list{wrong}"


def _waiting(found: Mapping[str, Any]) -> str:
    due = f", the first is due {_local(found['next_at'])}" if found["next_at"] and found["waiting"] else ""
    return f"{found['waiting']:,}{due}"


def _such(examples: Sequence[str]) -> str:
    return f", such as {', '.join(examples)}" if examples else ""


def _local(when: str) -> str:
    return datetime.fromisoformat(when).astimezone().strftime("%Y-%m-%d %H:%M:%S")
