"""Look-up tables: CSV files in memory, found by one column. Text comes in, rows come out. PURE."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import phonenumbers

from appliance.plugins.declarative.schema import Table

MAX_BYTES: Final = 8 * 1024 * 1024
MAX_ROWS: Final = 50_000
MAX_COLUMNS: Final = 100
MAX_CELL: Final = 2000
_SHOWN_MISTAKES: Final = 20


@dataclass(frozen=True)
class Rows:
    """The rows of a table by their normalised key; each holds the allowed columns only."""

    found: dict[str, tuple[dict[str, str], ...]]
    count: int

    def look_up(self, table: Table, key: str) -> dict[str, Any]:
        """What the model is told of ``key``."""
        rows = self.found.get(normalised(table, key), ()) if key.strip() else ()
        if not rows:
            return {"found": 0, "rows": []}
        return {"found": len(rows), "rows": list(rows[: table.max_rows])}


@dataclass(frozen=True)
class CsvMistake:
    """Something wrong in a file; lines count from 1."""

    line: int
    what: str
    hint: str


def read(table: Table, text: str) -> tuple[Rows | None, list[CsvMistake]]:
    """The rows of a file, or what is wrong with it."""
    mistakes: list[CsvMistake] = []
    reader = csv.reader(text.splitlines(keepends=True), strict=True, delimiter=_delimiter(text))
    lines = _lines(reader, mistakes)
    header = next(lines, None)
    if header is None:
        return None, mistakes or [CsvMistake(1, "is empty", "its first row names the columns")]
    names = [name.strip() for name in header[1]]
    for name in (table.key, *table.columns):
        if name not in names:
            shown = ", ".join(filter(None, names))[:200]
            mistakes.append(CsvMistake(header[0], f"has no column {name!r}", f"its columns are: {shown}"))
    double = {name for name in names if name and names.count(name) > 1}
    mistakes += [CsvMistake(header[0], f"has column {name!r} twice", "rename one") for name in sorted(double)]
    if len(names) > MAX_COLUMNS:
        mistakes.append(CsvMistake(header[0], f"has more than {MAX_COLUMNS} columns", "leave some out"))
    if mistakes:
        return None, mistakes
    key, kept = names.index(table.key), [(name, names.index(name)) for name in table.columns]
    found: dict[str, list[dict[str, str]]] = {}
    count = 0
    for line, cells in lines:
        if not any(cells):
            continue
        count += 1
        if count > MAX_ROWS:
            mistakes.append(
                CsvMistake(line, f"has more than {MAX_ROWS} rows", "keep them in a database, behind a tool")
            )
            break
        if len(cells) != len(names):
            hint = "put cells that hold a comma in double quotes"
            mistakes.append(CsvMistake(line, f"has {len(cells)} cells, not {len(names)}", hint))
        elif not (at := normalised(table, cells[key])):
            wanted = {"number": "a number", "phone": "a telephone number"}.get(table.match, "text")
            mistakes.append(CsvMistake(line, f"{table.key} is {cells[key][:40]!r}, not {wanted}", "correct the cell"))
        else:
            found.setdefault(at, []).append({name: cells[index].strip()[:MAX_CELL] for name, index in kept})
        if len(mistakes) >= _SHOWN_MISTAKES:
            break
    if mistakes:
        return None, mistakes
    return Rows({at: tuple(rows) for at, rows in found.items()}, count), []


def _lines(reader: Any, mistakes: list[CsvMistake]) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of every row, until the file is no CSV."""
    while True:
        line = reader.line_num + 1
        try:
            yield line, next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            mistakes.append(CsvMistake(line, f"is not CSV: {error}", "check the quotes"))
            return


def _delimiter(text: str) -> str:
    """Comma, or the semicolon that spreadsheets use where the comma is for decimals."""
    first = text.split("\n", 1)[0]
    return ";" if first.count(";") > first.count(",") else ","


def normalised(table: Table, key: str) -> str:
    """A key as it is compared; "" where it is none."""
    if table.match == "number":
        return _number(key)
    return _phone(key, table.region) if table.match == "phone" else _text(key)


def _text(key: str) -> str:
    plain = unicodedata.normalize("NFKD", key).casefold()
    return "".join(_letters(plain))


def _letters(text: str) -> Iterable[str]:
    return (char for char in text if char.isalnum())


def _number(key: str) -> str:
    plain = re.sub(r"[\s']", "", unicodedata.normalize("NFKC", key))
    if re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?", plain):
        plain = plain.replace(",", "")
    plain = plain.replace(",", ".") if plain.count(",") == 1 and "." not in plain else plain
    try:
        value = Decimal(plain) if len(plain) <= 40 and re.fullmatch(r"[+-]?\d+(\.\d+)?", plain) else None
    except InvalidOperation:
        return ""
    return "" if value is None else format(value.normalize(), "f")


def _phone(key: str, region: str | None) -> str:
    try:
        number = phonenumbers.parse(key[:40], region)
    except phonenumbers.NumberParseException:
        digits = re.sub(r"[\s()./-]", "", key)
        return digits if re.fullmatch(r"\+?\d{2,20}", digits) else ""
    return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))
