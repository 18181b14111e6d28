"""What a box wrote down, read from its database and recordings without the box's own code."""

from __future__ import annotations

import json
import sqlite3
import time
import wave
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def calls(database: Path) -> list[Row]:
    """Every call, oldest first; ``turns`` holds its turns in order."""
    if not database.exists():
        return []
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10.0) as connection:
        connection.row_factory = sqlite3.Row
        found = [dict(row) for row in connection.execute("SELECT * FROM calls ORDER BY started_at")]
        turns: dict[str, list[Row]] = {}
        for row in connection.execute("SELECT * FROM turns ORDER BY call_id, number"):
            turn = dict(row)
            turn["waterfall"] = json.loads(turn["waterfall"] or "{}")
            turn["speculation"] = json.loads(turn["speculation"] or "{}")
            turns.setdefault(turn["call_id"], []).append(turn)
    connection.close()
    for call in found:
        call["turns"] = turns.get(call["id"], [])
    return found


def wait_settled(database: Path, count: int, timeout_s: float = 20.0) -> list[Row]:
    """Every call, once there are ``count`` and none is in progress, or when time is up."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = calls(database)
        settled = len(found) >= count and all(row["disposition"] != "in_progress" for row in found)
        if settled or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def problems(found: Iterable[Row], call_ids: Iterable[str]) -> list[str]:
    """Call-IDs that are not on record exactly once."""
    seen: dict[str, int] = {}
    for row in found:
        seen[row["protocol_call_id"]] = seen.get(row["protocol_call_id"], 0) + 1
    return [f"{call_id}: {seen.get(call_id, 0)} records" for call_id in call_ids if seen.get(call_id, 0) != 1]


def recording_seconds(path: str | None, folder: Path) -> float:
    """Length of a stereo recording as any player would see it.

    Raises:
        OSError, wave.Error, EOFError: it cannot be opened.
    """
    if not path:
        raise OSError("no recording")
    found = Path(path) if Path(path).is_absolute() else folder / path
    with wave.open(str(found)) as file:
        if (file.getnchannels(), file.getframerate(), file.getsampwidth()) != (2, 8000, 2):
            raise wave.Error(f"{found} is not 16-bit stereo at 8 kHz")
        frames = len(file.readframes(file.getnframes())) // 4
    return frames / 8000
