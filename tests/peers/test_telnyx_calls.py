"""A whole box at Telnyx: calls that come and are answered, keyed, hung up, refused, broken and handed on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from appliance.cli.box import HOST, Box
from tests.bench import lines, records
from tests.carriers.telnyx_sim import TelnyxSim

pytestmark = pytest.mark.peer
PUBLIC = "https://voice.example.com"


@pytest.fixture
async def telnyx() -> AsyncIterator[TelnyxSim]:
    async with TelnyxSim(f"{PUBLIC}/telnyx/webhook", twice=True) as sim:
        yield sim


def trunk(telnyx: TelnyxSim) -> dict[str, object]:
    """Settings of a trunk at that account."""
    return {
        "kind": "telnyx", "api_key": telnyx.api_key, "public_key": telnyx.public_key, "public_url": PUBLIC,
        "connection_id": telnyx.connection_id, "api_url": telnyx.api_url, "allow_prefixes": ["+49"],
        "caller_id": "+4930111",
    }  # fmt: skip


def reach(telnyx: TelnyxSim, box: Box) -> None:
    """Lead the public address to the box."""
    media = f"ws://{HOST}:{box.settings['listen.media.port']}"
    telnyx.reach = {PUBLIC: f"http://{HOST}:{box.http_port}", PUBLIC.replace("https", "wss"): media}


@pytest.fixture
async def telnyx_box(telnyx: TelnyxSim, start_box: Callable[..., Box], tmp_path: Path) -> Box:
    settings = {**lines.settings(tmp_path), "trunks": {"telnyx": trunk(telnyx)}}
    box = await asyncio.to_thread(start_box, settings)
    reach(telnyx, box)
    return box


async def test_a_call_is_answered_branched_and_ended(telnyx: TelnyxSim, telnyx_box: Box) -> None:
    call = await telnyx.call(lines.KEYS, "+491701234567", caller_name="Ann")
    stream = await call.streaming()
    await stream.wait_heard()
    stream.press("2")
    assert await call.wait_ended(20.0) == "normal_clearing"
    (record,) = await asyncio.to_thread(records.wait_settled, telnyx_box.database, 1)
    assert (record["disposition"], record["hangup_by"], record["protocol"]) == ("completed", "agent", "telnyx")
    assert (record["calling"], record["called"], record["trunk"]) == ("+491701234567", lines.KEYS, "telnyx")
    assert "pressed two" in record["turns"][-1]["agent_text"]
    telnyx.check()


async def test_a_caller_who_hangs_up_ends_the_call(telnyx: TelnyxSim, telnyx_box: Box) -> None:
    call = await telnyx.call(lines.LISTENER, "+491701234567")
    await (await call.streaming()).wait_heard()
    await call.hang_up()
    (record,) = await asyncio.to_thread(records.wait_settled, telnyx_box.database, 1)
    assert (record["disposition"], record["hangup_by"]) == ("completed", "caller")
    assert [action for action, _ in call.commands] == ["answer"]
    telnyx.check()


async def test_a_number_without_a_line_is_rejected(telnyx: TelnyxSim, telnyx_box: Box) -> None:
    call = await telnyx.call("9999", "+491701234567")
    assert await call.wait_ended() == "not_found"
    assert call.streams == []
    telnyx.check()


async def test_a_stream_that_breaks_is_opened_again_and_the_call_goes_on(telnyx: TelnyxSim, telnyx_box: Box) -> None:
    call = await telnyx.call(lines.KEYS, "+491701234567")
    stream = await call.streaming()
    await stream.wait_heard()
    stream.sever()
    again = await call.streaming(number=2)
    again.press("2")
    assert await call.wait_ended(20.0) == "normal_clearing"
    (record,) = await asyncio.to_thread(records.wait_settled, telnyx_box.database, 1)
    assert (record["disposition"], record["hangup_by"]) == ("completed", "agent")
    telnyx.check()
