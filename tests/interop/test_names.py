"""Trunks by name: the box asks dnsmasq, and calls whom it is sent to."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from appliance.cli.box import HOST, Box, free_port
from tests.bench import lines
from tests.interop import sipp
from tests.interop.claims import proves
from tests.interop.conftest import hands_on, quick_settings, serve
from tests.waiting import block_until

NAME_SERVER = "127.0.0.53"
CALLER, DEAD, ALIVE = "127.0.0.17", "127.0.0.51", "127.0.0.52"
HANDS_ON = "2001"

_RECORDS = """\
listen-address={server}
bind-interfaces
no-resolv
no-hosts
local=/test/
naptr-record=carrier.test,10,10,s,SIP+D2U,,_sip._udp.carrier.test
srv-host=_sip._udp.carrier.test,dead.carrier.test,{port},10,1
srv-host=_sip._udp.carrier.test,alive.carrier.test,{port},20,1
address=/dead.carrier.test/{dead}
address=/alive.carrier.test/{alive}
"""


def _missing() -> str:
    if os.geteuid() != 0:
        return "a name server for the box alone needs root; run the tests as root"
    absent = [program for program in ("dnsmasq", "unshare") if shutil.which(program) is None]
    return f"{absent[0]} is not installed (make peers)" if absent else sipp.missing()


pytestmark = [pytest.mark.peer, pytest.mark.skipif(bool(_missing()), reason=_missing())]


@pytest.fixture(scope="module")
def port() -> int:
    """Where the trunk's servers listen."""
    return free_port()


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Path]:
    """A name server; gives the ``resolv.conf`` that points to it."""
    folder = tmp_path_factory.mktemp("names")
    records = _RECORDS.format(server=NAME_SERVER, port=port, dead=DEAD, alive=ALIVE)
    (folder / "dnsmasq.conf").write_text(records)
    (folder / "resolv.conf").write_text(f"nameserver {NAME_SERVER}\n")
    log = folder / "dnsmasq.log"
    command = ["dnsmasq", "--keep-in-foreground", f"--conf-file={folder / 'dnsmasq.conf'}", "--user=root"]
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [*command, "--log-facility=-", "--pid-file="], stdout=output, stderr=subprocess.STDOUT
        ) as server,
    ):
        try:
            block_until(lambda: server.poll() is not None or "started" in log.read_text(), log.read_text)
            assert server.poll() is None, log.read_text()
            yield folder / "resolv.conf"
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory, names: Path) -> Iterator[Box]:
    """A box that asks this name server, and nobody else."""
    folder = tmp_path_factory.mktemp("box")
    settings = quick_settings(folder)
    lines.dialplan(folder, [hands_on("hands-on", {"called": HANDS_ON}, "+15550001")])
    settings["trunks"] = {
        "carrier": {"kind": "sip", "allow": [ALIVE], "proxy": "sip:carrier.test", "allow_prefixes": ["+1555"]},
        "caller": {"kind": "sip", "allow": [CALLER], "transfer": "bridge"},
    }
    settings["routes"] = [{"to": "*", "trunks": ["carrier"]}]
    script = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
    under = ("unshare", "--mount", "--propagation", "private", "sh", "-c", script, str(names))
    with Box(folder / "box", settings, under=under) as running:
        yield running
    assert running.stop() == 0, running.log_tail()


@proves("Signalling: transport: NAPTR, SRV and address records, the next server where one is dead")
def test_a_trunk_by_name_whose_first_server_is_dead(box: Box, tmp_path: Path, port: int) -> None:
    with ExitStack() as peers:
        called = serve(peers, "uas_bye", tmp_path, ALIVE, port)
        sipp.call("uac_put_through", tmp_path / "caller", (HOST, box.sip_port), service=HANDS_ON, host=CALLER)
        assert "INVITE sip:+15550001@carrier.test" in called.wait()
