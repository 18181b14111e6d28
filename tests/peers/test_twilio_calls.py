"""A whole box at Twilio: calls that come and are answered, cut short, keyed, hung up, refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from appliance.cli.box import Box
from tests.bench import lines, records
from tests.carriers.at_twilio import reach, trunk, twilio_account
from tests.carriers.twilio_sim import TwilioSim

pytestmark = pytest.mark.peer


@pytest.fixture
async def twilio() -> AsyncIterator[TwilioSim]:
    async with twilio_account() as sim:
        yield sim


@pytest.fixture
async def twilio_box(twilio: TwilioSim, start_box: Callable[..., Box], tmp_path: Path) -> Box:
    settings = {**lines.settings(tmp_path), "trunks": {"twilio": trunk(twilio.api_url)}}
    box = await asyncio.to_thread(start_box, settings)
    reach(twilio, box)
    return box


async def test_a_call_is_answered_branched_and_ended(twilio: TwilioSim, twilio_box: Box) -> None:
    call = await twilio.call(lines.KEYS, "+491701234567")
    stream = await call.streaming()
    await stream.wait_heard()
    stream.press("2")
    assert await call.wait_ended(20.0) == "completed"
    (record,) = await asyncio.to_thread(records.wait_settled, twilio_box.database, 1)
    assert (record["disposition"], record["hangup_by"], record["protocol"]) == ("completed", "agent", "twilio")
    assert (record["calling"], record["called"], record["trunk"]) == ("+491701234567", lines.KEYS, "twilio")
    assert any(turn["by"] == "key" for turn in record["turns"])
    assert "pressed two" in record["turns"][-1]["agent_text"]
    assert records.recording_seconds(record["recording_path"], twilio_box.recordings) > 1.0
    twilio.check()


async def test_a_caller_who_hangs_up_ends_the_call(twilio: TwilioSim, twilio_box: Box) -> None:
    call = await twilio.call(lines.LISTENER, "+491701234567")
    stream = await call.streaming()
    await stream.wait_heard()
    await call.hang_up()
    (record,) = await asyncio.to_thread(records.wait_settled, twilio_box.database, 1)
    assert (record["disposition"], record["hangup_by"]) == ("completed", "caller")
    twilio.check()


async def test_a_number_without_a_line_is_rejected(twilio: TwilioSim, twilio_box: Box) -> None:
    call = await twilio.call("9999", "+491701234567")
    await call.wait_ended()
    assert call.rejected
    assert call.streams == []
    twilio.check()


async def test_a_stream_that_breaks_is_opened_again_and_the_call_goes_on(twilio: TwilioSim, twilio_box: Box) -> None:
    call = await twilio.call(lines.KEYS, "+491701234567")
    stream = await call.streaming()
    await stream.wait_heard()
    stream.sever()
    again = await call.streaming(number=2)
    again.press("2")
    assert await call.wait_ended(20.0) == "completed"
    (record,) = await asyncio.to_thread(records.wait_settled, twilio_box.database, 1)
    assert (record["disposition"], record["hangup_by"]) == ("completed", "agent")
    twilio.check()
