"""Calls over SIP to a box whose lines differ in all that ``match`` can ask for: each reaches the one it should."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.cli.box import HOST, Box
from appliance.cli.dialler import SipDialler
from appliance.cli.softphone import Softphone
from tests.bench import lines, records
from tests.peers.raw_sip import RawSip, sdp
from tests.waiting import LIMIT_S, eventually

pytestmark = pytest.mark.peer

PLAN = """
lines:
  - {name: blocked, match: {calling: {file: blocked.csv, column: number}}, refuse: {status: 603, reason: Not you}}
  - {name: german, match: {called: 1*, language: de}, refuse: 480}
  - {name: gold, match: {called: 1*, headers: {X-Account: {regex: 'gold-[0-9]+'}}}, refuse: 486}
  - {name: berlin, match: {called: '+4930*'}, refuse: 410}
  - {name: never, match: {called: 1*, hours: {mon-sun: 00:00-24:00}, closed: true}, refuse: 600}
  - {name: first, match: {called: '200', calls_below: 1}, flow: {q: {ask: Well, expect: [yes]}, e: {hang_up: Bye}}}
  - {name: overflow, match: {called: '200'}, refuse: 503}
"""


async def status(box: Box, called: str, *headers: str, calling: str = "raw") -> int:
    """The final status of an INVITE."""
    with RawSip(box.sip_port) as raw:
        return await raw.status("INVITE", called, sdp(), headers=headers, calling=calling)


async def test_each_call_reaches_its_line(start_box: Callable[..., Box], tmp_path: Path) -> None:
    plans = tmp_path / "plans"
    plans.mkdir()
    (plans / "plan.yaml").write_text(PLAN)
    (plans / "blocked.csv").write_text("name;number\nMr Spam;+49 151 12345678\n")
    trunk = {"kind": "sip", "allow": [HOST], "headers_in": ["X-Account"], "region": "DE"}
    box = start_box({**lines.STANDARD_FAKES, "dialplans.paths": [str(plans)], "trunks": {"local": trunk}})
    assert await status(box, "100", calling="015112345678") == 603
    assert await status(box, "100", "Accept-Language: de-DE, en;q=0.5") == 480
    assert await status(box, "100", "Accept-Language: en, de;q=0.5") == 404
    assert await status(box, "100", calling="+49301234567") == 480
    assert await status(box, "100", "X-Account: gold-17") == 486
    assert await status(box, "100", "X-Account: gold-") == 404
    assert await status(box, "0301234567") == 410
    async with SipDialler(HOST) as dialler, Softphone(dialler) as phone:
        await phone.dial(box.uri("200"))
        await phone.wait_agent_speech(LIMIT_S, since=phone.dialled_at)
        assert await status(box, "200") == 503
    (call,) = await asyncio.to_thread(records.wait_settled, box.database, 1)
    assert call["line"] == "first"
    (plans / "blocked.csv").write_text("name;number\nMs Spam;5551\n")
    os.kill(box.pid, signal.SIGHUP)
    await eventually(lambda: "reloaded (" in box.log.read_text(), "the list of numbers is not read again")
    assert await status(box, "100", calling="5551") == 603
    metrics = box.get("/metrics")[1]
    assert 'appliance_calls_refused_total{cause="by_line"} 7.0' in metrics
    assert 'appliance_calls_refused_total{cause="no_line"} 2.0' in metrics
    log = box.log.read_text()
    assert "line blocked refuses 100, from 015112345678 on trunk local" in log
    assert "no line answers 100 on trunk local: line 'blocked': calling 'raw' is not in blocked.csv;" in log
    assert "so 2 others: appliance route-test says more" in log
