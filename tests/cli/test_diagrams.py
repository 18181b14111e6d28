"""The diagrams in the documentation are those of the code."""

from __future__ import annotations

from appliance.cli.diagrams import PAGE, page


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == page(), "run `python -m appliance.cli.diagrams` and commit docs/state-diagrams.md"
