"""The box calls SIPp, through the same endpoint that its own calls go out by."""

from __future__ import annotations

import asyncio
import ipaddress
from pathlib import Path

import pytest

from appliance.cli.box import HOST, free_port
from appliance.cli.dialler import SipDialler
from appliance.cli.softphone import CallFailed, Softphone
from appliance.signalling.leg import HangupCause
from appliance.signalling.sip_endpoint import ListenOn, SipEndpoint
from appliance.signalling.sip_legs import SipLeg
from appliance.signalling.trunks import TrunkRule
from tests.interop import sipp
from tests.interop.claims import proves
from tests.waiting import LIMIT_S

pytestmark = [pytest.mark.peer, pytest.mark.skipif(bool(sipp.missing()), reason=sipp.missing())]


async def place(peer: sipp.Sipp, talk_s: float = 0.5, hang_up: bool = True, timeout_s: float = 15.0) -> str:
    """Call, stay for ``talk_s``, hang up or wait until the peer does; says who ended it."""
    await asyncio.to_thread(peer.wait_ready)
    async with SipDialler(HOST) as dialler, Softphone(dialler) as phone:
        await phone.dial(peer.uri, timeout_s)
        if not hang_up:
            return await phone.wait_hangup(LIMIT_S)
        await asyncio.sleep(talk_s)
        await phone.hangup()
    return "us"


async def finish(peer: sipp.Sipp) -> str:
    return await asyncio.to_thread(peer.wait)


@proves("Signalling: UAC: answered call, BYE from either side")
@pytest.mark.parametrize("scenario", ["uas_call", "uas_bye"])
async def test_a_call(scenario: str, tmp_path: Path) -> None:
    with sipp.Sipp(scenario, tmp_path) as peer:
        ended = await place(peer, hang_up=scenario == "uas_call")
        await finish(peer)
    assert ended == {"uas_call": "us", "uas_bye": "them"}[scenario]


@proves("Signalling: UAC: early media (183)")
async def test_early_media(tmp_path: Path) -> None:
    with sipp.Sipp("uas_early", tmp_path) as peer:
        await place(peer)
        await finish(peer)


@proves("Signalling: UAC: forked 18x and 2xx, the losers ACKed and BYEd")
@pytest.mark.parametrize("scenario", ["uas_forked", "uas_forked_early"])
async def test_a_forked_call(scenario: str, tmp_path: Path) -> None:
    with sipp.Sipp(scenario, tmp_path) as peer:
        await place(peer, talk_s=1.0)
        await finish(peer)


@proves("Signalling: UAC: CANCEL while it rings")
async def test_giving_up_while_it_rings(tmp_path: Path) -> None:
    with sipp.Sipp("uas_cancel", tmp_path) as peer:
        with pytest.raises(CallFailed):
            await place(peer, timeout_s=1.0)
        await finish(peer)


@proves("Signalling: UAC: a 200 that crosses the CANCEL")
async def test_an_answer_that_crosses_the_cancel(tmp_path: Path) -> None:
    with sipp.Sipp("uas_cancel_race", tmp_path) as peer:
        with pytest.raises(CallFailed):
            await place(peer, timeout_s=1.0)
        await finish(peer)


@proves("Signalling: UAC: redirected (3xx) within limits")
async def test_a_phone_that_has_moved(tmp_path: Path) -> None:
    with sipp.Sipp("uas_call", tmp_path / "there") as there:
        await asyncio.to_thread(there.wait_ready)
        keys = {"target": f"{HOST}:{there.port}"}
        with sipp.Sipp("uas_302", tmp_path / "moved", keys=keys) as moved:
            await place(moved)
            await finish(moved)
        await finish(there)


@proves("Signalling: UAC: redirected (3xx) within limits")
async def test_phones_that_send_a_caller_round_and_round(tmp_path: Path) -> None:
    port = free_port()
    with sipp.Sipp("uas_302", tmp_path, port=port, keys={"target": f"{HOST}:{port}"}) as moved:
        with pytest.raises(CallFailed) as failed:
            await place(moved)
        await finish(moved)
    assert failed.value.status == 302


@proves("Signalling: UAS: CANCEL of a call that rings")
async def test_a_caller_who_gives_up(tmp_path: Path) -> None:
    """The shipped lines answer at once; here the endpoint lets it ring."""
    trunk = TrunkRule("local", allow=(ipaddress.ip_network("127.0.0.0/8"),))
    causes: list[HangupCause] = []

    def ring(leg: SipLeg) -> None:
        leg.on_hangup = causes.append
        leg.ring()

    endpoint = SipEndpoint([ListenOn("udp", HOST, 0)], trunks=[trunk], on_call=ring)
    await endpoint.start()
    try:
        await asyncio.to_thread(sipp.call, "uac_cancel", tmp_path, (HOST, endpoint.port))
    finally:
        await endpoint.stop()
    assert [cause.by for cause in causes] == ["caller"]


@pytest.mark.parametrize("status", [486, 503, 603])
async def test_a_refusal(status: int, tmp_path: Path) -> None:
    with sipp.Sipp(f"uas_{status}", tmp_path) as peer:
        with pytest.raises(CallFailed) as failed:
            await place(peer)
        await finish(peer)
    assert failed.value.status == status
