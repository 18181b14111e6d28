"""The box calls through Kamailio, which forks, or goes on to the next phone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from appliance.cli.box import HOST, Box
from tests.bench import lines
from tests.interop import kamailio, sipp
from tests.interop.claims import proves
from tests.interop.conftest import quick_settings, serve
from tests.interop.kamailio import Kamailio, fill

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(bool(kamailio.missing() or sipp.missing()), reason=kamailio.missing() or sipp.missing()),
]

FORKED, FAILING = "+15550001", "+15550002"
CALLER, FIRST, SECOND = "127.0.0.16", "127.0.0.41", "127.0.0.42"
TO_FORKED, TO_FAILING = "2001", "2002"
RING_BOTH = """
  if ($rU == "{number}") {{
    $ru = "sip:first@{first}";
    append_branch("sip:second@{second}");
    t_relay();
    exit;
  }}
"""


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, ports: tuple[int, int]) -> Iterator[Kamailio]:
    first, second = f"{FIRST}:{ports[0]}", f"{SECOND}:{ports[1]}"
    routes = fill(RING_BOTH, number=FORKED, first=first, second=second)
    routes += fill(kamailio.FAILING_FIRST, number=FAILING, first=f"sip:{first}")
    with Kamailio(tmp_path_factory.mktemp("kamailio"), routes=routes, next_hop=f"sip:{second}") as running:
        yield running


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory, proxy: Kamailio) -> Iterator[Box]:
    """A box whose lines hand every caller on through the proxy."""
    folder = tmp_path_factory.mktemp("box")
    settings = quick_settings(folder)
    hand_on = [
        {
            "name": name,
            "match": {"called": number},
            "record": False,
            "greeting": "One moment, please.",
            "flow": {"on": {"transfer": {"to": to, "timeout_s": 15}, "failed": "sorry"}, "sorry": {"hang_up": "No."}},
        }
        for name, number, to in (
            ("forked", TO_FORKED, FORKED), ("failing", TO_FAILING, FAILING),
        )
    ]  # fmt: skip
    lines.dialplan(folder, hand_on)
    settings["trunks"] = {
        "proxy": {"kind": "sip", "allow": [HOST], "proxy": proxy.uri, "allow_prefixes": ["+1555"]},
        "caller": {"kind": "sip", "allow": [CALLER], "transfer": "bridge"},
    }  # fmt: skip
    settings["routes"] = [{"to": "*", "trunks": ["proxy"]}]
    with Box(folder / "box", settings) as running:
        yield running
    assert running.stop() == 0, running.log_tail()


@proves("Signalling: proxy: a forked call answered once")
def test_a_call_that_rings_at_two_phones(box: Box, tmp_path: Path, ports: tuple[int, int], peers: ExitStack) -> None:
    answers = serve(peers, "uas_bye", tmp_path, FIRST, ports[0])
    rings = serve(peers, "uas_cancel", tmp_path, SECOND, ports[1])
    sipp.call("uac_put_through", tmp_path / "caller", (HOST, box.sip_port), service=TO_FORKED, host=CALLER)
    answers.wait()
    rings.wait()


@proves("Signalling: proxy: a failing branch, the call set up on the other")
def test_a_branch_that_fails(box: Box, tmp_path: Path, ports: tuple[int, int], peers: ExitStack) -> None:
    fails = serve(peers, "uas_503", tmp_path, FIRST, ports[0])
    answers = serve(peers, "uas_bye", tmp_path, SECOND, ports[1])
    sipp.call("uac_put_through", tmp_path / "caller", (HOST, box.sip_port), service=TO_FAILING, host=CALLER)
    fails.wait()
    answers.wait()


def test_no_branch_answers(box: Box, tmp_path: Path, ports: tuple[int, int], peers: ExitStack) -> None:
    fails = serve(peers, "uas_486", tmp_path, FIRST, ports[0])
    also = serve(peers, "uas_486", tmp_path, SECOND, ports[1])
    sipp.call("uac_not_put_through", tmp_path / "caller", (HOST, box.sip_port), service=TO_FAILING, host=CALLER)
    fails.wait()
    also.wait()
