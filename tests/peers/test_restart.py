"""A control process that was killed knows none of its calls; their peers must learn that they are over."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.cli.box import HOST, Box
from tests.bench import lines, records
from tests.bench.crash import wait_restarted
from tests.bench.uac import header
from tests.interop.conftest import metric
from tests.waiting import LIMIT_S, block_until

pytestmark = pytest.mark.peer

OFFER = f"v=0\r\no=- 1 1 IN IP4 {HOST}\r\ns=-\r\nc=IN IP4 {HOST}\r\nt=0 0\r\nm=audio 9 RTP/AVP 0\r\n"
"""Nobody listens there: what is heard does not matter."""


class Caller:
    """One call, written out by hand."""

    def __init__(self, sock: socket.socket, box: Box) -> None:
        self._sock = sock
        self._box = box
        self._here = "{}:{}".format(*sock.getsockname())
        self._to = f"<{box.uri(lines.LISTENER)}>"
        self.cseq = 0

    def send(self, method: str, cseq: int, body: str = "") -> None:
        kind = "Content-Type: application/sdp\r\n" if body else ""
        text = (
            f"{method} {self._box.uri(lines.LISTENER)} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP {self._here};branch=z9hG4bK{method}{cseq}\r\nMax-Forwards: 70\r\n"
            f"From: <sip:ann@{self._here}>;tag=ann\r\nTo: {self._to}\r\nCall-ID: restart\r\nCSeq: {cseq} {method}\r\n"
            f"Contact: <sip:ann@{self._here}>\r\n{kind}Content-Length: {len(body)}\r\n\r\n{body}"
        )
        self._sock.sendto(text.encode(), (HOST, self._box.sip_port))

    def ask(self, method: str, body: str = "") -> int:
        """Send the next request and give its final status; the To tag of an answer to INVITE is kept."""
        self.cseq += 1
        self.send(method, self.cseq, body)
        while True:
            answer = self._sock.recv(65536).decode()
            status = int(answer[8:11])
            if header(answer, "CSeq") == f"{self.cseq} {method}" and status >= 200:
                break
        if method == "INVITE":
            self._to = header(answer, "To")
            self.send("ACK", self.cseq)
        return status


def test_a_lost_call_is_told_to_be_over_after_the_restart(start_box: Callable[..., Box], tmp_path: Path) -> None:
    box = start_box(lines.settings(tmp_path))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((HOST, 0))
        sock.settimeout(LIMIT_S)
        caller = Caller(sock, box)
        assert caller.ask("INVITE", OFFER) == 200
        assert caller.ask("INFO") == 200
        control = box.processes()["control"]
        os.kill(control, signal.SIGKILL)
        assert wait_restarted(box, "control", control), box.log_tail()
        assert [caller.ask("INVITE", OFFER), caller.ask("INFO"), caller.ask("BYE")] == [481, 481, 481]
    (call,) = records.wait_settled(box.database, 1)
    assert call["disposition"] == "interrupted"


def test_with_broken_dialplans_it_comes_back_with_those_before(tmp_path: Path) -> None:
    plans = tmp_path / "plans"
    plans.mkdir()
    file = plans / "desk.yaml"
    sound = "name: desk\nflow: {bye: {hang_up: Goodbye.}}\n"
    file.write_text(sound)
    settings = {
        "dialplans": {"paths": [str(plans)], "watch": False},
        "engines.asr.provider": "fake",
        "engines.tts": {"provider": "fake", "fallback": "none"},
        "engines.turn.provider": "fake",
    }
    with Box(tmp_path / "box", settings) as box:
        assert metric(box, "appliance_dialplans_outdated") == 0
        file.write_text(sound.replace("hang_up", "hangup"))
        for _ in range(2):  # what it goes on with is kept on
            control = box.processes()["control"]
            os.kill(control, signal.SIGKILL)
            assert wait_restarted(box, "control", control), box.log_tail()
            assert [line["name"] for line in json.loads(box.get("/phone/lines")[1])["lines"]] == ["desk"]
            assert metric(box, "appliance_dialplans_outdated") == 1
            assert list(json.loads(box.get("/readyz")[1])["warnings"]) == ["dialplans"]
        assert "desk.yaml:2: flow.bye: the step does nothing" in box.log.read_text()
        file.write_text(sound.replace("desk", "evening"))
        os.kill(box.pid, signal.SIGHUP)
        block_until(lambda: metric(box, "appliance_dialplans_outdated") == 0)
        assert "warnings" not in json.loads(box.get("/readyz")[1])
        assert "Traceback" not in box.log.read_text()
