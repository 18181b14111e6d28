"""A whole box at each carrier hands its callers on: by the carrier's own means, or through the box."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.cli.box import Box
from tests.audio.heard import tone_s
from tests.bench import lines, records
from tests.carriers import telnyx_sim, twilio_call
from tests.carriers.accounts import CARRIERS, TELNYX, TWILIO, Carrier
from tests.carriers.callers import tone
from tests.waiting import eventually

pytestmark = [pytest.mark.peer, pytest.mark.parametrize("carrier", CARRIERS, ids=str)]

TARGET = "+4930999999"
CALLER = "+491701234567"
BLIND, ANNOUNCED = "2001", "2002"


@pytest.fixture
async def sim(carrier: Carrier) -> AsyncIterator[Any]:
    async with carrier.account() as sim:
        yield sim


@pytest.fixture
def started(carrier: Carrier, sim: Any, start_box: Callable[..., Box], tmp_path: Path) -> Callable[..., Box]:
    """Starts a box with two lines that hand every caller on, and speak again where nobody answers."""

    def start(how: str = "auto") -> Box:
        announced = {"kind": "attended", "announce": "A call for you."}
        plans = [
            {
                "name": name,
                "match": {"called": number},
                "greeting": "One moment.",
                "flow": {
                    "on": {"transfer": {"to": TARGET, "timeout_s": 15, **more}, "failed": "back"},
                    "back": {"hang_up": "Nobody answers."},
                },
            }
            for name, number, more in (("blind", BLIND, {}), ("announced", ANNOUNCED, announced))
        ]
        settings = {
            **lines.STANDARD_FAKES,
            **lines.dialplan(tmp_path, plans),
            "trunks": {carrier.name: {**carrier.trunk(sim), "transfer": how}},
            "routes": [{"to": "*", "trunks": [carrier.name]}],
            "limits.drain_s": 5,
        }
        box = start_box(settings)
        carrier.reach(sim, box)
        return box

    return start


async def record_of(box: Box) -> dict[str, object]:
    (record,) = await asyncio.to_thread(records.wait_settled, box.database, 1)
    return dict(record)


def placed(sim: Any, call: Any) -> Any:
    """The other call of the account, which the box placed."""
    (other,) = (one for one in sim.calls.values() if one is not call)
    assert "out" in other.direction
    return other


async def target_of(carrier: Carrier, sim: Any, call: Any, line: str) -> Any:
    """The leg of the target, once it and the caller talk without the box."""
    if carrier is TELNYX:
        await call.until(lambda: call.peer is not None, "peer")
    elif line == BLIND:
        await call.until(lambda: call.dialled is not None and call.dialled.status == "in-progress", "answer")
        return call.dialled
    else:
        await call.until(lambda: any(len(room.members) == 2 for room in sim.rooms.values()), "conference")
    return placed(sim, call)


@pytest.mark.parametrize("line", [BLIND, ANNOUNCED], ids=["blind", "announced"])
async def test_the_target_answers(carrier: Carrier, sim: Any, started: Callable[..., Box], line: str) -> None:
    box = await asyncio.to_thread(started)
    call = await sim.call(line, CALLER)
    target = await target_of(carrier, sim, call, line)
    assert target.to == TARGET
    record = await record_of(box)
    assert record["hangup_text"] == f"transferred to {TARGET}"
    assert not call.ended.is_set(), "they talk without the box"
    assert not target.ended.is_set()
    if carrier is TWILIO:
        assert (call.status, target.status) == ("in-progress", "in-progress")
    if carrier is TWILIO and line == ANNOUNCED:
        assert target.from_ == "+4930111"
    await target.hang_up()
    assert await call.wait_ended() == carrier.completed
    if carrier is TELNYX:
        assert "hangup" not in [action for action, _ in call.commands]
    sim.check()


@pytest.mark.parametrize("outcome", ["busy", "failed"])
async def test_the_target_does_not(carrier: Carrier, sim: Any, started: Callable[..., Box], outcome: str) -> None:
    callee = {TWILIO: twilio_call.Callee, TELNYX: telnyx_sim.Callee}[carrier]
    sim.callees[TARGET] = callee(outcome)  # type: ignore[arg-type]
    box = await asyncio.to_thread(started)
    call = await sim.call(BLIND, CALLER)
    await (await call.streaming(number=carrier.again)).wait_heard()
    assert await call.wait_ended() == carrier.completed
    assert len(call.streams) == carrier.again
    record = await record_of(box)
    assert (record["disposition"], record["hangup_by"]) == ("completed", "agent")
    assert TARGET in str(record["slots"]) and "failed" in str(record["slots"])
    sim.check()


async def test_through_the_box(carrier: Carrier, sim: Any, started: Callable[..., Box]) -> None:
    box = await asyncio.to_thread(started, "bridge")
    call = await sim.call(BLIND, CALLER)
    await eventually(lambda: len(sim.streams) == 2, call.story)
    target = placed(sim, call)
    await target.streams[0].say(tone(700, 3.0))
    await eventually(lambda: tone_s(call.streams[0].heard(), 700.0) > 0.5, "the target's voice at the caller's")
    if carrier is TWILIO:
        assert call.dialled is None
    await target.hang_up()
    assert await call.wait_ended() == carrier.completed
    record = await record_of(box)
    assert record["hangup_text"] == f"put through to {TARGET}, which ended the call (200)"
    sim.check()
