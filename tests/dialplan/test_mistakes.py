"""A folder of dialplans in which everything is wrong: a message for each mistake, at its line, with a remedy."""

from __future__ import annotations

import re
from pathlib import Path

from appliance.cli.check import examine

FOLDER = Path(__file__).parent / "mistakes"
_WRONG = re.compile(r"# wrong: (.*)$")


def expected() -> list[tuple[str, int, str]]:
    """(file, line, beginning of the message) of every mistake, as the files themselves say."""
    return [
        (path.name, number, found[1])
        for path in sorted(FOLDER.glob("*.yaml"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if (found := _WRONG.search(line))
    ]


def test_thirty_mistakes_give_thirty_messages_each_with_its_line_and_a_remedy() -> None:
    overrides = [
        f"dialplans.paths=[{FOLDER}]",
        f"plugins.paths=[{FOLDER / 'plugins'}]",
        "trunks={pbx: {kind: sip, allow: 10.0.0.1}, carrier: {kind: sip, allow: 10.0.0.2}}",
        "engines.llm.provider=fake",
    ]
    mistakes = examine(None, overrides).mistakes
    found = [(Path(one.file).name, one.line, f"{one.key}: {one.what}; {one.hint}") for one in mistakes]
    wanted = expected()
    assert len(wanted) >= 30
    for file, line, begins in wanted:
        here = [text for name, number, text in found if (name, number) == (file, line)]
        assert any(text.startswith(begins) for text in here), (file, line, begins, here)
    assert len(found) == len(wanted), "\n".join(map(str, mistakes))
    without = [str(one) for one in mistakes if not one.hint and " must be " not in f" {one.what}"]
    assert without == [], "what would be right is missing"
