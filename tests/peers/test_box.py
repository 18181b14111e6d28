"""A whole box: starts, takes a call, says what is wrong, stops in order."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appliance.cli.box import HOST, Box, BoxError
from appliance.cli.dialler import SipDialler
from appliance.cli.softphone import CallFailed, Softphone
from tests.bench import lines, records
from tests.waiting import LIMIT_S, block_until

pytestmark = pytest.mark.peer


def appliance(*words: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "appliance.cli.main", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)


@pytest.fixture(scope="module")
def bench_box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    folder = tmp_path_factory.mktemp("bench")
    with Box(folder / "box", lines.settings(folder)) as box:
        yield box
    assert box.stop() == 0, box.log_tail()


@pytest.fixture
def before(bench_box: Box) -> int:
    """How many calls are on record."""
    return len(records.calls(bench_box.database))


async def press_two(box: Box) -> None:
    """Call the line with the keys and press the one with which the box hangs up."""
    async with SipDialler(HOST) as dialler, Softphone(dialler) as phone:
        await phone.dial(box.uri(lines.KEYS))
        await phone.wait_agent_speech(10.0, since=phone.dialled_at)
        phone.send_digits("2")
        assert await phone.wait_hangup(LIMIT_S) == "them"


async def test_a_call_is_answered_branched_recorded_and_ended(bench_box: Box, before: int) -> None:
    await press_two(bench_box)
    call = (await asyncio.to_thread(records.wait_settled, bench_box.database, before + 1))[-1]
    assert (call["disposition"], call["hangup_by"], call["line"]) == ("completed", "agent", "keys")
    assert any(turn["by"] == "key" for turn in call["turns"])
    assert "pressed two" in call["turns"][-1]["agent_text"]
    with wave.open(str(bench_box.recordings / call["recording_path"])) as recording:
        assert recording.getnchannels() == 2
        assert recording.getnframes() > 8000


async def test_health_readiness_and_metrics(bench_box: Box) -> None:
    assert bench_box.get("/healthz")[0] == 200
    assert bench_box.get("/readyz")[0] == 200
    await press_two(bench_box)
    status, metrics = bench_box.get("/metrics")
    assert status == 200
    assert "appliance_calls" in metrics


async def test_a_number_without_a_line_is_refused(bench_box: Box) -> None:
    async with SipDialler(HOST) as dialler, Softphone(dialler) as phone:
        with pytest.raises(CallFailed) as failed:
            await phone.dial(bench_box.uri("9999"))
    assert failed.value.status == 404


def test_the_softphone_reports_in_json(bench_box: Box) -> None:
    done = appliance("call", bench_box.uri(lines.KEYS), "--digits", "2", "--listen", "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    assert {"answered", "pressed", "ended", "heard"} <= {event["event"] for event in events}
    assert next(event for event in events if event["event"] == "ended")["by"] == "them"


def test_the_record_is_listed_and_shown(bench_box: Box, before: int) -> None:
    asyncio.run(press_two(bench_box))
    call = records.wait_settled(bench_box.database, before + 1)[-1]
    state = f"state_dir={bench_box.directory}"
    listed = appliance("calls", "list", "--json", "--set", state)
    newest, *others = json.loads(listed.stdout)
    assert (newest["id"], len(others)) == (call["id"], before)
    shown = appliance("calls", "show", call["id"], "--set", state)
    assert "pressed two" in shown.stdout


def test_a_port_in_use_is_said_at_once(bench_box: Box, tmp_path: Path) -> None:
    second = Box(tmp_path / "second", {**lines.settings(tmp_path), "listen.sip": bench_box.settings["listen.sip"]})
    with pytest.raises(BoxError, match=str(bench_box.sip_port)):
        second.start()


def test_a_wrong_setting_is_said_before_anything_starts(tmp_path: Path) -> None:
    done = appliance("serve", "--set", f"state_dir={tmp_path}", "--set", "listen.rtp_ports=7")
    assert done.returncode == 2
    assert "listen.rtp_ports" in done.stderr


def test_noise_on_the_sip_port_disturbs_nobody(bench_box: Box) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as noise:
        for size in (0, 1, 20, 1400):
            noise.sendto(bytes(range(256)) * 6 if size == 1400 else b"\xff" * size, (HOST, bench_box.sip_port))
        noise.sendto(b"INVITE sip:1004@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/U", (HOST, bench_box.sip_port))
    asyncio.run(press_two(bench_box))


def test_stopping_frees_the_ports(start_box: Callable[..., Box], tmp_path: Path) -> None:
    box = start_box(lines.settings(tmp_path))
    assert box.stop() == 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((HOST, box.sip_port))


_STARTS_A_BOX = """
import pathlib, sys
from appliance.cli.box import Box
box = Box(pathlib.Path(sys.argv[1]))
box.start()
print(*box.processes().values(), flush=True)
sys.stdin.read()
"""


def test_a_box_is_gone_when_the_test_that_started_it_was_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _STARTS_A_BOX, str(tmp_path / "box")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as test:
        assert test.stdout is not None
        processes = [Path(f"/proc/{pid}") for pid in test.stdout.readline().split()]
        assert len(processes) > 2 and all(process.exists() for process in processes)
        test.kill()

    def left() -> list[Path]:
        return [process for process in processes if process.exists() and not _is_zombie(process)]

    block_until(lambda: not left(), lambda: f"{left()} still run")


def _is_zombie(process: Path) -> bool:
    try:
        return process.joinpath("stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
