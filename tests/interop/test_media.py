"""What becomes of media: reports, scores, strangers, silence on the wire, and no port left."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from appliance.audio import g711
from appliance.audio.tones import sine
from appliance.cli.box import HOST, Box
from appliance.rtp.packet import build
from tests.audio.heard import level_dbfs
from tests.bench import lines, records
from tests.interop import sipp
from tests.interop.claims import proves
from tests.interop.conftest import quick_settings
from tests.interop.test_codecs import LINE, likeness, recording, settings
from tests.peers import baresip
from tests.peers.baresip import Baresip
from tests.waiting import block_until

pytestmark = pytest.mark.peer
needs_baresip = pytest.mark.skipif(bool(baresip.missing()), reason=baresip.missing())
needs_sipp = pytest.mark.skipif(bool(sipp.missing()), reason=sipp.missing())

STRANGER_HZ = 1700.0


def metric(box: Box, series: str) -> float:
    """What the metrics say; 0 where they do not say it yet."""
    found = re.search(rf"^{series} (\S+)", box.get("/metrics")[1], re.MULTILINE)
    return float(found.group(1)) if found else 0.0


def bad_packets(box: Box, reason: str) -> float:
    """Packets that did not become audio."""
    return metric(box, rf'appliance_rtp_packets_bad_total{{reason="{reason}"}}')


def reports(box: Box, way: str) -> float:
    """RTCP packets so far."""
    return metric(box, rf'appliance_rtcp_packets_total{{direction="{way}"}}')


def received(box: Box) -> float:
    """RTP packets so far."""
    return metric(box, "appliance_rtp_packets_received_total")


def media_port(box: Box) -> int:
    """The RTP port of the one call that is going on: the even one of the box's range that is bound."""
    first, _, last = str(box.settings["listen.rtp_ports"]).partition("-")
    bound = {int(line.split()[1].partition(":")[2], 16) for line in Path("/proc/net/udp").read_text().splitlines()[1:]}
    (port,) = (port for port in range(int(first), int(last)) if port in bound and port % 2 == 0)
    return port


def impatient(folder: Path, **settings: object) -> dict[str, object]:
    """A box that gives a silent caller up after two seconds."""
    return {**quick_settings(folder), "media.rtp_timeout_s": 2, **settings}


@needs_baresip
@proves("Media: RTCP sender and receiver reports", "Media: MOS in the call's record")
@pytest.mark.parametrize("secret", [False, True])
def test_each_reports_to_the_other(start_box: Callable[..., Box], tmp_path: Path, speech: Path, secret: bool) -> None:
    box = start_box(settings(tmp_path, srtp="optional" if secret else "off"))
    account = "mediaenc=srtp-mand" if secret else ""
    peer = Baresip(tmp_path / "phone", speech=speech, account=account, config="rtp_stats yes\n")
    try:
        peer.dial(box.uri(LINE))
        block_until(lambda: all(reports(box, way) >= 2 for way in ("sent", "received")))
        peer.hang_up()
        block_until(lambda: "errors:" in peer.log(), peer.log)
        words = peer.log()
    finally:
        peer.close()
    (row,) = records.wait_settled(box.database, 1)
    assert 1.0 < row["mos"] < 4.5
    assert 1.0 < row["mos_far"] < 4.5
    assert row["round_trip_ms"] >= 0.0
    assert row["jitter_ms"] >= 0.0
    # What baresip makes of it: the first number of a pair is from our reports on its packets, the second its own view.
    summary = {name: (float(a), float(b)) for name, a, b in re.findall(r"^([\w.]+): +([\d.]+) +([\d.]+)", words, re.M)}
    assert min(summary["pkt.report"]) > 100
    assert summary["lost"] == (0.0, 0.0)
    assert summary["errors"] == (0.0, 0.0)


@needs_baresip
@proves("Media: latching: a stranger is not taken for the caller")
def test_a_stranger_speaks_to_the_callers_port(start_box: Callable[..., Box], tmp_path: Path, speech: Path) -> None:
    box = start_box(settings(tmp_path))
    voice = [g711.encode(sine(STRANGER_HZ, 160, -6.0, start=160 * n), False).tobytes() for n in range(150)]
    peer = Baresip(tmp_path / "phone", speech=speech)
    try:
        peer.dial(box.uri(LINE))
        block_until(lambda: received(box) > 20)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.bind((HOST, 0))
            stranger.settimeout(0.0)
            target = (HOST, media_port(box))
            for number, payload in enumerate(voice):
                stranger.sendto(build(0, number, 160 * number, 0xBAD, payload), target)
                time.sleep(0.02)
            with pytest.raises(BlockingIOError):
                stranger.recv(2048)
        time.sleep(1.0)
        peer.hang_up()
    finally:
        peer.close()
    (row,) = records.wait_settled(box.database, 1)
    both = recording(box, row)
    caller = np.ascontiguousarray(both[:, 0])
    assert level_dbfs(caller[8000:32000], STRANGER_HZ) < -45.0
    assert bad_packets(box, "stranger") == len(voice)
    assert likeness(np.ascontiguousarray(both[:, 1]), peer.heard()) > 0.9


@needs_sipp
@proves("Media: media time-out")
def test_a_caller_who_sends_nothing(start_box: Callable[..., Box], tmp_path: Path) -> None:
    box = start_box(impatient(tmp_path))
    sipp.call("uac_until_bye", tmp_path / "ended", (HOST, box.sip_port), service=lines.LISTENER)
    (row,) = records.wait_settled(box.database, 1)
    assert (row["disposition"], row["hangup_code"]) == ("failed", 408)
    assert row["mos"] is None


@needs_sipp
def test_a_silent_caller_is_kept_where_the_trunk_says_so(start_box: Callable[..., Box], tmp_path: Path) -> None:
    box = start_box(impatient(tmp_path, **{"trunks.local.media_timeout": "keep"}))
    with sipp.Sipp("uac_until_bye", tmp_path / "kept", remote=(HOST, box.sip_port), service=lines.LISTENER) as kept:
        with pytest.raises(sipp.SippFailed, match="did not come to its end"):
            kept.wait(6.0)
        assert [row["disposition"] for row in records.calls(box.database)] == ["in_progress"]


@needs_sipp
@proves("Media: RTP ports used up: 503")
def test_no_port_is_left(start_box: Callable[..., Box], tmp_path: Path) -> None:
    """Two pairs, one of them taken by another program: one call, the next refused, and nothing leaked by either."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as squatter:
        squatter.bind((HOST, 0))
        odd = squatter.getsockname()[1] | 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as squatter:
        squatter.bind((HOST, odd))
        ports = {"listen.rtp_ports": f"{odd - 1}-{odd + 2}", "limits.max_calls": 2, "media.rtp_timeout_s": 5}
        box = start_box(impatient(tmp_path, **ports))
        where = (HOST, box.sip_port)
        for attempt in range(3):
            folder = tmp_path / str(attempt)
            with sipp.Sipp("uac_until_bye", folder / "one", remote=where, service=lines.LISTENER) as first:
                block_until(lambda first=first: "ACK sip:" in first.messages())  # type: ignore[misc]
                sipp.call("uac_no_ports", folder / "two", where, service=lines.LISTENER)
                first.wait()
        found = records.wait_settled(box.database, 6)
    assert sorted(row["hangup_code"] for row in found) == [408] * 3 + [503] * 3
    assert "no free RTP port" in next(row["hangup_text"] for row in found if row["hangup_code"] == 503)
