"""The progress bar of ``appliance models pull``."""

from __future__ import annotations

import io

from appliance.cli.models_progress import Bar, line


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_tells_how_far_it_is_and_how_long_it_takes() -> None:
    assert line("model.bin", 25_000_000, 100_000_000, 20_000_000, 10.0) == (
        "model.bin  [######..................]  25 %  25.0 of 100.0 MB  2.0 MB/s  0:37 left"
    )
    assert line("model.bin", 5_000_000, None, 5_000_000, 1.0) == "model.bin  5.0 MB  5.0 MB/s"
    assert line("a", 100, 100, 0, 0.0).endswith("100 %  0.0 of 0.0 MB  0.0 MB/s")
    assert "99:59:59 left" in line("a", 1, 10**15, 1, 1.0)


def test_it_is_drawn_on_terminals_only() -> None:
    terminal, file = Terminal(), io.StringIO()
    for out in (terminal, file):
        bar = Bar(out)
        bar("model.bin", 0, 100)
        bar("model.bin", 100, 100)
        bar.clear()
    assert "100 %" in terminal.getvalue() and terminal.getvalue().endswith("\r")
    assert file.getvalue() == ""
