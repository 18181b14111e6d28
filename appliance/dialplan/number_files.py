"""Files of numbers that dialplans name (``calling: {file: vip.csv}``): each read once, every mistake at its line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from appliance.config.load import display_name
from appliance.config.marks import Document
from appliance.config.marks import Path as KeyPath
from appliance.config.validation import locate, look_up, nearest
from appliance.dialplan.match import NumbersFrom
from appliance.dialplan.matcher import ListKey
from appliance.dialplan.numbers import NumberSet, plain_number
from appliance.dialplan.schema import Line
from appliance.errors import Mistake

MAX_BYTES: Final = 16_000_000
MAX_NUMBERS: Final = 500_000
_MAX_MISTAKES: Final = 20
_LONGEST: Final = 256


@dataclass
class NumberFiles:
    """The files that the lines of one dialplan name.

    Attributes:
        found: the numbers, by (name of the line, file, column).
        paths: the files, for whoever watches them.
    """

    found: dict[ListKey, NumberSet] = field(default_factory=dict)
    _read: dict[tuple[Path, str], NumberSet | None] = field(default_factory=dict)

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(path for path, _ in self._read))

    def add(self, line: Line, document: Document, root: KeyPath) -> list[Mistake]:
        """Read what ``line``, which stands at ``root`` of ``document``, names; what is wrong with it."""
        mistakes: list[Mistake] = []
        for key, named in _named(line):
            written = (*root, *locate(look_up(document.data, root), (*key, "file")))
            path = Path(document.origin(written)[0]).parent / Path(named.file).expanduser()
            if (path, named.column) not in self._read:
                numbers, wrong = _numbers(path, named.column, document, written)
                self._read[path, named.column] = numbers
                mistakes += wrong
            numbers = self._read[path, named.column]
            if numbers is not None:
                self.found[line.name, named.file, named.column] = numbers
        return mistakes


def _named(line: Line) -> Iterator[tuple[KeyPath, NumbersFrom]]:
    match = line.match
    places: list[tuple[KeyPath, tuple[object, ...] | None]] = [
        (("match", "called"), match.called),
        (("match", "calling"), match.calling),
        (("match", "diverted"), match.diverted),
        *((("match", "headers", name), patterns) for name, patterns in match.headers.items()),
    ]
    for key, patterns in places:
        for index, pattern in enumerate(patterns or ()):
            if isinstance(pattern, NumbersFrom):
                yield (*key, index), pattern


def _numbers(path: Path, column: str, document: Document, written: KeyPath) -> tuple[NumberSet | None, list[Mistake]]:
    """The numbers in a file; None where it could not be read."""
    name = display_name(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        problem = (error.strerror or "unreadable").lower()
        hint = f"its path is from the folder {display_name(path.parent)}"
        return None, [document.mistake(written, f"{name} cannot be read: {problem}", hint)]
    if len(data) > MAX_BYTES:
        return None, [document.mistake(written, f"{name} is larger than {MAX_BYTES} bytes", "split it")]
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return None, [Mistake(name, line, "file", "is not UTF-8 text", "save it as UTF-8")]
    mistakes: list[Mistake] = []
    rows = _rows(text, column, name, mistakes) if path.suffix.lower() == ".csv" else _plain_rows(text)
    numbers = []
    for line, entry in rows:
        if what := _wrong(entry):
            mistakes.append(Mistake(name, line, column or "number", f"{entry[:60]!r} {what}", "write it as +49301234"))
        numbers.append(entry)
        if len(numbers) > MAX_NUMBERS:
            mistakes.append(Mistake(name, line, "file", f"holds more than {MAX_NUMBERS} numbers", "split it"))
            break
        if len(mistakes) >= _MAX_MISTAKES:
            mistakes.append(
                Mistake(name, line, "file", "is not read further: too much is wrong", "is it the right one?")
            )
            break
    return NumberSet(numbers), mistakes


def _wrong(entry: str) -> str:
    plain = plain_number(entry)
    if "*" in plain[:-1]:
        return "has a star that is not at its end"
    if len(plain) > _LONGEST:
        return "is too long"
    if any(char.isspace() or char in ',;"' or not char.isprintable() for char in plain):
        return "is not a number"
    return ""


def _plain_rows(text: str) -> Iterator[tuple[int, str]]:
    for number, row in enumerate(text.split("\n"), 1):
        entry = row.partition("#")[0].strip() if not row.startswith("#") else ""
        if entry:
            yield number, entry


def _rows(text: str, column: str, name: str, mistakes: list[Mistake]) -> Iterator[tuple[int, str]]:
    """The cells of the column that are not empty, with their line."""
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        heading = [cell.strip() for cell in next(reader, [])]
        if column and column not in heading:
            mistakes.append(Mistake(name, 1, "heading", f"there is no column {column!r}", nearest(column, heading)))
            return
        if heading and plain_number(heading[0]).strip("+*").isdecimal():
            hint = "begin the file with a row such as `number,name`, or name it *.txt"
            mistakes.append(Mistake(name, 1, "heading", "the first row is not a heading", hint))
            return
        at = heading.index(column) if column else 0
        for row in reader:
            entry = row[at].strip() if at < len(row) else ""
            if entry:
                yield reader.line_num, entry
    except csv.Error as error:
        mistakes.append(Mistake(name, reader.line_num, "file", f"is not CSV: {error}", "check its quotes"))
