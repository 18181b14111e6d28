"""Kamailio as registrar and as the proxy on the way, for calls to the box and from it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from appliance.cli.box import HOST, Box, free_port
from appliance.cli.dialler import SoftphoneMedia
from appliance.signalling.sip_endpoint import ListenOn, SipEndpoint
from appliance.signalling.trunks import TrunkRule
from tests.bench import lines, records
from tests.interop import kamailio, sipp
from tests.interop.claims import proves
from tests.interop.conftest import quick_settings
from tests.interop.kamailio import PASSWORD, Kamailio, fill
from tests.waiting import block_until

_WHY = kamailio.missing() or sipp.missing()
pytestmark = [pytest.mark.peer, pytest.mark.skipif(bool(_WHY), reason=_WHY)]


def registering(box_line: str, *proxies: str, **more: object) -> dict[str, object]:
    """A trunk that registers as the number of a line, so that calls to it come back to that line."""
    return {
        "kind": "sip", "allow": [HOST], "proxy": list(proxies), "register": True, "register_interval_s": 60,
        "username": box_line, "password": PASSWORD, **more,
    }  # fmt: skip


def wait_trunk(box: Box, name: str, **wanted: object) -> dict[str, object]:
    """Wait until the box says so of a trunk."""

    def state() -> dict[str, object]:
        return dict(box.get_json("/trunks")[name])

    block_until(lambda: wanted.items() <= state().items(), lambda: f"{state()}\n{box.log_tail()}")
    return state()


@proves(
    "Signalling: REGISTER client: challenge, refresh, unregister at stop",
    "Signalling: OPTIONS: sent to qualify a trunk, its state in the metrics",
)
@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256"])
def test_a_registration(algorithm: str, start_box: Callable[..., Box], tmp_path: Path) -> None:
    with Kamailio(tmp_path / "kamailio", algorithm=algorithm, max_expires_s=4) as registrar:
        trunk = registering(lines.LISTENER, registrar.uri, qualify_s=2)
        box = start_box({**quick_settings(tmp_path), "trunks": {"carrier": trunk}})
        wait_trunk(box, "carrier", registered=True, reachable=True)
        refreshed = registrar.wait_seen("^REGISTER of 1001 expires 60 ", 3)
        assert len({line.split()[7] for line in refreshed}) == 1, "one Call-ID"
        assert algorithm in refreshed[0]
        assert len(registrar.seen("^challenged REGISTER")) == 1, "one challenge is enough while its nonce holds"
        assert 'appliance_trunk_registered{trunk="carrier"} 1.0' in box.get("/metrics")[1]
        assert box.stop() == 0
        registrar.wait_seen("^REGISTER of 1001 expires 0 ", 1)


@proves("Signalling: REGISTER client: 423 and Min-Expires", "Signalling: UAC: digest, stale nonce")
def test_a_registrar_that_wants_longer_and_whose_nonces_are_short(
    start_box: Callable[..., Box], tmp_path: Path
) -> None:
    with Kamailio(tmp_path / "kamailio", min_expires_s=90, max_expires_s=90, nonce_expire_s=1) as registrar:
        box = start_box({**quick_settings(tmp_path), "trunks": {"carrier": registering("1001", registrar.uri)}})
        registrar.wait_seen("^REGISTER of 1001 expires 90 ", 1)
        wait_trunk(box, "carrier", registered=True)
        time.sleep(2.5)
        assert box.stop() == 0
        registrar.wait_seen("^REGISTER of 1001 expires 0 ", 1)
        assert len(registrar.seen("^challenged REGISTER")) == 2, "the nonce was stale at the end"


@proves("Signalling: UAC: digest, nextnonce")
def test_a_registrar_that_gives_the_next_nonce(start_box: Callable[..., Box], tmp_path: Path) -> None:
    with sipp.Sipp("uas_nextnonce", tmp_path / "registrar") as registrar:
        registrar.wait_ready()
        trunk = registering("1001", f"sip:{HOST}:{registrar.port}")
        box = start_box({**quick_settings(tmp_path), "trunks": {"carrier": trunk}})
        block_until(lambda: "nonce-three" in registrar.messages(), registrar.messages)
        assert box.stop() == 0
        registrar.wait()


@proves("Signalling: REGISTER client: failover to the next proxy")
def test_a_registrar_that_is_not_there(start_box: Callable[..., Box], tmp_path: Path) -> None:
    nobody = f"sip:{HOST}:{free_port()};transport=tcp"
    with Kamailio(tmp_path / "kamailio") as registrar:
        trunk = registering("1001", nobody, registrar.uri)
        box = start_box({**quick_settings(tmp_path), "trunks": {"carrier": trunk}})
        wait_trunk(box, "carrier", registered=True)


def test_a_wrong_password_is_said_and_not_hammered(start_box: Callable[..., Box], tmp_path: Path) -> None:
    with Kamailio(tmp_path / "kamailio") as registrar:
        trunk = registering("1001", registrar.uri, password="wrong")
        box = start_box({**quick_settings(tmp_path), "trunks": {"carrier": trunk}})
        registrar.wait_seen("^challenged REGISTER", 2)
        time.sleep(3.0)
        assert len(registrar.seen("^challenged REGISTER")) == 2
        state = wait_trunk(box, "carrier", registered=False)
        assert "401" in str(state["registration"])


@proves("Signalling: proxy: Record-Route followed")
@pytest.mark.parametrize("line", [lines.LISTENER, lines.GOODBYE])
def test_a_call_through_the_proxy_that_stays_on_the_way(
    line: str, start_box: Callable[..., Box], tmp_path: Path
) -> None:
    with Kamailio(tmp_path / "kamailio") as proxy:
        box = start_box({**quick_settings(tmp_path), "trunks": {"carrier": registering(line, proxy.uri)}})
        wait_trunk(box, "carrier", registered=True)
        scenario = "uac_proxied" if line == lines.LISTENER else "uac_proxied_bye"
        sipp.call(scenario, tmp_path / "sipp", (HOST, proxy.port), service=line)
        (row,) = records.wait_settled(box.database, 1)
        assert row["disposition"] == "completed"
        assert row["hangup_by"] == ("caller" if line == lines.LISTENER else "agent")
        (bye,) = proxy.wait_seen("^in dialog BYE")
        assert "lr" in bye.split("route", 1)[1]


@proves("Signalling: proxy: a forked call answered once")
def test_a_call_that_comes_twice(start_box: Callable[..., Box], tmp_path: Path) -> None:
    port = free_port()
    fork = fill(
        kamailio.FORKED, number="1001", first=f"sip:{HOST}:{port}", second_uri=f"sip:1001@{HOST}:{port};again=1"
    )
    with Kamailio(tmp_path / "kamailio", routes=fork) as proxy:
        box = start_box(
            {
                **quick_settings(tmp_path),
                "trunks": {"carrier": {"kind": "sip", "allow": [HOST]}},
                "listen.sip": [{"transport": "udp", "host": HOST, "port": port}],
            }
        )
        seen = sipp.call("uac_proxied", tmp_path / "sipp", (HOST, proxy.port), service="1001")
        assert seen.count("SIP/2.0 200 OK") == 2, "one for the INVITE and one for the BYE"
        metrics = box.get("/metrics")[1]
        assert 'appliance_sip_events_total{event="refused"} 1.0' in metrics, "the second branch, merged (482)"
        (row,) = records.wait_settled(box.database, 1)
        assert row["disposition"] == "completed"


@proves("Signalling: proxy: a failing branch, the call set up on the other")
def test_a_call_whose_first_branch_is_dead(start_box: Callable[..., Box], tmp_path: Path) -> None:
    port = free_port()
    first = fill(kamailio.FAILING_FIRST, number="1001", first=f"sip:{HOST}:{free_port()}")
    with Kamailio(tmp_path / "kamailio", routes=first, next_hop=f"sip:{HOST}:{port}") as proxy:
        box = start_box(
            {
                **quick_settings(tmp_path),
                "trunks": {"carrier": {"kind": "sip", "allow": [HOST]}},
                "listen.sip": [{"transport": "udp", "host": HOST, "port": port}],
            }
        )
        sipp.call("uac_proxied", tmp_path / "sipp", (HOST, proxy.port), service="1001")
        assert proxy.seen("^a failing branch 408")
        (row,) = records.wait_settled(box.database, 1)
        assert row["disposition"] == "completed"


@asynccontextmanager
async def endpoint(*rules: TrunkRule) -> AsyncIterator[SipEndpoint]:
    """The box's endpoint with trunks of its own, to place calls by."""
    one = SipEndpoint([ListenOn("udp", HOST, 0)], trunks=rules, on_call=lambda leg: leg.reject(480))
    await one.start()
    try:
        yield one
    finally:
        await one.stop()


