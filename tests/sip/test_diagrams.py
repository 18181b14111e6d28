from __future__ import annotations

import re

from appliance.sip.diagrams import sip_diagrams


def test_every_table_is_drawn_whole() -> None:
    diagrams = sip_diagrams()
    assert len(diagrams) == 7
    for title, text in diagrams.items():
        lines = text.splitlines()
        assert lines[0] == "stateDiagram-v2", title
        for line in lines[1:]:
            assert re.fullmatch(r"    (\[\*\]|\w+) --> (\[\*\]|\w+)(: [^:;]+)?", line), line
        assert lines[1].startswith("    [*] --> ")
        assert lines[-1].endswith("--> [*]")
