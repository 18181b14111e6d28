"""Answers from a folder of Markdown: what the model may look up, found by SQLite's full-text search.

Pages: docs/plugins/knowledge.md.
"""

from __future__ import annotations

import hashlib
import logging
import re
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from pydantic import Field, field_validator

from appliance.api import Arguments, Box, Call, OngoingCall, PluginValues, Tool, hookimpl

API = 1
SUMMARY = "Lets the model look things up in a folder of Markdown files."

logger = logging.getLogger(__name__)

_MAX_FILES = 5000
_MAX_FILE_BYTES = 1_000_000
_LOOK_AGAIN_S = 5.0
_MAX_WORDS = 24
_HEADING = re.compile(r"(#{1,6})\s+(.+?)\s*#*$")
_FENCE = re.compile(r"(```|~~~)")
_WORD = re.compile(r"\w+")
_COMMON = frozenset(
    """a an and are as at be but by can do does for from have how i in is it me my of on or our please tell that the
    there this to was we what when where which who why will with would you your""".split()  # noqa: SIM905
)


class Values(PluginValues):
    """What an operator may write below `knowledge`.

    Attributes:
        folder: of Markdown files (`*.md`), its sub-folders included.
        about: what is in it, for the model: "prices, deliveries and returns".
        results: how many passages the model is given for a question.
        max_characters: of each passage.
    """

    folder: Path
    about: str = "the business"
    results: int = Field(default=3, ge=1, le=10)
    max_characters: int = Field(default=900, ge=100, le=4000)

    @field_validator("folder")
    @classmethod
    def _exists(cls, folder: Path) -> Path:
        if not folder.is_dir():
            raise ValueError(f"{str(folder)!r} is not a folder; write the path of one with Markdown files in it")
        return folder


class Passage(NamedTuple):
    """One section of a file: the file's own title, the headings above the section, and its text."""

    file: str
    title: str
    section: str
    text: str


class Index:
    """The passages of a folder, in a SQLite file that is made anew when the folder has changed."""

    def __init__(self, folder: Path, database: Path) -> None:
        self._folder = folder
        self._database = database
        self._lock = threading.Lock()
        self._looked_at = float("-inf")
        self._state = ""

    def look_up(self, question: str, results: int) -> list[Passage]:
        """The passages that fit best, the best first."""
        words = [word for word in _WORD.findall(question.casefold()) if word not in _COMMON][:_MAX_WORDS]
        if not words:
            return []
        self.refresh()
        # Each word is quoted: nothing in it is an operator of the search.
        query = " OR ".join(f'"{word}"' for word in words)
        with closing(sqlite3.connect(self._database, timeout=5.0)) as database:
            rows = database.execute(
                "SELECT file, title, section, text FROM passages WHERE passages MATCH ? "
                "ORDER BY bm25(passages, 0.0, 4.0, 6.0, 1.0) LIMIT ?",
                (query, results),
            )
            return [Passage(*row) for row in rows]

    def refresh(self) -> None:
        """Take over what has changed in the folder."""
        with self._lock:
            if time.monotonic() - self._looked_at < _LOOK_AGAIN_S and self._state:
                return
            files = sorted(self._folder.rglob("*.md"))[:_MAX_FILES]
            known = [(file, file.stat()) for file in files]
            state = hashlib.sha256(
                repr([(str(file), stat.st_mtime_ns, stat.st_size) for file, stat in known]).encode()
            ).hexdigest()
            if state != self._state:
                self._write(files)
                self._state = state
            self._looked_at = time.monotonic()

    def _write(self, files: Sequence[Path]) -> None:
        self._database.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self._database, timeout=5.0)) as database, database:
            database.execute("DROP TABLE IF EXISTS passages")
            database.execute(
                "CREATE VIRTUAL TABLE passages USING fts5"
                "(file UNINDEXED, title, section, text, tokenize = 'porter unicode61 remove_diacritics 2')"
            )
            for file in files:
                try:
                    with file.open("rb") as opened:
                        text = opened.read(_MAX_FILE_BYTES).decode(errors="replace")
                except OSError as error:
                    logger.warning("%s cannot be read: %s", file, error.strerror)
                    continue
                name = str(file.relative_to(self._folder))
                database.executemany("INSERT INTO passages VALUES (?, ?, ?, ?)", passages_of(name, text))


def passages_of(file: str, text: str) -> Iterator[Passage]:
    """The sections of a Markdown text, each below its headings."""
    title = Path(file).stem.replace("-", " ").replace("_", " ")
    headings: list[tuple[int, str]] = []
    lines: list[str] = []
    fenced = False

    def section() -> Iterator[Passage]:
        body = "\n".join(lines).strip()
        if body:
            names = [name for _, name in headings]
            yield Passage(file, names[0] if names else title, " > ".join(names[1:]) or title, body)

    for line in text.splitlines():
        fenced ^= bool(_FENCE.match(line))
        found = None if fenced else _HEADING.match(line)
        if found is None:
            lines.append(line)
            continue
        yield from section()
        lines = []
        level = len(found[1])
        headings = [(depth, name) for depth, name in headings if depth < level]
        headings.append((level, found[2]))
    yield from section()


_indexes: dict[Path, Index] = {}
_folders: dict[str, Path] = {}
_state_dir: list[Path] = []


@hookimpl
def appliance_configure(values: Values, line: str) -> None:
    _folders[line] = values.folder.absolute()


@hookimpl
def appliance_started(box: Box) -> None:
    _state_dir.append(Path(box.state_dir))
    for folder in set(_folders.values()):
        _index_of(folder).refresh()


def _index_of(folder: Path) -> Index:
    if folder not in _indexes:
        name = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
        _indexes[folder] = Index(folder, _state_dir[-1] / f"{name}.sqlite")
    return _indexes[folder]


@hookimpl
def appliance_tools(call: Call) -> Sequence[Tool]:
    values: Values = call.values

    def look_up(arguments: Arguments, ongoing: OngoingCall) -> object:
        index = _index_of(values.folder.absolute())
        found = index.look_up(arguments["question"], values.results)
        if not found:
            return {"found": "nothing; say so, and do not guess"}
        limit = values.max_characters
        return [{"title": one.title, "section": one.section, "text": one.text[:limit]} for one in found]

    return [
        Tool(
            name="look_up",
            description=f"Looks up {values.about}. Use it before you answer about that, and answer from it alone.",
            parameters={
                "type": "object",
                "properties": {"question": {"type": "string", "description": "What to look for, in key words."}},
                "required": ["question"],
                "additionalProperties": False,
            },
            run=look_up,  # type: ignore[arg-type]
            side_effects=False,
        )
    ]
