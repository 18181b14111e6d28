"""The schema of a campaign, as an operator writes it and as the database keeps it. PURE.

Every key has a description: the tables in ``docs/campaigns.md`` are made of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    SecretStr,
    StringConstraints,
    model_validator,
)

from appliance.api.hours import ON_HOLIDAYS, day_key, holiday, time_spans
from appliance.campaigns.regions import is_subdivision, subdivisions_of
from appliance.config.fields import Name, Region, WholeNumber
from appliance.config.trunks import one_or_many
from appliance.config.validation import ITEM, Section, fault, nearest, short_form

ON_MACHINE: Final = ("hang_up", "message", "talk")
RETRIED: Final = ("busy", "no_answer", "machine", "rejected", "failed", "interrupted")
"""Dispositions after which a lead may be called again."""
LEAD: Final = "lead."
"""Begins the name of a lead's variable in a text: ``${lead.name}``."""
MAX_REGIONS: Final = 500

_VARIABLE: Final = re.compile(r"\$\{\s*([^{}|]*?)\s*(?:\|[^{}]*)?\}")
_VARIABLE_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_OF_THE_CAMPAIGN: Final = ("campaign.owner", "campaign.name")


def _days(value: str) -> str:
    text = day_key(value)
    if text == ON_HOLIDAYS:
        raise fault("holidays are days without calls", "write days of the week: mon-fri")
    return text


def _hours(value: str) -> str:
    time_spans(value)
    for span in value.replace("\u2013", "-").split(","):
        first, _, last = (_minutes(part) for part in span.partition("-"))
        if last <= first:
            what = f"{span.strip()!r} goes past midnight"
            raise fault(what, "end it by 24:00: nobody is called over the middle of a night")
    return value


def _minutes(text: str) -> int:
    hour, _, minute = text.strip().partition(":")
    return int(hour or 0) * 60 + int(minute or 0) if hour.isdecimal() else 0


def _region_key(value: str) -> str:
    text = value.strip().upper()
    country, dash, part = text.partition("-")
    known = subdivisions_of(country)
    if dash and known and part not in known:
        raise fault(f"{country} has no part {part!r}", nearest(part, known))
    if not is_subdivision(text):
        raise fault(f"{value!r} is neither a country nor a part of one", "write US, or US-FL, as in ISO 3166")
    return text


def _variables(value: str) -> str:
    for name in _VARIABLE.findall(value):
        of_lead = name.startswith(LEAD) and _VARIABLE_NAME.fullmatch(name.removeprefix(LEAD))
        if not of_lead and name not in _OF_THE_CAMPAIGN:
            known = ", ".join(f"${{{one}}}" for one in _OF_THE_CAMPAIGN)
            raise fault(
                f"${{{name}}} stands for nothing", f"write ${{lead.NAME}} with the name of a column, or {known}"
            )
    return value


@short_form({"type": "string"})
def _secret_name(value: Any) -> Any:
    """``!secret NAME`` as NAME: the database keeps names of secrets, never secrets."""
    name = value.get_secret_value() if isinstance(value, SecretStr) else value
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_-]{0,64}", name):
        raise fault("is not the name of a secret", "write `!secret NAME`, and NAME in secrets.yaml")
    return name


def _key(value: str) -> str:
    if value and (len(value) != 1 or value not in "0123456789*#"):
        raise fault(f"{value!r} is not a telephone key", "write one of 0-9, * and #, or '' for none")
    return value


def _url(value: str) -> str:
    if value and not re.fullmatch(r"https?://[^\s/@]+(/\S*)?", value):
        raise fault(f"{value!r} is not an address", "write it as https://hooks.example.com/leads")
    return value


