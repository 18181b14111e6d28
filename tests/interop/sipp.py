"""SIPp as a caller and as the one called, with the scenarios of ``tests/interop/sipp/``.

A scenario fails by itself where a message that it waits for does not come, another comes in its place, or a regular
expression on it does not match; :class:`SippFailed` then carries SIPp's own words and the messages that passed.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from appliance.cli.box import HOST, free_port
from appliance.errors import ApplianceError
from tests.waiting import LIMIT_S

SCENARIOS = Path(__file__).parent / "sipp"


class SippFailed(ApplianceError):
    """The scenario did not run as it is written."""


def missing() -> str:
    """Why SIPp can't be used here; empty when it can."""
    return "" if shutil.which("sipp") else "sipp is not installed (make peers)"


class Sipp:
    """One run of a scenario, in ``folder``, which must be its own.

    Args:
        remote: whom to call; where SIPp is called, any address of the right kind.
        service: the number called (``[service]``).
        keys: further ``[name]`` of the scenario.
        transport: as SIPp names them: ``u1``, ``t1``.
        calls, rate: how many calls, and how many of them begin in a second.
    """

    def __init__(
        self,
        scenario: str,
        folder: Path,
        *,
        remote: tuple[str, int] | None = None,
        service: str = "1001",
        keys: Mapping[str, str] | None = None,
        transport: str = "u1",
        calls: int = 1,
        rate: float = 10,
        host: str = HOST,
        port: int = 0,
        timeout_s: float = 60.0,
        options: tuple[str, ...] = (),
    ) -> None:
        self.scenario = scenario
        self.folder = folder
        self.port = port or free_port()
        self.host = host
        self._timeout_s = timeout_s
        folder.mkdir(parents=True, exist_ok=True)
        where = [f"{_bracketed(remote[0])}:{remote[1]}"] if remote else []
        command = ["sipp", *where, "-sf", str(SCENARIOS / f"{scenario}.xml"), "-i", host, "-p", str(self.port)]
        command += ["-mi", host, "-mp", str(free_port()), "-m", str(calls), "-r", str(rate), "-t", transport]
        command += ["-s", service, "-nostdin", "-trace_err", "-error_file", "errors.log", "-trace_msg"]
        command += ["-message_file", "messages.log", "-timeout", f"{timeout_s:.0f}s", "-timeout_error"]
        for name, value in (keys or {}).items():
            command += ["-key", name, value]
        self._output = (folder / "output.log").open("wb")
        self._process = subprocess.Popen(
            [*command, *options], cwd=folder, stdin=subprocess.DEVNULL, stdout=self._output, stderr=subprocess.STDOUT
        )

    @property
    def uri(self) -> str:
        """How to call it."""
        return f"sip:peer@{_bracketed(self.host)}:{self.port}"

    def wait(self, timeout_s: float | None = None) -> str:
        """Wait for the end; gives all messages.

        Raises:
            SippFailed: it did not end well.
        """
        try:
            code = self._process.wait(timeout_s or self._timeout_s + 5.0)
        except subprocess.TimeoutExpired:
            self.stop()
            raise SippFailed(f"{self.scenario} did not come to its end\n{self.words()}") from None
        self._output.close()
        if code != 0:
            raise SippFailed(f"{self.scenario} left with {code}\n{self.words()}")
        return self.messages()

    def wait_ready(self) -> None:
        """Wait until SIPp, as the one called, has its socket.

        Raises:
            SippFailed: it does not come up.
        """
        deadline = time.monotonic() + LIMIT_S
        while f":{self.port:04X} " not in "".join(
            Path(f"/proc/net/{kind}").read_text() for kind in ("udp", "tcp", "udp6", "tcp6")
        ):
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise SippFailed(f"{self.scenario} does not listen\n{self.words()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it now, if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._output.close()

    def messages(self) -> str:
        """What was sent and received so far."""
        return _text(self.folder / "messages.log")

    def words(self) -> str:
        """What SIPp says about its end."""
        return f"{_text(self.folder / 'errors.log')[-3000:]}\n{_text(self.folder / 'output.log')[-300:]}"

    def __enter__(self) -> Sipp:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def call(scenario: str, folder: Path, remote: tuple[str, int], **options: object) -> str:
    """Run a scenario of a caller to its end; gives all messages.

    Raises:
        SippFailed: it did not end well.
    """
    with Sipp(scenario, folder, remote=remote, **options) as sipp:  # type: ignore[arg-type]
        return sipp.wait()


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
