"""Trunks: who may call and how often, passwords both ways, failover, transfers; SIPp is every peer.

Each trunk has an address of its own on the loopback network.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from appliance.cli.box import HOST, Box
from tests.bench import lines, records
from tests.interop import sipp
from tests.interop.claims import proves
from tests.interop.conftest import hands_on, metric, quick_settings, serve
from tests.waiting import block_until

pytestmark = [pytest.mark.peer, pytest.mark.skipif(bool(sipp.missing()), reason=sipp.missing())]

PBX = "127.0.0.15"
CALLER, GUARDED, SMALL, SLOW = "127.0.0.11", "127.0.0.12", "127.0.0.13", "127.0.0.14"
FIRST, SECOND, THIRD = "127.0.0.21", "127.0.0.22", "127.0.0.23"
BLIND = "2001"
"""The line that hands every caller on."""
TOLD = "2002"
"""The line that hands on those of whom the network says the right things, and answers nobody else."""
REFERRED = "2004"
"""The line that hands on to a number of the caller's own PBX."""
LONG = "2003"
"""The line that hands on by a trunk whose requests are too long for a datagram."""
ANYBODY, FAR, OF_THE_PBX = "+15550001", "+15560001", "+15570001"
PASSWORD = "s3cret"
HEADERS_IN = ["X-Customer", "User-to-User", "Privacy", "Reason"]


