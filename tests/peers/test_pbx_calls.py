"""A whole box beside a PBX: Asterisk by AudioSocket and by a WebSocket, FreeSWITCH by a WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import aiohttp
import pytest

from appliance.cli.box import HOST, Box, free_port
from appliance.cli.carrier_caller import CarrierCaller
from tests.bench import lines, records
from tests.carriers.audiosocket_sim import AudioSocketCaller
from tests.carriers.pbx_sim import AsteriskCaller, FreeSwitchCaller

pytestmark = pytest.mark.peer
ALLOW = ["127.0.0.1/32"]


@pytest.fixture(scope="module")
def pbx_box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Whoever does not say whom it calls gets the line that waits for keys."""
    folder = tmp_path_factory.mktemp("pbx")
    port = free_port()
    trunks = {
        "pbx": {"kind": "pbx", "allow": ALLOW, "called": lines.KEYS},
        "asterisk": {"kind": "audiosocket", "allow": ALLOW},
    }
    settings = {
        **lines.settings(folder), "trunks": trunks,
        "listen.streams": [{"kind": "audiosocket", "host": HOST, "port": port}],
    }  # fmt: skip
    with Box(folder / "box", settings) as box:
        box.audiosocket_port = port  # type: ignore[attr-defined]
        yield box
    assert box.stop() == 0, box.log_tail()


@pytest.fixture
def before(pbx_box: Box) -> int:
    """How many calls are on record."""
    return len(records.calls(pbx_box.database))


def media(box: Box, query: str = "") -> str:
    return f"ws://{HOST}:{box.settings['listen.media.port']}/pbx/media{query}"


async def announced(box: Box, kind: str = "audiosocket", called: str = lines.KEYS) -> str:
    """What a dialplan gets from CURL()."""
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"http://{HOST}:{box.http_port}/{kind}/calls", data={"called": called, "calling": "200"}) as said,
    ):
        assert said.status == 200
        return await said.text()


async def audiosocket(box: Box) -> CarrierCaller:
    port: int = box.audiosocket_port  # type: ignore[attr-defined]
    return await AudioSocketCaller.open(HOST, port, rate_hz=16_000, call_id=await announced(box))


async def asterisk(box: Box) -> CarrierCaller:
    return await AsteriskCaller.open(media(box, f"?called={lines.KEYS}&calling=200"))


async def asterisk_in_plain_text(box: Box) -> CarrierCaller:
    return await AsteriskCaller.open(media(box, f"?call={await announced(box, 'pbx')}"), form="slin16", as_json=False)


async def freeswitch(box: Box) -> CarrierCaller:
    return await FreeSwitchCaller.open(media(box, "?rate=16000&calling=200"), rate_hz=16_000)


@pytest.mark.parametrize("way", [audiosocket, asterisk, asterisk_in_plain_text])
async def test_a_call_is_answered_branched_and_ended(
    pbx_box: Box, before: int, way: Callable[[Box], Awaitable[CarrierCaller]]
) -> None:
    caller = await way(pbx_box)
    await caller.wait_heard()
    caller.press("2")
    await caller.wait_ended(20.0)
    await caller.hang_up()
    record = (await asyncio.to_thread(records.wait_settled, pbx_box.database, before + 1))[-1]
    assert (record["disposition"], record["hangup_by"]) == ("completed", "agent")
    assert (record["calling"], record["called"]) == ("200", lines.KEYS)
    assert "pressed two" in record["turns"][-1]["agent_text"]
    assert caller.violations == []


@pytest.mark.parametrize("way", [audiosocket, asterisk, freeswitch])
async def test_a_caller_who_hangs_up_ends_the_call(
    pbx_box: Box, before: int, way: Callable[[Box], Awaitable[CarrierCaller]]
) -> None:
    caller = await way(pbx_box)
    await caller.wait_heard()
    await caller.hang_up()
    record = (await asyncio.to_thread(records.wait_settled, pbx_box.database, before + 1))[-1]
    assert (record["disposition"], record["hangup_by"], record["calling"]) == ("completed", "caller", "200")
    assert caller.violations == []


async def test_a_stream_that_nobody_announced_is_closed(pbx_box: Box) -> None:
    port: int = pbx_box.audiosocket_port  # type: ignore[attr-defined]
    caller = await AudioSocketCaller.open(HOST, port)
    await caller.wait_ended(10.0)
    await caller.hang_up()
    assert "not announced in the last 30 s (POST /audiosocket/asterisk/calls), and trunk asterisk has no 'called'" in (
        pbx_box.log.read_text()
    )
