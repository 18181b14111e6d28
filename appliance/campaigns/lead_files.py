"""Reading a file of leads, CSV or JSON Lines, in bounded memory, whatever the file holds.

A file is read twice. The first time the whole of it is looked at as a file: its encoding, the lengths of its lines and
fields, whether its quotes are closed and whether it breaks off. What is wrong there refuses the file before any of it
has been taken. The second time its records are given one by one; what is wrong with one of them is that one's problem.
"""

from __future__ import annotations

import codecs
import csv
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, Literal, TypeAlias

from appliance.campaigns.lead_lines import (
    ERROR_COLUMNS,
    MAX_COLUMNS,
    Dialect,
    Lines,
    Record,
    Seen,
    csv_records,
    csv_rows,
    json_records,
    refused,
)

MAX_ROWS: Final = 1_000_000
MAX_BYTES: Final = 4 * 1024**3

Format: TypeAlias = Literal["csv", "jsonl"]
_CHUNK: Final = 256 * 1024
_SAMPLE: Final = 64 * 1024
_SURELY_UTF8: Final = 3
"""So many characters that are not ASCII, and are right as UTF-8, are no accident."""
_DELIMITERS: Final = ",;\t|"
_BOMS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_MAGIC: Final = (
    (b"\x1f\x8b", "is compressed (gzip)", "unpack it first: gunzip FILE"),
    (b"PK\x03\x04", "is a ZIP archive or a spreadsheet (.xlsx)", "save the sheet as CSV"),
    (b"\xd0\xcf\x11\xe0", "is a spreadsheet (.xls)", "save the sheet as CSV"),
    (b"BZh", "is compressed (bzip2)", "unpack it first: bunzip2 FILE"),
    (b"\xfd7zXZ", "is compressed (xz)", "unpack it first: unxz FILE"),
    (b"\x28\xb5\x2f\xfd", "is compressed (zstd)", "unpack it first: unzstd FILE"),
    (b"%PDF", "is a PDF", "save the list as CSV"),
    (b"SQLite format 3", "is a database", "export its table as CSV"),
)
_LEGACY: Final = [
    "cp1252",
    "cp1250",
    "cp1251",
    "cp1253",
    "cp1254",
    "cp1257",
    "iso8859_2",
    "iso8859_15",
    "koi8_r",
    "mac_roman",
    "cp850",
    "shift_jis",
    "euc_jp",
    "gb18030",
    "big5",
    "euc_kr",
]
"""What lists are written in that are not UTF-8, as far as they can be told apart."""
_USUAL: Final = {
    "cp1250": "BA CZ HR HU PL RO SI SK".split(),  # noqa: SIM905 - as one reads it
    "cp1251": "BG BY KZ MK RS RU UA".split(),  # noqa: SIM905
    "cp1253": ["GR"],
    "cp1254": ["TR"],
    "cp1257": ["EE", "LT", "LV"],
    "shift_jis": ["JP"],
    "gb18030": ["CN"],
    "big5": ["HK", "TW"],
    "euc_kr": ["KR"],
}
"""What they are most likely written in, by country; cp1252 elsewhere. By itself, a short list does not tell."""


@dataclass(frozen=True)
class LeadFile:
    """A file that has been looked at and can be read.

    Attributes:
        path: where it is.
        format: CSV or JSON Lines.
        encoding: Python's name of it.
        guessed: whether the encoding is a guess.
        dialect: of CSV.
        header: the columns in order; of JSON Lines the keys that were seen.
        rows: how many records there are, header not included.
        size: bytes.
        notes: what an operator should know about how it is read.
        headless: whether its first row is a record.
    """

    path: Path
    format: Format
    encoding: str
    guessed: bool
    dialect: Dialect
    header: tuple[str, ...]
    rows: int
    size: int
    notes: tuple[str, ...] = field(default=())
    headless: bool = False

    def records(self, seen: Seen | None = None) -> Iterator[Record]:
        """Every record in order.

        Raises:
            LeadFileError: the file has changed since, and is refused.
        """
        with Lines(_opened(self.path), self.encoding, self.path, seen, self.size) as lines:
            if self.format == "jsonl":
                yield from json_records(lines)
            else:
                yield from csv_records(lines, self.dialect, self.header, self.headless)


