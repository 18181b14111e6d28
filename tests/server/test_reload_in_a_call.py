"""A whole box over real sockets: its dialplans change while a caller is on the line."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.cli.box import HOST, Box
from appliance.cli.softphone import Softphone
from tests.bench import records
from tests.bench.uac import BareUac
from tests.interop.conftest import metric
from tests.waiting import eventually

pytestmark = pytest.mark.peer

LINE = """\
name: desk
match: {{called: "{number}"}}
barge_in: false
no_input: {{after_s: 60}}
greeting: Hello, plan {plan}.
flow:
  what: {{ask: Plan {plan}?, keys: {{1: go}}, next: more}}
  more: {{ask: More of plan {plan}?, keys: {{1: go}}, next: bye}}
  bye: {{hang_up: Goodbye from plan {plan}.}}
"""


def reload(box: Box) -> subprocess.CompletedProcess[str]:
    """The command, as an operator gives it."""
    command = [sys.executable, "-m", "appliance.cli.main", "reload"]
    for key in ("state_dir", "runtime_dir"):
        command += ["--set", f"{key}={box.settings[key]}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def line_names(box: Box) -> list[str]:
    return [line["name"] for line in json.loads(box.get("/phone/lines")[1])["lines"]]


def said(call: records.Row) -> set[str]:
    """Which plans the caller has heard of."""
    return {plan for turn in call["turns"] for plan in re.findall(r"plan (\d)", turn["agent_text"], re.IGNORECASE)}


PLUGIN = """\
from appliance.api import hookimpl


@hookimpl
def appliance_reply_text(text):
    return text.replace("plan 0", "plan {plan}").replace("Plan 0", "plan {plan}")
"""


async def test_a_call_keeps_the_programs_of_its_plugins_and_the_next_has_the_new_ones(tmp_path: Path) -> None:
    plans, plugins = tmp_path / "plans", tmp_path / "plugins"
    plans.mkdir()
    plugins.mkdir()
    (plans / "desk.yaml").write_text(LINE.format(plan=0, number="*"))
    plugin = plugins / "renames.py"
    plugin.write_text(PLUGIN.format(plan=1))
    settings = {
        "dialplans.paths": [str(plans)],
        "plugins.paths": [str(plugins)],
        "plugins.enabled": ["renames"],
        "engines.asr.provider": "fake",
        "engines.tts": {"provider": "fake", "first_audio_ms": 10, "chunk_ms": 20, "fallback": "none"},
        "engines.turn.provider": "fake",
    }
    with Box(tmp_path / "box", settings) as box:
        async with BareUac((HOST, box.sip_port)) as uac, Softphone(uac) as first, Softphone(uac) as second:
            await first.dial(box.uri("100"))
            await first.wait_agent_speech(10.0)
            plugin.write_text(PLUGIN.format(plan=2))
            done = await asyncio.to_thread(reload, box)
            assert done.returncode == 0, done.stderr
            await eventually(lambda: "program of plugin renames has changed" in box.log.read_text())
            await second.dial(box.uri("100"))
            for phone in (first, second):
                for _ in range(2):
                    await phone.wait_agent_silent()
                    phone.send_digits("1")
                    await phone.wait_agent_speech(10.0)
                assert await phone.wait_hangup(10.0) == "them"
        old, new = await asyncio.to_thread(records.wait_settled, box.database, 2)
        # A machine that is slower than the hook's budget leaves a text as it was.
        assert {"1"} <= said(old) <= {"0", "1"} and {"2"} <= said(new) <= {"0", "2"}
        assert old["disposition"] == new["disposition"] == "completed"


async def test_a_call_keeps_its_plan_the_next_has_the_new_one_and_a_broken_one_changes_nothing(tmp_path: Path) -> None:
    plans = tmp_path / "plans"
    plans.mkdir()
    file = plans / "desk.yaml"
    file.write_text(LINE.format(plan=1, number="*"))
    settings = {
        "dialplans.paths": [str(plans)],
        "engines.asr.provider": "fake",
        "engines.tts": {"provider": "fake", "first_audio_ms": 10, "chunk_ms": 20, "fallback": "none"},
        "engines.turn.provider": "fake",
    }
    with Box(tmp_path / "box", settings) as box:
        async with BareUac((HOST, box.sip_port)) as uac, Softphone(uac) as first, Softphone(uac) as second:
            await first.dial(box.uri("100"))
            await first.wait_agent_speech(10.0)

            file.write_text(LINE.format(plan=2, number="*"))
            done = await asyncio.to_thread(reload, box)
            assert done.returncode == 0, done.stderr
            # The box may have seen by itself that the file has changed, and been a moment faster.
            assert done.stdout.splitlines()[1] in ("changed: desk", "no line has changed")

            file.write_text(LINE.format(plan=3, number="*").replace("hang_up", "hangup"))
            done = await asyncio.to_thread(reload, box)
            assert done.returncode == 2
            assert done.stdout.startswith(f"{file}:9: flow.bye: the step does nothing; give it one of say, ask")
            assert "refused, the box goes on as it was" in done.stderr

            await second.dial(box.uri("100"))
            for phone in (first, second):
                for _ in range(2):
                    await phone.wait_agent_silent()
                    phone.send_digits("1")
                    await phone.wait_agent_speech(10.0)
                assert await phone.wait_hangup(10.0) == "them"
        calls = await asyncio.to_thread(records.wait_settled, box.database, 2)
        assert [(said(call), call["disposition"]) for call in calls] == [({"1"}, "completed"), ({"2"}, "completed")]

        # Without being asked: a file that has changed, and SIGHUP.
        file.write_text(LINE.format(plan=4, number="7").replace("desk", "evening"))
        await eventually(lambda: line_names(box) == ["evening"])
        os.kill(box.pid, signal.SIGHUP)
        await eventually(lambda: metric(box, "appliance_reloads_total", outcome="unchanged") >= 1)
        assert metric(box, "appliance_reloads_total", outcome="refused") >= 1
        assert box.get("/readyz")[0] == 200
        assert "Traceback" not in box.log.read_text()
