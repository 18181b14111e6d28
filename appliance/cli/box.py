"""A whole ``appliance serve`` as a child process, on free ports and with a state directory of its own.

The demo, the tests and the benchmarks all start the box through this, so that they drive exactly what an operator
would start.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from appliance.errors import ApplianceError

HOST = "127.0.0.1"
_MODULES = {
    "appliance.media.process": "media",
    "appliance.store.process": "recorder",
    "appliance.server.control": "control",
    "appliance.plugins.host": "plugins",
}
_RTP_SPAN = 512
_FIRST_RTP_PORT, _LAST_RTP_PORT = 10_000, 32_000
_FIRST_PORT, _LAST_PORT = 61_000, 65_500
_rtp_locks: dict[str, list[int]] = {}
_LONGEST_RUNTIME_DIR = 80
"""Names of sockets below it must fit into 107 bytes."""
_POLL_S = 0.05


class BoxError(ApplianceError):
    """The box did not start, or did not stop, in time; the message carries the end of its log."""


def free_port() -> int:
    """An even port on loopback that nobody has bound for UDP or TCP, nor the one above it.

    It lies above the ports that the kernel gives out by itself, so that no connection takes it before its use, and
    this process is not given it again for a long while.

    Raises:
        BoxError: there is none.
    """
    for _ in range(_FIRST_PORT, _LAST_PORT, 2):
        port = next(_ports)
        if all(_is_free(port + above, kind) for above in (0, 1) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)):
            return port
    raise BoxError(f"no free port between {_FIRST_PORT} and {_LAST_PORT}")


def _is_free(port: int, kind: socket.SocketKind) -> bool:
    with socket.socket(socket.AF_INET, kind) as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _shuffled_ports() -> Iterator[int]:
    """The even ports over and over, from a place of this process's own: others beside it look elsewhere."""
    while True:
        yield from random.sample(range(_FIRST_PORT, _LAST_PORT, 2), (_LAST_PORT - _FIRST_PORT) // 2)


_ports = _shuffled_ports()


def free_rtp_range(span: int = _RTP_SPAN) -> str:
    """``first-last`` of a range below the ephemeral ports that no other box of this machine's tests has been given.

    It is this process's until :func:`release_rtp_range`, by locks on files, so that boxes beside one another never
    mix their audio, and who watches the wire knows whose packets they are.

    Raises:
        BoxError: every range is taken.
    """
    count = -(-span // _RTP_SPAN)
    for first in range(_FIRST_RTP_PORT, _LAST_RTP_PORT - count * _RTP_SPAN, _RTP_SPAN):
        locks: list[int] = []
        try:
            for block in range(first, first + count * _RTP_SPAN, _RTP_SPAN):
                path = Path(tempfile.gettempdir()) / f"appliance-rtp-{block}.lock"
                locks.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666))
                fcntl.flock(locks[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                    probe.bind((HOST, block))
        except OSError:
            for lock in locks:
                os.close(lock)
            continue
        taken = f"{first}-{first + span - 1}"
        _rtp_locks[taken] = locks
        return taken
    raise BoxError(
        f"no free range of RTP ports between {_FIRST_RTP_PORT} and {_LAST_RTP_PORT}; are many other boxes running?"
    )


def release_rtp_range(taken: object) -> None:
    """Give back a range of :func:`free_rtp_range`; anything else is ignored."""
    for lock in _rtp_locks.pop(str(taken), []):
        os.close(lock)


class Box:
    """One running appliance.

    ``directory`` takes its database, recordings, sockets and log. ``settings`` are dotted keys of ``appliance.yaml``
    laid over the ones that make it independent of every other box on the machine. ``under`` is a command that runs
    the one behind it in its own place (by exec), for a network or a file system of the box's own. It does not outlive
    this process, however that ends.
    """

    def __init__(
        self,
        directory: Path,
        settings: Mapping[str, object] | None = None,
        environment: Mapping[str, str] | None = None,
        under: Sequence[str] = (),
    ) -> None:
        self.directory = directory.absolute()
        self.sip_port = free_port()
        self.http_port = free_port()
        self.database = self.directory / "appliance.db"
        self.recordings = self.directory / "recordings"
        self.log = self.directory / "serve.log"
        self.environment = dict(environment or {})
        self._under = list(under)
        runtime_dir = self.directory / "run"
        if len(os.fsencode(runtime_dir)) > _LONGEST_RUNTIME_DIR:
            runtime_dir = Path(tempfile.mkdtemp(prefix="box-"))
            weakref.finalize(self, shutil.rmtree, runtime_dir, ignore_errors=True)
        self.settings: dict[str, object] = {
            "listen.sip": [{"transport": "udp", "host": HOST, "port": self.sip_port}],
            "listen.http.host": HOST,
            "listen.http.port": self.http_port,
            "listen.media.port": free_port(),
            "state_dir": str(self.directory),
            "runtime_dir": str(runtime_dir),
            **(settings or {}),
        }
        if "listen.rtp_ports" not in self.settings:
            self.settings["listen.rtp_ports"] = free_rtp_range()
        weakref.finalize(self, release_rtp_range, self.settings["listen.rtp_ports"])
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        if self._process is None:
            raise BoxError("the box has not been started")
        return self._process.pid

    @property
    def sip_uri(self) -> str:
        return f"sip:{HOST}:{self.sip_port}"

    def uri(self, user: str) -> str:
        """The SIP URI of a number on this box."""
        return f"sip:{user}@{HOST}:{self.sip_port}"

    def start(self, timeout_s: float = 60.0) -> None:
        """Start and wait for the line that says it is ready.

        Raises:
            BoxError: it left, or was not ready in time.
        """
        self.launch()
        self.wait_ready(timeout_s)

    def launch(self) -> None:
        """Start without waiting."""
        self.directory.mkdir(parents=True, exist_ok=True)
        command = [*self._under, sys.executable, "-m", "appliance.cli.main", "serve", "--with-parent"]
        for key, value in self.settings.items():
            command += ["--set", f"{key}={json.dumps(value) if not isinstance(value, str) else value}"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                env={**_inherited_environment(), **self.environment}, start_new_session=True,
            )  # fmt: skip

    def wait_ready(self, timeout_s: float) -> None:
        """Wait until ``/readyz`` answers 200.

        Raises:
            BoxError: it left, or was not ready in time.
        """
        process = self._process
        if process is None:
            raise BoxError("the box has not been started")
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise BoxError(
                    f"appliance serve left with {process.returncode} before it was ready:\n{self.log_tail()}"
                )
            status, _ = self.get("/readyz")
            if status == 200:
                return
            time.sleep(_POLL_S)
        self.stop(1.0)
        raise BoxError(f"appliance serve was not ready after {timeout_s:.0f} s:\n{self.log_tail()}")

    def stop(self, timeout_s: float = 20.0) -> int:
        """Ask it to drain and leave, and give its exit code; kills it (and answers -9) when it does not.

        A second call gives the code again.
        """
        process = self._process
        if process is None:
            return 0
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                for pid in self.processes().values():
                    _kill(pid)
                process.kill()
                process.wait()
        return process.returncode

    def get(self, path: str, timeout_s: float = 2.0) -> tuple[int, str]:
        """(status, body) of an HTTP GET on the box; status 0 when nobody answers."""
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.http_port}{path}", timeout=timeout_s) as reply:
                return int(reply.status), reply.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read().decode(errors="replace")
        except OSError:
            return 0, ""

    def get_json(self, path: str) -> Any:
        """The JSON at ``path``.

        Raises:
            BoxError: the box does not answer, or not with JSON.
        """
        status, body = self.get(path)
        try:
            return json.loads(body)
        except ValueError:
            raise BoxError(f"GET {path} gave {status}: {body[:200]!r}") from None

    def processes(self) -> dict[str, int]:
        """Process ids by name (``supervisor``, ``media``, ``control``, ``asr-0``...), as the kernel lists them now."""
        found = {"supervisor": self.pid}
        for pid in _children(self.pid):
            name = _process_name(pid)
            while name in found:
                name += "+"
            found[name] = pid
        return found

    def log_tail(self, lines: int = 30) -> str:
        """The end of what the box printed."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def wait_logged(self, words: str, timeout_s: float = 20.0) -> None:
        """Wait until the box has printed ``words``, on any line.

        Raises:
            BoxError: it did not; the message carries the end of its log.
        """
        deadline = time.monotonic() + timeout_s
        while not self.log.exists() or words not in self.log.read_text(errors="replace"):
            if time.monotonic() > deadline:
                raise BoxError(f"appliance serve did not print {words!r} in {timeout_s:.0f} s:\n{self.log_tail()}")
            time.sleep(0.05)

    def __enter__(self) -> Box:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _inherited_environment() -> dict[str, str]:

    return dict(os.environ)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(child) for child in task.read_text().split()]
    return found + [grandchild for child in found for grandchild in _children(child)]


def _process_name(pid: int) -> str:
    """The supervisor's name of a child, from its command line."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return f"pid-{pid}"
    if "--name" in words[:-1]:
        return words[words.index("--name") + 1]
    return next((name for module, name in _MODULES.items() if module in words), f"pid-{pid}")


def _kill(pid: int) -> None:

    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
