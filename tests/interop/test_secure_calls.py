"""TLS for the signalling and SRTP for the audio at once, with baresip calling and being called."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from appliance.cli.box import HOST, Box, free_port
from appliance.cli.dialler import SipDialler
from appliance.cli.softphone import Softphone, read_wav
from tests.bench import lines, records
from tests.certificates import Authority
from tests.interop import test_codecs
from tests.interop.claims import proves
from tests.interop.conftest import quick_settings
from tests.interop.test_codecs import LIKE, LINE, TALK_S, likeness, recording
from tests.peers.baresip import Baresip, missing
from tests.peers.phone import PeerError
from tests.waiting import LIMIT_S

pytestmark = [pytest.mark.peer, pytest.mark.skipif(bool(missing()), reason=missing())]

PUT_THROUGH = "2002"
CALLED = "tester"


@proves("Media: SRTP by SDES: calls to the box", "Media: SRTP by SDES: plain RTP refused where SRTP is required")
def test_calls_over_tls_with_srtp_to_the_box(start_box: Callable[..., Box], tmp_path: Path, speech: Path) -> None:
    pair = Authority(tmp_path).issue(HOST)
    port = free_port()
    listen = [{"transport": "tls", "host": HOST, "port": port, "cert": str(pair.cert), "key": str(pair.key)}]
    box = start_box({**test_codecs.settings(tmp_path, srtp="required"), "listen.sip": listen})
    uri = f"sip:{LINE}@{HOST}:{port};transport=tls"

    def talk(name: str, account: str) -> Baresip:
        peer = Baresip(tmp_path / name, speech=speech, account=account)
        try:
            peer.dial(uri)
            time.sleep(TALK_S)
            peer.hang_up()
        finally:
            peer.close()
        return peer

    peer = talk("srtp", "mediaenc=srtp-mand")
    both = recording(box, records.wait_settled(box.database, 1)[-1])
    assert likeness(read_wav(speech), np.ascontiguousarray(both[:, 0])) > LIKE
    assert likeness(np.ascontiguousarray(both[:, 1]), peer.heard()) > LIKE
    with pytest.raises(PeerError, match="488"):
        talk("plain", "")
    assert len(records.calls(box.database)) == 1


def secure_trunk(authority: Authority, port: int) -> dict[str, object]:
    return {
        "kind": "sip",
        "proxy": f"sip:{HOST}:{port};transport=tls",
        "tls": {"ca": str(authority.ca)},
        "srtp": "required",
        "allow_prefixes": [CALLED],
    }


def settings(folder: Path, trunk: dict[str, object]) -> dict[str, object]:
    """A box with a line that puts its callers through to :data:`CALLED` on the trunk."""
    flow = {
        "hand": {"transfer": {"to": CALLED, "kind": "attended"}, "say": "One moment.", "failed": "end"},
        "end": {"hang_up": "Goodbye.", "disposition": "not_transferred"},
    }
    line = {"name": "through", "match": {"called": PUT_THROUGH}, "flow": flow}
    return {
        **quick_settings(folder),
        **lines.dialplan(folder / "through", [line]),
        "trunks": {"local": {"kind": "sip", "allow": ["127.0.0.0/8"], "transfer": "bridge"}, "secure": trunk},
        "routes": [{"to": ["*"], "trunks": ["secure"]}],
    }


@proves("Media: SRTP by SDES: calls from the box")
async def test_calls_over_tls_with_srtp_from_the_box(
    start_box: Callable[..., Box], tmp_path: Path, speech: Path
) -> None:
    """A plain caller is put through to baresip over TLS with SRTP; each of the two hears the other."""
    authority = Authority(tmp_path)
    port = free_port()
    peer = Baresip(
        tmp_path / "called",
        speech=speech,
        account="mediaenc=srtp-mand;answermode=auto",
        config=f"sip_certificate {authority.issue(HOST).both}\n",
        sip_port=port,
    )
    try:
        box = await asyncio.to_thread(start_box, settings(tmp_path, secure_trunk(authority, port + 1)))
        said = read_wav(speech)
        async with SipDialler(HOST) as dialler, Softphone(dialler) as phone:
            await phone.dial(box.uri(PUT_THROUGH))
            await asyncio.to_thread(peer.wait_established, 15.0)
            await phone.play(said[: int(TALK_S * 8000)])
            await asyncio.sleep(0.5)
            heard = phone.received()
            await phone.hangup()
        await asyncio.to_thread(peer.wait_closed, 10.0)
    finally:
        peer.close()
    assert likeness(said, peer.heard()) > LIKE
    assert likeness(said, heard) > LIKE
    assert "trunk secure" not in box.log.read_text()


@proves("Signalling: transport: TLS, a wrong certificate refused by the box")
async def test_a_trunk_with_a_wrong_certificate_is_not_called(start_box: Callable[..., Box], tmp_path: Path) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    port = free_port()
    peer = Baresip(
        tmp_path / "called",
        account="mediaenc=srtp-mand;answermode=auto",
        config=f"sip_certificate {other.issue(HOST).both}\n",
        sip_port=port,
    )
    try:
        box = await asyncio.to_thread(start_box, settings(tmp_path, secure_trunk(authority, port + 1)))
        async with SipDialler(HOST) as dialler, Softphone(dialler) as phone:
            await phone.dial(box.uri(PUT_THROUGH))
            assert await phone.wait_hangup(LIMIT_S) == "them"
    finally:
        peer.close()
    box.wait_logged("its certificate is refused: ")
    box.wait_logged("(not_transferred)")
