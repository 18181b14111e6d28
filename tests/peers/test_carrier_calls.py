"""A whole box at each carrier: calls that come and are answered, keyed, hung up, refused, and broken in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from appliance.cli.box import Box
from tests.bench import lines, records
from tests.carriers.accounts import CARRIERS, TELNYX, Carrier

pytestmark = [pytest.mark.peer, pytest.mark.asyncio(loop_scope="module")]

CALLER = "+491701234567"


@pytest.fixture(scope="module", params=CARRIERS, ids=str)
def carrier(request: pytest.FixtureRequest) -> Carrier:
    found: Carrier = request.param
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sim(carrier: Carrier) -> AsyncIterator[Any]:
    async with carrier.account() as sim:
        yield sim


@pytest.fixture(scope="module")
def box(carrier: Carrier, sim: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    folder = tmp_path_factory.mktemp(carrier.name)
    settings = {**lines.settings(folder), "trunks": {carrier.name: carrier.trunk(sim)}}
    with Box(folder / "box", settings) as box:
        carrier.reach(sim, box)
        yield box
    assert box.stop() == 0, box.log_tail()


@pytest.fixture
def before(box: Box) -> int:
    """How many calls are on record."""
    return len(records.calls(box.database))


async def test_a_call_is_answered_branched_and_ended(carrier: Carrier, sim: Any, box: Box, before: int) -> None:
    call = await sim.call(lines.KEYS, CALLER, caller_name="Ann")
    stream = await call.streaming()
    await stream.wait_heard()
    stream.press("2")
    assert await call.wait_ended() == carrier.completed
    record = (await asyncio.to_thread(records.wait_settled, box.database, before + 1))[-1]
    assert (record["disposition"], record["hangup_by"], record["protocol"]) == ("completed", "agent", carrier.name)
    assert (record["calling"], record["called"], record["trunk"]) == (CALLER, lines.KEYS, carrier.name)
    assert any(turn["by"] == "key" for turn in record["turns"])
    assert "pressed two" in record["turns"][-1]["agent_text"]
    assert records.recording_seconds(record["recording_path"], box.recordings) > 1.0
    sim.check()


async def test_a_caller_who_hangs_up_ends_the_call(carrier: Carrier, sim: Any, box: Box, before: int) -> None:
    call = await sim.call(lines.LISTENER, CALLER)
    await (await call.streaming()).wait_heard()
    await call.hang_up()
    record = (await asyncio.to_thread(records.wait_settled, box.database, before + 1))[-1]
    assert (record["disposition"], record["hangup_by"]) == ("completed", "caller")
    if carrier is TELNYX:
        assert [action for action, _ in call.commands] == ["answer"]
    sim.check()


async def test_a_number_without_a_line_is_rejected(carrier: Carrier, sim: Any, box: Box) -> None:
    call = await sim.call("9999", CALLER)
    await call.wait_ended()
    assert carrier.refused(call)
    assert call.streams == []
    sim.check()


async def test_a_stream_that_breaks_is_opened_again_and_the_call_goes_on(
    carrier: Carrier, sim: Any, box: Box, before: int
) -> None:
    call = await sim.call(lines.KEYS, CALLER)
    stream = await call.streaming()
    await stream.wait_heard()
    stream.sever()
    again = await call.streaming(number=2)
    again.press("2")
    assert await call.wait_ended() == carrier.completed
    record = (await asyncio.to_thread(records.wait_settled, box.database, before + 1))[-1]
    assert (record["disposition"], record["hangup_by"]) == ("completed", "agent")
    sim.check()
