"""TLS with peers that we did not write: OpenSSL's own client and server, and baresip."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appliance.cli.box import HOST, Box, free_port
from appliance.errors import SipUnreachable
from appliance.signalling.sip_endpoint import ListenOn, SipEndpoint
from appliance.signalling.trunks import TrunkRule, TrunkTls
from tests.certificates import Authority, Pair
from tests.interop import sipp
from tests.interop.claims import proves
from tests.interop.conftest import quick_settings
from tests.peers import baresip
from tests.signalling.test_sip_endpoint import StaticMedia
from tests.waiting import LIMIT_S, eventually

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed (Debian: openssl)"),
]


@contextmanager
def tls_box(folder: Path, pair: Pair) -> Iterator[tuple[Box, int]]:
    """A box that listens on TLS; gives it and the port."""
    box = Box(folder / "box", quick_settings(folder))
    port = free_port()
    box.settings["listen.sip"] = [
        {"transport": "udp", "host": HOST, "port": box.sip_port},
        {"transport": "tls", "host": HOST, "port": port, "cert": str(pair.cert), "key": str(pair.key)},
    ]
    with box:
        yield box, port


def ask(port: int, ca: Path, name: str = HOST) -> str:
    """An OPTIONS by OpenSSL's client, which checks the certificate; what it heard and what it complained of."""
    options = (
        f"OPTIONS sip:1001@{HOST} SIP/2.0\r\nVia: SIP/2.0/TLS {HOST}:5061;branch=z9hG4bK{time.monotonic_ns()};rport\r\n"
        f"Max-Forwards: 70\r\nFrom: <sip:t@{HOST}>;tag=1\r\nTo: <sip:1001@{HOST}>\r\nCall-ID: {time.monotonic_ns()}\r\n"
        "CSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
    )
    kind = "-verify_ip" if name[0].isdigit() else "-verify_hostname"
    command = ["openssl", "s_client", "-connect", f"{HOST}:{port}", "-CAfile", str(ca), "-verify_return_error"]
    with subprocess.Popen(
        [*command, kind, name, "-quiet"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as client:
        assert client.stdin is not None and client.stdout is not None
        heard = b""
        try:
            client.stdin.write(options.encode())
            client.stdin.flush()
            os.set_blocking(client.stdout.fileno(), False)
            deadline = time.monotonic() + LIMIT_S
            while time.monotonic() < deadline and client.poll() is None and b"\r\n\r\n" not in heard:
                heard += client.stdout.read() or b""
                time.sleep(0.01)
            heard += client.stdout.read() or b""
        except BrokenPipeError:
            heard += client.stdout.read() or b""
        client.kill()
    return heard.decode(errors="replace")


@proves("Signalling: transport: TLS, the box's certificate checked by the peer")
def test_the_certificate_is_checked_by_the_peer(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    with tls_box(tmp_path, authority.issue(HOST)) as (_, port):
        assert "SIP/2.0 200 OK" in ask(port, authority.ca)
        heard = ask(port, other.ca)
        assert "SIP/2.0 200" not in heard and "verify error" in heard


@proves("Signalling: transport: certificates reloaded without dropping calls")
@pytest.mark.skipif(bool(baresip.missing()), reason=baresip.missing())
def test_certificates_are_replaced_while_a_call_over_tls_is_up(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with tls_box(tmp_path, authority.issue(HOST)) as (box, port):
        phone = baresip.Baresip(tmp_path / "phone")
        try:
            phone.dial(f"sip:1001@{HOST}:{port};transport=tls")
            authority.issue("renamed.example")
            os.kill(box.pid, signal.SIGHUP)
            box.wait_logged("new connections get it")
            assert "SIP/2.0 200" in ask(port, authority.ca, "renamed.example")
            assert "SIP/2.0 200" not in ask(port, authority.ca, HOST)
            assert "appliance_calls_active 1.0" in box.get("/metrics")[1]
            phone.hang_up()
        finally:
            phone.close()


@proves("Signalling: transport: TLS, a wrong certificate refused by the box")
@pytest.mark.parametrize("wrong", ["name", "authority", "expired"])
async def test_a_wrong_certificate_is_refused_by_the_box(
    wrong: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    pair = authority.issue("other.example" if wrong == "name" else "localhost", expired=wrong == "expired")
    port = free_port()
    heard = (tmp_path / "heard").open("wb")
    command = ["openssl", "s_server", "-accept", f"{HOST}:{port}", "-cert", str(pair.cert), "-key", str(pair.key)]
    with subprocess.Popen([*command, "-quiet"], stdin=subprocess.PIPE, stdout=heard, stderr=heard) as server:
        try:
            await listening(port)
            trust = TrunkRule("carrier", tls=TrunkTls(ca=(other if wrong == "authority" else authority).ca))
            box = SipEndpoint([ListenOn("udp", HOST, 0)], trunks=(), on_call=lambda leg: None)
            await box.start()
            with pytest.raises(SipUnreachable, match="its certificate is"):
                await box.dial(f"sip:1@localhost:{port};transport=tls", "sip:a@b", StaticMedia(), trunk=trust)
            await box.stop()
        finally:
            server.kill()
    heard.close()
    assert re.search("its certificate is (for other.example, not for localhost|refused: )", caplog.text)
    assert b"INVITE" not in (tmp_path / "heard").read_bytes()


@proves("Signalling: transport: an advertised address in Contact and SDP")
@pytest.mark.skipif(bool(sipp.missing()), reason=sipp.missing())
def test_an_advertised_address(tmp_path: Path) -> None:
    """A box behind a NAT, as the peer sees it: bound to everything, told to name another address."""
    box = Box(tmp_path / "box", quick_settings(tmp_path))
    box.settings["listen.sip"] = [{"transport": "udp", "host": "0.0.0.0", "port": box.sip_port}]
    box.settings["listen.rtp_host"] = "0.0.0.0"
    box.settings["listen.advertised"] = "127.0.0.2"
    with box:
        messages = sipp.call("uac_call", tmp_path / "sipp", (HOST, box.sip_port))
    answer = messages[messages.index("SIP/2.0 200") :]
    assert f"Contact: <sip:127.0.0.2:{box.sip_port}>" in answer
    assert "c=IN IP4 127.0.0.2\r\n" in answer or "c=IN IP4 127.0.0.2\n" in answer


async def listening(port: int) -> None:
    await eventually(lambda: f":{port:04X} 00000000:0000 0A" in Path("/proc/net/tcp").read_text())
