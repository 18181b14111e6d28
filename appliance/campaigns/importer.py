"""Importing a list of leads into a campaign: every row becomes a lead, or is told with what is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

from appliance.campaigns.columns import Columns
from appliance.campaigns.definition import Definition
from appliance.campaigns.error_files import ErrorFile
from appliance.campaigns.lead_files import LeadFile
from appliance.campaigns.lead_lines import Record
from appliance.campaigns.lead_rows import RowError, RowReader
from appliance.store.campaign_rows import NewLead
from appliance.store.campaigns import CampaignStore

BATCH: Final = 1000
"""Leads that are written in one transaction."""
_EXAMPLES: Final = 3

Progress: TypeAlias = Callable[[int, int], None]
"""Told how many rows are done, and how many there are."""


class LeadTable(Protocol):
    """Where leads are kept: the store, for one campaign."""

    async def listed(self, numbers: Sequence[str]) -> Collection[str]:
        """Those of ``numbers`` that are on a do-not-call list."""
        ...

    async def known(self, numbers: Sequence[str]) -> Collection[str]:
        """Those of ``numbers`` that are in the campaign already."""
        ...

    async def insert(self, leads: Sequence[NewLead]) -> int:
        """Keep them, in one transaction, but for those whose number is in the campaign already; how many were new."""
        ...


@dataclass
class ImportReport:
    """What has come of a file.

    Attributes:
        rows: rows that were read.
        imported: rows that are leads now; of a dry run, that would be.
        already: rows whose number was in the campaign before.
        wrong: rows that did not become leads, by kind.
        examples: of each kind, a few of the messages, each with its line.
        unmapped: variables that texts of the campaign, or of its line, want and no column gives.
        error_file: where the wrong rows are; None where there are none, or nothing was to be written.
        dry_run: whether nothing was kept.
    """

    rows: int = 0
    imported: int = 0
    already: int = 0
    wrong: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    unmapped: tuple[str, ...] = ()
    error_file: Path | None = None
    dry_run: bool = False

    @property
    def errors(self) -> int:
        return self.wrong.total()

    def as_json(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "imported": self.imported,
            "already": self.already,
            "errors": self.errors,
            "errors_by_kind": dict(self.wrong.most_common()),
            "examples": self.examples,
            "unmapped": list(self.unmapped),
            "error_file": str(self.error_file) if self.error_file else None,
            "dry_run": self.dry_run,
        }


class CampaignLeads:
    """The leads of a campaign of the store, as an import writes them."""

    def __init__(self, store: CampaignStore, campaign_id: str) -> None:
        self._store = store
        self._id = campaign_id
        self._added = 0
        self._count_at = 1

    async def listed(self, numbers: Sequence[str]) -> Collection[str]:
        return await self._store.on_lists(self._id, numbers)

    async def known(self, numbers: Sequence[str]) -> Collection[str]:
        return await self._store.known_numbers(self._id, numbers)

    async def insert(self, leads: Sequence[NewLead]) -> int:
        added, _ = await self._store.insert_leads(self._id, leads)
        self._added += added
        if self._added >= self._count_at:
            await self._store.count_leads_anew()
            self._count_at = 4 * self._added
        return added


async def import_leads(
    file: LeadFile,
    columns: Columns,
    definition: Definition,
    table: LeadTable | None,
    *,
    now: datetime,
    wanted: Collection[str] = (),
    dry_run: bool = False,
    error_folder: Path | None = None,
    progress: Progress | None = None,
) -> ImportReport:
    """Read ``file`` into ``table``.

    Importing the same file again changes nothing: a number is in a campaign once. A file that cannot be read to its
    end was refused before (:func:`appliance.campaigns.lead_files.examine`), so none is taken in half.

    Args:
        file: as it was looked at.
        columns: what its columns mean.
        definition: of the campaign.
        table: where to; None, for a dry run, asks nobody whether a number is known or listed.
        now: aware.
        wanted: variables that the line's texts want; those that no column gives are reported.
        dry_run: keep nothing.
        error_folder: where the wrong rows are written; None for the folder of the file.
        progress: told of it.

    Raises:
        LeadFileError: the file has changed meanwhile, or the file of errors cannot be written.
        StoreError: leads cannot be kept. Those of the batches before it are.
    """
    work = _Import(file, columns, definition, table, now, dry_run)
    texts = dict.fromkeys((*definition.variables(), *wanted))
    work.report.unmapped = tuple(name for name in texts if name not in columns.variables)
    with ErrorFile(file, error_folder) as errors:
        for record in file.records():
            work.take(record, errors)
            if len(work.batch) >= BATCH:
                await work.flush(errors)
            if progress is not None and not work.report.rows % 500:
                progress(work.report.rows, file.rows)
        await work.flush(errors)
        work.report.error_file = errors.path
    if progress is not None:
        progress(work.report.rows, file.rows)
    return work.report


class _Import:
    def __init__(
        self,
        file: LeadFile,
        columns: Columns,
        definition: Definition,
        table: LeadTable | None,
        now: datetime,
        dry_run: bool,
    ) -> None:
        self.report = ImportReport(dry_run=dry_run)
        self.batch: list[tuple[Record, NewLead]] = []
        self._reader = RowReader(columns, definition.region, consent_required=definition.consent.required, now=now)
        self._table = table
        self._seen: dict[int, int] = {}
        """Number to the line that had it first."""

    def take(self, record: Record, errors: ErrorFile) -> None:
        """Read one row; what is right of it waits in the batch."""
        self.report.rows += 1
        if record.problem:
            self._wrong(errors, record, "columns", record.problem)
            return
        try:
            lead = self._reader.lead(record.line, record.values)
        except RowError as error:
            self._wrong(errors, record, error.kind, str(error))
            return
        first = self._seen.setdefault(int(lead.number), record.line)
        if first != record.line:
            self._wrong(errors, record, "duplicate", f"{lead.number} is also on line {first}, which is kept")
            return
        self.batch.append((record, lead))

    async def flush(self, errors: ErrorFile) -> None:
        """Keep what waits."""
        batch, self.batch = self.batch, []
        if not batch:
            return
        if self._table is None:
            self.report.imported += len(batch)
            return
        listed = await self._table.listed([lead.number for _, lead in batch])
        free: list[NewLead] = []
        for record, lead in batch:
            if lead.number in listed:
                self._wrong(errors, record, "do_not_call", f"{lead.number} is on a do-not-call list")
            else:
                free.append(lead)
        if self.report.dry_run:
            new = len(free) - len(await self._table.known([lead.number for lead in free]))
        else:
            new = await self._table.insert(free) if free else 0
        self.report.imported += new
        self.report.already += len(free) - new

    def _wrong(self, errors: ErrorFile, record: Record, kind: str, why: str) -> None:
        self.report.wrong[kind] += 1
        examples = self.report.examples.setdefault(kind, [])
        if len(examples) < _EXAMPLES:
            examples.append(f"line {record.line}: {why}")
        errors.write(record, why)
