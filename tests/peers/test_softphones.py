"""Softphones of others call in, hear the greeting, press a key, and either side hangs up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appliance.cli.box import Box
from tests.bench import lines
from tests.peers import baresip, pyvoip
from tests.peers.capture import may_capture
from tests.peers.phone import Phone, faults, make_call

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(not may_capture(), reason="looking at the loopback interface needs root (CAP_NET_RAW)"),
]


@pytest.fixture
def keys_box(start_box: Callable[..., Box], tmp_path: Path) -> Box:
    return start_box(lines.settings(tmp_path, tts="espeak"))


@pytest.fixture(params=["baresip", "pyvoip"])
def phone(request: pytest.FixtureRequest, keys_box: Box, tmp_path: Path) -> Iterator[Phone]:
    module = {"baresip": baresip, "pyvoip": pyvoip}[request.param]
    if problem := module.missing():
        pytest.skip(problem)
    made: Phone = baresip.Baresip(tmp_path / "phone") if module is baresip else pyvoip.PyVoip(keys_box.sip_port)
    yield made
    made.close()


@pytest.mark.parametrize("digit", ["1", "2"], ids=["the phone hangs up", "the box hangs up"])
def test_a_call_from_an_independent_softphone(keys_box: Box, phone: Phone, digit: str) -> None:
    seen = make_call(keys_box, phone, digit)
    assert faults(seen, digit) == []
