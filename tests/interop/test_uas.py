"""SIPp calls the box."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.cli.box import HOST, Box, free_port
from tests.bench import lines, records
from tests.interop import sipp
from tests.interop.claims import proves
from tests.interop.conftest import metric, quick_settings
from tests.waiting import LIMIT_S

pytestmark = [pytest.mark.peer, pytest.mark.skipif(bool(sipp.missing()), reason=sipp.missing())]

SIP_PORT_OF_NOBODY = 9


def call(box: Box, scenario: str, folder: Path, service: str = lines.LISTENER, **options: object) -> str:
    return sipp.call(scenario, folder / "sipp", (HOST, box.sip_port), service=service, **options)


def new_record(box: Box, before: int) -> records.Row:
    """The record of the one call since there were ``before``."""
    found = records.wait_settled(box.database, before + 1)
    assert len(found) == before + 1
    return found[-1]


@pytest.fixture
def earlier(shared_box: Box) -> int:
    """Calls on record so far."""
    return len(records.calls(shared_box.database))


@proves("Signalling: transactions: a call set up and torn down over UDP, answers to where rport says", "Media: PCMU")
def test_a_call(shared_box: Box, tmp_path: Path, earlier: int) -> None:
    call(shared_box, "uac_call", tmp_path)
    row = new_record(shared_box, earlier)
    assert (row["disposition"], row["hangup_by"]) == ("completed", "caller")


@proves("Signalling: transactions: a lost ACK, the 200 again until it comes")
def test_a_lost_ack(shared_box: Box, tmp_path: Path, earlier: int) -> None:
    seen = call(shared_box, "uac_lost_ack", tmp_path)
    assert seen.count("SIP/2.0 200 OK") >= 4, "after T1, 2 T1 and 4 T1, and one for the BYE"
    assert new_record(shared_box, earlier)["disposition"] == "completed"


@proves("Signalling: in dialog: delayed offer")
def test_a_call_without_an_offer(shared_box: Box, tmp_path: Path, earlier: int) -> None:
    call(shared_box, "uac_delayed_offer", tmp_path)
    assert new_record(shared_box, earlier)["disposition"] == "completed"


@proves("Signalling: in dialog: hold and resume by sendonly, inactive and c=0.0.0.0")
def test_hold_and_resume(shared_box: Box, tmp_path: Path, earlier: int) -> None:
    call(shared_box, "uac_hold", tmp_path)
    assert new_record(shared_box, earlier)["disposition"] == "completed"


@proves("Signalling: in dialog: re-INVITE received with SDP", "Media: PCMA", "Media: re-negotiation in mid-call")
def test_a_reinvite_with_another_codec(shared_box: Box, tmp_path: Path, earlier: int) -> None:
    call(shared_box, "uac_reinvite", tmp_path)
    assert new_record(shared_box, earlier)["disposition"] == "completed"


@proves("Signalling: in dialog: re-INVITE received without SDP")
def test_a_reinvite_without_an_offer(shared_box: Box, tmp_path: Path, earlier: int) -> None:
    call(shared_box, "uac_reinvite_no_sdp", tmp_path)
    assert new_record(shared_box, earlier)["disposition"] == "completed"


@proves("Signalling: in dialog: T.38 answered 488, the call kept")
def test_a_fax_reinvite(shared_box: Box, tmp_path: Path, earlier: int) -> None:
    call(shared_box, "uac_t38", tmp_path)
    assert new_record(shared_box, earlier)["disposition"] == "completed"


@proves("Signalling: OPTIONS: answered")
def test_options(shared_box: Box, tmp_path: Path) -> None:
    call(shared_box, "uac_options", tmp_path)


@proves("Signalling: protection: REGISTER to the box refused")
def test_a_register_to_the_box(shared_box: Box, tmp_path: Path) -> None:
    refused = metric(shared_box, "appliance_sip_events_total", event="registers_refused")
    call(shared_box, "uac_register", tmp_path)
    assert metric(shared_box, "appliance_sip_events_total", event="registers_refused") == refused + 1


@proves("Signalling: UAS: methods not served (405, 501) told what is allowed")
def test_methods_that_are_not_served(shared_box: Box, tmp_path: Path) -> None:
    call(shared_box, "uac_methods", tmp_path)


@proves("Signalling: UAS: an unknown extension in Require (420)")
def test_a_required_extension(shared_box: Box, tmp_path: Path) -> None:
    call(shared_box, "uac_require", tmp_path)


@proves("Signalling: UAS: Max-Forwards used up (483)")
def test_max_forwards_used_up(shared_box: Box, tmp_path: Path) -> None:
    call(shared_box, "uac_max_forwards", tmp_path)


@proves("Signalling: UAS: merged requests (482)")
def test_a_merged_request(shared_box: Box, tmp_path: Path) -> None:
    call(shared_box, "uac_merged", tmp_path)


@proves("Signalling: in dialog: INFO", "Media: DTMF by INFO received")
def test_a_key_by_info(shared_box: Box, tmp_path: Path, earlier: int) -> None:
    call(shared_box, "uac_info", tmp_path, lines.KEYS, keys={"key_info": "2"})
    row = new_record(shared_box, earlier)
    assert [turn["caller_text"] for turn in row["turns"] if turn["by"] == "key"] == ["2"]
    assert row["hangup_by"] == "agent"


def test_a_number_without_a_line(shared_box: Box, tmp_path: Path) -> None:
    call(shared_box, "uac_busy", tmp_path, "9999")


@proves("Signalling: UAS: strangers refused")
def test_a_stranger(start_box: Callable[..., Box], tmp_path: Path) -> None:
    box = start_box({**quick_settings(tmp_path), "trunks": {"office": {"kind": "sip", "allow": ["192.0.2.0/24"]}}})
    call(box, "uac_refused", tmp_path)


@proves("Signalling: transport: TCP, several calls on one connection")
def test_calls_over_tcp(shared_box: Box, tmp_path: Path, earlier: int) -> None:
    call(shared_box, "uac_call", tmp_path, transport="t1", calls=5)
    found = records.wait_settled(shared_box.database, earlier + 5)
    assert [row["disposition"] for row in found[earlier:]] == ["completed"] * 5


@proves("Signalling: transport: keep-alive of a connection (RFC 5626)")
def test_a_keep_alive_is_answered(shared_box: Box) -> None:
    with socket.create_connection((HOST, shared_box.sip_port), timeout=LIMIT_S) as connection:
        connection.sendall(b"\r\n\r\n")
        assert connection.recv(16) == b"\r\n"


@proves("Signalling: transport: IPv6")
def test_a_call_over_ipv6(start_box: Callable[..., Box], tmp_path: Path) -> None:
    port = free_port()
    box = start_box(
        {
            **quick_settings(tmp_path),
            "listen.sip": [{"transport": "udp", "host": "::1", "port": port}],
            "listen.rtp_host": "::1",
            "trunks": {"local": {"kind": "sip", "allow": ["::1"]}},
        }
    )
    seen = sipp.call("uac_call", tmp_path / "sipp", ("::1", port), service=lines.LISTENER, host="::1")
    assert "c=IN IP6 ::1" in seen.partition("SIP/2.0 200")[2]
    ours = subprocess.run(
        [sys.executable, "-m", "appliance.cli.main", "call", f"sip:{lines.GOODBYE}@[::1]:{port}", "--listen"],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    assert "agent spoke" in ours.stdout
    found = [(row["disposition"], row["hangup_by"], row["calling"]) for row in records.wait_settled(box.database, 2)]
    assert found == [("completed", "caller", "peer"), ("completed", "agent", "softphone")]


@proves("Signalling: transport: IPv6")
def test_options_over_ipv6(shared_box: Box, tmp_path: Path) -> None:
    sipp.call("uac_options", tmp_path / "sipp", ("::1", shared_box.sip_port), host="::1")


@proves("Signalling: in dialog: UPDATE received with and without SDP")
def test_updates(shared_box: Box, tmp_path: Path, earlier: int) -> None:
    call(shared_box, "uac_update", tmp_path)
    assert new_record(shared_box, earlier)["disposition"] == "completed"


@proves("Signalling: in dialog: PRACK and 100rel, box answers the call")
def test_reliable_ringing(shared_box: Box, tmp_path: Path, earlier: int) -> None:
    call(shared_box, "uac_prack", tmp_path)
    assert new_record(shared_box, earlier)["disposition"] == "completed"


@proves("Signalling: in dialog: session timer, peer refreshes")
def test_a_session_refreshed_by_the_peer(shared_box: Box, tmp_path: Path, earlier: int) -> None:
    call(shared_box, "uac_timer_peer", tmp_path)
    assert new_record(shared_box, earlier)["disposition"] == "completed"


@proves("Signalling: in dialog: session timer, interval too small (422, Min-SE)")
def test_a_session_interval_that_is_too_small(shared_box: Box, tmp_path: Path, earlier: int) -> None:
    call(shared_box, "uac_timer_small", tmp_path)
    assert new_record(shared_box, earlier)["disposition"] == "completed"


@pytest.mark.slow
@proves("Signalling: in dialog: session timer, box refreshes", "Signalling: in dialog: UPDATE or re-INVITE sent")
def test_a_session_refreshed_by_the_box(shared_box: Box, tmp_path: Path, earlier: int) -> None:
    call(shared_box, "uac_timer_box", tmp_path, timeout_s=75.0)
    assert new_record(shared_box, earlier)["disposition"] == "completed"


@proves("Signalling: transfer: REFER received, denied by default")
def test_a_refer_that_nobody_allowed(shared_box: Box, tmp_path: Path, earlier: int) -> None:
    call(shared_box, "uac_refer", tmp_path)
    assert new_record(shared_box, earlier)["disposition"] == "completed"


def test_replacing_a_call_nobody_has(shared_box: Box, tmp_path: Path) -> None:
    call(shared_box, "uac_replaces_unknown", tmp_path)


@proves("Signalling: protection: scanner signatures dropped")
def test_a_scanner_gets_no_answer(start_box: Callable[..., Box], tmp_path: Path) -> None:
    box = start_box({**quick_settings(tmp_path), "trunks": {"office": {"kind": "sip", "allow": ["192.0.2.0/24"]}}})
    seen = call(box, "uac_scanner", tmp_path)
    assert "SIP/2.0 " not in seen.replace("sip:1001@", "").split("message sent", 1)[1].split("message received", 1)[-1]
