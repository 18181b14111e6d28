"""The box that interop tests call (the bench's lines, engines that answer at once), and what its peers need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from appliance.cli.box import HOST, Box, free_port
from appliance.cli.softphone import read_wav, write_wav
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


@pytest.fixture(scope="session")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Human voices at 8 kHz after a second of silence, the microphone of a peer."""
    folder = tmp_path_factory.mktemp("speech")
    clips = [read_wav(path) for path in lines.human_speech(folder)[:6]]
    write_wav(folder / "speech.wav", np.concatenate([np.zeros(8000, np.int16), *clips]))
    return folder / "speech.wav"


@pytest.fixture(scope="module")
def ports() -> tuple[int, int]:
    """Where the two peers listen that the module's box calls."""
    return free_port(), free_port()


@pytest.fixture
def peers() -> Iterator[ExitStack]:
    """Peers in the background; ended with the test."""
    with ExitStack() as stack:
        yield stack


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
