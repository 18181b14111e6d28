"""Files of numbers that are not to be called."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import phonenumbers

from appliance.campaigns.columns import NUMBER, columns_of
from appliance.campaigns.lead_files import examine
from appliance.campaigns.lead_rows import RowError, parsed_number
from appliance.errors import LeadFileError
from appliance.store.campaigns import BATCH, CampaignStore

_EXAMPLES: Final = 5


@dataclass
class ListReport:
    """What has come of a file of numbers.

    Attributes:
        rows: how many it has.
        added: numbers that are new on the list.
        wrong: rows that hold no number.
        examples: a few of these, each with its line.
    """

    rows: int = 0
    added: int = 0
    wrong: int = 0
    examples: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {"rows": self.rows, "added": self.added, "errors": self.wrong, "examples": self.examples}


async def import_numbers(
    path: Path, region: str, store: CampaignStore, *, source: str = "", campaign_id: str = "", encoding: str = ""
) -> ListReport:
    """Put the numbers of a file on a do-not-call list.

    Args:
        path: a number a line, or CSV or JSON Lines with a column of numbers.
        region: the country of numbers that have no country code.
        store: holds the list.
        source: whence, for the list; "" for the file's name.
        campaign_id: whose list; "" for that of all campaigns.
        encoding: as the operator promises it; "" finds it out.

    Raises:
        LeadFileError: it cannot be read, or holds not one number.
        StoreError: the list cannot be written.
    """
    report = ListReport()
    batch: list[str] = []
    whence = source or path.name
    for number in _numbers(path, region, encoding, report):
        batch.append(number)
        if len(batch) == BATCH:
            report.added += await store.refuse(batch, source=whence, campaign_id=campaign_id)
            batch.clear()
    report.added += await store.refuse(batch, source=whence, campaign_id=campaign_id)
    if report.rows and report.rows == report.wrong:
        raise LeadFileError(f"{path}: holds not one telephone number; {report.examples[0]}")
    return report


def whole_number(written: str, region: str) -> str:
    """A number as a list has it: E.164.

    Raises:
        RowError: it is none.
    """
    number = parsed_number(written, region, barred=False)
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def _numbers(path: Path, region: str, encoding: str, report: ListReport) -> Iterator[str]:
    file = examine(path, encoding=encoding, region=region, headless=True)
    column = columns_of(file.header).of[NUMBER] if len(file.header) > 1 else file.header[0]
    for record in file.records():
        report.rows += 1
        try:
            if record.problem:
                raise RowError("columns", record.problem)
            yield whole_number(record.values.get(column, ""), region)
        except RowError as error:
            report.wrong += 1
            if len(report.examples) < _EXAMPLES:
                report.examples.append(f"line {record.line}: {error}")