@short_form(ITEM)
def _windows(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


Days: TypeAlias = Annotated[str, AfterValidator(_days)]
Hours: TypeAlias = Annotated[tuple[Annotated[str, AfterValidator(_hours)], ...], BeforeValidator(one_or_many)]
Template: TypeAlias = Annotated[
    str, StringConstraints(max_length=2000, strip_whitespace=True), AfterValidator(_variables)
]


class CallingWindow(Section):
    """Days and hours in which somebody may be called, by the clock where the called party is."""

    days: Days = Field(default="mon-fri", description="Days of the week: `mon-fri`, `sat` or `mon, wed`.")
    hours: Hours = Field(
        default=("09:00-20:00",),
        min_length=1,
        description="From when to when: `09:00-20:00`, or a list. It ends by midnight.",
    )


WindowList: TypeAlias = Annotated[tuple[CallingWindow, ...], BeforeValidator(_windows), Field(max_length=20)]


class Windows(Section):
    """When the campaign calls. Outside of these nobody is called, whatever else holds."""

    default: WindowList = Field(
        default=(CallingWindow(),),
        description="Where no region below fits: `{days, hours}`, or a list of these; `[]` for never.",
    )
    regions: dict[Annotated[str, AfterValidator(_region_key)], WindowList] = Field(
        default={},
        max_length=MAX_REGIONS,
        description="Country (`FR`), or part of one (`US-FL`), to what holds there instead; the part comes first.",
    )


class Holidays(Section):
    """Days on which nobody is called."""

    country: Annotated[str, StringConstraints(pattern=r"^([A-Za-z]{2})?$")] = Field(
        default="", description="Country whose public holidays are kept, such as `US`; empty for none."
    )
    subdivision: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]{0,3}$")] = Field(
        default="", description="Part of it whose holidays are kept, too: `FL`."
    )
    days: Annotated[tuple[Annotated[str, AfterValidator(holiday)], ...], BeforeValidator(one_or_many)] = Field(
        default=(),
        max_length=200,
        description="Further calendars and days: `CA-QC`, `2026-12-24`, `12-24`, `2026-12-24..2027-01-02`.",
    )

    @model_validator(mode="after")
    def _is_a_calendar(self) -> Holidays:
        if self.subdivision and not self.country:
            raise fault("names a part and no country", "add country:")
        if self.country:
            holiday(self._calendar())
        return self

    def _calendar(self) -> str:
        return f"{self.country}-{self.subdivision}".upper().rstrip("-")

    @property
    def entries(self) -> tuple[str, ...]:
        """All of them, each as the dialplan's ``holidays`` takes it."""
        return (*((self._calendar(),) if self.country else ()), *self.days)


class Attempts(Section):
    """How often somebody is called. All but `per_lead` hold over all campaigns."""

    per_lead: int = Field(default=3, ge=1, le=50, description="Calls to one lead of this campaign.")
    per_number_per_day: int = Field(
        default=1, ge=1, le=50, description="Calls to one number in one day, as the day is there."
    )
    per_number_total: int = Field(default=7, ge=1, le=1000, description="Calls to one number ever.")
    gap_s: float = Field(
        default=14400, ge=1, le=31_536_000, description="Least time from one call of a number to the next, in seconds."
    )


class RetryRule(Section):
    """When a lead is called again that ended so."""

    after_s: float = Field(
        default=14400, ge=1, le=31_536_000, description="Least wait, in seconds; `attempts.gap_s` holds as well."
    )
    times: int = Field(default=1, ge=0, le=50, description="How often, for this reason; 0 for never.")
    backoff: float = Field(default=1.0, ge=1, le=10, description="Each further wait is so many times as long.")
    best_hour: bool = Field(
        default=False, description="Wait for an hour of the day in which more of the campaign's calls were answered."
    )


class Retry(Section):
    """What is tried again, by how the call ended. A lead that ended in any other way is done."""

    busy: RetryRule = Field(default=RetryRule(after_s=900, times=3), description="The line was engaged.")
    no_answer: RetryRule = Field(
        default=RetryRule(after_s=14400, times=2, best_hour=True), description="It rang and nobody answered."
    )
    machine: RetryRule = Field(
        default=RetryRule(after_s=14400, times=1, best_hour=True),
        description="A machine answered, no message was left.",
    )
    rejected: RetryRule = Field(
        default=RetryRule(after_s=86400, times=1), description="The call was declined, or blocked on its way."
    )
    failed: RetryRule = Field(
        default=RetryRule(after_s=1800, times=2, backoff=2.0), description="The network, or the box, could not do it."
    )
    interrupted: RetryRule = Field(
        default=RetryRule(after_s=14400, times=1), description="The box was stopped, or died, during the call."
    )

    def rule(self, disposition: str) -> RetryRule | None:
        """The rule for a disposition; None where it is final."""
        return getattr(self, disposition) if disposition in RETRIED else None


class Breaker(Section):
    """Stops calls by a trunk that fails, for a while; then one call tries whether it works again."""

    failures: int = Field(default=10, ge=1, le=1000, description="So many failed calls open it,")
    of_last: int = Field(default=20, ge=1, le=1000, description="of so many last calls by the trunk.")
    pause_s: float = Field(default=60, ge=1, le=86400, description="How long it stays open, in seconds.")

    @model_validator(mode="after")
    def _can_open(self) -> Breaker:
        if self.failures > self.of_last:
            what = f"failures {self.failures} is more than of_last {self.of_last}: it would never open"
            raise fault(what, f"set of_last to {self.failures} or more")
        return self


class Pacing(Section):
    """How fast it calls. The box's and the trunk's own limits hold as well."""

    max_calls: int = Field(default=10, ge=1, le=10_000, description="Calls at a time, on all boxes together.")
    calls_per_s: float = Field(
        default=1.0,
        gt=0,
        le=100,
        description="Calls begun per second, on all boxes together; never more in any second.",
    )
    ring_timeout_s: float = Field(default=30.0, ge=5, le=180, description="It rings so long at most, in seconds.")
    max_abandoned_percent: float = Field(
        default=3.0,
        ge=0,
        le=100,
        description="Of the calls answered by people, so many may go without an agent; beyond it the campaign slows, "
        "then stops.",
    )
    breaker: Breaker = Field(default=Breaker(), description="When a trunk that fails is left alone.")


