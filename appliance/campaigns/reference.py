"""The tables of ``docs/campaigns.md``: ``python -m appliance.campaigns.reference`` writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import BaseModel

from appliance.campaigns.columns import NUMBER, TARGETS
from appliance.campaigns.definition import (
    AnsweringMachines,
    Attempts,
    Breaker,
    CallingWindow,
    Consent,
    Definition,
    DoNotCall,
    Holidays,
    Pacing,
    ResultWebhook,
    Retry,
    RetryRule,
    Windows,
)
from appliance.config.reference import with_keys

TARGET: Final = Path(__file__).parents[2] / "docs" / "campaigns.md"

_BEGIN: Final = (
    "<!-- Keys: made by `python -m appliance.campaigns.reference`; edit appliance/campaigns/definition.py. -->"
)
_MEANINGS: Final = {
    NUMBER: "the telephone number; needed",
    "reference": "your own name for the lead: a customer's number, say",
    "country": "where the lead is, as `US` or `United States`; also the country of a number without a country code",
    "state": "part of the country, as `FL` or `Florida`: its time zones, and its own `windows`",
    "postcode": "of the United States: tells the state where there is no column for it",
    "zone": "the lead's time zone, such as `America/New_York`",
    "consent_source": "where consent was given: `web form`",
    "consent_text": "what was agreed to, word for word",
    "consent_at": "when, as `2026-03-01T14:30:00+01:00`; without an offset it is UTC",
}
SECTIONS: Final[tuple[tuple[str, type[BaseModel]], ...]] = (
    ("A campaign", Definition),
    ("`windows`", Windows),
    ("One of `windows.default`, or of a region", CallingWindow),
    ("`holidays`", Holidays),
    ("`attempts`", Attempts),
    ("`retry`", Retry),
    ("One of `retry`", RetryRule),
    ("`pacing`", Pacing),
    ("`pacing.breaker`", Breaker),
    ("`consent`", Consent),
    ("`answering_machines`", AnsweringMachines),
    ("`webhook`", ResultWebhook),
    ("`dnc`", DoNotCall),
)


def columns_table() -> str:
    """What columns can mean."""
    rows = ["| meaning | what it holds |", "| --- | --- |"]
    return "\n".join(rows + [f"| `{target}` | {_MEANINGS[target]} |" for target in TARGETS])


def updated(page: str) -> str:
    """``page`` with its tables made anew."""
    begin, end = "<!-- columns -->", "<!-- end of columns -->"
    before, _, rest = page.partition(begin)
    page = f"{before}{begin}\n\n{columns_table()}\n\n{end}{rest.partition(end)[2]}"
    return with_keys(page, _BEGIN, SECTIONS)


if __name__ == "__main__":
    TARGET.write_text(updated(TARGET.read_text(encoding="utf-8")), encoding="utf-8")
