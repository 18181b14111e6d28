"""The records of CSV and JSON Lines, read in bounded memory; :mod:`appliance.campaigns.lead_files` is the file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, TypeAlias

from appliance.errors import LeadFileError

MAX_FIELD: Final = 64 * 1024
"""Characters of one field."""
MAX_LINE: Final = 1024 * 1024
"""Characters of one record, all its lines together where quotes hold line breaks."""
MAX_COLUMNS: Final = 200

UNREADABLE: Final = "error_text"
"""Where a file of errors in JSON Lines has a line that is no object."""
ERROR_COLUMNS: Final = ("error_line", "error")
"""What a file of errors has beside the columns of the file it is about; ignored when that is read in its turn."""

Seen: TypeAlias = Callable[[int, int], None]
"""Told of progress: bytes read, bytes of the whole file."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it was written.

    Attributes:
        line: where it begins; lines count from 1.
        values: column to text; empty where there is a problem.
        problem: why it cannot be read; "" where it can.
        raw: its cells, or where it could not be read its text alone.
    """

    line: int
    values: dict[str, str]
    problem: str = ""
    raw: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a CSV file is written."""

    delimiter: str = ","
    quote: str = '"'


def refused(path: Path | str, what: str, hint: str = "", line: int = 0) -> LeadFileError:
    """The exception: ``file:line: what is wrong; what would be right``."""
    where = f"{path}:{line}" if line else str(path)
    return LeadFileError(f"{where}: {what}" + (f"; {hint}" if hint else ""))


class Lines:
    """Lines of bounded length, with their numbers, for :mod:`csv`; keeps those of the record that is being read.

    It closes the file when its ``with`` block is left.
    """

    def __init__(self, file: BinaryIO, encoding: str, path: Path, seen: Seen | None, size: int) -> None:
        self._file = file
        self._text = io.TextIOWrapper(file, encoding=encoding, newline="")
        self.path = path
        self._seen = seen
        self._size = size
        self._told = 0
        self._length = 0
        self._ended = True
        self.number = 0
        """Of the line that was given last."""
        self.begun_at = 1
        """The line on which the record that is being read began."""
        self.kept: list[str] = []
        """The lines of the record that is being read."""

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._text.close()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            line = self._text.readline(MAX_LINE + 1)
        except UnicodeError:
            raise refused(self.path, "is not text in its encoding", "save it as UTF-8", self.number + 1) from None
        if not line:
            raise StopIteration
        self.number += 1
        self._length += len(line)
        if not self.number % 1000:
            self._tell()
        if self._length > MAX_LINE:
            if len(self.kept) > 1:
                what = f"a quote that is opened here is not closed within {MAX_LINE // 1024} KiB"
                raise refused(self.path, what, "close it, or remove it", self.begun_at)
            what = f"a line is longer than {MAX_LINE // 1024} KiB"
            raise refused(self.path, what, "a lead needs no more; check that it is the right file", self.number)
        self._ended = line.endswith(("\n", "\r"))
        self.kept.append(line)
        return line

    def next_record(self) -> None:
        """What comes now belongs to another record."""
        self.begun_at = self.number + 1
        self._length = 0
        self.kept.clear()

    @property
    def raw(self) -> str:
        """The record that is being read, as it was written."""
        return "".join(self.kept).rstrip("\r\n")

    @property
    def ends_within_a_line(self) -> bool:
        """Whether the line given last had no end; at the end of a file that may mean that something is missing."""
        return not self._ended

    def _tell(self) -> None:
        if self._seen is None:
            return
        at = self._file.tell()
        if at != self._told:
            self._told = at
            self._seen(min(at, self._size), self._size)


# --- CSV ----------------------------------------------------------------------------------------------------------


def csv_rows(lines: Lines, dialect: Dialect) -> Iterator[tuple[int, list[str], str]]:
    """(line, cells, problem) of each row that is not blank; the file's ``lines`` are at that row while it is had.

    Raises:
        LeadFileError: a quote is never closed, or a field or line is too long.
    """
    reader = csv.reader(lines, delimiter=dialect.delimiter, quotechar=dialect.quote, strict=True)
    while True:
        lines.next_record()
        try:
            cells, problem = next(reader), ""
        except StopIteration:
            return
        except csv.Error as error:
            words = str(error)
            if "field larger" in words:
                what = f"a field is longer than {MAX_FIELD // 1024} KiB"
                raise refused(lines.path, what, "is a quote not closed?", lines.begun_at) from None
            if "unexpected end" in words:
                what = "the file breaks off: a quote that is opened here is never closed"
                raise refused(lines.path, what, "close it, or copy the whole file again", lines.begun_at) from None
            cells, problem = [lines.raw], "its quotes do not fit: after a closing quote stands something else"
        if any(len(cell) > MAX_FIELD for cell in cells):
            what = f"a field is longer than {MAX_FIELD // 1024} KiB"
            raise refused(lines.path, what, "is a quote not closed?", lines.begun_at)
        if not any(cell and not cell.isspace() for cell in cells):
            continue
        if lines.begun_at == 1 and cells[0].lower().lstrip("\ufeff").startswith("sep=") and len(lines.raw) <= 6:
            continue
        yield lines.begun_at, cells, problem


def csv_records(lines: Lines, dialect: Dialect, header: tuple[str, ...], headless: bool) -> Iterator[Record]:
    begun = headless
    width = len(header)
    for line, cells, unreadable in csv_rows(lines, dialect):
        if not begun:
            begun = True
            continue
        problem = unreadable or _misfit(cells, width, dialect)
        yield Record(line, {} if problem else dict(zip(header, cells, strict=False)), problem, tuple(cells))


def _misfit(cells: list[str], width: int, dialect: Dialect) -> str:
    """Why a row does not fit below the first one; "" where it does."""
    if len(cells) == width or (len(cells) > width and not any(cell.strip() for cell in cells[width:])):
        return ""
    what = f"has {len(cells)} columns, and the first row names {width}"
    return what if len(cells) < width else f"{what}; is a text with a {_spoken(dialect.delimiter)} not in quotes?"


def _spoken(delimiter: str) -> str:
    return {",": "comma", ";": "semicolon", "\t": "tab"}.get(delimiter, repr(delimiter))


# --- JSON Lines ---------------------------------------------------------------------------------------------------


def json_records(lines: Lines) -> Iterator[Record]:
    while True:
        lines.next_record()
        text = next(lines, None)
        if text is None:
            return
        plain = text.strip().lstrip("\ufeff")
        if plain:
            values, problem = _json_values(plain)
            yield Record(lines.number, values, problem, (plain,))


def _json_values(text: str) -> tuple[dict[str, str], str]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        where = f" at column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        return {}, f"is not JSON{where}"
    if not isinstance(found, dict):
        return {}, "is not a JSON object"
    values: dict[str, str] = {}
    for key, value in _flat(found.items()):
        text_of = _plain(value)
        if text_of is None:
            return {}, f"{key[:60]!r} holds a list or an object"
        if len(text_of) > MAX_FIELD:
            return {}, f"{key[:60]!r} is longer than {MAX_FIELD // 1024} KiB"
        values[key[:200]] = text_of
    return values, ""


def _flat(items: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """``consent: {source: web}`` as ``consent_source``, and what ``variables`` holds beside the rest."""
    for key, value in items:
        if key == "consent" and isinstance(value, dict):
            yield from ((f"consent_{name}", inner) for name, inner in value.items())
        elif key == "variables" and isinstance(value, dict):
            yield from value.items()
        else:
            yield key, value


def _plain(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else None
