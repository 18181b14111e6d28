"""baresip, driven over its control socket (JSON in netstrings)."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from appliance.cli.box import HOST, free_port
from appliance.cli.softphone import read_wav, write_wav
from tests.peers.phone import PeerError
from tests.waiting import LIMIT_S

_MODULES = Path("/usr/lib/baresip/modules")
_CODEC_MODULES = ("g711", "g722", "opus", "srtp")
_CONFIG = """\
poll_method epoll
sip_listen {host}:{sip}
audio_source aufile,{speech}
audio_player aubridge,sink
audio_alert aubridge,alert
ausrc_srate 8000
auplay_srate 8000
ausrc_channels 1
auplay_channels 1
rtp_ports {rtp}-{rtp_last}
module_path {modules}
{codecs}module sndfile.so
module aufile.so
module aubridge.so
module_tmp account.so
module_app menu.so
module_app ctrl_tcp.so
ctrl_tcp_listen {host}:{control}
snd_path {folder}
"""


def missing() -> str:
    """Why baresip can't be used here; empty when it can."""
    if shutil.which("baresip") is None:
        return "baresip is not installed (make peers)"
    gone = [
        name
        for name in (*_CODEC_MODULES, "sndfile", "aufile", "aubridge", "ctrl_tcp")
        if not (_MODULES / f"{name}.so").exists()
    ]
    return f"baresip lacks its modules {', '.join(gone)}; Debian's baresip-core has them (make peers)" if gone else ""


_LONGEST_FOLDER = 90


class Baresip:
    """One baresip, in ``folder``, whose path must be short: baresip drops recordings with long names, and says nothing.

    Args:
        codec: as baresip names it: ``PCMA/8000/1``, ``G722/16000/1``, ``opus/48000/2``.
        ptime_ms: of the packets it sends and asks for.
        account: further parameters of its account, such as ``mediaenc=srtp-mand``.
        speech: a WAV of 8 kHz that is its microphone; without one it says nothing.
        config: further lines of its configuration.
        sip_port: of UDP and TCP; TLS has the next one.
    """

    name = "baresip"

    def __init__(
        self,
        folder: Path,
        *,
        codec: str = "PCMU/8000/1",
        ptime_ms: int = 20,
        account: str = "",
        speech: Path | None = None,
        config: str = "",
        sip_port: int = 0,
    ) -> None:
        if len(str(folder)) > _LONGEST_FOLDER:
            raise PeerError(f"baresip would record nothing in {folder}: use a path of {_LONGEST_FOLDER} characters")
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        if speech is None:
            speech = folder / "speech.wav"
            write_wav(speech, _quiet(60))
        control, rtp = free_port(), free_port()
        self.sip_port = sip_port or free_port()
        (folder / "config").write_text(
            _CONFIG.format(
                host=HOST, sip=self.sip_port, speech=speech, rtp=rtp, rtp_last=rtp + 20, modules=_MODULES,
                control=control, folder=folder, codecs="".join(f"module {name}.so\n" for name in _CODEC_MODULES),
            )
            + config
        )  # fmt: skip
        parameters = f"regint=0;audio_codecs={codec};ptime={ptime_ms}" + (f";{account}" if account else "")
        (folder / "accounts").write_text(f"<sip:tester@{HOST}>;{parameters}\n")
        (folder / "contacts").touch()
        self._log = (folder / "baresip.log").open("wb")
        self._process = subprocess.Popen(
            ["baresip", "-4", "-f", str(folder)], stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT
        )
        try:
            self._socket = self._connect(control)
        except PeerError:
            self._process.kill()
            self._process.wait()
            self._log.close()
            raise
        self._buffer = b""
        self._events: list[dict[str, Any]] = []

    def _connect(self, port: int) -> socket.socket:
        deadline = time.monotonic() + LIMIT_S
        while True:
            try:
                return socket.create_connection((HOST, port), timeout=1.0)
            except OSError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise PeerError(f"baresip does not come up: {self.log()}") from None
                time.sleep(0.05)

    def log(self) -> str:
        return (self.folder / "baresip.log").read_text(errors="replace")[-2000:]

    def dial(self, uri: str) -> None:
        self._command("dial", uri)
        self._wait("CALL_ESTABLISHED", 15.0)

    def wait_answered(self, timeout_s: float) -> None:
        """Wait until a call that came in is up; ``account`` says ``answermode=auto``."""
        self._wait("CALL_ESTABLISHED", timeout_s)

    def press(self, digit: str) -> None:
        self._command("sndcode", digit)

    def hang_up(self) -> None:
        self._command("hangup")
        self._wait("CALL_CLOSED", 10.0)

    def wait_established(self, timeout_s: float) -> None:
        """Wait until a call is up, whoever began it."""
        self._wait("CALL_ESTABLISHED", timeout_s)

    def wait_closed(self, timeout_s: float) -> None:
        self._wait("CALL_CLOSED", timeout_s)

    def heard(self) -> Any:
        """What baresip itself decoded and kept, int16 at 8 kHz; complete once it is closed."""
        files = sorted(self.folder.glob("dump-*-dec.wav"))
        return read_wav(files[-1]) if files else _quiet(0)

    def recorded_s(self) -> float:
        """Length of what baresip itself decoded and kept."""
        return len(self.heard()) / 8000

    def close(self) -> None:
        try:
            self._command("quit")
            self._process.wait(5.0)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._socket.close()
        self._log.close()

    def _command(self, name: str, parameters: str = "") -> None:
        order = json.dumps({"command": name, "params": parameters, "token": name}).encode()
        self._socket.sendall(b"%d:%s," % (len(order), order))

    def _wait(self, kind: str, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            for event in self._events:
                if event.get("type") == kind:
                    self._events.remove(event)
                    return
                if event.get("type") == "CALL_CLOSED" and kind != "CALL_CLOSED":
                    raise PeerError(f"baresip's call was closed: {event.get('param')}")
            left = deadline - time.monotonic()
            if left <= 0:
                raise PeerError(f"no {kind} from baresip within {timeout_s:.0f} s: {self.log()}")
            self._socket.settimeout(left)
            try:
                self._buffer += self._socket.recv(65536)
            except TimeoutError:
                continue
            while found := re.match(rb"(\d+):", self._buffer):
                start, size = found.end(), int(found.group(1))
                if len(self._buffer) < start + size + 1:
                    break
                self._events.append(json.loads(self._buffer[start : start + size]))
                self._buffer = self._buffer[start + size + 1 :]


def _quiet(seconds: int) -> Any:
    import numpy as np

    return np.zeros(8000 * seconds, np.int16)