def examine(
    path: Path,
    *,
    encoding: str = "",
    region: str = "",
    delimiter: str = "",
    format: Format | None = None,  # noqa: A002 - what it is called on the command line
    headless: bool = False,
    seen: Seen | None = None,
) -> LeadFile:
    """Look at the whole of a file.

    Args:
        path: of a regular file.
        encoding: as the operator promises it; "" finds it out.
        region: the country it comes from, which tells something of the encoding; "" where nobody knows.
        delimiter: between the fields of CSV; "" finds it out.
        format: None finds it out.
        headless: whether the first row may be a record already; its first column is then called ``number``.
        seen: told of progress.

    Raises:
        LeadFileError: it cannot be read as a list of leads; the message says why, where, and what would be right.
    """
    size = _size(path)
    with _opened(path) as file:
        head = file.read(_SAMPLE)
        _refuse_other_kinds(path, head)
        named, guessed = _encoding(path, file, head, encoding, region)
        text = _beginning(path, head, named)
        chosen = format or _format(path, text)
        notes = [f"it is not UTF-8, and is read as {named}; --encoding names another"] if guessed else []
    with Lines(_opened(path), named, path, seen, size) as lines:
        if chosen == "jsonl":
            if text.lstrip("\ufeff \t\r\n").startswith("["):
                hint = "write one object per line (JSON Lines), without brackets and commas around them"
                raise refused(path, "is one JSON array", hint)
            return _looked_at_json(path, named, guessed, lines, size, notes)
        dialect = _dialect(path, text, delimiter)
        return _looked_at_csv(path, named, guessed, dialect, lines, size, notes, headless)


# --- the file -----------------------------------------------------------------------------------------------------


def _size(path: Path) -> int:
    try:
        found = path.stat()
    except OSError as error:
        raise refused(path, f"cannot be read: {(error.strerror or 'unreadable').lower()}", "check its path") from None
    if stat.S_ISDIR(found.st_mode):
        raise refused(path, "is a folder", "name a file in it")
    if not stat.S_ISREG(found.st_mode):
        raise refused(path, "is no file on a disk", "write what it gives to a file first")
    if not found.st_size:
        raise refused(path, "is empty", "it has to begin with a row that names the columns")
    if found.st_size > MAX_BYTES:
        raise refused(path, f"is larger than {MAX_BYTES // 1024**3} GiB", "split it")
    return found.st_size


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        what = f"cannot be read: {(error.strerror or 'unreadable').lower()}"
        raise refused(path, what, "check its permissions") from None


def _refuse_other_kinds(path: Path, head: bytes) -> None:
    for magic, what, hint in _MAGIC:
        if head.startswith(magic):
            raise refused(path, what, hint)


def _encoding(path: Path, file: BinaryIO, head: bytes, promised: str, region: str) -> tuple[str, bool]:
    """The encoding of the whole file, and whether it is a guess."""
    if promised:
        name = _known(path, promised)
        _check_all(path, file, name, f"is not {promised}, as was promised")
        return name, False
    for mark, name in _BOMS:
        if head.startswith(mark):
            _check_all(path, file, name, f"begins as {name.removesuffix('-sig').upper()}, and is not")
            return name, False
    if head.count(0) * 8 > len(head):
        hint = "save it as UTF-8, or name its encoding: --encoding utf-16-le"
        raise refused(path, "looks like UTF-16 without its mark, or is no text", hint)
    sample = _not_utf8(path, file)
    if not sample:
        return "utf-8", False
    from charset_normalizer import from_bytes  # few lists need it, and control never does

    usual = next((name for name, countries in _USUAL.items() if region in countries), "cp1252")
    found = from_bytes(sample, cp_isolation=[usual], threshold=0.1, enable_fallback=False).best()
    if found is None:
        found = from_bytes(sample, cp_isolation=_LEGACY, threshold=0.4, enable_fallback=False).best()
    name = found.encoding if found is not None else usual
    _check_all(path, file, name, f"is neither UTF-8 nor {name}, as it seemed")
    return name, True


def _known(path: Path, promised: str) -> str:
    try:
        found = codecs.lookup(promised)
    except (LookupError, ValueError):
        raise refused(path, f"{promised!r} is not an encoding", "write utf-8, cp1252, utf-16 ...") from None
    if not getattr(found, "_is_text_encoding", True) or found.name in ("idna", "punycode", "unicode_escape"):
        raise refused(path, f"{promised!r} is not an encoding of text", "write utf-8, cp1252, utf-16 ...")
    return "utf-8-sig" if found.name == "utf-8" else found.name