async def dial(one: SipEndpoint, rule: TrunkRule, uri: str) -> int:
    """Call, stay a moment, hang up; the status of the final response."""
    call = await one.dial(uri, f"sip:{rule.username}@{HOST}", SoftphoneMedia(HOST, free_port()), trunk=rule)
    if await call.wait_answered() is None:
        return (await call.wait_ended()).code
    await asyncio.sleep(0.3)
    call.hangup()
    await call.wait_ended()
    return 200


@proves("Signalling: UAC: digest 401 and 407, MD5", "Signalling: UAC: digest, SHA-256")
@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256"])
async def test_a_proxy_asks_for_our_password(algorithm: str, tmp_path: Path) -> None:
    with sipp.Sipp("uas_call", tmp_path / "sipp", calls=2) as peer:
        await asyncio.to_thread(peer.wait_ready)
        route = fill(kamailio.AUTHENTICATED, number="100", target=f"sip:{HOST}:{peer.port}")
        with Kamailio(tmp_path / "kamailio", routes=route, algorithm=algorithm) as proxy:
            rule = TrunkRule("carrier", proxies=(proxy.uri,), username="box", password=PASSWORD)
            async with endpoint(rule) as one:
                assert await dial(one, rule, proxy.user("100")) == 200
                assert await dial(one, rule, proxy.user("100")) == 200
            assert len(proxy.seen("^challenged INVITE")) == 1, "the second call brings its credentials"
            assert all(algorithm in line for line in proxy.wait_seen("^authenticated INVITE", 2))
            assert len(proxy.wait_seen("^in dialog BYE", 2)) == 2


