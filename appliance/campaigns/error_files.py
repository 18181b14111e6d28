"""The rows of a list that did not become leads, in a file that can be mended and imported again."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Final, TextIO

from appliance.campaigns.lead_files import LeadFile
from appliance.campaigns.lead_lines import ERROR_COLUMNS, UNREADABLE, Record
from appliance.errors import LeadFileError

_MOST_FILES: Final = 1000


class ErrorFile:
    """``FILE.errors.csv`` beside ``FILE.csv``; of JSON Lines ``FILE.errors.jsonl``. An older one is never overwritten.

    It is made when the first row is written, and is whole, or not there at all, once the ``with`` block is left.

    Args:
        file: what the rows are of.
        folder: where to write; None for that of the file.
    """

    def __init__(self, file: LeadFile, folder: Path | None = None) -> None:
        self._file = file
        self._folder = folder or file.path.parent
        self._open: TextIO | None = None
        self._path: Path | None = None
        self.rows = 0

    @property
    def path(self) -> Path | None:
        """Where it is; None while nothing was written."""
        return self._path

    def __enter__(self) -> ErrorFile:
        """
        Raises:
            LeadFileError: nothing could be written there; better known before the first row than after thousands.
        """
        if not self._folder.is_dir() or not os.access(self._folder, os.W_OK):
            hint = "name another folder with --errors-in"
            raise LeadFileError(
                f"rows that are wrong cannot be written to {self._folder}: no folder to write to; {hint}"
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open is not None:
            self._open.close()

    def write(self, record: Record, problem: str) -> None:
        """Add a row.

        Raises:
            LeadFileError: the file cannot be written.
        """
        try:
            if self._open is None:
                self._open = self._made()
                if self._file.format == "csv":
                    self._write_row(self._open, [*self._columns(), *ERROR_COLUMNS])
            if self._file.format == "csv":
                self._write_row(self._open, self._cells(record, problem))
            else:
                self._open.write(self._object(record, problem) + "\n")
        except OSError as error:
            words = (error.strerror or str(error)).lower()
            raise LeadFileError(f"the rows with errors cannot be written to {self._folder}: {words}") from error
        self.rows += 1

    def _made(self) -> TextIO:
        suffix = "csv" if self._file.format == "csv" else "jsonl"
        stem = self._file.path.stem
        for number in range(1, _MOST_FILES):
            copy = f"-{number}" if number > 1 else ""
            path = self._folder / f"{stem}.errors{copy}.{suffix}"
            try:
                # With the mark, so that spreadsheets read it as UTF-8.
                opened = path.open(
                    "x", encoding="utf-8-sig" if suffix == "csv" else "utf-8", errors="backslashreplace", newline=""
                )
            except FileExistsError:
                continue
            self._path = path
            return opened
        raise LeadFileError(f"{self._folder} holds {_MOST_FILES} files of errors of {stem}; remove old ones")

    def _write_row(self, opened: TextIO, cells: list[str]) -> None:
        csv.writer(opened, delimiter=self._file.dialect.delimiter, lineterminator="\r\n").writerow(cells)

    def _columns(self) -> list[str]:
        return [name for name in self._file.header if name not in ERROR_COLUMNS]

    def _cells(self, record: Record, problem: str) -> list[str]:
        if record.values:
            cells = [record.values.get(name, "") for name in self._columns()]
        else:
            width = len(self._columns())
            cells = [*record.raw[: width - 1], self._file.dialect.delimiter.join(record.raw[width - 1 :])]
            cells += [""] * (width - len(cells))
        return [*cells, str(record.line), problem]

    def _object(self, record: Record, problem: str) -> str:
        about = dict(zip(ERROR_COLUMNS, (record.line, problem), strict=True))
        if not record.values:
            return json.dumps({UNREADABLE: "".join(record.raw)} | about)
        values = {name: value for name, value in record.values.items() if name not in ERROR_COLUMNS}
        return json.dumps(values | about, ensure_ascii=False)
