"""What the user agent does inside a call, against SIPp: offers of ours, glare, PRACK, session timers, transfers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from appliance.sip.call import Call
from appliance.sip.call_state import CallOptions
from appliance.sip.events import (
    Answered,
    CallClosed,
    InfoAnswered,
    Progress,
    ReferProgress,
    ReofferAnswered,
    TransferDone,
)
from tests.interop import sipp
from tests.interop.claims import proves
from tests.interop.core_agent import CoreAgent
from tests.peers import raw_sip

pytestmark = [pytest.mark.peer, pytest.mark.skipif(bool(sipp.missing()), reason=sipp.missing())]

SDP = raw_sip.sdp().encode()


@pytest.fixture
async def core() -> AsyncIterator[CoreAgent]:
    async with CoreAgent(SDP) as agent:
        yield agent


async def play(
    core: CoreAgent,
    scenario: str,
    folder: Path,
    talk: Callable[[Call], Awaitable[None]],
    body: bytes = SDP,
    options: CallOptions | None = None,
) -> str:
    """Call SIPp, do ``talk`` once it has answered, hang up; SIPp's messages."""
    with sipp.Sipp(scenario, folder) as peer:
        await asyncio.to_thread(peer.wait_ready)
        call = core.call(peer.uri, body, options)
        await core.wait(Answered)
        await talk(call)
        call.hangup(core.now)
        core.pump()
        await core.wait(CallClosed)
        return await asyncio.to_thread(peer.wait)


@proves("Signalling: in dialog: PRACK and 100rel, box places the call")
async def test_a_reliable_183_is_confirmed(core: CoreAgent, tmp_path: Path) -> None:
    async def talk(call: Call) -> None:
        (early,) = (event for event in core.events if isinstance(event, Progress) and event.status == 183)
        assert early.body is not None
        answered = await core.wait(Answered)
        assert answered.body == early.body, "the 200 had no SDP: the answer was that of the 183"

    await play(core, "uas_prack", tmp_path, talk)


@proves("Signalling: in dialog: UPDATE or re-INVITE sent")
async def test_changes_of_ours_leave_one_after_another(core: CoreAgent, tmp_path: Path) -> None:
    async def talk(call: Call) -> None:
        assert "UPDATE" in call.remote_allows
        call.update(SDP, core.now)
        call.info("application/dtmf-relay", b"Signal=5\r\nDuration=160\r\n", core.now)
        core.pump()
        assert (await core.wait(InfoAnswered)).status == 200
        call.reoffer(SDP, core.now)
        core.pump()
        assert (await core.wait(ReofferAnswered, 2)).body is not None

    await play(core, "uas_changes", tmp_path, talk)


@proves("Signalling: in dialog: glare, 491 and back-off")
async def test_offers_that_cross(core: CoreAgent, tmp_path: Path) -> None:
    waited: list[float] = []

    async def talk(call: Call) -> None:
        call.reoffer(SDP, core.now)
        core.pump()
        began = core.now
        await core.wait(ReofferAnswered)
        waited.append(core.now - began)

    seen = await play(core, "uas_glare", tmp_path, talk)
    assert len(re.findall(r"SIP/2.0 491", seen)) == 2, "one each way, both acknowledged"
    assert waited[0] >= 2.1, "who began the call waits 2.1 to 4 s"


@proves("Signalling: in dialog: delayed offer")
async def test_an_offer_of_the_called_side(core: CoreAgent, tmp_path: Path) -> None:
    async def talk(call: Call) -> None:
        assert (await core.wait(Answered)).needs_answer
        call.acknowledge(SDP, core.now)
        core.pump()

    await play(core, "uas_offers", tmp_path, talk, body=b"")


@proves("Signalling: in dialog: session timer, interval too small (422, Min-SE)")
async def test_an_interval_that_the_called_side_finds_too_small(core: CoreAgent, tmp_path: Path) -> None:
    async def talk(call: Call) -> None:
        assert (call.session.interval_s, call.session.we_refresh) == (900, True)

    await play(core, "uas_422", tmp_path, talk, options=CallOptions(session_expires_s=120))


@proves("Signalling: in dialog: session timer, box refreshes")
async def test_a_peer_without_update_is_refreshed_by_a_reinvite(core: CoreAgent, tmp_path: Path) -> None:
    async def talk(call: Call) -> None:
        assert (await core.wait(ReofferAnswered)).refresh

    await play(core, "uas_refreshed", tmp_path, talk)


@proves("Signalling: transfer: REFER sent, attended (Replaces)")
async def test_an_attended_transfer(core: CoreAgent, tmp_path: Path) -> None:
    async def talk(call: Call) -> None:
        call.refer(f"sip:300@{sipp.HOST}", core.now, replaces="other@call;to-tag=one;from-tag=two")
        core.pump()
        done = await core.wait(TransferDone)
        assert done.status == 200
        assert [event.status for event in core.events if isinstance(event, ReferProgress)] == [100, 200]

    await play(core, "uas_referred", tmp_path, talk)
