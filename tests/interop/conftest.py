"""The box that interop tests call: the bench's lines, engines that answer at once, one for the whole session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from appliance.cli.box import HOST, Box
from tests.bench import lines
from tests.interop import sipp


def quick_settings(folder: Path) -> dict[str, object]:
    """Settings whose engines load at once and understand one thing: what they do is not the question here."""
    return {
        **lines.settings(folder),
        "engines.asr": {"provider": "fake", "delay_ms": 100, "text": lines.ANSWER, "workers": 1},
        "engines.turn": {"provider": "fake"},
        "media.rtp_timeout_s": 300,
    }


@pytest.fixture(scope="session")
def shared_box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """One box for all tests that need nothing of their own configured; it must leave in order at the end."""
    folder = tmp_path_factory.mktemp("interop")
    box = Box(folder / "box", quick_settings(folder))
    box.settings["listen.sip"] = [
        {"transport": transport, "host": host, "port": box.sip_port}
        for transport, host in (("udp", HOST), ("tcp", HOST), ("udp", "::1"))
    ]
    box.settings["trunks"] = {"local": {"kind": "sip", "allow": ["127.0.0.0/8", "::1"]}}
    with box:
        yield box
    assert box.stop() == 0, box.log_tail()
    assert "Traceback" not in box.log.read_text(errors="replace")


def metric(box: Box, name: str, **labels: str) -> float:
    """The value of one metric; 0 where it is not there."""
    for line in box.get("/metrics")[1].splitlines():
        if line.startswith(name) and all(f'{key}="{value}"' in line for key, value in labels.items()):
            return float(line.rpartition(" ")[2])
    return 0.0


def hands_on(name: str, match: dict[str, object], to: str) -> dict[str, object]:
    """A line that hands every caller on to the number ``to``."""
    return {
        "name": name, "match": match, "record": False, "greeting": "One moment, please.",
        "flow": {
            "on": {"transfer": {"to": to, "timeout_s": 10}, "failed": "sorry"},
            "sorry": {"hang_up": "Sorry.", "disposition": "nobody"},
        },
    }  # fmt: skip


def serve(peers: ExitStack, scenario: str, folder: Path, host: str, port: int, **options: object) -> sipp.Sipp:
    """A scenario in the background that waits to be called; ended with ``peers``."""
    served = peers.enter_context(sipp.Sipp(scenario, folder / host, host=host, port=port, **options))  # type: ignore[arg-type]
    served.wait_ready()
    return served