class Consent(Section):
    """Whether people have agreed to be called."""

    required: bool = Field(
        default=True,
        description="Whether a lead without evidence (columns `consent_source`, `consent_text` and `consent_at`) is "
        "left out.",
    )


class AnsweringMachines(Section):
    """What follows when no person answers."""

    detect: bool = Field(default=True, description="Whether it listens for machines at all.")
    on_machine: Literal["hang_up", "message", "talk"] = Field(
        default="hang_up",
        description="hang_up: at once; message: say `message` after the beep; talk: as with a person.",
    )
    message: Template = Field(
        default="", description="What is left after the beep: text with `${lead.NAME}` and `${campaign.owner}`."
    )
    on_screening: Literal["answer", "hang_up"] = Field(
        default="answer",
        description="A telephone's assistant asks who calls. answer: tell it, and wait for the person.",
    )

    @model_validator(mode="after")
    def _has_something_to_say(self) -> AnsweringMachines:
        if self.on_machine == "message" and not self.message:
            raise fault("on_machine: message has no message", "add message: with the text to leave")
        if self.on_machine == "message" and not self.detect:
            raise fault("on_machine: message needs detect", "set detect: true")
        return self


class ResultWebhook(Section):
    """Where the result of every lead is sent, signed, until it has been taken."""

    url: Annotated[str, StringConstraints(max_length=2000, strip_whitespace=True), AfterValidator(_url)] = Field(
        default="", description="Where to, by POST; empty for nowhere."
    )
    secret: Annotated[str, PlainValidator(_secret_name)] = Field(
        default="", description="What it is signed with: `!secret NAME`. The campaign keeps the name, not the secret."
    )

    @model_validator(mode="after")
    def _is_signed(self) -> ResultWebhook:
        if self.url and not self.secret:
            raise fault("has no secret to sign with", "add secret: !secret NAME")
        return self


class DoNotCall(Section):
    """Who is not called by this campaign, beside the box's own list, which holds always."""

    lists: Annotated[
        tuple[Annotated[str, StringConstraints(min_length=1, max_length=500)], ...], BeforeValidator(one_or_many)
    ] = Field(
        default=(),
        max_length=100,
        description="Files of numbers, a line each or CSV with a column of numbers, relative to this one; imported "
        "when the campaign is created.",
    )


class Definition(Section):
    """A campaign: who calls, whom it may call when, how often and how fast."""

    name: Name = Field(description="Its name, unlike any other campaign's.")
    line: Annotated[str, StringConstraints(min_length=1, max_length=64)] = Field(
        description="The dialplan's line whose agent speaks."
    )
    trunk: Annotated[str, StringConstraints(max_length=64)] = Field(
        default="", description="The trunk that calls go by; empty: `routes` choose."
    )
    caller_ids: Annotated[tuple[WholeNumber, ...], BeforeValidator(one_or_many)] = Field(
        min_length=1,
        max_length=1000,
        description="Numbers shown to those called, in turn; each listed in `trunks.NAME.caller_ids`.",
        examples=['["+12025550100"]'],
    )
    owner: Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True)] = Field(
        description="On whose behalf it calls; said first in every call."
    )
    opt_out_key: Annotated[str, AfterValidator(_key)] = Field(
        default="9",
        description="Key that puts whoever presses it on the do-not-call list of all campaigns, at any time; empty for "
        "none. Words do it in any case.",
    )
    region: Region = Field(
        description="Country of the list's numbers that are written without a country code.", examples=["US"]
    )
    holidays: Holidays = Field(default=Holidays(), description="Days on which nobody is called.")
    windows: Windows = Field(default=Windows(), description="When people are called, by their own clocks.")
    attempts: Attempts = Field(default=Attempts(), description="How often somebody is called.")
    retry: Retry = Field(default=Retry(), description="What is tried again, and when.")
    pacing: Pacing = Field(default=Pacing(), description="How fast it calls.")
    consent: Consent = Field(default=Consent(), description="Whether people have agreed to be called.")
    answering_machines: AnsweringMachines = Field(
        default=AnsweringMachines(), description="What follows when no person answers."
    )
    webhook: ResultWebhook = Field(default=ResultWebhook(), description="Where results are sent.")
    dnc: DoNotCall = Field(default=DoNotCall(), description="Who is not called.")

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> Definition:
        """The definition of what :meth:`as_json` gave.

        Raises:
            pydantic.ValidationError: it was not.
        """
        return cls.model_validate(kept)

    def as_json(self) -> dict[str, Any]:
        """Plain data, defaults included: what is kept is what held when the campaign was created."""
        return self.model_dump(mode="json")

    def variables(self) -> Iterator[str]:
        """The names of the leads' variables that its own texts hold."""
        for name in _VARIABLE.findall(self.answering_machines.message):
            if name.startswith(LEAD):
                yield name.removeprefix(LEAD)