@proves("Signalling: UAC: digest, stale nonce")
@pytest.mark.parametrize("flags", [kamailio.WITH_QOP, kamailio.WITHOUT_QOP], ids=["qop", "no qop"])
async def test_a_nonce_that_is_stale(flags: str, tmp_path: Path) -> None:
    with sipp.Sipp("uas_call", tmp_path / "sipp", calls=2) as peer:
        await asyncio.to_thread(peer.wait_ready)
        route = fill(kamailio.AUTHENTICATED, number="100", target=f"sip:{HOST}:{peer.port}", flags=flags)
        with Kamailio(tmp_path / "kamailio", routes=route, nonce_expire_s=1) as proxy:
            rule = TrunkRule("carrier", proxies=(proxy.uri,), username="box", password=PASSWORD)
            async with endpoint(rule) as one:
                assert await dial(one, rule, proxy.user("100")) == 200
                await asyncio.sleep(2.5)
                assert await dial(one, rule, proxy.user("100")) == 200
            assert len(proxy.seen("^challenged INVITE")) == 2


async def test_a_password_that_is_wrong_ends_the_call(tmp_path: Path) -> None:
    route = fill(kamailio.AUTHENTICATED, number="100", target=f"sip:{HOST}:9")
    with Kamailio(tmp_path / "kamailio", routes=route) as proxy:
        rule = TrunkRule("carrier", proxies=(proxy.uri,), username="box", password="wrong")
        async with endpoint(rule) as one:
            assert await dial(one, rule, proxy.user("100")) == 407
        assert len(proxy.seen("^challenged INVITE")) == 2


@proves("Signalling: UAC: redirected (3xx) within limits")
async def test_a_call_that_is_moved(tmp_path: Path) -> None:
    with sipp.Sipp("uas_call", tmp_path / "sipp") as peer:
        await asyncio.to_thread(peer.wait_ready)
        there = f"<sip:900@{HOST}:{peer.port}>;q=0.9, <sip:100@{HOST}:{peer.port}>;q=0.1"
        with Kamailio(tmp_path / "kamailio", routes=fill(kamailio.MOVED, number="100", contacts=there)) as proxy:
            rule = TrunkRule("carrier", proxies=(proxy.uri,))
            async with endpoint(rule) as one:
                assert await dial(one, rule, proxy.user("100")) == 200, "at the number that was called, not at 900"
            assert len(proxy.seen("^moved")) == 1
        await asyncio.to_thread(peer.wait)


async def test_a_call_that_is_moved_without_end(tmp_path: Path) -> None:
    circle = ", ".join(f"<sip:100@{HOST}:{{port}};x={number};user=phone{number}>" for number in range(9))
    port = free_port()
    routes = fill(kamailio.MOVED, number="100", contacts=circle.format(port=port))
    with Kamailio(tmp_path / "kamailio", routes=routes, port=port) as proxy:
        rule = TrunkRule("carrier", proxies=(proxy.uri,))
        async with endpoint(rule) as one:
            assert await dial(one, rule, proxy.user("100")) == 302
        assert len(proxy.seen("^moved")) == 1, "a parameter does not make another target"