def dials(host: str, port: int) -> dict[str, object]:
    """A trunk that numbers may be dialled by."""
    return {
        "kind": "sip", "allow": [host], "proxy": f"sip:{host}:{port}", "username": "box", "password": PASSWORD,
        "allow_prefixes": ["+1555"],
        "headers_out": {
            "X-Class": "${header.X-Customer}", "User-to-User": "${header.User-to-User}",
            "Privacy": "${header.Privacy}", "Reason": "${header.Reason}",
            "P-Asserted-Identity": "<sip:${caller.asserted}@box.example>",
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory, ports: tuple[int, int]) -> Iterator[Box]:
    folder = tmp_path_factory.mktemp("trunks")
    settings = quick_settings(folder)
    told = {"called": TOLD, "verstat": "TN-Validation-Passed", "diverted": "+15559999"}
    lines.dialplan(
        folder,
        [
            hands_on("blind", {"called": BLIND}, ANYBODY),
            hands_on("told", told, ANYBODY),
            hands_on("long", {"called": LONG}, FAR),
            hands_on("referred", {"called": REFERRED}, OF_THE_PBX),
        ],
    )
    settings["trunks"] = {
        "caller": {"kind": "sip", "allow": [CALLER], "allow_transfer": True, "headers_in": HEADERS_IN},
        "guarded": {"kind": "sip", "allow": [GUARDED], "auth": "challenge", "username": "phone", "password": PASSWORD},
        "small": {"kind": "sip", "allow": [SMALL], "max_calls": 1},
        "slow": {"kind": "sip", "allow": [SLOW], "max_cps": 0.02},
        "pbx": {"kind": "sip", "allow": [PBX], "proxy": f"sip:{PBX}", "allow_prefixes": ["+1557"]},
        "first": dials(FIRST, ports[0]),
        "second": dials(SECOND, ports[1]),
        "long": {
            "kind": "sip", "allow": [], "proxy": f"sip:{THIRD}:{ports[0]}", "allow_prefixes": ["+1556"],
            "headers_out": {f"X-Long-{number}": "long " * 60 for number in range(5)},
        },
    }  # fmt: skip
    settings["routes"] = [
        {"to": "+1556", "trunks": "long"},
        {"to": "+1557", "trunks": "pbx"},
        {"to": "*", "trunks": ["first", "second"]},
    ]
    with Box(folder / "box", settings) as running:
        yield running
    assert running.stop() == 0, running.log_tail()
    assert "Traceback" not in running.log.read_text(errors="replace")


@pytest.fixture
def earlier(box: Box) -> int:
    return len(records.calls(box.database))


def call(box: Box, scenario: str, folder: Path, host: str, service: str = lines.LISTENER, **options: object) -> str:
    where = folder / f"{host}-{scenario}"
    return sipp.call(scenario, where, (HOST, box.sip_port), service=service, host=host, **options)


@proves("Signalling: protection: concurrent calls of a trunk, 503 and Retry-After")
def test_one_call_too_many(box: Box, tmp_path: Path, peers: ExitStack) -> None:
    stays = peers.enter_context(sipp.Sipp("uac_stay", tmp_path / "stays", remote=(HOST, box.sip_port), host=SMALL))
    block_until(lambda: "SIP/2.0 200" in stays.messages(), stays.messages)
    call(box, "uac_no_room", tmp_path, SMALL)
    stays.wait()
    wait_metric(box, "appliance_trunk_calls", 0.0, trunk="small")
    call(box, "uac_call", tmp_path, SMALL)


@proves("Signalling: protection: call-rate limit, 503 and Retry-After")
def test_calls_too_fast(box: Box, tmp_path: Path) -> None:
    call(box, "uac_call", tmp_path, SLOW)
    call(box, "uac_no_room", tmp_path, SLOW)


def wait_metric(box: Box, name: str, value: float, **labels: str) -> None:
    block_until(
        lambda: metric(box, name, **labels) == value,
        lambda: f"{name} is {metric(box, name, **labels)}, not {value}\n{box.log_tail()}",
    )


@proves("Signalling: UAS: digest challenge")
def test_a_trunk_that_needs_a_password(box: Box, tmp_path: Path, earlier: int) -> None:
    uri = ("-auth_uri", f"{lines.LISTENER}@{HOST}:{box.sip_port}")
    call(box, "uac_auth", tmp_path, GUARDED, options=uri)
    call(box, "uac_auth_wrong", tmp_path, GUARDED, options=uri)
    assert len(records.wait_settled(box.database, earlier + 1)) == earlier + 1


@proves("Signalling: transfer: INVITE with Replaces received")
def test_a_call_that_takes_the_place_of_another(box: Box, tmp_path: Path, peers: ExitStack, earlier: int) -> None:
    where = (HOST, box.sip_port)
    replaced = peers.enter_context(sipp.Sipp("uac_replaced", tmp_path / "replaced", remote=where, host=CALLER))
    block_until(lambda: "\nACK sip:" in replaced.messages(), replaced.messages)
    seen = replaced.messages()
    answer = seen[seen.index("SIP/2.0 200") :]
    keys = {
        "replaced": re.search(r"Call-ID: (\S+)", answer), "theirs": re.search(r"To:.*tag=(\S+)", answer),
        "ours": re.search(r"From:.*tag=(\S+)", answer),
    }  # fmt: skip
    call(box, "uac_replaces", tmp_path, CALLER, keys={name: found.group(1) for name, found in keys.items() if found})
    replaced.wait()
    (row,) = records.wait_settled(box.database, earlier + 1)[earlier:]
    assert row["disposition"] == "completed"


@proves("Signalling: transfer: two legs bridged in the box")
def test_a_caller_put_through(box: Box, tmp_path: Path, ports: tuple[int, int], peers: ExitStack, earlier: int) -> None:
    called = serve(peers, "uas_bye", tmp_path, FIRST, ports[0])
    call(box, "uac_put_through", tmp_path, CALLER, BLIND)
    called.wait()
    (row,) = records.wait_settled(box.database, earlier + 1)[earlier:]
    assert "+15550001" in str(row)


def test_a_caller_put_through_hangs_up(box: Box, tmp_path: Path, ports: tuple[int, int], peers: ExitStack) -> None:
    called = serve(peers, "uas_call", tmp_path, FIRST, ports[0])
    call(box, "uac_put_through_bye", tmp_path, CALLER, BLIND)
    called.wait()


@proves("Signalling: UAC: digest 401 and 407, MD5")
@pytest.mark.parametrize("scenario", ["uas_401", "uas_407"])
def test_a_trunk_asks_for_our_password(
    scenario: str, box: Box, tmp_path: Path, ports: tuple[int, int], peers: ExitStack
) -> None:
    called = serve(peers, scenario, tmp_path, FIRST, ports[0])
    call(box, "uac_put_through_bye", tmp_path, CALLER, BLIND)
    called.wait()


@proves("Signalling: UAC: digest, stale nonce")
def test_a_nonce_that_is_stale(box: Box, tmp_path: Path, ports: tuple[int, int], peers: ExitStack) -> None:
    called = serve(peers, "uas_stale", tmp_path, FIRST, ports[0])
    call(box, "uac_put_through_bye", tmp_path, CALLER, BLIND)
    called.wait()


@proves("Signalling: UAC: routes over several trunks, failover on 503")
def test_the_next_trunk_after_503(box: Box, tmp_path: Path, ports: tuple[int, int], peers: ExitStack) -> None:
    out_of_service = serve(peers, "uas_503", tmp_path, FIRST, ports[0])
    called = serve(peers, "uas_bye", tmp_path, SECOND, ports[1])
    call(box, "uac_put_through", tmp_path, CALLER, BLIND)
    out_of_service.wait()
    called.wait()


@proves("Signalling: UAC: no failover after 486 and 603")
@pytest.mark.parametrize("status", [486, 603])
def test_no_other_trunk_after_a_refusal(
    status: int, box: Box, tmp_path: Path, ports: tuple[int, int], peers: ExitStack
) -> None:
    refuses = serve(peers, f"uas_{status}", tmp_path, FIRST, ports[0])
    untouched = peers.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    untouched.bind((SECOND, ports[1]))
    untouched.setblocking(False)
    call(box, "uac_not_put_through", tmp_path, CALLER, BLIND)
    refuses.wait()
    with pytest.raises(BlockingIOError):
        untouched.recv(1)


@proves("Signalling: transfer: REFER sent, blind")
def test_a_caller_who_can_be_referred(box: Box, tmp_path: Path) -> None:
    call(box, "uac_is_referred", tmp_path, PBX, REFERRED)


@proves("Signalling: transfer: REFER received and carried out, NOTIFY progress")
def test_a_caller_who_refers(box: Box, tmp_path: Path, ports: tuple[int, int], peers: ExitStack) -> None:
    called = serve(peers, "uas_bye", tmp_path, FIRST, ports[0])
    call(box, "uac_refers", tmp_path, CALLER, keys={"target": f"{FIRST}:{ports[0]}"})
    called.wait()


@proves(
    "Signalling: headers: P-Asserted-Identity, Diversion, History-Info, verstat and X-headers in, calls routed by them",
    "Signalling: headers: Privacy, Reason, User-to-User, P-Asserted-Identity and X-headers out by configuration",
)
@pytest.mark.parametrize(
    "diverted",
    [
        "Diversion: <sip:+15559999@carrier.example>;reason=no-answer",
        "History-Info: <sip:+15559999@carrier.example?Reason=SIP%3Bcause%3D486>;index=1,<sip:2002@box>;index=1.1",
    ],
    ids=["diversion", "history"],
)
def test_headers_that_route_and_are_passed_on(
    diverted: str, box: Box, tmp_path: Path, ports: tuple[int, int], peers: ExitStack
) -> None:
    called = serve(peers, "uas_headers", tmp_path, FIRST, ports[0])
    call(box, "uac_headers", tmp_path, CALLER, TOLD, keys={"diverted": diverted})
    called.wait()


def test_a_caller_of_whom_nothing_is_told_is_on_another_line(box: Box, tmp_path: Path) -> None:
    call(box, "uac_busy", tmp_path, CALLER, TOLD)


@proves("Signalling: transport: a request too long for a datagram moved to TCP")
def test_a_long_request(box: Box, tmp_path: Path, ports: tuple[int, int], peers: ExitStack) -> None:
    called = serve(peers, "uas_bye", tmp_path, THIRD, ports[0], transport="t1")
    call(box, "uac_put_through", tmp_path, CALLER, LONG)
    assert "/TCP " in called.wait().partition("\r\n\r\n")[0]
    assert metric(box, "appliance_sip_events_total", event="requests_moved_to_tcp") >= 1


@proves("Signalling: protection: toll fraud, a REFER to a premium number and an INVITE to be relayed")
def test_toll_fraud_is_refused_and_counted(box: Box, tmp_path: Path) -> None:
    refused = metric(box, "appliance_trunk_events_total", trunk="caller", event="refused_transfer")
    call(box, "uac_refers_premium", tmp_path, CALLER, keys={"target": FIRST})
    assert metric(box, "appliance_trunk_events_total", trunk="caller", event="refused_transfer") == refused + 1
    relayed = metric(box, "appliance_calls_refused_total", cause="no_line")
    call(box, "uac_relay", tmp_path, CALLER)
    assert metric(box, "appliance_calls_refused_total", cause="no_line") == relayed + 1
