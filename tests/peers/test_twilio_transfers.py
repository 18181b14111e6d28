"""A whole box at Twilio hands its callers on: by Twilio's own means, or through the box."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from appliance.cli.box import Box
from tests.bench import lines, records
from tests.carriers.at_twilio import reach, trunk, twilio_account
from tests.carriers.twilio_call import Callee
from tests.carriers.twilio_sim import TwilioSim

pytestmark = pytest.mark.peer

TARGET = "+4930999999"
CALLER = "+491701234567"
LINES = {"blind": "2001", "announced": "2002"}


@pytest.fixture
async def twilio() -> AsyncIterator[TwilioSim]:
    async with twilio_account() as sim:
        yield sim


def settings(folder: Path, sim: TwilioSim, how: str) -> dict[str, object]:
    """A box with two lines that hand every caller on, and speak again where nobody answers."""
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
        for (name, number), more in zip(
            LINES.items(), ({}, {"kind": "attended", "announce": "A call for you."}), strict=True
        )
    ]
    return {
        **lines.STANDARD_FAKES,
        **lines.dialplan(folder, plans),
        "trunks": {"twilio": {**trunk(sim.api_url), "transfer": how}},
        "routes": [{"to": "*", "trunks": ["twilio"]}],
        "limits.drain_s": 5,
    }


async def started(start_box: Callable[..., Box], folder: Path, sim: TwilioSim, how: str = "auto") -> Box:
    box = await asyncio.to_thread(start_box, settings(folder, sim, how))
    reach(sim, box)
    return box


async def record_of(box: Box) -> dict[str, object]:
    (record,) = await asyncio.to_thread(records.wait_settled, box.database, 1)
    return dict(record)


async def test_the_target_answers(twilio: TwilioSim, start_box: Callable[..., Box], tmp_path: Path) -> None:
    box = await started(start_box, tmp_path, twilio)
    call = await twilio.call(LINES["blind"], CALLER)
    await call.until(lambda: call.dialled is not None and call.dialled.status == "in-progress", "answer", 20)
    record = await record_of(box)
    assert record["hangup_text"] == f"transferred to {TARGET}"
    assert call.status == "in-progress", "they talk without the box"
    assert call.dialled is not None
    await call.dialled.hang_up()
    assert await call.wait_ended() == "completed"
    twilio.check()


@pytest.mark.parametrize("outcome", ["busy", "failed"])
async def test_the_target_does_not(
    twilio: TwilioSim, start_box: Callable[..., Box], tmp_path: Path, outcome: str
) -> None:
    twilio.callees[TARGET] = Callee(outcome)  # type: ignore[arg-type]
    box = await started(start_box, tmp_path, twilio)
    call = await twilio.call(LINES["blind"], CALLER)
    again = await call.streaming(number=2, timeout_s=20)
    await again.wait_heard()
    assert await call.wait_ended(30) == "completed"
    record = await record_of(box)
    assert (record["disposition"], record["hangup_by"]) == ("completed", "agent")
    assert TARGET in str(record["slots"]) and "failed" in str(record["slots"])
    twilio.check()


async def test_with_an_announcement_they_meet_in_a_conference(
    twilio: TwilioSim, start_box: Callable[..., Box], tmp_path: Path
) -> None:
    box = await started(start_box, tmp_path, twilio)
    call = await twilio.call(LINES["announced"], CALLER)
    await call.until(lambda: any(len(room.members) == 2 for room in twilio.rooms.values()), "conference", 30)
    (placed,) = (one for one in twilio.calls.values() if one.direction == "outbound-api")
    assert (placed.to, placed.from_) == (TARGET, "+4930111")
    record = await record_of(box)
    assert record["hangup_text"] == f"transferred to {TARGET}"
    assert (call.status, placed.status) == ("in-progress", "in-progress")
    await placed.hang_up()
    assert await call.wait_ended() == "completed"
    twilio.check()


async def test_through_the_box(twilio: TwilioSim, start_box: Callable[..., Box], tmp_path: Path) -> None:
    box = await started(start_box, tmp_path, twilio, how="bridge")
    twilio.callees[TARGET] = Callee(talk_s=1.0)
    call = await twilio.call(LINES["blind"], CALLER)
    assert await call.wait_ended(30) == "completed"
    assert call.dialled is None and len(twilio.streams) == 2
    record = await record_of(box)
    assert record["hangup_text"] == f"put through to {TARGET}, which ended the call (200)"
    twilio.check()
