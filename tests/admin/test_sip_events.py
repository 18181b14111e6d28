"""Every event that the SIP endpoint counts is explained in docs/metrics.md, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from appliance.sip.auth import Verdict

ROOT = Path(__file__).parents[2]
SOURCES = [
    *(ROOT / "appliance" / "sip").glob("*.py"),
    *(ROOT / "appliance" / "signalling" / f"{name}.py" for name in ("connections", "transports")),
]


def counted() -> set[str]:
    found: set[str] = set()
    for path in SOURCES:
        for index in re.findall(r"counters\[(.+?)\] \+=", path.read_text()):
            found.update(re.findall(r'(?<!f)"([a-z_0-9]+)"', index))
    return found | {f"credentials_{verdict}" for verdict in Verdict}


def test_every_event_is_explained() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text()
    table = text[text.index("| event | counts |") :]
    rows = table[: table.index("\n\n")].splitlines()[2:]
    explained = {name for row in rows for name in re.findall(r"`([a-z_0-9]+)`", row.split("|")[1])}
    assert explained == counted()