def _check_all(path: Path, file: BinaryIO, encoding: str, what: str) -> None:
    """Decode all of it, and keep nothing."""
    decoder = codecs.getincrementaldecoder(encoding)()
    file.seek(0)
    line = 1
    while True:
        chunk = file.read(_CHUNK)
        try:
            line += decoder.decode(chunk, final=not chunk).count("\n")
        except UnicodeError as error:
            if isinstance(error, UnicodeDecodeError):
                line += error.object[: error.start].count(b"\n")
            hint = "name its encoding with --encoding, or save it as UTF-8"
            raise refused(path, what, hint, line) from None
        if not chunk:
            return


def _not_utf8(path: Path, file: BinaryIO) -> bytes:
    """The lines that are not UTF-8, up to a sample; nothing where all of it is.

    Raises:
        LeadFileError: it is UTF-8, and breaks off or has something else in it: to read all of it as something else
            would spoil what is right.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    file.seek(0)
    line, others = 1, 0
    while True:
        chunk = file.read(_CHUNK)
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            text = error.object[: error.start].decode()
            line += text.count("\n")
            others += len(text) - len(text.encode("ascii", "ignore"))
            if not chunk:
                hint = "copy the whole file again, or name its encoding with --encoding"
                raise refused(path, "breaks off in the middle of a character", hint, line) from None
            if others >= _SURELY_UTF8:
                hint = "mend this line, or name the encoding of all of it with --encoding"
                raise refused(path, "is UTF-8 down to this line, which is not", hint, line) from None
            break
        if not chunk:
            return b""
        line += text.count("\n")
        others += len(text) - len(text.encode("ascii", "ignore"))
    sample = bytearray()
    while chunk and len(sample) < _SAMPLE:
        for one in chunk.splitlines(keepends=True):
            if not one.isascii() and len(sample) < _SAMPLE:
                sample += one[: _SAMPLE - len(sample)]
        chunk = file.read(_CHUNK)
    return bytes(sample)


def _beginning(path: Path, head: bytes, encoding: str) -> str:
    """The beginning as text; a character that is cut off at its end is left out."""
    try:
        return codecs.getincrementaldecoder(encoding)().decode(head)
    except UnicodeError:
        raise refused(path, f"is not {encoding}", "name its encoding with --encoding", 1) from None


def _format(path: Path, text: str) -> Format:
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson", ".json"):
        return "jsonl"
    return "jsonl" if suffix not in (".csv", ".tsv", ".txt") and text.lstrip("\ufeff \t\r\n")[:1] == "{" else "csv"


# --- CSV ----------------------------------------------------------------------------------------------------------


def _dialect(path: Path, text: str, delimiter: str) -> Dialect:
    """The delimiter with which most of the beginning has as many fields as the first row, and more than one."""
    first = text.lstrip("\ufeff").split("\n", maxsplit=1)[0].strip("\r")
    if first.lower().startswith("sep=") and len(first) == 5:
        delimiter = delimiter or first[4]
    names = {"tab": "\t", "comma": ",", "semicolon": ";", "pipe": "|", r"\t": "\t"}
    delimiter = names.get(delimiter.lower(), delimiter)
    if delimiter:
        if len(delimiter) != 1 or delimiter in "\"'\r\n":
            raise refused(path, f"{delimiter!r} cannot stand between fields", "write ',', ';', 'tab' or '|'")
        return Dialect(delimiter, _quote(first, delimiter))
    lines = text.splitlines(keepends=True)
    lines = lines[: max(1, len(lines) - 1)][:200]  # the last one may be cut off
    best, most = ",", (0.0, 0)
    for candidate in _DELIMITERS:
        widths = [len(row) for row in _parsed(lines, candidate) if row]
        if not widths or widths[0] < 2:
            continue
        score = (sum(width == widths[0] for width in widths) / len(widths), widths[0])
        if score > most:
            best, most = candidate, score
    return Dialect(best, _quote(first, best))


def _parsed(lines: Sequence[str], delimiter: str) -> Iterator[list[str]]:
    try:
        yield from csv.reader(lines, delimiter=delimiter)
    except csv.Error:
        return


def _quote(first: str, delimiter: str) -> str:
    cells = [cell.strip() for cell in first.split(delimiter)]
    single = sum(len(cell) > 1 and cell[0] == cell[-1] == "'" for cell in cells)
    return "'" if single * 2 > len(cells) else '"'


def _looked_at_csv(
    path: Path,
    encoding: str,
    guessed: bool,
    dialect: Dialect,
    lines: Lines,
    size: int,
    notes: list[str],
    headless: bool,
) -> LeadFile:
    rows = 0
    begins_at_once = False
    header: tuple[str, ...] | None = None
    last: tuple[int, int, str] = (0, 0, "")
    for _, cells, problem in csv_rows(lines, dialect):
        if header is None:
            if problem:
                raise refused(path, problem, "mend the row that names the columns", lines.begun_at)
            begins_at_once = headless and bool(_numbers_in(cells))
            header = _header(path, cells, lines.begun_at, begins_at_once)
            if not begins_at_once:
                continue
        rows += 1
        last = (lines.begun_at, len(cells), problem)
        if rows > MAX_ROWS:
            raise refused(path, f"has more than {MAX_ROWS:,} rows", "split it")
    if header is None:
        raise refused(path, "is empty", "it has to begin with a row that names the columns")
    if lines.ends_within_a_line and rows and not last[2] and last[1] < len(header):
        what = f"breaks off in the middle of a row: the last one has {last[1]} of {len(header)} columns, and no end"
        raise refused(path, what, "copy the whole file again", last[0])
    if not rows:
        notes.append("it names columns, and has no row below them")
    return LeadFile(path, "csv", encoding, guessed, dialect, header, rows, size, tuple(notes), begins_at_once)


def _numbers_in(cells: Sequence[str]) -> list[str]:
    """The cells that look like telephone numbers."""
    return [cell for cell in cells if sum(char.isdigit() for char in cell) >= 7]


def _header(path: Path, cells: list[str], line: int, begins_at_once: bool) -> tuple[str, ...]:
    if len(cells) > MAX_COLUMNS:
        raise refused(path, f"has {len(cells):,} columns", f"keep those that are needed, {MAX_COLUMNS} at most", line)
    if any("\0" in cell for cell in cells):
        raise refused(path, "its first row holds NUL characters", "save it as UTF-8 text", line)
    names = [" ".join(cell.lstrip("\ufeff").split())[:200] for cell in cells]
    while names and not names[-1]:
        names.pop()
    if begins_at_once:
        return ("number", *(f"column {index}" for index in range(2, len(names) + 1)))
    if looks_like_data := _numbers_in(names):
        what = f"its first row names no columns: {looks_like_data[0]!r} looks like a number"
        raise refused(path, what, "put a row above it that names them, such as number,name", line)
    found: list[str] = []
    for index, name in enumerate(names, 1):
        plain = name or f"column {index}"
        unique, copy = plain, 2
        while unique in found:
            unique, copy = f"{plain} {copy}", copy + 1
        found.append(unique)
    return tuple(found)


# --- JSON Lines ---------------------------------------------------------------------------------------------------


def _looked_at_json(path: Path, encoding: str, guessed: bool, lines: Lines, size: int, notes: list[str]) -> LeadFile:
    keys: dict[str, None] = {}
    rows = wrong = 0
    for record in json_records(lines):
        rows += 1
        wrong += bool(record.problem)
        if rows > MAX_ROWS:
            raise refused(path, f"has more than {MAX_ROWS:,} rows", "split it")
        if record.problem and lines.ends_within_a_line:
            what = "breaks off in the middle of an object: the last line is not whole"
            raise refused(path, what, "copy the whole file again", record.line)
        keys.update(dict.fromkeys(record.values))
        if len(keys) > MAX_COLUMNS:
            what = f"its objects have more than {MAX_COLUMNS} different keys"
            raise refused(path, what, "keep those that are needed", record.line)
        if rows == wrong == 20:
            raise refused(path, f"is not JSON Lines: {record.problem}", "write one object per line", record.line)
    if not rows:
        raise refused(path, "is empty", "write one object per line")
    header = tuple(key for key in keys if key not in ERROR_COLUMNS)
    return LeadFile(path, "jsonl", encoding, guessed, Dialect(), header, rows, size, tuple(notes))
