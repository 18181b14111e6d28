"""A whole box at Telnyx hands its callers on: by Telnyx's own means, or through the box."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from appliance.cli.box import Box
from tests.audio.heard import tone_s
from tests.bench import lines, records
from tests.carriers.callers import tone
from tests.carriers.telnyx_sim import Callee, SimCall, TelnyxSim
from tests.peers.test_telnyx_calls import PUBLIC, reach, trunk
from tests.waiting import eventually

pytestmark = pytest.mark.peer

TARGET = "+4930999999"
CALLER = "+491701234567"
BLIND, ANNOUNCED = "2001", "2002"


@pytest.fixture
async def telnyx() -> AsyncIterator[TelnyxSim]:
    async with TelnyxSim(f"{PUBLIC}/telnyx/webhook", twice=True) as sim:
        yield sim


async def started(start_box: Callable[..., Box], folder: Path, sim: TelnyxSim, how: str = "auto") -> Box:
    """A box with two lines that hand every caller on, and speak again where nobody answers."""
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
        **lines.dialplan(folder, plans),
        "trunks": {"telnyx": {**trunk(sim), "transfer": how}},
        "routes": [{"to": "*", "trunks": ["telnyx"]}],
        "limits.drain_s": 5,
    }
    box = await asyncio.to_thread(start_box, settings)
    reach(sim, box)
    return box


async def record_of(box: Box) -> dict[str, object]:
    (record,) = await asyncio.to_thread(records.wait_settled, box.database, 1)
    return dict(record)


def placed(sim: TelnyxSim) -> SimCall:
    (call,) = (one for one in sim.calls.values() if one.direction == "outgoing")
    return call


@pytest.mark.parametrize("line", [BLIND, ANNOUNCED])
async def test_the_target_answers(telnyx: TelnyxSim, start_box: Callable[..., Box], tmp_path: Path, line: str) -> None:
    box = await started(start_box, tmp_path, telnyx)
    call = await telnyx.call(line, CALLER)
    await call.until(lambda: call.peer is not None, "peer", 30)
    record = await record_of(box)
    assert record["hangup_text"] == f"transferred to {TARGET}"
    assert not call.ended.is_set(), "they talk without the box"
    assert not placed(telnyx).ended.is_set()
    assert placed(telnyx).to == TARGET
    await placed(telnyx).hang_up()
    assert await call.wait_ended() == "normal_clearing"
    assert "hangup" not in [action for action, _ in call.commands]
    telnyx.check()


@pytest.mark.parametrize("outcome", ["busy", "failed"])
async def test_the_target_does_not(
    telnyx: TelnyxSim, start_box: Callable[..., Box], tmp_path: Path, outcome: str
) -> None:
    telnyx.callees[TARGET] = Callee(outcome)  # type: ignore[arg-type]
    box = await started(start_box, tmp_path, telnyx)
    call = await telnyx.call(BLIND, CALLER)
    assert await call.wait_ended(30) == "normal_clearing"
    record = await record_of(box)
    assert (record["disposition"], record["hangup_by"]) == ("completed", "agent")
    assert TARGET in str(record["slots"])
    assert "failed" in str(record["slots"])
    assert len(call.streams) == 1, "the caller's stream has gone on"
    telnyx.check()


async def test_through_the_box(telnyx: TelnyxSim, start_box: Callable[..., Box], tmp_path: Path) -> None:
    box = await started(start_box, tmp_path, telnyx, how="bridge")
    call = await telnyx.call(BLIND, CALLER)
    await eventually(lambda: len(telnyx.streams) == 2)
    caller, other = call.streams[0], placed(telnyx).streams[0]
    await other.say(tone(700, 3.0))
    await eventually(lambda: tone_s(caller.heard(), 700.0) > 0.5, "the target's voice at the caller's")
    await placed(telnyx).hang_up()
    assert await call.wait_ended(30) == "normal_clearing"
    record = await record_of(box)
    assert record["hangup_text"] == f"put through to {TARGET}, which ended the call (200)"
    telnyx.check()
