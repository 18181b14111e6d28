"""A whole box at Twilio: calls that come and are answered, cut short, keyed, hung up, refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.cli.box import HOST, Box
from tests.bench import lines, records
from tests.carriers.twilio_sim import TwilioSim

pytestmark = pytest.mark.peer

SID = "AC" + "5" * 32
TOKEN = "7" * 32
PUBLIC = "https://voice.example.com"
MEDIA = "wss://voice.example.com"


def trunk(api_url: str) -> dict[str, object]:
    return {
        "kind": "twilio", "account_sid": SID, "auth_token": TOKEN, "public_url": PUBLIC, "api_url": api_url,
        "allow_prefixes": ["+49"], "caller_id": "+4930111",
    }  # fmt: skip


@pytest.fixture
async def twilio():
    async with TwilioSim(f"{PUBLIC}/twilio/voice", status_url=f"{PUBLIC}/twilio/status", account_sid=SID,
                         auth_token=TOKEN) as sim:  # fmt: skip
        yield sim


def reach(sim: TwilioSim, box: Box) -> None:
    """Where the proxy at the public address leads."""
    sim.reach = {PUBLIC: f"http://{HOST}:{box.http_port}", MEDIA: f"ws://{HOST}:{box.settings['listen.media.port']}"}


async def test_a_call_is_answered_branched_and_ended(
    twilio: TwilioSim, start_box: Callable[..., Box], tmp_path: Path
) -> None:
    settings = {**lines.settings(tmp_path), "trunks": {"twilio": trunk(twilio.api_url)}}
    box = await asyncio.to_thread(start_box, settings)
    reach(twilio, box)
    call = await twilio.call(lines.KEYS, "+491701234567")
    stream = await call.streaming()
    await stream.wait_heard()
    stream.press("2")
    assert await call.wait_ended(20.0) == "completed"
    (record,) = await asyncio.to_thread(records.wait_settled, box.database, 1)
    assert (record["disposition"], record["hangup_by"], record["protocol"]) == ("completed", "agent", "twilio")
    assert any(turn["by"] == "key" for turn in record["turns"])
    assert "pressed two" in record["turns"][-1]["agent_text"]
    twilio.check()
