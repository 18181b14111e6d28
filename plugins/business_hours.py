"""Knows when the business is open: tells callers, keeps them from being put through to nobody, and chooses the line.

Pages: docs/plugins/business_hours.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from functools import cached_property
from zoneinfo import ZoneInfo

from pydantic import Field

from appliance.api import Arguments, Call, Denied, ModelRequest, OngoingCall, PluginValues, Tool, ToolError, hookimpl
from appliance.api.hours import Days, Holiday, Opening, Spans, TimeZone

API = 1
SUMMARY = "Tells when the business is open, and hands nobody on while it is closed."

_LOOK_AHEAD_DAYS = 60


class Values(PluginValues):
    """What an operator may write below `business_hours`.

    Attributes:
        timezone: where the business is, such as `Europe/Berlin`.
        hours: days to spans of hours, `{mon-fri: "09:00-12:30, 13:30-17:00", sat: "10:00-13:00"}`; a day that is not
            named is closed. A span that ends before it begins ends on the next day. `holidays` has hours of its own.
        holidays: days on which it is closed, or has those hours: public holidays of a country or a part of one (`DE`,
            `DE-BE`), days (`2026-12-24`), days of every year (`12-24`), or from one to another (`12-24..01-02`).
        closed_line: the line that answers while it is closed, whatever the dialplan says. Only where the plugin is
            enabled for the whole box.
        refuse_transfers: whether nobody is put through while it is closed.
    """

    timezone: TimeZone
    hours: dict[Days, Spans] = Field(min_length=1)
    holidays: tuple[Holiday, ...] = ()
    closed_line: str = ""
    refuse_transfers: bool = True

    @cached_property
    def week(self) -> Week:
        """The hours, ready to be asked."""
        return Week(self)


class Week:
    """The hours of a business."""

    def __init__(self, values: Values) -> None:
        self.zone = ZoneInfo(values.timezone)
        self._opening = Opening.of({days: [spans] for days, spans in values.hours.items()}, values.holidays)

    def of(self, day: date) -> list[tuple[datetime, datetime]]:
        """When it is open on ``day``, from and to, in order."""
        return self._opening.times(day, self.zone)

    def open_until(self, now: datetime) -> datetime | None:
        """When it closes; None if it is closed."""
        today = now.astimezone(self.zone).date()
        spans = [*self.of(today - timedelta(days=1)), *self.of(today)]
        return next((end for begin, end in spans if begin <= now < end), None)

    def opens_at(self, now: datetime) -> datetime | None:
        """When it opens next; None where that is not within two months."""
        today = now.astimezone(self.zone).date()
        for ahead in range(_LOOK_AHEAD_DAYS):
            for begin, _ in self.of(today + timedelta(days=ahead)):
                if begin > now:
                    return begin
        return None

    def state(self, now: datetime) -> str:
        """Whether it is open, and how long, in words."""
        until = self.open_until(now)
        if until is not None:
            return f"open, until {until:%H:%M}"
        opens = self.opens_at(now)
        return "closed" if opens is None else f"closed, opens {opens:%A %d %B at %H:%M}"


def now() -> datetime:
    """The time. Tests put another in its place."""
    return datetime.now().astimezone()


@hookimpl
def appliance_route(call: Call) -> str | None:
    if not call.values.closed_line or call.values.week.open_until(now()) is not None:
        return None
    return call.values.closed_line


@hookimpl
def appliance_before_llm(call: Call, request: ModelRequest) -> list[str]:
    return [f"The business is {call.values.week.state(now())}."]


@hookimpl
def appliance_tools(call: Call) -> Sequence[Tool]:
    async def opening_hours(arguments: Arguments, ongoing: OngoingCall) -> dict[str, object]:
        week: Week = call.values.week
        try:
            day = date.fromisoformat(arguments["date"])
        except ValueError:
            raise ToolError(f"{arguments['date']!r} is not a date; write it as 2026-12-24") from None
        spans = [f"{begin:%H:%M} to {end:%H:%M}" for begin, end in week.of(day)]
        return {"date": f"{day:%A %d %B %Y}", "open": spans or "closed all day", "now": week.state(now())}

    return [
        Tool(
            name="opening_hours",
            description="When the business is open on a day. Use it for every question about opening hours.",
            parameters={
                "type": "object",
                "properties": {"date": {"type": "string", "description": "The day, as 2026-12-24."}},
                "required": ["date"],
                "additionalProperties": False,
            },
            run=opening_hours,
            side_effects=False,
        )
    ]


@hookimpl
def appliance_transfer_requested(call: Call, target: str) -> Denied | None:
    if not call.values.refuse_transfers or call.values.week.open_until(now()) is not None:
        return None
    return Denied(f"nobody is there now: {call.values.week.state(now())}")
