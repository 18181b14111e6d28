"""Audio over a bridge, and a number that may not be dialled: SIPp judges."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from appliance.cli.box import HOST, Box, free_port
from appliance.cli.dialler import SipDialler
from appliance.cli.softphone import Softphone
from tests.audio.heard import tone_s
from tests.bench import lines, records
from tests.interop import sipp
from tests.interop.claims import proves
from tests.interop.conftest import metric, quick_settings
from tests.waiting import eventually

pytestmark = [pytest.mark.peer, pytest.mark.skipif(bool(sipp.missing()), reason=sipp.missing())]

HANDS_ON, CONSULTS, WAITS = "2001", "2002", "2003"

LOCAL: dict[str, Any] = {"kind": "sip", "allow": ["127.0.0.0/8"]}


def plan() -> list[dict[str, object]]:
    """Lines that hand every caller on, one of them before anything has been said, and one that waits."""
    end = {"hang_up": "Goodbye.", "disposition": "not_transferred"}
    patient = {"ask": "Yes?", "keys": {"1": "key"}, "next": "wait"}
    blind = {"transfer": "200", "say": "One moment.", "failed": "end"}
    attended = {"transfer": {"to": "200", "kind": "attended"}, "failed": "end"}
    return [
        {"name": "hands-on", "match": {"called": HANDS_ON}, "flow": {"hand": blind, "end": end}},
        {"name": "consults", "match": {"called": CONSULTS}, "flow": {"hand": attended, "end": end}},
        {"name": "waits", "match": {"called": WAITS}, "no_input": {"after_s": 600}, "flow": {"wait": patient}},
    ]


def settings(folder: Path, pbx: dict[str, Any] | None = None, **local: Any) -> dict[str, object]:
    """A box whose callers are on ``local`` and which dials by ``pbx``, where there is one."""
    trunks = {"pbx": {"kind": "sip", "allow_prefixes": ["2"], **pbx}} if pbx else {}
    return {
        **quick_settings(folder),
        **lines.dialplan(folder / "transfers", plan() if pbx else plan()[-1:]),
        "trunks": {"local": {**LOCAL, **local}, **trunks},
        "routes": [{"trunks": list(trunks)}] if trunks else [],
    }


def call(box: Box, scenario: str, folder: Path, service: str, **options: Any) -> str:
    return sipp.call(scenario, folder / scenario, (HOST, box.sip_port), service=service, **options)


def one_record(box: Box) -> records.Row:
    (row,) = records.wait_settled(box.database, 1)
    return row


def facts(row: records.Row) -> dict[str, Any]:
    """What the record keeps beside the turns."""
    found = row["slots"]
    return dict(json.loads(found) if isinstance(found, str) else found)


@proves("Signalling: transfer: two legs bridged in the box")
async def test_a_peer_without_refer_talks_through_the_box(start_box: Callable[..., Box], tmp_path: Path) -> None:
    """The one called sends back every packet, so the caller must hear itself, through both legs and the bridge."""
    port = free_port()
    box = start_box(settings(tmp_path, {"proxy": f"sip:127.0.0.1:{port}"}, transfer="bridge"))
    with sipp.Sipp("uas_call", tmp_path / "uas", port=port, options=("-rtp_echo",)) as echo:
        await asyncio.to_thread(echo.wait_ready)
        async with SipDialler(HOST) as dialler, Softphone(dialler) as phone:
            await phone.dial(box.uri(CONSULTS))
            await eventually(lambda: "ACK sip:" in echo.messages(), echo.messages)
            await phone.play((8000 * np.sin(2 * np.pi * 700 * np.arange(32000) / 8000)).astype(np.int16))
            await eventually(lambda: tone_s(phone.received(), 700.0) > 1.0, "the tone, back from the one called")
            await phone.hangup()
        await asyncio.to_thread(echo.wait)
    assert one_record(box)["hangup_by"] == "caller"


@proves("Signalling: protection: toll fraud, a number outside the allowed prefixes")
def test_a_number_outside_the_prefixes_is_not_dialled(start_box: Callable[..., Box], tmp_path: Path) -> None:
    port = free_port()
    pbx = {"proxy": f"sip:127.0.0.1:{port}", "allow_prefixes": ["3", "+49"], "region": "DE"}
    box = start_box(settings(tmp_path, pbx))
    with sipp.Sipp("uas_call", tmp_path / "uas", port=port) as nobody:
        nobody.wait_ready()
        call(box, "uac_waits", tmp_path, HANDS_ON)
        assert "INVITE" not in nobody.messages()
    assert metric(box, "appliance_dial_refused_total", cause="prefix") == 1
    assert facts(one_record(box))["transfer"] == "200: failed"
